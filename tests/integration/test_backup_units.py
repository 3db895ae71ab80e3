# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What role backup writes for its units: what they run and tell, which timers there are, and who waits for whom."""

from __future__ import annotations

import fcntl
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import typing as t

import pytest

from support.checkout import ROOT, find_tool

ROLE = ROOT / "roles" / "backup"
RETENTION = {"logs": {"keep_days": 1095, "cold": {"storage_class": "STANDARD_IA"}}, "model": {"keep_last": 3}}


class Written(t.NamedTuple):
    """The role's files, from its own defaults, variables and templates."""

    place: pathlib.Path
    rc: int
    output: str

    def document(self, name: str) -> t.Any:
        return json.loads((self.place / f"{name}.json").read_text(encoding="utf-8"))

    def service(self, name: str) -> str:
        return (self.place / f"qwen3guard-{name}@.service").read_text(encoding="utf-8")

    def settings(self, name: str) -> dict[str, t.Any]:
        """What the unit's playbook is told."""
        (start,) = re.findall(r"(?m)^ExecStart=(.*)$", self.service(name))
        return t.cast("dict[str, t.Any]", json.loads(shlex.split(start)[-1]))


def write(place: pathlib.Path, **variables: t.Any) -> Written:
    def template(src: str, dest: str, **more: t.Any) -> dict[str, t.Any]:
        paths = {"src": str(ROLE / "templates" / src), "dest": f"{place}/{dest}", "mode": "0700"}
        return {"ansible.builtin.template": paths, **more}

    def document(variable: str, name: str) -> dict[str, t.Any]:
        content = f"{{{{ {variable} | to_json }}}}"
        return {"ansible.builtin.copy": {"content": content, "dest": f"{place}/{name}.json", "mode": "0600"}}

    command = place / "qwen3guard"
    command.write_text('#!/bin/sh\necho "ran $*"\n', encoding="utf-8")
    command.chmod(0o700)
    (place / "state").mkdir()
    role = {"name": str(ROLE), "tasks_from": "preflight", "public": True}
    play = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "vars": {"ansible_python_interpreter": sys.executable},
        "tasks": [
            {"ansible.builtin.include_role": role},
            template("layer.service.j2", "{{ item.name }}@.service", loop="{{ _backup_services }}"),
            template("run-layer.j2", "run-layer"),
            document("_backup_timers", "timers"),
            document("_backup_used_files", "files"),
            document("_backup_inventory", "inventory"),
        ],
    }
    (place / "play.json").write_text(json.dumps([play]), encoding="utf-8")
    values = {
        "guardops_repository": "store:backups",
        "guardops_key": {"provider": "file", "key_file": "/nowhere"},
        "runtime_command": str(command),
        "runtime_state_directory": str(place / "state"),
        **variables,
    }
    ran = subprocess.run(
        [
            find_tool("ansible-playbook"),
            *("--inventory=localhost,", f"--extra-vars={json.dumps(values)}"),
            str(place / "play.json"),
        ],
        env={**os.environ, "ANSIBLE_HOME": str(place / "ansible"), "ANSIBLE_LOCALHOST_WARNING": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    return Written(place, ran.returncode, ran.stdout + ran.stderr)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Written:
    written = write(tmp_path_factory.mktemp("plain"))
    assert written.rc == 0, written.output
    return written


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> Written:
    written = write(tmp_path_factory.mktemp("pruned"), backup_retention=RETENTION, backup_told=["prune"])
    assert written.rc == 0, written.output
    return written


def test_nothing_is_removed_before_somebody_sets_rules(plain: Written) -> None:
    assert not [timer for timer in plain.document("timers") if "prune" in timer]
    assert "guardops_retention" not in plain.document("inventory")


def test_layers_with_rules_have_a_timer(pruned: Written) -> None:
    timers = [timer for timer in pruned.document("timers") if "prune" in timer]
    assert sorted(timers) == ["qwen3guard-prune@logs.timer", "qwen3guard-prune@model.timer"]
    times = {entry["schedule"] for entry in pruned.document("files") if "prune" in entry["name"]}
    assert times == {"*-*-* 03:30:00"}
    assert pruned.document("inventory")["guardops_retention"] == RETENTION
    assert pruned.settings("prune").items() >= {"guardops_layers": ["%i"], "guardops_prune_apply": True}.items()
    assert "/var/lib/qwen3guard-ledger" in pruned.service("prune")  # the gateway is told what is not archived any more


@pytest.mark.parametrize("rules", [{"logs": {"keep_dayz": 30}}, {"config": {"cold": {"storage_class": "STANDARD_IA"}}}])
def test_rules_that_would_do_nothing_are_refused(tmp_path: pathlib.Path, rules: dict[str, t.Any]) -> None:
    written = write(tmp_path, backup_retention=rules)
    assert written.rc != 0
    told = " ".join(written.output.split())
    assert "backup_retention: expected for some of model, config, logs rules among keep_days, keep_last" in told


def test_weekly_verification_tells_its_result(plain: Written, pruned: Written) -> None:
    reports = "%t/guardops-qwen3guard/%n"
    for written, name in ((plain, "verify-full"), (pruned, "prune")):
        unit = written.service(name)
        assert written.settings(name)["guardops_report_dir"] == reports
        assert "\nRuntimeDirectory=guardops-qwen3guard/%n\n" in unit
        told = re.findall(r"(?m)^ExecStartPost=-\+.*/alert\.py \S+ (.*)$", unit)
        assert told == ["clear %n", f"succeed %n {reports}"]
    for written, name in ((plain, "verify"), (plain, "backup"), (plain, "prune"), (pruned, "verify-full")):
        assert "succeed" not in written.service(name)
        assert "guardops_report_dir" not in written.settings(name)


def test_who_removes_waits_for_who_backs_up(pruned: Written) -> None:
    with (pruned.place / "state" / "backup-logs.unit.lock").open("w") as backup:
        fcntl.flock(backup, fcntl.LOCK_EX)
        command = [str(pruned.place / "run-layer"), "logs", "prune", "--check"]
        waiting = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == "Another unit does the backup of the logs; waiting for it.\n"
    assert waiting.communicate(timeout=60)[0] == "ran prune --check\n"
    assert waiting.returncode == 0
