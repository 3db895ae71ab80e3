# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What holds for all modules."""

from __future__ import annotations

import importlib
import pathlib

import pytest
import yaml

from support.checkout import ROOT

MODULES = sorted(path.stem for path in (ROOT / "plugins" / "modules").glob("*.py"))
# Ansible gives these a meaning of its own: a list called skipped makes the task a skipped one.
RESERVED = {"failed", "skipped", "unreachable", "results", "warnings", "deprecations", "exception", "invocation"}


@pytest.mark.parametrize("name", MODULES)
def test_results_do_not_mean_something_else_to_ansible(name: str) -> None:
    module = importlib.import_module(f"ansible_collections.guardops.qwen3guard.plugins.modules.{name}")
    documented = set(yaml.safe_load(module.RETURN))
    assert documented
    assert not documented & RESERVED


@pytest.mark.parametrize("name", MODULES)
def test_modules_stay_thin(name: str) -> None:
    source = pathlib.Path(ROOT / "plugins" / "modules" / f"{name}.py").read_text(encoding="utf-8")
    code = source[source.rindex('"""') :]
    assert len(code.splitlines()) < 200
