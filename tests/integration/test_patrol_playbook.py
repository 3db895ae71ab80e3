# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbook patrol as users run it: what it finds is told to people, and it fails where something is wrong."""

from __future__ import annotations

import datetime
import pathlib
import shutil

from support.fleet import make_instance
from support.playbooks import Playbooks
from support.receivers import WECOM_KEY, receiver


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
    for run in runs:
        assert WECOM_KEY not in run.output
        assert f"{http.url}/beat" not in run.output
