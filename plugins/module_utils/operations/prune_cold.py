# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Old logs go to a storage class that costs less.

Private to the collection: use the modules, not this file.

Two ways. A lifecycle rule lets the store do it: it knows prefixes only, so that manifests and record tables go along.
A copy within the store moves parts only, and of whole chains: what tells of them stays at hand, and no snapshot that is
kept hot stands on one that is cold.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ..errors import GuardError
from ..services.s3 import Lifecycle, Rule
from .prune_look import Found, listed
from .prune_plan import COPY, DAY, LIFECYCLE, Cold, Plan
from .session import Session

# Objects in these must be brought back before anybody can read them, which takes hours.
ARCHIVES = ("GLACIER", "DEEP_ARCHIVE", "ARCHIVE", "COLDARCHIVE", "COLD_ARCHIVE", "DEEP_COLD_ARCHIVE")
_AT_ONCE = 1000
_MOST_TOLD = 20


@dataclasses.dataclass
class Cooling:
    """What is to be done, and what came of it."""

    method: str
    storage_class: str
    changed: bool = False
    objects: dict[str, int] = dataclasses.field(default_factory=dict)  # to be moved: name below the instance -> bytes
    snapshots: list[str] = dataclasses.field(default_factory=list)
    before: str = ""  # the rule, for a diff
    after: str = ""
    rules: list[Rule] | None = None  # all rules as they should be
    failures: list[str] = dataclasses.field(default_factory=list)
    not_checked: list[str] = dataclasses.field(default_factory=list)
    left_out: list[str] = dataclasses.field(default_factory=list)


def plan_cooling(session: Session, cold: Cold, found: Found, plan: Plan, now: float) -> Cooling:
    """What has to be done; nothing is."""
    if session.layer != "logs":
        raise GuardError(
            "option cold", "none for this layer", f"one for layer {session.layer}",
            "Weights and configuration must come back within minutes.",
        )  # fmt: skip
    if cold.method == LIFECYCLE:
        return _plan_rule(session, cold)
    cooling = Cooling(COPY, cold.storage_class)
    if not cold.present:
        cooling.not_checked.append("method copy: what is in the cold class stays there; there is nothing to turn off")
        return cooling
    if not session.repository.store.has_tiers:
        raise GuardError(
            f"repository {session.repository.store.location}", "a store that rclone can change storage classes in",
            "one of another kind", "Use the method lifecycle if it is an S3 that has rules, or no cold class.",
        )  # fmt: skip
    _plan_copies(cooling, cold, found, plan, now)
    return cooling


def _plan_copies(cooling: Cooling, cold: Cold, found: Found, plan: Plan, now: float) -> None:
    limit = now - cold.after_days * DAY
    # By chain: the full of an increment that is wanted soon must not be away.
    warm = {found.snapshots[name].base for name in plan.hot}
    warm |= {item.base for item in found.snapshots.values() if item.unreadable or item.made > limit}
    small = archived = 0
    for name in plan.keep:
        item = found.snapshots[name]
        if item.unreadable or item.base in warm or name in plan.hot:
            continue
        parts = {part: details for part, details in item.objects.items() if part.startswith("part-")}
        for part, details in parts.items():
            if details.tier == cold.storage_class:
                continue
            if details.tier in ARCHIVES:
                archived += 1
            elif details.size < cold.min_size:
                small += 1
            else:
                cooling.objects[f"{found.layer}/{name}/{part}"] = details.size
                if cooling.snapshots[-1:] != [name]:
                    cooling.snapshots.append(name)
    cooling.changed = bool(cooling.objects)
    if small:
        cooling.left_out.append(f"{small} parts of less than {cold.min_size} bytes: they would cost more there")
    if archived:
        cooling.left_out.append(f"{archived} parts in another archive class, from which a store does not move them")


def _plan_rule(session: Session, cold: Cold) -> Cooling:
    cooling = Cooling(LIFECYCLE, cold.storage_class)
    if cold.storage_class.upper() in ARCHIVES and cold.present:
        raise GuardError(
            "option cold", "for the method lifecycle a class that can be read at once (STANDARD_IA, GLACIER_IR …)",
            cold.storage_class,
            "A rule moves manifests too: nobody could list the snapshots any more. Use the method copy.",
        )  # fmt: skip
    lifecycle = Lifecycle(session.repository.store)
    rules = lifecycle.rules()
    prefix = f"{lifecycle.path}{session.repository.name('logs')}/"
    name = f"guardops-{prefix.strip('/').replace('/', '-')}-cold"[:255]
    ours = [rule for rule in rules if rule.get("ID") == name]
    wanted: list[Rule] = []
    if cold.present:
        transition = {"Days": cold.after_days, "StorageClass": cold.storage_class}
        wanted = [{"ID": name, "Filter": {"Prefix": prefix}, "Status": "Enabled", "Transitions": [transition]}]
        cooling.not_checked.append(
            "when the store carries its lifecycle rule out, and that the rule goes by each object's own age: the full "
            "of a chain is cold before its increments are"
        )
    cooling.before, cooling.after = (_told(some) for some in (ours, wanted))
    cooling.changed = cooling.before != cooling.after
    cooling.rules = [rule for rule in rules if rule.get("ID") != name] + wanted
    return cooling


def _told(rules: t.Iterable[Rule]) -> str:
    """A rule for people, and to compare."""
    lines = []
    for rule in rules:
        prefix = rule.get("Filter", {}).get("Prefix", rule.get("Prefix", ""))
        moves = ", ".join(f"{x.get('StorageClass')} after {x.get('Days')} days" for x in rule.get("Transitions", []))
        lines.append(f"lifecycle rule {rule.get('ID')!r}: {prefix} to {moves or 'nowhere'} ({rule.get('Status')})\n")
    return "".join(lines)


def apply_cooling(session: Session, cooling: Cooling) -> None:
    """Do it, and read back that it is done."""
    store = session.repository.store
    if not cooling.changed:
        return
    if cooling.rules is not None:
        Lifecycle(store).replace(cooling.rules)
        return
    names = list(cooling.objects)
    session.progress.begin("moving parts to the cold class", len(names))
    for start in range(0, len(names), _AT_ONCE):
        batch = names[start : start + _AT_ONCE]
        store.set_tier([session.repository.name(name) for name in batch], cooling.storage_class)
        session.progress.advance(len(batch))
    now, _foreign = listed(session.repository, "logs")
    wrong = []
    for name in names:
        _layer, snapshot, item = name.split("/")
        details = now.get(snapshot, {}).get(item)
        if details is None or details.tier != cooling.storage_class:
            found = "gone" if details is None else f"in {details.tier or 'the usual class'}"
            wrong.append(f"{session.repository.where(name)}: it was moved to {cooling.storage_class}, and is {found}")
    cooling.failures += wrong[:_MOST_TOLD]
    if len(wrong) > _MOST_TOLD:
        cooling.failures.append(f"{len(wrong) - _MOST_TOLD} more parts are not in {cooling.storage_class}")
