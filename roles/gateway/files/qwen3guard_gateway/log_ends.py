# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the log files end: the last record of each, and what a crash left behind it.

Files are read from their end, so that it takes milliseconds whatever their size.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import typing as t
import zlib
from pathlib import Path

from .errors import JournalError
from .record import Head, is_chained, read_head

ACTIVE = "audit.log"
TORN = ".torn-"
FILE_MODE = 0o640
_LOG = re.compile(r"audit\.log|audit-.*\.log")  # the latter with logrotate's `extension`
_BLOCK = 256 * 1024
_MOST_DAMAGED = 64 * 1024 * 1024  # no batch is that long: more than this is not the trace of a crash
_MOST_FOREIGN = 1000  # lines of others that may follow the last record of ours


class End(t.NamedTuple):
    """The last undamaged record of a chain in one file."""

    path: Path
    head: Head
    time: str


class Cut(t.NamedTuple):
    """A damaged end that was moved out of a log, into a file of its own."""

    file: str
    bytes: int
    sha256: str
    kept_as: str


def log_files(directory: Path) -> list[Path]:
    """The active log and what rotation made of it, the one written last first. Without what repairs set aside."""
    found = []
    with os.scandir(directory) as entries:
        for entry in entries:
            if _LOG.match(entry.name) and TORN not in entry.name and entry.is_file(follow_symlinks=False):
                found.append((entry.name == ACTIVE, entry.stat().st_mtime_ns, entry.name))
    return [directory / name for _active, _written, name in sorted(found, reverse=True)]


def is_compressed(path: Path) -> bool:
    """Whether rotation compressed this file."""
    return path.suffix in (".gz", ".xz", ".bz2", ".zst")


def lines_backwards(descriptor: int, size: int) -> t.Iterator[tuple[int, bytes]]:
    """The lines of a file, the last one first, each with its offset. Only the last can be without an end."""
    position, rest = size, b""
    while position:
        step = min(_BLOCK, position)
        position -= step
        block = _read_at(descriptor, position, step) + rest
        end = len(block)
        while end:
            start = block.rfind(b"\n", 0, end - 1) + 1
            if start == 0 and position:
                break  # this line may begin further in front
            yield position + start, block[start:end]
            end = start
        rest = block[:end]


def _read_at(descriptor: int, position: int, count: int) -> bytes:
    """Exactly these bytes, or fewer where the file has become shorter."""
    pieces = []
    while count:
        piece = os.pread(descriptor, count, position)
        if not piece:
            break
        pieces.append(piece)
        position, count = position + len(piece), count - len(piece)
    return b"".join(pieces)


def read_end(path: Path) -> End | None:
    """The last record of a chain in a plain file; None if there is none near its end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        size = os.fstat(descriptor).st_size
        for number, (offset, line) in enumerate(lines_backwards(descriptor, size)):
            found = read_head(line)
            if found:
                return End(path, *found)
            if number >= _MOST_FOREIGN or size - offset > _MOST_DAMAGED:
                return None
    finally:
        os.close(descriptor)
    return None


def read_end_gzip(path: Path) -> End | None:
    """The same for a compressed file, all of which has to be read."""
    last = None
    try:
        with gzip.open(path) as lines:
            for line in lines:
                if is_chained(line):
                    last = line
    except (EOFError, zlib.error, gzip.BadGzipFile):
        pass  # compression was interrupted: what came until there counts
    found = read_head(last) if last else None
    return End(path, *found) if found else None


def damaged_from(descriptor: int, size: int) -> int:
    """Where the damaged end of a log begins; its size if the end is fine.

    A crash leaves part of a line; a lost power supply may leave zeros, or whole lines that are not what was written.
    """
    good = size
    for offset, line in lines_backwards(descriptor, size):
        if line.endswith(b"\n") and b"\0" not in line and (not is_chained(line) or read_head(line)):
            break
        good = offset
        if size - good > _MOST_DAMAGED:
            raise JournalError(f"the last {_MOST_DAMAGED >> 20} MiB of the log are damaged: look at it, move it away")
    return good


def cut_damaged_end(path: Path, when: str) -> Cut | None:
    """Move a damaged end into ``<file>.torn-<time>``; None if there is none. Nothing is deleted."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        size = os.fstat(descriptor).st_size
        good = damaged_from(descriptor, size)
        if good == size:
            return None
        damaged = _read_at(descriptor, good, size - good)
        if path.name != ACTIVE and not is_chained(damaged) and b"\0" not in damaged:
            return None  # a rotated file of someone else's lines may end as it likes
        kept = _keep(path, when, damaged)
        os.ftruncate(descriptor, good)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return Cut(path.name, len(damaged), hashlib.sha256(damaged).hexdigest(), kept.name)


def _keep(path: Path, when: str, damaged: bytes) -> Path:
    """A new file with these bytes, on disk before anything else happens."""
    kept = free_name(path, TORN, when)
    descriptor = os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    try:
        os.fchmod(descriptor, FILE_MODE)  # whatever the umask
        with os.fdopen(descriptor, "wb", closefd=False) as output:
            output.write(damaged)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_directory(path.parent)
    return kept


def free_name(path: Path, mark: str, when: str) -> Path:
    """A name next to ``path`` that says what happened and when, and that nothing has yet."""
    short = when.replace("-", "").replace(":", "")[:15]
    candidate, number = path.with_name(f"{path.name}{mark}{short}Z"), 1
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.name}{mark}{short}Z-{number}")
    return candidate


def sync_directory(directory: Path) -> None:
    """Make names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
