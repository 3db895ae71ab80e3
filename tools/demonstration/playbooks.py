# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the collection's playbooks as a user does, and watch their progress."""

from __future__ import annotations

import contextlib
import json
import pathlib
import subprocess
import time
import typing as t

from support.playbooks import Controller, Results, read_report

from .screen import Screen, amount

_LOOK_EVERY = 0.2  # seconds
_LOG_TAIL = 60


class DemoFailed(Exception):
    """Something did not go as it must; the text says what, and where to look."""


class WatchedPlaybooks:
    """``directory`` holds what they need (configuration, inventory) and what they leave (logs, reports)."""

    def __init__(self, directory: pathlib.Path, variables: dict[str, t.Any], screen: Screen):
        self.directory = directory
        self.screen = screen
        self._runs = 0
        self._progress = directory / "progress"
        self._progress.mkdir()
        (directory / "logs").mkdir()
        self._controller = Controller(directory, {**variables, "guardops_progress_dir": str(self._progress)})

    def run(self, name: str, **variables: t.Any) -> Results:
        """Run a playbook to its end, and return its report."""
        self._runs += 1
        reports = self.directory / "reports" / f"{self._runs}-{name}"
        reports.mkdir(parents=True)
        log = self.directory / "logs" / f"{self._runs}-{name}.log"
        for old in self._progress.iterdir():
            old.unlink()
        with log.open("wb") as output:
            process = subprocess.Popen(
                self._controller.command(name, guardops_report_dir=str(reports), **variables),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._controller.environment(),
                cwd=self.directory,
                start_new_session=True,  # Ctrl-C comes to us alone, and we end what runs, in order
            )
        while process.poll() is None:
            self.screen.live(self._how_far())
            time.sleep(_LOOK_EVERY)
        self.screen.clear()
        if process.returncode:
            tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_TAIL:])
            raise DemoFailed(f"the playbook {name} ended with {process.returncode} ({log}):\n\n{tail}")
        return read_report(reports, name)

    def _how_far(self) -> str:
        """The newest progress file in words. The playbook may just replace it; then the next look sees more."""
        with contextlib.suppress(OSError, ValueError):
            newest = max(self._progress.glob("*.json"), key=lambda path: path.stat().st_mtime, default=None)
            if newest is not None:
                told = json.loads(newest.read_text(encoding="utf-8"))
                text = f"{newest.stem}: {told['phase']}"
                if told["of_bytes"]:
                    text += f", {amount(told['bytes'])} of {amount(told['of_bytes'])}"
                return text
        return "ansible-playbook starts"
