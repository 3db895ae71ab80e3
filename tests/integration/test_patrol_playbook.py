# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbook patrol as users run it: what it finds is told to people, and it fails where something is wrong."""

from __future__ import annotations

import datetime
import json
import pathlib
import shutil
import subprocess
import sys

import yaml

from support.checkout import ROOT
from support.fleet import make_instance
from support.playbooks import Playbooks
from support.receivers import WECOM_KEY, receiver


def test_report_that_cannot_be_written_and_a_url_that_is_none_keep_the_rest_from_nothing(
    tmp_path: pathlib.Path,
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "repository").mkdir()
    with receiver() as http:
        variables = {
            "guardops_repository": str(tmp_path / "repository"),
            "guardops_state_dir": str(tmp_path / "state"),
            "guardops_patrol_instances": ["all"],
        }
        playbooks = Playbooks(tmp_path / "controller", variables)
        run = playbooks.run("patrol", guardops_heartbeat_url=f"{http.url}/beat")
        assert run.rc != 0
        assert [path for path, _document in http.taken] == ["/beat"]
        run = playbooks.run("patrol", guardops_report_dir=str(tmp_path / "file"), guardops_alert_urls=[http.wecom])
        assert run.rc != 0
        assert "instance repository" in http.texts[-1]
        run = playbooks.run("patrol", guardops_alert_urls=["wecombot"])
        assert "URL 1: expected a URL" in run.output
        assert run.report


def test_role_refuses_a_url_that_is_none(tmp_path: pathlib.Path) -> None:
    """By the task that asks the program, with that program as the role installs it."""
    verify = ROOT / "roles" / "patrol" / "tasks" / "verify.yml"
    tasks = [task for task in yaml.safe_load(verify.read_text()) if "--check" in str(task) and "tell" in str(task)]
    install = {
        "ansible.builtin.template": {
            "src": str(ROOT / "roles" / "patrol" / "templates" / "tell.j2"), "dest": str(tmp_path / "tell"),
            "mode": "0700",
        }
    }  # fmt: skip
    playbooks = Playbooks(tmp_path / "controller", {
        "_patrol_prefix": str(tmp_path / "controller"), "_patrol_libexec": str(tmp_path),
        "_patrol_interpreter": sys.executable, "_patrol_config_directory": str(tmp_path),
        "_patrol_tell": str(ROOT / "roles" / "patrol" / "files" / "tell.py"),
    })  # fmt: skip
    (tmp_path / "play.yml").write_text(
        yaml.safe_dump([{"hosts": "guard", "gather_facts": False, "tasks": [install, *tasks]}])
    )
    command = [*playbooks.controller.command("patrol")[:-1], str(tmp_path / "play.yml")]
    for urls, rc in ((["wecombot://key"], 0), (["wecombot://key", "s3cret"], 2)):
        command[-2] = json.dumps({"patrol_alert_urls": urls})
        (tmp_path / "patrol.json").write_text(json.dumps({"guardops_alert_urls": urls}))
        done = subprocess.run(
            command, env=playbooks.controller.environment(), capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == rc, done.stdout
        assert "s3cret" not in done.stdout
    assert "URL 2: expected a URL, found something else" in done.stdout


def test_fleet_from_good_to_bad_to_good(tmp_path: pathlib.Path) -> None:
    root = tmp_path / "repository"
    now = datetime.datetime.now(datetime.timezone.utc)
    for name in ("guard-01", "guard-02"):
        make_instance(root, name, now, days=2)
    with receiver() as http:
        variables = {
            "guardops_repository": str(root),
            "guardops_state_dir": str(tmp_path / "state"),
            "guardops_patrol_instances": ["all"],
            "guardops_metrics_file": str(tmp_path / "fleet.prom"),
            "guardops_alert_urls": [http.wecom],
            "guardops_heartbeat_url": f"{http.url}/beat",
        }
        playbooks = Playbooks(tmp_path / "controller", variables)
        runs = [playbooks.run("patrol")]
        assert runs[0].rc == 0, runs[0].output
        assert [path for path, _document in http.taken] == ["/cgi-bin/webhook/send", "/beat"]
        assert "a test of the alerts" in http.texts[-1]

        shutil.rmtree(root / "guard-02" / "config")
        runs.append(playbooks.run("patrol"))
        assert runs[1].rc != 0
        assert "failures: guard-02 snapshot config: expected a snapshot, found none" in runs[1].output
        assert "guard-02 snapshot config: expected a snapshot, found none" in http.texts[-1]
        assert (
            'findings{guard="guard-02",check="snapshot",severity="failure"} 1' in (tmp_path / "fleet.prom").read_text()
        )

        # A patrol that comes to no verdict is told as well, and nothing is well again by it.
        runs.append(playbooks.run("patrol", guardops_rclone_config="/nowhere", guardops_repository="store:x"))
        assert runs[2].rc != 0
        assert "patrol /nowhere: expected rclone's configuration file, found no such file" in http.texts[-1]
        assert "Well again" not in http.texts[-1]

        make_instance(root, "guard-02", now, days=2)
        runs.append(playbooks.run("patrol"))
        assert runs[3].rc == 0, runs[3].output
        assert "2 well again" in http.texts[-1]
        assert [path for path, _document in http.taken][-1] == "/beat"
        # Each patrol that came to a verdict was a sign of life, and that without one was none.
        assert [path for path, _document in http.taken].count("/beat") == 3
    for run in runs:
        assert WECOM_KEY not in run.output
        assert f"{http.url}/beat" not in run.output
