# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Places that are full, read-only, taken or in use: that is told, and nothing half stays."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sample_instance.compare import compare_trees

from support.disks import mounted, needs_root, remount
from support.faulty_proxy import Fault, FaultyProxy
from support.trial import Trial, kill


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    it = Trial(tmp_path / "trial", tmp_path / "repository")
    it.make_model(3)
    return it


def half_files(target: Path, model: Path) -> list[str]:
    """Names in the target whose content is not that of the model."""
    files = [path for path in target.rglob("*") if path.is_file()]
    return [p.name for p in files if p.read_bytes() != (model / p.relative_to(target)).read_bytes()]


# -- restoring


@needs_root
def test_restoring_to_a_disk_that_is_too_small(trial: Trial, tmp_path: Path) -> None:
    trial.run("backup").succeeded()
    with mounted(tmp_path / "disk", "size=2m") as disk:
        target = disk / "model"
        trial.refused("restore", str(target), "bytes of free space", path=str(target))
        assert not target.exists(), "it had begun"
        remount(disk, "size=20m,nr_inodes=4")  # room for the bytes, and not for the files
        trial.refused("restore", str(target), "No space left", "restore again", path=str(target))
        trial.nothing_left(target)
        assert not half_files(target, trial.model)
        remount(disk, "size=20m,nr_inodes=100")
        trial.run("restore", path=str(target), overwrite=True).succeeded()
        assert not compare_trees(trial.model, target)


@needs_root
def test_a_disk_that_fills_up_while_restoring(store, proxy: FaultyProxy, tmp_path: Path) -> None:
    far = Trial(tmp_path / "trial", f"{store.remote}/prod", store)
    far.options.update(rclone_config=store.config_through(proxy), idle_timeout=60)
    far.make_model(3)
    far.run("backup").succeeded()
    with mounted(tmp_path / "disk", "size=5m") as disk:
        target = disk / "model"
        proxy.fault = Fault("stall", after=300_000, direction="down")
        with far.started("restore", path=str(target)) as process:
            proxy.wait_until_hit()
            (disk / "filler").write_bytes(bytes(4 << 20))
            proxy.fault = Fault()
            output, _errors = process.communicate(timeout=60)
        result = json.loads(output.decode().splitlines()[-1])
        far.is_told(result, "No space left")
        far.nothing_left(target)
        assert not half_files(target, far.model)
        (disk / "filler").unlink()
        far.run("restore", path=str(target), overwrite=True).succeeded()
        assert not compare_trees(far.model, target)


@needs_root
def test_a_target_that_is_read_only(trial: Trial, tmp_path: Path) -> None:
    trial.run("backup").succeeded()
    with mounted(tmp_path / "disk", "size=20m") as disk:
        (disk / "model").mkdir()
        remount(disk, "ro")
        for target in (disk / "model", disk / "new"):
            trial.refused("restore", str(target), "Read-only file system", path=str(target))
        remount(disk, "rw")
        trial.run("restore", path=str(disk / "model")).succeeded()
        assert not compare_trees(trial.model, disk / "model")


def test_a_target_that_is_taken(trial: Trial, tmp_path: Path) -> None:
    trial.run("backup").succeeded()
    target = tmp_path / "target"
    target.write_text("a file")
    trial.refused("restore", str(target), "a directory, or nothing", path=str(target), overwrite=True)
    assert target.read_text() == "a file"
    target.unlink()
    target.mkdir()
    (target / "somebody's.txt").write_text("keep me")
    trial.refused("restore", str(target), "an empty directory", "overwrite: true", path=str(target))
    assert [path.name for path in target.iterdir()] == ["somebody's.txt"]
    trial.run("restore", path=str(target), overwrite=True).succeeded()
    assert compare_trees(trial.model, target, aspects=["content"]) == ["somebody's.txt: not expected (file)"]
    # A directory with something in it where a file belongs is nobody's to remove.
    (target / "config.json").unlink()
    (target / "config.json").mkdir()
    (target / "config.json" / "x").write_text("keep me too")
    trial.refused("restore", "config.json", "a directory that is not empty", path=str(target), overwrite=True)
    assert (target / "config.json" / "x").read_text() == "keep me too"
    trial.nothing_left(target)


# -- backing up


@needs_root
def test_a_repository_that_is_full(trial: Trial, tmp_path: Path) -> None:
    with mounted(tmp_path / "repository", "size=2m") as disk:
        told = trial.refused("backup", "No space left")
        assert str(disk) in told["thing"]
        remount(disk, "size=20m")
        done = trial.run("backup").succeeded()
        assert done["reused_parts"] > 0
        trial.restores_equal()
        taken = trial.snapshots()
        remount(disk, "ro")
        trial.refused("backup", str(disk), "Read-only file system", type="full")
        trial.restores_equal()
        assert trial.snapshots() == taken


@needs_root
@pytest.mark.parametrize("inodes", range(8, 13))
def test_a_repository_that_is_full_at_the_last_moment(trial: Trial, tmp_path: Path, inodes: int) -> None:
    """Room for the parts, and not for the files that follow: RECOVERY.md, the index, the manifest."""
    with mounted(tmp_path / "repository", f"size=20m,nr_inodes={inodes}") as disk:
        first = trial.run("backup")
        if first.failed:
            trial.is_told(first.result, "No space left", str(disk))
            assert not trial.snapshots()
        trial.nothing_left()
        remount(disk, "nr_inodes=1000")
        trial.run("backup").succeeded()
        trial.restores_equal()
        assert len(trial.snapshots()) == 1


@needs_root
def test_a_state_directory_that_is_full(trial: Trial) -> None:
    with mounted(trial.state, "size=20m,nr_inodes=3") as disk:
        trial.refused("backup", str(disk), "No space left")
        remount(disk, "nr_inodes=1000")
        trial.run("backup").succeeded()
        trial.restores_equal()


# -- two at once


@pytest.fixture
def slow(store, proxy: FaultyProxy, tmp_path: Path) -> Trial:
    """A host whose way to the store can be held up."""
    it = Trial(tmp_path / "trial", f"{store.remote}/prod", store)
    it.options.update(rclone_config=store.config_through(proxy), idle_timeout=60)
    it.make_model(3)
    return it


def test_two_runs_on_one_host(slow: Trial, proxy: FaultyProxy) -> None:
    proxy.fault = Fault("stall", after=300_000)
    with slow.started("backup") as process:
        proxy.wait_until_hit()
        second = slow.run("backup", rclone_config=slow.store.config)
        assert second.failed
        slow.is_told(second.result, "guard-01/model", f"process id {process.pid}", "model.lock")
        # Another layer, and looking, are not in the way.
        assert not slow.run("snapshot_info", rclone_config=slow.store.config).failed
        logs = slow.place / "logs"
        logs.mkdir()
        (logs / "audit.log").write_text("{}\n")
        slow.run("backup", layer="logs", path=str(logs), rclone_config=slow.store.config).succeeded()
        proxy.fault = Fault()
        output, errors = process.communicate(timeout=90)
    assert json.loads(output.decode().splitlines()[-1])["changed"], errors
    slow.nothing_left()
    slow.restores_equal()


def test_two_hosts_on_one_repository(slow: Trial, proxy: FaultyProxy) -> None:
    """Both finish, and neither touches what the other stored."""
    other = slow.elsewhere("second-state", slow.store.config)
    proxy.fault = Fault("stall", after=300_000)
    with slow.started("backup") as process:
        proxy.wait_until_hit()
        fast = other.run("backup").succeeded()["snapshot"]
        before = {name: size for name, size in slow.objects().items() if fast in name}
        proxy.fault = Fault()
        output, errors = process.communicate(timeout=90)
    held = json.loads(output.decode().splitlines()[-1])
    assert held["changed"], errors
    assert {name: size for name, size in slow.objects().items() if fast in name} == before
    for snapshot in (fast, held["snapshot"]):
        other.restores_equal(snapshot=snapshot)
    assert slow.snapshots() == sorted([fast, held["snapshot"]])


def test_two_snapshots_of_one_number(trial: Trial, tmp_path: Path) -> None:
    """What two hosts make that listed at the same moment: both can be had by id, and whoever looks is told."""
    other = Trial(tmp_path / "trial", tmp_path / "elsewhere", state="second-state")
    ids = [host.run("backup").succeeded()["snapshot"] for host in (trial, other)]
    assert ids[0] != ids[1]
    other.folder(ids[1]).rename(trial.folder(ids[1]))
    for snapshot in ids:
        trial.restores_equal(snapshot=snapshot)
    told = [one["damaged"] for one in trial.run("snapshot_info").succeeded()["snapshots"]["model"]]
    assert len(told) == 2
    assert all("two hosts" in text for text in told)
    trial.refused("restore", "one snapshot of that number", "whole id", path=str(tmp_path / "target"), snapshot="1")
    newest = trial.run("backup", type="full").succeeded()["snapshot"]
    assert trial.restores_equal()["snapshot"] == newest


def test_a_lock_ends_with_its_holder(slow: Trial, proxy: FaultyProxy) -> None:
    proxy.fault = Fault("stall", after=300_000)
    with slow.started("backup") as process:
        proxy.wait_until_hit()
        kill(process)
        process.wait()
    proxy.fault = Fault()
    slow.run("backup").succeeded()
    slow.restores_equal()
