# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The record of a drill or of a real recovery: how long each phase took, what came back, and what nobody looked at.

Private to the collection: use the modules, not this file.

It lies beside the snapshots, in the clear. It comes from a store that anybody may have written to.
"""

from __future__ import annotations

import dataclasses
import json
import re
import typing as t

from ..errors import IntegrityError
from . import fields
from .manifest import LAYERS, snapshot_number

PREFIX = "drills"
FORMAT = 1
KINDS = DRILL, RECOVERY = ("drill", "recovery")
_NAME = re.compile(r"\A([0-9]{4})([0-9]{2})([0-9]{2})T([0-9]{2})([0-9]{2})([0-9]{2})Z\.json\Z")
_MOMENT = re.compile(r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z\Z")
_TEXT = 2000  # characters of one text
_MANY = 1000  # entries of one list


class Phase(t.NamedTuple):
    """One step of a recovery."""

    name: str
    seconds: float
    ok: bool
    detail: str = ""


@dataclasses.dataclass
class RecoveryPoint:
    """Up to where the logs came back: what was logged later, and before the disaster, is lost."""

    snapshot: str  # of the logs
    created: str  # when it was made
    newest_record: str  # the latest time of a record in what came back; of the snapshot where no record tells one
    lost_at: str  # when the disaster was, as far as anybody said; else when the recovery began
    seconds: float  # between the two


@dataclasses.dataclass
class Drill:
    """One recovery, for practice or in earnest."""

    kind: str
    instance: str
    host: str  # that was recovered
    started: str
    ended: str
    phases: list[Phase]
    recovery_point: RecoveryPoint | None  # None: no logs came back
    recovery_time_seconds: float | None  # from the start to the first real audit that was answered; None: never
    total_seconds: float
    budget_seconds: float  # for the recovery time
    ok: bool
    failures: list[str] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)
    not_checked: list[str] = dataclasses.field(default_factory=list)
    snapshots: dict[str, str] = dataclasses.field(default_factory=dict)  # by layer
    versions: dict[str, str] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, t.Any]:
        """The fields as they are stored."""
        return {"format": FORMAT, **dataclasses.asdict(self), "phases": [phase._asdict() for phase in self.phases]}

    def to_bytes(self) -> bytes:
        """The object's content: JSON that people can read."""
        return (json.dumps(self.to_json(), indent=1) + "\n").encode()


def object_name(started: str) -> str:
    """Below the instance. ``started`` is a time in UTC, to the second."""
    return f"{PREFIX}/{re.sub('[-:]', '', fields.time(started))}.json"


def is_name(name: str) -> bool:
    """Whether an object below the prefix is called as a record is."""
    return _NAME.match(name) is not None


def parse(data: bytes, where: str, instance: str) -> Drill:
    """The record in ``data``, which must be one of this instance; `IntegrityError` otherwise."""
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise IntegrityError(where, "the record of a drill in JSON", f"{len(data)} bytes that are not") from error
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        found = f"format {raw.get('format')!r:.20}" if isinstance(raw, dict) else "another document"
        raise IntegrityError(where, f"the record of a drill, format {FORMAT}", found)
    if raw.get("instance") != instance:
        raise IntegrityError(where, f"the record of instance {instance}", f"that of {raw.get('instance')!r:.80}")
    try:
        point, answered = raw["recovery_point"], raw["recovery_time_seconds"]
        return Drill(
            kind=fields.one_of(raw["kind"], KINDS),
            instance=instance,
            host=_text(raw["host"]),
            started=fields.time(raw["started"]),
            ended=fields.time(raw["ended"]),
            phases=[_phase(item) for item in _list(raw["phases"])],
            recovery_point=None if point is None else _point(fields.of_type(point, dict)),
            recovery_time_seconds=None if answered is None else fields.seconds(answered),
            total_seconds=fields.seconds(raw["total_seconds"]),
            budget_seconds=fields.seconds(raw["budget_seconds"]),
            ok=fields.of_type(raw["ok"], bool),
            **{name: [_text(item) for item in _list(raw[name])] for name in ("failures", "warnings", "not_checked")},
            snapshots={
                fields.one_of(layer, LAYERS): _snapshot(item)
                for layer, item in fields.of_type(raw["snapshots"], dict).items()
            },
            versions={_text(name): _text(item) for name, item in fields.of_type(raw["versions"], dict).items()},
        )
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrityError(
            where, "a complete record of a drill", f"fields that do not fit ({error!r:.200})"
        ) from error


def phase_of(raw: t.Any) -> Phase:
    """A phase as a playbook tells it. Texts are cut where they are too long to be stored."""
    return Phase(_cut(raw["name"]), fields.seconds(raw["seconds"]), bool(raw["ok"]), _cut(raw.get("detail") or ""))


def texts_of(raw: t.Iterable[t.Any]) -> list[str]:
    """Texts as a playbook tells them, cut likewise."""
    return [_cut(text) for text in raw][:_MANY]


def _cut(text: t.Any) -> str:
    return fields.cut(text, _TEXT)


def _text(value: t.Any) -> str:
    return fields.text(value, _TEXT)


def _list(value: t.Any) -> list[t.Any]:
    items: list[t.Any] = fields.of_type(value, list)
    if len(items) > _MANY:
        raise ValueError(f"a list of {len(items)} entries")
    return items


def _snapshot(value: t.Any) -> str:
    if not isinstance(value, str) or snapshot_number(value) is None:
        raise ValueError(f"{value!r:.80}")
    return value


def _phase(raw: t.Any) -> Phase:
    raw = fields.of_type(raw, dict)
    ok = fields.of_type(raw["ok"], bool)
    return Phase(_text(raw["name"]), fields.seconds(raw["seconds"]), ok, _text(raw["detail"]))


def _point(raw: dict[str, t.Any]) -> RecoveryPoint:
    return RecoveryPoint(
        snapshot=_snapshot(raw["snapshot"]),
        created=fields.time(raw["created"]),
        newest_record=fields.matching(raw["newest_record"], _MOMENT),
        lost_at=fields.time(raw["lost_at"]),
        seconds=fields.seconds(raw["seconds"]),
    )
