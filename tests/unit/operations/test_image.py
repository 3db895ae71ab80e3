# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From a chain of snapshots to one tree. What rotation does to it is in test_logs.py."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.index import Index
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.manifest import Manifest, StoredPart
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.tree import (
    DIRECTORY,
    FILE,
    HARDLINK,
    Entry,
    Extent,
)
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.image import image_of, part_holding
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.snapshots import Opened


def snapshot(
    number: int,
    files: dict[str, tuple[int, list[tuple[int, int]]]],
    gone: t.Sequence[int] = (),
    directories: t.Sequence[str] = (),
    mode: int = 0o600,
) -> Opened:
    """``files``: name -> (stream, [(offset, length)]). All that is saved counts as whole lines."""
    entries = [Entry(name, DIRECTORY, mode=mode) for name in (".", *directories)]
    for name, (stream, ranges) in files.items():
        extents = [Extent(offset, length, 0, f"{number}:{offset}") for offset, length in ranges]
        entries.append(Entry(name, FILE, mode=mode, extents=extents, extra={"stream": stream}))
    layer = {"streams": [], "gone": [{"stream": stream, "path": ""} for stream in gone]}
    manifest = Manifest("i", "logs", f"{number:06d}-00000000", "full" if number == 1 else "increment", "", "", "",
                        {}, [], StoredPart("index.gpg", 0, ""), 0, 0)  # fmt: skip
    return Opened(manifest, b"", Index(entries, [], layer))


def shown(chain: t.Sequence[Opened]) -> dict[str, tuple[int, list[str]]]:
    image = image_of(chain)
    return {e.path: (e.size, [p.extent.sha256 for p in image.pieces[e.path]]) for e in image.entries if e.type == FILE}


def test_a_full_alone_is_as_it_was() -> None:
    full = snapshot(1, {"a": (1, [(0, 10), (10, 3)])})
    full.index.layer["streams"] = [{"number": 1, "offset": 10}]
    full.index.entries.append(Entry("b", HARDLINK, target="a"))
    image = image_of([full])
    assert image.entries == full.index.entries
    assert image.bytes == 13


def test_names_and_attributes_are_those_of_the_last_snapshot() -> None:
    chain = [
        snapshot(1, {"a": (1, [(0, 10)]), "b": (2, [(0, 5)])}),
        snapshot(2, {"b": (1, [(10, 7)]), "c": (2, []), "a": (3, [(0, 1)])}, mode=0o640),
    ]
    assert shown(chain) == {"b": (17, ["1:0", "2:10"]), "c": (5, ["1:0"]), "a": (1, ["2:0"])}
    assert {entry.mode for entry in image_of(chain).entries} == {0o640}
    assert image_of(chain).bytes == 23


def test_a_half_line_is_replaced_or_dropped() -> None:
    full = snapshot(1, {"a": (1, [(0, 10), (10, 3)]), "b": (2, [(0, 4), (4, 2)])})
    chain = [full, snapshot(2, {"a": (1, [(10, 9)]), "b": (2, [])})]
    chain[-1].index.layer["streams"] = [{"number": 1, "offset": 19}, {"number": 2, "offset": 4}]
    assert shown(chain) == {"a": (19, ["1:0", "2:10"]), "b": (4, ["1:0"])}


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        ({}, "d/old"),
        ({"d/old": (2, [(0, 1)])}, "d/old.stream-1"),
        ({"d/old": (2, [(0, 1)]), "d/old.stream-1": (3, [])}, "d/old.stream-1.2"),
        ({"d": (2, [(0, 1)])}, "d_old"),
        ({"d": (2, [(0, 1)]), "d_old": (3, [])}, "d_old.stream-1"),
    ],
)
def test_what_is_gone_comes_back_under_a_free_name(
    last: dict[str, tuple[int, list[tuple[int, int]]]], expected: str
) -> None:
    chain = [
        snapshot(1, {"d/old": (1, [(0, 10)]), "x": (9, [(0, 1)])}, directories=["d"], mode=0o640),
        snapshot(2, {**last, "x": (9, [(1, 1)])}, gone=[1], directories=[] if "d" in last or not last else ["d"]),
    ]
    found = shown(chain)
    assert found.pop(expected) == (10, ["1:0"])
    assert set(found) == {*last, "x"}
    directories = [entry for entry in image_of(chain).entries if entry.type == DIRECTORY]
    assert [entry.path for entry in directories] == ([".", "d"] if "d/" in expected else ["."])


def test_what_is_gone_and_never_had_content_does_not_come_back() -> None:
    chain = [snapshot(1, {"a": (1, []), "x": (9, [(0, 1)])}), snapshot(2, {"x": (9, [(1, 1)])}, gone=[1, 77])]
    assert shown(chain) == {"x": (2, ["1:0", "2:1"])}


def test_the_chain_itself_is_left_alone() -> None:
    chain = [snapshot(1, {"a": (1, [(0, 10)])}), snapshot(2, {"a": (1, [(10, 7)])})]
    assert shown(chain) == shown(chain)
    assert chain[1].index.entries[1].size == 0


def test_part_holding() -> None:
    opened = snapshot(1, {})
    sizes = [3, 1, 4, 1, 5]
    for number, size in enumerate(sizes):
        part = StoredPart(f"part-{number:05d}.gpg", 0, "", sum(sizes[:number]), size)
        opened.manifest.parts.append(part)
    owners = [number for number, size in enumerate(sizes) for _byte in range(size)]
    for position, number in enumerate(owners):
        assert part_holding(opened, Extent(0, 1, position, "")) is opened.manifest.parts[number]
