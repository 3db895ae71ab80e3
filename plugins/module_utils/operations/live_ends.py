# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ends of live logs: the newest record, and where a number of its chain lies.

Private to the collection: use the modules, not this file.

Nothing is read as a whole: a log of a busy day has gigabytes, and its lines stand in the order of their numbers.
"""

from __future__ import annotations

import os
import pathlib
import typing as t

from ..format.records import Record, parse_line

_TAIL = 64 << 10
_LONGEST_LINE = 16 << 20
_SET_ASIDE = (".torn-", ".suspect-")
_PACKED = (".gz", ".xz", ".bz2", ".zst")


def find_log(active: str) -> list[pathlib.Path]:
    """The active log and its rotated files that are not compressed, newest first. `OSError` without a directory."""
    path = pathlib.Path(active)
    dated = []
    for entry in os.scandir(path.parent):
        ours = entry.name.startswith(path.name) and not entry.name.endswith(_PACKED)
        if ours and not any(mark in entry.name for mark in _SET_ASIDE) and entry.is_file(follow_symlinks=False):
            dated.append((entry.name == path.name, entry.stat().st_mtime_ns, pathlib.Path(entry.path)))
    return [file for _active, _time, file in sorted(dated, reverse=True)]


def newest_record(log: t.Sequence[pathlib.Path]) -> Record | None:
    """The last record of the newest file that has one."""
    for file in log:
        with file.open("rb") as handle:
            size = os.fstat(handle.fileno()).st_size
            reach = _TAIL
            while True:
                start = max(0, size - reach)
                handle.seek(start)
                lines = handle.read(size - start).splitlines(keepends=True)[1 if start else 0 :]
                found = next((record for line in reversed(lines) if (record := parse_line(line))), None)
                if found is not None:
                    return found
                if not start or reach > _LONGEST_LINE:
                    break
                reach *= 16
    return None


def find_number(log: t.Sequence[pathlib.Path], chain: str, number: int) -> Record | None:
    """The record of that number, or the first after it that these files have. ``chain`` is the newest one."""
    best: Record | None = None
    for file in log:
        with file.open("rb") as handle:
            found = _search(handle, chain, number)
            first = _record_after(handle, 0)
        if found is not None:
            best = found
        if first is not None and (first.chain != chain or first.seq <= number):
            break  # what is older begins before it
    return best


def _search(handle: t.BinaryIO, chain: str, number: int) -> Record | None:
    """Bisect by bytes. Records of another chain stand before those of the newest."""
    low, high = 0, os.fstat(handle.fileno()).st_size
    found = None
    while low < high:
        middle = (low + high) // 2
        record = _record_after(handle, middle)
        if record is None or (record.chain == chain and record.seq >= number):
            found = record or found
            high = middle
        else:
            low = middle + 1
    # What lies after ``low`` is the first that fits.
    return _fitting(_record_after(handle, low), chain, number) or _fitting(found, chain, number)


def _fitting(record: Record | None, chain: str, number: int) -> Record | None:
    return record if record is not None and record.chain == chain and record.seq >= number else None


def _record_after(handle: t.BinaryIO, offset: int) -> Record | None:
    """The first record whose line begins at ``offset`` or after it."""
    handle.seek(max(0, offset - 1))
    if offset:
        handle.readline(_LONGEST_LINE)  # the rest of the line before, or only its end
    while line := handle.readline(_LONGEST_LINE):
        if record := parse_line(line):
            return record
    return None
