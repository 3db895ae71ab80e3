# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Find out which records a snapshot of the logs holds: read once more what was just stored of them.

Private to the collection: use the modules, not this file.

What is read must be, byte for byte, what the parts hold: their hashes are compared. It comes from the page cache.
Ids are kept in files, by day, until the day's table is made, so that memory does not grow with the logs.
"""

from __future__ import annotations

import bisect
import collections
import dataclasses
import hashlib
import os
import struct
import typing as t

from ..errors import SourceChanged
from ..format import record_summary
from ..format.compressed import Unfinished, plain_reader, read_some
from ..format.record_table import encode, table_name
from ..format.records import ID_BYTES, Run, Scanned, scan_block
from ..format.slicing import Part, PartEnds
from ..format.streams import part_end
from ..format.tree import FILE, Entry, Extent, Tree, scan
from ..services.keys.base import DataKey
from ..system.forked import run_forked
from .contents import hash_range
from .part_io import with_retries
from .session import Session, in_parallel

_BLOCK = 4 << 20
_LONGEST_LINE = 16 << 20  # what is longer is no record, and not worth the memory
_WORTH_FORKING = 16 << 20  # bytes; below that one process has done it before two have started
_SPILL = struct.Struct("<IQ")  # part, number of ids


class Log(t.NamedTuple):
    """A log file that a snapshot takes."""

    entry: Entry
    end: int  # whole lines of it end here; of a compressed one: its size
    packed: bool  # it is kept as it is, compressed
    grown: bool = False  # only the rest of a compressed file: what came before it is not at hand


@dataclasses.dataclass
class Found:
    """The records of a snapshot."""

    runs: list[dict[str, t.Any]]  # for the index
    summary: dict[str, t.Any]  # for the manifest; its tables are still to be made
    spills: dict[str, list[str]]  # day -> files with its ids


@dataclasses.dataclass
class _Unit:
    """What is scanned at one go: the lines of a log that begin in one part."""

    log: int  # its place in the list of logs
    part: int
    extents: list[Extent]

    @property
    def length(self) -> int:
        return sum(extent.length for extent in self.extents)


@dataclasses.dataclass
class _Scans:
    """What one process found."""

    runs: list[tuple[int, int, Run]] = dataclasses.field(default_factory=list)  # (log, part, run)
    hours: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    odd: int = 0
    spills: dict[str, str] = dataclasses.field(default_factory=dict)
    unreadable: list[int] = dataclasses.field(default_factory=list)  # logs
    changed: str = ""  # a file that is not what the parts hold


def part_ends(tree: Tree, logs: t.Sequence[Log]) -> PartEnds:
    """Parts end where lines do, in plain logs."""
    plain = {id(log.entry) for log in logs if not log.packed}
    return lambda entry, start, end: part_end(tree, entry, start, end) if id(entry) in plain else end


def scan_logs(session: Session, tree: Tree, logs: t.Sequence[Log], parts: t.Sequence[Part], scratch: str) -> Found:
    """Look at all records that the parts hold. Raises `SourceChanged` where a file is not what was stored."""
    units, left_out = _units(logs, parts)
    total = sum(unit.length for unit in units)
    session.progress.begin("reading records", total)
    processes = min(session.workers, os.cpu_count() or 1, len(units)) if total > _WORTH_FORKING else 1
    units.sort(key=lambda unit: unit.length, reverse=True)

    def job(number: int) -> _Scans:
        return _Scanner(tree, logs, os.path.join(scratch, str(number))).scan(units[number::processes])

    done = [job(0)] if processes <= 1 else run_forked(job, processes)
    changed = next((scans.changed for scans in done if scans.changed), "")
    if changed:
        raise SourceChanged(os.path.join(tree.root, changed), "the log that was just stored", "one that changed since")
    return _merged(logs, done, left_out)


def _units(logs: t.Sequence[Log], parts: t.Sequence[Part]) -> tuple[list[_Unit], list[int]]:
    """(what is to be scanned, logs that cannot be)."""
    starts = [part.start for part in parts]
    units: list[_Unit] = []
    left_out: list[int] = []
    for number, log in enumerate(logs):
        # Of a full the bytes after the last whole line are an extent of their own.
        extents = [extent for extent in log.entry.extents if extent.offset + extent.length <= log.end]
        if log.grown and extents:
            left_out.append(number)
        elif log.packed and extents:
            units.append(_Unit(number, bisect.bisect_right(starts, extents[0].position) - 1, extents))
        else:
            for extent in extents:
                part = bisect.bisect_right(starts, extent.position) - 1
                if units and (units[-1].log, units[-1].part) == (number, part):
                    units[-1].extents.append(extent)
                else:
                    units.append(_Unit(number, part, [extent]))
    return units, left_out


def _merged(logs: t.Sequence[Log], done: list[_Scans], left_out: list[int]) -> Found:
    runs = [item for scans in done for item in scans.runs]
    runs.sort(key=lambda item: (logs[item[0]].entry.path, item[2].offset))
    hours: collections.Counter[str] = collections.Counter()
    spills: dict[str, list[str]] = {}
    for scans in done:
        hours.update(scans.hours)
        for day, path in scans.spills.items():
            spills.setdefault(day, []).append(path)
    unreadable = sorted({*left_out, *(number for scans in done for number in scans.unreadable)})
    summary = {
        "count": sum(run.count for _log, _part, run in runs),
        "unchained": sum(run.count for _log, _part, run in runs if not run.chain),
        "odd": sum(scans.odd for scans in done),
        "hours": dict(sorted(hours.items())),
        "chains": record_summary.chains_of(run for _log, _part, run in runs),
        "tables": [],
        "not_scanned": [logs[number].entry.path for number in unreadable],
    }
    return Found([_indexed(logs[log], part, run) for log, part, run in runs], summary, spills)


def _indexed(log: Log, part: int, run: Run) -> dict[str, t.Any]:
    told = {"path": log.entry.path, "stream": log.entry.extra.get("stream"), "part": part, "packed": log.packed}
    return {**told, **vars(run)}


class _Scanner:
    """Scans units one after the other, in a process of its own where there is much to do."""

    def __init__(self, tree: Tree, logs: t.Sequence[Log], scratch: str):
        self.tree = tree
        self.logs = logs
        self.scratch = scratch
        self.found = _Scans()
        self._spilled: dict[str, int] = {}  # day -> bytes in its file
        self._elsewhere: dict[tuple[int, ...], str] | None = None  # where files lie by now
        os.mkdir(scratch, 0o700)

    def scan(self, units: t.Iterable[_Unit]) -> _Scans:
        """All that the units hold, up to the first that is not what was stored."""
        for unit in units:
            log = self.logs[unit.log]
            try:
                entry = self._where_it_is(log.entry)
                same = self._scan_packed(entry, unit) if log.packed else self._scan_plain(entry, log.end, unit)
            except SourceChanged:
                same = False
            if not same:
                self.found.changed = log.entry.path
                break
        return self.found

    def _where_it_is(self, entry: Entry) -> Entry:
        """The entry under the name that its file has now: rotation may rename it after its part was stored."""
        try:
            os.close(self.tree.open_file(entry))
            return entry
        except SourceChanged:
            if self._elsewhere is None:
                files = [e for e in scan(self.tree.root)[0] if e.type == FILE]
                self._elsewhere = {e.identity[:2]: e.path for e in files}
            if entry.identity[:2] not in self._elsewhere:
                raise
            return dataclasses.replace(entry, path=self._elsewhere[entry.identity[:2]])

    def _scan_plain(self, entry: Entry, end: int, unit: _Unit) -> bool:
        """Whether the file holds what was stored of it; its records are found then."""
        fd = self.tree.open_file(entry)
        try:
            start = unit.extents[0].offset
            # Only a line too long for a part goes on from the part before, where it was counted.
            begins_inside = start > 0 and os.pread(fd, 1, start - 1) != b"\n"
            chunks = _ExtentReader(fd, unit.extents, end)
            self._scan_chunks(unit, chunks, start, begins_inside)
        finally:
            os.close(fd)
        return chunks.same

    def _scan_packed(self, entry: Entry, unit: _Unit) -> bool:
        """The same for a compressed file, whose records may turn out not to be readable."""
        before = dict(self._spilled)
        try:
            with plain_reader(self.tree, entry) as reader:
                self._scan_chunks(unit, iter(lambda: read_some(reader, _BLOCK), b""), 0, begins_inside=False)
        except Unfinished:
            self._spill_back(before)
            self.found.unreadable.append(unit.log)
        fd = self.tree.open_file(entry)
        try:
            return all(hash_range(fd, extent) == extent.sha256 for extent in unit.extents)
        finally:
            os.close(fd)

    def _scan_chunks(self, unit: _Unit, chunks: t.Iterable[bytes], offset: int, begins_inside: bool) -> None:
        found = Scanned()
        for begin, lines in _whole_lines(chunks, offset, begins_inside):
            if lines is None:
                found.odd += 1
            else:
                scan_block(lines, begin, found)
                self._spill(unit.part, found)
        self.found.runs += [(unit.log, unit.part, run) for run in found.runs]
        self.found.hours.update(found.hours)
        self.found.odd += found.odd

    def _spill(self, part: int, found: Scanned) -> None:
        """Write the ids of a block to the files of their days."""
        for day, hashes in found.ids.items():
            path = self.found.spills.setdefault(day, os.path.join(self.scratch, day))
            ids = b"".join(hashes)
            with open(path, "ab") as output:
                output.write(_SPILL.pack(part, len(ids) // ID_BYTES) + ids)
                self._spilled[day] = output.tell()
        found.ids.clear()

    def _spill_back(self, before: dict[str, int]) -> None:
        """Forget the ids of a file that then broke off."""
        for day in [day for day, size in self._spilled.items() if size != before.get(day)]:
            if day in before:
                os.truncate(self.found.spills[day], before[day])
            else:
                os.unlink(self.found.spills.pop(day))
        self._spilled = before


class _ExtentReader:
    """Reads a file's extents, which lie one after the other, and the rest of the last line; hashes them on the way."""

    def __init__(self, fd: int, extents: list[Extent], end: int):
        self.fd, self.extents, self.end = fd, extents, end
        self.same = True  # what was read so far is what was stored

    def __iter__(self) -> t.Iterator[bytes]:
        last = b"\n"
        for extent in self.extents:
            digest = hashlib.sha256()
            position, end = extent.offset, extent.offset + extent.length
            while position < end and (data := os.pread(self.fd, min(_BLOCK, end - position), position)):
                digest.update(data)
                position += len(data)
                last = data[-1:]
                yield data
            self.same = self.same and digest.hexdigest() == extent.sha256
        position = self.extents[-1].offset + self.extents[-1].length
        while last != b"\n" and position < self.end:
            data = os.pread(self.fd, min(65536, self.end - position), position)
            if not data:
                return
            data = data[: data.find(b"\n") + 1 or len(data)]
            position += len(data)
            last = data[-1:]
            yield data


def _whole_lines(chunks: t.Iterable[bytes], offset: int, begins_inside: bool) -> t.Iterator[tuple[int, bytes | None]]:
    """(offset, whole lines); None in their place for one line that is too long to be looked at.

    ``begins_inside`` leaves out what comes before the first line end. So does the end what comes after the last.
    """
    kept: list[bytes] = []  # the beginning of a line
    length = 0
    too_long = False
    for chunk in chunks:
        cut = chunk.rfind(b"\n") + 1
        if cut:
            first = chunk.find(b"\n") + 1
            if begins_inside or too_long:
                if too_long and not begins_inside:
                    yield offset, None
                offset += length + first
                kept, length, begins_inside, too_long = [], 0, False, False
            else:
                first = 0
            lines = b"".join([*kept, chunk[first:cut]])
            if lines:
                yield offset, lines
            offset += len(lines)
            kept, length = [], 0
        length += len(chunk) - cut
        too_long = too_long or length > _LONGEST_LINE
        if too_long or begins_inside:
            kept = []
        elif cut < len(chunk):
            kept.append(chunk[cut:])


def table_names(found: Found, snapshot: str, full: bool) -> list[str]:
    """The tables that `store_tables` makes."""
    return [table_name(day, snapshot, full) for day in sorted(found.spills)]


def store_tables(session: Session, found: Found, snapshot: str, full: bool, key: DataKey) -> None:
    """Make a table for each day and store it; the summary lists them."""
    traffic = session.traffic(key.passphrase)
    session.progress.begin("storing record tables")

    def work(day: str) -> dict[str, t.Any]:
        name = table_name(day, snapshot, full)
        where = session.repository.name(name)
        ids = list(_spilled(found.spills[day]))
        data = session.gpg.encrypt_bytes(encode(snapshot, day, ids), key.passphrase, where)
        with_retries(session.attempts, traffic.cancelled.wait, lambda: session.repository.store.put(where, data))
        count = sum(len(hashes) for _part, hashes in ids) // ID_BYTES
        return {
            "name": name, "day": day, "size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "count": count,
        }  # fmt: skip

    tables = [table for _day, table in in_parallel(sorted(found.spills), session.workers, traffic, work)]
    found.summary["tables"] = sorted(tables, key=lambda table: str(table["day"]))


def _spilled(paths: t.Iterable[str]) -> t.Iterator[tuple[int, bytes]]:
    """(part, hashes) as they were written."""
    for path in paths:
        with open(path, "rb") as source:
            while head := source.read(_SPILL.size):
                part, ids = _SPILL.unpack(head)
                yield part, source.read(ids * ID_BYTES)
