# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which snapshots exist, which one a word names, and what anybody can see of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import GuardError, IntegrityError
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.manifest import Manifest, StoredPart
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.repository import MANIFEST, Repository
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.overview import overview
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.snapshots import choose
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.store import DirectoryStore
from support.engine import INSTANCE, Engine

HASH = "ab" * 32


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    """Three snapshots by number, made while the clock ran backwards, and an interrupted one above them."""
    engine = Engine(tmp_path / "engine")
    for number, created in ((1, "2026-05-20T10:00:00Z"), (2, "2026-05-20T12:00:00Z"), (3, "2026-05-20T11:00:00Z")):
        store(engine, f"00000{number}-aaaaaaaa", created)
    store(engine, "000004-aaaaaaaa", "2026-05-20T09:00:00Z", complete=False)
    (engine.store_path / INSTANCE / "model" / "notes").mkdir()
    (engine.store_path / INSTANCE / "model" / "notes" / MANIFEST).write_text("{}")
    return engine


def store(engine: Engine, snapshot: str, created: str, complete: bool = True) -> None:
    manifest = Manifest(
        INSTANCE, "model", snapshot, "full", created, snapshot, "", {"provider": "file"},
        [StoredPart("part-00000.gpg", 3, HASH, 0, 2)], StoredPart("index.gpg", 2, HASH), 1, 2,
    )  # fmt: skip
    objects = engine.objects(snapshot)
    objects.mkdir(parents=True)
    (objects / "part-00000.gpg").write_bytes(b"abc")
    (objects / "index.gpg").write_bytes(b"de")
    if complete:
        (objects / MANIFEST).write_bytes(manifest.to_bytes())


def chosen(engine: Engine, wanted: str) -> str:
    with engine.session() as session:
        return choose(session, wanted).snapshot[:6]


@pytest.mark.parametrize(("wanted", "number"), [
    ("latest", 3), ("1", 1), ("000002", 2), ("000002-aaaaaaaa", 2), ("3", 3),
    ("2026-05-20T12:00:00Z", 3), ("2026-05-20T11:30:00+00:00", 3), ("2026-05-20T10:59:59z", 1),
    ("2026-05-20T18:30:00+08:00", 1),
])  # fmt: skip
def test_choose(engine: Engine, wanted: str, number: int) -> None:
    """By number: the clock may have stepped back, so among those made in time the highest number counts."""
    assert chosen(engine, wanted) == f"{number:06d}"


@pytest.mark.parametrize(("wanted", "message"), [
    ("9", "expected a snapshot that exists"), ("000004-aaaaaaaa", "expected a snapshot that exists"),
    ("000001-bbbbbbbb", "expected a snapshot that exists"), ("4", "expected a snapshot that exists"),
    ("2026-05-20T09:30:00Z", "only later ones"), ("2026-05-20T09:30:00", "Append Z"),
    ("yesterday", "expected a number, an id"), ("٣", "expected a number, an id"), ("", "expected a number, an id"),
    ("latest_verified", "none among 3"),
])  # fmt: skip
def test_no_such_snapshot(engine: Engine, wanted: str, message: str) -> None:
    with pytest.raises(GuardError, match=message):
        chosen(engine, wanted)


def test_nothing_to_choose_from(tmp_path: Path) -> None:
    engine = Engine(tmp_path / "engine")
    with pytest.raises(GuardError, match="expected a snapshot, found none"):
        chosen(engine, "latest")
    store(engine, "000001-aaaaaaaa", "2026-05-20T09:00:00Z", complete=False)
    with pytest.raises(GuardError, match=r"found 1 interrupted one\(s\)"):
        chosen(engine, "latest")


def test_two_of_one_number(engine: Engine) -> None:
    """Two hosts took the same number: only the whole id is clear, and the overview says so."""
    store(engine, "000003-bbbbbbbb", "2026-05-20T11:00:00Z")
    with pytest.raises(GuardError, match="Name one by its whole id"):
        chosen(engine, "3")
    with engine.session() as session:
        assert choose(session, "000003-bbbbbbbb").snapshot == "000003-bbbbbbbb"
    told = overview(engine.repository, "model")
    assert "two snapshots have the number 3" in told["snapshots"]["model"][-2]["damaged"]
    assert told["newest"]["model"]["snapshot"] == "000002-aaaaaaaa"


def test_latest_verified(engine: Engine) -> None:
    """Proven at a level that restores, and not refuted since at any."""
    add = engine.repository.add_verdict
    add("model", "000003-aaaaaaaa", "decrypted", {"ok": True})
    add("model", "000002-aaaaaaaa", "restored", {"ok": True})
    add("model", "000001-aaaaaaaa", "loaded", {"ok": True})
    assert chosen(engine, "latest_verified") == "000002"
    add("model", "000002-aaaaaaaa", "stored", {"ok": False})
    assert chosen(engine, "latest_verified") == "000001"
    add("model", "000002-aaaaaaaa", "stored", {"ok": True})
    assert chosen(engine, "latest_verified") == "000002"
    add("model", "000002-aaaaaaaa", "restored", {"ok": False})
    assert chosen(engine, "latest_verified") == "000001"


def test_latest_verified_is_no_sample(engine: Engine) -> None:
    """What a sample left out may be lost; nor does one make good what failed as a whole."""
    add = engine.repository.add_verdict
    add("model", "000003-aaaaaaaa", "restored", {"ok": True, "sample_bytes": 100})
    with pytest.raises(GuardError, match="expected a snapshot that was verified as a whole"):
        chosen(engine, "latest_verified")
    add("model", "000002-aaaaaaaa", "restored", {"ok": True, "sample_bytes": 0})
    add("model", "000001-aaaaaaaa", "restored", {"ok": True})  # of an older release
    assert chosen(engine, "latest_verified") == "000002"
    add("model", "000002-aaaaaaaa", "restored", {"ok": True, "sample_bytes": 100})
    assert chosen(engine, "latest_verified") == "000002", "a sample takes nothing away from the whole before it"
    add("model", "000002-aaaaaaaa", "decrypted", {"ok": False, "sample_bytes": 0})
    add("model", "000002-aaaaaaaa", "decrypted", {"ok": True, "sample_bytes": 100})
    assert chosen(engine, "latest_verified") == "000001"
    add("model", "000002-aaaaaaaa", "decrypted", {"ok": True, "sample_bytes": 0})
    assert chosen(engine, "latest_verified") == "000002"


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"{", b'{"verdicts": 1}', b'{"verdicts": {"restored": 1}}',
                                     b"[" * 100_000, b"\xff"])  # fmt: skip
def test_damaged_verdicts(engine: Engine, content: bytes) -> None:
    """Whoever asks for them is told; they prove nothing, and the next verification replaces them."""
    path = engine.store_path / INSTANCE / "verifications" / "model" / "000003-aaaaaaaa.json"
    engine.repository.add_verdict("model", "000003-aaaaaaaa", "restored", {"ok": True})
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"000003-aaaaaaaa\.json"):
        engine.repository.verdicts("model", "000003-aaaaaaaa")
    assert engine.repository.all_verdicts("model") == {}
    with pytest.raises(GuardError, match="none among 3"):
        chosen(engine, "latest_verified")
    engine.repository.add_verdict("model", "000003-aaaaaaaa", "restored", {"ok": True})
    assert chosen(engine, "latest_verified") == "000003"


def test_overview(engine: Engine) -> None:
    """No key is needed; what is damaged is named, and never the newest sound one."""
    (engine.objects("000003-aaaaaaaa") / "part-00000.gpg").write_bytes(b"ab")
    (engine.objects("000002-aaaaaaaa") / MANIFEST).write_text("{}")
    told = overview(engine.repository)
    items = {item["number"]: item for item in told["snapshots"]["model"]}
    assert list(items) == [1, 2, 3, 4]
    assert "expected 3 bytes, found 2 bytes" in items[3]["damaged"]
    assert "another document" in items[2]["damaged"]
    assert (items[1]["damaged"], items[1]["parts"], items[1]["key_provider"]) == ("", 1, "file")
    assert [items[number]["complete"] for number in items] == [True, True, True, False]
    assert told["newest"]["model"]["number"] == 1
    assert told["newest"]["logs"] is None
    assert told["bytes"] == sum(item["stored_bytes"] for item in items.values())


@pytest.mark.parametrize("name", ["", ".", "..", "-x", "a/b", "a b", "é", "a" * 64, "a\n"])
def test_names_of_instances(tmp_path: Path, name: str) -> None:
    with pytest.raises(GuardError, match="1 to 63 letters"):
        Repository(DirectoryStore(str(tmp_path)), name)
