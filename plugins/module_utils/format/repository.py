# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where things lie in a repository, and which snapshots exist.

Private to the collection: use the modules, not this file.

A snapshot exists when its manifest does. Whatever else lies there (parts of an interrupted run,
objects of other tools) is not one, and never stands in the way.
"""

from __future__ import annotations

import dataclasses
import json
import re
import typing as t

from ..errors import GuardError, IntegrityError
from ..services.store import NotStored, Store
from . import manifest as manifests
from . import verdict as verdict_format
from .manifest import Manifest, snapshot_number
from .record_table import PREFIX

MANIFEST = "manifest.json"
_MANIFEST_LIMIT = 64 << 20
_FEW_DAYS = 3  # listing so many by themselves costs less than listing all
_INSTANCE = re.compile(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")


def is_instance(name: str) -> bool:
    """Whether an instance can have this name."""
    return bool(_INSTANCE.match(name))


@dataclasses.dataclass
class Listed:
    """What the store lists of one snapshot."""

    snapshot: str
    objects: dict[str, int]  # name below the snapshot -> bytes
    fenced_off: str = ""  # why it is not to be believed though its manifest is there; empty also where nobody looked

    @property
    def believed(self) -> bool:
        """Whether it is there, and of a host that was the one to write."""
        return self.complete and not self.fenced_off

    @property
    def complete(self) -> bool:
        """Whether its manifest is there."""
        return MANIFEST in self.objects

    @property
    def number(self) -> int:
        """Its place in the order of its layer."""
        return snapshot_number(self.snapshot) or 0


class Repository:
    """The part of a repository that belongs to one instance."""

    def __init__(self, store: Store, instance: str):
        if not is_instance(instance):
            raise GuardError(
                f"instance {instance!r}",
                "1 to 63 letters, digits, '.', '_' and '-', a letter or digit first",
                "another name",
            )
        self.store = store
        self.instance = instance

    def name(self, layer: str, snapshot: str = "", item: str = "") -> str:
        """The name of an object, relative to the repository's root."""
        return "/".join(part for part in (self.instance, layer, snapshot, item) if part)

    def where(self, layer: str, snapshot: str = "", item: str = "") -> str:
        """The same for people, with the remote."""
        return self.store.full_name(self.name(layer, snapshot, item))

    def listed(self, layer: str) -> list[Listed]:
        """All that looks like a snapshot of the layer, complete or not, in order of the numbers."""
        found: dict[str, Listed] = {}
        for path, size in self.store.list(self.name(layer)).items():
            snapshot, _slash, item = path.partition("/")
            if item and snapshot_number(snapshot) is not None:
                found.setdefault(snapshot, Listed(snapshot, {})).objects[item] = size
        return sorted(found.values(), key=lambda item: (item.number, item.snapshot))

    def tables(self, days: t.Iterable[str]) -> dict[str, int]:
        """Sizes of the record tables of these days at least, by their names below the instance."""
        found: dict[str, int] = {}
        for place in self.table_places(days):
            prefix = place[len(self.instance) + 1 :]
            found.update((f"{prefix}/{name}", size) for name, size in self.store.list(place).items())
        return found

    def table_places(self, days: t.Iterable[str]) -> list[str]:
        """Where the record tables of these days lie: each day's place, or that of all where there are many days."""
        chosen = sorted(set(days))
        return [self.name(PREFIX, day) for day in chosen] if len(chosen) <= _FEW_DAYS else [self.name(PREFIX)]

    def manifest(self, layer: str, snapshot: str) -> Manifest:
        """One snapshot's manifest, checked. Raises `IntegrityError`, or `NotStored`."""
        data = self.store.read(self.name(layer, snapshot, MANIFEST), _MANIFEST_LIMIT)
        return manifests.parse(data, self.where(layer, snapshot, MANIFEST), self.instance, layer, snapshot)

    def manifests(self, layer: str) -> dict[str, Manifest | IntegrityError]:
        """All manifests of a layer; in the place of a damaged one the error that says how."""
        found: dict[str, Manifest | IntegrityError] = {}
        for path, data in self.store.read_many(self.name(layer), MANIFEST).items():
            snapshot = path.partition("/")[0]
            if path == f"{snapshot}/{MANIFEST}" and snapshot_number(snapshot) is not None:
                try:
                    found[snapshot] = manifests.parse(
                        data, self.where(layer, snapshot, MANIFEST), self.instance, layer, snapshot
                    )
                except IntegrityError as error:
                    found[snapshot] = error
        return dict(sorted(found.items(), key=lambda item: (snapshot_number(item[0]) or 0, item[0])))

    def commit(self, manifest: Manifest) -> None:
        """Store the manifest, last of all, and read back that it is there: now the snapshot exists."""
        self.store.write(self.name(manifest.layer, manifest.snapshot, MANIFEST), manifest.to_bytes())

    def verdicts(self, layer: str, snapshot: str) -> dict[str, dict[str, t.Any]]:
        """The newest verdict of each level of verification."""
        name = self.verdict_name(layer, snapshot)
        try:
            return _parse_verdicts(self.store.read(name, _MANIFEST_LIMIT), self.store.full_name(name))
        except NotStored:
            return {}

    def read_verdicts(self, layer: str) -> dict[str, dict[str, dict[str, t.Any]] | IntegrityError]:
        """Verdicts by snapshot and level, read in one go; in the place of damaged ones the error that says how."""
        found: dict[str, dict[str, dict[str, t.Any]] | IntegrityError] = {}
        listed = [name[: -len(".json")] for name in self.store.list(self.verdict_name(layer)) if name.endswith(".json")]
        names = {self.verdict_name(layer, name): name for name in listed if snapshot_number(name) is not None}
        data = self.store.read_several(list(names))
        for name, snapshot in names.items():
            where = self.store.full_name(name)
            try:
                if name not in data:
                    raise IntegrityError(where, "verdicts that can be read", "a name that is listed, and no object")
                found[snapshot] = _parse_verdicts(data[name], where)
            except IntegrityError as error:
                found[snapshot] = error
        return found

    def all_verdicts(self, layer: str) -> dict[str, dict[str, dict[str, t.Any]]]:
        """Verdicts by snapshot and level. One that cannot be read counts as none; `verdicts` tells whoever asks."""
        return {name: found for name, found in self.read_verdicts(layer).items() if not isinstance(found, Exception)}

    def add_verdict(self, layer: str, snapshot: str, level: str, verdict: dict[str, t.Any]) -> None:
        """Keep a verdict beside the snapshot: the newest of its level, and what a sample cannot replace."""
        try:
            verdicts = self.verdicts(layer, snapshot)
        except IntegrityError:
            verdicts = {}  # damaged: the new verdict replaces it
        verdicts[level] = verdict_format.kept(verdict, verdicts.get(level))
        raw = {"instance": self.instance, "layer": layer, "snapshot": snapshot, "verdicts": verdicts}
        self.store.write(
            self.verdict_name(layer, snapshot), (json.dumps(raw, indent=1, sort_keys=True) + "\n").encode()
        )

    def verdict_name(self, layer: str, snapshot: str = "") -> str:
        """Where the verdicts of a snapshot lie, or those of the layer."""
        place = f"{self.instance}/verifications/{layer}"
        return f"{place}/{snapshot}.json" if snapshot else place


def _parse_verdicts(data: bytes, where: str) -> dict[str, dict[str, t.Any]]:
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise IntegrityError(where, "verdicts in JSON", str(error)) from error
    verdicts = raw.get("verdicts") if isinstance(raw, dict) else None
    if not isinstance(verdicts, dict) or not all(isinstance(verdict, dict) for verdict in verdicts.values()):
        raise IntegrityError(where, "verdicts by level", "another document")
    return verdicts
