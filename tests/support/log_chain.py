# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A log directory whose every line is known, and snapshots of it kept in memory: no gpg, no store.

What lies between is the engine's own: plans, tar stream, manifest, index and image.
"""

from __future__ import annotations

import bz2
import collections
import gzip
import hashlib
import io
import itertools
import lzma
import os
import pathlib
import re
import tarfile
import tempfile

import zstandard

from ansible_collections.guardops.qwen3guard.plugins.module_utils.format import index as indexes
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.index import Index
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.manifest import (
    FULL,
    INCREMENT,
    Manifest,
    StoredPart,
    new_snapshot_id,
)
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.slicing import ZSTD, slice_entries
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.streams import Stream
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.tree import FILE, HARDLINK, Tree
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.image import image_of
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.logs import LogsPlan, plan_logs
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.snapshots import Opened

PACK = {
    ".gz": lambda data: gzip.compress(data, mtime=0),  # the same again a second later
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
    ".zst": lambda data: zstandard.ZstdCompressor().compress(data),
}


class LogDirectory:
    """Files of unique lines, and what happens to log files. Names are relative; ``lines`` are all whole lines."""

    def __init__(self, root: pathlib.Path):
        self.root = root
        self.lines: list[bytes] = []
        self._numbers = itertools.count(1)
        self._torn: dict[str, bytes] = {}
        root.mkdir(parents=True, exist_ok=True)

    def path(self, name: str) -> pathlib.Path:
        return self.root / name

    def line(self, end: bytes = b"\n", padding: int = 0) -> bytes:
        """One more line that no file has."""
        return b'{"trace_id": "qwg-%06d"}' % next(self._numbers) + b"x" * padding + end

    def append(self, name: str, count: int = 3, end: bytes = b"\n", padding: int = 0) -> None:
        self.path(name).parent.mkdir(parents=True, exist_ok=True)
        new = [self.line(end, padding) for _number in range(count)]
        with self.path(name).open("ab") as file:
            file.write(b"".join(new))
        self.lines += new

    def tear(self, name: str) -> None:
        """The first half of a line."""
        line = self.line()
        self._torn[name] = line
        with self.path(name).open("ab") as file:
            file.write(line[:10])

    def complete(self, name: str, now: str = "") -> None:
        """Its second half, into the file's name of today."""
        line = self._torn.pop(name)
        with self.path(now or name).open("ab") as file:
            file.write(line[10:])
        self.lines.append(line)

    def rename(self, name: str, to: str) -> None:
        self.path(to).parent.mkdir(parents=True, exist_ok=True)
        self.path(name).rename(self.path(to))

    def copy(self, name: str, to: str) -> None:
        self.path(to).write_bytes(self.path(name).read_bytes())

    def copytruncate(self, name: str, to: str) -> None:
        self.copy(name, to)
        os.truncate(self.path(name), 0)

    def remove(self, name: str) -> None:
        self.path(name).unlink()

    def compress(self, name: str, suffix: str = ".gz", keep: bool = False, part: float = 1.0) -> None:
        """To ``name`` with the suffix; only a ``part`` of the result where the work is still going on."""
        packed = PACK[suffix](self.path(name).read_bytes())
        self.path(name + suffix).write_bytes(packed[: int(len(packed) * part)])
        if not keep:
            self.remove(name)

    def on_disk(self) -> collections.Counter[bytes]:
        """Whole lines in all files."""
        files = [path.read_bytes() for path in self.root.rglob("*") if path.is_file() and path.stat().st_nlink == 1]
        return whole_lines(files)


def unpacked(data: bytes) -> bytes:
    """A file's plain content, told by its first bytes."""
    if data.startswith(b"\x1f\x8b"):
        return gzip.decompress(data)
    if data.startswith(b"\xfd7zXZ"):
        return lzma.decompress(data)
    if re.match(rb"BZh\d", data):
        return bz2.decompress(data)
    if data.startswith(b"\x28\xb5\x2f\xfd"):
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return data


def whole_lines(files: list[bytes]) -> collections.Counter[bytes]:
    """All lines that have an end."""
    return collections.Counter(
        line for data in files for line in unpacked(data).splitlines(keepends=True) if line.endswith(b"\n")
    )


class Chain:
    """Snapshots of a log directory."""

    def __init__(self, root: pathlib.Path):
        self.root = root
        self.known: list[Stream] = []
        self.opened: list[Opened] = []
        self.tars: dict[str, bytes] = {}
        self.last: LogsPlan | None = None

    def full(self) -> Manifest:
        taken = self.take(FULL)
        assert taken is not None
        return taken

    def increment(self) -> Manifest:
        """An increment, which must find something new, and must not have to be a full."""
        taken = self.take(INCREMENT)
        assert taken is not None, "nothing new was found"
        assert taken.type == INCREMENT, self.last
        return taken

    def nothing_new(self) -> None:
        assert self.take(INCREMENT) is None

    def take(self, kind: str) -> Manifest | None:
        """What `backup` does."""
        with tempfile.TemporaryDirectory() as scratch:
            ids = [item.manifest.snapshot for item in self.chain()]
            planned = plan_logs(str(self.root), self.known, ids, kind, scratch)
            if kind == INCREMENT and planned.forked:
                kind, planned = FULL, plan_logs(str(self.root), (), (), FULL, scratch)
            self.last = planned
            if kind == INCREMENT and not planned.new_bytes:
                planned.plan.finish()
                self.known = planned.streams
                return None
            return self.carry_out(planned)

    def carry_out(self, planned: LogsPlan) -> Manifest:
        """Make the snapshot that was planned."""
        plan = planned.plan
        tar = io.BytesIO()
        with Tree(plan.root) as tree:
            stored = [entry for entry in plan.entries if not entry.listed_only]
            parts = slice_entries(stored, lambda _entry: ZSTD, 1 << 20, plan.cuts)
            for piece in (piece for part in parts for piece in part.pieces):
                if piece.file is None:
                    tar.write(piece.literal())
                    continue
                fd = tree.open_file(piece.file)
                data = os.pread(fd, piece.length, piece.offset)
                os.close(fd)
                assert len(data) == piece.length
                tar.write(data)
                extents = piece.file.extents
                extents[piece.slot] = extents[piece.slot]._replace(sha256=hashlib.sha256(data).hexdigest())
        plan.finish()
        snapshot = new_snapshot_id(len(self.opened) + 1)
        manifest = Manifest(
            instance="test", layer="logs", snapshot=snapshot, type=plan.type, created="2024-05-20T00:00:00Z",
            base=plan.base or snapshot, parent=plan.parent, key={}, files=0, content_bytes=0,
            parts=[StoredPart(part.name, 1, "0" * 64, part.start, part.length, part.codec) for part in parts],
            index=StoredPart("index.gpg", 1, "0" * 64),
        )  # fmt: skip
        data = indexes.to_bytes(Index(plan.entries, plan.skipped, plan.layer), manifest)
        self.opened.append(Opened(manifest, b"", indexes.from_bytes(data, manifest, "test")))
        self.tars[snapshot] = tar.getvalue()
        self.known = planned.streams
        return manifest

    def lose_state(self) -> None:
        """What is known comes from the newest index."""
        self.known = [Stream.from_json(raw) for raw in self.opened[-1].index.layer["streams"]]

    def chain(self, last: int | None = None) -> list[Opened]:
        """The newest full and what follows, or the chain of an older snapshot, counted from 0."""
        upto = self.opened if last is None else self.opened[: last + 1]
        starts = [number for number, item in enumerate(upto) if item.manifest.type == FULL]
        return upto[starts[-1] :] if starts else []

    def restored(self, last: int | None = None) -> dict[str, bytes]:
        """Names and contents that a restore gives, hard links included."""
        image = image_of(self.chain(last))
        names = [entry.path for entry in image.entries]
        assert len(names) == len(set(names)), "two entries of one name"
        files = {}
        for entry in image.entries:
            assert os.path.dirname(entry.path) in (*names, ""), "a file without its directory"
            if entry.type == FILE:
                content = bytearray(entry.size)
                for opened, extent in image.pieces[entry.path]:
                    data = self.tars[opened.manifest.snapshot][extent.position : extent.position + extent.length]
                    assert hashlib.sha256(data).hexdigest() == extent.sha256
                    content[extent.offset : extent.offset + extent.length] = data
                assert sum(piece.extent.length for piece in image.pieces[entry.path]) == entry.size
                files[entry.path] = bytes(content)
        for entry in image.entries:
            if entry.type == HARDLINK:
                files[entry.path] = files[entry.target]
        return files

    def lines(self, last: int | None = None) -> collections.Counter[bytes]:
        """All whole lines that a restore gives; of several hard links one counts."""
        files = self.restored(last)
        links = {entry.path for entry in self.chain(last)[-1].index.entries if entry.type == HARDLINK}
        return whole_lines([data for name, data in files.items() if name not in links])

    def lines_by_hand(self) -> collections.Counter[bytes]:
        """All whole lines in the tar streams, each unpacked by itself as RECOVERY.md says."""
        files = []
        for opened in self.chain():
            with tarfile.open(fileobj=io.BytesIO(self.tars[opened.manifest.snapshot])) as archive:
                for member in archive:
                    source = archive.extractfile(member) if member.isreg() else None
                    if source is not None:
                        files.append(source.read())
        return whole_lines(files)


def check(logs: LogDirectory, chain: Chain) -> None:
    """Every line once, by the collection and by hand."""
    expected = collections.Counter(logs.lines)
    assert set(expected.values()) == {1}
    assert chain.lines() == expected
    assert chain.lines_by_hand() == expected
