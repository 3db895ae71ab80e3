# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run modules as processes that need not import Ansible first: ten times as fast as support.modules.

A server that has imported everything forks a process for each run. For tests that run modules by the hundred; what
depends on how a module starts is tested with support.modules.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import sys
import tempfile
import typing as t

from .modules import ModuleRun, module_environment, module_input

_PACKAGE = "ansible_collections.guardops.qwen3guard.plugins.modules"
_NAMES = ("backup", "restore", "verify", "snapshot_info", "audit_trace", "patrol", "alert", "fence", "prune")
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [__name__, "ansible.module_utils.basic", "concurrent.futures.thread", *(f"{_PACKAGE}.{n}" for n in _NAMES)]
)


def run_forked(
    name: str,
    args: dict[str, t.Any],
    env: dict[str, str],
    timeout: float = 120,
    user: int | None = None,
    check: bool = False,
) -> ModuleRun:
    """Run a module to its end; as that numeric user and group where one is given, which needs root."""
    with tempfile.NamedTemporaryFile() as output, tempfile.NamedTemporaryFile() as errors:
        process = _CONTEXT.Process(
            target=_work,
            args=(name, module_input(args, check=check), module_environment(env), user, output.name, errors.name),
        )
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise TimeoutError(f"{name} did not end within {timeout:.0f} s")
        told, said = output.read().decode(), errors.read().decode()
        rc = process.exitcode
        process.close()
    lines = [line for line in told.splitlines() if line.startswith("{")]
    assert lines, f"{name} printed no result\n{told}\n{said}"
    return ModuleRun(json.loads(lines[-1]), rc, said)


def _work(name: str, arguments: bytes, env: dict[str, str], user: int | None, output: str, errors: str) -> None:
    basic = importlib.import_module("ansible.module_utils.basic")
    module = importlib.import_module(f"{_PACKAGE}.{name}")
    for path, number in ((output, 1), (errors, 2)):
        os.dup2(os.open(path, os.O_WRONLY), number)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    os.environ.clear()
    os.environ.update(env)
    tempfile.tempdir = None  # chosen by another environment
    if user is not None:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    basic._ANSIBLE_ARGS = arguments
    basic._ANSIBLE_PROFILE = "legacy"
    module.main()
