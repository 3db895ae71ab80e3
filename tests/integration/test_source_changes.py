# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files that somebody writes to, cuts, replaces or removes while a backup reads them."""

from __future__ import annotations

import json
import os
import threading
import typing as t
from pathlib import Path

import pytest

from support.faulty_proxy import Fault, FaultyProxy
from support.trial import PART, Trial

Change = t.Callable[[Path], object]


@pytest.fixture
def far(store, proxy: FaultyProxy, tmp_path: Path) -> Trial:
    """A host whose upload can be held up, so that there is time to change what it reads."""
    it = Trial(tmp_path / "trial", f"{store.remote}/prod", store)
    it.options.update(rclone_config=store.config_through(proxy), idle_timeout=60, workers=1)
    return it


def backup_while(
    far: Trial, proxy: FaultyProxy, change: t.Callable[[], object], after: int = 300_000, **more: t.Any
) -> dict[str, t.Any]:
    """A backup during whose first large upload ``change`` happens; its result."""
    proxy.fault = Fault("stall", after=after)
    with far.started("backup", **more) as process:
        proxy.wait_until_hit()
        change()
        proxy.fault = Fault()
        output, errors = process.communicate(timeout=90)
    lines = output.decode().splitlines()
    assert lines, errors.decode()
    return t.cast("dict[str, t.Any]", json.loads(lines[-1]))


def append(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"more\n")


def overwrite(path: Path) -> None:
    """Other bytes in the same length, and even the old time."""
    before = path.stat()
    with open(path, "r+b") as file:
        file.seek(before.st_size // 2)
        file.write(b"other")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def cut(path: Path) -> None:
    os.truncate(path, 10)


def empty(path: Path) -> None:
    """As logrotate's copytruncate does."""
    os.truncate(path, 0)


def replace(path: Path) -> None:
    new = path.with_name("new")
    new.write_bytes(path.read_bytes())
    new.rename(path)


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("change", [append, overwrite, cut, replace, remove])
def test_a_model_that_changes_is_not_a_snapshot(far: Trial, proxy: FaultyProxy, change: Change) -> None:
    """Half old and half new weights would load, and answer anything."""
    far.make_model(4)
    result = backup_while(far, proxy, lambda: change(far.model / "b.safetensors"))
    assert result.get("failed"), "a snapshot was made of a file that changed"
    far.is_told(result, "b.safetensors")
    assert not far.snapshots()
    far.nothing_left()
    done = far.run("backup").succeeded()
    assert {name.split("/")[2] for name in far.objects() if "/model/" in name} == {done["snapshot"]}
    far.restores_equal()


def test_a_configuration_that_changes_once_is_read_again(far: Trial, proxy: FaultyProxy) -> None:
    config = far.place / "config"
    config.mkdir()
    (config / "big.bin").write_bytes(os.urandom(PART))
    (config / "nginx.conf").write_text("worker_processes 2;\n")
    options = {"layer": "config", "path": str(config)}
    result = backup_while(far, proxy, lambda: append(config / "nginx.conf"), **options)
    assert not result.get("failed"), result
    target = far.place / "target"
    far.run("restore", layer="config", path=str(target)).succeeded()
    assert (target / "nginx.conf").read_text() == "worker_processes 2;\nmore\n"
    far.nothing_left(target)


def test_a_configuration_that_never_rests_is_refused(tmp_path: Path) -> None:
    trial = Trial(tmp_path / "trial", tmp_path / "repository")
    config = trial.place / "config"
    config.mkdir()
    (config / "big.bin").write_bytes(os.urandom(4 * PART))
    file = config / "nginx.conf"
    file.write_text("worker_processes 2;\n")
    resting = threading.Event()

    def write() -> None:
        while not resting.is_set():
            append(file)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        trial.refused("backup", str(config), layer="config", path=str(config))
    finally:
        resting.set()
        writer.join()
    assert trial.run("backup", layer="config", path=str(config)).succeeded()["changed"]


# -- logs: they grow, and that is no fault


def lines(count: int, start: int = 0) -> bytes:
    return b"".join(b'{"seq": %d, "pad": "%s"}\n' % (n, os.urandom(400).hex().encode()) for n in range(start, count))


@pytest.fixture
def logs(far: Trial) -> Path:
    folder = far.place / "logs"
    folder.mkdir()
    (folder / "audit.log").write_bytes(lines(2500))
    return folder


def restored_lines(far: Trial) -> list[int]:
    target = far.place / "restored-logs"
    far.run("restore", layer="logs", path=str(target)).succeeded()
    far.nothing_left(target)
    found = [line for path in target.iterdir() for line in path.read_bytes().splitlines()]
    return sorted(json.loads(line)["seq"] for line in found)


@pytest.mark.parametrize("rotated", [False, True])
def test_a_log_that_grows_is_saved_as_it_was_and_the_rest_follows(
    far: Trial, proxy: FaultyProxy, logs: Path, rotated: bool
) -> None:
    def grow() -> None:
        if rotated:
            (logs / "audit.log").rename(logs / "audit.log-20260520")
        with open(logs / "audit.log", "ab") as file:
            file.write(lines(2600, 2500))

    options = {"layer": "logs", "path": str(logs)}
    result = backup_while(far, proxy, grow, after=20_000, **options)
    if result.get("failed"):
        assert rotated, result
        far.is_told(result, "audit.log")
        far.nothing_left()
    again = far.run("backup", **options).succeeded()
    assert again["changed"] or rotated
    assert restored_lines(far) == list(range(2600))


@pytest.mark.parametrize("change", [empty, remove])
def test_a_log_that_shrinks_or_vanishes_is_told_or_read_again(
    far: Trial, proxy: FaultyProxy, logs: Path, change: Change
) -> None:
    (logs / "other.log").write_bytes(lines(3000, 2500))
    options = {"layer": "logs", "path": str(logs)}
    result = backup_while(far, proxy, lambda: change(logs / "audit.log"), after=20_000, **options)
    if result.get("failed"):
        far.is_told(result, "audit.log")
        assert not far.snapshots("logs")
    far.nothing_left()
    far.run("backup", **options).succeeded()
    found = restored_lines(far)
    assert set(range(2500, 3000)) <= set(found)
    assert len(found) == len(set(found)), "a record is there twice"
