# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is told of one patrol after another: nothing is well again that the later one did not look at, or cannot see."""

from __future__ import annotations

import dataclasses
import datetime
import pathlib
import typing as t

import pytest

from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import StoreError
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.manifest import LAYERS
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.repository import Repository
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import patrol
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.alert_text import CLEARED, RAISED
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.alerts import Options, changes, of_unit
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.patrol_findings import Limits
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.gpg import Gpg
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.store import DirectoryStore
from support.fleet import HOUR, make_instance, put, told

NOW = datetime.datetime.now(datetime.timezone.utc)
NAME = "guard-01"
Told = set[tuple[str, str, str, str]]  # what is new, instance, check, thing


class Reader:
    """Somebody who is told of changes."""

    def __init__(self) -> None:
        self.known: dict[str, t.Any] = {}

    def hears(self, verdict: patrol.Verdict | dict[str, t.Any]) -> Told:
        raw = verdict if isinstance(verdict, dict) else dataclasses.asdict(verdict)
        found, self.known = changes(raw, self.known, Options("x", "/nowhere", with_warnings=False), NOW)
        return {(c.kind, c.finding["instance"], c.finding["check"], c.finding["thing"]) for c in found}


@pytest.fixture
def reader() -> Reader:
    return Reader()


@pytest.fixture
def root(tmp_path: pathlib.Path) -> pathlib.Path:
    """Three guards that are well."""
    for number in range(1, 4):
        make_instance(tmp_path / "repository", f"guard-{number:02d}", NOW, days=2)
    return tmp_path / "repository"


def look(root: pathlib.Path, host: pathlib.Path | None = None, layers: t.Sequence[str] = LAYERS) -> patrol.Verdict:
    """A patrol of guard-01, and of the host with that data root."""
    repository = Repository(DirectoryStore(str(root)), NAME)
    named = host and patrol.Host(str(host), str(host / "audit.log"), units=["guardops-test-none*"])
    with Gpg("gpg") as gpg:
        state = str(root.parent / "state")
        return patrol.patrol_instance(repository, Limits(layers=layers), named, gpg, state, canary=False, dry=False)


def fleet(*roots: pathlib.Path | DirectoryStore, some: t.Sequence[str] = ("all",), **more: t.Any) -> patrol.Verdict:
    stores = [root if isinstance(root, DirectoryStore) else DirectoryStore(str(root)) for root in roots]
    state = str(pathlib.Path(stores[0].location).parent / "state")
    return patrol.patrol_fleet(stores, patrol.Fleet(list(some), more.get("retired", []), state), Limits(), dry=False)


def test_patrol_of_the_repository_says_nothing_of_the_host(root: pathlib.Path, reader: Reader) -> None:
    data = root.parent / "data"
    assert (RAISED, NAME, "free_space", str(data)) in reader.hears(look(root, data))
    assert reader.hears(of_unit(NAME, "a.service", failed=True)) == {(RAISED, NAME, "units", "a.service")}
    assert reader.hears(look(root)) == set()
    data.mkdir()
    assert reader.hears(look(root)) == set()
    assert (CLEARED, NAME, "free_space", str(data)) in reader.hears(look(root, data))


def test_patrol_of_some_layers_says_nothing_of_the_others(root: pathlib.Path, reader: Reader) -> None:
    make_instance(root, NAME, NOW, days=2, fault="silent")
    (root / NAME / "verifications" / "model").rename(root.parent / "model")
    of_two = {("log_growth", "archived records"), ("verification", "model, quick"), ("verification", "model, proven")}
    assert {(RAISED, NAME, *what) for what in of_two} <= reader.hears(look(root))
    assert reader.hears(look(root, layers=["config"])) == set()
    make_instance(root, NAME, NOW, days=2)
    assert reader.hears(look(root)) == {(CLEARED, NAME, *what) for what in of_two}


def test_patrol_of_some_guards_says_nothing_of_the_others_and_forgets_none(root: pathlib.Path, reader: Reader) -> None:
    assert reader.hears(fleet(root)) == set()
    make_instance(root, "guard-02", NOW, days=2, fault="old logs")
    assert reader.hears(fleet(root)) == {(RAISED, "guard-02", "snapshot", "logs, age")}
    assert reader.hears(fleet(root, some=["guard-01"])) == set()
    (root / "guard-03").rename(root.parent / "guard-03")
    assert reader.hears(fleet(root, some=["guard-01", "guard-02"])) == set()
    assert reader.hears(fleet(root)) == {(RAISED, "guard-03", "instance", "repository")}
    assert reader.hears(fleet(root, some=["guard-01"])) == set()
    assert reader.hears(fleet(root, retired=["guard-03"])) == {(CLEARED, "guard-03", "instance", "repository")}


def test_guards_of_another_repository_are_not_well_by_a_patrol_of_this(root: pathlib.Path, reader: Reader) -> None:
    other = root.parent / "other"
    make_instance(other, "guard-09", NOW, days=2, fault="old logs")
    assert reader.hears(fleet(root, other)) == {(RAISED, "guard-09", "snapshot", "logs, age")}
    assert reader.hears(fleet(root)) == set()


def beats(root: pathlib.Path, ago: float, **failures: int) -> None:
    beat = {"time": told(NOW - ago * HOUR), "ok": not failures, "failures": failures}
    put(root / "guard-02" / "patrol.json", beat)


def test_what_is_new_on_a_host_that_fails_already_is_told(root: pathlib.Path, reader: Reader) -> None:
    beats(root, 1, drill=1)
    assert reader.hears(fleet(root)) == {(RAISED, "guard-02", "patrol", "drill on the host")}
    beats(root, 1, drill=2, service=1)
    assert reader.hears(fleet(root)) == {(RAISED, "guard-02", "patrol", "service on the host")}
    beats(root, 50, drill=2, service=1)
    assert reader.hears(fleet(root)) == {(RAISED, "guard-02", "patrol", "host")}
    beats(root, 1, service=1)
    assert reader.hears(fleet(root)) == {
        (CLEARED, "guard-02", "patrol", "host"), (CLEARED, "guard-02", "patrol", "drill on the host"),
    }  # fmt: skip


class Silent(DirectoryStore):
    def walk(self, prefix: str, levels: t.Any) -> t.Any:
        raise StoreError("store", "an answer", "none")


def test_each_repository_that_does_not_answer_is_told(root: pathlib.Path, reader: Reader) -> None:
    first, second = (str(root.parent / name) for name in ("first", "second"))
    assert reader.hears(fleet(Silent(first), root)) == {(RAISED, "", "repository", first)}
    assert reader.hears(fleet(Silent(first), Silent(second), root)) == {(RAISED, "", "repository", second)}
    assert reader.hears(fleet(root)) == set()


def test_named_guard_is_looked_at_after_a_repository_that_does_not_answer(root: pathlib.Path) -> None:
    assert fleet(Silent("/nowhere"), root, some=["guard-01"]).instances == ["guard-01"]


def test_what_nobody_can_look_for_is_not_well(root: pathlib.Path, reader: Reader) -> None:
    """Without systemd, or without names of units."""
    reader.hears(of_unit(NAME, "a.service", failed=True))
    for thing in ("systemd", "this host"):
        left = [{"check": "units", "thing": thing, "instance": NAME}]
        assert reader.hears({"not_checked": left}) == set()
    assert reader.hears({"not_checked": []}) == {(CLEARED, NAME, "units", "a.service")}
