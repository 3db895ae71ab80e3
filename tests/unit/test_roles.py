# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What holds for all roles: what is documented is what there is, under names of their own."""

from __future__ import annotations

import pathlib
import typing as t

import pytest
import yaml

from support.checkout import ROOT

ROLES = sorted(path.parents[1].name for path in ROOT.glob("roles/*/meta/argument_specs.yml"))


def load(role: str, path: str) -> dict[str, t.Any]:
    text = pathlib.Path(ROOT / "roles" / role / path).read_text(encoding="utf-8")
    return yaml.safe_load(text) or {}


def options_of(role: str) -> dict[str, dict[str, t.Any]]:
    return load(role, "meta/argument_specs.yml")["argument_specs"]["main"]["options"]


def test_roles_were_found() -> None:
    assert "storage" in ROLES


@pytest.mark.parametrize("role", ROLES)
def test_documented_options_are_the_defaults(role: str) -> None:
    defaults = load(role, "defaults/main.yml")
    # A required option has no default to be set to.
    documented = {name: option for name, option in options_of(role).items() if not option.get("required")}
    assert sorted(documented) == sorted(defaults)
    assert {name: option["default"] for name, option in documented.items()} == defaults


@pytest.mark.parametrize("role", ROLES)
def test_names_begin_with_the_role(role: str) -> None:
    assert not [name for name in options_of(role) if not name.startswith(f"{role}_")]
    for path in sorted((ROOT / "roles" / role / "vars").glob("*.yml")):
        assert not [name for name in yaml.safe_load(path.read_text()) if not name.startswith(f"_{role}_")]


@pytest.mark.parametrize("role", ROLES)
def test_readme_names_every_option(role: str) -> None:
    readme = pathlib.Path(ROOT / "roles" / role / "README.md").read_text(encoding="utf-8")
    assert not [name for name in options_of(role) if f"`{name}`" not in readme]


def test_roles_in_one_play_do_not_take_each_others_handlers() -> None:
    """Handlers of all roles of a play share their names, and the last one of a name is the one that runs."""
    found: dict[str, tuple[str, t.Any]] = {}
    for path in sorted(ROOT.glob("roles/*/handlers/main.yml")):
        for handler in yaml.safe_load(path.read_text(encoding="utf-8")):
            role, other = found.setdefault(handler["name"], (path.parents[1].name, handler))
            assert handler == other, f"{handler['name']}: {role} and {path.parents[1].name} mean different things"
    assert "Restart the gateway" in found


def tasks_of(items: t.Any) -> t.Iterator[dict[str, t.Any]]:
    """All tasks of a file or of a play, those in blocks too."""
    for item in items or []:
        if isinstance(item, dict):
            yield item
            for part in ("tasks", "pre_tasks", "post_tasks", "block", "rescue", "always"):
                yield from tasks_of(item.get(part))


def test_what_is_not_logged_is_not_shown_by_a_loop_over_its_results() -> None:
    """An item that fails is shown whole, whatever its label is: with the secret that the registered result has."""
    files = sorted(path for top in ("roles/*/tasks", "playbooks") for path in ROOT.glob(f"{top}/**/*.yml"))
    tasks = [
        (path, task)
        for path in files
        if path.parent.name != "vars"
        for task in tasks_of(yaml.safe_load(path.read_text(encoding="utf-8")))
    ]
    secret = {task["register"] for _path, task in tasks if task.get("no_log") and "register" in task}
    assert "__guard_answers" in secret
    shown = [
        f"{path.relative_to(ROOT)}: {task['name']}"
        for path, task in tasks
        if not task.get("no_log") and any(f"{name}.results" in str(task.get("loop")) for name in secret)
    ]
    assert not shown
