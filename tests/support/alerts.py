# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module alert as Ansible runs it, with verdicts."""

from __future__ import annotations

import json
import pathlib
import typing as t

from .forked_modules import run_forked
from .modules import ModuleRun

FAILURE = {
    "check": "snapshot", "thing": "logs", "expected": "one younger than 24 hours",
    "found": "000012-3f9a2c1d, 30 hours ago", "hint": "Look at the timer.",
    "instance": "guard-01",
}  # fmt: skip
BAD: dict[str, t.Any] = {"ok": False, "failures": [FAILURE], "warnings": [], "not_checked": []}
GOOD: dict[str, t.Any] = {"ok": True, "failures": [], "warnings": [], "not_checked": []}


class Alerts:
    """Runs the module for one source; what it prints and remembers is searched for secrets."""

    def __init__(self, state: pathlib.Path):
        self.state = state
        self.secrets: list[str] = []

    def run(self, verdict: dict[str, t.Any], *urls: str, **more: t.Any) -> ModuleRun:
        arguments = {"source": "guard-01", "verdict": verdict, "urls": list(urls), "memory_dir": str(self.state)}
        check = more.pop("check", False)
        done = run_forked("alert", {**arguments, **more}, {}, check=check)
        remembered = (
            [path.read_text() for path in self.state.rglob("*") if path.is_file()] if self.state.exists() else []
        )
        for secret in self.secrets:
            for text in (json.dumps(done.result), done.stderr, *remembered):
                assert secret not in text
        return done
