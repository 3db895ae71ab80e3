# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The history of the logs comes back while a service writes new ones: nothing that is there is touched."""

from __future__ import annotations

import gzip
import os
import shutil
from pathlib import Path

import pytest

from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import GuardError
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import restore as restores
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.writer import Draft, Writer
from support.engine import Engine

ACTIVE, ASIDE = "audit.log", "audit.log-restored-000001"


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    """A snapshot of an active log, a rotated one, a compressed one, a link, and a directory with access lists."""
    source = tmp_path / "source"
    (source / "older").mkdir(parents=True)
    (source / ACTIVE).write_bytes(b'{"trace_id": "old-1"}\n{"trace_id": "old-2"}\n')
    (source / "audit.log-20261122").write_bytes(b'{"trace_id": "older"}\n')
    (source / "audit.log-20261121.gz").write_bytes(gzip.compress(b'{"trace_id": "oldest"}\n'))
    (source / "older" / "notes").write_text("notes\n")
    (source / "today").symlink_to(ACTIVE)
    for path in source.rglob("*"):
        os.utime(path, (1_700_000_000, 1_700_000_000), follow_symlinks=False)
    engine = Engine(tmp_path / "engine", "logs")
    engine.backup(source)
    (tmp_path / "logs").mkdir()
    return engine


def told(engine: Engine, target: Path) -> restores.Outcome:
    """A restore, and before it one in check mode, which must tell the same and change nothing."""
    before = {path: path.lstat().st_ctime_ns for path in target.rglob("*")}
    predicted = engine.restore(target, keep_existing=True, dry=True)
    assert {path: path.lstat().st_ctime_ns for path in target.rglob("*")} == before
    outcome = engine.restore(target, keep_existing=True)
    for name in ("changed", "files", "bytes", "fetched_bytes", "fetched_parts", "kept", "beside", "extra", "diff"):
        assert getattr(predicted, name) == getattr(outcome, name), name
    return outcome


def test_what_is_there_stays_and_history_comes_beside(engine: Engine, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "logs"
    live = target / ACTIVE
    (target / "audit.log-20261121.gz").write_bytes(gzip.compress(b"another\n"))
    with live.open("ab", buffering=0) as service:
        service.write(b'{"trace_id": "new-1"}\n')
        before = live.stat()
        outcome = told(engine, target)
        assert outcome.changed
        assert (live.stat().st_ino, live.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
        service.write(b'{"trace_id": "new-2"}\n')
    assert live.read_bytes() == b'{"trace_id": "new-1"}\n{"trace_id": "new-2"}\n'
    for name, restored in ((ACTIVE, ASIDE), ("audit.log-20261121.gz", "audit.log-20261121-restored-000001.gz")):
        assert {"path": name, "restored_as": restored} in outcome.beside
        assert (target / restored).read_bytes() == (source / name).read_bytes()
        assert (target / restored).stat().st_mtime_ns == (source / name).stat().st_mtime_ns
        assert (target / restored).stat().st_nlink == 1
    assert (target / "audit.log-20261122").read_bytes() == (source / "audit.log-20261122").read_bytes()
    assert (target / "older" / "notes").read_text() == "notes\n"
    assert os.readlink(target / "today") == ACTIVE

    again = told(engine, target)
    assert not again.changed
    assert again.diff == ""
    assert ASIDE in again.kept
    assert len(list(target.rglob("*"))) == 8


def test_a_log_that_went_on_since_is_left_alone(engine: Engine, tmp_path: Path) -> None:
    target = tmp_path / "logs"
    shutil.copytree(tmp_path / "source", target, symlinks=True, dirs_exist_ok=True)
    with (target / ACTIVE).open("ab") as service:
        service.write(b'{"trace_id": "new"}\n')
    shutil.copystat(tmp_path / "source", target)
    outcome = told(engine, target)
    assert (outcome.beside, outcome.changed) == ([], False)
    assert ACTIVE in outcome.kept
    (target / ACTIVE).write_bytes(b"cut\n")
    assert told(engine, target).beside == [{"path": ACTIVE, "restored_as": ASIDE}]


def test_another_snapshot_of_that_name_gets_one_more(engine: Engine, tmp_path: Path) -> None:
    target = tmp_path / "logs"
    (target / ACTIVE).write_text("new\n")
    (target / ASIDE).write_text("somebody's\n")
    assert told(engine, target).beside == [{"path": ACTIVE, "restored_as": f"{ASIDE}-2"}]
    assert (target / ASIDE).read_text() == "somebody's\n"


def test_a_name_that_is_taken_in_the_last_moment(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rotation has renamed the log just now, and its writer makes a new one while the old one is being put there."""
    target = tmp_path / "logs"
    complete = Draft.complete

    def made_meanwhile(draft: Draft) -> None:
        if draft.entry.path == ACTIVE:
            (target / ACTIVE).write_text("made meanwhile\n")
        complete(draft)

    monkeypatch.setattr(Draft, "complete", made_meanwhile)
    outcome = engine.restore(target, keep_existing=True)
    assert outcome.beside == [{"path": ACTIVE, "restored_as": ASIDE}]
    assert (target / ACTIVE).read_text() == "made meanwhile\n"
    assert (target / ASIDE).read_bytes() == (tmp_path / "source" / ACTIVE).read_bytes()
    assert not list(target.glob(".guardops*"))


def test_a_file_in_the_place_of_a_directory(engine: Engine, tmp_path: Path) -> None:
    target = tmp_path / "logs"
    (target / "older").write_text("a file\n")
    with pytest.raises(GuardError, match="expected a directory, or nothing, found a file"):
        engine.restore(target, keep_existing=True)
    assert [path.name for path in target.iterdir()] == ["older"]


def test_further_names_of_files_that_came_beside_are_told(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "logs"
    for directory in (source, target):
        directory.mkdir()
    (source / ACTIVE).write_text("old\n")
    os.link(source / ACTIVE, source / "same")
    (target / ACTIVE).write_text("new\n")
    engine = Engine(tmp_path / "engine", "logs")
    engine.backup(source)
    outcome = told(engine, target)
    assert any("same" in text for text in outcome.not_checked)
    assert sorted(path.name for path in target.iterdir()) == [ACTIVE, ASIDE]


def test_the_writer_replaces_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "other").write_text("other")
    with Writer(str(tmp_path), True, keep=True) as writer, pytest.raises(GuardError, match="appeared just now"):
        writer.replace("other", "mine")
    assert (tmp_path / "mine").read_text() == "mine"
