# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The commands of docs/recovery.md that look and restore, as they stand there. Molecule tries the recovery itself."""

from __future__ import annotations

import json
import re
import shlex
import typing as t
from pathlib import Path

import pytest
from sample_instance.compare import compare_trees, snapshot_tree

from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.keys.key_file import make_key_file
from support.checkout import ROOT, find_tool
from support.made_up import MadeUp
from support.playbooks import PlaybookRun, Playbooks

LAYERS = {"model": "models", "config": "config", "logs": "logs"}


def commands(name: str) -> list[list[str]]:
    """The arguments of the page's commands that run the playbook ``name``, without what says where."""
    text = (ROOT / "docs" / "recovery.md").read_text(encoding="utf-8").replace("\\\n", " ")
    begin = rf"^    (?:ansible-playbook -i inventories/mine guardops\.qwen3guard\.|sudo qwen3guard ){name} (.*)$"
    return [shlex.split(found) for found in re.findall(begin, text, re.MULTILINE)]


def filled_in(arguments: list[str], **names: str) -> dict[str, str]:
    """Extra variables, with real names in the places of those on the page."""
    pairs = (text.split("=", 1) for text in arguments if text != "-e")
    replaced = re.compile("|".join(names))
    return {name: replaced.sub(lambda match: names[match[0]], value) for name, value in pairs}


def test_the_controller_looks_for_a_bare_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody answers at the host's address, and of what its variables name nothing is there."""
    made = MadeUp(tmp_path / "repository", "model", "guard-01")
    snapshot = made.add(2)
    playbooks = Playbooks(tmp_path / "run", {})
    guards: dict[str, t.Any] = {
        "hosts": {"spare-01": {"ansible_host": "192.0.2.21"}, "localhost": {"ansible_connection": "local"}},
        "vars": {
            "ansible_become": True, "ansible_become_exe": "/nowhere/sudo",
            "ansible_python_interpreter": "/nowhere/venv/bin/python",
            "guardops_repository": f"backups:{tmp_path / 'repository'}",
            "guardops_rclone_config": "/nowhere/rclone.conf", "guardops_rclone_path": "/nowhere/rclone",
            "runtime_rclone_remotes": {"backups": {"type": "local", "description": "s3cr3t"}},
        },
    }  # fmt: skip
    (tmp_path / "run" / "inventory.json").write_text(json.dumps({"guards": guards}))
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    looks, _on_a_guard = commands("info")
    for flags in ((), ("--check", "--diff")):
        run = playbooks.run("info", *flags, **filled_in(looks, SPARE="spare-01", LOST="guard-01"))
        assert run.rc == 0, run.output
        assert f"model {snapshot}: full of" in run.output
        assert "s3cr3t" not in run.output
        assert list(temporary.iterdir()) == [], "the remotes' secrets stay"


class Fleet(t.NamedTuple):
    """Two guards with one repository and one key: guard-01, which is lost, and guard-02, which lives."""

    lost: Path
    lives: Path
    playbooks: Playbooks

    def run(self, name: str, **extra: str) -> PlaybookRun:
        return self.playbooks.run(name, **extra)


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    for guard in ("guard-01", "guard-02"):
        for directory in LAYERS.values():
            place = tmp_path / guard / directory
            place.mkdir(parents=True)
            (place / "audit.log").write_text(f'{{"text": "{directory} of {guard}"}}\n')
    (tmp_path / "repository").mkdir()
    make_key_file(str(tmp_path / "key"))
    playbooks = Playbooks(tmp_path / "run", {
        "guardops_instance": "guard-02", "guardops_data_root": str(tmp_path / "guard-02"),
        "guardops_repository": str(tmp_path / "repository"), "guardops_state_dir": str(tmp_path / "state"),
        "guardops_key": {"provider": "file", "key_file": str(tmp_path / "key")},
        "guardops_rclone_path": find_tool("rclone"),
    })  # fmt: skip
    lost = tmp_path / "guard-01"
    playbooks.run("backup", guardops_instance="guard-01", guardops_data_root=str(lost)).succeeded()
    return Fleet(lost, tmp_path / "guard-02", playbooks)


def test_a_guard_that_lives_brings_back_the_data_of_a_lost_one(fleet: Fleet, tmp_path: Path) -> None:
    before = {name: snapshot_tree(fleet.lost / name) for name in LAYERS.values()}
    own = snapshot_tree(fleet.lives)
    _looks, on_a_guard = commands("info")
    info = fleet.run("info", **filled_in(on_a_guard, LOST="guard-01"))
    assert info.rc == 0, info.output
    assert info.output.count(" full of ") == 3
    (restores,) = commands("restore")
    wanted = filled_in(restores, LOST="guard-01", **{"/srv": str(tmp_path / "srv")})
    assert wanted["guardops_data_root"] == str(tmp_path / "srv" / "guard-01")
    fleet.run("restore", **wanted).succeeded()
    for name, tree in before.items():
        assert compare_trees(tree, tmp_path / "srv" / "guard-01" / name, ignore=(".git", ".git/*")) == []
    # What the page warns of: without the other place it is the living guard's own, and refused.
    refused = fleet.run("restore", guardops_instance="guard-01")
    assert refused.rc != 0
    assert refused.output.count("expected an empty directory") >= len(LAYERS)
    assert compare_trees(own, fleet.lives) == []
