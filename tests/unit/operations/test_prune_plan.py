# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What retention keeps: everything that is unclear, whatever the policy says."""

from __future__ import annotations

import os
import typing as t
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.repository import Repository
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import prune_look
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.fences import Fences
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.prune_plan import (
    Plan,
    Policy,
    plan,
    records_gone,
)
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.store import DirectoryStore
from support.engine import INSTANCE, short_place
from support.made_up import DAY, NOW, MadeUp


@pytest.fixture(name="made")
def fixture_made(tmp_path: Path) -> MadeUp:
    return MadeUp(tmp_path / "repository")


def look(made: MadeUp) -> prune_look.Found:
    return prune_look.look(Repository(DirectoryStore(str(made.repository)), INSTANCE), made.layer, Fences())


def planned(made: MadeUp, **policy: t.Any) -> Plan:
    return plan(look(made), Policy(**policy), NOW)


def reasons(found: Plan, snapshot: str) -> str:
    return "; ".join(found.keep.get(snapshot, []))


# -- by age and by number


@pytest.mark.parametrize("policy", [{}, {"keep_days": 0}, {"keep_last": 0}, {"keep_days": 0, "keep_last": 1}])
def test_for_ever(made: MadeUp, policy: dict[str, int]) -> None:
    old = made.add(4000)
    made.add(3000)
    found = planned(made, **policy)
    assert not found.remove
    assert "for ever" in reasons(found, old)


def test_by_age(made: MadeUp) -> None:
    old, edge, young = made.add(40), made.add(30.01), made.add(29.99)
    newest = made.add(20)
    found = planned(made, keep_days=30)
    assert list(found.remove) == [old, edge]
    assert found.remove[old] == "older than 30 days"
    assert reasons(found, young) == "younger than 30 days"
    assert "newest" in reasons(found, newest)


def test_by_number_counts_what_can_be_restored(made: MadeUp) -> None:
    good = [made.add(days) for days in (50, 40, 30)]
    broken = made.add(20)
    (made.place / "logs" / broken / "part-00000.gpg").unlink()
    found = planned(made, keep_last=2)
    assert list(found.remove) == good[:1], "a damaged one must not take the place of one that restores"
    assert reasons(found, good[2]) == "the newest that is whole; among the last 2"


def test_either_rule_keeps(made: MadeUp) -> None:
    old, middle, new = made.add(90), made.add(60), made.add(10)
    found = planned(made, keep_last=2, keep_days=30)
    assert list(found.remove) == [old]
    assert found.remove[old] == "not among the last 2 and older than 30 days"
    assert reasons(found, middle) == "among the last 2"
    assert set(found.keep) == {middle, new}


def test_a_clock_that_was_behind_does_not_make_a_snapshot_old(made: MadeUp) -> None:
    behind = made.add(20000)
    made.add(10)
    os.utime(made.place / "logs" / behind / "manifest.json", (NOW - 2 * DAY, NOW - 2 * DAY))
    assert not planned(made, keep_days=30).remove


def test_a_store_with_new_times_does_not_make_a_snapshot_young_by_less_than_it_says(made: MadeUp) -> None:
    ahead = made.add(-400)
    made.add(10)
    os.utime(made.place / "logs" / ahead / "manifest.json", (NOW - 90 * DAY, NOW - 90 * DAY))
    assert not planned(made, keep_days=30).remove


# -- chains


def test_a_full_that_a_kept_increment_needs_stays(made: MadeUp) -> None:
    chain = made.chain(30.05, 3)  # the last two are younger than 30 days
    made.add(5)
    found = planned(made, keep_days=30)
    assert not found.remove
    assert reasons(found, chain[0]).endswith("stands on it")


def test_the_end_of_a_chain_goes_first(made: MadeUp) -> None:
    first, second = made.chain(60, 3), made.chain(50, 1)
    made.add(5)
    found = planned(made, keep_days=30)
    assert found.waves == [
        [second[1], first[3]], [second[0], first[2]], [first[1]], [first[0]],
    ]  # fmt: skip


def test_a_chain_that_was_added_to_of_late_stays(made: MadeUp) -> None:
    chain = made.chain(2, 40)  # the last is eight hours old
    made.add(0.1)
    assert not planned(made, keep_last=1).remove, "a backup that runs now may stand on the last of them"
    assert list(planned(made, keep_last=1, min_age=0).remove) == chain
    assert list(planned(made, keep_last=1, min_age=3600 * 4).remove) == chain


# -- verified


def test_the_last_verified_stays_with_what_it_stands_on(made: MadeUp) -> None:
    chain = made.chain(90, 3)
    later = made.chain(60, 1)
    made.add(5)
    made.verdict(chain[2], restored=True)
    found = planned(made, keep_days=30)
    assert list(found.remove) == [chain[3], *later]
    assert "the last that was verified at level restored" in reasons(found, chain[2])
    assert {chain[0], chain[1], chain[2]} <= found.hot


def test_the_last_of_each_level_stays(made: MadeUp) -> None:
    loaded, older, restored, stored = made.add(90), made.add(80), made.add(70), made.add(60)
    made.add(5)
    made.verdict(loaded, loaded=True, restored=True)
    made.verdict(older, restored=True, stored=True)
    made.verdict(restored, restored=True)
    made.verdict(stored, stored=True, decrypted=True)
    assert list(planned(made, keep_days=30).remove) == [older]


def test_a_sample_takes_no_protection_from_the_last_that_was_wholly_restored(made: MadeUp) -> None:
    wholly, sampled = made.chain(90, 1), made.add(60)
    gone = made.add(50)
    made.add(5)
    made.verdict(wholly[1], restored=True)
    made.verdict(sampled, sample=10, restored=True)
    found = planned(made, keep_days=30)
    assert list(found.remove) == [gone]
    assert reasons(found, wholly[1]) == "the last that was verified at level restored"
    assert reasons(found, wholly[0]).endswith("stands on it")
    assert reasons(found, sampled) == "the last of which a sample was verified at level restored"
    assert set(wholly) <= found.hot
    assert sampled not in found.hot, "only what is proven must come back at once"


def test_a_sample_that_came_after_leaves_a_snapshot_proven_or_failed(made: MadeUp) -> None:
    good, failed = made.add(90), made.add(80)
    made.add(5)
    repository = Repository(DirectoryStore(str(made.repository)), INSTANCE)
    for name, ok in ((good, True), (failed, False)):
        for done, sample in ((ok, 0), (True, 10)):
            verdict = {"snapshot": name, "level": "restored", "ok": done, "sample_bytes": sample}
            repository.add_verdict("logs", name, "restored", verdict)
    found = planned(made, keep_days=30)
    assert reasons(found, good) == "the last that was verified at level restored"
    assert look(made).snapshots[failed].failed


def test_a_sample_of_another_snapshot_is_not_clear(made: MadeUp) -> None:
    old, other = made.add(90), made.add(80)
    made.add(5)
    whole = {"snapshot": other, "level": "restored", "ok": True}
    verdict = {"snapshot": old, "level": "restored", "ok": True, "sample_bytes": 10, "whole": whole}
    Repository(DirectoryStore(str(made.repository)), INSTANCE).add_verdict("logs", old, "restored", verdict)
    assert "is not clear" in reasons(planned(made, keep_days=30), old)
    assert look(made).snapshots[old].passed == []


def test_a_failed_verdict_protects_nothing_and_takes_no_protection(made: MadeUp) -> None:
    good, torn, failed = made.add(90), made.add(80), made.add(70)
    made.add(5)
    made.verdict(good, restored=True)
    made.verdict(torn, restored=True, stored=False)  # passed once, and was found damaged later; or that is a lie
    made.verdict(failed, restored=False)
    found = planned(made, keep_days=30)
    assert list(found.remove) == [failed]
    assert "verified" in reasons(found, good)
    assert "verified" in reasons(found, torn)


def test_a_verified_snapshot_that_is_not_whole_any_more_does_not_count(made: MadeUp) -> None:
    good, broken = made.add(90), made.add(80)
    made.add(5)
    made.verdict(good, restored=True)
    made.verdict(broken, restored=True)
    (made.place / "logs" / broken / "index.gpg").write_bytes(b"short")
    assert good in planned(made, keep_days=30).keep


GARBLED = {
    "empty": b"",
    "no json": b"{",
    "a list": b"[]",
    "other fields": b'{"verdicts": {"restored": {"ok": "yes"}}}',
    "of another": b'{"verdicts": {"restored": {"ok": true, "snapshot": "000009-00000000"}}}',
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("garbled", sorted(GARBLED))
def test_a_garbled_verdict_protects_and_never_removes_more(made: MadeUp, garbled: str) -> None:
    verified, other = made.add(90), made.add(80)
    made.add(5)
    made.verdict(verified, restored=True)
    made.write(made.verdict_name(other), GARBLED[garbled])
    found = planned(made, keep_days=30)
    assert not found.remove
    assert "not clear" in reasons(found, other)
    assert "verified at level restored" in reasons(found, verified), "it is still the last that was verified"


# -- what cannot be read

UNREADABLE: dict[str, t.Callable[[bytes], bytes]] = {
    "a newer format": lambda data: data.replace(b'"format": 1', b'"format": 2'),
    "another kind": lambda data: data.replace(b"guardops.qwen3guard snapshot", b"something else"),
    "cut": lambda data: data[:100],
    "empty": lambda data: b"",
}


@pytest.mark.parametrize("how", sorted(UNREADABLE))
def test_what_cannot_be_read_stays_with_what_it_may_stand_on(made: MadeUp, how: str) -> None:
    before = made.add(120)
    chain = made.chain(90, 4)
    made.add(5)
    path = made.place / "logs" / chain[3] / "manifest.json"
    path.write_bytes(UNREADABLE[how](path.read_bytes()))
    os.utime(path, (NOW - 90 * DAY, NOW - 90 * DAY))
    found = planned(made, keep_days=30)
    assert list(found.remove) == [before, chain[4]]
    assert "cannot be read" in reasons(found, chain[3])
    assert set(chain[:3]) <= set(found.keep)


def test_two_unreadable_ones_protect_the_chain_before_both(made: MadeUp) -> None:
    chain = made.chain(90, 3)
    made.add(5)
    for name in chain[2:]:
        (made.place / "logs" / name / "manifest.json").write_bytes(b"{}")
    assert set(planned(made, keep_days=30).keep) >= set(chain)


# -- what belongs to no snapshot


def test_leftovers_by_their_youngest_object(made: MadeUp) -> None:
    made.add(5)
    made.write("logs/000002-00000000/part-00000.gpg", b"x", days=9)
    made.write("logs/000003-00000000/part-00000.gpg", b"x", days=9)
    made.write("logs/000003-00000000/part-00001.gpg", b"x", days=0.1)
    found = planned(made, keep_days=30)
    assert [item.name for item in found.leftovers] == ["logs/000002-00000000"]
    assert [item.name for item in found.young] == ["logs/000003-00000000"]


def test_a_running_backups_tables_are_as_young_as_its_parts(made: MadeUp) -> None:
    made.add(5)
    made.write("logs/000003-00000000/part-00000.gpg", b"x", days=0.1)
    made.write("records/20261110/000003-00000000.gpg", b"x", days=9)
    made.write("records/20261110/000004-00000000.gpg", b"x", days=9)
    found = planned(made, keep_days=30)
    assert [list(item.objects) for item in found.leftovers] == [["records/20261110/000004-00000000.gpg"]]


def test_what_is_not_ours_is_left_alone(made: MadeUp) -> None:
    made.add(5)
    names = ["logs/notes.txt", "logs/000002-00000000/snapshot.v2", "records/x.gpg", "verifications/logs/me.json"]
    for name in names:
        made.write(name, b"x", days=900)
    found = look(made)
    assert sorted(found.foreign) == sorted(names)
    assert not plan(found, Policy(keep_days=30), NOW).leftovers


# -- records


def test_records_whose_last_copy_goes_are_counted(made: MadeUp) -> None:
    made.chain(90, 2, records=10)
    made.last_record = 20  # the next full holds the last ten of them again
    made.add(60, records=15)
    made.add(5, records=5)
    found = look(made)
    gone = records_gone(found, plan(found, Policy(keep_days=70), NOW))
    assert gone["count"] == 20
    assert gone["since"] < gone["until"] < "2026-09"
    assert records_gone(found, plan(found, Policy(keep_days=400), NOW))["count"] == 0


# -- all of it at once


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_whatever_there_is_nothing_kept_misses_what_it_stands_on(data: st.DataObject) -> None:
    with short_place() as place:
        made = MadeUp(place)
        chains = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=4))
        names = [name for i, count in enumerate(chains) for name in made.chain((len(chains) - i) * 20, count)]
        for name in names:
            what = data.draw(st.sampled_from(["", "", "", "verified", "failed", "garbled", "unreadable", "damaged"]))
            if what in ("verified", "failed"):
                made.verdict(name, restored=what == "verified")
            elif what == "garbled":
                made.write(made.verdict_name(name), b"{")
            elif what == "unreadable":
                made.write(f"logs/{name}/manifest.json", b"{}", days=90)
            elif what == "damaged":
                (made.place / "logs" / name / "part-00000.gpg").unlink()
        found = look(made)
        policy = Policy(data.draw(st.sampled_from([None, 1, 2])), data.draw(st.sampled_from([None, 25, 45])))
        result = plan(found, policy, NOW)
        assert sorted([*result.keep, *result.remove]) == sorted(names)
        assert sorted(name for wave in result.waves for name in wave) == sorted(result.remove)
        gone: set[str] = set()
        for wave in result.waves:
            gone |= set(wave)
            for name in names:
                if name not in gone:
                    assert made.manifests[name].parent not in gone, f"{name} is listed and does not restore"
        verified = [name for name in names if "restored" in found.snapshots[name].passed]
        assert not verified or verified[-1] in result.keep
        assert names[-1] in result.keep
