# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read from repositories what the report shows: what is open, calendars, recovery points, drills, sizes. No key.

Private to the collection: use the modules, not this file.

What is wrong is found as a patrol of a fleet finds it, for all instances, with few reads. Calendars and sizes need all
manifests of an instance; they are read for the first few, those with failures before the others.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime
import itertools
import socket
import typing as t

from ..errors import GuardError, StoreError
from ..format.repository import Repository
from ..format.verdict import LEVELS, Verdict, failure
from ..services.store import Store
from . import overview
from .patrol_findings import Findings, Limits, hours_between, parse_time
from .patrol_repository import check_instance
from .patrol_survey import Names, list_instances, read_surveys

ALL = "all"
MOST_DAYS = 366
_AT_ONCE = 250  # instances whose manifests are in memory at the same time
_MANY = 5  # findings of one kind and layer


@dataclasses.dataclass
class Options:
    """What the page is to show. Without ``instances`` the one ``instance``."""

    instance: str
    instances: list[str] | None
    limits: Limits
    days: int
    details: int  # so many instances at most


@dataclasses.dataclass
class Day:
    """What was made of one layer on one day (UTC)."""

    snapshots: int = 0
    damaged: int = 0  # of these
    passed: int = 0  # verifications
    failed: int = 0


@dataclasses.dataclass
class Gap:
    """Between two snapshots of the logs, or from the newest to now."""

    hours: float
    start: datetime.datetime
    end: datetime.datetime


@dataclasses.dataclass
class Details:
    """What all manifests and verdicts of an instance say."""

    calendar: dict[str, dict[datetime.date, Day]]  # by layer
    gap: Gap | None  # the longest that ended in the days that are shown
    months: dict[str, dict[str, int]]  # bytes by month and layer; under "" what has no time
    snapshots: dict[str, int]  # by layer
    drills: list[dict[str, t.Any]]  # newest first, as `overview` tells them

    @property
    def stored_bytes(self) -> int:
        """All that the snapshots take."""
        return sum(sum(layers.values()) for layers in self.months.values())


@dataclasses.dataclass
class Guard:
    """One instance."""

    name: str
    repository: str
    findings: Findings
    details: Details | None = None

    @property
    def order(self) -> tuple[bool, bool, str, str]:
        """What needs somebody comes first."""
        return not self.findings.failures, not self.findings.warnings, self.name, self.repository


@dataclasses.dataclass
class Report:
    """What one page shows."""

    made: datetime.datetime
    host: str
    repositories: list[str]
    options: Options
    whole: Findings  # of no single instance
    guards: list[Guard]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.whole.failures and not any(guard.findings.failures for guard in self.guards)

    @property
    def days(self) -> list[datetime.date]:
        """Those that calendars show, the oldest first."""
        last = self.made.date()
        return [last - datetime.timedelta(days=ago) for ago in reversed(range(self.options.days))]


def collect(stores: t.Sequence[Store], options: Options, now: datetime.datetime) -> Report:
    """Look at all instances, and closer at the first few."""
    if not 1 <= options.days <= MOST_DAYS:
        raise GuardError("option days", f"1 to {MOST_DAYS}", str(options.days))
    if options.details < 0:
        raise GuardError("option details", "0 or more", str(options.details))
    for name in [options.instance] if options.instances is None else set(options.instances) - {ALL}:
        Repository(stores[0], name)  # refuses what is no name
    report = Report(now, socket.gethostname(), [store.location for store in stores], options, Findings(""), [])
    answered = True
    for store in stores:
        try:
            report.guards += _look(store, options, now)
        except StoreError as error:
            _tell(report.whole, error)
            answered = False
    if options.instances is not None and answered:
        seen = {guard.name for guard in report.guards}
        for name in sorted(set(options.instances) - {ALL} - seen):
            missing = Findings(name)
            missing.fail("instance", "repository", f"instance {name}", "nothing of that name", "Did it ever back up?")
            report.guards.append(Guard(name, "", missing))
        if not report.guards:
            report.whole.fail("instance", "repository", "instances", "none", "Check the repository's name.")
    by_location = {store.location: store for store in stores}
    report.guards.sort(key=lambda guard: guard.order)
    for guard in [guard for guard in report.guards if guard.repository][: options.details]:
        try:
            guard.details = _read_details(Repository(by_location[guard.repository], guard.name), guard, report)
        except StoreError as error:
            _tell(guard.findings, error)
    report.guards.sort(key=lambda guard: guard.order)  # a closer look finds more
    return report


def _tell(findings: Findings, error: StoreError) -> None:
    findings.fail("repository", "store", error.expected, f"{error.thing}: {error.found}", error.hint)


def _look(store: Store, options: Options, now: datetime.datetime) -> list[Guard]:
    """The instances of one repository that are asked for, with what is wrong with them."""
    found: list[Guard] = []
    listed: dict[str, Names] = list_instances(store, "" if options.instances is not None else options.instance)
    wanted = options.instances
    if wanted is not None and ALL not in wanted:
        listed = {name: names for name, names in listed.items() if name in wanted}
    several = iter(listed)
    while some := list(itertools.islice(several, _AT_ONCE)):
        surveys = read_surveys(store, {name: listed[name] for name in some}, whole_chains=wanted is None)
        for name, survey in surveys.items():
            findings = Findings(name)
            check_instance(survey, options.limits, now, findings)
            found.append(Guard(name, store.location, findings))
    return found


def _read_details(repository: Repository, guard: Guard, report: Report) -> Details:
    told = overview.overview(repository)
    days = set(report.days)
    details = Details({}, None, {}, {}, told["drills"])
    for layer in report.options.limits.layers:
        items = told["snapshots"][layer]
        details.snapshots[layer] = sum(item["complete"] for item in items)
        details.calendar[layer] = _calendar(items, days)
        for item in items:
            month = details.months.setdefault(item.get("created", "")[:7], {})
            month[layer] = month.get(layer, 0) + item["stored_bytes"]
        _find_damaged(layer, items, guard.findings)
        _find_failed(layer, items, guard.findings)
    if "logs" in report.options.limits.layers:
        details.gap = _longest_gap(told["snapshots"]["logs"], report)
    return details


def _calendar(items: list[dict[str, t.Any]], days: set[datetime.date]) -> dict[datetime.date, Day]:
    found: dict[datetime.date, Day] = collections.defaultdict(Day)
    for item in items:
        made = parse_time(item.get("created"))
        if made is not None:
            day = found[made.date()]
            day.snapshots += 1
            day.damaged += bool(item["damaged"])
        for _level, verdict in _verdicts(item):
            when = parse_time(verdict.get("verified"))
            if when is not None:
                passed = verdict.get("ok") is True
                found[when.date()].passed += passed
                found[when.date()].failed += not passed
    return {date: day for date, day in found.items() if date in days}


def _verdicts(item: dict[str, t.Any]) -> t.Iterator[tuple[str, Verdict]]:
    return ((level, item["verified"][level]) for level in LEVELS if level in item["verified"])


def _longest_gap(items: list[dict[str, t.Any]], report: Report) -> Gap | None:
    sound = [parse_time(item.get("created")) for item in items if item["complete"] and not item["damaged"]]
    times = sorted(when for when in sound if when is not None and when <= report.made)
    gaps = [
        Gap(hours_between(start, end), start, end)
        for start, end in zip(times, [*times[1:], report.made])
        if end.date() >= report.days[0]
    ]
    return max(gaps, key=lambda gap: gap.hours, default=None)


def _find_damaged(layer: str, items: list[dict[str, t.Any]], findings: Findings) -> None:
    """Damaged snapshots, those that only stand on one counted with it; and what interrupted runs left."""
    told = {finding.found for finding in findings.failures}
    roots: dict[str, list[str]] = {}  # damaged snapshot -> what it is, and what stands on it
    root_of: dict[str, str] = {}
    for item in items:
        if item["damaged"]:
            root = root_of.get(item.get("parent", ""), item["snapshot"])
            root_of[item["snapshot"]] = root
            roots.setdefault(root, [item["damaged"]]).append(item["snapshot"])
    for root, (why, *those) in list(roots.items())[-_MANY:]:
        if why in told and len(those) == 1:
            continue
        more = f" With it {len(those) - 1} that stand on it cannot be restored." if len(those) > 1 else ""
        findings.fail(
            "damaged", f"{layer}, {root}", "a snapshot whose manifest fits and whose objects are all there",
            f"{why}{more}", "Restore from a snapshot before it if you must now, and take a full of the layer.",
        )  # fmt: skip
    if len(roots) > _MANY:
        findings.fail("damaged", layer, "snapshots that can be believed", f"{len(roots) - _MANY} more that are damaged")
    left = [item["snapshot"] for item in items if not item["complete"]]
    if left:
        findings.warnings = [
            item for item in findings.warnings if (item.check, item.thing) != ("interrupted", layer)
        ]  # this tells more
        findings.warn(
            "incomplete", layer, "backups that end",
            f"{len(left)} without a manifest: {', '.join(left[-5:])}{' and older' if len(left) > 5 else ''}",
            "One may be running now. What interrupted runs left is removed or used again by the next that ends.",
        )  # fmt: skip


def _find_failed(layer: str, items: list[dict[str, t.Any]], findings: Findings) -> None:
    """Snapshots that failed their own newest verification of a level: the newest is a failure, others are history."""
    told = {(finding.check, finding.thing) for finding in findings.failures}
    seen: set[str] = set()
    older = 0
    for item in reversed(items):
        for level, stored in _verdicts(item):
            newest = level not in seen
            seen.add(level)
            verdict = failure(stored)
            if verdict is None or (newest and ("verdict", f"{layer}, {level}") in told):
                continue
            failures = verdict.get("failures")
            why = str(failures[0])[:500] if isinstance(failures, list) and failures else "it does not say why"
            found = f"{item['snapshot']} failed at {str(verdict.get('verified'))[:40]}: {why}"
            if newest:
                findings.fail("verdict", f"{layer}, {level}", "a verification that passes", found)
            elif (older := older + 1) <= _MANY:
                findings.warn(
                    "old_verdict", f"{layer}, {level}, {item['snapshot']}", "no snapshot that failed its verification",
                    found, "Newer ones passed. Do not restore from this one.",
                )  # fmt: skip
    if older > _MANY:
        findings.warn("old_verdict", layer, "no snapshot that failed its verification", f"{older - _MANY} more")
