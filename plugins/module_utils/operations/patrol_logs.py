# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What only the host itself can tell: is every record on its way into the repository, and does the service log?

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import datetime
import json
import pathlib
import typing as t

from ..errors import GuardError
from ..format.records import Record
from ..services import http
from . import live_ends
from .patrol_findings import Findings, Limits, hours_between, parse_time, told_age


def check_service(url: str, findings: Findings) -> dict[str, t.Any] | None:
    """Whether the service answers; what it says of itself, None where it does not answer well."""
    if not url:
        findings.leave("service", "health", "an answer of the service", "no health_url is set")
        return None
    try:
        reply = http.get_here(url)
    except GuardError as error:
        findings.fail("service", "health", f"200 from {url}", error.found, "Look at the units of gateway and guard.")
        findings.facts["service_up"] = False
        return None
    findings.facts["service_up"] = reply.status == 200
    try:
        told = json.loads(reply.body)
    except (ValueError, RecursionError):
        told = {}
    told = told if isinstance(told, dict) else {}
    if reply.status != 200:
        problems = [f"{part}: {told[part]}" for part in ("upstream", "log") if told.get(part)]
        found = f"{reply.status}{', ' if problems else ''}{'; '.join(problems)[:500]}"
        findings.fail("service", "health", f"200 from {url}", found, "Look at the units of gateway and guard.")
        return None
    return told


def check_logs(
    path: str, health: dict[str, t.Any] | None, state: dict[str, t.Any], limits: Limits,
    now: datetime.datetime, findings: Findings,
) -> None:  # fmt: skip
    """Growth of the live log, and what of it is archived. ``state`` is remembered from patrol to patrol."""
    try:
        log = live_ends.find_log(path)
        newest = live_ends.newest_record(log)
        _check_growth(path, newest, health, state, limits, now, findings)
        _check_archived(path, log, newest, limits, now, findings)
    except OSError as error:
        findings.fail("log_growth", path, "a log that can be read", error.strerror or str(error))
        findings.leave("archived", path, "each record in the repository", "the log cannot be read")


def _check_growth(
    path: str, newest: Record | None, health: dict[str, t.Any] | None, state: dict[str, t.Any], limits: Limits,
    now: datetime.datetime, findings: Findings,
) -> None:  # fmt: skip
    when = parse_time(newest.time) if newest else None
    if when:
        findings.facts["last_record"] = when.timestamp()
    hint = "The service answers and records nothing: look at its messages, at the disk, and at who owns the log."
    head = [newest.chain, newest.seq] if newest and newest.chain else None
    audits = _audits(health)
    before = state.get("service", {})
    counted = before.get("audits")
    # Counters begin again at a restart: less than before says nothing.
    same = head is not None and before.get("head") == head and audits is not None and counted is not None
    answered = audits - counted if same else 0
    if answered > 0:
        # What was counted is kept until a record comes: nothing is well only because nobody asked meanwhile.
        findings.fail("log_growth", path, f"{answered} records for the audits since the last patrol", "none", hint)
        return
    if audits is not None:
        state["service"] = {"head": head, "audits": audits, "time": now.timestamp()}
    if health is None:
        findings.leave("log_growth", path, "growth while the service answers", "the service does not say that it does")
    elif not limits.silence_hours:
        findings.leave_limited("log_growth", [path], "growth while the service answers")
    elif when is None or hours_between(when, now) > limits.silence_hours:
        found = f"the last one is {told_age(hours_between(when, now))} old" if when else "none"
        expected = f"a record in the last {told_age(limits.silence_hours)} while the service answers"
        findings.fail("log_growth", path, expected, found, hint)


def _audits(health: dict[str, t.Any] | None) -> int | None:
    """How many audits the gateway has answered since its start; None where it does not say."""
    counters = (health or {}).get("counters")
    audits = counters.get("audits") if isinstance(counters, dict) else None
    if not isinstance(audits, dict):
        return None
    return sum(count for count in audits.values() if isinstance(count, int))


def _check_archived(
    path: str, log: list[pathlib.Path], newest: Record | None, limits: Limits, now: datetime.datetime,
    findings: Findings,
) -> None:  # fmt: skip
    """Records written against records archived, by their numbers."""
    archived: dict[str, int] = findings.facts.get("records", {}).get("archived", {})
    if not limits.archive_hours:
        findings.leave_limited("archived", [path], "records in the repository in time")
    if newest is None:
        findings.leave("archived", path, "each record in the repository", "there is no record in this log")
        return
    if not newest.chain:
        findings.leave("archived", path, "each record in the repository", "records of this log have no numbers")
        return
    missing = newest.seq - archived.get(newest.chain, 0)
    findings.facts["not_archived"] = max(missing, 0)
    if missing <= 0:
        return
    oldest = live_ends.find_number(log, newest.chain, newest.seq - missing + 1)
    when = parse_time(oldest.time) if oldest else None
    if oldest is None or when is None:
        findings.leave("archived", path, "the age of the oldest record that is not archived", "no file here has it")
        return
    age = hours_between(when, now)
    findings.facts["oldest_not_archived"] = when.timestamp()
    at_least = "at least " if oldest.seq > newest.seq - missing + 1 else ""
    if limits.archive_hours and age > limits.archive_hours:
        findings.fail(
            "archived", path, f"every record in the repository within {told_age(limits.archive_hours)}",
            f"{missing} records are not there, the oldest for {at_least}{told_age(age)}",
            "Look at the backup of the logs: its timer, its last run, and whether it reads this directory.",
        )  # fmt: skip
