# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Two hosts and one instance in a real S3: the new one takes over, and the old one comes back at a bad moment."""

from __future__ import annotations

import json
import signal
import typing as t
from pathlib import Path

import pytest
from conftest import Store
from sample_instance.chained import ChainedWriter

from support.forked_modules import run_forked
from support.modules import run_module
from support.playbooks import Playbooks
from support.trial import INSTANCE, Trial

LAYERS = ("model", "config", "logs")
TOOK_OVER = "expected this host to be the one that writes, found that .* took it over at 20"
# What an rclone does before it does what it was asked for; $* is that.
STAND_IN = """#!/bin/sh
case "$*" in
  *" rcat "*/{moment})
    mkdir "{flag}" 2>/dev/null && "{real}" --config "{config}" copyto "{fence}" "{place}/{name}" ;;
  {then}
esac
exec "{real}" "$@"
"""
DIES = '*" cat -- "*/manifest.json) test -d "{flag}" && kill -9 $PPID && exit ;;'
MAY_NOT_DELETE = '*" delete "*|*" purge "*) echo "AccessDenied: 403 Forbidden" >&2; exit 6 ;;'


class Pair:
    """The old host and the new one. What they back up lies in the same place: only what they know differs."""

    def __init__(self, place: Path, store: Store):
        self.store = store
        self.old = Trial(place, f"{store.remote}/prod", store)
        self.new = self.old.elsewhere("new-state")
        self.old.make_model(2)
        (place / "config").mkdir()
        self.writer = ChainedWriter(place / "logs" / "audit.log")
        self.change()

    def change(self) -> None:
        """Something new in each layer."""
        self.writer.append(3)
        for path in (self.old.place / "config" / "web.json", self.old.model / "config.json"):
            with path.open("a", encoding="utf-8") as file:
                file.write(f"{self.writer.head.line!r}\n")

    def backup(self, host: Trial, layer: str, **more: t.Any) -> dict[str, t.Any]:
        return host.run("backup", layer=layer, path=str(host.place / layer), **more).succeeded()

    def refused(self, host: Trial, layer: str = "model", words: str = TOOK_OVER) -> str:
        """A backup of this host fails; the whole message."""
        before = host.snapshots(layer)
        done = host.run("backup", layer=layer, path=str(host.place / layer))
        assert done.failed, done.result
        host.is_told(done.result, words)
        assert host.snapshots(layer) == before
        return str(done.result["msg"])

    def take_over_when(self, moment: str, then: str = "") -> str:
        """Let the new host's fence appear in the moment when the old one begins to store such an object."""
        made = self.new.run("fence").succeeded()["fence"]["id"]
        key = f"prod/{INSTANCE}/fences/{made}.json"
        client, place = self.store.seaweed.client, self.old.place
        (place / "fence").write_bytes(client.get_object(Bucket=self.store.bucket, Key=key)["Body"].read())
        client.delete_object(Bucket=self.store.bucket, Key=key)
        words = {
            "moment": moment, "flag": place / "it-is-there", "real": self.old.options["rclone_path"],
            "config": self.store.config, "fence": place / "fence", "name": f"fences/{made}.json",
            "place": f"{self.old.repository}/{INSTANCE}",
        }  # fmt: skip
        stand_in = place / "stand-in"
        stand_in.write_text(STAND_IN.format(**words, then=then.format(**words)))
        stand_in.chmod(0o700)
        self.old.options["rclone_path"] = str(stand_in)
        return made

    def is_passed_over(self, bad: str, good: str) -> None:
        """The new host sees why, and neither restores the bad snapshot nor builds on it."""
        told = self.new.run("snapshot_info").succeeded()
        assert told["fence"]["ours"]
        assert "written by a host that was fenced off" in told["snapshots"]["model"][-1]["damaged"]
        assert (told["snapshots"]["model"][-1]["snapshot"], told["newest"]["model"]["snapshot"]) == (bad, good)
        target = self.new.place / "latest"
        restored = self.new.run("restore", path=str(target)).succeeded()
        assert restored["snapshot"] == good
        assert f"{bad}: written by a host that was fenced off" in json.dumps(restored["warnings"])
        assert self.new.restores_equal(snapshot=bad)["snapshot"] == bad  # by its id it still comes back
        made = self.backup(self.new, "model")
        assert self.new.restores_equal()["snapshot"] == made["snapshot"] > bad
        assert self.new.run("snapshot_info").succeeded()["newest"]["model"]["snapshot"] == made["snapshot"]


@pytest.fixture(name="pair")
def fixture_pair(store: Store, tmp_path: Path) -> Pair:
    return Pair(tmp_path, store)


def test_old_host_is_kept_out(pair: Pair) -> None:
    old, new = pair.old, pair.new
    for layer in LAYERS:
        pair.backup(old, layer)
    pair.change()
    checked = run_module("fence", new.arguments("fence"), check=True, diff=True).succeeded()
    assert (checked["changed"], checked["fence"], checked["previous"]) == (True, None, None)
    assert "has no fence" in checked["diff"]["before"]
    assert not [name for name in old.objects() if "/fences/" in name]
    assert not new.state.exists()

    taken = run_module("fence", new.arguments("fence", reason="a drill of ours"), diff=True).succeeded()
    assert taken["fence"]["newest"] == {layer: old.snapshots(layer)[0] for layer in LAYERS}
    assert taken["fence"]["id"] in taken["diff"]["after"]
    assert new.run("fence").succeeded()["changed"] is False
    before = old.objects()
    for layer in LAYERS:
        assert "run the playbook fence" in pair.refused(old, layer)
        path = str(old.place / layer)
        for module, more in (("backup", {"path": path}), ("prune", {"key": None, "keep_last": 1, "apply": True})):
            for check in (False, True):
                arguments = old.arguments(module, layer=layer, **more)
                done = run_forked(module, arguments, old.environment(), check=check)
                assert done.failed
                old.is_told(done.result, TOOK_OVER)
    assert old.objects() == before
    old.nothing_left()
    # It may still read, and is told where it stands.
    assert old.run("verify", level="stored", keep_verdict=False).succeeded()["ok"]
    told = old.run("snapshot_info").succeeded()["fence"]
    assert (told["id"], told["reason"], told["ours"]) == (taken["fence"]["id"], "a drill of ours", False)

    for layer in LAYERS:
        assert pair.backup(new, layer)["changed"]
        manifest = old.snapshots(layer)[-1]
        told = new.run("snapshot_info").succeeded()["snapshots"][layer][-1]
        assert (told["snapshot"], told["fence"], told["damaged"]) == (manifest, taken["fence"]["id"], "")
    new.restores_equal()
    new.run("prune", layer="model", key=None, keep_last=1, apply=True).succeeded()
    back = old.run("fence").succeeded()
    assert back["previous"]["id"] == taken["fence"]["id"]
    pair.refused(new)
    pair.change()
    assert pair.backup(old, "model")["changed"]
    new.nothing_left()


def test_fence_that_appears_before_the_manifest(pair: Pair) -> None:
    pair.backup(pair.old, "model")
    pair.change()
    pair.take_over_when("index.gpg")
    assert "taken back" not in pair.refused(pair.old)
    assert (pair.old.place / "it-is-there").exists()
    assert pair.backup(pair.new, "model")["changed"]
    pair.new.restores_equal()


def test_fence_that_appears_with_the_manifest(pair: Pair) -> None:
    pair.backup(pair.old, "logs")
    pair.change()
    before = pair.old.objects()
    made = pair.take_over_when("manifest.json")
    assert "was taken back" in pair.refused(pair.old, "logs")
    after = {name for name in pair.old.objects() if made not in name}
    assert after == set(before), "something of the snapshot is left"
    pair.old.nothing_left()
    assert pair.backup(pair.new, "logs")["type"] == "increment"
    assert pair.new.run("verify", layer="logs", level="loaded").succeeded()["ok"]


def test_killed_between_the_manifest_and_the_last_look(pair: Pair) -> None:
    good = pair.backup(pair.old, "model")["snapshot"]
    pair.change()
    pair.take_over_when("manifest.json", DIES)
    with pair.old.started("backup") as process:
        process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL
    _good, bad = pair.old.snapshots()
    pair.is_passed_over(bad, good)


def test_host_that_may_not_delete(pair: Pair) -> None:
    good = pair.backup(pair.old, "model")["snapshot"]
    pair.change()
    pair.take_over_when("manifest.json", MAY_NOT_DELETE)
    done = pair.old.run("backup")
    pair.old.is_told(done.result, TOOK_OVER, "could not be taken back .*403.*has this host no right to delete")
    _good, bad = pair.old.snapshots()
    pair.is_passed_over(bad, good)


def test_store_that_does_not_answer_is_told(pair: Pair) -> None:
    done = pair.new.run("fence", repository="store:no-such-bucket-of-ours")
    pair.new.is_told(done.result, "a bucket or directory that exists")
    assert not list(pair.new.state.rglob("fence.json"))


def test_playbook(tmp_path: Path) -> None:
    (tmp_path / "repository").mkdir()
    variables = {"guardops_repository": str(tmp_path / "repository"), "guardops_state_dir": str(tmp_path / "state")}
    playbooks = Playbooks(tmp_path / "run", variables)
    run = playbooks.run("fence")
    assert run.rc != 0
    assert "guardops_instance: expected the name of the instance" in " ".join(run.output.split())
    typed = {"guardops_instance": INSTANCE, "guardops_confirm_instance": "guard-02"}
    run = playbooks.run("fence", **typed)
    assert run.rc != 0
    assert "expected guard-01 once more, found guard-02" in " ".join(run.output.split())
    assert not list((tmp_path / "repository").iterdir())
    typed["guardops_confirm_instance"] = INSTANCE
    checked = playbooks.run("fence", "--check", **typed)
    assert checked.rc == 0, checked.output
    assert "would write into guard-01" in checked.output
    assert not list((tmp_path / "repository").iterdir())
    run = playbooks.run("fence", guardops_fence_reason="a new host", **typed)
    assert run.rc == 0, run.output
    assert "backups of all others fail" in run.output
    (path,) = (tmp_path / "repository" / INSTANCE / "fences").iterdir()
    assert json.loads(path.read_text())["reason"] == "a new host"
    told = playbooks.run("info", guardops_instance=INSTANCE)
    assert f"with fence {path.stem}, this host" in told.output
    again = playbooks.run("fence", **typed)
    assert again.rc == 0, again.output
    assert "It was this host before" in again.output
