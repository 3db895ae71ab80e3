# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restore a layer into a directory: fetch what differs, many parts at once, and read back what was made.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
import random
import shutil
import tempfile
import threading
import time
import typing as t

from ..errors import GuardError, IntegrityError
from ..format.manifest import StoredPart
from ..format.tree import DIRECTORY, FILE, HARDLINK, SYMLINK, Entry, Extent, Tree, scan
from ..services.acl import ACL_ACCESS, ACL_DEFAULT
from ..services.git import restore_from_bundle
from . import snapshots
from .contents import CONTENT, EXTRA, METADATA, MISSING, TYPE, Change, compare, differing_attributes
from .image import Image, image_of, part_holding
from .part_io import Traffic, fetch_plain, with_retries
from .session import Session, in_parallel
from .snapshots import Opened
from .writer import LEFTOVER, Draft, Writer, write_at

_PRIVATE = ".guardops"
_WITHOUT_OWNERSHIP = ("mode", "mtime_ns", "size", "type", "target", ACL_ACCESS, ACL_DEFAULT)


@dataclasses.dataclass
class Options:
    """What a restore may be told."""

    path: str
    snapshot: str = snapshots.LATEST
    overwrite: bool = False
    remove_extra: bool = False
    ownership: bool = True
    sample_bytes: int = 0  # restore some files only, about so many bytes; 0: all


@dataclasses.dataclass
class Outcome:
    """What a restore did, or in check mode would do."""

    changed: bool = False
    snapshot: str = ""
    created: str = ""
    chain: list[str] = dataclasses.field(default_factory=list)
    files: int = 0
    bytes: int = 0
    fetched_bytes: int = 0
    fetched_parts: int = 0
    extra: list[str] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    not_checked: list[str] = dataclasses.field(default_factory=list)
    diff: str = ""


class Wanted(t.NamedTuple):
    """An extent to fetch, and the file it belongs to."""

    extent: Extent
    draft: Draft


class Job(t.NamedTuple):
    """A part to fetch, with all that is wanted of it, in the order of the stream."""

    opened: Opened
    part: StoredPart
    wanted: list[Wanted]


def restore(session: Session, options: Options) -> Outcome:
    """Bring the chosen snapshot back into ``options.path``."""
    started = time.monotonic()
    session.progress.begin("reading the index")
    chain = snapshots.chain(session, snapshots.choose(session, options.snapshot))
    image = image_of(chain)
    keeps_git = os.path.lexists(os.path.join(options.path, ".git"))
    if keeps_git:
        image.entries = [entry for entry in image.entries if entry.path.split("/")[0] != _PRIVATE]
    left_out = _keep_sample(image, options.sample_bytes) if options.sample_bytes else 0
    if options.ownership and os.geteuid() != 0:
        _refuse_foreign(image)
    on_disk, leftovers = _existing(options)
    changes = _changes(session, options, image, on_disk)
    outcome = Outcome(
        changed=any(change.kind != EXTRA for change in changes),
        snapshot=chain[-1].manifest.snapshot,
        created=chain[-1].manifest.created,
        chain=[opened.manifest.snapshot for opened in chain],
        files=sum(1 for entry in image.entries if entry.type == FILE),
        bytes=image.bytes,
        extra=[change.path for change in changes if change.kind == EXTRA],
        diff="".join(f"{change}\n" for change in changes if change.kind != EXTRA or options.remove_extra),
    )
    outcome.changed = outcome.changed or bool(outcome.extra and options.remove_extra)
    if not options.ownership:
        outcome.not_checked.append("owners, and attributes that only root may set")
    if left_out:
        outcome.not_checked.append(f"{left_out} files: a sample of {options.sample_bytes} bytes was asked for")
    _check_room(options, changes)
    if outcome.changed and not session.dry:
        with session.alone():
            for path in leftovers:
                os.unlink(os.path.join(options.path, path))
            _carry_out(session, options, image, changes, outcome)
            if not left_out:
                _restore_git(session, options, chain[-1], image, outcome)
            _read_back(options, image)
    if keeps_git and "git" in chain[-1].index.layer:
        outcome.not_checked.append("the Git repository that is there: it was left as it is")
    outcome.seconds = round(time.monotonic() - started, 3)
    return outcome


def _keep_sample(image: Image, budget: int) -> int:
    """Leave a random choice of files in the image, at least one; how many are left out."""
    files = [entry for entry in image.entries if entry.type == FILE]
    kept: set[str] = set()
    for entry in random.SystemRandom().sample(files, len(files)):
        if not kept or entry.size <= budget:
            kept.add(entry.path)
            budget -= entry.size
    image.entries = [
        e
        for e in image.entries
        if e.type not in (FILE, HARDLINK) or (e.target if e.type == HARDLINK else e.path) in kept
    ]
    image.pieces = {path: pieces for path, pieces in image.pieces.items() if path in kept}
    return len(files) - len(kept)


def _existing(options: Options) -> tuple[list[Entry], list[str]]:
    """What is in the target now, and what an interrupted restore left; nothing, where it is yet to be made."""
    if not os.path.isdir(options.path):
        if os.path.lexists(options.path):
            raise GuardError(options.path, "a directory, or nothing", "something else")
        return [], []
    entries, _skipped = scan(options.path, exclude=(".git",))
    left = [entry for entry in entries if LEFTOVER.match(entry.path.rpartition("/")[2])]
    entries = [entry for entry in entries if not LEFTOVER.match(entry.path.rpartition("/")[2])]
    if len(entries) > 1 and not options.overwrite:
        raise GuardError(
            options.path, "an empty directory", f"one with {len(entries) - 1} names in it",
            "Set overwrite: true to replace what differs; files that the snapshot does not have are kept.",
        )  # fmt: skip
    return entries, [entry.path for entry in left]


def _refuse_foreign(image: Image) -> None:
    foreign = [entry.path for entry in image.entries if entry.type != HARDLINK and entry.uid != os.geteuid()]
    if foreign:
        raise GuardError(
            f"{len(foreign)} files, {foreign[0]!r} among them", f"to belong to user id {os.geteuid()}, who restores",
            "other owners", "Run as root (become), or set ownership: false to do without owners.",
        )  # fmt: skip


def _changes(session: Session, options: Options, image: Image, on_disk: list[Entry]) -> list[Change]:
    if not on_disk:
        return [Change(entry.path, MISSING, indexed=entry) for entry in image.entries]
    session.progress.begin("comparing", sum(entry.size for entry in on_disk))
    with Tree(options.path) as tree:
        changes = compare(tree, on_disk, image.entries, session.workers, session.progress.advance)
    if not options.ownership:
        for change in changes:
            change.attributes = {n: v for n, v in change.attributes.items() if n in _WITHOUT_OWNERSHIP}
    return [change for change in changes if change.kind != METADATA or change.attributes]


def _check_room(options: Options, changes: list[Change]) -> None:
    """Refuse before the first byte what cannot fit."""
    needed = sum(c.indexed.size for c in changes if c.indexed is not None and c.kind in (MISSING, CONTENT, TYPE))
    place = options.path
    while not os.path.isdir(place):
        place = os.path.dirname(place) or "/"
    free = shutil.disk_usage(place).free
    if needed > free:
        raise GuardError(options.path, f"{needed} bytes of free space", f"{free}", "Make room, or restore elsewhere.")


def _carry_out(session: Session, options: Options, image: Image, changes: list[Change], outcome: Outcome) -> None:
    with Writer(options.path, options.ownership) as writer:
        drafts: list[Draft] = []
        try:
            jobs = _prepare(writer, image, changes, drafts)
            outcome.fetched_parts = len(jobs)
            outcome.fetched_bytes = sum(job.part.size for job in jobs)
            session.progress.begin("fetching parts", sum(job.part.length for job in jobs))
            _fetch(session, jobs)
            session.progress.begin("setting attributes")
            _links_and_attributes(writer, image, changes)
            if options.remove_extra:
                for path in sorted(outcome.extra, key=lambda p: p.count("/"), reverse=True):
                    writer.remove(path)
            for entry in reversed([entry for entry in image.entries if entry.type == DIRECTORY]):
                writer.mend_attributes(entry)
        except OSError as error:
            hint = (
                "Make room, then restore again with overwrite: true; what is there is kept."
                if error.errno == errno.ENOSPC
                else ""
            )
            raise GuardError(
                options.path, "a directory that takes the files", error.strerror or str(error), hint
            ) from error
        finally:
            for draft in drafts:
                draft.drop()


def _prepare(writer: Writer, image: Image, changes: list[Change], drafts: list[Draft]) -> list[Job]:
    """Make directories and empty files; say what is to be fetched for the others."""
    jobs: dict[tuple[str, int], Job] = {}
    for change in changes:
        entry = change.indexed
        if entry is None or change.kind == METADATA:
            continue
        if entry.type == DIRECTORY:
            writer.make_directory(entry.path)
        elif entry.type == FILE:
            kept = set(change.same)
            missing = [piece for piece in image.pieces[entry.path] if piece.extent not in kept]
            draft = Draft(writer, entry, len(missing), change.same)
            drafts.append(draft)
            for piece in missing:
                part = part_holding(piece.opened, piece.extent)
                key = (piece.opened.manifest.snapshot, part.start)
                jobs.setdefault(key, Job(piece.opened, part, [])).wanted.append(Wanted(piece.extent, draft))
            if not missing:
                draft.complete()
    for job in jobs.values():
        job.wanted.sort(key=lambda wanted: wanted.extent.position)
    return list(jobs.values())


def _fetch(session: Session, jobs: list[Job]) -> None:
    traffic: dict[str, Traffic] = {}
    cancelled = threading.Event()
    for job in jobs:
        snapshot = job.opened.manifest.snapshot
        if snapshot not in traffic:
            traffic[snapshot] = dataclasses.replace(session.traffic(job.opened.passphrase), cancelled=cancelled)

    def work(job: Job) -> None:
        lane = traffic[job.opened.manifest.snapshot]
        with_retries(session.attempts, cancelled.wait, lambda: _fetch_part(session, lane, job))

    if jobs:
        for _done in in_parallel(jobs, session.workers, next(iter(traffic.values())), work):
            pass


def _fetch_part(session: Session, traffic: Traffic, job: Job) -> None:
    name = session.repository.name(session.layer, job.opened.manifest.snapshot, job.part.name)
    sink = _Sink(job, session.repository.store.full_name(name))
    try:
        fetch_plain(traffic, job.part, name, sink.take)
    finally:
        sink.close()
    # Only now has gpg vouched for the part.
    for draft, count in sink.arrived.values():
        draft.arrived(count)


class _Sink:
    """Takes a part's plain stream and writes what is wanted of it to its files, hashing on the way."""

    def __init__(self, job: Job, where: str):
        self.where = where
        self.position = job.part.start
        self.arrived: dict[int, tuple[Draft, int]] = {}
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
            extent, draft = self._wanted
            low, high = max(start, extent.position), min(end, extent.position + extent.length)
            if low < high:
                if self._fd < 0:
                    self._fd = draft.open()
                run = data[low - start : high - start]
                self._digest.update(run)
                write_at(self._fd, run, extent.offset + low - extent.position)
            if end < extent.position + extent.length:
                return
            self._end_of_extent(extent, draft)

    def _end_of_extent(self, extent: Extent, draft: Draft) -> None:
        self.close()
        if self._digest.hexdigest() != extent.sha256:
            raise IntegrityError(
                self.where, f"the content of {draft.entry.path!r} as the index has it", "other bytes",
                "The part was exchanged. Restore another snapshot.",
            )  # fmt: skip
        count = self.arrived.get(id(draft), (draft, 0))[1]
        self.arrived[id(draft)] = (draft, count + 1)
        self._next()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _links_and_attributes(writer: Writer, image: Image, changes: list[Change]) -> None:
    for change in changes:
        entry = change.indexed
        if entry is None:
            continue
        if change.kind == METADATA:
            if entry.type != DIRECTORY:  # directories come last
                writer.mend_attributes(entry)
        elif entry.type == SYMLINK:
            writer.make_symlink(entry)
    # A file that was replaced has a new inode: its other names must follow it.
    replaced = {change.path for change in changes if change.kind != METADATA}
    for entry in image.entries:
        if entry.type == HARDLINK and (entry.path in replaced or entry.target in replaced):
            writer.make_hardlink(entry)


def _read_back(options: Options, image: Image) -> None:
    """Look at every name again: a restore that lost an owner or a list must not call itself complete."""
    found = {entry.path: entry for entry in scan(options.path, exclude=(".git",))[0]}
    for entry in image.entries:
        now = found.get(entry.path)
        where = os.path.join(options.path, entry.path)
        if now is None or now.type != entry.type:
            raise GuardError(where, f"a {entry.type} after the restore", "none" if now is None else f"a {now.type}")
        if entry.type == FILE and now.size != entry.size:
            raise GuardError(where, f"{entry.size} bytes after the restore", f"{now.size}")
        wrong = {} if entry.type == HARDLINK else differing_attributes(now, entry)
        if not options.ownership:
            wrong = {name: value for name, value in wrong.items() if name in _WITHOUT_OWNERSHIP}
        if wrong:
            told = ", ".join(f"{name} {wanted or '-'}" for name, (_now, wanted) in sorted(wrong.items()))
            seen = ", ".join(f"{name} {now_ or '-'}" for name, (now_, _wanted) in sorted(wrong.items()))
            raise GuardError(where, f"{told} after the restore", seen, "Does the file system take these attributes?")


def _restore_git(session: Session, options: Options, opened: Opened, image: Image, outcome: Outcome) -> None:
    """Build the configuration's Git repository from its bundle, which itself is not left in the tree."""
    git = opened.index.layer.get("git")
    private = os.path.join(options.path, _PRIVATE)
    if not git or not os.path.isdir(private):
        return
    with tempfile.TemporaryDirectory(dir=os.path.dirname(session.state_path("x"))) as scratch:
        bundle = shutil.move(os.path.join(options.path, git["bundle"]), scratch)
        os.rmdir(private)
        left = restore_from_bundle(bundle, options.path, git["branch"] or None)
    outcome.not_checked += [f"differs from the last commit: {change.path}" for change in left if change.status != "!!"]
    image.entries = [entry for entry in image.entries if entry.path.split("/")[0] != _PRIVATE]
    with Writer(options.path, options.ownership) as writer:
        writer.mend_attributes(image.entries[0])
