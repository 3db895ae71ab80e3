# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Objects that were damaged or forged: found at the level that can find them, never restored, never in the way."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import typing as t
from pathlib import Path

import pytest

from support.trial import INSTANCE, Trial, flipped, replaced

LISTED, STORED, DECRYPTED = "listed", "stored", "decrypted"
LEVELS = (LISTED, STORED, DECRYPTED)
Damage = t.Callable[[Path], object]


class Place(t.NamedTuple):
    """A repository with two snapshots of one model, the second the newer one."""

    trial: Trial
    first: str
    second: str


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = tmp_path_factory.mktemp("sound")
    trial = Trial(place / "trial", place / "repository")
    trial.make_model(3)
    first = trial.run("backup").succeeded()["snapshot"]
    (trial.model / "config.json").write_text('{"model_type": "qwen3", "version": 2}\n')
    return Place(trial, first, trial.run("backup").succeeded()["snapshot"])


@pytest.fixture
def place(sound: Place, tmp_path: Path) -> Place:
    """A copy, to be damaged, as another host sees it that has no memory of it."""
    shutil.copytree(sound.trial.repository, tmp_path / "repository")
    trial = Trial(tmp_path / "trial", tmp_path / "repository")
    shutil.copy2(sound.trial.key_file, trial.key_file)
    trial.model = sound.trial.model
    return Place(trial, sound.first, sound.second)


# -- what can be done to a snapshot


def on(name: str, change: t.Callable[[bytes], bytes]) -> Damage:
    return lambda folder: replaced(folder / name, change)


def swap(folder: Path) -> None:
    one, other = folder / "part-00001.gpg", folder / "part-00002.gpg"
    assert one.stat().st_size == other.stat().st_size
    one.rename(folder / "x")
    other.rename(one)
    (folder / "x").rename(other)


def manifest(change: t.Callable[[dict[str, t.Any], Path], object]) -> Damage:
    """Another manifest: whoever may write to the store can make one."""

    def forge(folder: Path) -> None:
        raw = json.loads((folder / "manifest.json").read_text())
        change(raw, folder)
        (folder / "manifest.json").write_text(json.dumps(raw))

    return forge


def exchanged_part(raw: dict[str, t.Any], folder: Path) -> None:
    """A part of the first snapshot, and a manifest that says so."""
    (old,) = (path for path in folder.parent.iterdir() if path.name != folder.name)
    data = (old / "part-00001.gpg").read_bytes()
    (folder / "part-00001.gpg").write_bytes(data)
    raw["parts"][1].update(size=len(data), sha256=hashlib.sha256(data).hexdigest())


def key_of_the_other(raw: dict[str, t.Any], folder: Path) -> None:
    (old,) = (path for path in folder.parent.iterdir() if path.name != folder.name)
    raw["key"] = json.loads((old / "manifest.json").read_text())["key"]


def older_in_its_place(folder: Path) -> None:
    (old,) = (path for path in folder.parent.iterdir() if path.name != folder.name)
    shutil.rmtree(folder)
    shutil.copytree(old, folder)


def changed(**fields: t.Any) -> Damage:
    return manifest(lambda raw, _folder: raw.update(fields))


def part_field(**fields: t.Any) -> Damage:
    return manifest(lambda raw, _folder: raw["parts"][1].update(fields))


OTHER = "000001-00000000"
CASES: list[tuple[str, Damage, str, str]] = [
    # name, what is done, the lowest level that must see it, what is said then
    ("part deleted", lambda folder: (folder / "part-00001.gpg").unlink(), LISTED, "no such object"),
    ("part shortened", on("part-00001.gpg", lambda data: data[:-1]), LISTED, r"expected \d+ bytes, found \d+ bytes"),
    ("part longer", on("part-00001.gpg", lambda data: data + b"x"), LISTED, r"expected \d+ bytes, found \d+ bytes"),
    ("part empty", on("part-00001.gpg", lambda _data: b""), LISTED, "found 0 bytes"),
    ("parts swapped", swap, STORED, "SHA-256"),
    ("bit in the head", on("part-00001.gpg", flipped(0.0)), STORED, "SHA-256"),
    ("bit in the key packet", on("part-00001.gpg", flipped(8e-6)), STORED, "SHA-256"),
    ("bit in the middle", on("part-00001.gpg", flipped(0.5)), STORED, "SHA-256"),
    ("bit at the end", on("part-00001.gpg", flipped(1.0)), STORED, "SHA-256"),
    ("index deleted", lambda folder: (folder / "index.gpg").unlink(), LISTED, "no such object"),
    ("index shortened", on("index.gpg", lambda data: data[:-1]), LISTED, r"index.gpg: expected \d+ bytes"),
    ("bit in the index", on("index.gpg", flipped(0.5)), STORED, "index.gpg"),
    ("manifest empty", on("manifest.json", lambda _data: b""), LISTED, "a manifest in JSON"),
    ("manifest cut", on("manifest.json", lambda data: data[: len(data) // 2]), LISTED, "a manifest in JSON"),
    ("manifest of noise", on("manifest.json", lambda _data: os.urandom(300)), LISTED, "a manifest in JSON"),
    ("manifest of brackets", on("manifest.json", lambda _data: b"[" * 500_000), LISTED, "a manifest in JSON"),
    ("another document", on("manifest.json", lambda _data: b"[]"), LISTED, "another document"),
    ("newer format", changed(format=2), LISTED, "repository format 1, found format 2.*upgrade"),
    ("of another instance", changed(instance="guard-02"), LISTED, "manifest of instance guard-01, found that of"),
    ("of another layer", changed(layer="logs"), LISTED, "manifest of layer model, found that of 'logs'"),
    ("older in its place", older_in_its_place, LISTED, "manifest of snapshot"),
    ("a path for a name", part_field(name="../../../etc/passwd"), LISTED, "whose fields do not fit"),
    ("a negative size", part_field(size=-1), LISTED, "whose fields do not fit"),
    ("a gap in the stream", part_field(start=7), LISTED, "whose fields do not fit"),
    ("a part left out", manifest(lambda raw, _folder: raw["parts"].pop(1)), LISTED, "whose fields do not fit"),
    ("host not text", changed(host={"a": 1}), LISTED, "whose fields do not fit"),
    ("stands on another", changed(type="increment", base=OTHER, parent=OTHER), LISTED, "stands on"),
    ("another hash", part_field(sha256="0" * 64), STORED, "SHA-256"),
    ("another size", part_field(size=5), LISTED, "expected 5 bytes"),
    ("last part left out", manifest(lambda raw, _folder: raw["parts"].pop()), DECRYPTED, "differs in parts"),
    ("part exchanged", manifest(exchanged_part), DECRYPTED, "differs in parts"),
    ("another time", changed(created="2019-01-01T00:00:00Z"), DECRYPTED, "differs in created"),
    ("other totals", changed(files=1, content_bytes=1), DECRYPTED, "differs in content_bytes, files"),
    ("another host", changed(host="\ud800\u202e"), DECRYPTED, "differs in host"),
    ("wrapped key of another", manifest(key_of_the_other), DECRYPTED, "data key"),
    ("no wrapped key", changed(key={}), DECRYPTED, "data key"),
]


@pytest.mark.parametrize(("damage", "level", "words"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_damage_is_found(place: Place, tmp_path: Path, damage: Damage, level: str, words: str) -> None:
    trial = place.trial
    damage(trial.folder(place.second))
    below = LEVELS[: LEVELS.index(level)][-1:]
    for each in dict.fromkeys((*below, level, DECRYPTED)):
        verified = trial.run("verify", level=each, snapshot=place.second, keep_verdict=False)
        if each in below:
            assert verified.succeeded()["ok"], each
        else:
            assert verified.failed, f"level {each} saw nothing"
            # Without a usable wrapped key there is nothing to say about the content.
            assert verified.result.get("failures") or "data key" in words, "an error in place of a verdict"
        if each == level:
            assert re.search(words, verified.result["msg"]), verified.result["msg"]
    target = tmp_path / "target"
    trial.refused("restore", path=str(target), snapshot=place.second)
    assert not [path for path in target.rglob("*") if path.is_file() and not _same(path, trial.model, target)]
    (told,) = (
        one for one in trial.run("snapshot_info").succeeded()["snapshots"]["model"] if one["snapshot"] == place.second
    )
    assert bool(told["damaged"]) == (level == LISTED), told
    # The next backup is not kept from its work, and what it makes is sound.
    done = trial.run("backup").succeeded()
    if level == LISTED or "data key" in words or "differs" in words or "index.gpg" in words:
        assert done["changed"], "a snapshot that cannot be opened counts as a backup"
    else:
        trial.run("backup", type="full").succeeded()
    trial.restores_equal()


def _same(path: Path, model: Path, target: Path) -> bool:
    """Files that were complete before the damage was met may stay: each is whole."""
    return path.read_bytes() == (model / path.relative_to(target)).read_bytes()


def test_a_verdict_that_was_damaged_is_none(place: Place) -> None:
    trial = place.trial
    trial.run("verify", level="restored").succeeded()
    path = Path(trial.repository, INSTANCE, "verifications", "model", f"{place.second}.json")
    for content in (b"", b"[]", b"{}", b'{"verdicts": {"restored": 1}}', b"[" * 300_000, os.urandom(50)):
        path.write_bytes(content)
        info = trial.run("snapshot_info").succeeded()
        assert [one["verified"] for one in info["snapshots"]["model"]] == [{}, {}]
        trial.refused("restore", "was verified", path=str(trial.place / "x"), snapshot="latest_verified")
    trial.run("verify", level="restored").succeeded()
    trial.restores_equal(snapshot="latest_verified")


def test_strangers_in_the_repository_are_no_snapshots(place: Place) -> None:
    trial = place.trial
    layer = Path(trial.repository, INSTANCE, "model")
    (layer / f"000003-{secrets.token_hex(4)}").mkdir()
    (layer / "notes.txt").write_text("do not touch")
    (layer / "lost+found").mkdir()
    (layer / "lost+found" / "manifest.json").write_text("{}")
    part = layer / "000009-0badc0de" / "part-00000.gpg"
    part.parent.mkdir()
    part.write_bytes(b"an interrupted run of another host")
    trial.restores_equal()
    done = trial.run("backup", type="full").succeeded()
    assert int(done["snapshot"].split("-")[0]) == 10, "the number of an interrupted run was used again"
    assert part.exists(), "another host may still be at work there"
    trial.nothing_left()


def test_a_chain_of_logs_that_was_broken(tmp_path: Path) -> None:
    """An increment whose full is damaged cannot be restored; the next backup starts a new chain."""
    trial = Trial(tmp_path / "trial", tmp_path / "repository")
    logs = trial.place / "logs"
    logs.mkdir()
    options = {"layer": "logs"}
    chain = []
    for number in range(3):
        with open(logs / "audit.log", "a", encoding="utf-8") as log:
            log.write(f'{{"trace_id": "{number}"}}\n')
        chain.append(trial.run("backup", path=str(logs), **options).succeeded()["snapshot"])
    middle = trial.folder(chain[1], "logs")
    (middle / "manifest.json").rename(middle / "gone")
    trial.refused("restore", chain[1], "stands on", path=str(tmp_path / "target"), **options)
    assert not (tmp_path / "target").exists()
    assert trial.run("verify", level="listed", **options).failed
    with open(logs / "audit.log", "a", encoding="utf-8") as log:
        log.write('{"trace_id": "3"}\n')
    again = trial.run("backup", path=str(logs), **options).succeeded()
    assert (again["type"], again["reason"]) == ("full", "the chain of increments is broken")
    trial.run("restore", path=str(tmp_path / "target"), **options).succeeded()
    assert (tmp_path / "target" / "audit.log").read_text() == (logs / "audit.log").read_text()
    trial.run("restore", path=str(tmp_path / "old"), snapshot=chain[0], **options).succeeded()
    assert (tmp_path / "old" / "audit.log").read_text() == '{"trace_id": "0"}\n'
