# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run a module of the collection as Ansible does on a host: a process of its own, JSON in, JSON out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import typing as t

from .checkout import ROOT, find_tool, link_collection


class ModuleRun(t.NamedTuple):
    """What came of it."""

    result: dict[str, t.Any]
    rc: int
    stderr: str

    @property
    def failed(self) -> bool:
        """As Ansible sees it."""
        return self.rc != 0 or bool(self.result.get("failed"))

    def succeeded(self) -> dict[str, t.Any]:
        """The result; an assertion with the module's own words where it failed."""
        assert not self.failed, f"{self.result.get('msg')}\n{self.result}\n{self.stderr}"
        return self.result


def module_command(name: str) -> list[str]:
    """The argument list that runs a module."""
    return [sys.executable, str(ROOT / "plugins" / "modules" / f"{name}.py")]


def module_environment(extra: dict[str, str] | None = None) -> dict[str, str]:
    """The environment it runs in: the virtual environment's programs first in PATH."""
    path = os.pathsep.join([os.path.dirname(find_tool("rclone")), os.environ.get("PATH", "/usr/bin:/bin")])
    return {**os.environ, "PATH": path, "PYTHONPATH": str(link_collection()), **(extra or {})}


def module_input(args: dict[str, t.Any], *, check: bool = False, diff: bool = False) -> bytes:
    """What goes to its stdin."""
    internal = {"_ansible_check_mode": check, "_ansible_diff": diff, "_ansible_remote_tmp": "/tmp"}
    return json.dumps({"ANSIBLE_MODULE_ARGS": {**args, **internal}}).encode()


def run_module(
    name: str,
    args: dict[str, t.Any],
    *,
    check: bool = False,
    diff: bool = False,
    env: dict[str, str] | None = None,
    timeout: float = 300,
) -> ModuleRun:
    """Run it to its end."""
    done = subprocess.run(
        module_command(name),
        input=module_input(args, check=check, diff=diff),
        capture_output=True,
        env=module_environment(env),
        timeout=timeout,
        check=False,
    )
    lines = [line for line in done.stdout.decode().splitlines() if line.startswith("{")]
    assert lines, f"{name} printed no result\n{done.stdout.decode()}\n{done.stderr.decode()}"
    return ModuleRun(json.loads(lines[-1]), done.returncode, done.stderr.decode())
