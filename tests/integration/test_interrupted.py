# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs that are killed or told to end: no snapshot, no child survives, and the next run cleans up and goes on."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from sample_instance.compare import compare_trees

from support.faulty_proxy import Fault, FaultyProxy
from support.modules import module_command, module_environment, module_input
from support.trial import Trial, kill, wait_until

STALL = Fault("stall", after=200_000)


@pytest.fixture
def far(store, proxy: FaultyProxy, tmp_path: Path) -> Trial:
    """A host that reaches the store by way of the proxy, and has patience."""
    it = Trial(tmp_path / "trial", f"{store.remote}/prod", store)
    it.options.update(rclone_config=store.config_through(proxy), idle_timeout=60, retries=3, workers=2)
    it.make_model(5)
    return it


def stored_parts(trial: Trial) -> list[str]:
    return [name for name in trial.objects() if "/part-" in name]


def holds_only_its_snapshots(trial: Trial) -> None:
    """All that is in the store belongs to a snapshot, and no upload was left half way."""
    complete = trial.snapshots()
    names = [name.split("/") for name in trial.objects()]
    assert {n[2] for n in names if len(n) > 3 and n[1] == "model"} == set(complete)
    if trial.store is not None:
        uploads = trial.store.seaweed.client.list_multipart_uploads(Bucket=trial.store.bucket)
        assert not uploads.get("Uploads"), "unfinished uploads are left"


def test_killed_while_it_stores_parts(far: Trial, proxy: FaultyProxy) -> None:
    with far.started("backup") as process:
        wait_until(lambda: len(stored_parts(far)) >= 2, "two parts in the store")
        proxy.fault = STALL
        proxy.wait_until_hit()
        kill(process)
        process.wait()
        assert not far.processes(), "children outlive the module"
    proxy.fault = Fault()
    assert not far.snapshots()
    done = far.run("backup").succeeded()
    assert done["reused_parts"] >= 1
    far.nothing_left()
    far.restores_equal()
    holds_only_its_snapshots(far)


def test_killed_and_the_model_changed_since(far: Trial, proxy: FaultyProxy) -> None:
    with far.started("backup") as process:
        wait_until(lambda: stored_parts(far), "a part in the store")
        proxy.fault = STALL
        proxy.wait_until_hit()
        kill(process)
        process.wait()
    proxy.fault = Fault()
    (far.model / "a.safetensors").write_bytes(os.urandom(1000))
    assert far.run("backup").succeeded()["reused_parts"] == 0
    far.nothing_left()
    holds_only_its_snapshots(far)
    far.restores_equal()


def test_killed_at_any_moment(far: Trial, proxy: FaultyProxy) -> None:
    """By the bytes that went up, from before the first part to after the last one."""
    for share in sorted(random.random() for _turn in range(4)):
        proxy.reset_counts()
        with far.started("backup", type="full") as process:
            enough = share * 5.3 * (1 << 20) * 0.6
            wait_until(lambda: proxy.bytes_up > enough or process.poll() is not None, "enough bytes")  # noqa: B023 - used at once
            kill(process)
            process.wait()
            assert not far.processes(), "children outlive the module"
    far.run("backup", type="full").succeeded()
    far.nothing_left()
    holds_only_its_snapshots(far)
    for snapshot in far.snapshots():
        assert far.run("verify", level="decrypted", snapshot=snapshot).succeeded()["ok"]
    far.restores_equal()


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("module", ["backup", "restore"])
def test_told_to_end(far: Trial, proxy: FaultyProxy, tmp_path: Path, module: str, sign: signal.Signals) -> None:
    """A store that stalls must not hold it: the run tells, and leaves as if it had failed."""
    target = tmp_path / "target"
    if module == "restore":
        far.run("backup").succeeded()
    proxy.fault = STALL if module == "backup" else Fault("stall", after=200_000, direction="down")
    more = {} if module == "backup" else {"path": str(target)}
    with far.started(module, **more) as process:
        proxy.wait_until_hit(2)
        kill(process, sign)
        output, errors = process.communicate(timeout=40)
    result = json.loads(output.decode().splitlines()[-1])
    assert result["failed"], errors
    far.is_told(result, sign.name)
    proxy.fault = Fault()
    far.nothing_left(target)
    if module == "backup":
        assert not far.snapshots()
        far.run("backup").succeeded()
    else:
        far.run("restore", path=str(target), overwrite=True).succeeded()
        assert not compare_trees(far.model, target)


# -- at each commit point: a rename is what makes things exist in directories


@pytest.fixture
def near(tmp_path: Path) -> Trial:
    it = Trial(tmp_path / "trial", tmp_path / "repository")
    it.options["workers"] = 1
    it.make_model(2)
    return it


def killed_at_rename(trial: Trial, number: int, module: str, **more: object) -> bool:
    """Run the module and kill it when one of its threads is about to do its so-manieth rename; whether it was."""
    if not shutil.which("strace"):
        pytest.skip("strace is not installed: it kills the module at a chosen system call")
    inject = ["-e", "trace=/^rename", "-e", f"inject=/^rename:signal=SIGKILL:when={number}"]
    done = subprocess.run(
        ["strace", "-f", "-qq", "-o", os.devnull, *inject, *module_command(module)],
        input=module_input(trial.arguments(module, **more)), env=module_environment(trial.environment()),
        capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert not trial.processes(), "children outlive the module"
    if done.returncode == 0:
        return False
    assert done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), done.stderr.decode() + done.stdout.decode()
    return True


def test_a_backup_killed_at_each_commit_point(near: Trial) -> None:
    number, reused = 1, 0
    while killed_at_rename(near, number, "backup", type="full"):
        (near.model / "config.json").write_text(json.dumps({"killed": number}))
        if number % 2:  # every other time the content is the same as in the killed run
            near.run("backup", type="full").succeeded()
        else:
            killed_at_rename(near, number, "backup", type="full")
            reused += near.run("backup", type="full").succeeded()["reused_parts"]
        near.nothing_left()
        holds_only_its_snapshots(near)
        near.restores_equal()
        number += 1
    assert number > 5, "a backup has more commit points than that"
    assert reused > 0
    assert near.run("snapshot_info").succeeded()["newest"]["model"]["damaged"] == ""


def test_a_restore_killed_at_each_commit_point(near: Trial, tmp_path: Path) -> None:
    parts = near.run("backup").succeeded()["parts"]
    number, target = 1, tmp_path / "target"
    while killed_at_rename(near, number, "restore", path=str(target)):
        again = near.run("restore", path=str(target), overwrite=True).succeeded()
        assert again["fetched_parts"] <= parts
        assert number == 1 or again["fetched_parts"] < parts, "what is there already was fetched again"
        assert not compare_trees(near.model, target)
        near.nothing_left(target)
        shutil.rmtree(target)
        number += 1
    assert number > 3


def test_a_verification_that_was_killed_leaves_its_files_to_the_next(far: Trial, proxy: FaultyProxy) -> None:
    far.run("backup").succeeded()
    proxy.fault = Fault("stall", after=200_000, direction="down")
    with far.started("verify", level="restored") as process:
        proxy.wait_until_hit()
        kill(process)
        process.wait()
    proxy.fault = Fault()
    assert list((far.state / "verify").iterdir()), "the kill came too late to show anything"
    assert far.run("verify", level="restored").succeeded()["ok"]
    far.nothing_left()
