# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fetch the parts that a restore needs, many at once, and put what is wanted of them into files.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import threading
import typing as t

from ..errors import IntegrityError
from ..format.manifest import StoredPart
from ..format.tree import FILE, Extent
from .contents import METADATA, Change
from .image import Image, part_holding
from .part_io import Traffic, fetch_plain, with_retries
from .session import Session, in_parallel
from .snapshots import Opened
from .writer import Draft, write_at


class Wanted(t.NamedTuple):
    """An extent to fetch, and the file it belongs to."""

    extent: Extent
    path: str


class Job(t.NamedTuple):
    """A part to fetch, with all that is wanted of it, in the order of the stream."""

    opened: Opened
    part: StoredPart
    wanted: list[Wanted]


def plan_jobs(image: Image, changes: t.Sequence[Change]) -> list[Job]:
    """The parts that hold what differs. Nothing is fetched yet."""
    jobs: dict[tuple[str, int], Job] = {}
    for change in changes:
        entry = change.indexed
        if entry is None or entry.type != FILE or change.kind == METADATA:
            continue
        kept = set(change.same)
        for piece in image.pieces[entry.path]:
            if piece.extent not in kept:
                part = part_holding(piece.opened, piece.extent)
                key = (piece.opened.manifest.snapshot, part.start)
                jobs.setdefault(key, Job(piece.opened, part, [])).wanted.append(Wanted(piece.extent, entry.path))
    for job in jobs.values():
        job.wanted.sort(key=lambda wanted: wanted.extent.position)
    return list(jobs.values())


def fetch(session: Session, jobs: t.Sequence[Job], drafts: t.Mapping[str, Draft]) -> None:
    """Do all jobs; a draft that has all its extents becomes a file."""
    traffic: dict[str, Traffic] = {}
    cancelled = threading.Event()
    for job in jobs:
        snapshot = job.opened.manifest.snapshot
        if snapshot not in traffic:
            traffic[snapshot] = dataclasses.replace(session.traffic(job.opened.passphrase), cancelled=cancelled)

    def work(job: Job) -> None:
        lane = traffic[job.opened.manifest.snapshot]
        with_retries(session.attempts, cancelled.wait, lambda: _fetch_part(session, lane, job, drafts))

    if jobs:
        for _done in in_parallel(
            _far_apart(jobs, session.workers), session.workers, next(iter(traffic.values())), work
        ):
            pass


def _far_apart(jobs: t.Sequence[Job], lanes: int) -> list[Job]:
    """The jobs in an order in which those that run at the same time are far from each other in the stream.

    Neighbours mostly belong to one file, and the kernel lets only one at a time write to a file.
    """
    stride = -(-len(jobs) // lanes)
    return [jobs[number] for first in range(stride) for number in range(first, len(jobs), stride)]


def _fetch_part(session: Session, traffic: Traffic, job: Job, drafts: t.Mapping[str, Draft]) -> None:
    name = session.repository.name(session.layer, job.opened.manifest.snapshot, job.part.name)
    sink = _Sink(job, drafts, session.repository.store.full_name(name))
    try:
        fetch_plain(traffic, job.part, name, sink.take)
    finally:
        sink.close()
    # Only now has gpg vouched for the part.
    for path, count in sink.arrived.items():
        drafts[path].arrived(count)


class _Sink:
    """Takes a part's plain stream and writes what is wanted of it to its files, hashing on the way."""

    def __init__(self, job: Job, drafts: t.Mapping[str, Draft], where: str):
        self.where = where
        self.position = job.part.start
        self.arrived: dict[str, int] = {}
        self._drafts = drafts
        self._waiting = iter(job.wanted)
        self._fd = -1
        self._next()

    def _next(self) -> None:
        self._wanted = next(self._waiting, None)
        self._digest = hashlib.sha256()

    def take(self, data: memoryview) -> None:
        start, end = self.position, self.position + len(data)
        self.position = end
        while self._wanted is not None:
            extent, path = self._wanted
            low, high = max(start, extent.position), min(end, extent.position + extent.length)
            if low < high:
                if self._fd < 0:
                    self._fd = self._drafts[path].open()
                run = data[low - start : high - start]
                self._digest.update(run)
                write_at(self._fd, run, extent.offset + low - extent.position)
            if end < extent.position + extent.length:
                return
            self._end_of_extent(extent, path)

    def _end_of_extent(self, extent: Extent, path: str) -> None:
        self.close()
        if self._digest.hexdigest() != extent.sha256:
            raise IntegrityError(
                self.where, f"the content of {path!r} as the index has it", "other bytes",
                "The part was exchanged. Restore another snapshot.",
            )  # fmt: skip
        self.arrived[path] = self.arrived.get(path, 0) + 1
        self._next()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
