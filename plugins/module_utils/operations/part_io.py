# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One part on its way: from the tree through zstd and gpg into the store, and back.

Private to the collection: use the modules, not this file.

Content passes through Python once in each direction, in one buffer, to be hashed; everything else
is pipes between programs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import subprocess
import threading
import typing as t

from ..errors import IntegrityError, KeyProviderError, SourceChanged, StoreError
from ..format.manifest import StoredPart
from ..format.slicing import ZSTD, Part, Piece, require_zstandard
from ..format.tree import Tree
from ..services.gpg import Gpg, check
from ..services.store import NotStored, Store, write_all
from ..services.transfers import Upload

_BUFFER = 1 << 20
_ZSTD_LEVEL = 3


Result = t.TypeVar("Result")


class Cancelled(Exception):
    """Another part failed; this one stops without a word."""


@dataclasses.dataclass(repr=False)  # a repr would show the passphrase
class Traffic:
    """What every part of one run shares."""

    store: Store
    gpg: Gpg
    passphrase: bytes
    timeout: float
    advance: t.Callable[[int], object]  # told of plain bytes as they pass
    cancelled: threading.Event = dataclasses.field(default_factory=threading.Event)


def store_part(traffic: Traffic, tree: Tree, part: Part, name: str) -> list[str]:
    """Make the part's object; its size and hash are set. Returns the SHA-256 of each of its file pieces."""
    where = traffic.store.full_name(name)
    with traffic.store.upload(name) as upload:
        if upload.is_file:
            with traffic.gpg.encrypting(traffic.passphrase, subprocess.PIPE, upload.fd, traffic.timeout) as child:
                hashes = _feed(traffic, tree, part, child.stdin)
                check(child, where)
            part.size, part.sha256 = _digest(upload.fd)
        else:
            with traffic.gpg.encrypting(traffic.passphrase, subprocess.PIPE, subprocess.PIPE, traffic.timeout) as child:
                relay = _Relay(child.stdout, upload, child.kill)
                try:
                    hashes = _feed(traffic, tree, part, child.stdin)
                finally:
                    if relay.is_alive() and not child.stdin.closed:
                        child.kill()  # the feed failed: nobody will write the rest
                    relay.join()
                if relay.broken:
                    upload.commit()  # says why the store took no more; if it does not know, we say so
                    raise StoreError(where, "a store that takes the whole part", "one that stopped")
                check(child, where)
                part.size, part.sha256 = relay.size, relay.hash.hexdigest()
        upload.commit()
    return hashes


class _Relay(threading.Thread):
    """Carries ciphertext from gpg to the upload and hashes it on the way."""

    def __init__(self, source: t.IO[bytes], upload: Upload, on_failure: t.Callable[[], None]):
        super().__init__(daemon=True)
        self.source, self.upload, self.on_failure = source, upload, on_failure
        self.hash = hashlib.sha256()
        self.size = 0
        self.broken = False  # the upload takes no more; its `commit` says why
        self.start()

    def run(self) -> None:
        buffer = memoryview(bytearray(_BUFFER))
        try:
            while count := os.readv(self.source.fileno(), [buffer]):
                self.hash.update(buffer[:count])
                self.size += count
                write_all(self.upload.fd, buffer[:count])
        except OSError:
            self.broken = True
            self.on_failure()


def _feed(traffic: Traffic, tree: Tree, part: Part, sink: t.IO[bytes]) -> list[str]:
    """Write the part's plain bytes to gpg, through zstd where the part asks for it."""
    hashes: list[str] = []
    try:
        if part.codec == ZSTD:
            compressor = require_zstandard().ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True)
            with compressor.stream_writer(sink, closefd=False, write_size=_BUFFER) as writer:
                for piece in part.pieces:
                    hashes.extend(_feed_piece(traffic, tree, piece, writer.write))
        else:
            for piece in part.pieces:
                hashes.extend(_feed_piece(traffic, tree, piece, lambda data: write_all(sink.fileno(), data)))
        sink.close()
    except BrokenPipeError:
        # gpg ended early, and it or whoever it wrote to says why.
        with contextlib.suppress(BrokenPipeError):
            sink.close()
    return hashes


def _feed_piece(traffic: Traffic, tree: Tree, piece: Piece, write: t.Callable[[t.Any], t.Any]) -> t.Iterator[str]:
    if traffic.cancelled.is_set():
        raise Cancelled()
    if piece.file is None:
        write(piece.literal())
        return
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(min(_BUFFER, piece.length)))
    fd = tree.open_file(piece.file)
    try:
        position, end = piece.offset, piece.offset + piece.length
        while position < end:
            if traffic.cancelled.is_set():
                raise Cancelled()
            count = os.preadv(fd, [buffer[: end - position]], position)
            if not count:
                where = os.path.join(tree.root, piece.file.path)
                raise SourceChanged(where, f"{end} bytes", f"{position}: it was cut short while it was read")
            digest.update(buffer[:count])
            write(buffer[:count])
            position += count
            traffic.advance(count)
    finally:
        os.close(fd)
    yield digest.hexdigest()


def _digest(fd: int) -> tuple[int, str]:
    """Size and SHA-256 of what a file holds now: read back, not remembered."""
    digest, size = hashlib.sha256(), 0
    buffer = memoryview(bytearray(_BUFFER))
    while count := os.preadv(fd, [buffer], size):
        digest.update(buffer[:count])
        size += count
    return size, digest.hexdigest()


def fetch_plain(traffic: Traffic, part: StoredPart, name: str, sink: t.Callable[[memoryview], None]) -> None:
    """Decrypt and decompress a part into ``sink``, in order.

    Until this has returned what ``sink`` was given is unproven. Raises `IntegrityError` where the
    object is not what was stored, `StoreError` where it cannot be had.
    """
    length = 0
    buffer = memoryview(bytearray(_BUFFER))
    where = traffic.store.full_name(name)
    with (
        traffic.store.download(name) as download,
        traffic.gpg.decrypting(traffic.passphrase, download.fd, subprocess.PIPE, traffic.timeout) as child,
        _reader(part, child.stdout) as read_into,
    ):
        while True:
            if traffic.cancelled.is_set():  # before the first byte too: a store that stalls may never send it
                raise Cancelled()
            count = read_into(buffer)
            if not count:
                break
            length += count
            if length > part.length:
                raise IntegrityError(where, f"{part.length} bytes of tar stream", "more")
            sink(buffer[:count])
            traffic.advance(count)
        # The store first: where it gave too little, gpg's complaint about that would mislead.
        download.check()
        try:
            check(child, where)
        except KeyProviderError as error:
            # The index opened with this key, so it is the part's first bytes that gpg cannot make sense of.
            raise IntegrityError(where, "data that the snapshot's key encrypted", "changed data", error.hint) from error
    if length != part.length:
        raise IntegrityError(where, f"{part.length} bytes of tar stream", f"{length}")


@contextlib.contextmanager
def _reader(part: StoredPart, stream: t.IO[bytes]) -> t.Iterator[t.Callable[[memoryview], int]]:
    if part.codec != ZSTD:
        yield lambda buffer: os.readv(stream.fileno(), [buffer])
        return
    zstandard = require_zstandard()
    with zstandard.ZstdDecompressor().stream_reader(stream, read_size=_BUFFER, closefd=False) as reader:

        def read_into(buffer: memoryview) -> int:
            try:
                return int(reader.readinto(buffer))
            except zstandard.ZstdError as error:
                raise IntegrityError(part.name, "a zstd stream", str(error)) from error

        yield read_into


def fetch_digest(traffic: Traffic, name: str) -> tuple[int, str]:
    """Size and SHA-256 of the object as the store gives it."""
    digest, size = hashlib.sha256(), 0
    buffer = memoryview(bytearray(_BUFFER))
    with traffic.store.download(name) as download:
        while True:
            if traffic.cancelled.is_set():
                raise Cancelled()
            count = os.readv(download.fd, [buffer])
            if not count:
                break
            digest.update(buffer[:count])
            size += count
            traffic.advance(count)
        download.check()
    return size, digest.hexdigest()


def with_retries(attempts: int, wait: t.Callable[[float], bool], work: t.Callable[[], Result]) -> Result:
    """Do ``work`` again when the store failed, at most ``attempts`` times, waiting 1, 2, 4 … seconds.

    ``wait`` waits so long, and says whether the whole run was cancelled meanwhile.
    Damage is read once more as well: it may have happened on the way.
    """
    damaged = 0
    for attempt in range(1, attempts):
        try:
            return work()
        except NotStored:
            raise  # the store has answered
        except StoreError:
            if wait(2.0 ** (attempt - 1)):
                raise Cancelled() from None
        except IntegrityError:
            damaged += 1
            if damaged > 1:
                raise
    return work()
