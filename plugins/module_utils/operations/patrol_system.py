# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host's system tells: room, units, timers, the clock, GPUs' specifications, certificates and keys.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import datetime
import os
import pathlib
import statistics
import typing as t

from ..errors import GuardError
from ..services import expiry, systemd
from ..services.gpg import Gpg
from ..system import cdi
from .patrol_findings import Findings, Limits, hours_between, told_age, unit_finding

_SAMPLES = 400  # of each place: a year of daily patrols, half a month of hourly ones
_DAY = 86400.0
_LONG_TREND, _SHORT_TREND = 30, 3  # days: what is older says nothing about tomorrow
_EARLY = 2 * 3600.0  # a patrol may come so much earlier than the day before, and counts as a day after it
_FEWEST = 3  # days with samples
_OWN_UNIT = "qwen3guard-patrol.service"
_WARN_TIMES = 3  # a warning comes so many times earlier than a failure


def check_room(
    places: t.Sequence[str], state: dict[str, t.Any], limits: Limits, now: datetime.datetime, findings: Findings
) -> None:
    """Free space of each file system, and when it is used up if it goes on like this."""
    seen = set()
    samples = state.setdefault("room", {})
    for place in places:
        if not limits.free_percent:
            findings.leave_limited("free_space", [place, _inodes(place)], "room that is free")
        if not limits.full_days:
            findings.leave_limited("free_space_trend", [place], "room for some days")
        try:
            device, room = os.stat(place).st_dev, os.statvfs(place)
        except OSError as error:
            if limits.free_percent or limits.full_days:
                # Under the name of a check that is made: under another's it would never be well again.
                check = "free_space" if limits.free_percent else "free_space_trend"
                findings.fail(check, place, "a directory", error.strerror or str(error))
            continue
        if device in seen:
            continue
        seen.add(device)
        free, size = room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize
        percent = 100 * free / size if size else 0.0
        findings.facts.setdefault("room", {})[place] = {"free": free, "size": size}
        history = [*_samples(samples.get(place)), (now.timestamp(), float(free))][-_SAMPLES:]
        samples[place] = history
        told = f"{percent:.1f}% ({free >> 20} MiB)"
        if percent < limits.free_percent:
            findings.fail("free_space", place, f"{limits.free_percent:g}% free", told, "Make room, or a larger disk.")
        elif percent < limits.free_percent * _WARN_TIMES:
            findings.warn("free_space", place, f"{limits.free_percent * _WARN_TIMES:g}% free", told)
        if room.f_files and 100 * room.f_favail / room.f_files < limits.free_percent:
            findings.fail("free_space", _inodes(place), f"{limits.free_percent:g}% free", f"{room.f_favail} left")
        days = days_left(history)
        if days is not None and limits.full_days:
            findings.facts["room"][place]["full_days"] = days
            expected = f"room for {limits.full_days * _WARN_TIMES:g} days"
            found = f"{told}, used up in {days:.1f} days as it goes"
            if days < limits.full_days:
                findings.fail("free_space_trend", place, expected, found, "Make room, or a larger disk.")
            elif days < limits.full_days * _WARN_TIMES:
                findings.warn("free_space_trend", place, expected, found)


def _inodes(place: str) -> str:
    return f"{place}, inodes"


def _samples(raw: t.Any) -> list[tuple[float, float]]:
    """(time, free bytes) as they were remembered."""
    if not isinstance(raw, list):
        return []
    return [(float(item[0]), float(item[1])) for item in raw if isinstance(item, (list, tuple)) and len(item) == 2]


def days_left(history: t.Sequence[tuple[float, float]]) -> float | None:
    """Days until nothing is free if it goes on like this; None where nothing says so.

    By the steeper of two lines, through a month and through the last three days: a disk that began to fill yesterday
    is full before a month's line has turned.
    """
    if not history:
        return None
    days = _by_day(history)
    recent = [sample for age, sample in days.items() if age < _SHORT_TREND]
    left = [_days_left(samples, history[-1]) for samples in (list(days.values()), recent)]
    return min((days for days in left if days is not None), default=None)


def _by_day(history: t.Sequence[tuple[float, float]]) -> dict[int, tuple[float, float]]:
    """One sample for each day before the last sample, by the days that it is old: the medians of that day's.

    So what comes and goes within a day, such as logs that are rotated, is no trend, however often a patrol looks.
    """
    days: dict[int, list[tuple[float, float]]] = {}
    for when, free in history:
        age = int((history[-1][0] - when + _EARLY) // _DAY)
        if 0 <= age < _LONG_TREND:
            days.setdefault(age, []).append((when, free))
    return {
        age: (statistics.median(when for when, _free in of_day), statistics.median(free for _when, free in of_day))
        for age, of_day in days.items()
    }


def _days_left(samples: t.Sequence[tuple[float, float]], last: tuple[float, float]) -> float | None:
    """Days from the last sample until a straight line through these comes to nothing.

    Of the lines that leave one of them out, the one that says the most: a single sample that was taken while something
    needed much room, or the first after somebody made some, must not alarm.
    """
    if len(samples) < _FEWEST:
        return None
    most = 0.0
    for number in range(len(samples)):
        others = [sample for place, sample in enumerate(samples) if place != number]
        mean_time = statistics.fmean(when for when, _free in others)
        mean_free = statistics.fmean(free for _when, free in others)
        spread = sum((when - mean_time) ** 2 for when, _free in others)
        slope = sum((when - mean_time) * (free - mean_free) for when, free in others) / spread
        if slope >= 0:
            return None
        free = max(last[1], mean_free + slope * (last[0] - mean_time))
        most = max(most, free / -slope / _DAY)
    return most


def check_units(
    patterns: t.Sequence[str], timers: t.Mapping[str, float], now: datetime.datetime, findings: Findings
) -> None:
    """Failed units, and timers (with the hours in which each has to run)."""
    try:
        for unit in systemd.failed_units(patterns) if patterns else []:
            if unit == _OWN_UNIT:
                # It fails because of what it finds. Were that a failure too, one by hand could not be without.
                findings.warn("units", unit, "a patrol that ended well", "its last run did not", "See its journal.")
            else:
                findings.failures.append(unit_finding(unit)._replace(instance=findings.instance))
        for timer in systemd.timers(list(timers)):
            _check_timer(timer, timers.get(timer.name, 0), now, findings)
    except systemd.NoSystemd as error:
        findings.leave("units", "systemd", "units and timers", error.found)


def _check_timer(timer: systemd.Timer, hours: float, now: datetime.datetime, findings: Findings) -> None:
    if not timer.loaded:
        findings.fail("timers", timer.name, "a timer", "no such unit", "Run the role that makes it.")
    elif not timer.active or not timer.waits:
        found = "it is not active" if not timer.active else "it waits for no time"
        findings.fail("timers", timer.name, "a timer that waits", found, f"systemctl enable --now {timer.name}")
    elif hours:
        since = timer.last or timer.since
        age = hours_between(since, now) if since else None
        if age is None or age > hours:
            found = f"{'it ran' if timer.last else 'never, and it is active since'} {told_age(age or 0)} ago"
            findings.fail("timers", timer.name, f"a run in the last {told_age(hours)}", found,
                          f"systemctl list-timers {timer.name}")  # fmt: skip


def check_clock(findings: Findings) -> None:
    """Whether the clock is kept right: records and snapshots carry its time."""
    try:
        if not systemd.clock_is_synchronized():
            findings.warn(
                "clock", "this host", "a clock that is synchronised", "none",
                "Run chrony or systemd-timesyncd: times in audit records are evidence.",
            )  # fmt: skip
    except systemd.NoSystemd as error:
        findings.leave("clock", "this host", "a clock that is synchronised", error.found)


def check_gpus(directories: t.Sequence[str], findings: Findings) -> None:
    """Whether the specification by which containers get GPUs fits the host as it is now."""
    version = pathlib.Path("/sys/module/nvidia/version")
    driver = version.read_text(encoding="ascii").strip() if version.exists() else ""
    found = cdi.look(directories, driver)
    if found.path and found.problem:
        findings.fail(
            "cdi", "GPUs", "a specification that fits the host", found.problem,
            "Make it again: nvidia-ctk cdi generate. Until then the container does not start again.",
        )  # fmt: skip
    elif not found.path:
        findings.leave("cdi", "GPUs", "a specification that fits the host", found.problem)


def check_expiry(
    places: t.Sequence[str], key_files: t.Sequence[str], gpg: Gpg, limits: Limits, now: datetime.datetime,
    findings: Findings,
) -> None:  # fmt: skip
    """Certificates and OpenPGP keys that end soon."""
    for check, things, read in (
        ("certificate", places, expiry.certificates),
        ("openpgp_key", key_files, lambda path: expiry.openpgp_keys(gpg, path)),
    ):
        if not limits.expiry_days:
            findings.leave_limited(check, things, "valid for some days")
            continue
        for thing in things:
            try:
                ends = [item for item in read(thing) if item.until is not None]
            except GuardError as error:
                findings.fail(check, thing, error.expected, error.found, error.hint)
                continue
            first = min(ends, key=lambda item: item.until or now, default=None)
            if first is None or first.until is None:
                continue
            findings.facts.setdefault("expiry", {})[thing] = first.until.timestamp()
            hours = hours_between(now, first.until)
            told = f"{first.name}: {'ended' if hours < 0 else 'ends in'} {told_age(abs(hours))}"
            told += " ago" if hours < 0 else ""
            expected = f"valid for {limits.expiry_days * _WARN_TIMES:g} days"
            if hours < limits.expiry_days * 24:
                findings.fail(check, thing, expected, told, "Renew it.")
            elif hours < limits.expiry_days * 24 * _WARN_TIMES:
                findings.warn(check, thing, expected, told, "Renew it.")
