# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Open a snapshot that exists: choose it, unwrap its key, read its index, follow its chain.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import re
import threading
import typing as t

from ..errors import GuardError, IntegrityError, KeyProviderError
from ..format import index as indexes
from ..format import verdict as verdict_format
from ..format.index import Index
from ..format.manifest import FULL, Manifest, StoredPart, snapshot_number
from ..format.repository import Listed, Repository
from ..services.store import NotStored
from . import fences
from .part_io import with_retries
from .session import Session

LATEST, LATEST_VERIFIED = "latest", "latest_verified"


@dataclasses.dataclass(repr=False)  # a repr would show the passphrase
class Opened:
    """A snapshot with all that is needed to read it."""

    manifest: Manifest
    passphrase: bytes
    index: Index


def choose(session: Session, wanted: str) -> Listed:
    """The snapshot that ``wanted`` names: a number, an id, ``latest``, ``latest_verified``, or a time."""
    named = re.fullmatch(r"[0-9]{1,12}", wanted) or snapshot_number(wanted) is not None
    # Who names one wants that one, whoever wrote it.
    listed = session.repository.listed(session.layer) if named else fences.judged(session, every=wanted != LATEST)
    complete = [item for item in listed if item.believed]
    where = session.repository.where(session.layer)
    if not complete:
        interrupted = sum(not item.complete for item in listed)
        found = f"{interrupted} interrupted one(s)" if interrupted else "none"
        if len(listed) > interrupted:
            found += f", and {len(listed) - interrupted} of a host that was fenced off"
        raise GuardError(where, "a snapshot", found, "Back up first, or check repository and instance.")
    if wanted == LATEST:
        return complete[-1]
    if wanted == LATEST_VERIFIED:
        return _latest_verified(session, complete, where)
    if named:
        matching = [
            item for item in complete if wanted == item.snapshot or (wanted.isdigit() and int(wanted) == item.number)
        ]
        if len(matching) == 1:
            return matching[0]
        ids = ", ".join(item.snapshot for item in (matching or complete[-5:]))
        expected = "one snapshot of that number" if matching else "a snapshot that exists"
        raise GuardError(f"snapshot {wanted}", expected, f"these: {ids}", "Name one by its whole id.")
    return _at_time(session, complete, wanted, where)


def _latest_verified(session: Session, complete: list[Listed], where: str) -> Listed:
    verdicts = session.repository.all_verdicts(session.layer)
    for item in reversed(complete):
        of_levels = verdicts.get(item.snapshot, {})
        proven = any(verdict_format.proves(level, verdict) for level, verdict in of_levels.items())
        if proven and not any(verdict_format.failure(verdict) for verdict in of_levels.values()):
            return item
    raise GuardError(
        where, "a snapshot that was verified as a whole at level restored or loaded", f"none among {len(complete)}",
        "Verify one, or restore latest.",
    )  # fmt: skip


def _at_time(session: Session, complete: list[Listed], wanted: str, where: str) -> Listed:
    try:
        limit = datetime.datetime.fromisoformat(re.sub(r"[Zz]\Z", "+00:00", wanted))
    except ValueError as error:
        raise GuardError(
            f"snapshot {wanted!r}", "a number, an id, latest, latest_verified or a time (2026-05-20T14:23:00+08:00)",
            "something else",
        ) from error  # fmt: skip
    if limit.tzinfo is None:
        raise GuardError(f"snapshot {wanted!r}", "a time with its zone", "one without", "Append Z or +08:00.")
    manifests = session.repository.manifests(session.layer)
    # The clock may have stepped: the highest number among those made in time, not the latest time.
    for item in reversed(complete):
        manifest = manifests.get(item.snapshot)
        if isinstance(manifest, Manifest) and _made(manifest) <= limit:
            return item
    raise GuardError(where, f"a snapshot made at {wanted} or before", "only later ones")


def _made(manifest: Manifest) -> datetime.datetime:
    return datetime.datetime.fromisoformat(manifest.created.replace("Z", "+00:00"))


def open_snapshot(session: Session, listed: Listed) -> Opened:
    """Read manifest and index, and check one against the other and against what the store lists."""
    return with_retries(session.attempts, threading.Event().wait, lambda: _open(session, listed))


def read_manifest(session: Session, listed: Listed) -> Manifest:
    """The manifest alone, held against what the store lists."""

    def read() -> Manifest:
        manifest = session.repository.manifest(session.layer, listed.snapshot)
        check_listed(session.repository, manifest, listed)
        return manifest

    return with_retries(session.attempts, threading.Event().wait, read)


def _open(session: Session, listed: Listed) -> Opened:
    manifest = session.repository.manifest(session.layer, listed.snapshot)
    check_listed(session.repository, manifest, listed)
    keys = session.require_keys()
    passphrase = keys.unwrap(manifest.key, session.data_key_context(manifest.snapshot))
    return Opened(manifest, passphrase, read_index(session, manifest, passphrase))


def check_listed(repository: Repository, manifest: Manifest, listed: Listed) -> None:
    """Every object of the manifest is there, in its size."""
    for part in manifest.objects:
        where = repository.where(manifest.layer, manifest.snapshot, part.name)
        _check_size(where, part, listed.objects, "The snapshot is not whole: use another one, and find out who changed")


def check_table(repository: Repository, table: StoredPart, sizes: t.Mapping[str, int]) -> None:
    """The record table is there, in its size. A restore needs none."""
    where = repository.store.full_name(repository.name(table.name))
    hint = "The snapshot restores, but its records are not found by their trace_id: find out who changed"
    _check_size(where, table, sizes, hint)


def _check_size(where: str, part: StoredPart, sizes: t.Mapping[str, int], hint: str) -> None:
    size = sizes.get(part.name)
    if size != part.size:
        found = "no such object" if size is None else f"{size} bytes"
        raise IntegrityError(where, f"{part.size} bytes", found, f"{hint} the store.")


def read_index(session: Session, manifest: Manifest, passphrase: bytes) -> Index:
    """The decrypted index."""
    name = session.repository.name(session.layer, manifest.snapshot, manifest.index.name)
    where = session.repository.store.full_name(name)
    data = session.repository.store.read(name)
    if hashlib.sha256(data).hexdigest() != manifest.index.sha256:
        raise IntegrityError(
            where, "the SHA-256 that the manifest gives", "another", "The index was changed or damaged."
        )
    return indexes.from_bytes(session.gpg.decrypt_bytes(data, passphrase, where), manifest, where)


def chain(session: Session, listed: Listed) -> list[Opened]:
    """The full that a snapshot stands on, the increments after it, and itself, in that order."""
    by_id = {item.snapshot: item for item in session.repository.listed(session.layer)}
    opened = [open_snapshot(session, listed)]
    while opened[0].manifest.type != FULL:
        child = opened[0].manifest
        parent = by_id.get(child.parent)
        if parent is None or not parent.complete:
            raise IntegrityError(
                session.repository.where(session.layer, child.parent), f"the snapshot that {child.snapshot} stands on",
                "none", "The chain is broken here: restore a snapshot before it, or the next full.",
            )  # fmt: skip
        opened.insert(0, open_snapshot(session, parent))
        if opened[0].manifest.base != child.base:
            raise IntegrityError(
                session.repository.where(session.layer, child.parent), f"a snapshot of the chain of {child.base}",
                f"one of {opened[0].manifest.base}",
            )  # fmt: skip
    return opened


class Unreadable(t.NamedTuple):
    """A snapshot that the next backup cannot stand on."""

    reason: str
    warning: str = ""  # empty where that is to be expected: a host that only encrypts


def usable_index(session: Session, listed: Listed) -> Opened | Unreadable:
    """The snapshot where this host can read it, or why it cannot.

    For planning the next backup only: what cannot be read is then simply saved again. Neither damage nor a key
    that was exchanged may keep a host from its next backup.
    """
    if session.keys is None or not session.keys.can_unwrap:
        return Unreadable("the newest snapshot cannot be read here")
    try:
        return open_snapshot(session, listed)
    except (IntegrityError, KeyProviderError, NotStored) as error:
        return Unreadable("the newest snapshot cannot be read here", f"{listed.snapshot} cannot be read: {error}")
