# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Record tables: what was put in is found, and nothing hostile gets through."""

from __future__ import annotations

import json
import typing as t

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import IntegrityError
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format import record_table
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.record_table import RecordTable, encode
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.records import ID_BYTES, id_hash

SNAPSHOT, DAY = "000012-3f9a2c1d", "20261123"
NAME = record_table.table_name(DAY, SNAPSHOT, full=False)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.lists(st.text("abc", min_size=1, max_size=3), max_size=5)), max_size=8))
def test_what_was_put_in_is_found(blocks: list[tuple[int, list[str]]]) -> None:
    data = encode(SNAPSHOT, DAY, [(part, b"".join(map(id_hash, ids))) for part, ids in blocks])
    table = RecordTable.decode(data, "here", NAME)
    assert (table.snapshot, table.day) == (SNAPSHOT, DAY)
    assert table.count == sum(len(ids) for _part, ids in blocks)
    for trace in {trace for _part, ids in blocks for trace in ids}:
        assert table.parts_with(trace) == sorted({part for part, ids in blocks if trace in ids})
    assert table.parts_with("never written") == []


def test_a_hash_across_two_is_none() -> None:
    wanted = id_hash("x")
    hashes = b"12" + wanted + b"3456"
    assert RecordTable.decode(encode(SNAPSHOT, DAY, [(3, hashes)]), "here").parts_with("x") == []
    both = RecordTable.decode(encode(SNAPSHOT, DAY, [(3, hashes + wanted)]), "here")
    assert both.parts_with("x") == [3]


def test_names() -> None:
    for day, full in (("20261123", True), ("undated", False)):
        name = record_table.table_name(day, SNAPSHOT, full)
        assert record_table.parse_name(name) == (day, SNAPSHOT, full)
    for name in ("records/../x.gpg", f"records/2026112/{SNAPSHOT}.gpg", f"records/{DAY}/{SNAPSHOT}.gpg\n", "records"):
        assert record_table.parse_name(name) is None


def header(**changes: t.Any) -> bytes:
    raw = {"format": 1, "snapshot": SNAPSHOT, "day": DAY, "parts": [[0, 2]], **changes}
    return json.dumps({key: value for key, value in raw.items() if value is not None}).encode()


HASHES = bytes(2 * ID_BYTES)


@pytest.mark.parametrize("data", [
    b"", b"\n", b"no json\n", b"[]\n", header(), header() + b"\n", header() + b"\n" + HASHES + b"x",
    header(format=2) + b"\n" + HASHES, header(snapshot="x") + b"\n" + HASHES, header(day="../..") + b"\n" + HASHES,
    header(day=None) + b"\n" + HASHES, header(parts=[[0, 1], [0, 1]]) + b"\n" + HASHES,
    header(parts=[[0, 3], [1, -1]]) + b"\n" + HASHES, header(parts=[[0, True], [1, 1]]) + b"\n" + HASHES,
    header(parts=[["0", 2]]) + b"\n" + HASHES, header(parts={"0": 2}) + b"\n" + HASHES,
    header(parts=[2]) + b"\n" + HASHES, header(day="20261124") + b"\n" + HASHES,
    header(snapshot="000013-3f9a2c1d") + b"\n" + HASHES, b"[" * 100_000 + b"\n",
])  # fmt: skip
def test_a_hostile_table_is_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        RecordTable.decode(data, "here", NAME)
    RecordTable.decode(header() + b"\n" + HASHES, "here", NAME)
