# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The verdict of a drill, its recovery point, and where its record lies."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.drill import Phase
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.manifest import Manifest, StoredPart
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.repository import Repository
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import drills
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.drills import Told
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.store import DirectoryStore

HASH = "ab" * 32
FULL, FIRST, SECOND = "000001-0123abcd", "000002-0123abcd", "000003-0123abcd"
GOOD = Told(
    kind="drill", host="spare", started="2026-11-23T12:00:00Z", budget_seconds=300, recovery_time_seconds=200.0,
    phases=[Phase("configuration", 10, True), Phase("weights", 150, True), Phase("service", 40, True),
            Phase("history", 900, True)],
    snapshots={"logs": SECOND},
)  # fmt: skip


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A full and two increments of the logs, whose records are of ten, eleven and half past eleven."""
    repository = Repository(DirectoryStore(str(tmp_path)), "guard-01")
    times = {FULL: "10:00:00.000001", FIRST: "11:00:00.000001", SECOND: "11:30:00.000001"}
    for snapshot, parent in ((FULL, ""), (FIRST, FULL), (SECOND, FIRST)):
        moment = f"2026-11-23T{times[snapshot]}Z"
        chain = {"chain": "0123456789abcdef", "first": 1, "last": 1, "count": 1, "prev": HASH, "head": HASH,
                 "breaks": 0, "since": moment, "until": moment}  # fmt: skip
        table = {"name": f"records/20261123/{snapshot}{'' if parent else '.full'}.gpg", "day": "20261123",
                 "size": 1, "sha256": HASH, "count": 1}  # fmt: skip
        records = {"count": 1, "unchained": 0, "odd": 0, "hours": {moment[:13]: 1}, "chains": [chain],
                   "tables": [table], "not_scanned": []}  # fmt: skip
        repository.commit(
            Manifest(
                "guard-01",
                "logs",
                snapshot,
                "increment" if parent else "full",
                "2026-11-23T11:40:00Z",
                FULL,
                parent,
                {},
                [],
                StoredPart("index.gpg", 1, HASH),
                1,
                1,
                records=records,
            )
        )
    return repository


def test_a_good_one(repository: Repository) -> None:
    found = drills.judge(repository, GOOD)
    assert (found.ok, found.failures) == (True, [])
    assert (found.total_seconds, found.ended) == (1100, "2026-11-23T12:18:20Z")
    point = found.recovery_point
    assert point is not None
    assert point.newest_record == "2026-11-23T11:30:00.000001Z"
    assert point.seconds == pytest.approx(1800, abs=0.001)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"budget_seconds": 199}, "200.0 s, and 199 s were allowed: weights took 150.0 s of it"),
        ({"recovery_time_seconds": None}, drills.NO_ANSWER),
        ({"phases": [Phase("weights", 1, False, "no room")]}, "weights: no room"),
        ({"failures": ["the record is not there"]}, "the record is not there"),
    ],
)
def test_a_bad_one_says_why(repository: Repository, changes: dict[str, object], told: str) -> None:
    found = drills.judge(repository, dataclasses.replace(GOOD, **changes))
    assert not found.ok
    assert [text for text in found.failures if told in text]


def test_the_phase_that_ate_the_budget_is_one_before_the_answer(repository: Repository) -> None:
    """The history took longer than all else, and nobody waited for it."""
    late = dataclasses.replace(GOOD, budget_seconds=100)
    assert "weights" in drills.judge(repository, late).failures[0]


@pytest.mark.parametrize(
    ("changes", "seconds"),
    [
        ({"snapshots": {"logs": FIRST}}, 3600),
        ({"lost_at": "2026-11-23T11:45:00Z"}, 900),
        ({"lost_at": "2026-11-23T11:00:00Z"}, 0),
    ],
)
def test_recovery_point(repository: Repository, changes: dict[str, object], seconds: int) -> None:
    point = drills.judge(repository, dataclasses.replace(GOOD, **changes)).recovery_point
    assert point is not None
    assert point.seconds == pytest.approx(seconds, abs=0.001)


def test_recovery_point_without_chains(repository: Repository) -> None:
    """Records of older installations tell the hour; where no record tells a time the snapshot does."""
    manifest = repository.manifest("logs", FULL)
    records = manifest.records
    assert records is not None
    records.update(chains=[], unchained=1)
    repository.commit(manifest)
    told = dataclasses.replace(GOOD, snapshots={"logs": FULL})
    point = drills.judge(repository, told).recovery_point
    assert point is not None
    assert point.newest_record == "2026-11-23T10:00:00Z"
    repository.commit(dataclasses.replace(manifest, records=None))
    point = drills.judge(repository, told).recovery_point
    assert point is not None
    assert point.newest_record == manifest.created


def test_no_logs_and_damaged_ones(repository: Repository, tmp_path: Path) -> None:
    assert drills.judge(repository, dataclasses.replace(GOOD, snapshots={})).recovery_point is None
    (tmp_path / "guard-01" / "logs" / SECOND / "manifest.json").write_text("{")
    found = drills.judge(repository, GOOD)
    assert found.recovery_point is None
    assert "the recovery point: " in found.not_checked[0]


def test_records_are_kept_under_names_of_their_own(repository: Repository, tmp_path: Path) -> None:
    assert drills.newest(repository, 5) == []
    found = drills.judge(repository, GOOD)
    names = [drills.keep(repository, found) for _again in range(2)]
    assert [name.rpartition("/")[2] for name in names] == ["20261123T120000Z.json", "20261123T120001Z.json"]
    (tmp_path / "guard-01" / "drills" / "notes.txt").write_text("x")
    (tmp_path / "guard-01" / "drills" / "20271123T120000Z.json").write_text("[]")
    newest = drills.newest(repository, 2)
    assert [item["name"] for item in newest] == [
        str(tmp_path / "guard-01" / "drills" / "20271123T120000Z.json"), names[1]
    ]  # fmt: skip
    assert "found another document" in newest[0]["damaged"]
    assert {**newest[1], **found.to_json()} == newest[1]
    assert newest[1]["damaged"] == ""
