# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""AWX's schedules and the hosts' timers are the same ones, and docs/schedules.md names them."""

from __future__ import annotations

import datetime as dt
import pathlib
import re
import shutil
import subprocess
import typing as t

import pytest
import yaml

from support.checkout import ROOT

SAME = {
    "logs every hour": "backup_logs_schedule",
    "config every hour": "backup_config_schedule",
    "logs in full every day": "backup_logs_full_schedule",
    "patrol every day": "patrol_schedules",
    "quick verification every day": "backup_verify_schedule",
    "full verification every Friday": "backup_verify_full_schedule",
    "report every day": "patrol_report_schedules",
    "retention every day": "backup_prune_schedule",
}
DAYS = {"FR": "Fri", "WE": "Wed"}


def load(path: str) -> dict[str, t.Any]:
    return t.cast("dict[str, t.Any]", yaml.safe_load(pathlib.Path(ROOT / path).read_text(encoding="utf-8")))


SCHEDULES = {schedule["name"]: schedule for schedule in load("roles/awx/vars/main.yml")["_awx_schedules"]}


def as_calendar(schedule: dict[str, t.Any]) -> str:
    """The rule in the words of systemd's OnCalendar."""
    rule = dict(part.split("=") for part in schedule["rule"].split(";"))
    assert rule["INTERVAL"] == "1"
    if rule["FREQ"] == "HOURLY":
        return "hourly"
    time = schedule["first"].partition("T")[2]
    day = f"{DAYS[rule['BYDAY']]} " if rule["FREQ"] != "DAILY" else ""
    if rule["FREQ"] == "MONTHLY":
        assert rule["BYSETPOS"] == "1"
    date = "01..07" if rule["FREQ"] == "MONTHLY" else "*"  # the first of such a day in a month
    return f"{day}*-*-{date} {time[:2]}:{time[2:4]}:{time[4:]}"


@pytest.mark.parametrize("name", SAME)
def test_awx_and_the_timers_agree(name: str) -> None:
    variable = SAME[name]
    timer = load(f"roles/{variable.partition('_')[0]}/defaults/main.yml")[variable]
    assert [as_calendar(SCHEDULES[name])] == (timer if isinstance(timer, list) else [timer])


def test_the_drill_of_a_controller_is_the_same(tmp_path: pathlib.Path) -> None:
    """Its units are in the document, to be copied: systemd takes them, less the paths that are the user's."""
    text = (ROOT / "docs" / "schedules.md").read_text(encoding="utf-8")
    units = dict(re.findall(r"```ini\n# /etc/systemd/system/(\S+)\n(.*?)```", text, re.DOTALL))
    assert sorted(units) == ["qwen3guard-drill.service", "qwen3guard-drill.timer"]
    assert f"OnCalendar={as_calendar(SCHEDULES['drill every month'])}\n" in units["qwen3guard-drill.timer"]
    for name, unit in units.items():
        (tmp_path / name).write_text(re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", unit), encoding="utf-8")
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not there")
    paths = [str(tmp_path / name) for name in units]
    judged = subprocess.run(["systemd-analyze", "verify", *paths], capture_output=True, text=True, check=False)
    assert "qwen3guard-drill" not in judged.stderr


def test_neither_removes_before_somebody_says_so() -> None:
    assert load("roles/awx/defaults/main.yml")["awx_prune"] is False
    assert load("roles/backup/defaults/main.yml")["backup_retention"] == {}


def test_both_tell_the_result_of_the_weekly_verification() -> None:
    runs = SCHEDULES["full verification every Friday"]["runs"]
    assert runs.endswith("notify")
    assert load("roles/backup/defaults/main.yml")["backup_told"] == ["verify-full"]


def test_both_verify_the_same_sample() -> None:
    sample = load("roles/backup/defaults/main.yml")["backup_verify_sample"]
    assert SCHEDULES["quick verification every day"]["answers"]["guardops_sample"] == sample


def test_the_report_comes_after_what_it_tells() -> None:
    times = {name: schedule["first"].partition("T")[2] for name, schedule in SCHEDULES.items()}
    assert times["patrol every day"] < times["quick verification every day"] < times["report every day"]


def test_the_first_date_fits_the_rule() -> None:
    """AWX shows it as the first run."""
    for schedule in SCHEDULES.values():
        first = dt.datetime.strptime(schedule["first"], "%Y%m%dT%H%M%S").replace(tzinfo=dt.timezone.utc)
        if found := re.search(r"BYDAY=(\w\w)", schedule["rule"]):
            assert first.strftime("%a")[:2].upper() == found[1]


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_the_document_names_it(schedule: dict[str, t.Any]) -> None:
    table = (ROOT / "docs" / "schedules.md").read_text(encoding="utf-8")
    assert f"`{schedule['name']}` → `{schedule['runs']}`" in table


def test_the_document_has_the_timers_variables() -> None:
    table = (ROOT / "docs" / "schedules.md").read_text(encoding="utf-8")
    assert [name for name in SAME.values() if f"`{name}`" not in table] == []


def test_the_document_makes_a_playbook_for_each_of_ours() -> None:
    text = (ROOT / "docs" / "schedules.md").read_text(encoding="utf-8")
    (listed,) = re.findall(r"for name in ([\w ]+); do", text)
    assert sorted(listed.split()) == sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml"))
