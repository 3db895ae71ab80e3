# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a patrol finds, and within which limits it finds nothing.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import dataclasses
import datetime
import typing as t

from ..format.manifest import LAYERS

EVERYTHING = "everything"  # a check that was not made: nobody can say that anything is well again
HOST = "host"
UTC = datetime.timezone.utc


class Finding(t.NamedTuple):
    """One thing that a person should know.

    ``check`` and ``thing`` say which finding it is, today and tomorrow: what differs from day to day (an age, the id
    of a snapshot) belongs into ``found``.
    """

    check: str
    thing: str
    expected: str
    found: str
    hint: str = ""
    instance: str = ""
    where: str = ""  # HOST: of what only a patrol on the host can see


def unit_finding(unit: str) -> Finding:
    """A unit that failed: a patrol finds it, and the unit itself may have it told at once."""
    return Finding("units", unit, "a unit that has not failed", "failed", f"systemctl status {unit}", where=HOST)


# What an entry of not_checked leaves open beside what has its own check and thing: checks, whatever they are about.
_LEFT_OPEN = {
    ("certificates", "this host"): ("certificate",),
    ("drill", "drills"): ("drill",),
    ("openpgp_keys", "this host"): ("openpgp_key",),
    ("patrol", "host"): ("patrol",),
    ("timers", "this host"): ("timers",),
    ("units", "systemd"): ("units", "timers"),
    ("units", "this host"): ("units",),
}
_OF_LOGS = ("log_growth", "log_rate", "records")  # the thing of these does not begin with the layer


def leaves_open(item: t.Mapping[str, t.Any], finding: t.Mapping[str, str]) -> bool:
    """Whether this entry of not_checked means that nobody looked for the finding."""
    if item.get("instance") not in ("", None, finding["instance"]):
        return False
    check, thing = str(item.get("check")), str(item.get("thing"))
    same = (check, thing) == (finding["check"], finding["thing"])
    return same or check == EVERYTHING or finding["check"] in _LEFT_OPEN.get((check, thing), ())


def is_within(scope: t.Mapping[str, t.Any], finding: t.Mapping[str, str]) -> bool:
    """Whether a patrol of this scope would have found it again. What a scope does not name, it does not limit."""
    check, thing, instance = finding["check"], finding["thing"], finding["instance"]
    if finding.get("where") == HOST:
        limits = [("instances", instance)]
        if scope.get("host") is False:
            return False
    else:
        layer = "logs" if check in _OF_LOGS else thing.partition(", ")[0]
        limits = [("layers", layer)] if layer in LAYERS else []
        if instance:
            limits.append(("instances", instance))
        elif check == "repository":
            limits.append(("repositories", thing))
    return all(value in scope[name] for name, value in limits if isinstance(scope.get(name), list))


@dataclasses.dataclass
class Limits:
    """How old, how little, how many. 0 leaves a check out, and the verdict says so."""

    logs_hours: float = 24  # age of the newest snapshot of the logs
    quick_hours: float = 48  # since somebody read what is stored
    proven_days: float = 8  # since a snapshot was really restored
    drill_days: float = 35
    increments: int = 72  # in one chain
    silence_hours: float = 24  # since the newest record
    patrol_hours: float = 26  # since the host's own patrol
    free_percent: float = 5
    full_days: float = 3  # until a disk is full, by its trend
    expiry_days: float = 14  # of certificates and keys
    archive_hours: float = 24  # until a record is archived
    layers: t.Sequence[str] = LAYERS  # that have to be there


class Findings:
    """What was found of one instance, and the facts beside it that make metrics."""

    def __init__(self, instance: str):
        self.instance = instance
        self.where = ""
        self.failures: list[Finding] = []
        self.warnings: list[Finding] = []
        self.not_checked: list[Finding] = []
        self.facts: dict[str, t.Any] = {}

    def fail(self, check: str, thing: str, expected: str, found: str, hint: str = "") -> None:
        """Something is wrong: somebody has to act."""
        self.failures.append(Finding(check, thing, expected, found, hint, self.instance, self.where))

    def warn(self, check: str, thing: str, expected: str, found: str, hint: str = "") -> None:
        """Something is odd: somebody should look."""
        self.warnings.append(Finding(check, thing, expected, found, hint, self.instance, self.where))

    def leave_limited(self, check: str, things: t.Iterable[str], expected: str) -> None:
        """A limit of 0 leaves these out. By the same names as what would be found: that is not well again by it."""
        for thing in things:
            self.leave(check, thing, expected, "its limit is 0")

    def leave(self, check: str, thing: str, expected: str, found: str, hint: str = "") -> None:
        """Something was not looked at: ``expected`` is what would have been, ``found`` why not."""
        self.not_checked.append(Finding(check, thing, expected, found, hint, self.instance, self.where))


def parse_time(text: t.Any) -> datetime.datetime | None:
    """A time with its zone, from a document that anybody may have written; None where it is none."""
    if not isinstance(text, str):
        return None
    try:
        when = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
        return when.astimezone(UTC) if when.tzinfo else None
    except (ValueError, OverflowError):  # the year 1 in a zone east of here is no year
        return None


def written_time(when: datetime.datetime) -> str:
    """RFC 3339, UTC, seconds."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def hours_between(earlier: datetime.datetime, later: datetime.datetime) -> float:
    """Hours from one to the other; below 0 where a clock was wrong."""
    return (later - earlier).total_seconds() / 3600


def told_age(hours: float) -> str:
    """An age for people: ``5 hours``, ``3 days``."""
    if abs(hours) < 1:
        return _told(round(hours * 60), "minute")
    return _told(round(hours), "hour") if abs(hours) < 72 else _told(round(hours / 24), "day")


def _told(count: int, unit: str) -> str:
    return f"{count} {unit}" if count == 1 else f"{count} {unit}s"
