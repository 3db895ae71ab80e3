# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Judge a drill or a recovery, keep its record beside the snapshots, and tell of those that are there.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import dataclasses
import datetime
import typing as t

from ..errors import GuardError, IntegrityError
from ..format.drill import DRILL, PREFIX, Drill, Phase, RecoveryPoint, is_name, object_name, parse
from ..format.manifest import Manifest, snapshot_number
from ..format.repository import Repository

NO_ANSWER = "the service never answered an audit"
_UTC = datetime.timezone.utc
_TRIES = 60  # records that began in the same second, and a second later, and so on


@dataclasses.dataclass
class Told:
    """What a playbook knows of a recovery that has ended, one way or the other."""

    kind: str
    host: str
    started: str
    phases: list[Phase]
    snapshots: dict[str, str]
    budget_seconds: float
    recovery_time_seconds: float | None = None
    total_seconds: float | None = None  # None: the sum of the phases
    lost_at: str = ""
    failures: list[str] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)
    not_checked: list[str] = dataclasses.field(default_factory=list)
    versions: dict[str, str] = dataclasses.field(default_factory=dict)


def judge(repository: Repository, told: Told) -> Drill:
    """The record, with its verdict."""
    total = sum(phase.seconds for phase in told.phases) if told.total_seconds is None else told.total_seconds
    failures = [f"{phase.name}: {phase.detail or 'failed'}" for phase in told.phases if not phase.ok]
    failures += told.failures
    warnings = list(told.warnings)
    if told.recovery_time_seconds is None:
        failures.append(NO_ANSWER)
    elif told.recovery_time_seconds > told.budget_seconds:
        late = _over_budget(told.phases, told.recovery_time_seconds, told.budget_seconds)
        # A drill is there to find that out. A service that came back late has come back.
        (failures if told.kind == DRILL else warnings).append(late)
    point, not_checked = None, list(told.not_checked)
    try:
        point = _recovery_point(repository, told)
    except IntegrityError as error:
        not_checked.append(f"the recovery point: {error}")
    return Drill(
        kind=told.kind,
        instance=repository.instance,
        host=told.host,
        started=told.started,
        ended=_later(told.started, total),
        phases=told.phases,
        recovery_point=point,
        recovery_time_seconds=told.recovery_time_seconds,
        total_seconds=round(total, 3),
        budget_seconds=told.budget_seconds,
        ok=not failures,
        failures=failures,
        warnings=warnings,
        not_checked=not_checked,
        snapshots=told.snapshots,
        versions=told.versions,
    )


def _over_budget(phases: list[Phase], answered: float, budget: float) -> str:
    """Which phase ate it: the longest of those before the service answered."""
    until, before = 0.0, []
    for phase in phases:
        if until < answered:
            before.append(phase)
        until += phase.seconds
    text = f"the service answered after {answered:.1f} s, and {budget:.0f} s were allowed"
    if not before:
        return text
    longest = max(before, key=lambda phase: phase.seconds)
    return f"{text}: {longest.name} took {longest.seconds:.1f} s of it"


def _later(started: str, seconds: float) -> str:
    return (_time(started) + datetime.timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def _time(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text[:-1]).replace(tzinfo=_UTC)


def _recovery_point(repository: Repository, told: Told) -> RecoveryPoint | None:
    snapshot = told.snapshots.get("logs")
    if not snapshot:
        return None
    manifests = repository.manifests("logs")
    last = manifests.get(snapshot)
    if not isinstance(last, Manifest):
        raise last or IntegrityError(repository.where("logs", snapshot), "the snapshot that came back", "none")
    newest = max(_newest_records(manifests, last), default=last.created)
    lost_at = told.lost_at or told.started
    seconds = max(0.0, (_time(lost_at) - _time(newest)).total_seconds())
    return RecoveryPoint(snapshot, last.created, newest, lost_at, round(seconds, 3))


def _newest_records(manifests: t.Mapping[str, Manifest | IntegrityError], last: Manifest) -> t.Iterator[str]:
    """Times of the newest records in a snapshot and those that it stands on; those without a chain to the hour."""
    low = snapshot_number(last.base) or 0
    for manifest in manifests.values():
        if isinstance(manifest, Manifest) and manifest.base == last.base and low <= manifest.number <= last.number:
            records = manifest.records or {"chains": [], "hours": {}}
            yield from (chain["until"] for chain in records["chains"])
            yield from (f"{hour}:00:00Z" for hour in records["hours"] if hour)


def keep(repository: Repository, drill: Drill) -> str:
    """Store the record under a name of its own, and read it back; its full name."""
    taken = repository.store.list(repository.name(PREFIX))
    for second in range(_TRIES):
        name = object_name(_later(drill.started, second))
        if name.partition("/")[2] not in taken:
            break
    else:
        where = repository.where(PREFIX)
        raise GuardError(where, "a free name for the record", f"{_TRIES} records of {drill.started} and after")
    data = drill.to_bytes()
    full_name = repository.where(name)
    parse(data, full_name, repository.instance)  # what no reader would take is not written
    repository.store.write(repository.name(name), data)
    return full_name


def newest(repository: Repository, count: int) -> list[dict[str, t.Any]]:
    """The newest records, the newest first. In the place of one that cannot be read its name and why."""
    names = [name for name in repository.store.list(repository.name(PREFIX)) if is_name(name)]
    names = sorted(names, reverse=True)[:count]
    if not names:
        return []
    contents = repository.store.read_several([repository.name(PREFIX, name) for name in names])
    found: list[dict[str, t.Any]] = []
    for name in names:
        where = repository.where(PREFIX, name)
        try:
            data = contents.get(repository.name(PREFIX, name), b"")
            found.append({"name": where, "damaged": "", **parse(data, where, repository.instance).to_json()})
        except IntegrityError as error:
            found.append({"name": where, "damaged": str(error)})
    return found
