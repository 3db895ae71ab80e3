# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Verify a snapshot: how much of it is proven to come back, and what was not looked at.

Private to the collection: use the modules, not this file.

The levels stand on one another: ``listed`` (all objects are there, in their sizes), ``stored`` (and
hold the bytes that were sent), ``decrypted`` (and open with the key and hold the content that the
index names), ``restored`` (and make the tree again, in an empty directory), ``loaded`` (and what is
restored works: the model's tensors and tokenizer, the history's commits, every record of the logs).
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import os
import random
import socket
import time
import typing as t

from ..errors import GuardError, IntegrityError
from ..format.manifest import FULL, Manifest, StoredPart
from ..format.repository import Listed
from ..format.tree import Extent
from ..format.verdict import LEVELS
from ..system.files import make_private_directory, scratch_directory
from . import loaded, snapshots, verify_tables
from . import restore as restores
from .part_io import fetch_digest, fetch_plain, with_retries
from .session import Session, in_parallel
from .snapshots import Opened


@dataclasses.dataclass
class Options:
    """What a verification may be told."""

    level: str
    snapshot: str = snapshots.LATEST
    sample_bytes: int = 0  # 0: everything
    work_directory: str = ""
    ownership: bool = True
    canaries: list[dict[str, t.Any]] = dataclasses.field(default_factory=list)
    python: str = ""  # an interpreter that has transformers
    keep_verdict: bool = True


@dataclasses.dataclass
class Verdict:
    """What was found. ``ok`` is true only when everything that was looked at is right."""

    snapshot: str
    level: str
    ok: bool = True
    failures: list[str] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)
    not_checked: list[str] = dataclasses.field(default_factory=list)
    parts: int = 0
    of_parts: int = 0
    bytes: int = 0
    files: int = 0
    details: dict[str, t.Any] = dataclasses.field(default_factory=dict)
    sample_bytes: int = 0  # what was asked for, where something was left out for it; 0: everything was looked at
    created: str = ""
    verified: str = ""
    host: str = ""
    seconds: float = 0.0


def verify(session: Session, options: Options) -> Verdict:
    """Verify one snapshot, with all that it stands on, and keep the verdict beside it."""
    started = time.monotonic()
    session.progress.begin("listing")
    listed = snapshots.choose(session, options.snapshot)
    verdict = Verdict(listed.snapshot, options.level, host=socket.gethostname())
    if options.sample_bytes and options.level == "loaded":
        raise GuardError("option sample", "no sample at level loaded", "one", "What is loaded must be whole.")
    try:
        _verify(session, options, listed, verdict)
    except IntegrityError as error:
        verdict.failures.append(str(error))
    verdict.ok = not verdict.failures
    verdict.not_checked += [*_above(options.level), "the tar headers, which only a restore by hand reads"]
    verdict.seconds = round(time.monotonic() - started, 3)
    verdict.verified = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    if options.keep_verdict and not session.dry:
        session.repository.add_verdict(session.layer, listed.snapshot, options.level, dataclasses.asdict(verdict))
    return verdict


def _above(level: str) -> list[str]:
    told = {
        "stored": "the stored bytes (level stored)",
        "decrypted": "the key and the content (level decrypted)",
        "restored": "a real restore (level restored)",
        "loaded": "whether what comes back works (level loaded)",
    }
    return [told[name] for name in LEVELS[LEVELS.index(level) + 1 :]]


def _verify(session: Session, options: Options, listed: Listed, verdict: Verdict) -> None:
    if options.level in ("listed", "stored"):
        _without_key(session, options, listed, verdict)
        return
    chain = snapshots.chain(session, listed)
    verdict.created = chain[-1].manifest.created
    verdict.details["chain"] = [opened.manifest.snapshot for opened in chain]
    if options.level == "decrypted":
        verify_tables.decrypted(session, chain, verdict.failures)
        _decrypted(session, options, chain, verdict)
        return
    verify_tables.listed(session, [opened.manifest for opened in chain], verdict.failures)
    with _scratch(session, options) as directory:
        target = os.path.join(directory, "restored")
        restored = _restored(session, options, listed, target, verdict)
        if restored and options.level == "loaded":
            elsewhere = _older_chains(session, chain[0].manifest)
            found = loaded.check(session.layer, target, chain, options.canaries, options.python, elsewhere)
            verdict.failures += found.failures
            verdict.warnings += found.warnings
            verdict.not_checked += found.not_checked
            verdict.details[session.layer] = found.details


# -- without a key


def _without_key(session: Session, options: Options, listed: Listed, verdict: Verdict) -> None:
    manifests = _manifests_of_chain(session, listed, verdict)
    verdict.created = manifests[-1].created
    repository = session.repository
    parts = [(repository.name(m.layer, m.snapshot, part.name), part) for m in manifests for part in m.objects]
    parts += verify_tables.listed(session, manifests, verdict.failures)
    verdict.of_parts = len(parts)
    if options.level == "listed":
        verdict.parts, verdict.bytes = len(parts), 0
        return
    chosen = _sample(parts, options.sample_bytes, lambda item: item[1].size, verdict)
    session.progress.begin("reading stored parts", sum(part.size for _name, part in chosen))
    traffic = session.traffic(b"")

    def work(item: tuple[str, StoredPart]) -> str:
        name, part = item

        def read() -> None:
            size, digest = fetch_digest(traffic, name)
            if (size, digest) != (part.size, part.sha256):
                where = session.repository.store.full_name(name)
                expected = f"{part.size} bytes with SHA-256 {part.sha256}"
                raise IntegrityError(where, expected, f"{size} bytes with {digest}")

        try:
            with_retries(session.attempts, traffic.cancelled.wait, read)
        except IntegrityError as error:
            return str(error)
        return ""

    for (_name, part), failure in in_parallel(chosen, session.workers, traffic, work):
        verdict.parts += 1
        verdict.bytes += part.size
        if failure:
            verdict.failures.append(failure)


def _manifests_of_chain(session: Session, listed: Listed, verdict: Verdict) -> list[Manifest]:
    """The manifests from the full to this snapshot, each held against what the store lists."""
    by_id = {item.snapshot: item for item in session.repository.listed(session.layer)}
    manifests: list[Manifest] = []
    item: Listed | None = listed
    while item is not None:
        manifest = snapshots.read_manifest(session, item)
        manifests.insert(0, manifest)
        if manifest.type == FULL:
            break
        item = by_id.get(manifest.parent)
        if item is None:
            where = session.repository.where(session.layer, manifest.parent)
            raise IntegrityError(where, f"the snapshot that {manifest.snapshot} stands on", "none")
    verdict.details["chain"] = [manifest.snapshot for manifest in manifests]
    return manifests


Item = t.TypeVar("Item")


def _sample(items: list[Item], budget: int, size: t.Callable[[Item], int], verdict: Verdict) -> list[Item]:
    """All, or a random choice that fits the budget (at least one): over the days all have their turn."""
    if not budget or sum(map(size, items)) <= budget:
        return items
    chosen: list[Item] = []
    left = budget
    for item in random.SystemRandom().sample(items, len(items)):
        if not chosen or size(item) <= left:
            chosen.append(item)
            left -= size(item)
    verdict.sample_bytes = budget
    verdict.not_checked.append(
        f"{len(items) - len(chosen)} of {len(items)} parts: a sample of {budget} bytes was asked for"
    )
    return chosen


# -- with the key


def _decrypted(session: Session, options: Options, chain: list[Opened], verdict: Verdict) -> None:
    items = [(opened, part) for opened in chain for part in opened.manifest.parts]
    verdict.of_parts = len(items)
    chosen = _sample(items, options.sample_bytes, lambda item: item[1].size, verdict)
    session.progress.begin("decrypting parts", sum(part.length for _opened, part in chosen))
    extents = {opened.manifest.snapshot: _extents_by_position(opened) for opened in chain}
    first = session.traffic(b"")

    def work(item: tuple[Opened, StoredPart]) -> list[str]:
        opened, part = item
        traffic = dataclasses.replace(first, passphrase=opened.passphrase)
        name = session.repository.name(session.layer, opened.manifest.snapshot, part.name)
        inside = [
            x for x in extents[opened.manifest.snapshot] if part.start <= x[0].position < part.start + part.length
        ]

        def read() -> list[str]:
            hasher = _ExtentHasher(part.start, inside)
            fetch_plain(traffic, part, name, hasher.take)
            return hasher.wrong

        try:
            wrong = with_retries(session.attempts, traffic.cancelled.wait, read)
        except IntegrityError as error:
            return [str(error)]
        return [
            f"{session.repository.store.full_name(name)}: the content of {path!r} is not the one that was saved"
            for path in wrong
        ]

    for (_opened, part), failures in in_parallel(chosen, session.workers, first, work):
        verdict.parts += 1
        verdict.bytes += part.size
        verdict.failures += failures


def _extents_by_position(opened: Opened) -> list[tuple[Extent, str]]:
    found = [(x, entry.path) for entry in opened.index.entries for x in entry.extents]
    return sorted(found, key=lambda item: item[0].position)


class _ExtentHasher:
    """Hashes the extents in a part's plain stream as they pass."""

    def __init__(self, start: int, extents: list[tuple[Extent, str]]):
        self.position = start
        self.wrong: list[str] = []
        self._waiting = iter(extents)
        self._current = next(self._waiting, None)
        self._digest = hashlib.sha256()

    def take(self, data: memoryview) -> None:
        """The next bytes of the stream."""
        start, self.position = self.position, self.position + len(data)
        while self._current is not None:
            extent, path = self._current
            end = extent.position + extent.length
            low, high = max(start, extent.position), min(self.position, end)
            if low < high:
                self._digest.update(data[low - start : high - start])
            if self.position < end:
                return
            if self._digest.hexdigest() != extent.sha256:
                self.wrong.append(path)
            self._current, self._digest = next(self._waiting, None), hashlib.sha256()


def _older_chains(session: Session, full: Manifest) -> dict[str, int]:
    """The highest number of each chain of records in snapshots before ``full``: those need not be in this one."""
    found: dict[str, int] = {}
    for manifest in session.repository.manifests(session.layer).values() if session.layer == "logs" else ():
        if isinstance(manifest, Manifest) and manifest.records and manifest.number < full.number:
            for item in manifest.records["chains"]:
                found[item["chain"]] = max(item["last"], found.get(item["chain"], 0))
    return found


def _scratch(session: Session, options: Options) -> t.ContextManager[str]:
    """An empty directory that is gone afterwards."""
    parent = make_private_directory(options.work_directory or os.path.join(session.state_directory, "verify"))
    return scratch_directory(parent, f"{session.repository.instance}-{session.layer}-")


def _restored(session: Session, options: Options, listed: Listed, target: str, verdict: Verdict) -> bool:
    wanted = restores.Options(target, listed.snapshot, ownership=options.ownership, sample_bytes=options.sample_bytes)
    try:
        outcome = restores.restore(dataclasses.replace(session, dry=False), wanted)
    except IntegrityError as error:
        verdict.failures.append(str(error))
        verdict.sample_bytes = options.sample_bytes
        return False
    verdict.sample_bytes = options.sample_bytes if outcome.files_left_out else 0
    verdict.files, verdict.bytes = outcome.files, outcome.fetched_bytes
    verdict.parts = verdict.of_parts = outcome.fetched_parts
    verdict.not_checked += outcome.not_checked
    return True
