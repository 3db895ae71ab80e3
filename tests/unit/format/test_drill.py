# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Records of drills come from a store that anybody may have written to."""

from __future__ import annotations

import copy
import dataclasses
import json
import typing as t

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import IntegrityError
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format import drill as drills
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.drill import Drill, Phase, RecoveryPoint

SNAPSHOT = "000012-0123abcd"
SAMPLE = Drill(
    kind="drill", instance="guard-01", host="spare", started="2026-11-23T09:00:00Z", ended="2026-11-23T09:04:00Z",
    phases=[Phase("restore the weights", 141.2, True), Phase("audit", 2, False, "503")],
    recovery_point=RecoveryPoint(SNAPSHOT, "2026-11-23T08:05:00Z", "2026-11-23T08:04:59.123456Z",
                                 "2026-11-23T09:00:00Z", 3300.877),
    recovery_time_seconds=None, total_seconds=240.0, budget_seconds=300, ok=False, failures=["audit: 503"],
    warnings=["w"], not_checked=["n"], snapshots={"logs": SNAPSHOT}, versions={"ansible-core": "2.19"},
)  # fmt: skip


def parsed(raw: t.Any) -> Drill:
    return drills.parse(json.dumps(raw).encode(), "store:x", "guard-01")


def test_it_comes_back_as_it_was() -> None:
    assert drills.parse(SAMPLE.to_bytes(), "store:x", "guard-01") == SAMPLE
    bare = dataclasses.replace(SAMPLE, recovery_point=None, recovery_time_seconds=12.5)
    assert drills.parse(bare.to_bytes(), "store:x", "guard-01") == bare
    assert parsed({**SAMPLE.to_json(), "of a later release": 1}) == SAMPLE


def test_names() -> None:
    assert drills.object_name(SAMPLE.started) == "drills/20261123T090000Z.json"
    assert drills.is_name("20261123T090000Z.json")
    for name in ("20261123T090000Z.json.tmp", "x/20261123T090000Z.json", "latest.json"):
        assert not drills.is_name(name)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[]", b"null", b'{"format": 2}', b"[" * 100_000])
def test_other_documents_are_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        drills.parse(data, "store:x", "guard-01")


def test_another_instances_record_is_refused() -> None:
    with pytest.raises(IntegrityError, match="that of 'guard-01'"):
        drills.parse(SAMPLE.to_bytes(), "store:x", "guard-02")


WRONG: dict[str, t.Any] = {
    "kind": "patrol", "host": 1, "started": "2026-13-23T09:00:00Z", "ended": None, "phases": [{"name": "x"}],
    "recovery_point": {"snapshot": "../x"}, "recovery_time_seconds": -1, "total_seconds": "12", "budget_seconds": True,
    "ok": 1, "failures": ["x" * 5000], "warnings": [1], "not_checked": ["x"] * 2000, "snapshots": {"other": SNAPSHOT},
    "versions": [],
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_fields_that_do_not_fit_are_refused(name: str) -> None:
    raw = SAMPLE.to_json()
    with pytest.raises(IntegrityError):
        parsed({**raw, name: WRONG[name]})
    del raw[name]
    with pytest.raises(IntegrityError):
        parsed(raw)


def test_every_field_is_checked() -> None:
    assert set(WRONG) | {"instance"} == {field.name for field in dataclasses.fields(Drill)}


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_anything_anywhere_is_a_record_or_refused(data: st.DataObject) -> None:
    raw: dict[str, t.Any] = copy.deepcopy(SAMPLE.to_json())
    junk = data.draw(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just([]) | st.just({})
    )
    places: list[tuple[t.Any, t.Any]] = [(raw, name) for name in raw if name != "instance"]
    places += [(raw["phases"][0], name) for name in raw["phases"][0]]
    places += [(raw["recovery_point"], name) for name in raw["recovery_point"]]
    inside, name = data.draw(st.sampled_from(places))
    inside[name] = junk
    try:
        found = parsed(raw)
    except IntegrityError:
        return
    assert drills.parse(found.to_bytes(), "store:x", "guard-01") == found


def test_texts_of_playbooks_are_cut_to_what_readers_take() -> None:
    phase = drills.phase_of({"name": "n", "seconds": 1.0, "ok": True, "detail": "x" * 9000})
    told = dataclasses.replace(SAMPLE, phases=[phase], failures=drills.texts_of(["y" * 9000]))
    found = drills.parse(told.to_bytes(), "store:x", "guard-01")
    assert found.phases[0].detail.endswith(" …")
    assert found.failures[0].startswith("yyy")
