# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where records lie, in snapshots and in live logs, and how their lines are read.

Private to the collection: use the modules, not this file.

Parts go one after the other through a few files in a scratch directory, with the next one on its way while one is
read: memory and disk stay the same however long the window is.
"""

from __future__ import annotations

import bisect
import collections
import concurrent.futures
import contextlib
import dataclasses
import hashlib
import io
import itertools
import os
import threading
import typing as t

from ..errors import GuardError, IntegrityError, KeyProviderError, SourceChanged, StoreError
from ..format.compressed import Unfinished, plain_reader, read_some
from ..format.manifest import FULL, StoredPart
from ..format.records import Run
from ..format.tree import FILE, Entry, Extent, Tree
from .image import part_holding
from .part_io import fetch_plain, with_retries
from .session import Session
from .snapshots import Opened

_KEPT_PARTS = 4
_CHUNK = 1 << 20
# What makes a source unreadable, and is no reason to give up: another may hold the same records.
UNREADABLE = (IntegrityError, KeyProviderError, SourceChanged, StoreError)


@dataclasses.dataclass(eq=False)
class LiveFile:
    """A log that is open: it stays the same file when it is renamed or removed meanwhile."""

    path: str
    fd: int


@dataclasses.dataclass(eq=False)
class Holding:
    """One place that holds a run of records."""

    run: Run
    path: str
    opened: Opened | None = None  # the snapshot
    packed: bool = False  # the file is compressed in the snapshot
    live: LiveFile | None = None
    failed: str = ""  # why it cannot be read

    @property
    def where(self) -> str:
        """The place for people."""
        return f"snapshot {self.opened.manifest.snapshot}, {self.path}" if self.opened else f"live log {self.path}"

    @property
    def rank(self) -> int:
        """Less is better: an increment holds little else, and what is archived is what must come back."""
        if self.opened is None:
            return 2
        return 1 if self.opened.manifest.type == FULL else 0


class Intervals:
    """Sets of numbers, as ranges that do not touch."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []

    def add(self, first: int, last: int) -> None:
        """Also these."""
        low = bisect.bisect_left(self._lasts, first - 1)
        high = bisect.bisect_right(self._firsts, last + 1)
        if low < high:
            first, last = min(first, self._firsts[low]), max(last, self._lasts[high - 1])
        self._firsts[low:high], self._lasts[low:high] = [first], [last]

    def __contains__(self, number: int) -> bool:
        place = bisect.bisect_right(self._firsts, number) - 1
        return place >= 0 and number <= self._lasts[place]

    def count(self, first: int, last: int) -> int:
        """How many of these numbers are in it."""
        return sum(max(0, min(last, high) - max(first, low) + 1) for low, high in self)

    def __iter__(self) -> t.Iterator[tuple[int, int]]:
        return iter(list(zip(self._firsts, self._lasts)))

    def holes(self, first: int, last: int) -> t.Iterator[tuple[int, int]]:
        """The ranges between these numbers that are not in it."""
        for low, high in self:
            if high < first:
                continue
            if low > last:
                break
            if low > first:
                yield first, low - 1
            first = max(first, high + 1)
        if first <= last:
            yield first, last


class Reader:
    """Reads holdings. Use as a context manager; ``directory`` is for its files."""

    def __init__(self, session: Session, directory: str):
        self._session = session
        self._directory = directory
        self._pool = concurrent.futures.ThreadPoolExecutor(max_workers=2)
        self._cancelled = threading.Event()
        self._parts: collections.OrderedDict[tuple[str, str], concurrent.futures.Future[str]] = (
            collections.OrderedDict()
        )
        self._numbers = itertools.count()
        self.fetched: dict[str, StoredPart] = {}  # by the object's name: all that was read and proven
        self.bytes = 0

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._cancelled.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def prefetch(self, holding: Holding) -> None:
        """Begin to fetch what this one needs first."""
        if holding.opened is not None and not holding.packed:
            extents = _extents(holding)
            if extents:
                self._fetch(holding.opened, part_holding(holding.opened, extents[0]))

    def parts(self, holding: Holding) -> list[StoredPart]:
        """The parts that hold the run."""
        return [part_holding(holding.opened, x) for x in _extents(holding)] if holding.opened is not None else []

    def lines(self, holding: Holding) -> t.Iterator[bytes]:
        """The lines of the run, each with its end. Raises one of `UNREADABLE`."""
        run = holding.run
        if holding.live is not None:
            yield from _lines_of(holding.live.path, f"/proc/self/fd/{holding.live.fd}", run.offset, run.length)
        elif holding.packed:
            path = os.path.join(self._directory, f"packed-{next(self._numbers)}")
            try:
                with open(path, "wb") as output:
                    for data in self._content(holding, _extents(holding)):
                        output.write(data)
                yield from _lines_of(holding.path, path, run.offset, run.length)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
        else:
            yield from _split(self._content(holding, _extents(holding), run.offset, run.offset + run.length))

    def _content(
        self, holding: Holding, extents: t.Sequence[Extent], start: int = 0, end: int = 1 << 62
    ) -> t.Iterator[bytes]:
        """The bytes of these extents that lie between ``start`` and ``end`` of the file, proven by their hashes."""
        if holding.opened is None:
            raise RuntimeError("a live log has no extents")
        position = max(start, extents[0].offset) if extents else 0
        if not extents or position > start > 0:
            raise IntegrityError(holding.where, f"content from byte {start} on", "none in the index")
        for extent in extents:
            part = part_holding(holding.opened, extent)
            with open(self._fetch(holding.opened, part).result(), "rb") as plain:
                _prove(plain, extent, part, holding.where)
                low, high = max(start, extent.offset), min(end, extent.offset + extent.length)
                plain.seek(extent.position - part.start + low - extent.offset)
                while low < high:
                    data = plain.read(min(_CHUNK, high - low))
                    low += len(data)
                    yield data

    def _fetch(self, opened: Opened, part: StoredPart) -> concurrent.futures.Future[str]:
        key = (opened.manifest.snapshot, part.name)
        known = self._parts.get(key)
        if known is not None:
            self._parts.move_to_end(key)
            return known
        while len(self._parts) >= _KEPT_PARTS:
            _key, old = self._parts.popitem(last=False)
            with contextlib.suppress(GuardError, FileNotFoundError):
                os.unlink(old.result())  # whoever reads it has it open
        future = self._parts[key] = self._pool.submit(self._fetched, opened, part)
        return future

    def _fetched(self, opened: Opened, part: StoredPart) -> str:
        session = self._session
        traffic = dataclasses.replace(session.traffic(opened.passphrase), cancelled=self._cancelled)
        name = session.repository.name(session.layer, opened.manifest.snapshot, part.name)
        path = os.path.join(self._directory, f"part-{next(self._numbers)}")

        def work() -> None:
            with open(path, "wb") as output:
                fetch_plain(traffic, part, name, lambda data: _write(output, data))

        with_retries(session.attempts, self._cancelled.wait, work)
        self.fetched[name] = part
        self.bytes += part.size
        return path


def _write(output: t.IO[bytes], data: memoryview) -> None:
    output.write(data)


def _extents(holding: Holding) -> list[Extent]:
    """The extents that hold the run: all of the file where it is compressed."""
    if holding.opened is None:
        return []
    run = holding.run
    found = sorted(_extents_by_path(holding.opened).get(holding.path, []))
    if holding.packed:
        return found
    return [x for x in found if x.offset < run.offset + run.length and run.offset < x.offset + x.length]


def _extents_by_path(opened: Opened) -> dict[str, list[Extent]]:
    known: dict[str, list[Extent]] | None = opened.index.layer.get(_CACHE)
    if known is None:
        known = opened.index.layer[_CACHE] = {e.path: e.extents for e in opened.index.entries if e.type == FILE}
    return known


_CACHE = "extents by path"  # a name with blanks: no layer uses it


def _prove(plain: t.IO[bytes], extent: Extent, part: StoredPart, where: str) -> None:
    digest, left = hashlib.sha256(), extent.length
    plain.seek(extent.position - part.start)
    while left and (data := plain.read(min(_CHUNK, left))):
        digest.update(data)
        left -= len(data)
    if digest.hexdigest() != extent.sha256:
        raise IntegrityError(where, "the content that the index names", "other bytes", "The part was exchanged.")


def _lines_of(name: str, path: str, offset: int, length: int) -> t.Iterator[bytes]:
    """Lines of a range of the plain content of a file, which may be compressed."""
    # With a source the entry's own name is not opened, so any directory will do as the root.
    with Tree("/") as tree, plain_reader(tree, Entry(name, FILE, source=path)) as reader:
        yield from _split(_range(reader, offset, length, name))


def _range(reader: io.BufferedIOBase, offset: int, length: int, name: str) -> t.Iterator[bytes]:
    try:
        if reader.seekable():
            reader.seek(offset)
        else:
            while offset and (skipped := read_some(reader, min(_CHUNK, offset))):
                offset -= len(skipped)
        while length:
            data = read_some(reader, min(_CHUNK, length))
            if not data:
                raise SourceChanged(name, f"{length} more bytes", "its end: it was cut short while it was read")
            length -= len(data)
            yield data
    except (EOFError, Unfinished) as error:
        raise SourceChanged(name, "a compressed log that can be read to its end", "one that breaks off") from error
    except OSError as error:
        raise SourceChanged(name, "a log that can be read", error.strerror or str(error)) from error


def _split(chunks: t.Iterable[bytes]) -> t.Iterator[bytes]:
    """Lines with their ends; a last one without stays out: it is no record."""
    rest = b""
    for chunk in chunks:
        block = rest + chunk
        lines = block.splitlines(keepends=True) if b"\r" not in block else _only_newlines(block)
        rest = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
        yield from lines


def _only_newlines(block: bytes) -> list[bytes]:
    lines = [line + b"\n" for line in block.split(b"\n")]
    last = lines.pop()[:-1]
    return [*lines, last] if last else lines
