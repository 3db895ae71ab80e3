# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the collection's playbooks against localhost as a user does. For tests and the demo; needs no pytest."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import typing as t

from .checkout import ROOT, find_tool

HOST = "localhost"
# Nothing that a user has set for other work may lead us elsewhere.
_FOREIGN = ("ANSIBLE_", "AWS_", "RCLONE_", "GIT_")

Results = dict[str, list[dict[str, t.Any]]]  # by layer


class Controller:
    """A directory with an inventory, a configuration and the collection; all that Ansible writes stays in it.

    ``variables`` are the inventory's, for the host localhost in the group guard.
    """

    def __init__(self, directory: pathlib.Path, variables: dict[str, t.Any]):
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        host = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        inventory = {"guard": {"hosts": {HOST: host}, "vars": variables}}
        (directory / "inventory.json").write_text(json.dumps(inventory, indent=2) + "\n", encoding="utf-8")
        (directory / "ansible.cfg").write_text(self._configuration(), encoding="utf-8")

    def command(self, name: str, *flags: str, **extra: t.Any) -> list[str]:
        """The argument list that runs ``guardops.qwen3guard.NAME``: flags such as --check, and extra variables."""
        playbook, inventory = f"guardops.qwen3guard.{name}", str(self.directory / "inventory.json")
        return [
            find_tool("ansible-playbook"),
            "--inventory",
            inventory,
            *flags,
            "--extra-vars",
            json.dumps(extra),
            playbook,
        ]

    def environment(self) -> dict[str, str]:
        """The environment for it: the virtual environment's programs first in PATH."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        environment["ANSIBLE_CONFIG"] = str(self.directory / "ansible.cfg")
        environment["PATH"] = os.path.dirname(find_tool("rclone")) + os.pathsep + environment.get("PATH", os.defpath)
        environment["PYTHONDONTWRITEBYTECODE"] = "1"  # nothing is left beside the sources
        return environment

    def _configuration(self) -> str:
        home = self.directory / "ansible"
        return "\n".join((
            "[defaults]",
            f"home = {home}",
            f"local_tmp = {home / 'tmp'}",
            f"remote_tmp = {home / 'tmp'}",
            f"collections_path = {self._link_collection()}",
            "pipelining = true",
            "nocows = true",
            "stdout_callback = ansible.builtin.default",
            "",
        ))  # fmt: skip

    def _link_collection(self) -> pathlib.Path:
        """A folder in which the checkout is guardops.qwen3guard, as if it were installed."""
        link = self.directory / "collections" / "ansible_collections" / "guardops" / "qwen3guard"
        link.parent.mkdir(parents=True)
        link.symlink_to(ROOT, target_is_directory=True)
        return self.directory / "collections"


def read_report(directory: pathlib.Path, name: str) -> Results:
    """What a playbook wrote to its ``guardops_report_dir``; nothing where it wrote no report."""
    path = directory / f"{HOST}-{name}.json"
    results: Results = {}
    for result in json.loads(path.read_text(encoding="utf-8")) if path.exists() else []:
        layer = result["check"][0] if "check" in result else result.get("layer", "")
        results.setdefault(layer, []).append(result)
    return results


class PlaybookRun(t.NamedTuple):
    """What came of it."""

    rc: int
    output: str
    report: dict[str, dict[str, t.Any]]  # by layer, the last one of each

    def succeeded(self) -> dict[str, dict[str, t.Any]]:
        """The report; an assertion with Ansible's own words where it failed."""
        assert self.rc == 0, self.output
        return self.report

    def changed(self) -> dict[str, bool]:
        """By layer, of a run that must have succeeded."""
        return {layer: result["changed"] for layer, result in self.succeeded().items()}


class Playbooks:
    """Runs them one after the other, each to its end."""

    def __init__(self, directory: pathlib.Path, variables: dict[str, t.Any]):
        self.reports = directory / "reports"
        self.reports.mkdir(parents=True)
        self.controller = Controller(directory, {**variables, "guardops_report_dir": str(self.reports)})

    def run(self, name: str, *flags: str, **extra: t.Any) -> PlaybookRun:
        """Run ``guardops.qwen3guard.NAME``; ``flags`` such as --check, ``extra`` variables."""
        for old in self.reports.iterdir():
            old.unlink()
        done = subprocess.run(
            self.controller.command(name, *flags, **extra),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.controller.environment(),
            cwd=self.controller.directory,
            timeout=600,
            check=False,
        )
        report = read_report(self.reports, name)
        return PlaybookRun(done.returncode, done.stdout, {layer: results[-1] for layer, results in report.items()})
