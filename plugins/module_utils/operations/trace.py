# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From a trace_id to its record: where it lies in the archives and in the live logs, and whether it is unchanged.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import json
import re
import time
import typing as t

from ..errors import GuardError
from ..format.record_search import Check, Hit, Known, check_record
from .ledger import remote_of, status_of
from .session import Session
from .trace_live import LiveSearch, search_live
from .trace_parts import PartSearch, Place, Read
from .trace_tables import TableSearch, threads

_TRACE_ID = re.compile(r"\A[A-Za-z0-9._-]{1,64}\Z")
PENDING = "pending"  # as the gateway says it
_END, _BEGINNING = ("last", "head"), ("first", "prev")  # a run's number there, and the hash that speaks for it


@dataclasses.dataclass
class Options:
    """What is looked for."""

    trace_id: str
    logs_path: str = ""  # live logs to look into as well
    include_record: bool = True


@dataclasses.dataclass
class Outcome:
    """What the module returns."""

    trace_id: str
    found: bool = False
    archived: bool = False
    backup_status: str = ""
    records: list[dict[str, t.Any]] = dataclasses.field(default_factory=list)
    searched: dict[str, t.Any] = dataclasses.field(default_factory=dict)
    not_searched: list[str] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)
    tables_read: int = 0
    parts_fetched: int = 0
    seconds: float = 0.0


def trace(session: Session, options: Options) -> Outcome:
    """Look for a record. Not to find it is a result; not to be able to look anywhere is an error."""
    if not _TRACE_ID.match(options.trace_id):
        raise GuardError("option trace_id", "1 to 64 letters, digits, '.', '_' and '-'", "something else")
    session.require_keys()
    started = time.monotonic()
    session = dataclasses.replace(session, layer="logs", dry=True)  # nothing is ever changed
    outcome = Outcome(options.trace_id)
    archive = _Archive(session, options.trace_id)
    with threads(1) as pool:
        live = pool.submit(search_live, options.logs_path, options.trace_id) if options.logs_path else None
        archived, live_hits = archive.search(), _live(live, outcome)
    outcome.found = bool(archived or live_hits)
    if archived is None:
        archive.account()
    outcome.not_searched += archive.tables.not_searched
    if not outcome.found and not archive.searched and not outcome.searched.get("live_files"):
        _nothing_searched(session, archive, outcome)
    _tell(outcome, options, archive, archived, live_hits)
    outcome.searched = {
        "day": archive.tables.day, "snapshots": archive.snapshots, "tables": archive.tables.tables_read,
        "live_files": 0, "live_bytes": 0, **outcome.searched,
    }  # fmt: skip
    outcome.tables_read, outcome.parts_fetched = archive.tables.tables_read, archive.parts.parts_fetched
    outcome.seconds = round(time.monotonic() - started, 3)
    return outcome


def _live(search: concurrent.futures.Future[LiveSearch] | None, outcome: Outcome) -> list[tuple[str, Hit]]:
    if search is None:
        return []
    try:
        found = search.result()
    except GuardError as error:  # after a disaster there is no such directory
        outcome.not_searched.append(str(error))
        return []
    outcome.searched.update(live_files=found.files, live_bytes=found.bytes)
    outcome.not_searched += found.not_searched
    return found.hits


def _nothing_searched(session: Session, archive: _Archive, outcome: Outcome) -> None:
    if archive.error is not None:
        raise archive.error
    raise GuardError(
        session.repository.where("logs"),
        "a snapshot or a live log to look into",
        f"none that can be read ({outcome.not_searched[0].rstrip('.')})" if outcome.not_searched else "none",
        "Check repository, instance, key and logs_path.",
    )


class _Archive:
    """The search through the snapshots."""

    def __init__(self, session: Session, trace_id: str):
        self.session = session
        self.tables = TableSearch(session, trace_id)
        self.parts = PartSearch(session, trace_id)
        self.error: GuardError | None = None  # why nothing at all could be searched
        self.snapshots = 0  # that were searched, or have nothing of that day

    @property
    def searched(self) -> bool:
        """Whether the answer says anything about the archives."""
        return self.error is None and self.snapshots > 0

    def search(self) -> Read | None:
        """The first snapshot that holds the record."""
        try:
            self.tables.look_up()
            with contextlib.closing(self.tables.candidates()) as candidates:
                for candidate in candidates:
                    try:
                        found = self.parts.read(candidate)
                    except GuardError as error:
                        snapshot = candidate.manifest.snapshot
                        where = self.session.repository.where("logs", snapshot)
                        self.tables.give_up(
                            snapshot, f"{where}: it should hold the record, and cannot be read: {error}"
                        )
                        continue
                    if found.places:
                        self.snapshots = self.tables.tables_read
                        return found
        except GuardError as error:
            self._end(error)
        return None

    def _end(self, error: GuardError) -> None:
        self.error = error
        self.tables.not_searched.append(str(error))

    def account(self) -> None:
        """Say what a search that found nothing is worth."""
        if self.error is None:
            try:
                self.snapshots = self.tables.account()
            except GuardError as error:
                self._end(error)

    # -- what is known of a record's neighbours

    def in_snapshot(self, found: Read, chain: str, seq: int, last: bool) -> list[Known]:
        """What the snapshot's index, or else other manifests, know of a record that ends (``last``) or begins a run."""
        manifest = found.opened.manifest
        number, digest = _END if last else _BEGINNING
        known = [
            Known(run[digest], f"record {seq} in {run['path']}")
            for run in found.opened.index.layer.get("records", [])
            if run["chain"] == chain and run[number] == seq
        ]
        if known:
            return known
        if last and manifest.parent and manifest.parent not in self.tables.manifests:
            try:
                parent = self.session.repository.manifest("logs", manifest.parent)
            except GuardError as error:
                self.tables.not_searched.append(f"the record before: {error}")
            else:
                self.tables.manifests[manifest.parent] = parent
        return self.in_manifests(chain, seq, last)

    def in_manifests(self, chain: str, seq: int, last: bool) -> list[Known]:
        """What the manifests that were read know of a record."""
        number, digest = _END if last else _BEGINNING
        return [
            Known(item[digest], f"record {seq} in the manifest of {manifest.snapshot}")
            for manifest in self.tables.manifests.values()
            for item in (manifest.records or {}).get("chains", [])
            if item["chain"] == chain and item[number] == seq
        ]


def _tell(
    outcome: Outcome, options: Options, archive: _Archive, archived: Read | None, live: list[tuple[str, Hit]]
) -> None:  # fmt: skip
    """Fill the result."""
    left = list(live)
    if archived is not None:
        outcome.archived = True
        outcome.backup_status = status_of(remote_of(archive.session), archived.opened.manifest.created)
        for place in archived.places:
            same = [item for item in live if item[1].line == place.hit.line]
            left = [item for item in left if item[1].line != place.hit.line]
            outcome.records.append(_archived_record(archive, archived, place, same, options))
    elif live:
        outcome.backup_status = PENDING
    for path, hit in left:
        outcome.records.append(_live_record(archive, path, hit, options))
    _warn(outcome, archived, left)


def _archived_record(
    archive: _Archive, found: Read, place: Place, same: list[tuple[str, Hit]], options: Options
) -> dict[str, t.Any]:  # fmt: skip
    manifest, hit = found.opened.manifest, place.hit
    repository = archive.session.repository
    if same:  # the live log may know the neighbours that are in other snapshots
        hit = dataclasses.replace(hit, before=hit.before or same[0][1].before, after=hit.after or same[0][1].after)
    known = functools.partial(archive.in_snapshot, found)
    check = check_record(hit, functools.partial(known, last=True), functools.partial(known, last=False))
    return {
        "archived": True,
        "snapshot": manifest.snapshot,
        "snapshot_type": manifest.type,
        "created": manifest.created,
        "object": repository.where("logs", manifest.snapshot, place.part.name),
        "object_bytes": place.part.size,
        "object_sha256": place.part.sha256,
        "part": manifest.parts.index(place.part),
        "part_offset": place.part_offset,
        "live": [{"path": path, "offset": other.offset} for path, other in same],
        **_about(place.path, hit, check, options),
    }


def _live_record(archive: _Archive, path: str, hit: Hit, options: Options) -> dict[str, t.Any]:
    known = archive.in_manifests  # the heads of what is archived say what the next record must name
    check = check_record(hit, functools.partial(known, last=True), functools.partial(known, last=False))
    return {"archived": False, "live": [{"path": path, "offset": hit.offset}], **_about(path, hit, check, options)}


def _about(path: str, hit: Hit, check: Check, options: Options) -> dict[str, t.Any]:
    """What is told of every record."""
    told: dict[str, t.Any] = {
        "path": path,
        "offset": hit.offset,
        "bytes": len(hit.line),
        "line_sha256": hashlib.sha256(hit.line).hexdigest(),
        "time": hit.record.time,
        "chain": hit.record.chain,
        "seq": hit.record.seq,
        "check": {"ok": not check.failures, **dataclasses.asdict(check)},
    }
    if options.include_record:
        told["line"] = hit.line.decode("utf-8", "replace").rstrip("\n")
        try:
            told["record"] = json.loads(hit.line)
        except (ValueError, RecursionError):
            told["record"] = None  # its line was changed; the check says so
    return told


def _warn(outcome: Outcome, archived: Read | None, only_live: list[tuple[str, Hit]]) -> None:
    in_archive = len(archived.places) if archived else 0
    if in_archive > 1:
        outcome.warnings.append(
            f"{in_archive} records of this trace_id are in {archived.opened.manifest.snapshot if archived else ''}: "
            "a collision of random numbers, a copied log, or a forgery"
        )
    if in_archive and only_live:
        outcome.warnings.append(
            f"the live log {only_live[0][0]} has a record of this trace_id that is not the archived one: "
            "one of the two was changed, or is a forgery"
        )
    elif len({hit.line for _path, hit in only_live}) > 1:
        outcome.warnings.append(f"{len(only_live)} different records of this trace_id are in the live logs")
    for record in outcome.records:
        where = record["snapshot"] if record["archived"] else record["path"]
        outcome.warnings.extend(f"{where}: {failure}" for failure in record["check"]["failures"])
