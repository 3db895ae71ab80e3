# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Retention: look, decide what may go, and remove it if that was asked for.

Private to the collection: use the modules, not this file.

No key is needed: manifests and verdicts are public. docs/retention.md says what is never removed, and why that holds
wherever a run breaks off.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
import typing as t

from ..errors import GuardError, StoreError
from ..services.store import RcloneStore
from . import fences, ledger
from .prune_apply import Removal, apply
from .prune_look import Found, look
from .prune_plan import Cold, Plan, Policy, plan, records_gone
from .session import Session

if t.TYPE_CHECKING:
    from .prune_cold import Cooling

_MOST_TOLD = 50


@dataclasses.dataclass
class Options:
    """What a run may be told."""

    policy: Policy = dataclasses.field(default_factory=Policy)
    apply: bool = False
    cold: Cold | None = None
    archive_ledger: str = ""
    only_prunes: bool = False  # this host never backs the instance up: whoever does, it prunes for that one
    now: float = 0.0  # 0: by this host's clock


@dataclasses.dataclass
class Outcome:
    """What was found, decided and done."""

    changed: bool = False
    applied: bool = False
    keep: list[dict[str, t.Any]] = dataclasses.field(default_factory=list)
    remove: list[dict[str, t.Any]] = dataclasses.field(default_factory=list)
    removed: list[str] = dataclasses.field(default_factory=list)
    keep_bytes: int = 0
    remove_bytes: int = 0
    removed_bytes: int = 0
    removed_objects: int = 0
    leftovers: dict[str, int] = dataclasses.field(default_factory=dict)
    records_gone: dict[str, t.Any] = dataclasses.field(default_factory=dict)
    cold: dict[str, t.Any] = dataclasses.field(default_factory=dict)
    left_out: list[dict[str, str]] = dataclasses.field(default_factory=list)
    not_checked: list[str] = dataclasses.field(default_factory=list)
    failures: list[str] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    before: str = ""  # for a diff
    after: str = ""


def prune(session: Session, options: Options) -> Outcome:
    """Plan the retention of ``session.layer``; carry it out where it is asked for and this is no check mode."""
    started = time.monotonic()
    for name, value in (("keep_last", options.policy.keep_last), ("keep_days", options.policy.keep_days)):
        if value is not None and value < 0:
            raise GuardError(f"option {name}", "0 (for ever) or more", str(value))
    really = options.apply and not session.dry
    with session.alone() if really else contextlib.nullcontext():
        outcome = _prune(session, options, really)
    outcome.seconds = round(time.monotonic() - started, 3)
    return outcome


def _prune(session: Session, options: Options, really: bool) -> Outcome:
    session.progress.begin("looking")
    ids = fences.listed(session.repository)
    if options.only_prunes:
        session.fence = ids[-1] if ids else ""
    elif options.apply:
        fences.go_by(session, ids)
    found = look(session.repository, session.layer, fences.read(session.repository, ids))
    now = options.now or time.time()
    planned = plan(found, options.policy, now)
    outcome = Outcome()
    _tell(outcome, found, planned)
    _tell_versions(session, outcome)
    cooling: Cooling | None = None
    if options.cold is not None:
        from . import prune_cold  # here, because boto3 takes a quarter of a second to load

        cooling = prune_cold.plan_cooling(session, options.cold, found, planned, now)
        _tell_cooling(outcome, cooling)
    due = bool(planned.remove or planned.leftovers or (cooling and cooling.changed))
    if not options.apply:
        return outcome
    outcome.changed = due
    if not really:
        return outcome
    outcome.applied = True
    removal = apply(session, found, planned, now, options.policy.orphan_age)
    _tell_removal(outcome, removal)
    if options.archive_ledger and session.layer == "logs" and removal.snapshots:
        ledger.forget(session, options.archive_ledger)
    if cooling is not None and not removal.failures:
        prune_cold.apply_cooling(session, cooling)
        outcome.failures += cooling.failures
    return outcome


def _tell(outcome: Outcome, found: Found, planned: Plan) -> None:
    for name, item in found.snapshots.items():
        told = {
            "snapshot": name,
            "number": item.number,
            "type": item.type,
            "created": item.created,
            "bytes": item.bytes,
        }
        if name in planned.remove:
            outcome.remove.append({**told, "reason": planned.remove[name]})
            outcome.remove_bytes += item.bytes
        else:
            outcome.keep.append({**told, "reason": "; ".join(planned.keep[name])})
            outcome.keep_bytes += item.bytes
    outcome.leftovers = {
        "count": len(planned.leftovers),
        "objects": sum(len(item.objects) for item in planned.leftovers),
        "bytes": sum(details.size for item in planned.leftovers for details in item.objects.values()),
    }
    outcome.records_gone = records_gone(found, planned) if found.layer == "logs" else {}
    line = "{snapshot} {type} of {created}, {bytes} bytes\n".format
    outcome.before = "".join(
        line(**item)
        for item in sorted([*outcome.keep, *outcome.remove], key=lambda item: (item["number"], item["snapshot"]))
    )
    outcome.after = "".join(line(**item) for item in outcome.keep)
    if planned.leftovers:
        outcome.before += "objects of no snapshot: {count} leftovers with {objects} objects, {bytes} bytes\n".format(
            **outcome.leftovers
        )
    for leftover in planned.young:
        why = "the store does not say how old it is" if leftover.newest is None else "young: a run may go on with it"
        outcome.left_out.append({"path": leftover.name, "reason": why})
    for name in found.foreign[:_MOST_TOLD]:
        outcome.left_out.append({"path": name, "reason": "not an object of this collection, or of a newer release"})
    if len(found.foreign) > _MOST_TOLD:
        count = len(found.foreign) - _MOST_TOLD
        outcome.left_out.append({"path": "…", "reason": f"{count} more that are not of this collection"})
    for item in found.snapshots.values():
        if item.unreadable:
            outcome.not_checked.append(f"{item.name}, whose manifest cannot be read, and what it stands on")
    outcome.not_checked.append("whether verdicts are genuine: whoever can write to the store can write them")


def _tell_versions(session: Session, outcome: Outcome) -> None:
    """A removal in a bucket that keeps versions only hides."""
    store = session.repository.store
    if not isinstance(store, RcloneStore) or not (outcome.remove or outcome.leftovers["count"]):
        return
    try:
        versioning = store.rclone.versioning(store.location)
    except StoreError as error:
        outcome.not_checked.append(f"whether the bucket keeps versions of what is removed ({error})")
        return
    if versioning in ("Enabled", "Suspended"):
        outcome.not_checked.append(
            f"older versions: the bucket keeps them (versioning is {versioning.lower()}), and they take their room "
            "until a lifecycle rule of the bucket expires them"
        )


def _tell_cooling(outcome: Outcome, cooling: Cooling) -> None:
    outcome.cold = {
        "method": cooling.method, "storage_class": cooling.storage_class, "changed": cooling.changed,
        "snapshots": cooling.snapshots, "objects": len(cooling.objects), "bytes": sum(cooling.objects.values()),
    }  # fmt: skip
    outcome.not_checked += cooling.not_checked
    outcome.left_out += [{"path": "cold class", "reason": reason} for reason in cooling.left_out]
    outcome.before += cooling.before
    outcome.after += cooling.after
    if cooling.objects:
        moved = f"{len(cooling.objects)} parts, {sum(cooling.objects.values())} bytes"
        outcome.before += f"in a hot class: {moved}\n"
        outcome.after += f"in {cooling.storage_class}: {moved}\n"


def _tell_removal(outcome: Outcome, removal: Removal) -> None:
    outcome.removed = removal.snapshots
    outcome.removed_bytes, outcome.removed_objects = removal.bytes, removal.objects
    outcome.failures += removal.failures
    outcome.left_out += [
        {"path": text.partition(":")[0], "reason": text.partition(": ")[2]} for text in removal.not_removed
    ]
