# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Manifests come from a store that anybody may have written to, and an index must tell the same story."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
import typing as t

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import IntegrityError
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format import index as indexes
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format import manifest as manifests
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.index import Index
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.manifest import Manifest, StoredPart
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.tree import (
    DIRECTORY,
    FILE,
    Entry,
    Extent,
    Skipped,
)

SNAPSHOT = "000007-0123abcd"
HASH = "ab" * 32
CHAIN = {
    "chain": "0123456789abcdef", "first": 5, "last": 9, "count": 5, "prev": HASH, "head": HASH, "breaks": 0,
    "since": "2026-11-23T09:00:00.000000Z", "until": "2026-11-23T10:00:00.000000Z",
}  # fmt: skip
TABLE = {"name": f"records/20261123/{SNAPSHOT}.gpg", "day": "20261123", "size": 70, "sha256": HASH, "count": 7}
RECORDS = {
    "count": 7, "unchained": 2, "odd": 1, "hours": {"2026-11-23T09": 6, "": 1}, "chains": [CHAIN], "tables": [TABLE],
    "not_scanned": ["torn.gz"],
}  # fmt: skip


def sample(**values: t.Any) -> Manifest:
    known: dict[str, t.Any] = {
        "instance": "guard-01", "layer": "logs", "snapshot": SNAPSHOT, "type": "increment",
        "created": "2026-05-20T14:23:00Z", "base": "000005-0123abcd", "parent": "000006-0123abcd",
        "key": {"provider": "file", "pgp_message": "x"}, "index": StoredPart("index.gpg", 40, HASH),
        "parts": [StoredPart("part-00000.zst.gpg", 90, HASH, 0, 200, "zstd"),
                  StoredPart("part-00001.gpg", 900, HASH, 200, 800)],
        "files": 1, "content_bytes": 10, "host": "h", "records": RECORDS,
    }  # fmt: skip
    return Manifest(**{**known, **values})


def parsed(data: bytes) -> Manifest:
    return manifests.parse(data, "store:x/manifest.json", "guard-01", "logs", SNAPSHOT)


def test_round_trip() -> None:
    again = parsed(sample().to_bytes())
    assert again.to_bytes() == sample().to_bytes()
    assert (again.number, again.stored_bytes) == (7, 1100)


def places(raw: t.Any, path: tuple[t.Any, ...] = ()) -> list[tuple[t.Any, ...]]:
    """The path of every value in a JSON document."""
    items = list(raw.items()) if isinstance(raw, dict) else list(enumerate(raw)) if isinstance(raw, list) else []
    return [path, *(inner for key, value in items for inner in places(value, (*path, key)))]


def has(holder: t.Any, key: t.Any) -> bool:
    """Whether a JSON document still has this place, after other changes."""
    if isinstance(holder, list):
        return isinstance(key, int) and key < len(holder)
    return isinstance(holder, dict) and key in holder


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    | st.sampled_from(["full", "000007-0123abcd", "../x", "part-00000.gpg", "２", "9999-99-99T00:00:00Z", HASH, -1, 0]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
PLACES = places(json.loads(sample().to_bytes()))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(PLACES), st.none() | JSON, st.booleans()), min_size=1, max_size=3))
def test_any_change_is_refused_or_harmless(changes: list[tuple[tuple[t.Any, ...], t.Any, bool]]) -> None:
    raw = json.loads(sample().to_bytes())
    for path, value, remove in changes:
        holder = raw
        for key in path[:-1]:
            holder = holder[key] if has(holder, key) else None
        if not path:
            raw = copy.deepcopy(value)
        elif isinstance(holder, dict) and remove:
            holder.pop(path[-1], None)
        elif isinstance(holder, dict) or has(holder, path[-1]):
            holder[path[-1]] = value
    check(json.dumps(raw).encode())


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_damage_is_refused_or_harmless(data: st.DataObject) -> None:
    text = bytearray(sample().to_bytes())
    for _change in range(data.draw(st.integers(1, 4))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    check(bytes(text[: data.draw(st.integers(0, len(text)))]))
    check(bytes(text))


def check(data: bytes) -> None:
    """Refused with the one error for it, or a manifest whose parts tile the stream and whose chain leads back."""
    try:
        found = parsed(data)
    except IntegrityError:
        return
    assert (found.instance, found.layer, found.snapshot) == ("guard-01", "logs", SNAPSHOT)
    position = 0
    for number, part in enumerate(found.parts):
        assert part.name.startswith(f"part-{number:05d}.")
        assert (part.start, part.size >= 0, len(part.sha256)) == (position, True, 64)
        position += part.length
    assert found.index.name == "index.gpg"
    if found.type == "full":
        assert (found.base, found.parent) == (SNAPSHOT, "")
    else:
        assert found.base[:6] <= found.parent[:6] < "000007"
    assert parsed(found.to_bytes()).to_bytes() == found.to_bytes()
    for table in found.tables:
        assert re.fullmatch(rf"records/([0-9]{{8}}|undated)/{SNAPSHOT}(\.full)?\.gpg", table.name)
    if found.records:
        chained = sum(chain["count"] for chain in found.records["chains"])
        assert found.records["count"] == chained + found.records["unchained"] == sum(found.records["hours"].values())


def without(**changes: t.Any) -> bytes:
    return sample(records={**RECORDS, **changes}).to_bytes()


@pytest.mark.parametrize("data", [
    without(count=8), without(unchained=-1), without(odd=True), without(hours={"2026-11-23T09": 8}),
    without(hours={"2026-11-23": 7}), without(hours=[]), without(chains=[]), without(chains=[CHAIN, CHAIN]),
    without(chains=[{**CHAIN, "last": 10}]), without(chains=[{**CHAIN, "first": 0}]),
    without(chains=[{**CHAIN, "chain": "x"}]), without(chains=[{**CHAIN, "head": "x"}]),
    without(chains=[{**CHAIN, "until": "never"}]), without(chains=[{**CHAIN, "first": 9, "last": 5}]),
    without(tables=[]), without(tables=[{**TABLE, "count": 8}]), without(tables=[{**TABLE, "day": "20261124"}]),
    without(tables=[{**TABLE, "name": "records/20261123/000008-0123abcd.gpg"}]),
    without(tables=[{**TABLE, "name": f"records/20261123/{SNAPSHOT}.full.gpg"}]),
    without(tables=[{**TABLE, "name": f"records/../logs/{SNAPSHOT}.gpg"}]),
    without(tables=[{**TABLE, "name": TABLE["name"] + "\n"}]), without(tables=[{**TABLE, "sha256": "x"}]),
    without(not_scanned=[1]), without(not_scanned="x"), sample(records=7).to_bytes(), sample(records=[]).to_bytes(),
])  # fmt: skip
def test_records_that_do_not_add_up_are_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        parsed(data)
    assert parsed(without(chains=[{**CHAIN, "last": 10, "breaks": 1}])).records
    assert parsed(sample(records=None).to_bytes()).tables == []


@pytest.mark.parametrize("data", [
    b"", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"kind": 1}', b"1" * 5000,
    sample(created="2026-13-01T00:00:00Z").to_bytes(), sample(created="2026-05-20").to_bytes(),
    sample(parent="").to_bytes(), sample(parent=SNAPSHOT).to_bytes(), sample(base="000007-aaaaaaaa").to_bytes(),
    sample(type="full").to_bytes(), sample(instance="other").to_bytes(), sample(layer="model").to_bytes(),
    sample(snapshot="000008-0123abcd").to_bytes(), sample(index=StoredPart("part-00000.gpg", 1, HASH)).to_bytes(),
    sample(files=True).to_bytes(), sample(content_bytes=-1).to_bytes(), sample(key=[]).to_bytes(),
    sample(parts=[StoredPart("part-00000.gpg", 1, HASH, 0, 1, "zstd")]).to_bytes(),
    sample(parts=[StoredPart("part-00000.gpg", 1, HASH, 1, 1)]).to_bytes(),
])  # fmt: skip
def test_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        parsed(data)


def test_a_newer_format_says_so() -> None:
    with pytest.raises(IntegrityError, match="upgrade this one"):
        parsed(sample().to_bytes().replace(b'"format": 1', b'"format": 2'))


def test_snapshot_ids() -> None:
    assert manifests.snapshot_number(manifests.new_snapshot_id(12)) == 12
    for name in ("1-0123abcd", "000001-0123ABCD", "٠٠٠٠٠١-0123abcd", "000001-0123abcd\n", "000001"):
        assert manifests.snapshot_number(name) is None


def an_index() -> Index:
    root = Entry(".", DIRECTORY, mode=0o755)
    file = Entry("审\udcff\n", FILE, size=10, xattrs={"user.\udce9": b"\0\xff"}, extents=[Extent(0, 10, 512, HASH)])
    return Index([root, file], [Skipped("pipe", "named pipe")], {"streams": []})


def test_an_index_comes_back() -> None:
    data = indexes.to_bytes(an_index(), sample())
    assert indexes.from_bytes(data, sample(), "where") == an_index()


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Manifest)])
def test_a_manifest_that_differs_from_its_index(name: str) -> None:
    """All but the wrapped key, which rotation changes, and the index itself."""
    data = indexes.to_bytes(an_index(), sample())
    other = sample(**{name: "other" if name not in ("parts", "key", "index") else {
        "parts": sample().parts[:1], "key": {}, "index": StoredPart("index.gpg", 41, HASH)}[name]})  # fmt: skip
    if name in ("key", "index"):
        assert indexes.from_bytes(data, other, "where") == an_index()
        return
    with pytest.raises(IntegrityError, match=rf"one that differs in {name}"):
        indexes.from_bytes(data, other, "where")


FENCE = "000002-0123abcd"


def test_the_fence_of_its_host() -> None:
    """Left out where there is none, as in older releases; these find nothing in the index that they would compare."""
    assert parsed(sample(fence=FENCE).to_bytes()).fence == FENCE
    assert (parsed(sample().to_bytes()).fence, b"fence" in sample().to_bytes()) == ("", False)
    assert "fence" not in indexes.public_part(sample(fence=FENCE))
    data = indexes.to_bytes(an_index(), sample(fence=FENCE))
    assert indexes.from_bytes(data, sample(fence=FENCE), "where") == an_index()
    for changed in ("", "000003-0123abcd"):
        with pytest.raises(IntegrityError, match="one that differs in fence"):
            indexes.from_bytes(data, sample(fence=changed), "where")


@pytest.mark.parametrize("value", ["", "../x", "2-0123abcd", 2, None, [FENCE], FENCE + "\n"])
def test_a_fence_that_is_none_is_refused(value: t.Any) -> None:
    with pytest.raises(IntegrityError):
        parsed(json.dumps({**json.loads(sample().to_bytes()), "fence": value}).encode())


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 200))
def test_a_damaged_index_is_an_integrity_error(noise: bytes, at: int) -> None:
    data = indexes.to_bytes(an_index(), sample())
    for damaged in (noise, data[:at], data[:at] + noise + data[at + len(noise) :]):
        if damaged != data:
            try:
                found = indexes.from_bytes(damaged, sample(), "where")
            except IntegrityError:
                continue
            assert found == an_index()
