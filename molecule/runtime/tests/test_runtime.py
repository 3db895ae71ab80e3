# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the host can do by itself after the role ran."""

from __future__ import annotations

import json

import testinfra

PREFIX = "/opt/guardops-qwen3guard"
SECRET = "d0-not-show-this-0ne"  # noqa: S105 - of the scenario's inventory
RCLONE = f"{PREFIX}/venv/bin/rclone --config=/etc/guardops-qwen3guard/rclone.conf"


def test_remotes_are_rclones(host: testinfra.host.Host) -> None:
    remotes = json.loads(host.check_output(f"{RCLONE} config dump"))
    assert remotes["oss"]["secret_access_key"] == SECRET
    assert host.check_output(f"{RCLONE} lsf nas:") == "guards/"


def test_secrets_are_for_root_alone(host: testinfra.host.Host) -> None:
    assert host.run("runuser --user=nobody -- cat /etc/guardops-qwen3guard/rclone.conf").rc != 0
    found = host.check_output(
        f"grep --recursive --files-with-matches {SECRET} /etc {PREFIX}/requirements /var/lib /tmp"
    )
    assert found.splitlines() == ["/etc/guardops-qwen3guard/rclone.conf"]


def test_command_lists_the_playbooks(host: testinfra.host.Host) -> None:
    listing = host.check_output("runuser --user=nobody -- qwen3guard")
    for line in ("backup     Back up a guard", "restore    Restore the layers", "usage: qwen3guard "):
        assert line in listing


def test_command_tells_what_is_wrong(host: testinfra.host.Host) -> None:
    for arguments, told in (("bakcup", "no such playbook"), ("../../x", "expected the name"), ("info", "no such file")):
        result = host.run(f"qwen3guard {arguments}")
        assert result.rc == 2
        assert told in result.stderr
    refused = host.run("runuser --user=nobody -- qwen3guard info")
    assert refused.rc == 2
    assert "sudo qwen3guard info" in refused.stderr


def test_command_works_whatever_the_caller_has_set(host: testinfra.host.Host) -> None:
    """An inventory by hand, and traps in the environment and in the current directory."""
    inventory = {
        "guard": {
            "hosts": {
                "guard-07": {
                    "ansible_connection": "local",
                    "ansible_python_interpreter": f"{PREFIX}/venv/bin/python",
                    "guardops_repository": "nas:guards",
                    "guardops_rclone_config": "/etc/guardops-qwen3guard/rclone.conf",
                    "guardops_rclone_path": f"{PREFIX}/venv/bin/rclone",
                }
            }
        }
    }
    path = "/etc/guardops-qwen3guard/inventory.yml"
    host.run_expect([0], "mkdir /srv/trap && printf 'no settings' >/srv/trap/ansible.cfg")
    host.run_expect([0], f"printf %s '{json.dumps(inventory)}' >{path}")
    try:
        told = host.run("cd /srv/trap && ANSIBLE_INVENTORY=/nowhere PYTHONPATH=/srv/trap PYTHONHOME=/x qwen3guard info")
    finally:
        host.run_expect([0], f"rm -r /srv/trap {path}")
    assert told.rc == 0, told.stdout + told.stderr
    assert "guard-07" in told.stdout


def test_collection_is_whole(host: testinfra.host.Host) -> None:
    """Every module that the host has tells its documentation, with the host's own ansible-doc."""
    listed = host.check_output(
        f"ANSIBLE_CONFIG=/etc/guardops-qwen3guard/ansible.cfg {PREFIX}/venv/bin/ansible-doc --list guardops.qwen3guard"
    )
    for module in ("backup", "restore", "verify", "audit_trace"):
        assert f"guardops.qwen3guard.{module} " in listed
