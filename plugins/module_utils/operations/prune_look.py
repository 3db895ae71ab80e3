# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a layer of a repository holds, as far as retention has to know.

Private to the collection: use the modules, not this file.

Everything is listed once and read once. Of a manifest only what decides is kept, so that tens of thousands fit.
"""

from __future__ import annotations

import dataclasses
import datetime
import typing as t

from ..errors import IntegrityError
from ..format import manifest as manifests
from ..format import verdict as verdict_format
from ..format.manifest import snapshot_number
from ..format.record_table import PREFIX, parse_name
from ..format.repository import MANIFEST, Repository
from ..services.transfers import Details
from .fences import Fences

Chains = list[tuple[str, int, int]]  # chain, first and last number of its records


@dataclasses.dataclass
class Snapshot:
    """A snapshot that exists: its manifest is there. What only a readable manifest tells is empty without one."""

    name: str
    number: int
    objects: dict[str, Details]  # below the snapshot
    made: float = 0.0  # seconds since 1970: the later of what its host and what the store say
    created: str = ""
    type: str = ""
    base: str = ""
    parent: str = ""
    damaged: str = ""  # an object is missing or has another size, or its host was fenced off
    unreadable: str = ""  # why the manifest cannot be read
    passed: list[str] = dataclasses.field(default_factory=list)  # levels of verification, as a whole
    sampled: list[str] = dataclasses.field(default_factory=list)  # levels at which a sample passed
    failed: bool = False  # at any level
    unclear: str = ""  # why its verdicts cannot be read
    verdicts: Details | None = None  # the object that holds them
    chains: Chains = dataclasses.field(default_factory=list)
    since: str = ""
    until: str = ""
    unchained: int = 0
    tables: dict[str, Details] = dataclasses.field(default_factory=dict)  # by name below the instance

    @property
    def bytes(self) -> int:
        """What it takes in the store."""
        verdicts = self.verdicts.size if self.verdicts else 0
        return sum(item.size for item in [*self.objects.values(), *self.tables.values()]) + verdicts


@dataclasses.dataclass
class Leftover:
    """Objects of ours that belong to no snapshot: an interrupted run's, or what an interrupted removal left."""

    name: str  # for people
    objects: dict[str, Details]  # by name below the instance

    @property
    def newest(self) -> float | None:
        """When the last of them was stored; None where the store does not say."""
        times = [item.modified for item in self.objects.values()]
        return None if None in times else max((time for time in times if time is not None), default=None)


@dataclasses.dataclass
class Found:
    """All there is of a layer."""

    layer: str
    snapshots: dict[str, Snapshot]  # in order of their numbers
    leftovers: list[Leftover]
    foreign: list[str]  # names below the instance that are not ours


def look(repository: Repository, layer: str, fences: Fences) -> Found:
    """List and read the layer."""
    by_snapshot, foreign = listed(repository, layer)
    found = Found(layer, {}, [], [f"{layer}/{name}" for name in foreign])
    for name in sorted(by_snapshot, key=lambda name: (snapshot_number(name) or 0, name)):
        if MANIFEST in by_snapshot[name]:
            found.snapshots[name] = Snapshot(name, snapshot_number(name) or 0, by_snapshot[name])
        else:
            objects = {f"{layer}/{name}/{item}": details for item, details in by_snapshot[name].items()}
            found.leftovers.append(Leftover(f"{layer}/{name}", objects))
    _read_manifests(repository, found, fences)
    _read_verdicts(repository, found)
    if layer == "logs":
        _find_tables(repository, found)
    return found


def listed(repository: Repository, layer: str) -> tuple[dict[str, dict[str, Details]], list[str]]:
    """(our objects by snapshot, names below the layer that are not ours)."""
    ours: dict[str, dict[str, Details]] = {}
    foreign: list[str] = []
    for path, details in repository.store.details(repository.name(layer)).items():
        snapshot, _slash, item = path.partition("/")
        if snapshot_number(snapshot) is not None and (item == MANIFEST or manifests.is_object(item)):
            ours.setdefault(snapshot, {})[item] = details
        else:
            foreign.append(path)
    return ours, foreign


def _read_manifests(repository: Repository, found: Found, fences: Fences) -> None:
    layer = found.layer
    data = repository.store.read_many(repository.name(layer), MANIFEST)
    for snapshot in found.snapshots.values():
        where = repository.where(layer, snapshot.name, MANIFEST)
        raw = data.pop(f"{snapshot.name}/{MANIFEST}", None)
        try:
            if raw is None:
                raise IntegrityError(where, "a manifest that can be read", "a name that is listed, and no object")
            manifest = manifests.parse(raw, where, repository.instance, layer, snapshot.name)
        except IntegrityError as error:
            snapshot.unreadable = str(error)
            continue
        snapshot.type, snapshot.created = manifest.type, manifest.created
        snapshot.base, snapshot.parent = manifest.base, manifest.parent
        # A host whose clock is behind makes snapshots that look old; a restored copy of the store has new times.
        stored = snapshot.objects[MANIFEST].modified or 0.0
        snapshot.made = max(seconds(manifest.created), stored)
        snapshot.damaged = fences.why_not(layer, snapshot.name, manifest.fence)
        for part in manifest.objects:
            if (snapshot.objects.get(part.name) or Details(-1)).size != part.size:
                snapshot.damaged = f"{repository.where(layer, snapshot.name, part.name)} is missing or has another size"
        records = manifest.records or {"chains": [], "unchained": 0}
        snapshot.unchained = records["unchained"]
        snapshot.chains = [(item["chain"], item["first"], item["last"]) for item in records["chains"]]
        snapshot.since = min((item["since"] for item in records["chains"] if item["since"]), default="")
        snapshot.until = max((item["until"] for item in records["chains"] if item["until"]), default="")


def seconds(created: str) -> float:
    """A manifest's time, in seconds since 1970."""
    return datetime.datetime.fromisoformat(f"{created[:-1]}+00:00").timestamp()


def _read_verdicts(repository: Repository, found: Found) -> None:
    place = repository.verdict_name(found.layer)
    relative = place[len(repository.instance) + 1 :]
    verdicts = repository.read_verdicts(found.layer)
    for file, details in repository.store.details(place).items():
        name = file[: -len(".json")] if file.endswith(".json") else ""
        snapshot = found.snapshots.get(name)
        if snapshot_number(name) is None:
            found.foreign.append(f"{relative}/{file}")
        elif snapshot is None:
            found.leftovers.append(Leftover(f"{relative}/{file}", {f"{relative}/{file}": details}))
        else:
            snapshot.verdicts = details
            _judge(snapshot, verdicts.get(name))


def _judge(snapshot: Snapshot, verdicts: dict[str, dict[str, t.Any]] | IntegrityError | None) -> None:
    """What the verdicts of a snapshot say. One that makes no sense is not taken for a failure, nor for a success."""
    if verdicts is None or isinstance(verdicts, IntegrityError):
        snapshot.unclear = str(verdicts or "its verdicts came while we looked")
        return
    for level, verdict in verdicts.items():
        for one in verdict_format.known(verdict):
            if one.get("ok") is True and one.get("snapshot") == snapshot.name:
                (snapshot.sampled if verdict_format.is_sample(one) else snapshot.passed).append(level)
            elif one.get("ok") is False:
                snapshot.failed = True
            else:
                snapshot.unclear = f"its verdict at level {level!r:.40} makes no sense"


def _find_tables(repository: Repository, found: Found) -> None:
    """Give each snapshot its record tables; those of no snapshot are left over."""
    left: dict[str, Leftover] = {item.name.partition("/")[2]: item for item in found.leftovers}
    for file, details in repository.store.details(repository.name(PREFIX)).items():
        name = f"{PREFIX}/{file}"
        parsed = parse_name(name)
        if parsed is None:
            found.foreign.append(name)
        elif parsed.snapshot in found.snapshots:
            found.snapshots[parsed.snapshot].tables[name] = details
        elif parsed.snapshot in left:  # of the same run as the parts: young while these are
            left[parsed.snapshot].objects[name] = details
        else:
            left[parsed.snapshot] = Leftover(f"logs/{parsed.snapshot}", {name: details})
            found.leftovers.append(left[parsed.snapshot])
