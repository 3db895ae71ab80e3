# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restore a layer into a directory: fetch what differs, many parts at once, and read back what was made.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import errno
import os
import random
import shutil
import time

from ..errors import GuardError, IntegrityError
from ..format.tree import DIRECTORY, FILE, HARDLINK, SYMLINK, Entry, Tree, scan
from ..services.acl import ACL_ACCESS, ACL_DEFAULT
from ..services.git_restore import restore_from_bundle
from . import snapshots
from .beside import Beside, make_way
from .contents import CONTENT, EXTRA, METADATA, MISSING, TYPE, Change, compare, differing_attributes
from .fetch import Job, fetch, plan_jobs
from .image import Image, image_of
from .session import Session
from .snapshots import Opened
from .writer import LEFTOVER, Appeared, Draft, Writer

_PRIVATE = ".guardops"
_BUNDLE = f"{_PRIVATE}/config.bundle"
_WITHOUT_OWNERSHIP = ("mode", "mtime_ns", "size", "type", "target", ACL_ACCESS, ACL_DEFAULT)
_SET_ID = 0o6000
_TRIES = 3


@dataclasses.dataclass
class Options:
    """What a restore may be told."""

    path: str
    snapshot: str = snapshots.LATEST
    overwrite: bool = False
    keep_existing: bool = False  # of the logs: what is there stays, and what would replace it comes beside it
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
    kept: list[str] = dataclasses.field(default_factory=list)
    beside: list[dict[str, str]] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    not_checked: list[str] = dataclasses.field(default_factory=list)
    files_left_out: int = 0  # because of a sample
    diff: str = ""


def restore(session: Session, options: Options) -> Outcome:
    """Bring the chosen snapshot back into ``options.path``."""
    for _attempt in range(_TRIES - 1 if options.keep_existing else 0):
        with contextlib.suppress(Appeared):  # a log was rotated or made just now: what came back meanwhile stays
            return _restore(session, options)
    return _restore(session, options)


def _restore(session: Session, options: Options) -> Outcome:
    started = time.monotonic()
    session.progress.begin("reading the index")
    chain = snapshots.chain(session, snapshots.choose(session, options.snapshot))
    image = image_of(chain)
    own_git = (".git",) if session.layer == "config" else ()  # it is made from the bundle, or left as it is
    _refuse_git(image, own_git, session.repository.where(session.layer, chain[-1].manifest.snapshot))
    keeps_git = any(os.path.lexists(os.path.join(options.path, name)) for name in own_git)
    if keeps_git:
        image.entries = [entry for entry in image.entries if entry.path.split("/")[0] != _PRIVATE]
    left_out = _keep_sample(image, options.sample_bytes) if options.sample_bytes else 0
    if options.ownership and os.geteuid() != 0:
        _refuse_foreign(image)
    if not options.ownership:
        _drop_set_id(image)
    on_disk, leftovers = _existing(options, own_git)
    bytes_of_all, files = image.bytes, sum(1 for entry in image.entries if entry.type == FILE)
    beside = Beside()
    if options.keep_existing:
        beside = make_way(options.path, image, on_disk, chain[-1].manifest.number)
        on_disk = [entry for entry in on_disk if entry.path not in beside.kept]
    changes = _changes(session, options, image, on_disk)
    jobs = plan_jobs(image, changes)
    outcome = Outcome(
        changed=any(change.kind != EXTRA for change in changes),
        snapshot=chain[-1].manifest.snapshot,
        created=chain[-1].manifest.created,
        chain=[opened.manifest.snapshot for opened in chain],
        files=files,
        bytes=bytes_of_all,
        fetched_bytes=sum(job.part.size for job in jobs),
        fetched_parts=len(jobs),
        extra=[change.path for change in changes if change.kind == EXTRA],
        kept=beside.kept,
        beside=[{"path": path, "restored_as": name} for path, name in beside.renamed.items()],
        diff="".join(f"{change}\n" for change in changes if change.kind != EXTRA or options.remove_extra),
    )
    outcome.changed = outcome.changed or bool(leftovers or (outcome.extra and options.remove_extra))
    if not options.ownership:
        outcome.not_checked.append("owners, setuid and setgid bits of files, and attributes that only root may set")
    if beside.names_left_out:
        outcome.not_checked.append(f"further names of files, which were left out: {', '.join(beside.names_left_out)}")
    outcome.files_left_out = left_out
    if left_out:
        outcome.not_checked.append(f"{left_out} files: a sample of {options.sample_bytes} bytes was asked for")
    _check_room(options, image, changes)
    if outcome.changed and not session.dry:
        with session.alone():
            _carry_out(session, options, image, changes, jobs, [*leftovers, *_to_remove(options, outcome)])
            if own_git and not keeps_git and not left_out:
                _restore_git(session, options, chain[-1], image, outcome)
            _read_back(options, image, own_git)
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


def _refuse_git(image: Image, own_git: tuple[str, ...], where: str) -> None:
    """Git runs what the settings in its directory say: a backup never holds that one, so a restore never writes it."""
    for entry in image.entries:
        if entry.path.split("/")[0] in own_git:
            raise IntegrityError(where, "an index without a Git directory", f"{entry.path!r}")


def _drop_set_id(image: Image) -> None:
    """A program that ran as its owner must not run as whoever restores it."""
    image.entries = [
        dataclasses.replace(entry, mode=entry.mode & ~_SET_ID) if entry.type == FILE else entry
        for entry in image.entries
    ]


def _existing(options: Options, own_git: tuple[str, ...]) -> tuple[list[Entry], list[str]]:
    """What is in the target now, and what an interrupted restore left; nothing, where it is yet to be made."""
    if not os.path.isdir(options.path):
        if os.path.lexists(options.path):
            raise GuardError(options.path, "a directory, or nothing", "something else")
        return [], []
    entries, _skipped = scan(options.path, exclude=own_git)
    left = [entry for entry in entries if LEFTOVER.match(entry.path.rpartition("/")[2])]
    entries = [entry for entry in entries if not LEFTOVER.match(entry.path.rpartition("/")[2])]
    if len(entries) > 1 and not (options.overwrite or options.keep_existing):
        raise GuardError(
            options.path, "an empty directory", f"one with {len(entries) - 1} names in it",
            "Set overwrite: true to replace what differs; files that the snapshot does not have are kept. Of the logs, "
            "keep_existing: true leaves all that is there as it is.",
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
    for change in changes:
        if change.indexed is not None:
            change.attributes = _compared(change.attributes, options, change.indexed)
    return [change for change in changes if change.kind != METADATA or change.attributes]


def _compared(found: dict[str, tuple[str, str]], options: Options, entry: Entry) -> dict[str, tuple[str, str]]:
    """What of these differences the restore is to mend."""
    if options.keep_existing and entry.type == DIRECTORY:  # its time changes with whoever writes there
        found = {name: both for name, both in found.items() if name != "mtime_ns"}
    if options.ownership:
        return found
    return {n: both for n, both in found.items() if n in _WITHOUT_OWNERSHIP or n.startswith("user.")}


def _to_remove(options: Options, outcome: Outcome) -> list[str]:
    """Names that go, what is in a directory before the directory."""
    return sorted(outcome.extra, key=lambda path: path.count("/"), reverse=True) if options.remove_extra else []


def _check_room(options: Options, image: Image, changes: list[Change]) -> None:
    """Refuse before the first byte what cannot fit. Holes take no room."""
    files = [c.path for c in changes if c.kind in (MISSING, CONTENT, TYPE) and c.path in image.pieces]
    needed = sum(piece.extent.length for path in files for piece in image.pieces[path])
    place = options.path
    while not os.path.isdir(place):
        place = os.path.dirname(place) or "/"
    free = shutil.disk_usage(place).free
    if needed > free:
        raise GuardError(options.path, f"{needed} bytes of free space", f"{free}", "Make room, or restore elsewhere.")


def _carry_out(
    session: Session, options: Options, image: Image, changes: list[Change], jobs: list[Job], unwanted: list[str]
) -> None:
    drafts: dict[str, Draft] = {}
    with Writer(options.path, options.ownership, keep=options.keep_existing) as writer:
        try:
            writer.let_owner_in([change.path for change in changes if change.kind != METADATA])
            replaced = {change.path for change in changes if change.kind == TYPE}
            before = [path for path in unwanted if any(path.startswith(f"{name}/") for name in replaced)]
            for path in before:  # in a directory in whose place something else comes
                writer.remove(path)
            _prepare(writer, image, changes, jobs, drafts)
            session.progress.begin("fetching parts", sum(job.part.length for job in jobs))
            fetch(session, jobs, drafts)
            session.progress.begin("setting attributes")
            _links_and_attributes(writer, image, changes)
            gone = set(before)
            for path in unwanted:
                if path not in gone:
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
            for draft in drafts.values():
                draft.drop()


def _prepare(writer: Writer, image: Image, changes: list[Change], jobs: list[Job], drafts: dict[str, Draft]) -> None:
    """Make directories, and files of which nothing is to be fetched; a draft for each of the others."""
    wanted = collections.Counter(item.path for job in jobs for item in job.wanted)
    names = collections.Counter(entry.target for entry in image.entries if entry.type == HARDLINK)
    for change in changes:
        entry = change.indexed
        if entry is None:
            continue
        if change.kind == METADATA and entry.type == FILE and writer.links(entry.path) > 1 + names[entry.path]:
            # Another name of it lies elsewhere, and its attributes are not ours to change: make it a file of its own.
            change.kind, change.same = CONTENT, [piece.extent for piece in image.pieces[entry.path]]
        if change.kind == METADATA:
            continue
        if entry.type == DIRECTORY:
            writer.make_directory(entry.path)
        elif entry.type == FILE:
            drafts[entry.path] = Draft(writer, entry, wanted[entry.path], change.same)
            if not wanted[entry.path]:
                drafts[entry.path].complete()


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


def _read_back(options: Options, image: Image, own_git: tuple[str, ...]) -> None:
    """Look at every name again: a restore that lost an owner or a list must not call itself complete."""
    found = {entry.path: entry for entry in scan(options.path, exclude=own_git)[0]}
    for entry in image.entries:
        now = found.get(entry.path)
        where = os.path.join(options.path, entry.path)
        if now is None or now.type != entry.type:
            raise GuardError(where, f"a {entry.type} after the restore", "none" if now is None else f"a {now.type}")
        if entry.type == FILE and now.size != entry.size:
            raise GuardError(where, f"{entry.size} bytes after the restore", f"{now.size}")
        wrong = {} if entry.type == HARDLINK else _compared(differing_attributes(now, entry), options, entry)
        if wrong:
            told = ", ".join(f"{name} {wanted or '-'}" for name, (_now, wanted) in sorted(wrong.items()))
            seen = ", ".join(f"{name} {now_ or '-'}" for name, (now_, _wanted) in sorted(wrong.items()))
            raise GuardError(where, f"{told} after the restore", seen, "Does the file system take these attributes?")


def _restore_git(session: Session, options: Options, opened: Opened, image: Image, outcome: Outcome) -> None:
    """Build the configuration's Git repository from its bundle, which itself is not left in the tree."""
    git = opened.index.layer.get("git")
    if not git or _BUNDLE not in image.pieces:
        return
    with session.scratch("bundle") as scratch, Writer(options.path, options.ownership) as writer:
        bundle = os.path.join(scratch, "config.bundle")
        with open(writer.tree.open(_BUNDLE, os.O_RDONLY), "rb") as source, open(bundle, "wb") as copy:
            shutil.copyfileobj(source, copy)
        writer.remove(_BUNDLE)
        writer.remove(_PRIVATE)
        left = restore_from_bundle(bundle, options.path, git["branch"] or None)
    outcome.not_checked += [f"differs from the last commit: {change.path}" for change in left if change.status != "!!"]
    image.entries = [entry for entry in image.entries if entry.path.split("/")[0] != _PRIVATE]
    with Writer(options.path, options.ownership) as writer:
        writer.mend_attributes(image.entries[0])
