# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Remove what retention decided to remove, so that it may break off anywhere.

Private to the collection: use the modules, not this file.

A manifest makes a snapshot exist, so manifests go first: those that nothing stands on before those that these stood
on. What is left then are objects of no snapshot: parts, record tables, verdicts. If the run ends before they are gone,
the next one finds and removes them. Whether something is gone the store is asked; no exit code is believed.
"""

from __future__ import annotations

import dataclasses
import time
import typing as t

from ..errors import GuardError, StoreError
from ..format.manifest import Manifest
from ..format.repository import MANIFEST
from ..services.transfers import Details
from . import fences
from .prune_look import Found, Leftover, listed
from .prune_plan import Plan
from .session import Session

_AT_ONCE = 1000  # objects in one call
_MOST_TOLD = 20
_LOOK_AGAIN = 10.0  # seconds after which a listing is too old to remove anything by


@dataclasses.dataclass
class Removal:
    """What came of it."""

    snapshots: list[str] = dataclasses.field(default_factory=list)  # that are gone
    leftovers: int = 0
    objects: int = 0
    bytes: int = 0
    failures: list[str] = dataclasses.field(default_factory=list)
    not_removed: list[str] = dataclasses.field(default_factory=list)  # what changed while we looked


def apply(session: Session, found: Found, plan: Plan, now: float, orphan_age: float) -> Removal:
    """Carry out the plan. What could not be removed is told; an error of the store ends it."""
    work = _Work(session, found, plan)
    try:
        for wave in plan.waves:
            for start in range(0, len(wave), _AT_ONCE):
                work.remove_manifests(wave[start : start + _AT_ONCE])
        work.remove_contents(now - orphan_age)
    except GuardError as error:
        work.removal.failures.append(str(error))
    return work.removal


class _Work:
    """One removal on its way."""

    def __init__(self, session: Session, found: Found, plan: Plan):
        self.session = session
        self.repository = session.repository
        self.found = found
        self.plan = plan
        self.removal = Removal()
        self.blocked: set[str] = set()  # not to be removed any more: something stands on them
        self.known = set(found.snapshots)
        self.looked = time.monotonic() - _LOOK_AGAIN  # the plan may be older than it seems

    # -- manifests

    def remove_manifests(self, wave: t.Sequence[str]) -> None:
        """Make these snapshots cease to exist, unless something came meanwhile that stands on them."""
        if time.monotonic() - self.looked >= _LOOK_AGAIN:
            self._look_again()
        names = {self.repository.name(self.found.layer, name, MANIFEST): name for name in wave}
        names = {object_name: name for object_name, name in names.items() if name not in self.blocked}
        if not names:
            return
        left = self._remove_now(list(names))
        for object_name, name in names.items():
            if object_name in left:
                self._block(name)
            else:
                self.removal.snapshots.append(name)

    def _look_again(self) -> None:
        """What was stored since the plan was made may stand on what is to be removed."""
        fences.still(self.session)
        layer = self.found.layer
        now, _foreign = listed(self.repository, layer)
        for name in [name for name in now if MANIFEST in now[name] and name not in self.known]:
            self.known.add(name)
            try:
                manifest = self.repository.manifest(layer, name)
            except GuardError as error:
                self.removal.not_removed.append(f"all that is left: {name} came meanwhile and cannot be read ({error})")
                self.blocked.update(self.plan.remove)
                return
            for needed in (manifest.parent, manifest.base):
                if needed in self.plan.remove and needed not in self.removal.snapshots:
                    self.removal.not_removed.append(f"{needed}: {name} came meanwhile and stands on it")
                    self._block(needed)
            self._check_chain(manifest)
        self.looked = time.monotonic()

    def _block(self, name: str) -> None:
        """Keep a snapshot and all that it stands on."""
        waiting = [name]
        while waiting:
            name = waiting.pop()
            if name in self.plan.remove and name not in self.blocked:
                self.blocked.add(name)
                waiting += [self.found.snapshots[name].parent, self.found.snapshots[name].base]

    # -- what then belongs to no snapshot

    def remove_contents(self, limit: float) -> None:
        """Remove parts, tables and verdicts, and read back that they are gone."""
        fences.still(self.session)
        now, _foreign = listed(self.repository, self.found.layer)
        gone = set(self.removal.snapshots) - {name for name in now if MANIFEST in now[name]}
        wanted: dict[str, Details] = {}
        for name in sorted(gone):
            wanted.update(self._objects_of(name, now.get(name, {})))
            manifest = self.found.snapshots[name].objects[MANIFEST]
            self.removal.objects, self.removal.bytes = self.removal.objects + 1, self.removal.bytes + manifest.size
        for leftover in self.plan.leftovers:
            objects = self._still_left(leftover, now, limit)
            if objects:
                self.removal.leftovers += 1
                wanted.update(objects)
        self._remove(wanted)
        self._check_chains()

    def _objects_of(self, snapshot: str, listed_now: dict[str, Details]) -> dict[str, Details]:
        """All objects of a snapshot whose manifest is gone, by name below the instance, its verdicts last."""
        layer = self.found.layer
        objects = {f"{layer}/{snapshot}/{item}": details for item, details in listed_now.items()}
        objects.update(self.found.snapshots[snapshot].tables)
        verdicts = self.found.snapshots[snapshot].verdicts
        if verdicts is not None:
            objects[self.repository.verdict_name(layer, snapshot)[len(self.repository.instance) + 1 :]] = verdicts
        return objects

    def _still_left(
        self, leftover: Leftover, now: dict[str, dict[str, Details]], limit: float
    ) -> dict[str, Details]:  # fmt: skip
        """The leftover's objects; none if a run made a snapshot of them meanwhile, or goes on with it."""
        snapshot = leftover.name.rpartition("/")[2]
        if leftover.name != f"{self.found.layer}/{snapshot}":
            return leftover.objects  # a verdict
        current = now.get(snapshot, {})
        times = [details.modified for details in current.values()]
        if MANIFEST in current or any(time is None or time > limit for time in times):
            self.removal.not_removed.append(f"{leftover.name}: a run went on with it meanwhile")
            return {}
        return leftover.objects

    def _remove(self, wanted: dict[str, Details]) -> None:
        names = list(wanted)
        self.session.progress.begin("removing objects", len(names))
        for start in range(0, len(names), _AT_ONCE):
            batch = names[start : start + _AT_ONCE]
            objects = {self.repository.name(name): name for name in batch}
            left = self._remove_now(list(objects))
            removed = [name for object_name, name in objects.items() if object_name not in left]
            self.removal.objects += len(removed)
            self.removal.bytes += sum(wanted[name].size for name in removed)
            self.session.progress.advance(len(batch))
        for place in sorted({name.split("/")[0] for name in names}):
            self.repository.store.remove_empty(self.repository.name(place))

    def _remove_now(self, names: list[str]) -> set[str]:
        """Remove objects; those that are there all the same, which is told. A store that removes none ends the run."""
        store = self.repository.store
        refused: StoreError | None = None
        try:
            store.remove_several(names)
        except StoreError as error:
            refused = error
        left = store.present(names)
        self._tell_left(left)
        if refused is not None and len(left) == len(names):
            raise refused
        if refused is not None:
            self.removal.failures.append(str(refused))
        return left

    def _tell_left(self, left: t.Collection[str]) -> None:
        room = max(0, _MOST_TOLD - len(self.removal.failures))
        for name in sorted(left)[:room]:
            where = self.repository.store.full_name(name)
            self.removal.failures.append(
                f"{where}: it was removed and is still there: is it locked, or the right to delete missing?"
            )
        if len(left) > room:
            self.removal.failures.append(f"{len(left) - room} more objects are still there")

    def _check_chains(self) -> None:
        """Look at what came last of all: no lock keeps hosts apart."""
        now, _foreign = listed(self.repository, self.found.layer)
        for name in [name for name in now if MANIFEST in now[name] and name not in self.known]:
            self._check_chain(self.repository.manifest(self.found.layer, name))

    def _check_chain(self, manifest: Manifest) -> None:
        """That another host's snapshot stands on what is gone must not stay unseen."""
        if {manifest.parent, manifest.base} & set(self.removal.snapshots):
            self.removal.failures.append(
                f"{self.repository.where(manifest.layer, manifest.snapshot)}: another host made it while this ran, and "
                f"it stands on {manifest.parent}, which is gone or incomplete. Take a full now."
            )
