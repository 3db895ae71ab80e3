# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role patrol tells the module to look at, of what other roles were told."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import typing as t

import yaml

from support.checkout import ROOT, find_tool
from support.playbooks import Controller

KEYS = ["/etc/backup.asc", "/etc/second.asc"]
RECIPIENTS = {"provider": "gpg_recipients", "public_key_files": KEYS}
TLS = {"gateway_tls_certificate": "/etc/gateway.pem"}
HOSTS: dict[str, tuple[dict[str, t.Any], list[str], list[str]]] = {  # variables, certificates, keys
    "plain": ({}, [], []),
    "no-tls": ({"gateway_tls_certificate": "", "guardops_key": {"provider": "file", "key_file": "/k"}}, [], []),
    "tls": (TLS, ["/etc/gateway.pem"], []),
    "tls-and-more": (
        {**TLS, "patrol_certificates": ["127.0.0.1:8080", "/etc/gateway.pem"]},
        ["/etc/gateway.pem", "127.0.0.1:8080"], [],
    ),
    "recipients": ({"guardops_key": RECIPIENTS, "backup_key": {}}, [], KEYS),
    "own-recipients": (
        {"guardops_key": {"provider": "file", "key_file": "/k"}, "backup_key": RECIPIENTS,
         "patrol_openpgp_keys": ["/etc/more.asc"]},
        [], [*KEYS, "/etc/more.asc"],
    ),
    "own-words": ({**TLS, "patrol_host": {"certificates": []}}, [], []),
    "private-key": ({"guardops_key": {"provider": "gpg_recipients", "private_key_file": "/k"}}, [], []),
    "elsewhere": ({"gateway_listen_host": "::", "gateway_listen_port": 8443, **TLS}, ["/etc/gateway.pem"], []),
    "own-url": ({"patrol_health_url": "", **TLS}, ["/etc/gateway.pem"], []),
}  # fmt: skip
HEALTH = {"elsewhere": "https://[::1]:8443/health", "own-url": ""}


def test_what_other_roles_were_told_is_looked_at(tmp_path: pathlib.Path) -> None:
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    hosts = {name: {**local, **variables} for name, (variables, _certificates, _keys) in HOSTS.items()}
    controller = Controller(tmp_path / "controller", {})
    (tmp_path / "hosts.json").write_text(json.dumps({"guard": {"hosts": hosts}}))
    # The three roles of one play, with all that they say of variables, and nothing that they do.
    for role in ("gateway", "backup", "patrol"):
        (tmp_path / "roles" / role).mkdir(parents=True)
        for part in ("defaults", "vars"):
            (tmp_path / "roles" / role / part).symlink_to(ROOT / "roles" / role / part)
    write = {"content": "{{ _patrol_host_settings | to_json }}", "dest": f"{tmp_path}/{{{{ inventory_hostname }}}}"}
    (tmp_path / "roles" / "patrol" / "tasks").mkdir()
    (tmp_path / "roles" / "patrol" / "tasks" / "main.yml").write_text(yaml.safe_dump([{"ansible.builtin.copy": write}]))
    play = {"hosts": "guard", "gather_facts": False, "roles": ["gateway", "backup", "patrol"]}
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    done = subprocess.run(
        [find_tool("ansible-playbook"), "--inventory", str(tmp_path / "hosts.json"), str(tmp_path / "play.yml")],
        env=controller.environment(), cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for name, (variables, certificates, keys) in HOSTS.items():
        told = json.loads((tmp_path / name).read_text())
        assert (name, told["certificates"], told["openpgp_keys"]) == (name, certificates, keys)
        scheme = "https" if variables.get("gateway_tls_certificate") else "http"
        assert (name, told["health_url"]) == (name, HEALTH.get(name, f"{scheme}://127.0.0.1:8080/health"))
