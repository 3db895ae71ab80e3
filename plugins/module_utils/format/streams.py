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

import bz2
import contextlib
import dataclasses
import gzip
import hashlib
import lzma
import os
import tempfile
import typing as t
import zlib

from .slicing import require_zstandard
from .tree import Entry, Tree

PLAIN = "plain"
ENCODINGS = {".gz": "gzip", ".zst": "zstd", ".xz": "xz", ".bz2": "bzip2"}

_MARK_BYTES = 4096
_CHUNK = 1 << 20


@dataclasses.dataclass
class Stream:
    """What is known of one log after a snapshot. The fields are stored as they are, as JSON."""

    number: int
    path: str  # where it was last seen
    identity: tuple[int, ...] = ()  # of that file: device, inode, size, mtime_ns, ctime_ns
    encoding: str = PLAIN  # of that file
    raw: bool = False  # this chain of snapshots holds the file as it is, compressed
    offset: int = 0  # plain bytes saved, up to the end of a line
    # (length, SHA-256) of all that is saved, in order; of the compressed file where it is kept raw
    segments: list[tuple[int, str]] = dataclasses.field(default_factory=list)
    head: str = ""  # SHA-256 of the first line
    mark: tuple[int, str] = (0, "")  # (bytes of the file it speaks for, hash)
    present: bool = True  # its file was there at the last snapshot

    def to_json(self) -> dict[str, t.Any]:
        """A JSON object."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, raw: dict[str, t.Any]) -> Stream:
        """The reverse."""
        raw = {**raw, "identity": tuple(raw["identity"]), "mark": tuple(raw["mark"])}
        return cls(**{**raw, "segments": [(length, digest) for length, digest in raw["segments"]]})


@dataclasses.dataclass
class Located:
    """A stream and the file that holds it now. ``start`` to ``end`` of the plain content is new."""

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


class _Unfinished(Exception):
    """A compressed file without an end."""


def encoding_of(path: str) -> str:
    """By the name's suffix, as logrotate gives it."""
    return next((name for suffix, name in ENCODINGS.items() if path.endswith(suffix)), PLAIN)


def plain_name(path: str) -> str:
    """The name without a compression's suffix."""
    return next((path[: -len(suffix)] for suffix in ENCODINGS if path.endswith(suffix)), path)


def resolve(tree: Tree, files: t.Sequence[Entry], known: t.Sequence[Stream], scratch: str) -> Resolution:
    """Tell which stream each file holds. ``scratch`` is a directory for unpacked lines, the caller's to remove."""
    found = Resolution()
    by_inode = {stream.identity[:2]: stream for stream in known if stream.present}
    strangers = []
    for entry in files:
        stream = by_inode.get(entry.identity[:2])
        if stream is not None and _continues(tree, entry, stream):
            found.located.append(_grown(tree, entry, stream))
        else:
            strangers.append(entry)
    taken = {item.stream.number for item in found.located}
    lost = _by_head([stream for stream in known if stream.number not in taken])
    here = {item.stream.number: item for item in found.located}
    heads = _by_head([item.stream for item in found.located])
    number = max((stream.number for stream in known), default=0)
    for entry in sorted(strangers, key=_plain_first):
        try:
            head = first_line(tree, entry)
            item = _moved(tree, entry, lost.get(head, ()), scratch)
            if item is None and head:
                original = _original(tree, entry, heads.get(head, ()), here)
                if original is not None:
                    found.copies.append((entry.path, original))
                    continue
        except _Unfinished:
            found.unfinished.append(entry.path)
            continue
        if item is None:
            number += 1
            encoding = encoding_of(entry.path)
            stream = Stream(number, entry.path, encoding=encoding, raw=encoding != PLAIN, head=head)
            item = _grown(tree, entry, stream)
        else:
            lost[head] = [stream for stream in lost[head] if stream.number != item.stream.number]
        found.located.append(item)
        here[item.stream.number] = item
        if item.stream.head:
            heads.setdefault(item.stream.head, []).append(item.stream)
    held = {item.stream.number for item in found.located}
    found.gone = [dataclasses.replace(stream, present=False) for stream in known if stream.number not in held]
    return found


def _plain_first(entry: Entry) -> tuple[bool, int, bytes]:
    """Plain files before compressed ones, long before short: a copy is met after what it repeats."""
    return (encoding_of(entry.path) != PLAIN, -entry.size, os.fsencode(entry.path))


def _by_head(streams: t.Iterable[Stream]) -> dict[str, list[Stream]]:
    heads: dict[str, list[Stream]] = {}
    for stream in streams:
        if stream.head:
            heads.setdefault(stream.head, []).append(stream)
    return heads


def _continues(tree: Tree, entry: Entry, stream: Stream) -> bool:
    """Whether the file with the stream's inode still is the stream's (an inode is used again after a removal)."""
    if entry.identity == stream.identity:
        return True
    if encoding_of(entry.path) != stream.encoding or entry.size < stream.mark[0]:
        return False
    if stream.encoding != PLAIN and entry.size != stream.mark[0]:
        return False
    return mark(tree, entry, stream.mark[0]) == stream.mark


def _grown(tree: Tree, entry: Entry, stream: Stream) -> Located:
    """The stream at its place, with what follows the saved offset in whole lines."""
    head = stream.head or first_line(tree, entry)
    stream = dataclasses.replace(stream, path=entry.path, present=True, encoding=encoding_of(entry.path), head=head)
    if stream.encoding != PLAIN:
        return Located(stream, entry, stream.offset, stream.offset)
    if entry.identity == stream.identity and entry.size == stream.offset:
        return Located(stream, entry, stream.offset, stream.offset)
    end = line_end(tree, entry, stream.offset)
    return Located(stream, entry, stream.offset, end, torn=entry.size - end)


def _moved(tree: Tree, entry: Entry, candidates: t.Iterable[Stream], scratch: str) -> Located | None:
    """The lost stream that this file holds from its first byte on, if there is one."""
    encoding = encoding_of(entry.path)
    for stream in candidates:
        if not stream.segments or (stream.raw and encoding != stream.encoding):
            continue
        with plain_reader(tree, entry, as_it_is=stream.raw) as reader:
            if not all(_next_is(reader, length, digest) for length, digest in stream.segments):
                continue
            stream = dataclasses.replace(stream, path=entry.path, present=True, encoding=encoding)
            if stream.raw:
                return Located(stream, entry, stream.offset, stream.offset)
            if encoding == PLAIN:
                end = line_end(tree, entry, stream.offset)
                return Located(stream, entry, stream.offset, end, torn=entry.size - end)
            unpacked, length = _unpack_rest(reader, scratch, stream.offset)
            return Located(stream, entry, stream.offset, stream.offset + length, unpacked)
    return None


def _next_is(reader: t.IO[bytes], length: int, digest: str) -> bool:
    seen = hashlib.sha256()
    while length:
        data = _read(reader, min(_CHUNK, length))
        if not data:
            return False
        seen.update(data)
        length -= len(data)
    return seen.hexdigest() == digest


def _unpack_rest(reader: t.IO[bytes], scratch: str, offset: int) -> tuple[str, int]:
    """(path, bytes): what is left of the plain content, at its own offset in a sparse file."""
    fd, path = tempfile.mkstemp(dir=scratch)
    length = 0
    with os.fdopen(fd, "wb") as out:
        out.seek(offset)
        while data := _read(reader, _CHUNK):
            out.write(data)
            length += len(data)
    return path, length


def _original(tree: Tree, entry: Entry, candidates: t.Iterable[Stream], here: dict[int, Located]) -> str | None:
    """The path of the file that this one repeats: all its bytes, from the first on."""
    for stream in candidates:
        other = here[stream.number].entry
        with plain_reader(tree, entry) as copy, plain_reader(tree, other) as original:
            while data := _read(copy, _CHUNK):
                if _read_fully(original, len(data)) != data:
                    break
            else:
                return other.path
    return None


def first_line(tree: Tree, entry: Entry) -> str:
    """SHA-256 of the first line, or of its first 4,096 bytes; empty where there is no whole line yet."""
    with plain_reader(tree, entry) as reader:
        data = _read_fully(reader, _MARK_BYTES)
    line, newline, _rest = data.partition(b"\n")
    if not newline and len(data) < _MARK_BYTES:
        return ""
    return hashlib.sha256(line + newline).hexdigest()


def mark(tree: Tree, entry: Entry, length: int) -> tuple[int, str]:
    """What the first ``length`` bytes of the file are recognised by: their beginning and their end."""
    fd = tree.open_file(entry)
    try:
        ends = os.pread(fd, min(_MARK_BYTES, length), 0)
        ends += os.pread(fd, min(_MARK_BYTES, length), max(0, length - _MARK_BYTES))
    finally:
        os.close(fd)
    return length, hashlib.sha256(ends).hexdigest()


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


@contextlib.contextmanager
def plain_reader(tree: Tree, entry: Entry, as_it_is: bool = False) -> t.Iterator[t.IO[bytes]]:
    """The file's content, decompressed where its name says that it is compressed."""
    encoding = PLAIN if as_it_is else encoding_of(entry.path)
    with os.fdopen(tree.open_file(entry), "rb") as raw:
        if encoding == "gzip":
            yield t.cast(t.IO[bytes], gzip.GzipFile(fileobj=raw))
        elif encoding == "xz":
            yield t.cast(t.IO[bytes], lzma.LZMAFile(raw))
        elif encoding == "bzip2":
            yield t.cast(t.IO[bytes], bz2.BZ2File(raw))
        elif encoding == "zstd":
            yield t.cast(t.IO[bytes], require_zstandard().ZstdDecompressor().stream_reader(raw))
        else:
            yield raw


def _read(reader: t.IO[bytes], length: int) -> bytes:
    try:
        return reader.read(length)
    except (EOFError, lzma.LZMAError, zlib.error) as error:
        raise _Unfinished() from error
    except OSError as error:
        if error.errno is None:  # how gzip and bz2 say that the data is not theirs
            raise _Unfinished() from error
        raise


def _read_fully(reader: t.IO[bytes], length: int) -> bytes:
    chunks = []
    while length and (data := _read(reader, length)):
        chunks.append(data)
        length -= len(data)
    return b"".join(chunks)
