# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The records of a window in order, each once, from wherever they lie.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import heapq
import os
import sqlite3
import struct
import tempfile
import typing as t

from ..format.records import Record, parse_line
from .export_plan import Window
from .export_sources import UNREADABLE, Holding, Reader

_HELD_IN_MEMORY = 4 << 20
_LENGTH = struct.Struct(">II")
_BATCH = 5000


class Found(t.NamedTuple):
    """A record that was read, and where."""

    line: bytes
    record: Record
    holding: Holding


@dataclasses.dataclass
class Edge:
    """A record just outside of the window."""

    seq: int
    hash: str
    prev: str
    time: str


class ChainStream:
    """One chain's records from the first in the window to the last, in the order of their numbers.

    What lies between them is part of it whatever its time says: a clock that was off moves no record.
    """

    def __init__(
        self, chain: str, holdings: t.Sequence[Holding], span: tuple[int, int], window: Window, reader: Reader
    ):
        self.chain = chain
        self.span = span
        self.before: Edge | None = None  # the last record that was seen before the window
        self.after: Edge | None = None
        self.first = self.last = 0  # numbers that were yielded; 0: none
        self.prev = self.head = self.since = self.until = ""  # what the first names, the last one's hash, their times
        self.seen_first = self.seen_last = 0  # numbers that were read
        self.count = 0
        self.off_clock = 0  # records between the first and the last whose time is not in the window
        self.failures: list[tuple[Holding, str, int]] = []  # what could not be read, and from which number on
        self.strange: list[Holding] = []  # runs of numbers that were yielded, and that say something else
        self._heads: dict[int, str] = {}
        self._window = window
        self._reader = reader
        self.holdings = sorted(holdings, key=lambda h: (h.run.first, h.rank, -h.run.last))
        low, high = span
        for holding in self.holdings:
            if holding.run.first <= high and holding.run.last >= low:
                self._heads[holding.run.last] = ""
                if holding.failed:
                    self.failures.append((holding, holding.failed, holding.run.first))

    def __iter__(self) -> t.Iterator[Found]:
        held = _Held()
        with contextlib.closing(held):
            for found in self._all():
                record = found.record
                self.seen_first = self.seen_first or record.seq
                self.seen_last = record.seq
                if self._window.has(record.time):
                    for waiting in held.drain():
                        yield self._yielded(waiting)
                    self.after = None
                    yield self._yielded(found)
                elif self.last:
                    self.after = self.after or _edge(record)
                    held.add(found)
                else:
                    self.before = _edge(record)
        self._compare()

    def _yielded(self, found: Found) -> Found:
        record = found.record
        if not self.first:
            self.first, self.prev, self.since = record.seq, record.prev, record.time
        self.last, self.head, self.until = record.seq, record.hash, record.time
        self.count += 1
        self.off_clock += not self._window.has(record.time)
        if record.seq in self._heads:
            self._heads[record.seq] = record.hash
        return found

    def _all(self) -> t.Iterator[Found]:
        number, last = self.span
        while number <= last:
            holding = self._choose(number)
            if holding is None:
                number = self._next(number)
                continue
            following = self._choose(holding.run.last + 1)
            if following is not None:
                self._reader.prefetch(following)
            try:
                for line in self._reader.lines(holding):
                    record = parse_line(line)
                    if record is not None and record.chain == self.chain and number <= record.seq <= last:
                        number = record.seq + 1
                        yield Found(line, record, holding)
                number = max(number, holding.run.last + 1)
            except UNREADABLE as error:
                holding.failed = str(error)
                self.failures.append((holding, str(error), number))

    def _choose(self, number: int) -> Holding | None:
        """The source for this number: the best kind, and of these the one that reaches farthest."""
        best: Holding | None = None
        for holding in self.holdings:
            if holding.run.first > number:
                break
            if number > holding.run.last or holding.failed:
                continue
            if best is None or (holding.rank, -holding.run.last) < (best.rank, -best.run.last):
                best = holding
        return best

    def sources(self) -> t.Iterator[Holding]:
        """What would be read, if all of it can be."""
        number, last = self.span
        while number <= last:
            holding = self._choose(number)
            if holding is not None:
                yield holding
            number = self._next(number) if holding is None else holding.run.last + 1

    def _next(self, number: int) -> int:
        later = (h.run.first for h in self.holdings if h.run.first > number and not h.failed)
        return min(later, default=self.span[1] + 1)

    def _compare(self) -> None:
        """Every other copy of these numbers must end with the same hash; so all of it is the same."""
        for holding in self.holdings:
            own = self._heads.get(holding.run.last, "")
            if own and own != holding.run.head and not holding.failed:
                self.strange.append(holding)


def _edge(record: Record) -> Edge:
    return Edge(record.seq, record.hash, record.prev, record.time)


class _Held:
    """Records after one of the window: part of it if another one follows. In a file where they are many."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_HELD_IN_MEMORY)  # noqa: SIM115 - see close
        self._holdings: list[Holding] = []
        self._count = 0

    def add(self, found: Found) -> None:
        if not self._holdings or self._holdings[-1] is not found.holding:
            self._holdings.append(found.holding)
        self._file.write(_LENGTH.pack(len(found.line), len(self._holdings) - 1) + found.line)
        self._count += 1

    def drain(self) -> t.Iterator[Found]:
        """All of them, which are no longer held."""
        if not self._count:
            return
        self._file.seek(0)
        for _number in range(self._count):
            length, place = _LENGTH.unpack(self._file.read(_LENGTH.size))
            line = self._file.read(length)
            record = parse_line(line)
            if record is not None:
                yield Found(line, record, self._holdings[place])
        self._file.seek(0)
        self._file.truncate()
        self._holdings.clear()
        self._count = 0

    def close(self) -> None:
        self._file.close()


class Unchained:
    """Records of older installations: sorted by time, each once by the hash of its line, in a file on disk."""

    ARCHIVED, LIVE = 1, 2

    def __init__(self, directory: str):
        path = os.path.join(directory, "unchained.sqlite")
        self._base = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        for text in ("PRAGMA journal_mode = OFF", "PRAGMA synchronous = OFF", "PRAGMA cache_size = -16384", "BEGIN"):
            self._base.execute(text)
        self._base.execute(
            "CREATE TABLE lines (hash BLOB PRIMARY KEY, time TEXT, place INTEGER, flags INTEGER, line BLOB)"
            " WITHOUT ROWID"
        )
        self.copies = 0
        self.timeless = 0
        self.failures: list[tuple[Holding, str]] = []

    def collect(self, holdings: t.Iterable[Holding], window: Window, reader: Reader) -> None:
        """Read all that may hold records of the window."""
        place = 0
        for holding in holdings:
            if holding.failed or not (window.touches(holding.run.since, holding.run.until) or not holding.run.since):
                continue
            flag = self.LIVE if holding.live is not None else self.ARCHIVED
            try:
                for line in reader.lines(holding):
                    record = parse_line(line)
                    if record is None or record.chain or (record.time and not window.has(record.time)):
                        continue
                    if not record.time:
                        self.timeless += 1
                        continue
                    place += 1
                    self._add(line, record.time, place, flag)
            except UNREADABLE as error:
                holding.failed = str(error)
                self.failures.append((holding, str(error)))

    def _add(self, line: bytes, time: str, place: int, flag: int) -> None:
        row = (hashlib.sha256(line).digest(), time, place, flag, line)
        changed = self._base.execute("INSERT OR IGNORE INTO lines VALUES (?, ?, ?, ?, ?)", row).rowcount
        if not changed:
            self.copies += 1
            self._base.execute("UPDATE lines SET flags = flags | ? WHERE hash = ?", (flag, row[0]))

    def count(self) -> int:
        """How many different ones there are."""
        return int(self._base.execute("SELECT count(*) FROM lines").fetchone()[0])

    def __iter__(self) -> t.Iterator[tuple[bytes, Record, int]]:
        self._base.execute("CREATE INDEX IF NOT EXISTS by_time ON lines (time, place)")
        for line, flags in self._base.execute("SELECT line, flags FROM lines ORDER BY time, place"):
            record = parse_line(line)
            if record is not None:
                yield line, record, flags

    def close(self) -> None:
        """Give the file back."""
        self._base.close()


class Item(t.NamedTuple):
    """A record on its way into the bundle; ``flags`` are those of `Unchained`, where it has no holding."""

    line: bytes
    record: Record
    holding: Holding | None
    flags: int


def merged(chains: t.Sequence[ChainStream], unchained: Unchained) -> t.Iterator[Item]:
    """All records by time, (line, record, holding or None, flags); within a chain by number, whatever its clock did."""
    streams: list[t.Iterator[tuple[str, int, Item]]] = [
        _timed(place, (Item(f.line, f.record, f.holding, 0) for f in chain)) for place, chain in enumerate(chains)
    ]
    streams.append(_timed(len(chains), (Item(line, record, None, flags) for line, record, flags in unchained)))
    for _time, _place, item in heapq.merge(*streams, key=_key):
        yield item


def _key(timed: tuple[str, int, Item]) -> tuple[str, int]:
    return timed[0], timed[1]


def _timed(place: int, items: t.Iterable[Item]) -> t.Iterator[tuple[str, int, Item]]:
    latest = ""
    for item in items:
        latest = max(latest, item.record.time)
        yield latest, place, item
