# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""site.yml --check where the interpreter that verifies is yet to come.

What the roles say on a bare host, the Molecule scenario `recovery` shows; here they do nothing.
"""

from __future__ import annotations

import json
import pathlib
import sys

import pytest

from support.checkout import ROOT
from support.playbooks import Playbooks
from support.trial import Trial

ROLES = [path.name for path in ROOT.glob("roles/*")]


@pytest.fixture
def playbooks(tmp_path: pathlib.Path) -> Playbooks:
    """An instance that was never backed up, and a bare host: the inventory names an interpreter that is not there."""
    trial = Trial(tmp_path, tmp_path / "repository")
    variables = {
        "guardops_data_root": str(tmp_path / "data"),
        "guardops_repository": trial.repository,
        "guardops_state_dir": str(tmp_path / "state"),
        "guardops_key": trial.options["key"],
        "guardops_system_python": sys.executable,
        "patrol_metrics_file": str(tmp_path / "metrics"),
    }
    made = Playbooks(tmp_path / "ansible-run", variables)
    inventory = tmp_path / "ansible-run" / "inventory.json"
    text = json.loads(inventory.read_text())
    text["guard"]["hosts"]["localhost"]["ansible_python_interpreter"] = str(tmp_path / "venv" / "bin" / "python")
    inventory.write_text(json.dumps(text))
    link = next((tmp_path / "ansible-run").glob("collections/ansible_collections/*/*"))
    link.unlink()
    link.mkdir()
    for path in ROOT.iterdir():
        if path.name != "roles" and not path.name.startswith("."):
            (link / path.name).symlink_to(path)
    for role in ROLES:
        tasks = link / "roles" / role / "tasks"
        tasks.mkdir(parents=True)
        (tasks / "main.yml").write_text("[]\n")
    return made


def test_check_mode_goes_to_its_end(playbooks: Playbooks) -> None:
    run = playbooks.run("site", "--check", "--diff")
    run.succeeded()
    assert "Not told: whether the snapshots would be good" in run.output


def test_in_earnest_the_snapshots_are_verified(playbooks: Playbooks, tmp_path: pathlib.Path) -> None:
    """There are none, and that is what the second play says once its interpreter is there."""
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    for flags in ([], ["--check"]):
        run = playbooks.run("site", *flags)
        assert run.rc != 0
        assert "Verify each layer" in run.output
        assert "Not told" not in run.output
