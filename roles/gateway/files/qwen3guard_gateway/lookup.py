# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Find one record in the live logs by its trace_id.

The newest files first and each from its end, because people ask for what just happened. Memory stays bounded by the
longest line; one search runs at a time, so that curious people cannot keep the disk from the audits.
"""

from __future__ import annotations

import asyncio
import datetime
import gzip
import json
import logging
import re
import typing as t
import zlib
from pathlib import Path

from .log_ends import is_compressed, log_files
from .record import is_chained, read_head

_BLOCK = 1024 * 1024
_MOST_LINE = 64 * 1024 * 1024
_MOST_WAITING = 16
_SLACK = datetime.timedelta(days=1)  # clocks are set, and zones are nobody's business here
_TRACE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DAY = re.compile(r"[A-Za-z]{1,16}-([0-9]{8})-")
logger = logging.getLogger(__name__)


class LookupBusy(Exception):
    """Too many searches wait already."""


class _Turn:
    """Whose turn it is to search; belongs to one event loop."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.waiting = 0


_turns: dict[asyncio.AbstractEventLoop, _Turn] = {}


async def find_record(directory: str | Path, trace_id: str) -> dict[str, t.Any] | None:
    """The record as it was written, plus ``intact``: whether its hash is right (None for a record without a chain).

    None if no live log has it. Raises `LookupBusy`.
    """
    if not _TRACE_ID.fullmatch(trace_id):
        return None
    loop = asyncio.get_running_loop()
    turn = _turns.setdefault(loop, _Turn())
    if turn.waiting >= _MOST_WAITING:
        raise LookupBusy(f"{turn.waiting} searches wait already")
    turn.waiting += 1
    # A thread cannot be cancelled: who goes away leaves the turn taken until the search has ended.
    return await asyncio.shield(loop.create_task(_search_in_turn(turn, Path(directory), trace_id)))


async def _search_in_turn(turn: _Turn, directory: Path, trace_id: str) -> dict[str, t.Any] | None:
    loop = asyncio.get_running_loop()
    try:
        async with turn.lock:
            return await loop.run_in_executor(None, search, directory, trace_id)
    finally:
        turn.waiting -= 1
        if not turn.waiting and _turns.get(loop) is turn:
            del _turns[loop]


def search(directory: Path, trace_id: str) -> dict[str, t.Any] | None:
    """The same, in this thread."""
    seen: set[tuple[int, int]] = set()
    for _attempt in range(3):  # rotation may rename files while they are searched
        complete = True
        for path in log_files(directory):
            try:
                status = path.stat()
                if (status.st_dev, status.st_ino) in seen or not _can_hold(path, status.st_mtime, trace_id):
                    continue
                line = _search_packed(path, trace_id) if is_compressed(path) else _search_plain(path, trace_id)
            except FileNotFoundError:
                complete = False
                continue
            except (OSError, EOFError, zlib.error) as error:
                logger.warning("%s cannot be searched: %s", path, error)
                continue
            seen.add((status.st_dev, status.st_ino))
            if line is not None:
                return line
        if complete:
            return None
    return None


def _can_hold(path: Path, written: float, trace_id: str) -> bool:
    """Whether a file, by when it was begun and last written, can hold a record of the day in the trace_id."""
    found = _DAY.match(trace_id)
    try:
        day = datetime.datetime.strptime(found.group(1) if found else "", "%Y%m%d").replace(
            tzinfo=datetime.timezone.utc
        )
        last = datetime.datetime.fromtimestamp(written, datetime.timezone.utc)
    except (ValueError, OverflowError):
        return True
    if last < day - _SLACK:
        return False
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
        first = read_head(file.readline(_MOST_LINE))
    return first is None or first[1][:10] <= (day + _SLACK + datetime.timedelta(days=1)).strftime("%Y-%m-%d")


def _pattern(trace_id: str) -> bytes:
    # Within a JSON text quotes are escaped: no text of a user's can look like this.
    return f'"{trace_id}"'.encode()


def _check(line: bytes, trace_id: str) -> dict[str, t.Any] | None:
    """The record in this line, if it is the one."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or record.get("trace_id") != trace_id:
        return None
    return {**record, "intact": read_head(line) is not None if is_chained(line) else None}


def _search_plain(path: Path, trace_id: str) -> dict[str, t.Any] | None:
    """From the end, block by block, each with a little of the one behind it."""
    pattern = _pattern(trace_id)
    with open(path, "rb") as file:
        position = file.seek(0, 2)
        end = position
        while position:
            step = min(_BLOCK, position)
            position -= step
            file.seek(position)
            block = file.read(min(step + len(pattern), end - position))
            at = block.rfind(pattern)
            while at >= 0:
                record = _check(_line_around(file, position + at), trace_id)
                if record is not None:
                    return record
                at = block.rfind(pattern, 0, at)
    return None


def _line_around(file: t.BinaryIO, inside: int) -> bytes:
    """The line that holds this byte."""
    start, before = inside, b""
    while start and b"\n" not in before and len(before) < _MOST_LINE:
        step = min(4096, start)
        start -= step
        file.seek(start)
        before = file.read(step) + before
    begin = start + before.rfind(b"\n") + 1
    file.seek(begin)
    return file.readline(_MOST_LINE)


def _search_packed(path: Path, trace_id: str) -> dict[str, t.Any] | None:
    if path.suffix != ".gz":
        return None
    pattern = _pattern(trace_id)
    with gzip.open(path) as file:
        for line in iter(lambda: file.readline(_MOST_LINE), b""):
            if pattern in line:
                record = _check(line, trace_id)
                if record is not None:
                    return record
    return None
