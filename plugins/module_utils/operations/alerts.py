# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tell people what changed: what is wrong now, what still is after a day, what is well again.

Private to the collection: use the modules, not this file.

What each target was told is remembered for it alone: one that could not be reached is told the next time, and the
others are not told twice. A finding counts as cleared only where the verdict says that it was looked at.

A verdict may be of some things only, which ``checked`` names: that of a unit which failed just now, for instance. And
``scope`` says of what a patrol speaks at all: one of the repository says nothing of the host.

Whatever else is wrong (a full disk, a URL that is none), those who can be reached are told first.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import os
import typing as t

from ..errors import GuardError
from ..services import http
from ..services.notify import Message, Target
from ..system.files import lock, make_private_directory, write_atomically
from .alert_text import CLEARED, RAISED, STILL, Change, is_whole, pages
from .patrol_findings import UTC, is_within, leaves_open, parse_time, unit_finding, written_time

_FIELDS = ("check", "thing", "expected", "found", "hint", "instance", "where")
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


@dataclasses.dataclass
class Outcome:
    """What was sent to whom."""

    sent: list[str] = dataclasses.field(default_factory=list)  # names of targets
    raised: int = 0
    still: int = 0
    cleared: int = 0
    left: int = 0  # that had no room, and are told the next time
    tested: list[str] = dataclasses.field(default_factory=list)  # names of targets
    heartbeat: bool = False
    text: str = ""


def alert(verdict: dict[str, t.Any], urls: t.Sequence[str], options: Options) -> Outcome:
    """Send what changed to everybody; raise at the end if somebody, the heartbeat or the memory was not reached."""
    now = datetime.datetime.now(UTC)
    outcome = Outcome()
    targets, unreached = targets_of(urls)
    forgotten: list[GuardError] = []
    if targets:
        with _memory(options, forgotten) as state:
            unreached += _tell_all(verdict, targets, options, state, now, outcome, may_test=not forgotten)
    if options.heartbeat_url and not options.dry and not unreached and is_whole(verdict):
        try:
            _beat(options.heartbeat_url)
            outcome.heartbeat = True
        except GuardError as error:
            unreached.append(error)
    if unreached or forgotten:
        raise _in_one(unreached, forgotten)
    return outcome


def targets_of(urls: t.Sequence[str]) -> tuple[list[Target], list[GuardError]]:
    """Where messages go, and which URLs are none."""
    targets, problems = [], []
    for place, url in enumerate(urls, start=1):
        try:
            targets.append(Target(url, place))
        except GuardError as error:
            problems.append(error)
    return targets, problems


def tell_result(message: Message, urls: t.Sequence[str]) -> list[str]:
    """Send what is no alert to everybody, and remember nothing. Who was reached; raise if somebody was not."""
    targets, unreached = targets_of(urls)
    reached = []
    for target in targets:
        try:
            target.send(message)
        except GuardError as error:
            unreached.append(error)
        else:
            reached.append(target.name)
    if unreached:
        raise _with_others(unreached, "Nor was reached")
    return reached


def check_urls(urls: t.Sequence[str], heartbeat_url: str = "") -> None:
    """Raise `GuardError` if no message can ever go one of these ways; nothing is sent."""
    targets, problems = targets_of(urls)
    for target in targets:
        try:
            target.check()
        except GuardError as error:
            problems.append(error)
    try:
        if heartbeat_url:
            http.check(heartbeat_url, "heartbeat_url")
    except GuardError as error:
        problems.append(error)
    if problems:
        raise _with_others(problems, "The same is true of")


def _in_one(unreached: list[GuardError], forgotten: list[GuardError]) -> GuardError:
    if not unreached:
        return _with_others(forgotten, "", "What was told is not remembered, and is told again the next time.")
    more = "It is tried again next time."
    if forgotten:
        more += f" Nor is it remembered what was told. {forgotten[0]}"
    return _with_others(unreached, "Nor was reached", more)


def _with_others(problems: list[GuardError], words: str, more: str = "") -> GuardError:
    """The first, which also names the others."""
    first = problems[0]
    others = ", ".join(problem.thing for problem in problems[1:])
    hint = " ".join(filter(None, (first.hint, f"{words}: {others}." if others and words else "", more)))
    return GuardError(first.thing, first.expected, first.found, hint)


def _beat(url: str) -> None:
    reply = http.get(url, name="heartbeat_url")
    if not 200 <= reply.status < 300:
        raise GuardError("heartbeat_url", "a status of 200 to 299", f"status {reply.status}")


@contextlib.contextmanager
def _memory(options: Options, problems: list[GuardError]) -> t.Iterator[dict[str, t.Any]]:
    """What each target knows, kept as it is afterwards. What is wrong with that keeps nobody from being told."""
    with contextlib.ExitStack() as stack:
        try:
            if not options.dry:
                make_private_directory(os.path.dirname(options.state_path))
                stack.enter_context(lock(f"{options.state_path}.lock", f"alerts of {options.source}", _PATIENCE))
        except GuardError as error:
            problems.append(error)
        state: dict[str, t.Any] = {}
        try:
            state = _load(options)
        except GuardError as error:
            problems.append(error)
        before = _written(state)
        yield state
        if not options.dry and not problems and _written(state) != before:
            try:
                write_atomically(options.state_path, _written(state))
            except GuardError as error:
                problems.append(error)


def _written(state: dict[str, t.Any]) -> bytes:
    return (json.dumps({"format": _FORMAT, "targets": state}) + "\n").encode()


def _tell_all(
    verdict: dict[str, t.Any], targets: t.Sequence[Target], options: Options, state: dict[str, t.Any],
    now: datetime.datetime, outcome: Outcome, may_test: bool,
) -> list[GuardError]:  # fmt: skip
    """Go through the targets; ``state`` then says what those that were reached know."""
    problems = []
    for target in targets:
        memory = state.get(target.identity, {})
        known = memory.get("known", {})
        found, after = changes(verdict, known, options, now)
        last = parse_time(memory.get("reached"))
        quiet = last is None or now - last > datetime.timedelta(days=options.test_days or 36500)
        testing = not found and quiet and may_test and is_whole(verdict)
        if not found and not testing:
            continue
        texts: list[str] = []
        told: list[Change] = []
        try:
            for message, some in pages(options.source, verdict, found, target.fits):
                if options.dry:
                    target.check()
                else:
                    target.send(message)
                told += some
                texts.append("\n".join([message.title, *message.lines]))
        except GuardError as error:
            problems.append(error)
        if not texts:
            continue
        keys = {change.key for change in told}
        untold = [change for change in found if change.key not in keys]
        state[target.identity] = {"known": _without(untold, after, known), "reached": written_time(now)}
        outcome.sent.append(target.name)
        outcome.text = "\n\n".join(texts)
        if testing:
            outcome.tested.append(target.name)
        for kind in (RAISED, STILL, CLEARED):
            setattr(outcome, kind, max(getattr(outcome, kind), sum(change.kind == kind for change in told)))
        outcome.left = max(outcome.left, len(untold))
    return problems


def _without(untold: t.Sequence[Change], after: dict[str, t.Any], before: dict[str, t.Any]) -> dict[str, t.Any]:
    """What is known where this was not told: of that, what was known before."""
    keys = {change.key for change in untold}
    kept = {key: before[key] for key in keys if key in before}
    return {**{key: known for key, known in after.items() if key not in keys}, **kept}


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
                found.append(Change(RAISED, severity, written_time(now), finding, key))
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
                found.append(Change(STILL, severity, before["since"], finding, key))
    for key, before in known.items():
        if key in after:
            continue
        if _was_not_checked(verdict, before["finding"]):
            after[key] = before
        else:
            found.append(Change(CLEARED, key.partition("|")[0], before["since"], before["finding"], key))
    return found, after


def of_unit(instance: str, unit: str, failed: bool, host: str = "") -> dict[str, t.Any]:
    """A verdict that speaks of one unit alone, in the words of a patrol: neither repeats what the other told."""
    finding = unit_finding(unit)._replace(instance=instance)._asdict()
    verdict = {"failures": [finding] if failed else [], "checked": [finding]}
    return {**verdict, "host": host, "time": written_time(datetime.datetime.now(UTC))}


def _was_not_checked(verdict: dict[str, t.Any], finding: dict[str, str]) -> bool:
    if not is_whole(verdict):
        names = ("check", "thing", "instance")
        checked = [[str(item.get(name) or "") for name in names] for item in verdict["checked"]]
        if [finding[name] for name in names] not in checked:
            return True
    scope = verdict.get("scope") or {}
    return not is_within(scope, finding) or any(leaves_open(item, finding) for item in verdict.get("not_checked") or [])


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
    return targets if isinstance(targets, dict) and all(map(_is_memory, targets.values())) else {}


def _is_memory(raw: t.Any) -> bool:
    """Whether it has the form in which this keeps what a target knows."""
    if not isinstance(raw, dict) or not isinstance(raw.get("known", {}), dict):
        return False
    for known in raw.get("known", {}).values():
        finding = known.get("finding") if isinstance(known, dict) else None
        texts = (
            finding.values() if isinstance(finding, dict) and {"check", "thing", "instance"} <= set(finding) else [0]
        )
        if not all(isinstance(text, str) for text in (*texts, known.get("since"), known.get("told"))):
            return False
    return True
