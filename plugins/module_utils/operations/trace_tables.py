# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ask the record tables of one day which snapshots may hold a record.

Private to the collection: use the modules, not this file.

The cost is that of the one day that a trace_id names, however many days are archived: a listing, its tables and the
manifests that vouch for them. Increments come first: each record is in one of them, or in a full only.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import hashlib
import threading
import typing as t

from ..errors import GuardError, IntegrityError, KeyProviderError
from ..format import manifest as manifests
from ..format.manifest import Manifest, StoredPart, snapshot_number
from ..format.record_table import PREFIX, RecordTable, TableName, parse_name
from ..format.records import day_of
from ..format.repository import MANIFEST, Repository
from ..system.process import end_children
from .part_io import with_retries
from .session import Session

_MOST_TABLES = 32  # in one batch; of fulls 1, 2, 4 …, as the oldest has the record most often
_MOST_BYTES = 64 << 20
_MOST_REFUSALS = 3  # then the key fits none: a provider that does not answer takes a minute each time


@dataclasses.dataclass(repr=False)  # a repr would show the passphrase
class Candidate:
    """A snapshot that may hold the record, and the parts to look in."""

    manifest: Manifest
    passphrase: bytes
    parts: list[int]


class _Job(t.NamedTuple):
    """A table that was read and fits its manifest."""

    name: str
    manifest: Manifest
    data: bytes


class TableSearch:
    """One search. What could not be read is told in ``not_searched``, and does not end it."""

    def __init__(self, session: Session, trace_id: str):
        self.session = session
        self.trace_id = trace_id
        self.day = day_of(trace_id)
        self.tables: dict[str, int] = {}  # names below the instance, and sizes
        self.tables_read = 0
        self.not_searched: list[str] = []
        self.unread: set[str] = set()  # the snapshots that this is about
        self.manifests: dict[str, Manifest] = {}  # those that were read, by snapshot
        self._refusals = 0

    def look_up(self) -> None:
        """Find out which tables the day has."""
        prefix = f"{PREFIX}/{self.day}"
        store = self.session.repository.store
        found = _again(self.session, lambda: store.list(self.session.repository.name(prefix)))
        self.tables = {f"{prefix}/{name}": size for name, size in found.items() if parse_name(f"{prefix}/{name}")}

    def candidates(self) -> t.Generator[Candidate, None, None]:
        """The snapshots that may hold the record, in the order of their numbers: increments, then fulls."""
        for full in (False, True):
            chosen = [name for name in self.tables if _name(name).full == full]
            chosen.sort(key=lambda name: (snapshot_number(_name(name).snapshot) or 0, name))
            for batch in _batches(chosen, self.tables, 1 if full else _MOST_TABLES):
                yield from self._ask(self._read(batch))

    def _read(self, names: t.Sequence[str]) -> list[_Job]:
        """The tables that their manifests vouch for."""
        repository = self.session.repository
        wanted: dict[str, str] = {}
        for name in names:
            wanted[name] = repository.name(name)
            wanted[_name(name).snapshot] = repository.name("logs", _name(name).snapshot, MANIFEST)
        data = _again(self.session, lambda: repository.store.read_several(list(wanted.values())))
        jobs = []
        for name in names:
            snapshot = _name(name).snapshot
            try:
                manifest = _manifest(repository, snapshot, data.get(wanted[snapshot]))
                self.manifests[snapshot] = manifest
                table = data.get(wanted[name])
                _check_table(repository, manifest, name, table)
                jobs.append(_Job(name, manifest, table or b""))
            except GuardError as error:
                self.give_up(snapshot, str(error))
        return jobs

    def _ask(self, jobs: t.Sequence[_Job]) -> t.Iterator[Candidate]:
        """Unwrap and decrypt in threads, not far ahead of whoever takes the answers: most need only some of them."""
        count = self.session.workers
        with threads(count) as pool:
            waiting: collections.deque[tuple[_Job, concurrent.futures.Future[Candidate]]] = collections.deque()
            remaining = iter(jobs)
            while True:
                while len(waiting) < count and (job := next(remaining, None)) is not None:
                    waiting.append((job, pool.submit(self._decrypt, job)))
                if not waiting:
                    return
                job, future = waiting.popleft()
                where, snapshot = self.session.repository.where(job.name), job.manifest.snapshot
                if self._refusals >= _MOST_REFUSALS and not self.tables_read:
                    future.cancel()
                    self.give_up(snapshot, f"{where}: not tried, as the key did not fit {self._refusals} others")
                    continue
                try:
                    candidate = future.result()
                except GuardError as error:
                    self._refusals += isinstance(error, KeyProviderError)
                    self.give_up(snapshot, f"{where}: not read: {error}")
                    continue
                self.tables_read += 1
                if candidate.parts:
                    yield candidate

    def _decrypt(self, job: _Job) -> Candidate:
        session = self.session
        context = session.data_key_context(job.manifest.snapshot)
        passphrase = session.require_keys().unwrap(job.manifest.key, context)
        where = session.repository.where(job.name)
        table = RecordTable.decode(session.gpg.decrypt_bytes(job.data, passphrase, where), where, job.name)
        return Candidate(job.manifest, passphrase, table.parts_with(self.trace_id))

    def account(self) -> int:
        """After a search that found nothing: hold the tables against what all manifests of the layer say, as what is
        missing shows there only. Returns the number of snapshots of which it is now known that they have nothing."""
        session, repository = self.session, self.session.repository
        told = _again(session, lambda: repository.manifests("logs"))
        without = []
        for snapshot, manifest in told.items():
            if snapshot in self.unread:
                continue  # it was told of before
            if not isinstance(manifest, Manifest):
                self.give_up(snapshot, str(manifest))
            elif manifest.records is None:
                without.append(snapshot)
            else:
                self._account_for(manifest)
        if without:
            self.unread.update(without)
            named = ", ".join(without[:3]) + (", …" if len(without) > 3 else "")
            self.not_searched.append(
                f"{repository.where('logs')}: {len(without)} snapshot(s) without record tables ({named}), made by an "
                "older release. A new full backup covers what of them is still in the logs."
            )
        return len(told.keys() - self.unread)

    def _account_for(self, manifest: Manifest) -> None:
        """Tell what a manifest names of that day that was not there, and what was saved without being read."""
        repository = self.session.repository
        for table in manifest.tables:
            if _name(table.name).day == self.day and table.name not in self.tables:
                text = f"{repository.where(table.name)}: expected the record table that the manifest names, found none"
                self.give_up(manifest.snapshot, text)
        paths = manifest.records["not_scanned"] if manifest.records else []
        if paths:
            where = repository.where("logs", manifest.snapshot)
            self.not_searched.append(f"{where}: saved without being read: {', '.join(map(repr, paths))}")

    def give_up(self, snapshot: str, text: str) -> None:
        """Nothing more is learnt from a snapshot."""
        self.unread.add(snapshot)
        self.not_searched.append(text)


@contextlib.contextmanager
def threads(count: int) -> t.Iterator[concurrent.futures.ThreadPoolExecutor]:
    """A pool whose threads do not keep a run from ending that was told to."""
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        try:
            yield pool
        except (Exception, GeneratorExit):
            raise
        except BaseException:
            end_children()
            raise


def _name(name: str) -> TableName:
    """What the name of a table says; only for names that were checked."""
    parsed = parse_name(name)
    if parsed is None:
        raise ValueError(f"{name!r} is no table's name")
    return parsed


Answer = t.TypeVar("Answer")


def _again(session: Session, work: t.Callable[[], Answer]) -> Answer:
    return with_retries(session.attempts, threading.Event().wait, work)


def _batches(names: t.Sequence[str], sizes: t.Mapping[str, int], most: int) -> t.Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for name in names:
        if batch and (len(batch) == most or size + sizes[name] > _MOST_BYTES):
            yield batch
            batch, size, most = [], 0, min(2 * most, _MOST_TABLES)
        batch.append(name)
        size += sizes[name]
    if batch:
        yield batch


def _manifest(repository: Repository, snapshot: str, data: bytes | None) -> Manifest:
    where = repository.where("logs", snapshot, MANIFEST)
    if data is None:
        raise IntegrityError(
            where, "the manifest of a snapshot that has a record table", "none",
            "A backup that was interrupted leaves this; else somebody removed it.",
        )  # fmt: skip
    return manifests.parse(data, where, repository.instance, "logs", snapshot)


def _check_table(repository: Repository, manifest: Manifest, name: str, data: bytes | None) -> None:
    named: StoredPart | None = next((table for table in manifest.tables if table.name == name), None)
    where = repository.where(name)
    if named is None:
        raise IntegrityError(where, "a record table that the manifest of its snapshot names", "one that it does not")
    if data is None:
        raise IntegrityError(where, f"{named.size} bytes", "no such object any more")
    if hashlib.sha256(data).hexdigest() != named.sha256:
        raise IntegrityError(
            where, "the SHA-256 that the manifest gives", "another", "The record table was changed or damaged."
        )
