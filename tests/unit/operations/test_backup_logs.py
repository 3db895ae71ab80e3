# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backup and restore of the logs with a real store and real gpg: which snapshot is taken, and what comes back."""

from __future__ import annotations

import collections
import datetime
import json
import os
import shutil
import stat
import time
from pathlib import Path

import pytest

from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import IntegrityError
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.manifest import FULL, INCREMENT
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.backup import Outcome
from support.engine import INSTANCE, Engine
from support.log_chain import LogDirectory, whole_lines

ACTIVE = "audit.log"


class Logs(LogDirectory):
    """A log directory, and the engine that saves it."""

    def __init__(self, place: Path):
        super().__init__(place / "logs")
        self.place = place
        self.engine = Engine(place, "logs")
        self.append(ACTIVE, 5)

    def save(self, expected: str | None, **options: str) -> Outcome:
        """A backup, which must be of this type; None: there is nothing to do."""
        outcome = self.engine.backup(self.root, **options)
        assert (outcome.type or None) == expected, outcome
        assert outcome.changed is (expected is not None)
        return outcome

    def objects(self) -> dict[str, float]:
        """All that is stored, with the time of its last change."""
        stored = (self.engine.store_path / INSTANCE).rglob("*")
        return {str(path): path.stat().st_mtime_ns for path in stored if path.is_file()}

    def restored(self, **options: str) -> collections.Counter[bytes]:
        """The whole lines that a restore gives."""
        target = self.place / "restored"
        shutil.rmtree(target, ignore_errors=True)
        self.engine.restore(target, **options)
        return whole_lines([p.read_bytes() for p in target.rglob("*") if p.is_file() and not p.is_symlink()])

    def check(self, **options: str) -> None:
        assert self.restored(**options) == collections.Counter(self.lines)

    def lose_state(self) -> None:
        shutil.rmtree(self.place / "state")

    @property
    def state(self) -> Path:
        return self.place / "state" / INSTANCE / "logs.state"


@pytest.fixture(name="logs")
def fixture_logs(tmp_path: Path) -> Logs:
    return Logs(tmp_path)


def test_nothing_new_stores_nothing(logs: Logs) -> None:
    logs.save(FULL)
    before = logs.objects(), logs.state.stat().st_mtime_ns
    assert not logs.save(None).stored_bytes
    logs.tear(ACTIVE)
    assert logs.save(None).unfinished == [{"path": ACTIVE, "bytes": 10}]
    assert logs.objects() == before[0]
    logs.lose_state()
    assert logs.save(None).snapshot
    assert logs.objects() == before[0]


def test_state_is_written_only_when_something_is_new_to_it(logs: Logs) -> None:
    logs.save(FULL)
    before = logs.state.stat().st_ino
    logs.save(None)
    assert logs.state.stat().st_ino == before
    logs.rename(ACTIVE, "other")
    logs.save(None)
    assert logs.state.stat().st_ino != before


@pytest.mark.parametrize("lost", [False, True])
def test_types(logs: Logs, lost: bool) -> None:
    assert logs.save(FULL, type=INCREMENT).reason == "first snapshot"
    for kind in (INCREMENT, INCREMENT, FULL, INCREMENT):
        logs.append(ACTIVE)
        if lost:
            logs.lose_state()
        logs.save(kind, type=kind)
    logs.check()
    logs.save(FULL, type=FULL)
    logs.check()


def test_check_mode_tells_what_would_be_done_and_does_nothing(logs: Logs) -> None:
    logs.save(FULL)
    logs.append(ACTIVE, 2)
    before = logs.objects(), logs.state.read_bytes()
    with logs.engine.session(dry=True) as session:
        from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.backup import Options, backup

        outcome = backup(session, Options(str(logs.root)))
    assert (outcome.changed, outcome.type, outcome.bytes) == (True, INCREMENT, sum(map(len, logs.lines[-2:])))
    assert outcome.diff == f"{ACTIVE}: {outcome.bytes} bytes\n"
    assert (logs.objects(), logs.state.read_bytes()) == before


class TestBrokenChain:
    @pytest.fixture(name="ids")
    def fixture_ids(self, logs: Logs) -> list[str]:
        """A full and two increments."""
        ids = [logs.save(FULL).snapshot]
        for _number in range(2):
            logs.append(ACTIVE)
            ids.append(logs.save(INCREMENT).snapshot)
        return ids

    @pytest.mark.parametrize("lost", [False, True], ids=["state", "index"])
    def test_an_increment_was_removed(self, logs: Logs, ids: list[str], lost: bool) -> None:
        shutil.rmtree(logs.engine.objects(ids[1]))
        with pytest.raises(IntegrityError, match=f"{ids[1]}.*expected the snapshot that {ids[2]} stands on"):
            logs.restored()
        if lost:
            logs.lose_state()
        logs.append(ACTIVE)
        assert "broken" in logs.save(FULL).reason
        logs.check()

    def test_a_part_was_removed(self, logs: Logs, ids: list[str]) -> None:
        """Known from the listing alone: nobody would notice until a restore."""
        next(logs.engine.objects(ids[1]).glob("part-*")).unlink()
        logs.append(ACTIVE)
        assert "broken" in logs.save(FULL).reason
        logs.check()

    @pytest.mark.parametrize("lost", [False, True], ids=["state", "index"])
    def test_the_newest_was_removed(self, logs: Logs, ids: list[str], lost: bool) -> None:
        """What it held is sent again."""
        shutil.rmtree(logs.engine.objects(ids[2]))
        if lost:
            logs.lose_state()
        logs.append(ACTIVE)
        assert logs.save(INCREMENT).bytes == sum(map(len, logs.lines[-6:]))
        logs.check()

    def test_a_manifest_is_damaged(self, logs: Logs, ids: list[str]) -> None:
        (logs.engine.objects(ids[2]) / "manifest.json").write_text("{}")
        logs.append(ACTIVE)
        logs.save(FULL)
        logs.check()

    @pytest.mark.parametrize("content", ["", "{", "[]", '{"snapshot": "x"}'])
    def test_the_state_file_is_damaged(self, logs: Logs, ids: list[str], content: str) -> None:
        logs.state.write_text(content)
        logs.append(ACTIVE)
        logs.save(INCREMENT)
        logs.check()


def test_points_in_time(logs: Logs) -> None:
    logs.save(FULL)
    first = len(logs.lines)
    moment = datetime.datetime.now(datetime.timezone.utc)
    time.sleep(1.1 - moment.microsecond / 1e6)  # manifests tell whole seconds
    logs.rename(ACTIVE, f"{ACTIVE}.1")
    logs.append(ACTIVE)
    second = logs.save(INCREMENT).snapshot
    at_second = len(logs.lines)
    logs.append(ACTIVE)
    logs.save(FULL, type=FULL)
    logs.append(ACTIVE)
    logs.save(INCREMENT)
    logs.check()
    assert logs.restored(snapshot=moment.isoformat()) == collections.Counter(logs.lines[:first])
    assert logs.restored(snapshot=second) == collections.Counter(logs.lines[:at_second])
    assert logs.restored(snapshot="3") == collections.Counter(logs.lines[:-3])


def test_restored_to_a_new_host_and_going_on_there(logs: Logs, tmp_path: Path) -> None:
    logs.append("sub/old.log")
    logs.compress("sub/old.log")
    logs.save(FULL)
    logs.append(ACTIVE)
    logs.rename(ACTIVE, f"{ACTIVE}.1")
    logs.compress(f"{ACTIVE}.1")
    logs.append(ACTIVE)
    logs.save(INCREMENT)
    new = tmp_path / "new-host"
    logs.engine.restore(new)
    logs.lose_state()
    logs.root = new
    logs.save(None)
    logs.append(ACTIVE)
    logs.save(INCREMENT)
    logs.check()


def test_names_modes_and_times_are_those_of_the_last_snapshot(logs: Logs) -> None:
    logs.append("sub/other.log")
    logs.save(FULL)
    logs.rename("sub/other.log", "sub/renamed.log")
    logs.path("sub").chmod(0o750)
    logs.path("sub/renamed.log").chmod(0o440)
    os.setxattr(logs.path(ACTIVE), "user.note", b"\xff\0")
    logs.append(ACTIVE)
    logs.path("current").symlink_to(ACTIVE)
    logs.save(INCREMENT)
    logs.check()
    restored = logs.place / "restored"
    for name in (".", "sub", "sub/renamed.log", ACTIVE, "current"):
        here, there = (os.lstat(root / name) for root in (logs.root, restored))
        assert stat.filemode(here.st_mode) == stat.filemode(there.st_mode), name
        assert (here.st_uid, here.st_gid, here.st_mtime_ns) == (there.st_uid, there.st_gid, there.st_mtime_ns), name
    assert os.getxattr(restored / ACTIVE, "user.note") == b"\xff\0"
    assert not (restored / "sub/other.log").exists()


def test_a_log_cut_back_after_a_power_cut_starts_a_new_full(logs: Logs) -> None:
    logs.save(FULL)
    os.truncate(logs.path(ACTIVE), len(logs.lines[0]) * 2)
    del logs.lines[2:]
    logs.append(ACTIVE)
    outcome = logs.save(FULL)
    assert ACTIVE in outcome.reason
    logs.check()
    manifest = json.loads((logs.engine.objects(outcome.snapshot) / "manifest.json").read_bytes())
    assert (manifest["base"], manifest["parent"]) == (outcome.snapshot, "")
