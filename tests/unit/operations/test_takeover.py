# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Takeover of an old installation: nothing is lost, nothing overwritten, and everything can be undone."""

from __future__ import annotations

import os
import pathlib
import shutil
import stat
import typing as t

import pytest

from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import GuardError
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import takeover
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services import acl
from support.modules import ModuleRun, run_module

Tree = dict[str, tuple[int, bytes]]


class Old:
    """An old installation in a directory of the test's, and the new data root."""

    def __init__(self, root: pathlib.Path):
        self.script = root / "root" / "1键推理.sh"
        self.logs = root / "root" / "logs" / "audit"
        self.new = root / "data" / "logs"
        self.record = root / "state" / "takeover.json"
        (self.logs / "2024-05").mkdir(parents=True)
        self.new.mkdir(parents=True)
        self.script.write_text(f'#!/bin/bash\nLOG_DIR="{self.logs}"\npython3 web.py\n', encoding="utf-8")
        self.script.chmod(0o755)
        (self.logs / "audit.log").write_text("one\n")
        (self.logs / "audit.log").chmod(0o600)
        (self.logs / "2024-05" / "audit.log.1").write_text("zero\n")
        (self.logs / "latest").symlink_to("audit.log")

    def run(self, state: str = "taken_over", *, check: bool = False, **more: t.Any) -> ModuleRun:
        args: dict[str, t.Any] = {"state": state, "record": str(self.record), **more}
        if state == "taken_over":
            args["script"] = str(self.script)
            args["settings"] = {"LOG_DIR": str(self.new), "MODEL_PATH": str(self.new.parent / "models")}
            args["directories"] = [{"from": str(self.logs), "to": str(self.new)}]
        return run_module("takeover", args, check=check, diff=True)

    def all(self) -> Tree:
        """Every entry of both sides, with its mode and content."""
        found: Tree = {}
        for top in (self.script.parent, self.new.parent):
            for path in sorted(top.rglob("*")):
                if path.name.endswith("~"):  # the script's backup stays
                    continue
                status = path.lstat()
                content = os.readlink(path).encode() if path.is_symlink() else b""
                content = path.read_bytes() if stat.S_ISREG(status.st_mode) else content
                found[str(path)] = (status.st_mode, content)
        return found


@pytest.fixture
def old(tmp_path: pathlib.Path) -> Old:
    return Old(tmp_path)


@pytest.fixture(params=["links", "copies"])
def engine_old(old: Old, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Old:
    """As above; with copies as between two file systems: a link from the old side fails there."""
    if request.param == "copies":
        link = os.link

        def fails(source: str, target: str, **options: t.Any) -> None:
            if os.path.dirname(source) != os.path.dirname(target):
                raise OSError(18, "Invalid cross-device link")
            link(source, target, **options)

        monkeypatch.setattr(os, "link", fails)
    return old


def options_of(old: Old) -> takeover.Options:
    return takeover.Options(
        str(old.script), {"LOG_DIR": str(old.new)}, [(str(old.logs), str(old.new))], str(old.record)
    )


def take_over(old: Old) -> None:
    options = options_of(old)
    plan = takeover.plan_takeover(options)
    takeover.take_over(options, plan, takeover.Record(options.record), lambda path: shutil.copy2(path, path + "~"))


def test_moves_rewrites_and_comes_back(old: Old) -> None:
    before = old.all()
    would = old.run(check=True).succeeded()
    assert old.all() == before
    assert not old.record.exists()
    did = old.run().succeeded()
    assert {name: would[name] for name in ("changed", "moved", "moves", "lines", "diff")} == {
        name: did[name] for name in ("changed", "moved", "moves", "lines", "diff")
    }
    assert did["moved"] == 3
    assert list(old.logs.iterdir()) == []
    assert (old.new / "2024-05" / "audit.log.1").read_text() == "zero\n"
    assert f'LOG_DIR="{old.new}"\n' in old.script.read_text()
    assert stat.S_IMODE(old.script.stat().st_mode) == 0o755
    assert pathlib.Path(did["backup_file"]).read_bytes() == before[str(old.script)][1]
    assert not old.run().succeeded()["changed"]
    assert old.run("undone", check=True).succeeded()["changed"]
    assert old.run("undone").succeeded()["moved"] == 3
    assert old.all() == before
    assert not old.run("undone").succeeded()["changed"]


def test_undo_brings_newer_records_along_and_leaves_what_was_there(old: Old) -> None:
    (old.new / "mine.log").write_text("mine\n")
    old.run().succeeded()
    (old.new / "audit.log").rename(old.new / "audit.log.1")
    (old.new / "audit.log").write_text("two\n")
    old.run("undone").succeeded()
    assert sorted(path.name for path in old.logs.iterdir()) == ["2024-05", "audit.log", "audit.log.1", "latest"]
    assert [path.name for path in old.new.iterdir()] == ["mine.log"]


def test_never_overwrites(old: Old) -> None:
    (old.new / "audit.log").write_text("other\n")
    before = old.all()
    for check in (True, False):
        run = old.run(check=check)
        assert run.failed
        assert str(old.new / "audit.log") in run.result["msg"]
        assert old.all() == before


def test_refuses_while_a_file_is_open_or_mapped(old: Old) -> None:
    before = old.all()
    with open(old.logs / "audit.log", "a"):
        run = old.run()
        assert run.failed
        assert f"{os.getpid()} (" in run.result["found"]
        assert old.all() == before
        would = old.run(check=True).succeeded()
        assert would["changed"]
    old.run().succeeded()


def test_one_directory_under_two_names_is_not_emptied(old: Old, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "samefile", lambda one, other: True)  # as with a bind mount, without being root
    with pytest.raises(GuardError, match="the same one"):
        takeover.plan_takeover(options_of(old))


def test_script_changed_since_is_not_guessed_at(old: Old) -> None:
    old.run().succeeded()
    old.script.write_text("#!/bin/bash\n")
    before = old.all()
    run = old.run("undone")
    assert run.failed
    assert run.result["hint"]
    assert old.all() == before


def test_goes_on_where_it_was_stopped(engine_old: Old, monkeypatch: pytest.MonkeyPatch) -> None:
    old = engine_old
    before = old.all()
    unlink = os.unlink

    def stop(path: str, **options: t.Any) -> None:
        if path == str(old.logs / "audit.log"):
            raise OSError(28, "No space left on device")
        unlink(path, **options)

    monkeypatch.setattr(os, "unlink", stop)
    with pytest.raises(GuardError, match="No space left"):
        take_over(old)
    assert (old.logs / "audit.log").exists()  # on both sides now
    monkeypatch.setattr(os, "unlink", unlink)
    take_over(old)
    assert list(old.logs.iterdir()) == []
    record = takeover.Record(str(old.record))
    takeover.undo(takeover.plan_undo(record), record)
    assert old.all() == before


def test_access_lists_come_and_go(engine_old: Old) -> None:
    """Those of the data root are left there on the way back, and what had its own has them again."""
    old = engine_old
    service = "user::rwx,user:10001:rwx,group::r-x,mask::rwx,other::---"
    os.setxattr(old.new, acl.ACL_DEFAULT, acl.encode_acl(service))
    own = "user::rw-,user:10002:r--,group::---,mask::r--,other::---"
    os.setxattr(old.logs / "audit.log", acl.ACL_ACCESS, acl.encode_acl(own))
    everything = [path for path in old.logs.rglob("*") if not path.is_symlink()]
    before = {path: (acl.read_acls(str(path)), path.stat().st_mode) for path in everything}
    take_over(old)
    assert acl.read_acls(str(old.new / "2024-05"))[acl.ACL_DEFAULT] == acl.encode_acl(service)
    record = takeover.Record(str(old.record))
    takeover.undo(takeover.plan_undo(record), record)
    assert {path: (acl.read_acls(str(path)), path.stat().st_mode) for path in everything} == before


def told_of_mounts(result: dict[str, t.Any]) -> list[str]:
    """Without the processes that nobody lets us look into."""
    return [text for text in result["not_checked"] if "mounts" in text]


def test_a_container_without_a_mount_is_refused_before_anything_is_moved(old: Old) -> None:
    """It would write to its own layer again, and all would look well."""
    old.script.write_text(f'LOG_DIR="{old.logs}"\ndocker run --name guard image\n', encoding="utf-8")
    before = old.all()
    for check in (True, False):
        run = old.run(check=check)
        assert run.failed
        assert run.result["thing"] == f"{old.script}, line 3"  # below the setting that would be added
        assert run.result["expected"] == f"a container that mounts {old.new}"
        assert run.result["found"] == "no mount of a directory"
        assert f"Add --volume={old.new}:{old.new}" in run.result["hint"]
        assert old.all() == before
        assert not old.record.exists()
    assert old.run(check_mounts=False).succeeded()["moved"] == 3


@pytest.mark.parametrize("mount", ["$LOG_DIR:/app/logs", "{data}:/app/data", "{data}/logs:/app/logs:rw"])
def test_a_container_that_mounts_the_new_directory_is_taken_over(old: Old, mount: str) -> None:
    """By its name, or by the setting that the takeover writes."""
    mount = mount.format(data=old.new.parent)
    old.script.write_text(f'LOG_DIR="{old.logs}"\ndocker run -v "{mount}" image\n', encoding="utf-8")
    took = old.run().succeeded()
    assert took["moved"] == 3
    assert told_of_mounts(took) == []


def test_what_the_script_does_not_tell_of_its_container_is_said(old: Old) -> None:
    old.script.write_text(f'LOG_DIR="{old.logs}"\ndocker start guard\n', encoding="utf-8")
    (told,) = told_of_mounts(old.run().succeeded())
    assert told == f"whether the container mounts {old.new} (line 3: `docker start` does not tell)"
    assert told_of_mounts(old.run().succeeded()) == []  # nothing is done, nothing is claimed
