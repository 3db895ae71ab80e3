# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An audit log as found on real hosts: rotated in several ways, by a clock that was set back.

Every record is in the directory exactly once; only the names, times and files around them are confusing.
"""

from __future__ import annotations

import fnmatch
import gzip
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO

from .records import FIRST_TIME, Record, bulk_blocks, encode, make_record, time_between

ACTIVE = "audit.log"
PATTERN = "*audit*.log*"
SCHEMES = ("numbered", "dated")
DAY_SECONDS = 86400
CLOCK_STEP = timedelta(hours=-1)
DEFAULT_SEED = 20240520
_TORN_SHARE = 0.6
_COPY_BLOCK = 1 << 20


class Writer:
    """The service that writes the audit log, and the logrotate beside it.

    It writes through a descriptor that it holds, so that a renamed file goes on being written until
    ``reopen``. On a directory that has records it goes on after the highest number, with the time of that
    record. Each file's modification time is that of the simulated clock.
    """

    def __init__(self, logs_dir: Path, seed: int = DEFAULT_SEED, mean_seconds: float = 40.0):
        self.logs_dir = Path(logs_dir)
        self.seed = seed
        self.mean_seconds = mean_seconds
        self.logs_dir.mkdir(parents=True, exist_ok=True)
        self.seq, self.clock = self._last_record()
        self._pending: tuple[Record, bytes] | None = None
        self._file = self._open()
        self._resume_torn_line()

    @property
    def active(self) -> Path:
        return self.logs_dir / ACTIVE

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_details: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    # --- the service

    def append(self, count: int, torn: bool = False) -> list[Record]:
        """Write ``count`` whole records, and return them; with ``torn``, also the first half of one more.

        A half that was left before is completed first; its record counts as the first of the ``count``.
        """
        written: list[Record] = []
        while len(written) < count:
            written.append(self.complete() if self._pending else self._write_record())
        if torn and not self._pending:
            record = self._next_record()
            line = encode(record)
            # A byte, not a character: the cut may well go through a Chinese one.
            cut = int(len(line) * _TORN_SHARE)
            self._put(line[:cut])
            self._pending = (record, line[cut:])
        return written

    def complete(self) -> Record:
        """Write the rest of the half-written line."""
        if self._pending is None:
            raise ValueError(f"{self.active}: there is no half-written line to complete")
        record, rest = self._pending
        self._put(rest)
        self._pending = None
        self.seq = record["seq"]
        return record

    @property
    def torn(self) -> bool:
        return self._pending is not None

    def step_clock(self, step: timedelta = CLOCK_STEP) -> None:
        self.clock += step

    def advance_clock_to(self, when: datetime) -> None:
        """A quiet time until ``when``: nothing happens if it is past already."""
        self.clock = max(self.clock, when)

    def reopen(self) -> None:
        self._refuse_if_torn()
        self._file.close()
        self._file = self._open()

    # --- logrotate

    def rotate(self, scheme: str, reopen: bool = True) -> Path:
        """Rename the active file; without ``reopen`` the writer goes on writing to it under its new name."""
        if reopen:
            self._refuse_if_torn()
        target = self._rotated_name(scheme)
        self.active.rename(target)
        if reopen:
            self.reopen()
        return target

    def copytruncate(self, scheme: str = "numbered") -> Path:
        """Copy the active file and empty it. Nobody writes meanwhile: a real writer could lose lines here."""
        self._refuse_if_torn()
        target = self._rotated_name(scheme)
        shutil.copy2(self.active, target)
        os.truncate(self.active, 0)
        self._set_time(self.active)
        return target

    def compress(self, name: str) -> Path:
        """gzip a rotated file as logrotate does: a new file with the old one's time; then the old one goes."""
        source = self.logs_dir / name
        target = source.with_name(source.name + ".gz")
        before = source.stat()
        with (
            source.open("rb") as plain,
            target.open("xb") as raw,
            gzip.GzipFile(filename=source.name, fileobj=raw, mode="wb", mtime=int(before.st_mtime)) as packed,
        ):
            shutil.copyfileobj(plain, packed, _COPY_BLOCK)
        target.chmod(stat.S_IMODE(before.st_mode))
        os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))
        source.unlink()
        return target

    def _rotated_name(self, scheme: str) -> Path:
        if scheme == "numbered":
            self._shift_numbers()
            return self.logs_dir / f"{ACTIVE}.1"
        if scheme == "dated":
            # Two rotations on one date give a second name; a compressed file of that date does not count.
            first = self.logs_dir / f"{ACTIVE}-{self.clock:%Y%m%d}"
            candidates = [first] + [first.with_name(f"{first.name}.{number}") for number in range(1, 100)]
            return next(candidate for candidate in candidates if not candidate.exists())
        raise ValueError(f"rotation scheme: expected one of {', '.join(SCHEMES)}, found {scheme!r}")

    def _shift_numbers(self) -> None:
        numbered = []
        for path in self.logs_dir.iterdir():
            number, _dot, ending = path.name[len(ACTIVE) + 1 :].partition(".")
            if path.name.startswith(f"{ACTIVE}.") and number.isdigit() and ending in ("", "gz"):
                numbered.append((int(number), ending, path))
        for old_number, ending, path in sorted(numbered, reverse=True):
            path.rename(path.with_name(f"{ACTIVE}.{old_number + 1}" + (".gz" if ending else "")))

    # --- inside

    def _refuse_if_torn(self) -> None:
        if self._pending:
            raise ValueError(f"{self.active}: complete the half-written line first, or two files get a half each")

    def _open(self) -> IO[bytes]:
        return open(self.active, "ab", buffering=0)

    def _last_record(self) -> tuple[int, datetime]:
        last: Record | None = None
        for record in iter_records(self.logs_dir, torn=[]):
            if last is None or record["seq"] > last["seq"]:
                last = record
        if last is None:
            return 0, FIRST_TIME
        return last["seq"], datetime.fromisoformat(last["time"])

    def _resume_torn_line(self) -> None:
        tail = self.active.read_bytes().rpartition(b"\n")[2]
        if not tail:
            return
        # Its time was chosen by another writer, perhaps with other pauses: take it from the line.
        time = re.search(rb'"time": "([^"]+)"', tail)
        if time:
            self.clock = datetime.fromisoformat(time.group(1).decode("ascii"))
            record = make_record(self.seed, self.seq + 1, self.clock)
        else:
            record = self._next_record()
        line = encode(record)
        if not line.startswith(tail):
            raise ValueError(f"{self.active}: its half-written line is not of this generator with seed {self.seed}")
        self._pending = (record, line[len(tail) :])

    def _next_record(self) -> Record:
        self.clock += time_between(self.seed, self.seq + 1, self.mean_seconds)
        return make_record(self.seed, self.seq + 1, self.clock)

    def _write_record(self) -> Record:
        record = self._next_record()
        self._put(encode(record))
        self.seq = record["seq"]
        return record

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self._set_time(self._file.fileno())

    def _set_time(self, target: int | Path) -> None:
        # From whole numbers: a float of today's seconds has no room for nanoseconds.
        micro = (self.clock - datetime.fromtimestamp(0, self.clock.tzinfo)) // timedelta(microseconds=1)
        when = micro * 1000 + self.seq % 1000
        os.utime(target, ns=(when, when))


@dataclass
class History:
    """What ``write_history`` wrote: all whole records, and where the clock was set back."""

    records: list[Record]
    stepped_back_after_seq: int


def write_history(logs_dir: Path, days: int = 4, records_per_day: int = 500, seed: int = DEFAULT_SEED) -> History:
    """Several days of audit log, with every trap in it; the active file ends in a half-written line.

    Day by day, from the first: the clock is set back between two rotations of one date; numbered rotation and
    compression; a compressed and a plain file of nearly the same name; a rename that the writer notices late.
    More days repeat them, but the clock is set back only once.
    """
    if days < 1 or records_per_day < 8:
        raise ValueError(f"history: expected a day and 8 records a day or more, found {days} and {records_per_day}")
    written: list[Record] = []
    quarter = records_per_day // 4
    # The last 5 hours of a day stay quiet, so that each day's records carry its own date.
    with Writer(logs_dir, seed, mean_seconds=19 * 3600 / records_per_day) as writer:
        stepped_after = 0
        for day in range(days):
            writer.advance_clock_to(FIRST_TIME + timedelta(days=day))
            written += writer.append(quarter)
            if day == 0:
                writer.rotate("dated")
                stepped_after = writer.seq
                writer.step_clock()
                written += writer.append(quarter)
                writer.rotate("dated")
            elif day % 4 == 1:
                writer.rotate("numbered")
                written += writer.append(quarter)
                writer.rotate("numbered")
                writer.compress(f"{ACTIVE}.2")
            elif day % 4 == 2:
                writer.compress(writer.rotate("dated").name)
                written += writer.append(quarter)
                writer.rotate("dated")
            else:
                writer.rotate("dated", reopen=False)
                written += writer.append(quarter)  # into the renamed file
                writer.reopen()
                written += writer.append(quarter)
                writer.copytruncate("numbered")
            written += writer.append(records_per_day * (day + 1) - len(written))
        writer.append(0, torn=True)
    return History(written, stepped_after)


def iter_records(directory: Path, torn: list[str] | None = None) -> Iterator[Record]:
    """All records of all log files below a directory, file by file, compressed ones included.

    A last line without its end is no record: it is reported in ``torn``. Any other bad line is a ValueError.
    Symbolic links are not followed, and of several hard links to one file one is read.
    """
    seen: set[tuple[int, int]] = set()
    for path in sorted(Path(directory).rglob("*")):
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or not fnmatch.fnmatch(path.name, PATTERN):
            continue
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        yield from _file_records(path, torn)


def _file_records(path: Path, torn: list[str] | None) -> Iterator[Record]:
    opener = gzip.open if path.suffix == ".gz" else open
    offset = 0
    with opener(path, "rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                if torn is not None:
                    torn.append(f"{path}: half-written last line of {len(line)} bytes at offset {offset}")
                return
            try:
                yield json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path}: line {number} is no record: {error}") from error
            offset += len(line)


def bulk_lines(
    path: Path, size: int, seed: int = DEFAULT_SEED, first_seq: int = 1, start: datetime = FIRST_TIME
) -> int:
    """Write ``size`` bytes of log lines, and the rest of the last line; the number of records is returned."""
    count = 0
    with open(path, "wb") as output:
        for records, block in bulk_blocks(size, seed, first_seq, start):
            output.write(block)
            count += records
    return count


def many_rotated_files(
    directory: Path, files: int = 10_000, total_bytes: int = 1_000_000_000, seed: int = DEFAULT_SEED
) -> int:
    """A log directory that nobody tidied: ``files`` rotated files by the hour, half of them with a second name
    of the same hour, and the active file. The number of records is returned."""
    directory.mkdir(parents=True, exist_ok=True)
    seq = 1
    size = total_bytes // (files + 1)
    for number in range(files):
        when = FIRST_TIME + timedelta(hours=number // 2)
        name = f"{ACTIVE}-{when:%Y%m%d%H}" + (".1" if number % 2 else "")
        seq += bulk_lines(directory / name, size, seed, seq, when)
        os.utime(directory / name, (when.timestamp(), when.timestamp()))
    seq += bulk_lines(directory / ACTIVE, size, seed, seq, FIRST_TIME + timedelta(hours=files // 2))
    return seq - 1
