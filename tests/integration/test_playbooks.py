# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbooks, run by ansible-playbook against localhost, with a real store and a small instance."""

from __future__ import annotations

import hashlib
import os
import pathlib
import secrets
import shutil
import typing as t

import pytest
from conftest import Store
from sample_instance import config_tree
from sample_instance.compare import compare_trees, snapshot_tree
from sample_instance.instance import Instance, make_instance
from sample_instance.logs import Writer, iter_records

from support.playbooks import PlaybookRun, Playbooks

LAYERS = ("model", "config", "logs")
GIT = (".git", ".git/*")


class Guard(t.NamedTuple):
    """An instance, and the playbooks that look after it."""

    instance: Instance
    playbooks: Playbooks
    store: Store
    work: pathlib.Path

    def directories(self) -> dict[str, pathlib.Path]:
        return {"model": self.instance.models, "config": self.instance.config, "logs": self.instance.logs}

    def stored(self) -> list[tuple[str, str]]:
        """All objects of the repository, with what tells that one was written again."""
        pages = self.store.seaweed.client.get_paginator("list_objects_v2").paginate(Bucket=self.store.bucket)
        return [(entry["Key"], str(entry["LastModified"])) for page in pages for entry in page.get("Contents", [])]

    def local(self) -> dict[str, str]:
        """All that is on this host besides Ansible's own files: the instance and the state."""
        found = {}
        for top in (self.instance.root, self.work / "state"):
            for path in [top, *top.rglob("*")] if top.exists() else []:
                status = path.lstat()
                content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
                found[str(path)] = f"{status.st_mode} {status.st_mtime_ns} {hashlib.sha256(content).hexdigest()}"
        return found


@pytest.fixture
def guard(store: Store, tmp_path: pathlib.Path) -> Guard:
    key = make_key(tmp_path / "trial.key")
    variables = {
        "guardops_instance": "guard-" + secrets.token_hex(3),
        "guardops_data_root": str(tmp_path / "data"),
        "guardops_repository": store.remote,
        "guardops_rclone_config": store.config,
        "guardops_state_dir": str(tmp_path / "state"),
        "guardops_key": {"provider": "file", "key_file": str(key)},
    }
    instance = make_instance(tmp_path / "data", days=2, records_per_day=40)
    return Guard(instance, Playbooks(tmp_path / "ansible-run", variables), store, tmp_path)


def make_key(path: pathlib.Path) -> pathlib.Path:
    path.touch(mode=0o600)
    path.write_text(secrets.token_urlsafe(32) + "\n")
    return path


def told_failure(run: PlaybookRun, layer: str) -> str:
    """The message with which a layer failed, which must also be in the output."""
    assert run.rc != 0
    assert run.report[layer]["failed"]
    message: str = run.report[layer]["msg"]
    assert message.splitlines()[0][:60] in run.output
    return message


def test_back_up_verify_destroy_restore(guard: Guard) -> None:
    backup = guard.playbooks.run("backup", "--diff").succeeded()
    assert {layer: (one["changed"], one["type"]) for layer, one in backup.items()} == dict.fromkeys(
        LAYERS, (True, "full")
    )
    # The report says what is there, and neither options nor contents.
    assert not {"invocation", "diff"} & set(backup["config"])

    with Writer(guard.instance.logs) as writer:
        writer.complete()
        writer.append(10)
        writer.rotate("numbered")
        writer.append(5)
    config_tree.grant(guard.instance.config, "new-auditor")
    increment = guard.playbooks.run("backup")
    assert increment.changed() == {"model": False, "config": True, "logs": True}
    assert increment.report["logs"]["type"] == "increment"

    verify = guard.playbooks.run("verify", guardops_levels=["listed", "restored"])
    verify.succeeded()
    assert {layer: (one["ok"], one["level"]) for layer, one in verify.report.items()} == dict.fromkeys(
        LAYERS, (True, "restored")
    )
    info = guard.playbooks.run("info")
    assert info.rc == 0, info.output
    for layer in LAYERS:
        assert f"{layer} {verify.report[layer]['snapshot']}: " in info.output
    assert info.output.count("verified: listed, restored") == 3

    before = {layer: snapshot_tree(directory) for layer, directory in guard.directories().items()}
    records = sorted(record["trace_id"] for record in iter_records(guard.instance.logs))
    shutil.rmtree(guard.instance.root)
    shutil.rmtree(guard.work / "state")
    restored = guard.playbooks.run("restore", guardops_snapshot="latest_verified").succeeded()
    assert {layer: one["snapshot"] for layer, one in restored.items()} == {
        layer: one["snapshot"] for layer, one in verify.report.items()
    }
    for layer, directory in guard.directories().items():
        assert compare_trees(before[layer], directory, ignore=GIT) == []
    assert sorted(record["trace_id"] for record in iter_records(guard.instance.logs)) == records

    # The history came back with the configuration, so the next backup finds nothing new; and goes on with the logs.
    again = guard.playbooks.run("backup")
    again.succeeded()
    assert (again.changed()["model"], again.changed()["config"]) == (False, False)


def test_check_mode_changes_nothing_and_tells_what_comes(guard: Guard) -> None:
    before = (guard.local(), guard.stored())
    predicted = guard.playbooks.run("backup", "--check", "--diff")
    predicted.succeeded()
    assert (guard.local(), guard.stored()) == before
    done = guard.playbooks.run("backup")
    done.succeeded()
    assert predicted.changed() == done.changed() == dict.fromkeys(LAYERS, True)
    for layer in LAYERS:
        for name in ("type", "reason"):
            assert predicted.report[layer][name] == done.report[layer][name]

    config_tree.grant(guard.instance.config, "predicted-auditor")
    predicted = guard.playbooks.run("backup", "--check", "--diff")
    assert "+  - {name: predicted-auditor, role: auditor" in predicted.output
    done = guard.playbooks.run("backup")
    assert predicted.changed() == done.changed() == {"model": False, "config": True, "logs": False}

    # Idempotence: nothing new, so nothing is done and nothing is predicted.
    stored = guard.stored()
    predicted, done = guard.playbooks.run("backup", "--check"), guard.playbooks.run("backup")
    assert predicted.changed() == done.changed() == dict.fromkeys(LAYERS, False)
    assert guard.stored() == stored

    os.truncate(guard.instance.model / "model.safetensors", 1000)
    (guard.instance.config / "nginx.conf").unlink()
    before = (guard.local(), guard.stored())
    predicted = guard.playbooks.run("restore", "--check", "--diff", guardops_overwrite=True)
    predicted.succeeded()
    assert (guard.local(), guard.stored()) == before
    for name in ("model.safetensors", "nginx.conf"):
        assert name in predicted.output
    done = guard.playbooks.run("restore", guardops_overwrite=True)
    done.succeeded()
    assert predicted.changed() == done.changed()
    assert predicted.changed()["model"]
    assert predicted.changed()["config"]
    again = guard.playbooks.run("restore", guardops_overwrite=True)
    again.succeeded()
    assert again.changed() == dict.fromkeys(LAYERS, False)


def test_failures_are_told_and_leave_nothing(guard: Guard) -> None:
    """A layer that fails does not keep the others from being backed up."""
    shutil.move(guard.instance.models, guard.work / "unmounted")
    run = guard.playbooks.run("backup")
    assert str(guard.instance.models) in told_failure(run, "model")
    assert (run.report["config"]["changed"], run.report["logs"]["changed"]) == (True, True)
    assert not [name for name, _when in guard.stored() if "/model/" in name]

    other = {"provider": "file", "key_file": str(make_key(guard.work / "other.key"))}
    shutil.rmtree(guard.instance.config)
    run = guard.playbooks.run("restore", guardops_key=other, guardops_layers=["config"])
    assert "key" in told_failure(run, "config")
    assert not guard.instance.config.exists()
    run = guard.playbooks.run("verify", guardops_key=other, guardops_layers=["config"], guardops_levels=["decrypted"])
    assert "key" in told_failure(run, "config")

    kept = snapshot_tree(guard.instance.logs)
    run = guard.playbooks.run("restore", guardops_layers=["logs"])
    assert "overwrite" in told_failure(run, "logs")
    assert compare_trees(kept, guard.instance.logs) == []

    run = guard.playbooks.run("info", guardops_hosts="nobody")
    assert "no hosts matched" in run.output
