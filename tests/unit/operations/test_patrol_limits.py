# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A limit of 0 leaves its check out, the verdict says so, and nothing is well again by it: for all limits there are."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import pathlib
import typing as t

import pytest
from sample_instance.chained import ChainedWriter

from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.repository import Repository
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import alerts, patrol
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.patrol_findings import (
    UTC,
    Findings,
    Limits,
    leaves_open,
)
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services import expiry
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.gpg import Gpg
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.store import DirectoryStore
from support.fleet import HOUR, make_instance

NAME = "guard-01"
NAMES = [field.name for field in dataclasses.fields(Limits) if field.name != "layers"]
# So tight that nothing keeps to any of them.
TIGHT = Limits(
    logs_hours=0.1, quick_hours=0.1, proven_days=0.1, drill_days=0.1, increments=1, silence_hours=0.25,
    patrol_hours=0.1, free_percent=101, full_days=1e9, expiry_days=1e5, archive_hours=0.1,
)  # fmt: skip
Key = tuple[str, str, str]


class World:
    """An instance, its host, and the fleet that it belongs to; what is told of them does not change meanwhile."""

    def __init__(self, place: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
        self.place = place
        self.now = datetime.datetime.now(UTC)
        make_instance(place / "repository", NAME, self.now, fault="failed drill")
        self.store = DirectoryStore(str(place / "repository"))
        writer = ChainedWriter(place / "data" / "logs" / "audit.log", start=self.now - 2 * HOUR)
        writer.append(3)
        self.host = patrol.Host(
            str(place / "data"), str(writer.path), certificates=["a.pem"], openpgp_keys=["a.asc"],
            cdi_directories=[str(place)],
        )  # fmt: skip
        end = [expiry.Expiry("it", self.now + HOUR)]
        monkeypatch.setattr(expiry, "certificates", lambda _place: end)
        monkeypatch.setattr(expiry, "openpgp_keys", lambda _gpg, _place: end)
        monkeypatch.setattr(patrol.patrol_logs, "check_service", lambda _url, _findings: {})

    def _remember_more_room(self) -> None:
        room = os.statvfs(self.place)
        free = room.f_bavail * room.f_frsize
        samples = [[self.now.timestamp() - days * 86400, free * (1 + days / 10)] for days in (3, 2, 1)]
        path = str(self.place / "state" / NAME / "patrol.json")
        patrol.save_state(path, {"room": {self.host.data_root: samples}}, Findings(NAME))

    def look(self, limits: Limits) -> dict[str, t.Any]:
        """All that the patrol of the host and that of its fleet find."""
        self._remember_more_room()
        state = str(self.place / "state")
        with Gpg() as gpg:
            repository = Repository(self.store, NAME)
            of_host = patrol.patrol_instance(repository, limits, self.host, gpg, state, canary=False, dry=True)
        fleet = patrol.Fleet([NAME], [], state)
        verdicts = [of_host, patrol.patrol_fleet([self.store], fleet, limits, dry=True)]
        lists = ("failures", "warnings", "not_checked")
        return {name: [item for verdict in verdicts for item in getattr(verdict, name)] for name in lists}


@pytest.fixture(name="world")
def fixture_world(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def keys(found: list[dict[str, str]]) -> set[Key]:
    return {(item["check"], item["thing"], item["instance"]) for item in found}


def wrong(verdict: dict[str, t.Any]) -> set[Key]:
    return keys(verdict["failures"]) | keys(verdict["warnings"])


@pytest.mark.parametrize("name", NAMES)
def test_what_a_limit_of_0_leaves_out_is_said_and_is_not_well_again(world: World, name: str) -> None:
    before, after = world.look(TIGHT), world.look(dataclasses.replace(TIGHT, **{name: 0}))
    left_out = wrong(before) - wrong(after)
    assert left_out, "the limit makes no difference"
    assert wrong(after) < wrong(before), "it leaves out, and finds nothing else"
    said = [item for item in after["not_checked"] if item["found"] == "its limit is 0"]
    for check, thing, instance in left_out:
        finding = {"check": check, "thing": thing, "instance": instance}
        assert any(leaves_open(item, finding) for item in said), finding
    # What is said has another reason, or no finding of the same name that something else had raised.
    assert not keys(said) & wrong(after)
    options = alerts.Options(NAME, "")
    _told, known = alerts.changes(before, {}, options, world.now)
    told, known = alerts.changes(after, known, options, world.now)
    assert [change for change in told if change.kind == alerts.CLEARED] == []
    assert len(known) == len(wrong(before))


def test_what_the_host_found_is_not_well_again_because_its_patrol_is_left_out(world: World) -> None:
    beat = {"time": f"{world.now:%Y-%m-%dT%H:%M:%SZ}", "ok": False, "failures": {"units": 1}}
    (world.place / "repository" / NAME / "patrol.json").write_text(json.dumps(beat))
    key = ("patrol", "units on the host", NAME)
    assert key in wrong(world.look(Limits()))
    after = world.look(Limits(patrol_hours=0))
    assert key not in wrong(after)
    finding = {"check": "patrol", "thing": "units on the host", "instance": NAME}
    assert any(leaves_open(item, finding) for item in after["not_checked"])


def test_limits_of_0_leave_everything_else_as_it_is(world: World) -> None:
    """What has no limit is found with all of them at 0, and is well again when it is."""
    world.host.places = [str(world.place / "gone")]
    (world.place / "repository" / NAME / "config").rename(world.place / "config")
    (world.place / "repository" / NAME / "logs").rename(world.place / "logs")
    none = Limits(**dict.fromkeys(NAMES, 0))
    before = world.look(none)
    found = {key for key in wrong(before) if key[0] == "snapshot"}
    assert found == {("snapshot", "config", NAME), ("snapshot", "logs", NAME)}
    for name in ("config", "logs"):
        (world.place / name).rename(world.place / "repository" / NAME / name)
    options = alerts.Options(NAME, "", with_warnings=False)
    _told, known = alerts.changes(json.loads(json.dumps(before)), {}, options, world.now)
    told, known = alerts.changes(world.look(none), known, options, world.now)
    assert {(change.kind, change.finding["thing"]) for change in told if change.finding["check"] == "snapshot"} == {
        (alerts.CLEARED, "config"), (alerts.CLEARED, "logs"),
    }  # fmt: skip


@pytest.mark.parametrize(("limits", "check"), [
    ({"full_days": 0}, "free_space"), ({"free_percent": 0}, "free_space_trend"), ({}, "free_space"),
])  # fmt: skip
def test_a_directory_that_is_gone_is_told_by_a_check_that_is_made(
    world: World, limits: dict[str, float], check: str
) -> None:
    world.host.places = [str(world.place / "gone")]
    found = world.look(Limits(**limits))
    assert (check, str(world.place / "gone"), NAME) in wrong(found) - keys(found["not_checked"])


def test_file_system_of_a_repository_on_this_host_is_looked_at_without_being_named(world: World) -> None:
    # All of this is one file system, of which one name is told. The limit of 0 has an entry for each.
    said = world.look(Limits(full_days=0))["not_checked"]
    looked_at = [item["thing"] for item in said if item["check"] == "free_space_trend"]
    assert looked_at == [str(world.place / name) for name in ("data", "state", "repository")]
    (world.place / "repository").rename(world.place / "away")  # that it is gone is told by its own check
    gone = [item["check"] for item in world.look(Limits())["failures"]
            if item["thing"] == str(world.place / "repository")]  # fmt: skip
    assert gone == ["repository"]
