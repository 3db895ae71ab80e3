# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the ledger says of a record, without a word in the record itself."""

from __future__ import annotations

import json
import os
import typing as t
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen3guard_gateway import archive
from qwen3guard_gateway.archive import PENDING, ArchiveLedger


def write(path: Path, *entries: tuple[str, int, int, str]) -> None:
    archived = [{"chain": c, "first": f, "last": last, "snapshot": s, "status": s} for c, f, last, s in entries]
    path.with_suffix(".new").write_text(json.dumps({"format": 1, "remote": "oss", "archived": archived}))
    os.replace(path.with_suffix(".new"), path)


def test_follows_the_file(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    ledger = ArchiveLedger(path)
    assert ledger.status("a", 1) == PENDING
    write(path, ("a", 1, 10, "archived_to_oss_20261123_0923"), ("a", 11, 20, "archived_to_oss_20261123_1023"))
    assert [ledger.status("a", seq) for seq in (0, 1, 10, 11, 20, 21)] == [
        PENDING, *["archived_to_oss_20261123_0923"] * 2, *["archived_to_oss_20261123_1023"] * 2, PENDING,
    ]  # fmt: skip
    assert ledger.status("b", 1) == PENDING
    write(path, ("b", 1, 1, "x"))
    assert (ledger.status("b", 1), ledger.status("a", 1)) == ("x", PENDING)
    path.unlink()
    assert ledger.status("b", 1) == PENDING
    assert ArchiveLedger(None).status("b", 1) == PENDING


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format":2,"archived":[]}', '{"format":1,"archived":[{}]}'])
def test_damage_takes_nothing_back_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    path = tmp_path / "ledger.json"
    write(path, ("a", 1, 10, "x"))
    ledger = ArchiveLedger(path)
    assert ledger.status("a", 5) == "x"
    path.write_text(content)
    assert [ledger.status("a", 5) for _time in range(3)] == ["x"] * 3
    assert len(caplog.records) == 1
    write(path, ("a", 1, 10, "y"))
    assert ledger.status("a", 5) == "y"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), max_size=8))
def test_the_first_snapshot_counts(ranges: list[tuple[int, int]]) -> None:
    entries: list[dict[str, t.Any]] = [
        {"chain": "a", "first": min(pair), "last": max(pair), "status": f"s{order}"}
        for order, pair in enumerate(ranges)
    ]
    ledger = ArchiveLedger(None)
    ledger._chains = archive._parse({"format": 1, "archived": entries})
    for seq in range(32):
        wanted = next((entry["status"] for entry in entries if entry["first"] <= seq <= entry["last"]), PENDING)
        assert ledger.status("a", seq) == wanted
