# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fences come from a store that anybody may have written to."""

from __future__ import annotations

import copy
import dataclasses
import json
import typing as t

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import IntegrityError
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format import fence as fences
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format import fields
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.fence import Fence

SAMPLE = Fence(
    instance="guard-01", fence="000002-0123abcd", host="new-host", created="2026-11-23T09:00:00Z",
    reason="the disk is gone", newest={"model": "000003-00000000", "config": "", "logs": "000412-aaaaaaaa"},
)  # fmt: skip
OLDER, NEWER = "000001-ffffffff", "000003-00000000"


def parsed(raw: t.Any) -> Fence:
    return fences.parse(json.dumps(raw).encode(), "store:x", "guard-01", SAMPLE.fence)


def raw_sample() -> dict[str, t.Any]:
    return dict(json.loads(SAMPLE.to_bytes()))


def test_it_comes_back_as_it_was() -> None:
    assert fences.parse(SAMPLE.to_bytes(), "store:x", "guard-01", SAMPLE.fence) == SAMPLE
    assert parsed({**raw_sample(), "of a later release": 1}) == SAMPLE


def test_names() -> None:
    assert fences.object_name(SAMPLE.fence) == "fences/000002-0123abcd.json"
    assert fences.id_of("000002-0123abcd.json") == SAMPLE.fence
    for name in ("000002-0123abcd", "000002-0123abcd.json.tmp", "x/000002-0123abcd.json", "2-0123abcd.json",
                 "000000-0123abcd.json", "1000000000000-0123abcd.json", ".json", "000002-0123ABCD.json"):  # fmt: skip
        assert fences.id_of(name) == ""


def test_the_highest_number_counts_and_of_two_the_higher_name() -> None:
    ids = ["000002-0123abcd", "0000010-00000000", "000001-ffffffff", "000002-f0000000", ""]
    assert sorted(ids, key=fences.rank) == ["", *ids[2:3], *ids[:1], ids[3], ids[1]]


@pytest.mark.parametrize(("layer", "snapshot", "held", "shut_out"), [
    ("logs", "000412-aaaaaaaa", "", False),  # it was there
    ("logs", "000411-ffffffff", "", False),
    ("logs", "000413-00000000", "", True),
    ("logs", "000413-00000000", OLDER, True),
    ("logs", "000413-00000000", SAMPLE.fence, False),
    ("logs", "000413-00000000", NEWER, False),
    ("logs", "000412-00000000", "", True),  # of the same number, and another one
    ("logs", "1000000-00000000", "", True),
    ("config", "000001-00000000", "", True),  # there was none
    ("config", "000001-00000000", SAMPLE.fence, False),
])  # fmt: skip
def test_what_it_shuts_out(layer: str, snapshot: str, held: str, shut_out: bool) -> None:
    assert SAMPLE.shuts_out(layer, snapshot, held) is shut_out


@pytest.mark.parametrize("data", [
    b"", b"{", b"\xff", b"[]", b"null", b'{"format": 1}', b"[" * 100_000, b" " * (1 << 20) + SAMPLE.to_bytes(),
    SAMPLE.to_bytes().replace(b'"format": 1', b'"format": 2'), SAMPLE.to_bytes().replace(b"fence\"", b"snapshot\""),
])  # fmt: skip
def test_other_documents_are_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        fences.parse(data, "store:x", "guard-01", SAMPLE.fence)


def test_another_instances_fence_and_one_under_another_name_are_refused() -> None:
    with pytest.raises(IntegrityError, match="that of 'guard-01'"):
        fences.parse(SAMPLE.to_bytes(), "store:x", "guard-02", SAMPLE.fence)
    with pytest.raises(IntegrityError, match="that of '000002-0123abcd'"):
        fences.parse(SAMPLE.to_bytes(), "store:x", "guard-01", NEWER)


WRONG: dict[str, t.Any] = {
    "host": "x" * 256, "created": "2026-13-23T09:00:00Z", "reason": "x" * 2001,
    "newest": {"model": "", "config": "", "logs": "../x"},
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_fields_that_do_not_fit_are_refused(name: str) -> None:
    raw = raw_sample()
    with pytest.raises(IntegrityError):
        parsed({**raw, name: WRONG[name]})
    del raw[name]
    with pytest.raises(IntegrityError):
        parsed(raw)


def test_every_field_is_checked() -> None:
    assert set(WRONG) | {"instance", "fence"} == {field.name for field in dataclasses.fields(Fence)}


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_anything_anywhere_is_a_fence_or_refused(data: st.DataObject) -> None:
    raw = copy.deepcopy(raw_sample())
    junk = data.draw(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just([]) | st.just({})
    )
    places = [(raw, name) for name in raw] + [(raw["newest"], name) for name in raw["newest"]]
    inside, name = data.draw(st.sampled_from(places))
    inside[name] = junk
    try:
        found = parsed(raw)
    except IntegrityError:
        return
    assert fences.parse(found.to_bytes(), "store:x", "guard-01", SAMPLE.fence) == found
    for layer in SAMPLE.newest:
        found.shuts_out(layer, "000001-00000000", "")


def test_texts_are_cut_to_what_readers_take() -> None:
    made = dataclasses.replace(
        SAMPLE,
        reason=fields.cut("y" * 9000 + "\ud800", fences.REASON_LENGTH),
        host=fields.cut("\udfffx" * 300, fences.HOST_LENGTH),
    )
    assert fences.parse(made.to_bytes(), "store:x", "guard-01", made.fence) == made
