# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A removal that breaks off anywhere, a store that does not remove, and others who write meanwhile."""

from __future__ import annotations

import dataclasses
import itertools
import os
import shutil
import typing as t
from pathlib import Path

import pytest

from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import GuardError, StoreError
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.repository import Repository
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import prune, prune_apply, verify
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.prune_plan import Policy
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.store import DirectoryStore
from support.engine import INSTANCE, Engine
from support.made_up import NOW, MadeUp

Names = t.Collection[str]


class Killed(BaseException):
    """kill -9: nothing of ours runs any more."""


class DyingStore(DirectoryStore):
    """Dies at one of its calls, or after some of the objects of a removal are gone."""

    def __init__(self, location: str, dies_at: int, last_first: bool = False):
        super().__init__(location)
        self.left = dies_at
        self.last_first = last_first

    def _step(self) -> None:
        if self.left == 0:
            raise Killed
        self.left -= 1

    def details(self, prefix: str) -> dict[str, t.Any]:
        self._step()
        return super().details(prefix)

    def present(self, names: Names) -> set[str]:
        self._step()
        return super().present(names)

    def remove_several(self, names: Names) -> None:
        # A store takes the names of one call in any order.
        for name in sorted(names, reverse=self.last_first):
            self._step()
            super().remove_several([name])
        self._step()

    def remove_empty(self, prefix: str) -> None:
        self._step()
        super().remove_empty(prefix)


@pytest.fixture(name="engine")
def fixture_engine(tmp_path: Path) -> Engine:
    return Engine(tmp_path, "logs")


@pytest.fixture(name="made")
def fixture_made(engine: Engine) -> MadeUp:
    """Three chains, of which one is to go, and one up to the snapshot that was verified."""
    made = MadeUp(engine.store_path)
    made.chain(90, 2, records=3)
    verified = made.chain(60, 2, records=3)
    made.chain(5, 1, records=3)
    made.verdict(verified[1], restored=True)
    made.verdict(verified[2], days=60, restored=False)
    return made


def run(
    engine: Engine, store: DirectoryStore | None = None, *, dry: bool = False, apply: bool = True, **more: t.Any
) -> prune.Outcome:
    with engine.session(dry=dry) as session:
        if store is not None:
            session = dataclasses.replace(session, repository=Repository(store, INSTANCE))
        return prune.prune(session, prune.Options(Policy(keep_days=30), apply=apply, now=NOW, **more))


def all_listed_are_whole(engine: Engine, made: MadeUp) -> None:
    with engine.session() as session:
        for snapshot in made.listed():
            verdict = verify.verify(session, verify.Options("stored", snapshot, keep_verdict=False))
            assert verdict.ok, verdict.failures


def expected(made: MadeUp) -> list[str]:
    """What is left in the end."""
    names = list(made.manifests)
    return [names[3], names[4], names[6], names[7]]


def test_dry_by_default_and_in_check_mode(engine: Engine, made: MadeUp) -> None:
    before = made.objects()
    told = run(engine, apply=False)
    checked = run(engine, dry=True)
    assert made.objects() == before
    assert not (engine.base / "state").exists()
    assert (told.changed, checked.changed) == (False, True)
    assert (told.applied, checked.applied) == (False, False)
    done = run(engine)
    assert [item["snapshot"] for item in done.remove] == sorted(done.removed)
    assert told.remove == checked.remove == done.remove
    assert (told.before, told.after) == (done.before, done.after)
    assert done.before.count("\n") - done.after.count("\n") == len(done.removed)


def test_nothing_of_what_goes_is_left(engine: Engine, made: MadeUp) -> None:
    names = list(made.manifests)
    bytes_before = sum(path.stat().st_size for path in made.place.rglob("*") if path.is_file())
    outcome = run(engine)
    assert outcome.applied
    assert not outcome.failures
    assert made.listed() == expected(made)
    assert not [name for name in made.objects() if any(gone in name for gone in {*names} - {*expected(made)})]
    assert not [path for path in made.place.rglob("*") if path.is_dir() and not any(path.iterdir())]
    all_listed_are_whole(engine, made)
    bytes_after = sum(path.stat().st_size for path in made.place.rglob("*") if path.is_file())
    assert bytes_before - bytes_after == outcome.removed_bytes == outcome.remove_bytes
    again = run(engine)
    assert (again.changed, again.remove, again.removed_objects) == (False, [], 0)


@pytest.mark.parametrize("last_first", [False, True])
def test_killed_at_every_call(engine: Engine, made: MadeUp, tmp_path: Path, last_first: bool) -> None:
    template = tmp_path / "template"
    shutil.copytree(engine.store_path, template)
    assert not run(engine).failures
    final = made.objects()
    seen: set[tuple[str, ...]] = set()
    for step in itertools.count():
        shutil.rmtree(engine.store_path)
        shutil.copytree(template, engine.store_path)
        try:
            run(engine, DyingStore(str(engine.store_path), step, last_first))
        except Killed:
            pass
        else:
            break
        state = tuple(sorted(made.objects()))
        if state not in seen:
            seen.add(state)
            assert set(expected(made)) <= set(made.listed())
            all_listed_are_whole(engine, made)
            assert not run(engine).failures
            assert made.objects() == final, f"killed at call {step}: the next run left something"
    assert step > 30
    assert len(seen) > 15


class Stubborn(DirectoryStore):
    """Keeps what is locked, as a store with an object lock may, and says so or not."""

    def __init__(self, location: str, locked: str, says_so: bool):
        super().__init__(location)
        self.locked = locked
        self.says_so = says_so

    def remove_several(self, names: Names) -> None:
        free = [name for name in names if self.locked not in name]
        super().remove_several(free)
        if self.says_so and len(free) < len(names):
            raise StoreError("remote:", "rclone to end well", "an error that no retry mends (it is locked)")


@pytest.mark.parametrize("says_so", [False, True])
def test_what_a_lock_keeps_is_a_failure_and_keeps_what_it_stands_on(
    engine: Engine, made: MadeUp, says_so: bool
) -> None:
    names = list(made.manifests)
    outcome = run(engine, Stubborn(str(engine.store_path), f"{names[2]}/", says_so))
    assert [text for text in outcome.failures if f"{names[2]}/manifest.json" in text and "still there" in text]
    assert any("it is locked" in text for text in outcome.failures) is says_so
    assert outcome.removed == [names[5]]
    assert set(made.listed()) == {*expected(made), names[0], names[1], names[2]}
    all_listed_are_whole(engine, made)


@pytest.mark.parametrize("says_so", [False, True])
def test_a_locked_part_is_a_failure_that_names_it(engine: Engine, made: MadeUp, says_so: bool) -> None:
    names = list(made.manifests)
    outcome = run(engine, Stubborn(str(engine.store_path), f"{names[1]}/part-00000.gpg", says_so))
    assert made.listed() == expected(made)
    assert len(outcome.failures) == 1 + says_so
    assert f"{names[1]}/part-00000.gpg" in outcome.failures[0]
    after = run(engine)
    assert not after.failures
    assert after.leftovers["objects"] == 1
    assert not [name for name in made.objects() if names[1] in name]


class Refusing(DirectoryStore):
    """The right to delete is missing."""

    def remove_several(self, names: Names) -> None:
        raise StoreError("remote:", "rclone to end well", "AccessDenied", "Permission denied.")


def test_a_missing_right_ends_it_at_once(engine: Engine, made: MadeUp) -> None:
    before = made.objects()
    outcome = run(engine, Refusing(str(engine.store_path)))
    assert made.objects() == before
    assert "AccessDenied" in outcome.failures[-1]
    assert outcome.removed == []


class Busy(DirectoryStore):
    """Somebody else writes when the removal begins."""

    def __init__(self, location: str, meanwhile: t.Callable[[], object], at: int):
        super().__init__(location)
        self.meanwhile = meanwhile
        self.left = at

    def details(self, prefix: str) -> dict[str, t.Any]:
        if prefix.endswith("/logs") and not prefix.endswith("verifications/logs"):
            if self.left == 0:
                self.meanwhile()
            self.left -= 1
        return super().details(prefix)


def test_an_increment_that_came_meanwhile_keeps_its_chain(engine: Engine, made: MadeUp) -> None:
    names = list(made.manifests)
    store = Busy(str(engine.store_path), lambda: made.add(0, names[2], number=20), at=2)
    outcome = run(engine, store)
    assert not outcome.failures
    assert outcome.removed == [names[5]]
    assert [item for item in outcome.left_out if item["path"] == names[2] and "came meanwhile" in item["reason"]]
    all_listed_are_whole(engine, made)


def test_something_unreadable_that_came_meanwhile_stops_it(engine: Engine, made: MadeUp) -> None:
    before = made.listed()
    store = Busy(
        str(engine.store_path), lambda: made.write("logs/000020-00000000/manifest.json", b'{"format": 2}'), at=2
    )
    outcome = run(engine, store)
    assert outcome.removed == []
    assert made.listed() == [*before, "000020-00000000"]
    assert [item for item in outcome.left_out if "000020-00000000 came meanwhile" in item["reason"]]


@pytest.mark.parametrize("at", [3, 4, 5, 6])
def test_a_chain_that_two_hosts_broke_does_not_stay_unseen(
    engine: Engine, made: MadeUp, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """The increment comes after what it stands on has gone: between two waves, and at the very end."""
    names = list(made.manifests)
    monkeypatch.setattr(prune_apply, "_LOOK_AGAIN", 0.0)
    store = Busy(str(engine.store_path), lambda: made.add(0, names[2], number=20), at=at)
    outcome = run(engine, store)
    (failure,) = outcome.failures
    assert "Take a full now" in failure


def test_what_a_resumed_run_made_young_again_stays(engine: Engine, made: MadeUp) -> None:
    made.write("logs/000020-00000000/part-00000.gpg", b"x", days=9)
    assert run(engine, apply=False).leftovers["count"] == 1
    store = Busy(str(engine.store_path), lambda: made.write("logs/000020-00000000/part-00001.gpg", b"y", days=0), at=2)
    outcome = run(engine, store)
    assert not outcome.failures
    assert "logs/000020-00000000/part-00000.gpg" in made.objects()
    assert [item for item in outcome.left_out if item["path"] == "logs/000020-00000000"]
    assert os.path.exists(made.place / "logs/000020-00000000/part-00001.gpg")


def test_a_backup_on_this_host_is_not_disturbed(engine: Engine, made: MadeUp) -> None:
    before = made.objects()
    with engine.session() as session, session.alone():
        with pytest.raises(GuardError, match=r"no other run"):
            run(engine)
        assert run(engine, apply=False).remove, "to tell needs no lock"
    assert made.objects() == before


def test_it_looks_again_when_it_takes_long(engine: Engine, made: MadeUp, monkeypatch: pytest.MonkeyPatch) -> None:
    names = list(made.manifests)
    monkeypatch.setattr(prune_apply, "_LOOK_AGAIN", 0.0)
    store = Busy(str(engine.store_path), lambda: made.add(0, names[0], number=20), at=3)  # between two waves
    outcome = run(engine, store)
    assert not outcome.failures
    assert names[0] in made.listed()
    all_listed_are_whole(engine, made)


def test_model_and_config_are_pruned_alike(tmp_path: Path) -> None:
    for layer in ("model", "config"):
        engine = Engine(tmp_path / layer, layer)
        made = MadeUp(engine.store_path, layer)
        old, new = made.add(90), made.add(5)
        assert run(engine, apply=False).remove[0]["snapshot"] == old
        assert not run(engine).failures
        assert made.listed() == [new]
