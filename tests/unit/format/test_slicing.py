# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a tar stream is cut into parts, and that GNU tar and Python read what the parts make together."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tarfile
import typing as t
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sample_instance.compare import compare_trees

from ansible_collections.guardops.qwen3guard.plugins.module_utils.format import slicing, tarstream
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.slicing import PLAIN, ZSTD, Part, slice_entries
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.tree import DIRECTORY, FILE, Entry, Tree, scan
from support import trees
from support.engine import short_place


def plain_stream(tree: Tree, parts: t.Sequence[Part]) -> bytes:
    """The bytes of all parts, one after the other."""
    chunks = []
    for part in parts:
        for piece in part.pieces:
            if piece.file is None:
                chunks.append(piece.literal())
                continue
            fd = tree.open_file(piece.file)
            try:
                chunks.append(os.pread(fd, piece.length, piece.offset))
            finally:
                os.close(fd)
            assert len(chunks[-1]) == piece.length
    return b"".join(chunks)


def by_name(entry: Entry) -> str:
    """Any rule will do: some of both kinds."""
    return ZSTD if hashlib.sha256(os.fsencode(entry.path)).digest()[0] % 2 else PLAIN


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(trees.trees(), st.integers(600, 20_000), st.lists(st.integers(1, 20_000), max_size=3, unique=True))
def test_any_tree(tree: list[trees.Node], part_size: int, cuts: list[int]) -> None:
    with short_place() as place, pytest.MonkeyPatch.context() as patch:
        patch.setattr(slicing, "_ZSTD_PART_SHARE", 1)
        trees.build(place / "source", tree)
        entries, skipped = scan(str(place / "source"))
        parts = slice_entries(entries, by_name, part_size, lambda _entry: sorted(cuts))
        with Tree(str(place / "source")) as opened:
            stream = plain_stream(opened, parts)
        check_parts(parts, len(stream), part_size)
        check_extents(entries, stream, place / "source", cuts)
        check_codecs(parts)
        (place / "stream.tar").write_bytes(stream)
        check_by_tarfile(place / "stream.tar", entries)
        if trees.ROOT:
            (place / "out").mkdir()
            options = ["--acls", "--xattrs", "--xattrs-include=*", "--delay-directory-restore", "--numeric-owner", "-p"]
            subprocess.run(
                ["tar", "-x", "-f", "stream.tar", "-C", "out", *options],
                cwd=place, check=True, capture_output=True, env={**os.environ, "LC_ALL": "C"},
            )  # fmt: skip
            found = compare_trees(place / "source", place / "out")
            assert len(found) == len(skipped), found
            assert all(line.endswith(": missing") for line in found)


def check_parts(parts: t.Sequence[Part], length: int, part_size: int) -> None:
    """They tile the stream."""
    position = 0
    for number, part in enumerate(parts):
        assert (part.number, part.start) == (number, position)
        assert 0 < part.length == sum(piece.length for piece in part.pieces)
        assert part.length <= (part_size if part.codec == PLAIN else max(part_size, 1 << 20))
        position += part.length
    assert position == length


def check_extents(entries: t.Sequence[Entry], stream: bytes, source: Path, cuts: t.Sequence[int]) -> None:
    """They point to the very bytes of their files, and end at every cut."""
    for entry in entries:
        if entry.type == FILE:
            with open(os.path.join(source, entry.path), "rb") as handle:
                content = handle.read()
            held = bytearray(len(content))
            for extent in entry.extents:
                end = extent.offset + extent.length
                held[extent.offset : end] = stream[extent.position : extent.position + extent.length]
                assert not any(extent.offset < cut < end for cut in cuts)
            assert bytes(held) == content
        else:
            assert entry.extents == []


def check_codecs(parts: t.Sequence[Part]) -> None:
    """No part holds content of both kinds, and no kind comes again after the other."""
    for part in parts:
        assert {by_name(piece.file) for piece in part.pieces if piece.file} <= {part.codec}
    kinds = [part.codec for part in parts]
    assert kinds == sorted(kinds, key=lambda codec: codec == PLAIN)


def check_by_tarfile(path: Path, entries: t.Sequence[Entry]) -> None:
    with tarfile.open(path) as archive:
        found = {member.name: member for member in archive}
        assert set(found) ^ {entry.path for entry in entries} == set()
        for entry in entries:
            if entry.type == FILE:
                assert found[entry.path].size == entry.size
                assert len(archive.extractfile(found[entry.path]).read()) == entry.size


def test_a_header_is_the_same_whenever_it_is_made() -> None:
    entry = Entry("d/" + "x" * 300, FILE, size=5, mtime_ns=-1)
    parts = slice_entries([Entry(".", DIRECTORY), entry], lambda _entry: PLAIN, 700)
    header = tarstream.header(entry)
    pieces = [piece for part in parts for piece in part.pieces if piece.entry is entry and piece.file is None]
    assert len(pieces) > 1, "a part ends within it"
    assert b"".join(piece.literal() for piece in pieces) == header


@pytest.mark.parametrize("size", [8**11 - 1, 8**11, 1 << 50])
@pytest.mark.parametrize("number", [0, 8**7 - 1, 8**7, 2**32 - 2])
def test_large_numbers(size: int, number: int) -> None:
    entry = Entry("f", FILE, mode=0o7777, uid=number, gid=number, size=size, mtime_ns=size * 10**9, owner="审" * 20)
    header = tarstream.header(entry)
    with tarfile.open(fileobj=_Endless(header), mode="r:") as archive:
        info = archive.next()
        assert info is not None
        assert (info.size, info.uid, info.gid, info.mtime, info.mode) == (size, number, number, size, 0o7777)
        assert info.uname == entry.owner


class _Endless:
    """A header, and as much after it as it speaks of."""

    def __init__(self, data: bytes):
        self.data, self.position = data, 0

    def read(self, count: int = -1) -> bytes:
        chunk = self.data[self.position : self.position + count]
        self.position += count
        return chunk + bytes(count - len(chunk))

    def seek(self, position: int, whence: int = 0) -> int:
        self.position = position
        return position

    def tell(self) -> int:
        return self.position


@pytest.mark.parametrize("length", [*range(85, 105), 985, 990, 995, 9990])
def test_the_length_of_a_record_counts_itself(length: int) -> None:
    entry = Entry("n", DIRECTORY, xattrs={"user.x": b"v" * length})
    body = tarstream.header(entry)[512:]
    count, space, rest = body.partition(b" ")
    assert space == b" "
    assert rest[: int(count) - len(count) - 1] == b"SCHILY.xattr.user.x=" + b"v" * length + b"\n"
