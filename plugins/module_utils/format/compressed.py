# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read log files that rotation has compressed, whole ones and those that are still being made.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import os
import re
import typing as t
import zlib

from .slicing import require_zstandard
from .tree import Entry, Tree

PLAIN = "plain"
_SUFFIXES = {".gz": "gzip", ".zst": "zstd", ".xz": "xz", ".bz2": "bzip2"}
# Long enough that no line of text begins so by chance.
_MAGIC = {
    "gzip": re.compile(rb"\x1f\x8b\x08"),
    "xz": re.compile(rb"\xfd7zXZ\x00"),
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", re.DOTALL),
    "bzip2": re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"),
}
_MAGIC_BYTES = 10
_ZSTD_READ = 1024  # zeros shrink by tens of thousands, and all that this unpacks to is in memory at once


class Unfinished(Exception):
    """A compressed file without an end, or no compressed file at all."""


def plain_name(path: str) -> str:
    """The name without a compression's suffix."""
    return next((path[: -len(suffix)] for suffix in _SUFFIXES if path.endswith(suffix)), path)


def encoding_of(tree: Tree, entry: Entry) -> str:
    """What the file's first bytes say of it; its name only while there are too few of them."""
    fd = tree.open_file(entry)
    try:
        return _encoding(fd, entry.path)
    finally:
        os.close(fd)


def _encoding(fd: int, path: str) -> str:
    head = os.pread(fd, _MAGIC_BYTES, 0)
    for name, magic in _MAGIC.items():
        if magic.match(head):
            return name
    if len(head) == _MAGIC_BYTES:
        return PLAIN
    return next((name for suffix, name in _SUFFIXES.items() if path.endswith(suffix)), PLAIN)


@contextlib.contextmanager
def plain_reader(tree: Tree, entry: Entry, as_it_is: bool = False) -> t.Iterator[io.BufferedIOBase]:
    """The file's content, decompressed where it is compressed."""
    with os.fdopen(tree.open_file(entry), "rb") as raw:
        encoding = PLAIN if as_it_is else _encoding(raw.fileno(), entry.path)
        with _OPENERS[encoding](raw) as reader:
            yield reader


def read_some(reader: io.BufferedIOBase, length: int) -> bytes:
    """At least one byte and at most ``length``; none at the end. Raises `Unfinished` where there is no end."""
    try:
        return reader.read1(length)
    except (EOFError, lzma.LZMAError, zlib.error) as error:
        raise Unfinished() from error
    except OSError as error:
        if error.errno is None:  # how gzip, bz2 and our zstd say that the data is not theirs
            raise Unfinished() from error
        raise


def read_fully(reader: io.BufferedIOBase, length: int) -> bytes:
    """As many bytes as there are, up to ``length``. Raises `Unfinished`."""
    chunks = []
    while length and (data := read_some(reader, length)):
        chunks.append(data)
        length -= len(data)
    return b"".join(chunks)


class _ZstdReader(io.RawIOBase):
    """All frames of a zstd file. zstandard's own reader takes a frame that breaks off for a whole one."""

    def __init__(self, source: t.IO[bytes]):
        self._source = source
        self._zstandard = require_zstandard()
        self._frame: t.Any = None  # none has begun
        self._plain = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: t.Any) -> int:
        view = memoryview(buffer).cast("B")
        while not self._plain:
            data = self._source.read(_ZSTD_READ)
            if not data:
                if self._frame is not None:
                    raise EOFError("a zstd frame without an end")
                return 0
            self._plain = memoryview(self._decompress(data))
        count = min(len(view), len(self._plain))
        view[:count] = self._plain[:count]
        self._plain = self._plain[count:]
        return count

    def _decompress(self, data: bytes) -> bytes:
        plain = []
        try:
            while data:
                if self._frame is None:
                    self._frame = self._zstandard.ZstdDecompressor().decompressobj()
                plain.append(self._frame.decompress(data))
                data = self._frame.unused_data if self._frame.eof else b""
                if self._frame.eof:
                    self._frame = None
        except self._zstandard.ZstdError as error:
            raise OSError(str(error)) from error
        return b"".join(plain)


_OPENERS: dict[str, t.Callable[[t.IO[bytes]], t.Any]] = {
    PLAIN: contextlib.nullcontext,
    "gzip": lambda raw: gzip.GzipFile(fileobj=raw),
    "xz": lzma.LZMAFile,
    "bzip2": bz2.BZ2File,
    "zstd": lambda raw: io.BufferedReader(_ZstdReader(raw)),
}
