# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Log streams: which file holds which log, and what of it is new.

Private to the collection: use the modules, not this file.

A stream is one sequence of lines, wherever it lies: it keeps its number when its file is renamed
by rotation, copied away and truncated, or compressed. Names, times and clocks decide nothing.
A file is recognised by its inode and a mark (a hash of its beginning and of what precedes the
saved offset); where the inode is new, by the hashes of all that was saved of the stream.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import itertools
import os
import re
import tempfile
import typing as t

from .compressed import PLAIN, Unfinished, encoding_of, plain_reader, read_fully, read_some
from .tree import Entry, Tree

_MARK_BYTES = 4096
_CHUNK = 1 << 20
_LONGEST_LINE = 64 * 1024  # of those that are kept in one part


@dataclasses.dataclass
class Stream:
    """What is known of one log after a snapshot. The fields are stored as they are, as JSON."""

    number: int
    path: str  # where it was last seen
    identity: tuple[int, ...] = ()  # of that file: device, inode, size, mtime_ns, ctime_ns
    encoding: str = PLAIN  # of that file
    raw: bool = False  # this chain of snapshots holds the file as it is, compressed
    offset: int = 0  # plain bytes saved, up to the end of a line; of a raw one its own bytes
    # (length, SHA-256) of all that is saved, in order; of the compressed file where it is kept raw
    segments: list[tuple[int, str]] = dataclasses.field(default_factory=list)
    heads: list[str] = dataclasses.field(default_factory=list)  # what it is looked up by: see `beginnings`
    mark: tuple[int, str] = (0, "")  # (bytes of the file it speaks for, hash)
    present: bool = True  # its file was there at the last snapshot
    # (length, SHA-256) of the files that repeated its beginning at the last snapshot
    copies: list[tuple[int, str]] = dataclasses.field(default_factory=list)

    def to_json(self) -> dict[str, t.Any]:
        """A JSON object. Not `dataclasses.asdict`: that copies every hash of 10,000 logs."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, raw: dict[str, t.Any]) -> Stream:
        """The reverse."""
        stream = cls(**raw)
        stream.identity, stream.mark = tuple(raw["identity"]), (raw["mark"][0], raw["mark"][1])
        stream.segments = [(item[0], item[1]) for item in raw["segments"]]
        stream.copies = [(item[0], item[1]) for item in raw["copies"]]
        return stream


@dataclasses.dataclass
class Located:
    """A stream and the file that holds it now. ``start`` to ``end`` of the content is new."""

    stream: Stream
    entry: Entry
    start: int = 0
    end: int = 0
    unpacked: str = ""  # a file with the new plain content, where the log itself is compressed
    torn: int = 0  # bytes after the last whole line


@dataclasses.dataclass
class Resolution:
    """All files of a log directory, told apart."""

    located: list[Located] = dataclasses.field(default_factory=list)
    gone: list[Stream] = dataclasses.field(default_factory=list)
    copies: list[tuple[str, str]] = dataclasses.field(default_factory=list)  # (path, path of what it repeats)
    unfinished: list[str] = dataclasses.field(default_factory=list)  # being compressed right now
    # Files that begin like a saved log and go on otherwise: cut back after a power cut, packed anew, set back
    # to an older backup. No increment can tell which of their records it has; a full need not.
    forked: list[str] = dataclasses.field(default_factory=list)


def resolve(tree: Tree, files: t.Sequence[Entry], known: t.Sequence[Stream], scratch: str) -> Resolution:
    """Tell which stream each file holds. ``scratch`` is a directory for unpacked lines, the caller's to remove."""
    return _Resolver(tree, known, scratch).resolve(files)


def free_name(path: str, taken: t.Container[str], number: int) -> str:
    """``path``, or where another file has that name the same with the stream's number behind it."""
    for suffix in itertools.chain(["", f".stream-{number}"], (f".stream-{number}.{n}" for n in itertools.count(2))):
        if path + suffix not in taken:
            return path + suffix
    raise AssertionError("names never end")


class _Resolver:
    """One run of `resolve`."""

    def __init__(self, tree: Tree, known: t.Sequence[Stream], scratch: str):
        self.tree, self.known, self.scratch = tree, known, scratch
        self.found = Resolution()
        self.located: dict[int, Located] = {}
        self.by_head: dict[str, list[Stream]] = {}  # all known streams
        self.here: dict[str, list[int]] = {}  # the located ones, by head
        self.strange: list[tuple[Entry, list[str]]] = []  # files of no known stream
        self.number = max((stream.number for stream in known), default=0)

    def resolve(self, files: t.Sequence[Entry]) -> Resolution:
        # The tree lies on one device, whose number may be another after a restart.
        by_inode = {stream.identity[1]: stream for stream in self.known if stream.present}
        strangers = []
        for entry in files:
            stream = by_inode.get(entry.identity[1])
            if stream is not None and _continues(self.tree, entry, stream):
                self.located[stream.number] = _grown(self.tree, entry, stream)
            else:
                strangers.append((entry, encoding_of(self.tree, entry)))
        if strangers:
            self._index()
        for entry, encoding in sorted(strangers, key=_plain_first):
            try:
                self._place(entry, encoding)
            except Unfinished:
                self.found.unfinished.append(entry.path)
        self.found.located = list(self.located.values())
        lost = [stream for stream in self.known if stream.number not in self.located and stream.segments]
        self.found.gone = [dataclasses.replace(stream, present=False) for stream in lost]
        for entry, heads in self.strange:
            # A beginning that several logs share (a heading, say) proves nothing.
            suspects = [self.by_head[head][0] for head in heads if len(self.by_head.get(head, ())) == 1]
            if any(stream.number not in self.located and stream.segments for stream in suspects):
                self.found.forked.append(entry.path)
        return self.found

    def _index(self) -> None:
        """Make it possible to find streams by their beginnings; most runs meet no file that needs it."""
        for stream in self.known:
            for head in stream.heads:
                self.by_head.setdefault(head, []).append(stream)
        for item in self.located.values():
            self._hold(item)

    def _hold(self, item: Located) -> None:
        self.located[item.stream.number] = item
        for head in item.stream.heads:
            self.here.setdefault(head, []).append(item.stream.number)

    def _place(self, entry: Entry, encoding: str) -> None:
        """Find out what a file holds whose inode says nothing."""
        heads = beginnings(self.tree, entry)
        if self._is_moved(entry, encoding, heads):
            return
        if any(self._is_copy(entry, encoding, number) for number in self._alike(heads)):
            return
        self.strange.append((entry, heads))
        self.number += 1
        self._hold(_new(self.tree, entry, encoding, self.number))

    def _is_moved(self, entry: Entry, encoding: str, heads: list[str]) -> bool:
        """Whether the file holds a lost stream, or is a copy that was made of it."""
        lost = {s.number: s for head in heads for s in self.by_head.get(head, ()) if s.number not in self.located}
        for stream in lost.values():
            item = _holding(self.tree, entry, encoding, stream, self.scratch)
            if item is not None:
                self._hold(item)
                return True
        for stream in lost.values():
            if stream.copies and _content(self.tree, entry) in stream.copies:
                # A copy of a log that had grown since, and is gone now: all of this is saved.
                self.found.copies.append((entry.path, stream.path))
                return True
        return False

    def _alike(self, heads: list[str]) -> list[int]:
        """Located streams that may begin with all of a file with these heads, or it with all of them."""
        longer = self.here.get(heads[-1], []) if heads else []
        shorter = [n for head in heads for n in self.here.get(head, ()) if self.located[n].stream.heads[-1] == head]
        return list(dict.fromkeys([*longer, *shorter]))

    def _is_copy(self, entry: Entry, encoding: str, number: int) -> bool:
        """Whether one of the two files repeats the other; the longer one then holds the stream."""
        other = self.located[number]
        length, digest, longer = _compare(self.tree, entry, other.entry)
        if not longer:
            if digest:
                other.stream.copies.append((length, digest))
                self.found.copies.append((entry.path, other.entry.path))
            return bool(digest)
        if other.stream.segments:
            item = _holding(self.tree, entry, encoding, other.stream, self.scratch)
            if item is None:  # kept as it was compressed: what it says is stored in a form that cannot go on
                self.found.forked.append(entry.path)
                return False
        else:
            item = _new(self.tree, entry, encoding, number)
        self.found.copies.append((other.entry.path, entry.path))
        self._hold(item)
        return True


def _plain_first(stranger: tuple[Entry, str]) -> tuple[bool, int, bytes]:
    """Plain files before compressed ones, long before short: a copy is met after what it repeats."""
    entry, encoding = stranger
    return (encoding != PLAIN, -entry.size, os.fsencode(entry.path))


def _continues(tree: Tree, entry: Entry, stream: Stream) -> bool:
    """Whether the file with the stream's inode still is the stream's (an inode is used again after a removal)."""
    if entry.identity == stream.identity:
        return True
    if not stream.segments or entry.size < stream.mark[0]:
        return False
    if stream.encoding != PLAIN and not stream.raw and entry.size != stream.mark[0]:
        return False
    return mark(tree, entry, stream.mark[0]) == stream.mark


def _new(tree: Tree, entry: Entry, encoding: str, number: int) -> Located:
    return _grown(tree, entry, Stream(number, entry.path, encoding=encoding, raw=encoding != PLAIN))


def _grown(tree: Tree, entry: Entry, stream: Stream) -> Located:
    """The stream at its place, with what follows the saved offset: in whole lines, or raw as it is."""
    start = stream.offset
    if entry.identity != stream.identity or entry.path != stream.path or stream.copies:
        stream = dataclasses.replace(stream, path=entry.path, present=True, copies=[])
    if entry.identity == stream.identity:
        return Located(stream, entry, start, start, torn=0 if stream.encoding != PLAIN else entry.size - start)
    rest = entry.size if stream.raw else start  # a compressed file goes on only where it is kept as it is
    end = line_end(tree, entry, start) if stream.encoding == PLAIN else rest
    if len(stream.heads) < 2 and end > start:
        stream.heads = beginnings(tree, entry, None if stream.raw else end)
    return Located(stream, entry, start, end, torn=entry.size - end if stream.encoding == PLAIN else 0)


def _holding(tree: Tree, entry: Entry, encoding: str, stream: Stream, scratch: str) -> Located | None:
    """The stream in this file, if it holds all that was saved of it from the first byte on."""
    if not stream.segments or (stream.raw and encoding != stream.encoding):
        return None
    with plain_reader(tree, entry, as_it_is=stream.raw) as reader:
        if not all(_next_is(reader, length, digest) for length, digest in stream.segments):
            return None
        stream = dataclasses.replace(stream, encoding=encoding)
        if stream.raw or encoding == PLAIN:
            return _grown(tree, entry, dataclasses.replace(stream, identity=()))
        unpacked, length = _unpack_rest(reader, scratch, stream.offset)
        stream = dataclasses.replace(stream, path=entry.path, present=True, copies=[])
        return Located(stream, entry, stream.offset, stream.offset + length, unpacked)


def _next_is(reader: io.BufferedIOBase, length: int, digest: str) -> bool:
    seen = hashlib.sha256()
    while length:
        data = read_some(reader, min(_CHUNK, length))
        if not data:
            return False
        seen.update(data)
        length -= len(data)
    return seen.hexdigest() == digest


def _unpack_rest(reader: io.BufferedIOBase, scratch: str, offset: int) -> tuple[str, int]:
    """(path, bytes): what is left of the plain content, at its own offset in a sparse file."""
    fd, path = tempfile.mkstemp(dir=scratch)
    length = 0
    with os.fdopen(fd, "wb") as out:
        out.seek(offset)
        while data := read_some(reader, _CHUNK):
            out.write(data)
            length += len(data)
    return path, length


def _content(tree: Tree, entry: Entry) -> tuple[int, str]:
    """(length, SHA-256) of all the plain content."""
    seen, length = hashlib.sha256(), 0
    with plain_reader(tree, entry) as reader:
        while data := read_some(reader, _CHUNK):
            seen.update(data)
            length += len(data)
    return length, seen.hexdigest()


def _compare(tree: Tree, one: Entry, other: Entry) -> tuple[int, str, bool]:
    """(length, SHA-256, False) of ``one`` where ``other`` begins with all of it; (0, "", True) where it goes on
    after all of ``other``; (0, "", False) where they differ."""
    seen, length = hashlib.sha256(), 0
    with plain_reader(tree, one) as mine, plain_reader(tree, other) as theirs:
        while data := read_fully(mine, _CHUNK):
            try:
                same = read_fully(theirs, len(data))
            except Unfinished:  # kept raw, as far as it goes
                same = b""
            if same != data:
                return 0, "", data.startswith(same)
            seen.update(data)
            length += len(data)
    return length, seen.hexdigest(), False


def beginnings(tree: Tree, entry: Entry, until: int | None = None) -> list[str]:
    """What a log is looked up by: hashes of its first line and of its first two, or of its first 4,096 bytes where
    a line is longer. None where there is no whole line yet. ``until`` leaves out what follows that offset.
    """
    data = b""
    with plain_reader(tree, entry) as reader:
        try:
            while len(data) < _MARK_BYTES and (more := read_some(reader, _MARK_BYTES - len(data))):
                data += more
        except Unfinished:
            if b"\n" not in data:
                raise
    data = data[:until]
    ends = [match.end() for match in re.finditer(rb"\n", data)][:2]
    if len(ends) < 2 and len(data) == _MARK_BYTES and _MARK_BYTES not in ends:
        ends.append(_MARK_BYTES)
    if not ends and encoding_of(tree, entry) != PLAIN:
        with plain_reader(tree, entry, as_it_is=True) as reader:  # no line in it, but bytes of its own
            data = read_fully(reader, _MARK_BYTES)
        ends = [len(data)]
    return [_short(data[:end]) for end in ends]


def mark(tree: Tree, entry: Entry, length: int) -> tuple[int, str]:
    """What the first ``length`` bytes of the file are recognised by: their beginning and their end."""
    fd = tree.open_file(entry)
    try:
        ends = os.pread(fd, min(_MARK_BYTES, length), 0)
        ends += os.pread(fd, min(_MARK_BYTES, length), max(0, length - _MARK_BYTES))
    finally:
        os.close(fd)
    return length, _short(ends)


def _short(data: bytes) -> str:
    """A hash to look things up by, and half as long: every index holds three of them for each log."""
    return hashlib.sha256(data).hexdigest()[:32]


def line_end(tree: Tree, entry: Entry, start: int) -> int:
    """The offset after the last whole line between ``start`` and the end of the file."""
    fd = tree.open_file(entry)
    try:
        end = entry.size
        while end > start:
            begin = max(start, end - 65536)
            newline = os.pread(fd, end - begin, begin).rfind(b"\n")
            if newline >= 0:
                return begin + newline + 1
            end = begin
    finally:
        os.close(fd)
    return start


def part_end(tree: Tree, entry: Entry, start: int, end: int) -> int:
    """Where a part may end in a plain log between ``start`` and ``end``: after a line, so that a record lies in one
    part. ``start``: no line ends there; ``end`` where a line is so long that it must be cut."""
    begin = max(start, end - _LONGEST_LINE)
    fd = tree.open_file(entry)
    try:
        newline = os.pread(fd, end - begin, begin).rfind(b"\n")
    finally:
        os.close(fd)
    if newline >= 0:
        return begin + newline + 1
    return start if begin == start else end
