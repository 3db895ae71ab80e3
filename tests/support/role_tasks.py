# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run some of a role's tasks against localhost, with stand-ins for the programs of a host."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import typing as t

from .checkout import ROOT, find_tool, link_collection


def stand_in(directory: pathlib.Path, name: str, script: str) -> None:
    """A program of this name for ``programs`` below: a shell script."""
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)


def run_tasks(
    place: pathlib.Path,
    role: str,
    tasks: t.Sequence[str],
    *flags: str,
    programs: pathlib.Path | None = None,
    path: str = "/usr/bin:/bin",
    **variables: t.Any,
) -> subprocess.CompletedProcess[str]:
    """Run these task files, with the names of the family Debian; ``flags`` such as --check.

    With ``programs`` the host finds those in this directory before others of the name; ``path`` is where others are.
    """
    include = {"name": f"guardops.qwen3guard.{role}"}
    play: dict[str, t.Any] = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "vars": {"ansible_python_interpreter": sys.executable},
        "vars_files": [str(ROOT / "roles" / role / "vars" / "Debian.yml")],
        "tasks": [{"ansible.builtin.include_role": {**include, "tasks_from": name}} for name in tasks],
    }
    play["environment"] = {"PATH": f"{programs}:{path}" if programs else path}
    playbook = place / "play.json"
    playbook.write_text(json.dumps([play]), encoding="utf-8")
    return subprocess.run(
        [
            find_tool("ansible-playbook"),
            "--inventory=localhost,",
            f"--extra-vars={json.dumps(variables)}",
            *flags,
            str(playbook),
        ],
        env={
            **os.environ,
            "ANSIBLE_HOME": str(place / "ansible"),
            "ANSIBLE_COLLECTIONS_PATH": str(link_collection()),
            "ANSIBLE_LOCALHOST_WARNING": "0",
            "ANSIBLE_NOCOLOR": "1",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
