# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What retention keeps and what it removes, and why. Nothing is removed here.

Private to the collection: use the modules, not this file.

Whatever is unclear is kept. What is kept keeps all that it stands on.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ..format.verdict import LEVELS, PROVING
from .prune_look import Chains, Found, Leftover, Snapshot

DAY = 86400.0
COPY, LIFECYCLE = "copy", "lifecycle"


@dataclasses.dataclass
class Policy:
    """How much is kept. A snapshot stays when any rule wants it; without a rule all of them do."""

    keep_last: int | None = None  # 0: for ever
    keep_days: int | None = None  # 0: for ever
    min_age: float = DAY  # seconds: no chain with a younger snapshot is touched
    orphan_age: float = DAY  # seconds: nor what belongs to no snapshot and is younger


@dataclasses.dataclass
class Cold:
    """Where old logs go, and when."""

    storage_class: str
    after_days: int = 30
    method: str = LIFECYCLE
    present: bool = True  # False: remove the rule
    min_size: int = 128 << 10  # bytes; what is smaller costs more there


@dataclasses.dataclass
class Plan:
    """What is to be done."""

    keep: dict[str, list[str]]  # snapshot -> why
    remove: dict[str, str]  # snapshot -> why, in order of the numbers
    waves: list[list[str]]  # the same snapshots in the order of their removal
    leftovers: list[Leftover]  # that are old enough
    young: list[Leftover]  # that may belong to a run that goes on
    hot: set[str]  # snapshots that must come back at once


def plan(found: Found, policy: Policy, now: float) -> Plan:
    """Decide about each snapshot."""
    keeper = _Keeper(found)
    _keep_newest(keeper)
    _keep_verified(keeper, PROVING)
    hot = keeper.closure(keeper.reasons)
    _keep_verified(keeper, LEVELS)
    _keep_sampled(keeper)
    _keep_unclear(keeper)
    _keep_young(keeper, now - policy.min_age)
    _keep_by_policy(keeper, policy, now)
    keeper.keep_what_they_need()
    remove = {name: _why_removed(policy) for name in found.snapshots if name not in keeper.reasons}
    old = [item for item in found.leftovers if item.newest is not None and item.newest <= now - policy.orphan_age]
    return Plan(
        keep={name: keeper.reasons[name] for name in found.snapshots if name in keeper.reasons},
        remove=remove,
        waves=_waves(found, remove),
        leftovers=old,
        young=[item for item in found.leftovers if item not in old],
        hot=hot,
    )


class _Keeper:
    """Collects why snapshots are kept."""

    def __init__(self, found: Found):
        self.snapshots = found.snapshots
        self.order = list(found.snapshots.values())
        self.place = {snapshot.name: place for place, snapshot in enumerate(self.order)}
        self.reasons: dict[str, list[str]] = {}
        self.sound = self._sound()

    def _sound(self) -> set[str]:
        """Those that can be restored, as far as the listing tells."""
        sound: set[str] = set()
        for item in self.order:  # what one stands on has a lower number
            if not item.unreadable and not item.damaged and (not item.parent or item.parent in sound):
                sound.add(item.name)
        return sound

    def keep(self, snapshot: Snapshot, reason: str) -> None:
        reasons = self.reasons.setdefault(snapshot.name, [])
        if reason not in reasons:
            reasons.append(reason)

    def needs(self, snapshot: Snapshot) -> list[str]:
        """What it stands on, as far as it is there."""
        if not snapshot.unreadable:
            return [
                name
                for name in dict.fromkeys((snapshot.base, snapshot.parent))
                if name in self.snapshots and name != snapshot.name
            ]
        # It may be an increment, and then stands on the newest that was there when it was made.
        place = self.place[snapshot.name]
        return [self.order[place - 1].name] if place else []

    def closure(self, names: t.Iterable[str]) -> set[str]:
        """These, and all that they stand on."""
        found: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += self.needs(self.snapshots[name])
        return found

    def keep_what_they_need(self) -> None:
        for item in reversed(self.order):  # those above have all their reasons by then
            if item.name in self.reasons:
                for name in self.needs(item):
                    if name not in self.reasons:
                        self.keep(self.snapshots[name], f"{item.name} stands on it")


def _keep_newest(keeper: _Keeper) -> None:
    for reason, candidates in (
        ("the newest snapshot", keeper.order),
        ("the newest that is whole", [item for item in keeper.order if item.name in keeper.sound]),
    ):
        if candidates:
            highest = candidates[-1].number
            for item in candidates[-2:]:
                if item.number == highest:  # two hosts that wrote at once: both
                    keeper.keep(item, reason)


def _keep_verified(keeper: _Keeper, levels: t.Sequence[str]) -> None:
    """For each level the newest that passed it; and where that one failed another, the newest that did not."""
    for level in levels:
        passed = [item for item in keeper.order if level in item.passed]
        flawless = [item for item in passed if not item.failed and item.name in keeper.sound]
        for item in {items[-1].name: items[-1] for items in (passed, flawless) if items}.values():
            keeper.keep(item, f"the last that was verified at level {level}")


def _keep_sampled(keeper: _Keeper) -> None:
    """Where a level was never reached but by samples, the newest of these is the best there is."""
    for level in LEVELS:
        newest = next((item for item in reversed(keeper.order) if level in {*item.sampled, *item.passed}), None)
        if newest is not None and level in newest.sampled:
            keeper.keep(newest, f"the last of which a sample was verified at level {level}")


def _keep_unclear(keeper: _Keeper) -> None:
    for item in keeper.order:
        if item.unreadable:
            keeper.keep(item, f"its manifest cannot be read: {item.unreadable}")
        if item.unclear:
            keeper.keep(item, f"whether it was verified is not clear: {item.unclear}")


def _keep_young(keeper: _Keeper, limit: float) -> None:
    """A chain that was added to of late: a backup that runs now, here or elsewhere, may stand on it."""
    young = {item.base for item in keeper.order if not item.unreadable and item.made > limit}
    for item in keeper.order:
        if item.base in young:
            keeper.keep(item, "its chain was added to of late")


def _keep_by_policy(keeper: _Keeper, policy: Policy, now: float) -> None:
    for_ever = policy.keep_last == 0 or policy.keep_days == 0 or (policy.keep_last is None and policy.keep_days is None)
    last = [item for item in keeper.order if item.name in keeper.sound][-policy.keep_last :] if policy.keep_last else []
    newest = {item.name for item in last}
    for item in keeper.order:
        if for_ever:
            keeper.keep(item, "snapshots of this layer are kept for ever")
            continue
        if item.name in newest:
            keeper.keep(item, f"among the last {policy.keep_last}")
        if policy.keep_days and item.made > now - policy.keep_days * DAY:
            keeper.keep(item, f"younger than {policy.keep_days} days")


def _why_removed(policy: Policy) -> str:
    reasons = []
    if policy.keep_last:
        reasons.append(f"not among the last {policy.keep_last}")
    if policy.keep_days:
        reasons.append(f"older than {policy.keep_days} days")
    return " and ".join(reasons)


def _waves(found: Found, remove: t.Collection[str]) -> list[list[str]]:
    """Those that nothing stands on first; then those that only these stood on; and so on.

    Wherever a removal breaks off, each snapshot that is left has all that it stands on.
    """
    heights: dict[str, int] = {}
    for name in reversed(list(found.snapshots)):
        if name in remove:
            height = heights.setdefault(name, 0)
            for below in (found.snapshots[name].parent, found.snapshots[name].base):
                if below in remove and below != name:
                    heights[below] = max(heights.get(below, 0), height + 1)
    waves: list[list[str]] = [[] for _height in range(max(heights.values(), default=-1) + 1)]
    for name, height in heights.items():
        waves[height].append(name)
    return waves


def records_gone(found: Found, plan: Plan) -> dict[str, t.Any]:
    """The numbered records that no snapshot holds any more once the plan is carried out, by what manifests say."""
    kept = _ranges(found.snapshots[name] for name in plan.keep)
    gone = _ranges(found.snapshots[name] for name in plan.remove)
    count = sum(
        last - first + 1 - _overlap(kept.get(chain, []), first, last)
        for chain, ranges in gone.items()
        for first, last in ranges
    )
    losing = [
        item
        for item in (found.snapshots[name] for name in plan.remove)
        if any(last - first + 1 > _overlap(kept.get(chain, []), first, last) for chain, first, last in item.chains)
    ]
    return {
        "count": count,
        "since": min((item.since for item in losing if item.since), default=""),
        "until": max((item.until for item in losing if item.until), default=""),
        "unchained": sum(found.snapshots[name].unchained for name in plan.remove),
    }


def _ranges(snapshots: t.Iterable[Snapshot]) -> dict[str, list[tuple[int, int]]]:
    """Numbers by chain, in order and apart."""
    by_chain: dict[str, list[tuple[int, int]]] = {}
    chains: Chains = [item for snapshot in snapshots for item in snapshot.chains]
    for chain, first, last in sorted(chains):
        ranges = by_chain.setdefault(chain, [])
        if ranges and first <= ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], max(last, ranges[-1][1]))
        else:
            ranges.append((first, last))
    return by_chain


def _overlap(ranges: list[tuple[int, int]], first: int, last: int) -> int:
    return sum(max(0, min(last, high) - max(first, low) + 1) for low, high in ranges)
