# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Find one record in a directory of live logs, rotated and compressed ones included.

Private to the collection: use the modules, not this file.

Every file is read: a clock that stepped makes a file's time no proof of what it cannot hold.
"""

from __future__ import annotations

import dataclasses
import os
import typing as t

from ..errors import GuardError, SourceChanged
from ..format.compressed import Unfinished, plain_reader, read_some
from ..format.record_search import Hit, LineFinder
from ..format.tree import FILE, Entry, Tree, scan

_CHUNK = 1 << 20
_SCANS = 3


@dataclasses.dataclass
class LiveSearch:
    """What a log directory told."""

    hits: list[tuple[str, Hit]] = dataclasses.field(default_factory=list)  # (absolute path, hit)
    files: int = 0
    bytes: int = 0  # of plain content
    not_searched: list[str] = dataclasses.field(default_factory=list)


def search_live(root: str, trace_id: str) -> LiveSearch:
    """Read all files below ``root``. A file that cannot be read is told of, and does not end the search."""
    found = LiveSearch()
    done: set[tuple[int, ...]] = set()  # device and inode
    for attempt in range(_SCANS):
        moved = []
        with Tree(root) as tree:
            for entry in scan(root)[0]:
                if entry.type != FILE or entry.identity[:2] in done:
                    continue
                try:
                    _search_file(tree, entry, trace_id, found)
                    done.add(entry.identity[:2])
                except SourceChanged as error:  # rotated between listing and opening: look where it is now
                    moved.append(str(error))
                except (GuardError, OSError) as error:
                    found.not_searched.append(_reason(root, entry.path, error))
                    done.add(entry.identity[:2])
        if not moved:
            return found
        if attempt == _SCANS - 1:
            found.not_searched.extend(moved)
    return found


def _reason(root: str, path: str, error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{os.path.join(root, path)}: {error.strerror or 'it cannot be read'}"
    return str(error)


def _search_file(tree: Tree, entry: Entry, trace_id: str, found: LiveSearch) -> None:
    where = os.path.join(tree.root, entry.path)
    finder = LineFinder(trace_id)
    size = 0
    with plain_reader(tree, entry) as reader:
        try:
            for data in _chunks(reader):
                finder.take(data)
                size += len(data)
        except Unfinished:
            found.not_searched.append(f"{where}: compressed, and without an end; read up to byte {size} of its content")
    found.files += 1
    found.bytes += size
    found.hits.extend((where, hit) for hit in finder.hits)


def _chunks(reader: t.Any) -> t.Iterator[bytes]:
    while data := read_some(reader, _CHUNK):
        yield data
