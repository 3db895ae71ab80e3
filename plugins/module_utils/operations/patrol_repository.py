# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What manifests, verdicts and drills say of an instance: is it backed up, proven, and rehearsed?

Private to the collection: use the modules, not this file.

All of it is public in the repository, so that one place without keys can watch many instances. It believes what it
reads: whether the bytes are there is what verifications find out, and this only whether these were made.
"""

from __future__ import annotations

import collections
import datetime
import typing as t

from ..errors import IntegrityError
from ..format.drill import Drill
from ..format.manifest import LAYERS, Manifest, snapshot_number
from ..format.verdict import Verdict, failure
from .patrol_findings import Findings, Limits, hours_between, parse_time, told_age
from .patrol_records import check_records
from .patrol_survey import LayerSurvey, Survey

_CLOCK_HOURS = 0.25  # clocks of hosts may differ by so much
_AGE_OF_LOGS = "logs, age"  # another finding than that there is no snapshot: its limit leaves only this one out
_RECENT = 50  # numbers of snapshots: what is older was told about long ago


def check_instance(survey: Survey, limits: Limits, now: datetime.datetime, findings: Findings) -> None:
    """All that can be told of one instance from its part of the repository."""
    for layer in limits.layers:
        of_layer = survey.layers[layer]
        facts = findings.facts.setdefault("layers", {}).setdefault(layer, {})
        _check_snapshots(of_layer, limits, now, findings, facts)
        if of_layer.newest is not None:
            _check_verdicts(of_layer, limits, now, findings, facts)
    if "logs" in limits.layers:
        check_records(survey.layers["logs"], limits, now, findings)
    for layer in LAYERS:
        if layer not in limits.layers:
            findings.leave("snapshot", layer, "a snapshot", "the layer was not named")
    _check_drills(survey, limits, now, findings)


def _check_snapshots(
    survey: LayerSurvey, limits: Limits, now: datetime.datetime, findings: Findings, facts: dict[str, t.Any]
) -> None:
    layer = survey.layer
    for text in survey.damaged:
        findings.fail("manifest", layer, "manifests that can be believed", text, "Verify the layer, and back it up.")
    newest = survey.newest
    if newest is None:
        found = f"{len(survey.interrupted)} interrupted ones" if survey.interrupted else "none"
        findings.fail("snapshot", layer, "a snapshot", found, "Run the backup of this layer, and read what it says.")
        if layer == "logs":
            findings.leave("snapshot", _AGE_OF_LOGS, "one that is young enough", "there is none")
        return
    created = _time_of(newest)
    age = hours_between(created, now)
    facts.update(
        snapshot=newest.snapshot, created=newest.created, type=newest.type, snapshots=len(survey.snapshots),
        bytes=newest.stored_bytes, host=newest.host,
    )  # fmt: skip
    if age < -_CLOCK_HOURS:
        findings.fail(
            "clock", layer, "snapshots of the past", f"{newest.snapshot}, made {told_age(-age)} from now",
            f"The clock of {newest.host or 'the host'} or the one here is wrong: ages say nothing until it is right.",
        )  # fmt: skip
    elif layer == "logs" and limits.logs_hours and age > limits.logs_hours:
        findings.fail(
            "snapshot", _AGE_OF_LOGS, f"one younger than {told_age(limits.logs_hours)}",
            f"{newest.snapshot}, made {told_age(age)} ago", "Look at the backup's timer and its last run.",
        )  # fmt: skip
    if layer == "logs" and not limits.logs_hours:
        findings.leave_limited("snapshot", [_AGE_OF_LOGS], "one that is young enough")
    if len(survey.interrupted) > 1:  # one may be running now
        findings.warn(
            "interrupted", layer, "backups that end",
            f"{len(survey.interrupted)} interrupted ones since {newest.snapshot}",
            "Look at the backup's last runs. What they left is removed or used again by the next that ends.",
        )  # fmt: skip
    numbers = collections.Counter(snapshot_number(item) or 0 for item in survey.snapshots)
    twice = [number for number, count in numbers.items() if count > 1 and number > newest.number - _RECENT]
    if twice:
        findings.warn(
            "two_writers", layer, "one snapshot of each number", f"two with the number {max(twice)}",
            "Two hosts back up this instance: stop one of them.",
        )  # fmt: skip
    if layer == "logs":
        begin = snapshot_number(newest.base) or 0
        increments = sum(number > begin for number in numbers.elements()) - len(survey.interrupted)
        facts["increments"] = max(increments, 0)
        if not limits.increments:
            findings.leave_limited("chain", [layer], "a full after some increments")
        elif increments > limits.increments:
            findings.warn(
                "chain", layer, f"a full after {limits.increments} increments at most", f"{increments} increments",
                "Look at the timer of the fulls: the longer a chain, the longer a restore, and the more can break it.",
            )  # fmt: skip


def _check_verdicts(
    survey: LayerSurvey, limits: Limits, now: datetime.datetime, findings: Findings, facts: dict[str, t.Any]
) -> None:
    for kind, verdicts, limit, expected in (
        ("quick", survey.verdicts, limits.quick_hours, "a verification that reads what is stored"),
        ("proven", survey.whole, limits.proven_days * 24, "a verification that restores everything"),
    ):
        thing = f"{survey.layer}, {kind}"
        if not limit:
            findings.leave_limited("verification", [thing], expected)
            continue
        verdict = _newest(list(verdicts.values()))
        if verdict is not None:
            facts[kind] = {name: verdict.get(name) for name in ("snapshot", "level", "ok", "verified", "seconds")}
            age = hours_between(_verified(verdict) or now, now)
            found = f"{verdict.get('snapshot')} at level {verdict.get('level')}, {told_age(age)} ago"
        else:
            # Nothing was verified yet: a fault once there was time enough for it.
            age = hours_between(parse_time(survey.first_created) or now, now)
            found = f"none, and the first snapshot here is {told_age(age)} old"
        if age > limit:
            findings.fail(
                "verification", thing, f"{expected} in the last {told_age(limit)}", found,
                "Look at the verification's timer and its last run.",
            )  # fmt: skip
    # The newest verdict of each level counts: one that failed and was made good since is history. A sample makes
    # nothing good.
    for level, newest in sorted(survey.verdicts.items()):
        verdict = failure(newest)
        if verdict is not None:
            failures = verdict.get("failures")
            first = str(failures[0])[:500] if isinstance(failures, list) and failures else "it does not say why"
            findings.fail(
                "verdict", f"{survey.layer}, {level}", "a verification that passes",
                f"{verdict.get('snapshot')} failed at {verdict.get('verified')}: {first}",
                "Restore from a snapshot before it if you must now, and find out what is wrong with the store.",
            )  # fmt: skip


def _newest(verdicts: list[Verdict]) -> Verdict | None:
    """The one that was made last, as far as its time can be read."""
    dated = [(when, verdict) for verdict in verdicts if (when := _verified(verdict)) is not None]
    return max(dated, key=lambda item: item[0])[1] if dated else None


def _verified(verdict: Verdict) -> datetime.datetime | None:
    return parse_time(verdict.get("verified"))


def _check_drills(survey: Survey, limits: Limits, now: datetime.datetime, findings: Findings) -> None:
    """Drills, and recoveries in earnest: both show that it can be done."""
    if not limits.drill_days:
        findings.leave_limited("drill", ["drills", "newest drill", "records of drills"], "a rehearsed recovery")
        return
    expected = f"one in the last {told_age(limits.drill_days * 24)}"
    hint = "Run the drill (playbook drill), and look at its schedule."
    for damaged in (item for item in survey.drills if isinstance(item, IntegrityError)):
        findings.warn("drill", "records of drills", "records that can be read", str(damaged))
    newest = next((item for item in survey.drills if isinstance(item, Drill)), None)
    if newest is None:
        since = [
            parse_time(item.first_created or item.newest.created) for item in survey.layers.values() if item.newest
        ]
        age = max((hours_between(when, now) for when in since if when), default=0.0)
        if age > limits.drill_days * 24:
            findings.fail("drill", "drills", expected, f"none; snapshots are here for {told_age(age)}", hint)
        return
    findings.facts["drill"] = {
        "started": newest.started, "ok": newest.ok, "kind": newest.kind, "seconds": newest.recovery_time_seconds,
        "budget_seconds": newest.budget_seconds, "phases": {phase.name: phase.seconds for phase in newest.phases},
    }  # fmt: skip
    age = hours_between(parse_time(newest.started) or now, now)
    if age > limits.drill_days * 24:
        findings.fail("drill", "drills", expected, f"the newest was {told_age(age)} ago", hint)
    if not newest.ok:
        findings.fail(
            "drill", "newest drill", "one that came to its end within its budget",
            f"a failed {newest.kind} of {newest.started}: {(newest.failures or ['it does not say why'])[0][:500]}",
            "Read its record in the repository, mend what failed, and run the drill again.",
        )  # fmt: skip


def _time_of(manifest: Manifest) -> datetime.datetime:
    return datetime.datetime.fromisoformat(manifest.created.replace("Z", "+00:00"))
