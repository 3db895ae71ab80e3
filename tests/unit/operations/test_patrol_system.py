# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a patrol finds on a host: disks that fill, units, GPUs, certificates."""

from __future__ import annotations

import datetime
import json
import os
import pathlib
import typing as t

import pytest

from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import patrol_system
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.patrol_findings import Findings, Limits
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.gpg import Gpg

NOW = datetime.datetime(2026, 11, 23, 12, 0, tzinfo=datetime.timezone.utc)
HOUR = datetime.timedelta(hours=1)
DAY = 86400.0


def checks(found: list[t.Any]) -> set[tuple[str, str]]:
    return {(item.check, item.thing) for item in found}


# -- room ----------------------------------------------------------------------------------------------------------


def samples(*free_by_day: float) -> list[tuple[float, float]]:
    return [(number * DAY, free) for number, free in enumerate(free_by_day)]


@pytest.mark.parametrize(("history", "days"), [
    (samples(), None), (samples(9), None), (samples(9, 8), None),  # too few
    ([(0, 9.0), (60, 5.0), (120, 1.0)], None),  # too short
    (samples(9, 9, 9), None), (samples(5, 7, 9), None),  # nothing is used up
    (samples(10, 9, 8), 8), (samples(100, 80, 60, 40), 2),
    ([*samples(1e9, 1e8, 1e3), *[(when + 60 * DAY, free) for when, free in samples(10, 9, 8)]], 8),  # long ago
])  # fmt: skip
def test_days_that_are_left(history: list[tuple[float, float]], days: float | None) -> None:
    assert patrol_system.days_left(history) == (None if days is None else pytest.approx(days))


GB = 1e9
FULL_DAYS = Limits().full_days
FULL = samples(*[500 * GB] * 29)  # of a disk that nothing happens to for 29 days


def after(history: list[tuple[float, float]], *free_by_day: float) -> list[tuple[float, float]]:
    """It goes on like this, a sample a day."""
    last = history[-1][0]
    return [*history, *((last + number * DAY, free) for number, free in enumerate(free_by_day, start=1))]


def test_a_disk_that_begins_to_fill_is_told_in_time() -> None:
    """A line through a month alone says 620, 169, 58 and 18 days where these are left: 4, 3, 2, 1."""
    history, told = FULL, []
    for left in (400, 300, 200, 100, 0):
        history = after(history, left * GB)
        told.append(patrol_system.days_left(history))
    # The first time may be a sample that says nothing. From the second on it is right.
    assert told == [None, pytest.approx(3), pytest.approx(2), pytest.approx(1), 0]


@pytest.mark.parametrize("every", [1, 12, 24], ids=["hourly", "twice a day", "daily"])
def test_a_disk_that_fills_is_told_however_often_a_patrol_looks(every: int) -> None:
    hours = range(0, 24 * 33 + 1, every)
    # For a month nothing, then 150 GB a day: 50 GB are left at the end, for a third of a day.
    history = [(hour * 3600.0, (500 - 150 * max(0, hour - 24 * 30) / 24) * GB) for hour in hours]
    left = patrol_system.days_left(history)
    assert left is not None
    assert left < FULL_DAYS


@pytest.mark.parametrize("days", [2, 3, 4, 10, 40])
@pytest.mark.parametrize("every", [1, 4, 12, 24], ids=["hourly", "every 4 hours", "twice a day", "daily"])
def test_what_is_rotated_every_day_is_no_trend(every: int, days: int) -> None:
    """Logs take up to 200 of 300 GB until they are rotated, at any hour."""
    for rotated in range(24):
        history = [
            (hour * 3600.0, (300 - 200 * ((hour - rotated) % 24) / 24) * GB) for hour in range(0, 24 * days + 1, every)
        ]
        left = patrol_system.days_left(history)
        assert left is None or left > 3 * FULL_DAYS, (rotated, left)


@pytest.mark.parametrize("history", [
    after(FULL, 20 * GB),
    after(FULL, 20 * GB, 500 * GB),
    after(FULL, 20 * GB, 500 * GB, 500 * GB),
    samples(500, 500, 20), samples(500, 20, 500), samples(20, 500, 500), samples(500, 500, 500, 20),
    samples(900, 500, 500),  # somebody had just made room
], ids=lambda history: f"{len(history)} samples")  # fmt: skip
def test_one_sample_alone_does_not_alarm(history: list[tuple[float, float]]) -> None:
    """A restore that needs room for some minutes."""
    assert patrol_system.days_left(history) is None


def test_one_sample_alone_does_not_hide_a_slow_line_or_make_it_steeper() -> None:
    slow = samples(*(500 - 5 * day for day in range(30)))
    assert patrol_system.days_left(slow) == pytest.approx(71)
    # 350 GB are there again in a moment.
    assert patrol_system.days_left(after(slow, 20)) == pytest.approx(70, rel=0.05)
    assert patrol_system.days_left([*slow[:15], (15 * DAY, 20), *slow[16:]]) == pytest.approx(71, rel=0.05)
    near = samples(*(180 - 5 * day for day in range(30)))
    assert patrol_system.days_left(near) == pytest.approx(7)


@pytest.mark.parametrize("hours", [[0, 24.1, 47.8], [0, 24.2, 48.5], [0, 24.2, 47.9, 48.3, 72, 72.5]])
def test_patrols_that_come_early_late_or_twice_have_a_trend(hours: list[float]) -> None:
    left = patrol_system.days_left([(hour * 3600, (500 - 100 * hour / 24) * GB) for hour in hours])
    assert left == pytest.approx(5 - hours[-1] / 24, rel=0.05)


def test_room_is_remembered_and_its_trend_told(tmp_path: pathlib.Path) -> None:
    place = str(tmp_path)
    free = os.statvfs(place).f_bavail * os.statvfs(place).f_frsize
    state: dict[str, t.Any] = {"room": {place: [[NOW.timestamp() - n * DAY, free * (1 + n)] for n in (3, 2, 1)]}}
    state = json.loads(json.dumps(state))
    findings = Findings("guard-01")
    patrol_system.check_room([place, place], state, Limits(free_percent=0), NOW, findings)
    assert checks(findings.failures) == {("free_space_trend", place)}
    assert "used up in 1.0 days" in findings.failures[0].found
    assert len(state["room"][place]) == 4
    findings = Findings("guard-01")
    patrol_system.check_room([place, "/nowhere"], {}, Limits(free_percent=101), NOW, findings)
    assert checks(findings.failures) >= {("free_space", place), ("free_space", "/nowhere")}


# -- units ---------------------------------------------------------------------------------------------------------

SHOWN = """\
Id=qwen3guard-backup@logs.timer
LoadState=loaded
ActiveState=active
ActiveEnterTimestamp=Fri 2026-11-20 08:00:00 UTC
LastTriggerUSec=Mon 2026-11-23 11:05:02 UTC
NextElapseUSecRealtime=Mon 2026-11-23 12:05:00 UTC
NextElapseUSecMonotonic=0

Id=old.timer
LoadState=loaded
ActiveState=active
ActiveEnterTimestamp=Fri 2026-11-20 08:00:00 UTC
LastTriggerUSec=Sat 2026-11-21 11:05:02.123456 UTC
NextElapseUSecRealtime=
NextElapseUSecMonotonic=2d 3h

Id=never.timer
LoadState=loaded
ActiveState=active
ActiveEnterTimestamp=Fri 2026-11-20 08:00:00 UTC
LastTriggerUSec=n/a
NextElapseUSecRealtime=Mon 2026-11-23 12:05:00 UTC
NextElapseUSecMonotonic=0

Id=stopped.timer
LoadState=loaded
ActiveState=inactive
ActiveEnterTimestamp=n/a
LastTriggerUSec=n/a
NextElapseUSecRealtime=n/a
NextElapseUSecMonotonic=infinity

Id=lost.timer
LoadState=loaded
ActiveState=active
ActiveEnterTimestamp=Fri 2026-11-20 08:00:00 UTC
LastTriggerUSec=Mon 2026-11-23 11:05:02 UTC
NextElapseUSecRealtime=n/a
NextElapseUSecMonotonic=infinity

Id=missing.timer
LoadState=not-found
ActiveState=inactive
"""
TIMERS = {"qwen3guard-backup@logs.timer": 2, "old.timer": 24, "never.timer": 24, "stopped.timer": 0, "lost.timer": 0,
          "missing.timer": 0}  # fmt: skip


def put_program(directory: pathlib.Path, name: str, script: str) -> None:
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(f"#!/bin/sh\n{script}")
    (directory / name).chmod(0o755)


def test_units_and_timers_that_are_not_as_they_should_be(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shown").write_text(SHOWN)
    script = f"""
case "$1" in
list-units)
    echo "qwen3guard.service loaded failed failed The guard"
    echo "qwen3guard-patrol.service loaded failed failed Patrol" ;;
show) test "$TZ" = UTC && cat {tmp_path}/shown ;;
esac
"""
    put_program(tmp_path / "bin", "systemctl", script)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    findings = Findings("guard-01")
    patrol_system.check_units(["qwen3guard*"], TIMERS, NOW, findings)
    assert {(item.thing, item.found) for item in findings.failures} == {
        ("qwen3guard.service", "failed"),
        ("old.timer", "it ran 49 hours ago"),
        ("never.timer", "never, and it is active since 3 days ago"),
        ("stopped.timer", "it is not active"),
        ("lost.timer", "it waits for no time"),
        ("missing.timer", "no such unit"),
    }
    # Its own unit fails because of what it finds: else a patrol by hand could never be without a failure after that.
    assert checks(findings.warnings) == {("units", "qwen3guard-patrol.service")}


@pytest.mark.parametrize(("answer", "warned"), [("yes", False), ("no", True)])
def test_clock(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, answer: str, warned: bool) -> None:
    put_program(tmp_path / "bin", "timedatectl", f"echo NTPSynchronized={answer}\n")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    findings = Findings("guard-01")
    patrol_system.check_clock(findings)
    assert bool(findings.warnings) is warned


def test_no_systemd_is_said(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("systemctl", "timedatectl"):
        put_program(tmp_path / "bin", name, "echo System has not been booted with systemd >&2; exit 1\n")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    findings = Findings("guard-01")
    patrol_system.check_units(["qwen3guard*"], {}, NOW, findings)
    patrol_system.check_clock(findings)
    assert not findings.failures
    assert {(item.check, item.found) for item in findings.not_checked} == {
        ("units", "System has not been booted with systemd"), ("clock", "System has not been booted with systemd"),
    }  # fmt: skip


# -- GPUs, certificates, keys --------------------------------------------------------------------------------------


def test_a_specification_of_what_is_gone_is_a_failure(tmp_path: pathlib.Path) -> None:
    findings = Findings("guard-01")
    patrol_system.check_gpus([str(tmp_path)], findings)
    assert not findings.failures
    assert ("cdi", "GPUs") in checks(findings.not_checked)
    text = "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n- name: all\n  containerEdits:\n    deviceNodes:\n"
    path = tmp_path / "nvidia.yaml"
    path.write_text(f"{text}    - path: {tmp_path}/nvidia0\n")
    patrol_system.check_gpus([str(tmp_path)], findings)
    assert checks(findings.failures) == {("cdi", "GPUs")}
    assert f"{tmp_path}/nvidia0" in findings.failures[0].found
    (tmp_path / "nvidia0").touch()
    findings = Findings("guard-01")
    patrol_system.check_gpus([str(tmp_path)], findings)
    assert not findings.failures


def test_certificates_and_keys(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = {"soon": NOW + 24 * 20 * HOUR, "late": NOW + 24 * 13 * HOUR, "over": NOW - HOUR, "long": NOW + 9999 * HOUR}

    def certificates(place: str) -> list[t.Any]:
        return [patrol_system.expiry.Expiry("long", read["long"]), patrol_system.expiry.Expiry(place, read[place])]

    monkeypatch.setattr(patrol_system.expiry, "certificates", certificates)
    findings = Findings("guard-01")
    with Gpg() as gpg:
        patrol_system.check_expiry([*read], [str(tmp_path / "no-key")], gpg, Limits(), NOW, findings)
    assert checks(findings.failures) == {
        ("certificate", "late"), ("certificate", "over"), ("openpgp_key", str(tmp_path / "no-key")),
    }  # fmt: skip
    assert checks(findings.warnings) == {("certificate", "soon")}
    assert findings.facts["expiry"]["over"] == read["over"].timestamp()
    assert {item.thing: item.found for item in findings.failures}["over"] == "over: ended 1 hour ago"
