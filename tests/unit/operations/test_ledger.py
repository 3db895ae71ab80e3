# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The file that tells the gateway what is archived: it says what the repository holds, whatever happens to it."""

from __future__ import annotations

import json
import os
import stat
import typing as t
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_instance.chained import ChainedWriter

from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import backup as backups
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import ledger
from support.engine import Engine


class Audited:
    """A gateway's log, and backups of it that write a ledger."""

    def __init__(self, place: Path):
        self.place = place
        self.engine = Engine(place, "logs")
        self.writer = ChainedWriter(place / "logs" / "audit.log")
        self.path = place / "ledger.json"
        self.warnings: list[str] = []

    def save(self, dry: bool = False, **options: t.Any) -> backups.Outcome:
        with self.engine.session(dry=dry) as session:
            options = {"archive_ledger": str(self.path), "part_size": 1 << 20, **options}
            outcome = backups.backup(session, backups.Options(str(self.place / "logs"), **options))
            self.warnings = session.warnings
        return outcome

    def told(self) -> list[tuple[str, int, int, str]]:
        raw = json.loads(self.path.read_bytes())
        return [(item["chain"], item["first"], item["last"], item["snapshot"]) for item in raw["archived"]]


@pytest.fixture(name="audited")
def fixture_audited(tmp_path: Path) -> Audited:
    return Audited(tmp_path)


def test_each_number_with_the_first_snapshot_that_holds_it(audited: Audited) -> None:
    writer = audited.writer
    before = os.umask(0o077)
    try:
        first = audited.save()
    finally:
        os.umask(before)
    assert stat.S_IMODE(audited.path.stat().st_mode) == 0o644, "the gateway is another user"
    old = writer.chain
    writer.append(4)
    second = audited.save()
    assert audited.told() == [(old, 1, 1, first.snapshot), (old, 2, 5, second.snapshot)]
    writer.append(1)
    writer.new_chain()
    third = audited.save(type="full")
    expected = [(old, 1, 1, first.snapshot), (old, 2, 5, second.snapshot)]
    expected += sorted([(old, 6, 6, third.snapshot), (writer.chain, 1, 1, third.snapshot)])
    assert audited.told() == expected
    raw = json.loads(audited.path.read_bytes())
    assert (raw["format"], raw["remote"]) == (1, "local")
    created = audited.engine.repository.manifest("logs", third.snapshot).created
    assert raw["archived"][-1]["status"] == ledger.status_of("local", created)
    unchanged = audited.path.stat().st_ino
    assert not audited.save().changed
    assert audited.path.stat().st_ino == unchanged, "nothing new is not written"

    good = sorted(audited.told())
    for damaged in (None, b"", b"[]", b'{"format":1', raw["snapshot"].encode(), b"[" * 100_000,
                    json.dumps({**raw, "remote": "oss"}).encode(), json.dumps({**raw, "archived": [{}]}).encode(),
                    json.dumps({**raw, "snapshot": first.snapshot, "archived": []}).encode()):  # fmt: skip
        if damaged is None:
            audited.path.unlink()
        else:
            audited.path.write_bytes(damaged)
        assert not audited.save().changed
        assert sorted(audited.told()) == good, damaged
    assert not audited.warnings


def test_a_gap_is_not_archived(audited: Audited) -> None:
    audited.writer.append(9)
    lines = audited.writer.path.read_bytes().splitlines(keepends=True)
    audited.writer.path.write_bytes(b"".join(lines[:4] + lines[6:]))
    snapshot = audited.save().snapshot
    audited.path.unlink()
    audited.save()
    assert audited.told() == [], "made anew from manifests, which do not say where the gap is"
    audited.writer.append(2)
    newest = audited.save().snapshot
    chain = audited.writer.chain
    assert audited.told() == [(chain, 11, 12, newest)]
    full = audited.save(type="full").snapshot
    assert audited.told() == [(chain, 11, 12, newest), (chain, 1, 4, full), (chain, 7, 10, full)]
    assert snapshot < newest < full


def test_it_never_fails_a_backup(audited: Audited) -> None:
    audited.path = audited.place / "nowhere" / "ledger.json"
    outcome = audited.save()
    assert outcome.changed
    assert any(str(audited.path) in warning for warning in audited.warnings)
    audited.path.parent.mkdir()
    assert not audited.save(dry=True).changed
    assert not audited.path.exists()
    audited.save()
    assert audited.told()[0][3] == outcome.snapshot
    audited.path.unlink()
    audited.path.mkdir()
    audited.save()
    assert len(audited.warnings) == 1


RANGES = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 12)).map(lambda pair: (pair[0], sum(pair))), max_size=8)


@settings(max_examples=100, deadline=None)
@given(st.lists(RANGES, min_size=1, max_size=5))
def test_ranges(snapshots: list[list[tuple[int, int]]]) -> None:
    """Any ranges, in any order, overlapping as they like."""
    made = ledger._Ledger("oss")
    expected: dict[int, str] = {}
    for place, ranges in enumerate(snapshots):
        manifest: t.Any = type("M", (), {"snapshot": str(place), "created": "2026-11-23T09:23:00Z"})
        made.add(manifest, [("a" * 16, first, last) for first, last in ranges])
        for first, last in ranges:
            for number in range(first, last + 1):
                expected.setdefault(number, str(place))
    told = [(number, e["snapshot"]) for e in made.entries for number in range(e["first"], e["last"] + 1)]
    assert sorted(told) == sorted(expected.items())
    assert all(entry["status"] == "archived_to_oss_20261123_0923" for entry in made.entries)
