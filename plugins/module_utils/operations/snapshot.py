# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Take a snapshot: parts, many at once; then the index; then the manifest, which makes it exist.

Private to the collection: use the modules, not this file.

What is taken is decided elsewhere (one file a layer). An interrupted run leaves parts and a journal;
the next run of the same content goes on from there, any other removes them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import json
import os
import socket
import threading
import typing as t

from ..errors import GuardError, KeyProviderError, SourceChanged, StoreError
from ..format import index as indexes
from ..format.index import Index
from ..format.manifest import FULL, Manifest, StoredPart, new_snapshot_id
from ..format.repository import MANIFEST
from ..format.slicing import ZSTD, Part, codec_by_sample, no_cuts, slice_entries
from ..format.tree import FILE, Entry, Skipped, Tree, identity
from ..services.keys.base import DataKey
from . import fences, records, recovery_text
from .part_io import store_part, with_retries
from .session import Session, in_parallel

_TEXT_SUFFIXES = (".gz", ".zst", ".xz", ".bz2")


@dataclasses.dataclass
class Plan:
    """What one snapshot will hold. Nothing has been written yet."""

    root: str
    entries: list[Entry]
    skipped: list[Skipped]
    type: str = FULL
    base: str = ""  # empty: the snapshot itself
    parent: str = ""
    layer: dict[str, t.Any] = dataclasses.field(default_factory=dict)
    grows: bool = False  # files may get longer while they are read (logs)
    cuts: t.Callable[[Entry], t.Sequence[int]] = no_cuts
    finish: t.Callable[[], None] = lambda: None  # called when the extents' hashes are known
    logs: list[records.Log] = dataclasses.field(default_factory=list)

    @property
    def content_bytes(self) -> int:
        """Bytes of content to be read."""
        return sum(length for entry in self.entries if entry.type == FILE for _offset, length in entry.ranges())


@dataclasses.dataclass
class Taken:
    """What became of a plan."""

    manifest: Manifest
    uploaded: int  # bytes of ciphertext that went over the wire
    reused: int  # parts that an interrupted run had stored


def take(session: Session, plan: Plan, number: int, part_size: int) -> Taken:
    """Carry out ``plan`` as snapshot ``number``."""
    with session.scratch("records") if plan.logs else contextlib.nullcontext("") as scratch:
        return _take(session, plan, number, part_size, scratch)


def _take(session: Session, plan: Plan, number: int, part_size: int, scratch: str) -> Taken:
    with Tree(plan.root) as tree:
        session.progress.begin("planning")
        known = (lambda entry: ZSTD if not entry.path.endswith(_TEXT_SUFFIXES) else None) if plan.grows else _unknown
        stored_entries = [entry for entry in plan.entries if not entry.listed_only]
        ends = records.part_ends(tree, plan.logs)
        parts = slice_entries(stored_entries, codec_by_sample(tree, known), part_size, plan.cuts, ends)
        fingerprint = _fingerprint(plan, parts)
        journal = _Journal(session, fingerprint)
        snapshot, key, stored = journal.resume() or journal.begin(number)
        _adopt(parts, stored)
        uploaded = _store_parts(session, tree, parts, snapshot, key, journal)
        if not plan.grows:
            _check_unchanged(tree, plan.entries)
        try:
            found = records.scan_logs(session, tree, plan.logs, parts, scratch) if plan.logs else None
            plan.finish()
        except SourceChanged:
            journal.abandon()  # the fingerprint knows no more of a log than its size: it would fit again
            raise
    if found is not None:
        journal.will_store(records.table_names(found, snapshot, plan.type == FULL))
        records.store_tables(session, found, snapshot, plan.type == FULL, key)
        plan.layer["records"] = found.runs
    manifest = _describe(session, plan, parts, snapshot, key, found.summary if found else None)
    session.progress.begin("committing")
    recovery_text.ensure(session.repository, session.require_keys())
    manifest = _store_index(session, plan, manifest, key)
    _nothing, ids = fences.beside(session.repository, lambda: _read_back(session, manifest))
    fences.still(session, ids)
    session.repository.commit(manifest)
    _look_once_more(session, manifest, journal)
    journal.end()
    uploaded += manifest.index.size + sum(table.size for table in manifest.tables)
    return Taken(manifest, uploaded, len(stored))


def _unknown(_entry: Entry) -> str | None:
    return None


def _fingerprint(plan: Plan, parts: list[Part]) -> str:
    """The same only when every part would hold the same bytes."""
    digest = hashlib.sha256(json.dumps([plan.type, plan.base, plan.parent]).encode())
    for entry in plan.entries:
        if entry.listed_only:
            continue
        told = entry.to_json()
        told.pop("extents", None)
        inode = entry.identity if not plan.grows else entry.identity[:2]
        digest.update(json.dumps([told, entry.window, inode]).encode())
    digest.update(json.dumps([(part.start, part.length, part.codec) for part in parts]).encode())
    return digest.hexdigest()


def _store_parts(
    session: Session, tree: Tree, parts: list[Part], snapshot: str, key: DataKey, journal: _Journal
) -> int:
    missing = [part for part in parts if not part.sha256]
    traffic = session.traffic(key.passphrase)
    session.progress.begin("storing parts", sum(p.length for part in missing for p in part.pieces if p.file))
    prefix = session.repository.name(session.layer, snapshot)

    def work(part: Part) -> list[str]:
        hashes: list[str] = with_retries(
            session.attempts,
            traffic.cancelled.wait,
            lambda: store_part(traffic, tree, part, f"{prefix}/{part.name}"),
        )
        return hashes

    for part, hashes in in_parallel(missing, session.workers, traffic, work):
        _set_hashes(part, hashes)
        journal.add(part, hashes)
    return sum(part.size for part in missing)


def _set_hashes(part: Part, hashes: list[str]) -> None:
    remaining = iter(hashes)
    for piece in part.pieces:
        if piece.file is not None:
            piece.file.extents[piece.slot] = piece.file.extents[piece.slot]._replace(sha256=next(remaining))


def _adopt(parts: list[Part], stored: dict[int, dict[str, t.Any]]) -> None:
    for part in parts:
        if part.number in stored:
            part.size, part.sha256 = stored[part.number]["size"], stored[part.number]["sha256"]
            _set_hashes(part, stored[part.number]["hashes"])


def _check_unchanged(tree: Tree, entries: t.Sequence[Entry]) -> None:
    """Refuse a snapshot whose files changed while they were read: half old and half new restores as neither."""
    for entry in entries:
        if entry.type == FILE and not entry.source and not entry.listed_only:
            fd = tree.open_file(entry)
            try:
                now = identity(os.fstat(fd))
            finally:
                os.close(fd)
            if now != entry.identity:
                raise SourceChanged(
                    os.path.join(tree.root, entry.path), "a file that nobody writes to during the backup",
                    "one that changed", "Back up again when the change is complete.",
                )  # fmt: skip


def _describe(
    session: Session, plan: Plan, parts: list[Part], snapshot: str, key: DataKey, summary: dict[str, t.Any] | None
) -> Manifest:
    return Manifest(
        instance=session.repository.instance,
        layer=session.layer,
        snapshot=snapshot,
        type=plan.type,
        created=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        base=plan.base or snapshot,
        parent=plan.parent,
        key=key.wrapped,
        parts=[StoredPart(p.name, p.size, p.sha256, p.start, p.length, p.codec) for p in parts],
        index=StoredPart("index.gpg", 0, ""),
        files=sum(1 for entry in plan.entries if entry.type == FILE),
        content_bytes=sum(extent.length for entry in plan.entries for extent in entry.extents),
        host=socket.gethostname(),
        records=summary,
        fence=session.fence,
    )


def _store_index(session: Session, plan: Plan, manifest: Manifest, key: DataKey) -> Manifest:
    plain = indexes.to_bytes(Index(plan.entries, plan.skipped, plan.layer), manifest)
    name = session.repository.name(session.layer, manifest.snapshot, "index.gpg")
    data = session.gpg.encrypt_bytes(plain, key.passphrase, name)
    with_retries(session.attempts, threading.Event().wait, lambda: session.repository.store.write(name, data))
    index = StoredPart("index.gpg", len(data), hashlib.sha256(data).hexdigest())
    return dataclasses.replace(manifest, index=index)


def _read_back(session: Session, manifest: Manifest) -> None:
    """Compare what the store lists with what was sent: an exit code has proven nothing."""
    repository = session.repository
    listed = repository.store.list(repository.name(session.layer, manifest.snapshot))
    wanted = {repository.name(session.layer, manifest.snapshot, part.name): part for part in manifest.objects}
    found = {repository.name(session.layer, manifest.snapshot, name): size for name, size in listed.items()}
    if manifest.tables:
        wanted.update((repository.name(table.name), table) for table in manifest.tables)
        found.update((repository.name(name), size) for name, size in repository.tables(manifest.table_days).items())
    for name, part in wanted.items():
        if found.get(name) != part.size:
            raise StoreError(
                repository.store.full_name(name), f"{part.size} bytes",
                f"{found[name]} bytes" if name in found else "no such object",
                "The upload ended without an error and is not whole; no snapshot was made.",
            )  # fmt: skip


def _look_once_more(session: Session, manifest: Manifest, journal: _Journal) -> None:
    """Whoever took the instance over before the manifest was there does not count on the snapshot: it is taken back."""

    def look() -> list[str]:
        return fences.listed(session.repository)

    try:
        ids = with_retries(session.attempts, threading.Event().wait, look)
    except StoreError as error:
        session.warn(
            f"Whether another host took instance {session.repository.instance} over while {manifest.snapshot} was "
            f"stored could not be looked up: {error}. If one did, no reader takes this snapshot for the latest."
        )
        return
    try:
        fences.still(session, ids)
    except GuardError as error:
        known = fences.read(session.repository, ids)
        if not known.why_not(session.layer, manifest.snapshot, manifest.fence):
            # It was there by then: the other host may have begun to restore it.
            session.warn(f"{manifest.snapshot} is the last snapshot of this host: {error}")
            return
        became = journal.take_back()
        raise GuardError(error.thing, error.expected, error.found, f"{became} {error.hint}") from error


class _Journal:
    """The parts that a run has stored so far, with the wrapped data key: what an interrupted run leaves."""

    def __init__(self, session: Session, fingerprint: str):
        self.session = session
        self.state: dict[str, t.Any] = {"fingerprint": fingerprint, "parts": {}}

    def resume(self) -> tuple[str, DataKey, dict[int, dict[str, t.Any]]] | None:
        """(snapshot, data key, parts) of an interrupted run of the same content; any other is removed."""
        left = self.session.load_state("journal")
        if not left:
            return None
        snapshot = left["snapshot"]
        repository, layer = self.session.repository, self.session.layer
        listed = repository.store.list(repository.name(layer, snapshot))
        keys = self.session.require_keys()
        repository.store.tidy(repository.name(layer, snapshot))
        if "manifest.json" not in listed:
            self._remove_tables(left.pop("tables", []))
        if left["fingerprint"] == self.state["fingerprint"] and keys.can_unwrap and "manifest.json" not in listed:
            try:
                passphrase = keys.unwrap(left["key"], self.session.data_key_context(snapshot))
            except KeyProviderError:
                passphrase = b""  # the key is gone, so what it encrypted is worth nothing
            if passphrase:
                self.state = left
                whole = {
                    int(number): part
                    for number, part in left["parts"].items()
                    if listed.get(part["name"]) == part["size"]
                }
                return snapshot, DataKey(passphrase, left["key"]), whole
        if "manifest.json" not in listed:
            repository.store.remove(repository.name(layer, snapshot))
        self.session.drop_state("journal")
        return None

    def take_back(self) -> str:
        """Remove the snapshot that this run has stored, the manifest first; what came of it, in words."""
        repository, layer, snapshot = self.session.repository, self.session.layer, self.state["snapshot"]
        manifest, where = repository.name(layer, snapshot, MANIFEST), repository.where(layer, snapshot)
        refused = "it was removed and is still there"
        try:
            repository.store.remove_several([manifest])
            there = bool(repository.store.present([manifest]))
        except GuardError as error:
            there, refused = True, str(error)
        if not there:
            with contextlib.suppress(GuardError):  # what is left belongs to no snapshot: prune finds it
                self._remove_tables(self.state.get("tables", []))
                self.abandon()
        self.session.drop_state("journal")
        if there:
            return (
                f"{where} was stored by then, and could not be taken back ({refused}): has this host no right to "
                "delete? No reader takes it for the latest. Remove it from where that right is."
            )
        return f"{where} was stored by then, and was taken back."

    def abandon(self) -> None:
        """Remove what this run has stored."""
        self.session.repository.store.remove(self.session.repository.name(self.session.layer, self.state["snapshot"]))
        self.session.drop_state("journal")

    def begin(self, number: int) -> tuple[str, DataKey, dict[int, dict[str, t.Any]]]:
        """A new snapshot id and data key, written down before the first part goes out."""
        snapshot = new_snapshot_id(number)
        key = self.session.require_keys().new_key(self.session.data_key_context(snapshot))
        self.state.update(snapshot=snapshot, key=key.wrapped)
        self.session.save_state("journal", self.state)
        return snapshot, key, {}

    def add(self, part: Part, hashes: list[str]) -> None:
        """One more part is stored."""
        self.state["parts"][str(part.number)] = {
            "name": part.name, "size": part.size, "sha256": part.sha256, "hashes": hashes,
        }  # fmt: skip
        self.session.save_state("journal", self.state)

    def will_store(self, tables: list[str]) -> None:
        """The record tables that are to be stored now: written down before the first goes out."""
        self.state["tables"] = tables
        self.session.save_state("journal", self.state)

    def _remove_tables(self, tables: list[str]) -> None:
        """Those of the interrupted run; if it is gone on with they are made anew."""
        repository = self.session.repository
        repository.store.remove_several([repository.name(name) for name in tables])
        for place in repository.table_places(name.split("/")[1] for name in tables):
            repository.store.tidy(place)

    def end(self) -> None:
        """The snapshot exists: nothing is left to go on with."""
        self.session.drop_state("journal")


def next_number(listed: t.Sequence[t.Any]) -> int:
    """One more than any number that was ever used here, complete or not."""
    return max((item.number for item in listed), default=0) + 1


def require_directory(path: str, layer: str) -> None:
    """The layer's directory must be there and hold something: an empty one is not worth a backup."""
    if not os.path.isdir(path):
        raise GuardError(path, f"the directory of the layer {layer}", "none", "Is its file system mounted?")
