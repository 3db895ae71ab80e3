# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What log files are recognised by, and how their lines are found."""

from __future__ import annotations

import io
import itertools
import json
import os
import pathlib
import tracemalloc
import typing as t

import pytest
import zstandard

from ansible_collections.guardops.qwen3guard.plugins.module_utils.format import compressed, streams
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.compressed import Unfinished
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.streams import Resolution, Stream, resolve
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.tree import Entry, Tree, scan
from support.log_chain import PACK

LINES = b"".join(b"line %d\n" % number for number in range(20_000))


@pytest.fixture(name="tree")
def fixture_tree(tmp_path: pathlib.Path) -> t.Iterator[Tree]:
    with Tree(str(tmp_path)) as tree:
        yield tree


def made(tree: Tree, name: str, data: bytes) -> Entry:
    pathlib.Path(tree.root, name).write_bytes(data)
    return next(entry for entry in scan(tree.root)[0] if entry.path == name)


def resolved(tree: Tree, known: t.Sequence[Stream] = ()) -> Resolution:
    return resolve(tree, [entry for entry in scan(tree.root)[0] if entry.type == "file"], known, tree.root)


@pytest.mark.parametrize(
    ("data", "start", "expected"),
    [
        (b"", 0, 0),
        (b"a", 0, 0),
        (b"a\n", 0, 2),
        (b"a\nb", 0, 2),
        (b"a\nb", 2, 2),
        (b"a\nb\n", 2, 4),
        (b"a\r\nb\r\n\0\xff", 0, 6),
        (b"\n" + b"x" * 65535, 0, 1),
        (b"\n" + b"x" * 65536, 0, 1),
        (b"\n" + b"x" * 200_000, 1, 1),
        (b"y" * 65536 + b"\n" + b"x" * 65536, 0, 65537),
    ],
)
def test_line_end(tree: Tree, data: bytes, start: int, expected: int) -> None:
    assert streams.line_end(tree, made(tree, "a", data), start) == expected


class TestBeginnings:
    def test_lines(self, tree: Tree) -> None:
        """A log keeps each of its beginnings as it grows; another log has others."""
        previous: list[str] = []
        for size in (1, 7, 8, 14, 15, 16, 4000, 4096, 5000):
            found = streams.beginnings(tree, made(tree, "a", LINES[:size]))
            assert found[: len(previous)] == previous
            previous = found
        assert len(previous) == 2
        assert streams.beginnings(tree, made(tree, "b", b"line 0\nother\n"))[0] == previous[0]
        assert streams.beginnings(tree, made(tree, "b", b"line 0\nother\n"))[1] != previous[1]

    @pytest.mark.parametrize("newline", [4094, 4095, 4096, 4097, 70_000])
    def test_long_lines(self, tree: Tree, newline: int) -> None:
        line = b"x" * newline + b"\n"
        whole = streams.beginnings(tree, made(tree, "a", line + b"second\n"))
        assert len(whole) == len(set(whole)) >= 1
        assert streams.beginnings(tree, made(tree, "a", line))[0] == whole[0]
        assert streams.beginnings(tree, made(tree, "b", b"x" * 4000)) == []

    def test_saved_content_only(self, tree: Tree) -> None:
        entry = made(tree, "a", b"one\ntwo\n" + b"x" * 5000)
        assert [len(streams.beginnings(tree, entry, until)) for until in (0, 3, 4, 8, 6000)] == [0, 0, 1, 2, 2]

    @pytest.mark.parametrize("suffix", sorted(PACK))
    def test_compressed(self, tree: Tree, suffix: str) -> None:
        """The same as of the plain log; of a file that breaks off, as far as it goes."""
        plain = streams.beginnings(tree, made(tree, "a", LINES))
        packed = PACK[suffix](LINES)
        assert streams.beginnings(tree, made(tree, "a" + suffix, packed)) == plain
        assert len(streams.beginnings(tree, made(tree, "b" + suffix, PACK[suffix](b"")))) == 1
        with pytest.raises(Unfinished):
            streams.beginnings(tree, made(tree, "c" + suffix, packed[:12]))


def test_mark(tree: Tree) -> None:
    """It changes with the beginning and with what precedes the offset, and not with what follows."""
    entry = made(tree, "a", LINES)
    before = streams.mark(tree, entry, 50_000)
    assert before[0] == 50_000
    for position, same in ((0, False), (4095, False), (49_999, False), (45_904, False), (50_000, True)):
        other = bytearray(LINES)
        other[position] ^= 1
        assert (streams.mark(tree, made(tree, "a", bytes(other)), 50_000) == before) is same, position
    assert streams.mark(tree, made(tree, "a", LINES[:49_999]), 50_000) != before


class TestCompressed:
    @pytest.mark.parametrize("suffix", sorted(PACK))
    @pytest.mark.parametrize("name", ["a", "a.gz", "a.zst", "a.log.1"])
    def test_is_told_by_the_first_bytes(self, tree: Tree, suffix: str, name: str) -> None:
        entry = made(tree, name, PACK[suffix](LINES))
        assert compressed.encoding_of(tree, entry) != compressed.PLAIN
        with compressed.plain_reader(tree, entry) as reader:
            assert compressed.read_fully(reader, 1 << 30) == LINES
        with compressed.plain_reader(tree, entry) as reader:
            assert list(itertools.islice(reader, 2)) == [b"line 0\n", b"line 1\n"]
        with compressed.plain_reader(tree, entry, as_it_is=True) as reader:
            assert reader.read() == PACK[suffix](LINES)

    @pytest.mark.parametrize("data", [LINES, b"BZh9 is how this line begins\n", b"\x1f\x8b\n and more text\n"])
    def test_text_is_plain_whatever_its_name(self, tree: Tree, data: bytes) -> None:
        assert compressed.encoding_of(tree, made(tree, "a.gz", data)) == compressed.PLAIN

    @pytest.mark.parametrize("suffix", sorted(PACK))
    def test_several_members(self, tree: Tree, suffix: str) -> None:
        """As `cat`, pzstd and appending writers make them; and one that breaks off is never taken for whole."""
        members = [PACK[suffix](LINES[:5000]), PACK[suffix](LINES[5000:])]
        with compressed.plain_reader(tree, made(tree, "a", b"".join(members))) as reader:
            assert compressed.read_fully(reader, 1 << 30) == LINES
        for missing in (1, 5, len(members[1]) - 20):
            entry = made(tree, "b", b"".join(members)[:-missing])
            with compressed.plain_reader(tree, entry) as reader, pytest.raises(Unfinished):
                compressed.read_fully(reader, 1 << 30)

    def test_damage(self, tree: Tree) -> None:
        for suffix, pack in PACK.items():
            data = bytearray(pack(LINES))
            data[len(data) // 2] ^= 0xFF
            with compressed.plain_reader(tree, made(tree, "a" + suffix, bytes(data))) as reader:
                try:
                    assert compressed.read_fully(reader, 1 << 30) != LINES  # zstd and its kind may carry no checksum
                except Unfinished:
                    continue

    def test_skippable_frames(self, tree: Tree) -> None:
        skipped = b"\x50\x2a\x4d\x18\x04\0\0\0abcd"
        data = skipped + PACK[".zst"](LINES[:5000]) + skipped + PACK[".zst"](LINES[5000:])
        with compressed.plain_reader(tree, made(tree, "a", data)) as reader:
            assert compressed.read_fully(reader, 1 << 30) == LINES

    def test_many_zeros_need_little_memory(self, tree: Tree) -> None:
        compressor = zstandard.ZstdCompressor()
        target = io.BytesIO()
        with compressor.stream_writer(target, closefd=False) as writer:
            for _number in range(300):
                writer.write(bytes(1 << 20))
        tracemalloc.start()
        try:
            with compressed.plain_reader(tree, made(tree, "a.zst", target.getvalue())) as reader:
                assert not compressed.read_some(reader, 1 << 20).strip(b"\0")
            assert tracemalloc.get_traced_memory()[1] < 128 << 20
        finally:
            tracemalloc.stop()


def test_a_stream_survives_json(tree: Tree) -> None:
    made(tree, "a\udcff", LINES[:100])
    made(tree, "b", LINES[:50])
    found = resolved(tree)
    assert found.copies == [("b", "a\udcff")]
    for item in found.located:
        item.stream.segments.append((5, "00"))
        item.stream.identity = item.entry.identity
        again = Stream.from_json(json.loads(json.dumps(item.stream.to_json())))
        assert again == item.stream


def test_files_of_one_beginning_are_not_all_compared(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs with a heading: comparing each with each would take hours where there are 10,000."""
    for number in range(60):
        made_of = b"# heading\n" + (b"%d first\n" % number) + LINES[: number * 100]
        pathlib.Path(tree.root, f"log.{number}").write_bytes(made_of)
    calls = []
    real = streams._compare
    monkeypatch.setattr(streams, "_compare", lambda *args: calls.append(args) or real(*args))
    found = resolved(tree)
    assert len(found.located) == 60
    assert not calls


def test_what_did_not_change_is_not_opened(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        made(tree, f"log.{number}", b"%d\n" % number + LINES[:70] + b"torn")
    known = [
        Stream(number, item.entry.path, item.entry.identity, offset=item.end, heads=item.stream.heads, mark=(1, "x"))
        for number, item in enumerate(resolved(tree).located, 1)
    ]
    monkeypatch.setattr(Tree, "open_file", lambda _tree, entry: os.open(f"{entry.path} was opened", os.O_RDONLY))
    found = resolved(tree, known)
    assert [item.torn for item in found.located] == [4] * 5
    assert all(item.start == item.end for item in found.located)
