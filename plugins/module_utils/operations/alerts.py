# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tell people what changed: what is wrong now, what still is after a day, what is well again.

Private to the collection: use the modules, not this file.

What each target was told is remembered for it alone: one that could not be reached is told the next time, and the
others are not told twice. A finding counts as cleared only where the verdict says that it was looked at.

A verdict may be of some things only, which ``checked`` names: that of a unit which failed just now, for instance.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import typing as t

from ..errors import GuardError
from ..services import http
from ..services.notify import Message, Target
from ..system.files import lock, make_private_directory, write_atomically
from .patrol_findings import EVERYTHING, UTC, parse_time, told_age, unit_finding, written_time

RAISED, STILL, CLEARED = "raised", "still", "cleared"
_HEADS = {RAISED: "New", STILL: "Still", CLEARED: "Well again"}
_FIELDS = ("check", "thing", "expected", "found", "hint", "instance")
_TEXT = 600  # characters of one field
_PATIENCE = 120.0  # seconds for others who alert of the same: two units that fail at once, and a patrol
_FORMAT = 1


@dataclasses.dataclass
class Options:
    """What an alert may be told."""

    source: str
    state_path: str
    with_warnings: bool = True
    repeat_hours: float = 24
    test_days: float = 7
    heartbeat_url: str = ""
    dry: bool = False


class Change(t.NamedTuple):
    """One finding and what is new about it."""

    kind: str
    severity: str
    since: str
    finding: dict[str, str]


@dataclasses.dataclass
class Outcome:
    """What was sent to whom."""

    sent: list[str] = dataclasses.field(default_factory=list)  # names of targets
    raised: int = 0
    still: int = 0
    cleared: int = 0
    tested: list[str] = dataclasses.field(default_factory=list)  # names of targets
    heartbeat: bool = False
    text: str = ""


def alert(verdict: dict[str, t.Any], targets: t.Sequence[Target], options: Options) -> Outcome:
    """Send what changed to every target; raise at the end if one of them, or the heartbeat, was not reached."""
    now = datetime.datetime.now(UTC)
    outcome = Outcome()
    if options.dry:
        _tell_all(verdict, targets, options, _load(options), now, outcome)
        return outcome
    make_private_directory(os.path.dirname(options.state_path))
    with lock(f"{options.state_path}.lock", f"alerts of {options.source}", _PATIENCE):
        state = _load(options)
        problems = _tell_all(verdict, targets, options, state, now, outcome)
        write_atomically(options.state_path, (json.dumps({"format": _FORMAT, "targets": state}) + "\n").encode())
    if options.heartbeat_url and not problems and verdict.get("ok") is True:
        try:
            _beat(options.heartbeat_url)
            outcome.heartbeat = True
        except GuardError as error:
            problems.append(error)
    if problems:
        first = problems[0]
        more = f" {len(problems)} in all were not reached." if len(problems) > 1 else ""
        raise GuardError(first.thing, first.expected, first.found, f"{first.hint}{more} It is tried again next time.")
    return outcome


def _beat(url: str) -> None:
    reply = http.get(url, name="heartbeat_url")
    if not 200 <= reply.status < 300:
        raise GuardError("heartbeat_url", "a status of 200 to 299", f"status {reply.status}")


def _tell_all(
    verdict: dict[str, t.Any], targets: t.Sequence[Target], options: Options, state: dict[str, t.Any],
    now: datetime.datetime, outcome: Outcome,
) -> list[GuardError]:  # fmt: skip
    """Go through the targets; ``state`` then says what those that were reached know."""
    problems = []
    for target in targets:
        memory = state.get(target.identity, {})
        found, known = changes(verdict, memory.get("known", {}), options, now)
        last = parse_time(memory.get("reached"))
        quiet = last is None or now - last > datetime.timedelta(days=options.test_days or 36500)
        testing = not found and quiet and _is_whole(verdict)
        if not found and not testing:
            continue
        message = compose(options.source, verdict, found)
        try:
            if not options.dry:
                target.send(message)
        except GuardError as error:
            problems.append(error)
            continue
        state[target.identity] = {"known": known, "reached": written_time(now)}
        outcome.sent.append(target.name)
        outcome.text = "\n".join([message.title, *message.lines])
        if testing:
            outcome.tested.append(target.name)
        for kind in (RAISED, STILL, CLEARED):
            setattr(outcome, kind, max(getattr(outcome, kind), sum(change.kind == kind for change in found)))
    return problems


def changes(
    verdict: dict[str, t.Any], known: dict[str, t.Any], options: Options, now: datetime.datetime
) -> tuple[list[Change], dict[str, t.Any]]:
    """What is new, and what is known after it was told."""
    found: list[Change] = []
    after: dict[str, t.Any] = {}
    for severity, name in (("failure", "failures"), ("warning", "warnings")):
        for raw in verdict.get(name) or [] if severity == "failure" or options.with_warnings else []:
            finding = {field: str(raw.get(field) or "")[:_TEXT] for field in _FIELDS}
            key = "|".join([severity, finding["check"], finding["instance"], finding["thing"]])
            if key in after:
                continue
            before = known.get(key)
            told = parse_time(before["told"]) if before else None
            if before is None or told is None:
                after[key] = {"since": written_time(now), "told": written_time(now), "finding": finding}
                found.append(Change(RAISED, severity, written_time(now), finding))
                continue
            after[key] = {**before, "finding": finding}
            if (
                severity == "failure"
                and options.repeat_hours
                and (now - told).total_seconds()
                >= (
                    options.repeat_hours * 3600 - 600  # a daily patrol is never a day apart to the second
                )
            ):
                after[key]["told"] = written_time(now)
                found.append(Change(STILL, severity, before["since"], finding))
    for key, before in known.items():
        if key in after:
            continue
        if _was_not_checked(verdict, before["finding"]):
            after[key] = before
        else:
            found.append(Change(CLEARED, key.partition("|")[0], before["since"], before["finding"]))
    return found, after


def of_unit(instance: str, unit: str, failed: bool, host: str = "") -> dict[str, t.Any]:
    """A verdict that speaks of one unit alone, in the words of a patrol: neither repeats what the other told."""
    finding = unit_finding(unit)._replace(instance=instance)._asdict()
    verdict = {"failures": [finding] if failed else [], "checked": [finding]}
    return {**verdict, "host": host, "time": written_time(datetime.datetime.now(UTC))}


def _is_whole(verdict: dict[str, t.Any]) -> bool:
    """Whether it speaks of all that there is to be looked at."""
    return verdict.get("checked") is None


def _was_not_checked(verdict: dict[str, t.Any], finding: dict[str, str]) -> bool:
    if not _is_whole(verdict):
        names = ("check", "thing", "instance")
        checked = [[str(item.get(name) or "") for name in names] for item in verdict["checked"]]
        if [finding[name] for name in names] not in checked:
            return True
    for item in verdict.get("not_checked") or []:
        if item.get("instance") in ("", None, finding["instance"]):
            if item.get("check") == EVERYTHING:
                return True
            if (item.get("check"), item.get("thing")) == (finding["check"], finding["thing"]):
                return True
    return False


def compose(source: str, verdict: dict[str, t.Any], found: t.Sequence[Change]) -> Message:
    """The message: what is new first, then what is well again, and how much is open."""
    lines: list[str] = []
    counts = []
    for kind, head in _HEADS.items():
        chosen = [change for change in found if change.kind == kind]
        if chosen:
            counts.append(f"{len(chosen)} {head.lower()}")
            lines += [f"{head}:", *(_told(change) for change in sorted(chosen, key=lambda item: item.severity))]
    if _is_whole(verdict):
        failures, warnings = (len(verdict.get(name) or []) for name in ("failures", "warnings"))
        left = len(verdict.get("not_checked") or [])
        lines.append(f"Open: failures {failures}, warnings {warnings}. Not checked: {left}.")
    if not found:
        lines.append("This message tries the way that alerts take. There is nothing to do.")
    where = " ".join(filter(None, (str(verdict.get("host") or ""), str(verdict.get("time") or ""))))
    if where:
        lines.append(f"From {where}")
    urgent = any(change.kind != CLEARED and change.severity == "failure" for change in found)
    title = f"Guard {source}: {', '.join(counts) or 'a test of the alerts'}"
    return Message(title[:200], lines, urgent)


def _told(change: Change) -> str:
    finding = change.finding
    what = " ".join(filter(None, (finding["instance"], finding["check"], finding["thing"])))
    since = parse_time(change.since)
    if change.kind == CLEARED:
        lasted = f", after {told_age((datetime.datetime.now(UTC) - since).total_seconds() / 3600)}" if since else ""
        return f"- {what}{lasted}"
    mark = "" if change.severity == "failure" else "(warning) "
    still = f" (since {change.since})" if change.kind == STILL else ""
    hint = f" {finding['hint']}" if finding["hint"] else ""
    text = f"- {mark}{what}{still}: expected {finding['expected']}, found {finding['found']}.{hint}"
    return " ".join(text.split())


def _load(options: Options) -> dict[str, t.Any]:
    """What each target knows; damaged, it is as if nobody had been told anything."""
    try:
        with open(options.state_path, "rb") as handle:
            raw = json.load(handle)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise GuardError(options.state_path, "a file that can be read", error.strerror or str(error)) from error
    except (ValueError, RecursionError):
        return {}
    targets = raw.get("targets") if isinstance(raw, dict) and raw.get("format") == _FORMAT else None
    return targets if isinstance(targets, dict) else {}
