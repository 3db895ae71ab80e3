# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What upgrade.yml left in the repository: a snapshot of the models from before each switch."""

from __future__ import annotations

import json
import pathlib

import pytest
import testinfra

MODELS = "/data/qwen3guard-gen-web/models"
STORE = "/srv/store/guard-01/model"
PREFIX = "/opt/guardops-qwen3guard"


@pytest.fixture
def guard(host: testinfra.host.Host) -> testinfra.host.Host:
    if host.system_info.codename == "bookworm":
        pytest.skip("this Podman has no Quadlet, so there was nothing to upgrade")
    return host


def snapshots(host: testinfra.host.Host) -> dict[str, float]:
    """When each one came to be: its manifest is written last."""
    listed = host.check_output(f"cd {STORE} && stat --format='%n %.Y' */manifest.json")
    return {name.split("/")[0]: float(time) for name, time in map(str.split, listed.splitlines())}


def sums(host: testinfra.host.Host, directory: str) -> dict[str, str]:
    """Names and checksums of all files below it."""
    listed = host.check_output(f"cd {directory} && find . -type f -exec sha256sum {{}} +")
    return {name: checksum for checksum, name in (line.split(maxsplit=1) for line in listed.splitlines())}


def test_snapshots_come_before_the_switches(guard: testinfra.host.Host) -> None:
    """One before the first try, one before the upgrade that succeeded. The models changed between these only."""
    stopped = guard.check_output("journalctl --unit=qwen3guard.service --output=short-unix --grep='^Stopping '")
    stops = [float(line.split()[0]) for line in stopped.splitlines() if line[0].isdigit()]
    first, second = sorted(snapshots(guard).values())
    assert first < stops[0] < second < stops[-1]


def test_old_model_comes_back_from_either(guard: testinfra.host.Host) -> None:
    today = sums(guard, MODELS)
    assert {name.split("/")[1] for name in today} == {"one", "two"}
    for name, more in zip(sorted(snapshots(guard)), ({"wrong", "broken"}, set()), strict=True):
        target = pathlib.PurePath("/srv/restored", name)
        options = {
            "instance": "guard-01",
            "layer": "model",
            "snapshot": name,
            "path": str(target),
            "repository": "/srv/store",
            "key": {"provider": "file", "key_file": "/etc/guardops-qwen3guard/trial.key"},
        }
        command = (
            f"ANSIBLE_CONFIG=/etc/guardops-qwen3guard/ansible.cfg PATH={PREFIX}/venv/bin:$PATH ansible localhost "
            f"--connection=local --extra-vars=ansible_python_interpreter={PREFIX}/venv/bin/python "
            "--module-name=guardops.qwen3guard.restore --args=%s"
        )
        guard.run_expect([0], command, json.dumps(options))
        back = sums(guard, str(target))
        assert {path: back[path] for path in today} == today
        assert {path.split("/")[1] for path in back.keys() - today.keys()} == more
        guard.run_expect([0], f"rm -r {target}")
