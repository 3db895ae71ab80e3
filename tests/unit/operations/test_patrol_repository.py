# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a patrol finds in a repository: nothing where all is well, and of each fault exactly that."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import json
import pathlib
import typing as t

import pytest

from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import StoreError
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import patrol
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.patrol_findings import Findings, Limits
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.patrol_records import unusual
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.patrol_repository import check_instance
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.patrol_survey import (
    list_instances,
    read_surveys,
)
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.store import DirectoryStore
from support.fleet import FAULTS, HOUR, identity, make_instance, manifest, put, put_verdicts, summary, verdict

NOW = datetime.datetime(2026, 11, 23, 9, 30, tzinfo=datetime.timezone.utc)
NAME = "guard-01"
Found = set[tuple[str, str]]


class CountingStore(DirectoryStore):
    """Counts what would be calls of rclone."""

    calls: collections.Counter[str]

    def __init__(self, location: str):
        super().__init__(location)
        self.calls = collections.Counter()

    def walk(self, prefix: str, levels: t.Any) -> t.Any:
        self.calls["walk"] += 1
        return super().walk(prefix, levels)

    def read_several(self, names: t.Collection[str]) -> dict[str, bytes]:
        self.calls["read"] += 1
        self.calls["objects"] += len(names)
        return super().read_several(names)


def look(root: pathlib.Path, limits: Limits | None = None, *, whole: bool = False, name: str = NAME) -> Findings:
    store = DirectoryStore(str(root))
    findings = Findings(name)
    survey = read_surveys(store, list_instances(store, name), whole_chains=whole)[name]
    check_instance(survey, limits or Limits(), NOW, findings)
    return findings


def checks(found: list[t.Any]) -> Found:
    return {(item.check, item.thing) for item in found}


def test_nothing_is_wrong_with_a_healthy_instance(tmp_path: pathlib.Path) -> None:
    make_instance(tmp_path, NAME, NOW)
    findings = look(tmp_path)
    assert not findings.failures
    assert not findings.warnings
    facts = findings.facts
    assert facts["layers"]["logs"]["increments"] == 23
    assert facts["layers"]["model"]["proven"]["level"] == "restored"
    assert facts["drill"] == {
        "started": "2026-11-03T09:30:00Z", "ok": True, "kind": "drill", "seconds": 174.0, "budget_seconds": 300.0,
        "phases": {"config": 4.0, "model": 110.0, "service": 60.0},
    }  # fmt: skip
    assert facts["records"]["last"] == "2026-11-23T09:13:00Z"


FOUND: dict[str, Found] = {
    "old logs": {("snapshot", "logs, age")},
    "no config": {("snapshot", "config")},
    "never restored": {("verification", "logs, proven")},
    "failed verdict": {("verdict", "logs, decrypted")},
    "no drill": {("drill", "drills")},
    "failed drill": {("drill", "newest drill")},
    "future": {("clock", "logs")},
    "silent": {("log_growth", "archived records")},
    "gap": {("records", "chain 0123456789abcdef")},
}


@pytest.mark.parametrize("fault", FOUND)
def test_each_fault_is_found_and_nothing_else(tmp_path: pathlib.Path, fault: str) -> None:
    make_instance(tmp_path, NAME, NOW, days=12 if fault == "never restored" else 3, fault=fault)
    findings = look(tmp_path)
    assert checks(findings.failures) == FOUND[fault]
    assert all(item.expected and item.found and item.instance == NAME for item in findings.failures)


def test_faults_are_all_tried() -> None:
    assert set(FOUND) | {"host dark"} == set(FAULTS)  # that one is for the fleet, below


def put_first_snapshot(root: pathlib.Path, layer: str, when: datetime.datetime) -> None:
    """All that a layer has is one snapshot of then, and no verdict."""
    for path in sorted((root / NAME / layer).rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    made = manifest(NAME, layer, 1, when)
    put(root / NAME / layer / made.snapshot / "manifest.json", made.to_bytes())


@pytest.mark.parametrize(("age", "found"), [
    (40, set()),  # hours: nothing is late yet
    (50, {("verification", "model, quick")}),
    (9 * 24, {("verification", "model, quick"), ("verification", "model, proven")}),
])  # fmt: skip
def test_what_was_never_verified_is_late_by_the_age_of_the_first_snapshot(
    tmp_path: pathlib.Path, age: int, found: Found
) -> None:
    make_instance(tmp_path, NAME, NOW)
    put_first_snapshot(tmp_path, "model", NOW - age * HOUR)
    (tmp_path / NAME / "verifications" / "model" / f"{identity(3)}.json").unlink()
    assert checks(look(tmp_path).failures) == found


def test_a_newest_snapshot_that_is_being_made_does_not_count_yet(tmp_path: pathlib.Path) -> None:
    place = make_instance(tmp_path, NAME, NOW)
    (place / "model" / identity(3) / "manifest.json").unlink()
    put(place / "model" / identity(3) / "part-00000.gpg", b"x")
    findings = look(tmp_path)
    assert findings.facts["layers"]["model"]["snapshot"] == identity(2)
    assert not findings.failures
    assert not findings.warnings
    put(place / "model" / identity(4) / "part-00000.gpg", b"x")
    assert checks(look(tmp_path).warnings) == {("interrupted", "model")}


def test_a_damaged_manifest_is_told_and_the_one_before_counts(tmp_path: pathlib.Path) -> None:
    place = make_instance(tmp_path, NAME, NOW)
    put(place / "model" / identity(3) / "manifest.json", b'{"kind": "something"}')
    findings = look(tmp_path)
    assert checks(findings.failures) == {("manifest", "model")}
    assert findings.facts["layers"]["model"]["snapshot"] == identity(2)


def test_two_hosts_that_write_are_told_apart_from_one(tmp_path: pathlib.Path) -> None:
    place = make_instance(tmp_path, NAME, NOW)
    put(place / "config" / "000005-ffffffff" / "part-00000.gpg", b"x")
    assert ("two_writers", "config") in checks(look(tmp_path).warnings)


def test_a_long_chain_is_odd(tmp_path: pathlib.Path) -> None:
    make_instance(tmp_path, NAME, NOW)
    assert checks(look(tmp_path, Limits(increments=22)).warnings) == {("chain", "logs")}
    assert not look(tmp_path, Limits(increments=23)).warnings


def test_a_verdict_made_good_since_is_history(tmp_path: pathlib.Path) -> None:
    place = make_instance(tmp_path, NAME, NOW)
    put_verdicts(place, "model", identity(2), verdict(identity(2), "decrypted", NOW - 30 * HOUR, ok=False))
    assert not look(tmp_path).failures
    put_verdicts(place, "model", identity(3), verdict(identity(3), "restored", NOW - 60 * HOUR))
    assert checks(look(tmp_path).failures) == {("verdict", "model, decrypted")}


def sample_of(number: int, level: str, age: float, ok: bool = True, **more: t.Any) -> dict[str, t.Any]:
    return {**verdict(identity(number), level, NOW - age * HOUR, ok), "sample_bytes": 1000, **more}


def test_a_sample_is_read_and_proves_nothing(tmp_path: pathlib.Path) -> None:
    place = make_instance(tmp_path, NAME, NOW)
    put_verdicts(place, "model", identity(2), verdict(identity(2), "restored", NOW - 9 * 24 * HOUR))
    put_verdicts(place, "model", identity(3), sample_of(3, "restored", 3))
    findings = look(tmp_path)
    assert checks(findings.failures) == {("verification", "model, proven")}
    facts = findings.facts["layers"]["model"]
    assert facts["quick"]["snapshot"] == identity(3)
    assert facts["proven"]["snapshot"] == identity(2), "it looks on for one that restored everything"


def test_a_sample_leaves_what_the_whole_before_it_said(tmp_path: pathlib.Path) -> None:
    place = make_instance(tmp_path, NAME, NOW)
    before = verdict(identity(3), "restored", NOW - 60 * HOUR)
    put_verdicts(place, "model", identity(3), sample_of(3, "restored", 3, whole=before))
    findings = look(tmp_path)
    assert not findings.failures
    assert findings.facts["layers"]["model"]["proven"]["verified"] == before["verified"]
    before = verdict(identity(3), "restored", NOW - 60 * HOUR, ok=False)
    put_verdicts(place, "model", identity(3), sample_of(3, "restored", 3, whole=before))
    assert checks(look(tmp_path).failures) == {("verdict", "model, restored")}


def test_limits_of_0_leave_checks_out_and_say_so(tmp_path: pathlib.Path) -> None:
    make_instance(tmp_path, NAME, NOW, fault="silent")
    limits = Limits(quick_hours=0, proven_days=0, drill_days=0, silence_hours=0)
    findings = look(tmp_path, limits)
    assert not findings.failures
    left = checks(findings.not_checked)
    assert {("verification", "model, quick"), ("verification", "logs, proven"), ("drill", "drills")} <= left
    assert ("log_growth", "archived records") in left


def test_a_layer_that_is_not_backed_up_is_not_missed(tmp_path: pathlib.Path) -> None:
    make_instance(tmp_path, NAME, NOW, fault="no config")
    findings = look(tmp_path, Limits(layers=["model", "logs"]))
    assert not findings.failures
    assert ("snapshot", "config") in checks(findings.not_checked)


def chain_of_logs(root: pathlib.Path, *ranges: tuple[int, int]) -> None:
    """A full and increments whose records have these numbers."""
    place = make_instance(root, NAME, NOW, days=1)
    for number, (first, last) in enumerate(ranges, start=1):
        made = manifest(NAME, "logs", number, NOW - (len(ranges) - number) * HOUR, 0 if number == 1 else 1)
        hours = {f"{NOW - HOUR:%Y-%m-%dT%H}": last - first + 1}
        made.records = summary(made.snapshot, number == 1, first, last, hours, NOW - HOUR)
        put(place / "logs" / made.snapshot / "manifest.json", made.to_bytes())
    for number in range(len(ranges) + 1, 25):
        (place / "logs" / identity(number) / "manifest.json").unlink()
        (place / "logs" / identity(number)).rmdir()


def test_whole_chains_show_numbers_that_no_snapshot_has(tmp_path: pathlib.Path) -> None:
    chain_of_logs(tmp_path, (1, 10), (11, 20), (21, 30))
    assert not look(tmp_path, whole=True).failures
    assert look(tmp_path, whole=True).facts["records"]["archived"] == {"0123456789abcdef": 30}
    chain_of_logs(tmp_path, (1, 10), (13, 20), (21, 30))
    assert checks(look(tmp_path, whole=True).failures) == {("records", "chain 0123456789abcdef")}
    # Without the increments between nobody can know, and the verdict says that.
    findings = look(tmp_path)
    assert not findings.failures
    assert ("records", "chain of the logs") in checks(findings.not_checked)


def hours(counts: t.Mapping[int, int]) -> dict[str, int]:
    """Records by hours before now."""
    return {f"{NOW - n * HOUR:%Y-%m-%dT%H}": count for n, count in counts.items()}


@pytest.mark.parametrize(("today", "told"), [
    (100, None), (30, None), (24, (144, 600)), (0, (0, 600)), (399, None), (500, (3000, 600)),
])  # fmt: skip
def test_rates_are_held_against_the_same_hours_of_other_days(today: int, told: tuple[int, int] | None) -> None:
    # Nobody asks at night, so that the last six hours say nothing by themselves.
    busy = {n: 100 for n in range(1, 24 * 8) if n % 24 in range(1, 7)}
    assert unusual(hours({**busy, **dict.fromkeys(range(1, 7), today)}), NOW) == told


def test_rates_of_few_days_or_few_records_say_nothing() -> None:
    assert unusual({}, NOW) is None
    assert unusual(hours(dict.fromkeys(range(1, 60), 1000)) | hours(dict.fromkeys(range(1, 7), 1)), NOW) is None
    assert unusual(hours(dict.fromkeys(range(7, 24 * 8), 1)), NOW) is None


def test_hostile_documents_are_no_traceback(tmp_path: pathlib.Path) -> None:
    place = make_instance(tmp_path, NAME, NOW)
    deep = b"[" * 100_000
    put(place / "verifications" / "model" / f"{identity(3)}.json", deep)
    put(
        place / "verifications" / "logs" / f"{identity(70)}.json", {"verdicts": {"restored": {"ok": 1, "verified": []}}}
    )
    put(place / "drills" / "20261123T000000Z.json", deep)
    put(place / "patrol.json", deep)
    put(place / "logs" / "no-snapshot" / "manifest.json", deep)
    put(place / "model" / identity(3) / "manifest.json", deep)
    found = checks(look(tmp_path).failures)
    assert ("manifest", "model") in found


# -- fleets --------------------------------------------------------------------------------------------------------


def fleet(root: pathlib.Path, *instances: str, state: pathlib.Path, retired: t.Sequence[str] = ()) -> patrol.Verdict:
    wanted = patrol.Fleet(list(instances) or [patrol.ALL], list(retired), str(state))
    return patrol.patrol_fleet([DirectoryStore(str(root))], wanted, Limits(), dry=False)


def failed(found: patrol.Verdict) -> Found:
    return {(item["instance"], item["check"]) for item in found.failures}


def make_fleet(root: pathlib.Path, count: int = 3) -> datetime.datetime:
    now = datetime.datetime.now(datetime.timezone.utc)
    for number in range(1, count + 1):
        make_instance(root, f"guard-{number:02d}", now, days=2)
    return now


def test_fleet_costs_a_few_calls_however_many_instances(tmp_path: pathlib.Path) -> None:
    counted = []
    for count in (2, 6):
        root = tmp_path / str(count)
        make_fleet(root, count)
        store = CountingStore(str(root))
        wanted = patrol.Fleet([patrol.ALL], [], str(tmp_path / f"state-{count}"))
        assert patrol.patrol_fleet([store], wanted, Limits(), dry=False).ok
        counted.append(store.calls)
    assert counted[0]["walk"] == counted[1]["walk"] == 2
    assert counted[0]["read"] == counted[1]["read"] < 8
    assert counted[1]["objects"] == 3 * counted[0]["objects"]


def test_fleet_says_what_a_repository_cannot_tell(tmp_path: pathlib.Path) -> None:
    make_fleet(tmp_path, 1)
    left = {item["check"] for item in fleet(tmp_path, state=tmp_path / "state").not_checked}
    assert {"host", "object_lock", "content", "stored"} <= left


def test_fleet_finds_hosts_that_went_dark_or_fail(tmp_path: pathlib.Path) -> None:
    now = make_fleet(tmp_path / "r")
    make_instance(tmp_path / "r", "guard-02", now, days=2, fault="host dark")
    beat = {"time": f"{now:%Y-%m-%dT%H:%M:%SZ}", "ok": False, "failures": {"free_space": 1, "units": 2}}
    put(tmp_path / "r" / "guard-03" / "patrol.json", beat)
    found = fleet(tmp_path / "r", state=tmp_path / "state")
    assert failed(found) == {("guard-02", "patrol"), ("guard-03", "patrol")}
    assert {(item["thing"], item["found"]) for item in found.failures if item["instance"] == "guard-03"} == {
        ("free_space on the host", "1 failure"), ("units on the host", "2 failures"),
    }  # fmt: skip
    for told in ({}, [], {"failures": "x"}, {"failures": {str(number): [] for number in range(9999)}}):
        put(tmp_path / "r" / "guard-03" / "patrol.json", {**beat, "failures": {}, **dict(told)})
        assert 1 < len(fleet(tmp_path / "r", state=tmp_path / "state").failures) < 100


def test_fleet_misses_an_instance_that_is_gone_until_it_is_retired(tmp_path: pathlib.Path) -> None:
    root, state = tmp_path / "r", tmp_path / "state"
    make_fleet(root)
    assert fleet(root, state=state).ok
    (root / "guard-02").rename(tmp_path / "elsewhere")
    for _day in range(2):
        assert failed(fleet(root, state=state)) == {("guard-02", "instance")}
    assert fleet(root, state=state, retired=["guard-02"]).ok
    assert fleet(root, state=state).ok
    assert failed(fleet(root, "guard-01", "guard-09", state=state)) == {("guard-09", "instance")}


def test_fleet_goes_on_when_one_repository_does_not_answer(tmp_path: pathlib.Path) -> None:
    make_fleet(tmp_path / "r", 1)

    class Silent(DirectoryStore):
        def walk(self, prefix: str, levels: t.Any) -> t.Any:
            raise StoreError("store", "an answer", "none")

    stores = [Silent("/nowhere"), DirectoryStore(str(tmp_path / "r"))]
    found = patrol.patrol_fleet(stores, patrol.Fleet(["all"], [], str(tmp_path / "s")), Limits(), dry=False)
    assert failed(found) == {("", "repository")}
    assert found.instances == ["guard-01"]
    assert "everything" in {item["check"] for item in found.not_checked}


def test_empty_repository_is_no_healthy_fleet(tmp_path: pathlib.Path) -> None:
    assert failed(fleet(tmp_path, state=tmp_path / "state")) == {("", "instance")}


def test_verdict_is_json(tmp_path: pathlib.Path) -> None:
    make_fleet(tmp_path, 1)
    raw = json.loads(json.dumps(dataclasses.asdict(fleet(tmp_path, state=tmp_path / "state"))))
    for name in ("failures", "warnings", "not_checked"):
        for item in raw[name]:
            assert set(item) == {"check", "thing", "expected", "found", "hint", "instance", "where"}
