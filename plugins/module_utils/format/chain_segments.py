# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The pieces in which a chain's records come, and how they are put together again.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import typing as t

from .records import Record

KEPT = 16  # bytes of each hash: nobody finds another record with the same half of a SHA-256
_BLOCK = 1024  # hashes


class Spool:
    """Hashes by segment and number, in a temporary file."""

    def __init__(self, file: t.Any):
        self._file = file
        self._size = 0

    def append(self, block: bytes) -> int:
        """Keep a block; returns where."""
        offset = self._size
        self._file.seek(offset)
        self._file.write(block)
        self._size += len(block)
        return offset

    def read(self, offset: int) -> bytes:
        """One hash."""
        self._file.seek(offset)
        return bytes(self._file.read(KEPT))

    def close(self) -> None:
        """Give the file back."""
        self._file.close()

    def has(self, line: Line, seq: int) -> bool:
        """Whether the line has a record of this number."""
        return line.at(seq, self) is not None

    def is_at(self, line: Line, seq: int, digest: str) -> bool:
        """Whether the line's record of this number has this hash."""
        try:
            return line.at(seq, self) == bytes.fromhex(digest)[:KEPT]
        except ValueError:
            return False


class Segment:
    """Records that came one right after the other, each linked to the one before it."""

    __slots__ = (
        "after", "begin", "blocks", "end", "first", "head", "high", "last", "low", "order", "prev", "tail", "where"
    )  # fmt: skip

    def __init__(self, record: Record, where: str, after: int, order: int):
        self.first = record.seq
        self.last = record.seq - 1
        self.prev = record.prev
        self.head = ""
        self.begin = self.end = self.low = self.high = record.time
        self.where = where
        self.after = after  # the number that stands before it in the same file; 0 where there is none
        self.order = order
        self.blocks: list[int] = []
        self.tail = bytearray()

    def add(self, record: Record, spool: Spool) -> None:
        """The record after the last one."""
        self.last += 1
        self.head = record.hash
        time = self.end = record.time
        if time > self.high:
            self.high = time
        elif time < self.low:
            self.low = time
        self.tail += bytes.fromhex(record.hash[: 2 * KEPT])
        if len(self.tail) == KEPT * _BLOCK:
            self.blocks.append(spool.append(bytes(self.tail)))
            self.tail.clear()

    def close(self, spool: Spool) -> None:
        """Nothing more comes: what is left goes to the file too."""
        if self.tail:
            self.blocks.append(spool.append(bytes(self.tail)))
            self.tail = bytearray()

    def at(self, seq: int, spool: Spool) -> bytes:
        """The hash of one of its records."""
        block, inside = divmod(seq - self.first, _BLOCK)
        return spool.read(self.blocks[block] + inside * KEPT)


class Line:
    """Segments whose numbers follow one another; between two there may be a gap or a broken link."""

    def __init__(self, segment: Segment, forked: bool = False):
        self.segments = [segment]
        self.first, self.prev, self.begin, self.where = segment.first, segment.prev, segment.begin, segment.where
        self.last, self.head, self.end = segment.last, segment.head, segment.end
        self.forked = forked

    def extend(self, segment: Segment) -> None:
        """Go on with a segment, from the first number of it that is not here yet."""
        self.segments.append(segment)
        self.last, self.head, self.end, self.where = segment.last, segment.head, segment.end, segment.where

    def at(self, seq: int, spool: Spool) -> bytes | None:
        """The hash of the record of this number, or None where there is none."""
        low, high = 0, len(self.segments) - 1
        while low < high:  # the last segment that begins at this number or before
            middle = (low + high + 1) // 2
            if self.segments[middle].first <= seq:
                low = middle
            else:
                high = middle - 1
        for segment in self.segments[low::-1]:
            if segment.first <= seq <= segment.last:
                return segment.at(seq, spool)
            if segment.last < seq:
                break
        return None


def follow(segments: t.Sequence[Segment], lines: list[Line], spool: Spool) -> t.Iterator[tuple[Segment, str]]:
    """Put segments into ``lines`` by their numbers; each with what it is to the first line.

    ``first``, ``next`` (it goes on), ``missing`` (numbers before it), ``broken`` (it names another record before it),
    ``duplicate`` (in whole or with its first records), ``aside`` (a line of its own). It is yielded before the line
    is extended, so that the line can still be asked for its end.
    """
    continued = {(segment.first - 1, segment.prev) for segment in segments}
    out_of_place = {segment.after for segment in segments if segment.after > segment.last}
    waiting = sorted(segments, key=lambda item: (item.first, item.order), reverse=True)
    while waiting:
        first = waiting[-1].first
        group = []
        while waiting and waiting[-1].first == first:
            group.append(waiting.pop())
        # What fits goes first, so that what does not fit is recognised by it and not the other way round.
        group.sort(key=lambda item: (_fitting(item, lines) is None, item.order))
        for segment in group:
            if not lines:
                lines.append(Line(segment))
                yield segment, "first"
                continue
            line = _fitting(segment, lines)
            if line is not None:
                yield segment, "next" if line is lines[0] else "aside"
                line.extend(segment)
            else:
                yield from _unfit(segment, lines, spool, continued, out_of_place)


def _fitting(segment: Segment, lines: list[Line]) -> Line | None:
    return next((x for x in lines if x.last + 1 == segment.first and x.head == segment.prev), None)


def _unfit(
    segment: Segment, lines: list[Line], spool: Spool, continued: set[tuple[int, str]], out_of_place: set[int]
) -> t.Iterator[tuple[Segment, str]]:
    main = lines[0]
    if segment.first > main.last:
        alone = (segment.last, segment.head) not in continued
        if alone and segment.last in out_of_place:  # a high number in front of lower ones
            lines.append(Line(segment))
            yield segment, "aside"
            return
        yield segment, "broken" if segment.first == main.last + 1 else "missing"
        main.extend(segment)
        return
    for line in lines:
        if line.at(segment.first, spool) == segment.at(segment.first, spool):
            end = min(line.last, segment.last)
            if line.at(end, spool) == segment.at(end, spool):  # so all between are the same too
                yield segment, "duplicate" if line is main else "aside"
                if segment.last > line.last:
                    line.extend(segment)
                return
            lines.append(Line(segment, forked=True))
            lines[-1].first = _parting(line, segment, end, spool)
            yield segment, "aside"
            return
    forked = main.at(segment.first - 1, spool) == bytes.fromhex(segment.prev)[:KEPT]
    lines.append(Line(segment, forked))
    yield segment, "aside"


def _parting(line: Line, segment: Segment, end: int, spool: Spool) -> int:
    """The first number at which two linked runs differ; they agree at the segment's first and differ at ``end``."""
    same, differs = segment.first, end
    while differs - same > 1:
        middle = (same + differs) // 2
        if line.at(middle, spool) == segment.at(middle, spool):
            same = middle
        else:
            differs = middle
    return differs
