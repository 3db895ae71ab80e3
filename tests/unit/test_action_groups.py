# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The action groups of meta/runtime.yml hold exactly the modules that take the options they are for."""

from __future__ import annotations

import importlib
import typing as t

import pytest
import yaml

from ansible_collections.guardops.qwen3guard.plugins.doc_fragments import key, repository
from support.checkout import ROOT

FRAGMENTS = {
    "guardops.qwen3guard.repository": repository.ModuleDocFragment.DOCUMENTATION,
    "guardops.qwen3guard.key": key.ModuleDocFragment.DOCUMENTATION,
}
MODULES = sorted(path.stem for path in (ROOT / "plugins" / "modules").glob("*.py") if path.stem != "__init__")


def options_of(module: str) -> set[str]:
    """The options that a module documents; ansible-test sees to it that it takes these and no others."""
    loaded = importlib.import_module(f"ansible_collections.guardops.qwen3guard.plugins.modules.{module}")
    documentation: dict[str, t.Any] = yaml.safe_load(loaded.DOCUMENTATION)
    options = set(documentation.get("options", ()))
    for name in documentation.get("extends_documentation_fragment", []):
        if name in FRAGMENTS:
            options |= set(yaml.safe_load(FRAGMENTS[name])["options"])
    return options


@pytest.mark.parametrize("group", ["repository", "key"])
def test_group_holds_the_modules_that_take_its_options(group: str) -> None:
    groups = yaml.safe_load((ROOT / "meta" / "runtime.yml").read_text(encoding="utf-8"))["action_groups"]
    wanted = set(yaml.safe_load(FRAGMENTS[f"guardops.qwen3guard.{group}"])["options"])
    takers = [module for module in MODULES if wanted <= options_of(module)]
    assert sorted(groups[group]) == takers
    # One that took some of the options only would fail on the others as soon as they are set for the group.
    assert not [module for module in MODULES if module not in takers and wanted & options_of(module)]


def test_modules_were_found() -> None:
    assert {"backup", "restore", "verify", "snapshot_info", "acl_snapshot"} <= set(MODULES)
