# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""roles/backup/files/alert.py tells once, again after a day, and when the unit works again; and what it did."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest

from support.checkout import ROOT

SCRIPT = ROOT / "roles" / "backup" / "files" / "alert.py"
UNIT = "qwen3guard-backup@logs.service"


class Alerts(t.NamedTuple):
    """The script with its settings, and programs in the place of systemd's."""

    place: Path

    @property
    def record(self) -> Path:
        return self.place / "failures" / f"{UNIT}.json"

    def run(
        self, event: str, command: str | None = "", program: Path = SCRIPT, reports: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        told = command or f'echo "$*" >>{self.place}/told'
        words = [] if command is None else ["/bin/sh", "-c", told, "sh"]
        settings = {"failures": str(self.record.parent), "command": words}
        (self.place / "alert.json").write_text(json.dumps(settings))
        return subprocess.run(
            [sys.executable, str(program), str(self.place / "alert.json"), event, UNIT,
             *([str(reports)] if reports else [])],
            env={**os.environ, "PATH": f"{self.place}/bin:{os.environ['PATH']}"},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def told(self) -> list[str]:
        path = self.place / "told"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def alerts(tmp_path: Path) -> Alerts:
    answers = {
        "systemctl": "Description=Load it\\nResult=exit-code\\nExecMainStatus=2\\nInvocationID=abc\\n",
        "journalctl": "last words\\n",
    }
    (tmp_path / "bin").mkdir()
    for name, answer in answers.items():
        path = tmp_path / "bin" / name
        path.write_text(f"#!/bin/sh\nprintf '{answer}'\n")
        path.chmod(0o755)
    return Alerts(tmp_path)


def test_one_failed_unit_is_one_alert(alerts: Alerts) -> None:
    outputs = [alerts.run("raise") for _count in range(3)]
    assert alerts.told() == [f"{UNIT} raised"]
    assert [output.stdout.count("<3>") for output in outputs] == [1, 0, 0]
    record = json.loads(alerts.record.read_text())
    assert (record["count"], record["exit_status"], record["lines"]) == (3, "2", ["last words"])


def test_reminder_after_a_day(alerts: Alerts) -> None:
    alerts.run("raise")
    record = json.loads(alerts.record.read_text())
    yesterday = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1, seconds=1)
    alerts.record.write_text(json.dumps({**record, "told": yesterday.isoformat()}))
    alerts.run("raise")
    alerts.run("raise")
    assert alerts.told() == [f"{UNIT} raised", f"{UNIT} still-failing"]


def test_cleared_once(alerts: Alerts) -> None:
    assert alerts.run("clear").returncode == 0  # nothing to clear
    alerts.run("raise")
    for _count in range(2):
        assert alerts.run("clear").returncode == 0
    assert not alerts.record.exists()
    assert alerts.told() == [f"{UNIT} raised", f"{UNIT} cleared"]


@pytest.mark.parametrize("command", ["exit 1", "kill -9 $$"])
def test_alert_that_reached_nobody_is_tried_again(alerts: Alerts, command: str) -> None:
    failed = alerts.run("raise", command)
    assert failed.returncode == 1
    assert "Nobody may know" in failed.stdout
    assert alerts.run("raise").returncode == 0
    assert alerts.told() == [f"{UNIT} still-failing"]


def test_program_beside_it_is_told_where_no_other_is_named(alerts: Alerts) -> None:
    """The role patrol puts it there."""
    place = alerts.place / "libexec"
    place.mkdir()
    script = place / "alert.py"
    script.write_bytes(SCRIPT.read_bytes())
    assert alerts.run("raise", None, program=script).returncode == 0
    (place / "tell").write_text(f'#!/bin/sh\necho "$*" >>{alerts.place}/told\n')
    assert alerts.run("clear", None, program=script).returncode == 0  # it may not be run
    (place / "tell").chmod(0o755)
    alerts.run("raise", None, program=script)
    assert alerts.told() == [f"{UNIT} raised"]
    alerts.run("clear", "true", program=script)
    assert alerts.told() == [f"{UNIT} raised"]


@pytest.mark.parametrize(("record", "event"), [('{"told": 7', "raised"), ('{"count": "x"}', "still-failing")])
def test_damaged_record_does_not_silence(alerts: Alerts, record: str, event: str) -> None:
    alerts.record.parent.mkdir()
    alerts.record.write_text(record)
    alerts.run("raise")
    assert alerts.told() == [f"{UNIT} {event}"]


def test_end_that_reached_nobody_is_tried_again(alerts: Alerts) -> None:
    alerts.run("raise")
    assert alerts.run("clear", "exit 1").returncode == 1
    assert alerts.told() == [f"{UNIT} raised"]
    alerts.run("raise")  # it fails again, and nobody has heard that it worked
    for _count in range(2):
        assert alerts.run("clear").returncode == 0
    assert alerts.told() == [f"{UNIT} raised", f"{UNIT} cleared"]


def test_disk_that_takes_nothing_does_not_silence(alerts: Alerts) -> None:
    alerts.record.parent.touch()  # as it would be where it is full: the record cannot be written
    done = alerts.run("raise")
    assert (done.returncode, alerts.told()) == (1, [f"{UNIT} raised"])
    assert f"{alerts.record}: expected a file that can be written" in done.stdout
    assert "Traceback" not in done.stderr


SLOW = """
import runpy, subprocess, sys
run = subprocess.run
def slow(command, **more):
    if command[0] == "journalctl":
        raise subprocess.TimeoutExpired(command, more["timeout"])
    return run(command, **more)
subprocess.run = slow
runpy.run_path({script!r}, run_name="__main__")
"""


def test_journal_that_does_not_answer_does_not_silence(alerts: Alerts) -> None:
    slow = alerts.place / "slow.py"
    slow.write_text(SLOW.format(script=str(SCRIPT)))
    assert alerts.run("raise", program=slow).returncode == 0
    record = json.loads(alerts.record.read_text())
    assert (alerts.told(), record["exit_status"], record["lines"]) == ([f"{UNIT} raised"], "2", [])


REPORT = [
    {"check": ["logs", "loaded"], "snapshot": "000007-0f", "level": "loaded", "seconds": 12.5,
     "not_checked": ["canaries"]},
    {"layer": "logs", "reason": "new records", "snapshot": "000008-0f", "seconds": 2.0},
    {"layer": "logs", "removed": ["000001-0f"], "keep": [{}, {}], "seconds": 1.0, "not_checked": [],
     "cold": {"changed": True, "storage_class": "STANDARD_IA"}},
]  # fmt: skip
TOLD = [
    "logs 000007-0f: loaded in 12.5 s",
    "logs, not checked: canaries",
    "logs: new records in 2.0 s: 000008-0f",
    "logs: 1 snapshots removed, 2 stay, in 1.0 s; old parts go to STANDARD_IA",
]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (json.dumps(REPORT), TOLD),
        ('{"cut', ["Its journal says what it did."]),
        ("7", ["Its journal says what it did."]),
    ],
)
def test_result_is_told_each_time(alerts: Alerts, content: str, told: list[str]) -> None:
    """As text that the command reads; its arguments name the unit only."""
    reports = alerts.place / "reports"
    reports.mkdir()
    (reports / "guard-01-verify.json").write_text(content)
    for _count in range(2):
        output = alerts.run("succeed", f'echo "$*" >>{alerts.place}/told; cat >{alerts.place}/text', reports=reports)
        assert (output.returncode, output.stdout) == (0, f"<5>{UNIT} succeeded.\n")
    assert alerts.told() == [f"{UNIT} succeeded"] * 2
    assert (alerts.place / "text").read_text().splitlines() == ["Load it: done.", *told]
    assert not alerts.record.exists()


def test_result_that_reached_nobody_is_in_the_journal(alerts: Alerts) -> None:
    output = alerts.run("succeed", "exit 1", reports=alerts.place)
    assert (output.returncode, "Nobody may know" in output.stdout) == (1, True)
