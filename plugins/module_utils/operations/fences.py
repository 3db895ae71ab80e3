# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which host writes into an instance: refuse one that was fenced off, and do not believe what it stored all the same.

Private to the collection: use the modules, not this file.

A store has no locks. So a host looks whose fence is the newest before it begins, before it stores a manifest, and
after; and readers hold what they find against the fences. Where there are none, that costs a listing.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import threading
import typing as t

from ..errors import GuardError, IntegrityError
from ..format.fence import PREFIX, Fence, id_of, object_name, parse, rank
from ..format.manifest import Manifest
from ..format.repository import Listed, Repository
from ..services.store import NotStored
from ..system.process import end_children
from .part_io import with_retries
from .session import Session, read_state

STATE, STATE_SUFFIX = "fence", "json"  # the state file is named after the instance, not after a layer
_MOST_READ = 1000  # fences, the newest

Answer = t.TypeVar("Answer")


def listed(repository: Repository) -> list[str]:
    """The ids of all fences of the instance, the newest last."""
    return sorted(filter(None, map(id_of, repository.store.list(repository.name(PREFIX)))), key=rank)


def beside(repository: Repository, work: t.Callable[[], Answer]) -> tuple[Answer, list[str]]:
    """What ``work`` gives, and the fences, which are listed meanwhile: most of either is waiting for the store."""
    with concurrent.futures.ThreadPoolExecutor(max_workers=1) as pool:
        ids = pool.submit(listed, repository)
        try:
            return work(), ids.result()
        except BaseException:
            end_children()  # a store that stalls would hold us
            raise


def held(repository: Repository, state_directory: str) -> str:
    """The fence with which this host took the instance over; empty where it did not, or has forgotten."""
    path = os.path.join(state_directory, repository.instance, f"{STATE}.{STATE_SUFFIX}")
    try:
        return str(read_state(path, repository.where(STATE)).get("fence") or "")
    except OSError:
        return ""  # who only looks at the repository need not be able to read the state; who writes is refused


# -- may this host write?


def begin(session: Session) -> list[Listed]:
    """What there is of the layer, for a host that may write: `GuardError` for one that was fenced off.

    Snapshots that are not to be believed are marked, down to the newest that is.
    """
    snapshots, ids = beside(session.repository, lambda: session.repository.listed(session.layer))
    go_by(session, ids)
    mark(session, snapshots, read(session.repository, ids))
    return snapshots


def go_by(session: Session, ids: list[str]) -> None:
    """Let the session go by the newest of these fences, which must be that of this host."""
    newest, mine = ids[-1] if ids else "", held(session.repository, session.state_directory)
    if newest and newest != mine:
        raise _fenced_off(session, newest)
    if mine and not newest:
        where = session.repository.where(object_name(mine))
        session.warn(f"{where}, the fence of this host, is gone: nothing keeps another host from writing any more.")
    session.fence = newest


def still(session: Session, ids: list[str] | None = None) -> None:
    """Nobody has taken the instance over since the session began."""
    ids = listed(session.repository) if ids is None else ids
    if ids[-1:] != [session.fence] and (ids or session.fence):
        raise _fenced_off(session, ids[-1] if ids else "")


def _fenced_off(session: Session, newest: str) -> GuardError:
    repository = session.repository
    mine = held(repository, session.state_directory)
    again = "If it is to write again, run the playbook fence on it (module fence)."
    known = mine or session.fence
    if not newest or rank(newest) < rank(known):
        where = repository.where(object_name(known))
        hint = f"Somebody removed it, or the store was rolled back: find out who. {again}"
        return GuardError(where, "the fence of this host", "no such object", hint)
    hint = f"Nothing of this host is stored any more: stop its timers. {again}"
    if newest == mine:
        hint = "It was this host itself, while this ran: run it again."
    told = read(repository, [newest]).describe(newest)
    found = f"that {told['host'] or 'another one'} took it over at {told['created']} (fence {newest})"
    if told["damaged"]:
        found = f"that another one took it over (fence {newest}, which cannot be read: {told['damaged']})"
    return GuardError(f"instance {repository.instance}", "this host to be the one that writes", found, hint)


# -- is a snapshot to be believed?


@dataclasses.dataclass
class Fences:
    """What the fences of an instance say, as far as they can be read."""

    fences: list[Fence] = dataclasses.field(default_factory=list)  # the newest last
    damaged: dict[str, IntegrityError] = dataclasses.field(default_factory=dict)

    def why_not(self, layer: str, snapshot: str, held_then: str = "") -> str:
        """Why a snapshot of a host that held this fence is not to be believed; empty where it is."""
        for fence in self.fences:
            if fence.shuts_out(layer, snapshot, held_then):
                newest = f"{fence.newest[layer]} was the newest" if fence.newest[layer] else "there was none"
                return (
                    f"written by a host that was fenced off: {fence.host} took the instance over at {fence.created} "
                    f"(fence {fence.fence}), and {newest} of this layer then"
                )
        return ""

    def describe(self, fence: str, mine: str = "") -> dict[str, t.Any]:
        """One of them as modules tell it: ``mine`` is that of this host. Of one that cannot be read, why."""
        one = next((known for known in self.fences if known.fence == fence), None)
        return {
            "id": fence,
            "host": one.host if one else "",
            "created": one.created if one else "",
            "reason": one.reason if one else "",
            "newest": one.newest if one else {},
            "ours": fence == mine,
            "damaged": str(self.damaged.get(fence, "")),
        }


def read(repository: Repository, ids: list[str]) -> Fences:
    """The fences of these ids."""
    names = {repository.name(object_name(fence)): fence for fence in ids[-_MOST_READ:]}
    contents = repository.store.read_several(list(names)) if names else {}
    found = Fences()
    for name, fence in names.items():
        where = repository.store.full_name(name)
        try:
            found.fences.append(parse(contents.get(name, b""), where, repository.instance, fence))
        except IntegrityError as error:
            found.damaged[fence] = error
    return found


def judged(session: Session, every: bool) -> list[Listed]:
    """What there is of the layer, with what is not to be believed marked: down to the newest that is, or ``every``."""
    snapshots, ids = beside(session.repository, lambda: session.repository.listed(session.layer))
    mark(session, snapshots, read(session.repository, ids), every)
    return snapshots


def mark(session: Session, snapshots: list[Listed], fences: Fences, every: bool = False) -> None:
    """Say of snapshots why they are not to be believed, the newest first."""
    for error in fences.damaged.values():
        session.warn(f"{error}. Whether snapshots that came after it are to be believed is not known.")
    # Most came before each fence, or there is none: then nobody need ask which one their host held.
    doubtful = {i.snapshot for i in snapshots if i.complete and fences.why_not(session.layer, i.snapshot)}
    manifests = session.repository.manifests(session.layer) if every and doubtful else None
    for item in reversed(snapshots):
        if item.snapshot in doubtful:
            found = _manifest(session, item.snapshot) if manifests is None else manifests.get(item.snapshot)
            if isinstance(found, Manifest):  # whoever opens a damaged one is told
                item.fenced_off = fences.why_not(session.layer, item.snapshot, found.fence)
        if item.fenced_off:
            where = session.repository.where(session.layer, item.snapshot)
            session.warn(f"{where}: {item.fenced_off}. It is passed over; its number or its id still names it.")
        elif item.complete and not every:
            return


def _manifest(session: Session, snapshot: str) -> Manifest | IntegrityError | None:
    def read_it() -> Manifest:
        return session.repository.manifest(session.layer, snapshot)

    try:
        return with_retries(session.attempts, threading.Event().wait, read_it)
    except IntegrityError as error:
        return error
    except NotStored:
        return None  # another run removed it
