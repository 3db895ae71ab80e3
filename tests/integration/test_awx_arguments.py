# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every task of role awx against the argument spec that the module of awx.awx really has."""

from __future__ import annotations

import importlib
import pathlib
import sys
import typing as t

import pytest
import yaml

from support.checkout import ROOT
from support.galaxy import other_collections

ROLE = ROOT / "roles" / "awx"


def tasks_of(path: pathlib.Path) -> t.Iterator[dict[str, t.Any]]:
    todo = yaml.safe_load(path.read_text(encoding="utf-8"))
    while todo:
        task = todo.pop()
        todo += task.get("block", [])
        yield task


TASKS = [
    pytest.param(name, task[name], id=f"{path.stem}: {task['name']}")
    for path in sorted((ROLE / "tasks").glob("*.yml"))
    for task in tasks_of(path)
    for name in task
    if name.startswith("awx.awx.")
]


class _Seen(Exception):
    """Raised by the stand-in for the modules' base class, with the argument spec."""


def argument_spec(module: str) -> dict[str, dict[str, t.Any]]:
    folder = str(other_collections())
    if folder not in sys.path:
        sys.path.append(folder)
    importlib.invalidate_caches()
    imported = importlib.import_module(f"ansible_collections.awx.awx.plugins.modules.{module}")

    def stop(argument_spec: dict[str, t.Any], **_rest: t.Any) -> t.NoReturn:
        raise _Seen(argument_spec)

    patch = pytest.MonkeyPatch()
    patch.setattr(imported, "ControllerAPIModule", stop)
    try:
        imported.main()
    except _Seen as seen:
        return t.cast("dict[str, dict[str, t.Any]]", seen.args[0])
    finally:
        patch.undo()
    raise AssertionError(f"{module} did not ask for its arguments")


def test_tasks_were_found() -> None:
    assert len(TASKS) > 20


@pytest.mark.parametrize(("module", "arguments"), TASKS)
def test_a_tasks_options_are_the_modules(module: str, arguments: dict[str, t.Any]) -> None:
    spec = argument_spec(module.rpartition(".")[2])
    assert not set(arguments) - set(spec)
    assert {name for name, option in spec.items() if option.get("required")} <= set(arguments)
    for name, value in arguments.items():
        if spec[name].get("choices") and "{{" not in str(value):
            assert value in spec[name]["choices"]
