# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fetch the part that holds a record, and the index that proves it, at the same time; find the record in it.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import threading
import typing as t

from ..errors import IntegrityError
from ..format.compressed import Unfinished, plain_reader, read_some
from ..format.manifest import StoredPart
from ..format.record_search import Hit, LineFinder
from ..format.tree import FILE, Entry, Extent, Tree
from .image import part_holding
from .part_io import fetch_plain, with_retries
from .session import Session
from .snapshots import Opened, read_index
from .trace_tables import Candidate, threads
from .writer import write_at

_CHUNK = 1 << 20

Sink = t.Callable[[memoryview, int], object]  # takes bytes, and their offset in the file
Sinks = t.Callable[[Entry, Extent], t.Optional[Sink]]


class Place(t.NamedTuple):
    """A record in an archive."""

    hit: Hit
    path: str  # of the log file in the snapshot
    part: StoredPart
    part_offset: int | None  # in the part's plain tar stream; None where the file itself is compressed


@dataclasses.dataclass
class Read:
    """What a candidate held."""

    opened: Opened
    places: list[Place] = dataclasses.field(default_factory=list)


class PartSearch:
    """Looks into the parts of candidates, and counts the downloads."""

    def __init__(self, session: Session, trace_id: str):
        self.session = session
        self.trace_id = trace_id
        self.parts_fetched = 0

    def read(self, candidate: Candidate) -> Read:
        """The records of the trace_id in the candidate's parts; what was read is proven by the index."""
        session, manifest = self.session, candidate.manifest
        if max(candidate.parts) >= len(manifest.parts):
            where = session.repository.where("logs", manifest.snapshot)
            raise IntegrityError(where, f"a record table that names some of {len(manifest.parts)} parts", "another")

        def open_index() -> Opened:
            index = with_retries(
                session.attempts,
                threading.Event().wait,
                lambda: read_index(session, manifest, candidate.passphrase),
            )
            return Opened(manifest, candidate.passphrase, index)

        with threads(1) as pool, session.scratch("trace") as scratch:
            opening = pool.submit(open_index)
            places = [
                place
                for number in candidate.parts
                for place in self._search(candidate, opening.result, number, scratch)
            ]
            return Read(opening.result(), places)

    def _search(
        self, candidate: Candidate, opened: t.Callable[[], Opened], number: int, scratch: str
    ) -> list[Place]:  # fmt: skip
        part = candidate.manifest.parts[number]
        looks: list[_Look] = []

        def look() -> Sinks:
            """The first bytes wait for the index: it was asked for at the same time. Each try begins anew."""
            looks[:] = [_Look(opened(), number, self.trace_id, scratch)]
            return looks[0].sink

        self._fetch(candidate, opened, part, look)
        places = []
        for entry, extent, finder in looks[0].finders:
            if finder.is_cut:
                self._complete(candidate, opened, entry, extent, finder)
            for hit in finder.hits:
                places.append(Place(hit, entry.path, part, extent.position + hit.offset - extent.offset - part.start))
        if not places:
            for entry in looks[0].packed.values():
                hits = self._unpacked(candidate, opened, entry, part, scratch)
                places += [Place(hit, entry.path, part, None) for hit in hits]
        return places

    def _fetch(
        self, candidate: Candidate, opened: t.Callable[[], Opened], part: StoredPart, look: t.Callable[[], Sinks]
    ) -> None:
        """Fetch a part, and give what it has of files to the sinks that ``look`` makes for this try."""
        session = self.session
        name = session.repository.name("logs", candidate.manifest.snapshot, part.name)
        where = session.repository.store.full_name(name)
        traffic = session.traffic(candidate.passphrase)

        def work() -> None:
            self.parts_fetched += 1
            reader: list[_Extents] = []

            def take(data: memoryview) -> None:
                if not reader:
                    sinks = look()
                    reader.append(_Extents(opened(), part, where, sinks))
                reader[0].take(data)

            fetch_plain(traffic, part, name, take)
            if not reader:
                raise IntegrityError(where, "a part that holds records", "an empty one")

        with_retries(session.attempts, traffic.cancelled.wait, work)

    def _complete(
        self, candidate: Candidate, opened: t.Callable[[], Opened], entry: Entry, extent: Extent, finder: LineFinder
    ) -> None:
        """Read the rest of a line that is so long that it goes on in further parts."""
        while finder.is_cut:
            following = next((x for x in entry.extents if x.offset == extent.offset + extent.length), None)
            if following is None:
                return
            extent = following
            rest = _Rest(extent)
            self._fetch(candidate, opened, part_holding(opened(), extent), rest.begin)
            data = b"".join(rest.pieces)
            finder.take(data[: data.find(b"\n") + 1 or len(data)])

    def _unpacked(
        self, candidate: Candidate, opened: t.Callable[[], Opened], entry: Entry, part: StoredPart, scratch: str
    ) -> list[Hit]:
        """The record in a log file that is compressed in the snapshot; what of it the part has is kept already."""

        def look() -> Sinks:
            return lambda other, _extent: _keep(scratch, other) if other.path == entry.path else None

        for other in {part_holding(opened(), extent) for extent in entry.extents} - {part}:
            self._fetch(candidate, opened, other, look)
        file = _kept(scratch, entry)
        finder = LineFinder(self.trace_id)
        source = Entry(entry.path, FILE, source=file)
        # Saved while it was being compressed, it has no end: what it has is read.
        with contextlib.suppress(Unfinished), Tree(scratch) as tree, plain_reader(tree, source) as reader:
            while data := read_some(reader, _CHUNK):
                finder.take(data)
        os.unlink(file)
        return finder.hits


class _Look:
    """The first look at a part: for the record in plain logs; compressed ones that begin in it are kept."""

    def __init__(self, opened: Opened, number: int, trace_id: str, scratch: str):
        self.trace_id, self.scratch = trace_id, scratch
        packed = [run for run in opened.index.layer.get("records", []) if run["packed"]]
        self._here = {run["path"] for run in packed if run["part"] == number}
        self._elsewhere = {run["path"] for run in packed} - self._here
        self.packed: dict[str, Entry] = {}
        self.finders: list[tuple[Entry, Extent, LineFinder]] = []

    def sink(self, entry: Entry, extent: Extent) -> Sink | None:
        """Where an extent's bytes go."""
        if entry.path in self._here:
            self.packed[entry.path] = entry
            return _keep(self.scratch, entry)
        if entry.path in self._elsewhere:
            return None
        finder = LineFinder(self.trace_id, extent.offset)
        self.finders.append((entry, extent, finder))
        return lambda data, _at: finder.take(data)


class _Rest:
    """Takes one extent and nothing else."""

    def __init__(self, extent: Extent):
        self.extent = extent
        self.pieces: list[bytes] = []

    def begin(self) -> Sinks:
        """What was taken in an earlier try is forgotten."""
        self.pieces.clear()
        return lambda _entry, extent: self._take if extent == self.extent else None

    def _take(self, data: memoryview, _at: int) -> None:
        self.pieces.append(bytes(data))


def _kept(scratch: str, entry: Entry) -> str:
    return os.path.join(scratch, hashlib.sha256(os.fsencode(entry.path)).hexdigest())


def _keep(scratch: str, entry: Entry) -> Sink:
    def write(data: memoryview, at: int) -> None:
        fd = os.open(_kept(scratch, entry), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            write_at(fd, data, at)
        finally:
            os.close(fd)

    return write


class _Extents:
    """Takes a part's plain stream, gives each extent's bytes to its sink, and checks its hash."""

    def __init__(self, opened: Opened, part: StoredPart, where: str, sinks: Sinks):
        self.where, self.position, self._sinks = where, part.start, sinks
        inside = [
            (extent, entry)
            for entry in opened.index.entries
            if entry.type == FILE
            for extent in entry.extents
            if extent.length and part.start <= extent.position < part.start + part.length
        ]
        self._waiting = iter(sorted(inside, key=lambda item: item[0].position))
        self._next()

    def _next(self) -> None:
        self._current = next(self._waiting, None)
        self._digest = hashlib.sha256()
        self._sink = self._sinks(self._current[1], self._current[0]) if self._current else None

    def take(self, data: memoryview) -> None:
        """The next bytes of the stream."""
        start, end = self.position, self.position + len(data)
        self.position = end
        while self._current is not None:
            extent, entry = self._current
            low, high = max(start, extent.position), min(end, extent.position + extent.length)
            if low < high:
                run = data[low - start : high - start]
                self._digest.update(run)
                if self._sink is not None:
                    self._sink(run, extent.offset + low - extent.position)
            if end < extent.position + extent.length:
                return
            if self._digest.hexdigest() != extent.sha256:
                raise IntegrityError(
                    self.where, f"the content of {entry.path!r} as the index has it", "other bytes",
                    "The part was exchanged.",
                )  # fmt: skip
            self._next()
