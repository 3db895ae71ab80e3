# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What recover.yml and drill.yml refuse, and what they leave when a phase fails. The Molecule scenario `recovery` shows
how they succeed: that takes hosts. Here the roles are stand-ins, the first of which fails."""

from __future__ import annotations

import json
import pathlib
import sys
import typing as t

import pytest

from support.checkout import ROOT
from support.modules import run_module
from support.playbooks import HOST, PlaybookRun, Playbooks
from support.trial import Trial

WHY = "no driver for this test"


@pytest.fixture
def playbooks(tmp_path: pathlib.Path) -> Playbooks:
    """An instance that has never been backed up, and a host on which the role gpu_host fails."""
    trial = Trial(tmp_path, tmp_path / "repository")
    variables = {
        "guardops_data_root": str(tmp_path / "data"),
        "guardops_repository": trial.repository,
        "guardops_state_dir": str(tmp_path / "state"),
        "guardops_key": trial.options["key"],
        "guardops_python": sys.executable,
        "guardops_system_python": sys.executable,
    }
    made = Playbooks(tmp_path / "ansible-run", variables)
    link = next((tmp_path / "ansible-run").glob("collections/ansible_collections/*/*"))
    link.unlink()
    link.mkdir()
    for path in ROOT.iterdir():
        if path.name != "roles" and not path.name.startswith("."):
            (link / path.name).symlink_to(path)
    for role in ("gpu_host", "storage", "runtime"):
        tasks = link / "roles" / role / "tasks"
        tasks.mkdir(parents=True)
        (tasks / "main.yml").write_text(json.dumps([{"name": "Fail", "ansible.builtin.fail": {"msg": WHY}}]))
    return made


def refused(run: PlaybookRun, told: str) -> None:
    assert run.rc != 0, run.output
    assert told in " ".join(run.output.split()), run.output


def records(place: pathlib.Path) -> list[dict[str, t.Any]]:
    info = {"instance": "guard-01", "repository": str(place / "repository"), "state_dir": str(place / "state")}
    return run_module("snapshot_info", info).succeeded()["drills"]


def test_what_is_refused(playbooks: Playbooks, tmp_path: pathlib.Path) -> None:
    refused(playbooks.run("recover"), "guardops_instance: expected the name of the instance")
    typed = {"guardops_instance": "guard-01", "guardops_confirm_instance": "guard-02"}
    refused(playbooks.run("recover", **typed), "guardops_confirm_instance: expected guard-01 once more, found guard-02")
    (tmp_path / "data" / "logs").mkdir(parents=True)
    (tmp_path / "data" / "logs" / "audit.log").write_text("mine\n")
    instance = {"guardops_instance": "guard-01"}
    refused(playbooks.run("recover", **instance), f"expected no data, found {tmp_path}/data/logs/audit.log")
    hosts = {"guardops_hosts": HOST, **instance}
    refused(playbooks.run("drill", **hosts), "expected a spare host, found one of the group guard")
    refused(
        playbooks.run("drill", guardops_production_group="others", **hosts), "expected nothing, or what a drill left"
    )
    assert (tmp_path / "data" / "logs" / "audit.log").read_text() == "mine\n"
    assert records(tmp_path) == []


@pytest.mark.parametrize("kind", ["recover", "drill"])
def test_a_failed_phase_is_recorded(playbooks: Playbooks, tmp_path: pathlib.Path, kind: str) -> None:
    group = {"guardops_hosts": HOST, "guardops_production_group": "others"}
    run = playbooks.run(kind, guardops_instance="guard-01", **group)
    refused(run, WHY)
    assert "NOT GOOD" in run.output
    (record,) = records(tmp_path)
    assert (record["kind"], record["ok"]) == ({"recover": "recovery", "drill": "drill"}[kind], False)
    assert [(phase["name"], phase["ok"]) for phase in record["phases"]] == [("host", False)]
    assert record["phases"][0]["detail"] == f"Fail: {WHY}"
    assert record["failures"][-1] == "the service never answered an audit"
    assert not (tmp_path / "data").exists()
