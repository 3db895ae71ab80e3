# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Take an instance over: from here on this host writes into it, and whoever did before is refused.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import socket
import typing as t

from ..errors import GuardError, StoreError
from ..format import fields
from ..format.fence import HOST_LENGTH, REASON_LENGTH, Fence, is_id, object_name, parse, rank
from ..format.manifest import LAYERS, new_snapshot_id
from ..format.repository import Repository
from . import fences
from .session import Session


@dataclasses.dataclass
class Outcome:
    """What became of it, or in check mode would."""

    changed: bool
    fence: dict[str, t.Any] | None  # None: in check mode, a new one
    previous: dict[str, t.Any] | None  # the newest when the run began; None: there was none
    before: str = ""  # for a diff
    after: str = ""


def take_over(session: Session, reason: str) -> Outcome:
    """Make this host the one that writes, unless it is."""
    # Its lock and its state lie beside those of the layers, so that a backup that runs does not keep it out.
    session = dataclasses.replace(session, layer=fences.STATE)
    with contextlib.nullcontext() if session.dry else session.alone():
        return _take_over(session, reason)


def _take_over(session: Session, reason: str) -> Outcome:
    repository = session.repository
    ids = fences.listed(repository)
    mine = fences.held(repository, session.state_directory)
    newest = ids[-1] if ids else ""
    previous = fences.read(repository, [newest]).describe(newest, mine) if newest else None
    before = _told(repository, previous)
    if newest and newest == mine:
        return Outcome(False, previous, previous, before, before)
    if session.dry:
        return Outcome(True, None, previous, before, f"{_line(repository, socket.gethostname())}with a new fence\n")
    fence = Fence(
        instance=repository.instance,
        fence=_next_id(repository, [newest, mine]),
        host=fields.cut(socket.gethostname(), HOST_LENGTH),
        created=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        reason=fields.cut(reason, REASON_LENGTH),
        newest=_newest(repository),
    )
    _store(repository, fence)
    session.save_state(fences.STATE_SUFFIX, {"fence": fence.fence})
    _warn_of_what_came(session, fence)
    made = fences.Fences([fence]).describe(fence.fence, fence.fence)
    return Outcome(True, made, previous, before, _told(repository, made))


def _next_id(repository: Repository, known: list[str]) -> str:
    highest = max(known, key=rank)
    made = new_snapshot_id(rank(highest)[0] + 1)
    if not is_id(made):
        where = repository.where(object_name(highest))
        raise GuardError(where, "a number that can be counted on from", "the last", "Somebody made it up: remove it.")
    return made


def _newest(repository: Repository) -> dict[str, str]:
    """The newest snapshot of each layer; empty where there is none."""
    found = {}
    for layer in LAYERS:
        complete = [item.snapshot for item in repository.listed(layer) if item.complete]
        found[layer] = complete[-1] if complete else ""
    return found


def _store(repository: Repository, fence: Fence) -> None:
    """Store it, read it back, and see that no other host did the same meanwhile."""
    name, data = repository.name(object_name(fence.fence)), fence.to_bytes()
    where = repository.store.full_name(name)
    parse(data, where, repository.instance, fence.fence)  # what no reader would take is not written
    repository.store.write(name, data)
    ids = fences.listed(repository)
    if fence.fence not in ids:
        raise StoreError(where, "the fence that was just stored", "no such object in the listing", "Run it again.")
    if ids[-1] != fence.fence:
        told = fences.read(repository, ids[-1:]).describe(ids[-1])
        raise GuardError(
            f"instance {repository.instance}", "no other host to take it over at the same time",
            f"that {told['host'] or 'another one'} did, with the higher fence {ids[-1]}: that one writes from here on",
            "If this host is to write and not that one, run it again.",
        )  # fmt: skip


def _warn_of_what_came(session: Session, fence: Fence) -> None:
    """A host that was just storing a snapshot finds the fence and takes it back, unless it was faster."""
    for layer, newest in _newest(session.repository).items():
        if newest != fence.newest[layer]:
            session.warn(
                f"{session.repository.where(layer, newest)} came while this host took the instance over, and is not "
                "believed: it is taken back, or passed over. The next backup here saves what this host has."
            )


def _line(repository: Repository, host: str) -> str:
    return f"{host} writes into {repository.instance} "


def _told(repository: Repository, fence: dict[str, t.Any] | None) -> str:
    if fence is None:
        return f"{repository.instance} has no fence: any host may write into it\n"
    return f"{_line(repository, fence['host'] or 'a host')}since {fence['created']} with fence {fence['id']}\n"
