# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which snapshots and live logs can hold the records of a window, by what they say of themselves.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import typing as t

from ..errors import GuardError, IntegrityError, SourceChanged
from ..format.chain import ChainChecker
from ..format.chain_findings import Report
from ..format.compressed import Unfinished, plain_reader, read_some
from ..format.manifest import FULL, Manifest
from ..format.records import Run, Scanned, scan_block
from ..format.repository import Listed
from ..format.tree import FILE, Entry, Tree, scan
from . import snapshots
from .export_sources import UNREADABLE, Holding, Intervals, LiveFile
from .session import Session, in_parallel
from .snapshots import Opened, Unreadable

_CHUNK = 1 << 20
_SLACK_NS = 86_400 * 10**9  # a file last written to a day before the window holds none of it, whatever the clock did
_RUN_FIELDS = [field.name for field in dataclasses.fields(Run)]


@dataclasses.dataclass(frozen=True)
class Window:
    """Half open; both as records have them."""

    start: str
    end: str

    def has(self, time: str) -> bool:
        """Whether this time lies in it."""
        return self.start <= time < self.end

    def touches(self, since: str, until: str) -> bool:
        """Whether records between these times can lie in it."""
        return since < self.end and until >= self.start


@dataclasses.dataclass
class Archive:
    """What the snapshots say."""

    manifests: dict[str, Manifest] = dataclasses.field(default_factory=dict)  # all complete and sound ones
    opened: dict[str, Opened] = dataclasses.field(default_factory=dict)
    holdings: dict[str, list[Holding]] = dataclasses.field(default_factory=dict)  # by chain
    claims: dict[str, Intervals] = dataclasses.field(default_factory=dict)  # numbers that are archived, by chain
    problems: list[str] = dataclasses.field(default_factory=list)  # damage, in words
    not_known: list[str] = dataclasses.field(default_factory=list)  # what nothing can be said of

    def ranges(self, chain: str) -> t.Iterator[tuple[Manifest, dict[str, t.Any]]]:
        """What each manifest says of a chain."""
        for manifest in self.manifests.values():
            for told in manifest.records["chains"] if manifest.records else []:
                if told["chain"] == chain:
                    yield manifest, told


def find_archived(session: Session, window: Window) -> Archive:
    """Open the snapshots whose records can lie in the window."""
    archive = Archive()
    listed = {item.snapshot: item for item in session.repository.listed(session.layer) if item.complete}
    for snapshot, manifest in session.repository.manifests(session.layer).items():
        if isinstance(manifest, IntegrityError):
            archive.problems.append(str(manifest))
        elif snapshot in listed:
            archive.manifests[snapshot] = manifest
            if manifest.records is None:
                archive.not_known.append(
                    f"the records in snapshot {snapshot}: the release that made it kept no account of them"
                )
            elif manifest.records["not_scanned"]:
                names = ", ".join(manifest.records["not_scanned"][:5])
                archive.not_known.append(f"the records in these files of snapshot {snapshot}: {names}")
    for snapshot in sorted(set(listed) - set(archive.manifests)):
        if not any(f"/{snapshot}/" in problem for problem in archive.problems):
            archive.problems.append(f"{session.repository.where(session.layer, snapshot)}: its manifest cannot be read")
    wanted = [listed[m.snapshot] for m in archive.manifests.values() if _can_hold(m, window)]
    _open(session, archive, wanted)
    while True:  # numbers between those of the window, in snapshots whose clock was off
        more = [listed[m.snapshot] for m in archive.manifests.values() if _fills_hole(archive, m, window)]
        if not more:
            return archive
        _open(session, archive, more)


def _can_hold(manifest: Manifest, window: Window) -> bool:
    told = manifest.records or {"chains": [], "hours": {}, "unchained": 0}
    if any(window.touches(chain["since"], chain["until"]) for chain in told["chains"]):
        return True
    hours = [hour for hour in told["hours"] if not hour or window.start[:13] <= hour <= window.end[:13]]
    return bool(told["unchained"] and hours)


def _fills_hole(archive: Archive, manifest: Manifest, window: Window) -> bool:
    """Whether a snapshot that was not opened has numbers that are missing between the first and last of the window."""
    if manifest.snapshot in archive.opened or manifest.records is None:
        return False
    for told in manifest.records["chains"]:
        span = span_of(archive.holdings.get(told["chain"], []), window)
        if span is None:
            continue
        for low, high in archive.claims[told["chain"]].holes(*span):
            if told["first"] <= high and low <= told["last"]:
                return True
    return False


def span_of(holdings: t.Iterable[Holding], window: Window) -> tuple[int, int] | None:
    """The lowest and the highest number of runs that touch the window."""
    found = [h.run for h in holdings if window.touches(h.run.since, h.run.until)]
    return (min(run.first for run in found), max(run.last for run in found)) if found else None


def _open(session: Session, archive: Archive, wanted: list[Listed]) -> None:
    """Read the indexes, several at once, and note what is where."""
    traffic = session.traffic(b"")

    def work(item: Listed) -> Opened | Unreadable:
        try:
            manifest = archive.manifests[item.snapshot]
            keys = session.require_keys()
            passphrase = keys.unwrap(manifest.key, session.data_key_context(manifest.snapshot))
            return Opened(manifest, passphrase, snapshots.read_index(session, manifest, passphrase))
        except UNREADABLE as error:
            return Unreadable(str(error))

    for item, answer in in_parallel(wanted, session.workers, traffic, work):
        if isinstance(answer, Unreadable):
            archive.problems.append(answer.reason)
            _claim_unread(archive, archive.manifests.pop(item.snapshot))
        else:
            archive.opened[item.snapshot] = answer
    for snapshot in sorted(item.snapshot for item in wanted if item.snapshot in archive.opened):
        _note(session, archive, archive.opened[snapshot])


def _claim_unread(archive: Archive, manifest: Manifest) -> None:
    """Its parts cannot be found without its index; what it held must come from elsewhere, or is lost."""
    for told in (manifest.records or {"chains": []})["chains"]:
        run = Run(
            told["chain"], 0, 0, told["count"], told["first"], told["last"], told["prev"], told["head"],
            told["since"], told["until"],
        )  # fmt: skip
        # Only an increment's span is narrow enough to say that all of it is missed.
        if manifest.type != FULL and told["count"] == told["last"] - told["first"] + 1:
            name = f"snapshot {manifest.snapshot}"
            archive.holdings.setdefault(told["chain"], []).append(Holding(run, name, failed="its index cannot be read"))
            archive.claims.setdefault(told["chain"], Intervals()).add(told["first"], told["last"])


def _note(session: Session, archive: Archive, opened: Opened) -> None:
    where = session.repository.where(session.layer, opened.manifest.snapshot, opened.manifest.index.name)
    try:
        for raw in opened.index.layer.get("records", []):
            run = Run(**{name: raw[name] for name in _RUN_FIELDS})
            archive.holdings.setdefault(run.chain, []).append(Holding(run, raw["path"], opened, bool(raw["packed"])))
            if run.chain:
                archive.claims.setdefault(run.chain, Intervals()).add(run.first, run.last)
    except (KeyError, TypeError) as error:
        raise IntegrityError(where, "runs of records with all their fields", repr(error)) from error


@dataclasses.dataclass
class Live:
    """What the live logs hold. Their files stay open until `close`."""

    holdings: dict[str, list[Holding]] = dataclasses.field(default_factory=dict)
    covers: dict[str, Intervals] = dataclasses.field(default_factory=dict)
    report: Report = dataclasses.field(default_factory=Report)
    not_read: list[str] = dataclasses.field(default_factory=list)
    files: list[LiveFile] = dataclasses.field(default_factory=list)

    def close(self) -> None:
        """Give the files back."""
        for file in self.files:
            os.close(file.fd)
        self.files.clear()


@contextlib.contextmanager
def find_live(session: Session, root: str, window: Window, archive: Archive, scratch: str) -> t.Iterator[Live]:
    """Read all live logs that can hold records of the window, and check every line of them on the way."""
    live = Live()
    try:
        checker = ChainChecker(scratch)
        if root:
            _scan_live(session, root, window, live, checker)
        for chain in live.covers:
            for manifest, told in archive.ranges(chain):
                checker.anchor(chain, told["last"], told["head"], f"snapshot {manifest.snapshot}")
        for manifest in archive.manifests.values():
            for told in manifest.records["chains"] if manifest.records else []:
                checker.know(told["chain"], told["last"])
        live.report = checker.finish()
        yield live
    finally:
        live.close()


def _scan_live(session: Session, root: str, window: Window, live: Live, checker: ChainChecker) -> None:
    earliest = _nanoseconds(window.start) - _SLACK_NS
    seen = set()
    for _attempt in range(3):
        moved = []
        with Tree(root) as tree:
            for entry in scan(root)[0]:
                if entry.type != FILE or entry.mtime_ns < earliest or entry.identity[:2] in seen:
                    continue
                try:
                    _read_live(session, tree, entry, window, live, checker)
                    seen.add(entry.identity[:2])
                except SourceChanged:  # it was rotated between listing and opening
                    moved.append(entry.path)
                except (GuardError, OSError) as error:
                    live.not_read.append(f"live log {entry.path}: {error}")
                    seen.add(entry.identity[:2])
        if not moved:
            return
    live.not_read.extend(f"live log {path}: it was renamed again and again" for path in moved)


def _read_live(session: Session, tree: Tree, entry: Entry, window: Window, live: Live, checker: ChainChecker) -> None:
    file = LiveFile(entry.path, tree.open_file(entry))
    live.files.append(file)
    kept = False
    found, offset, rest = Scanned(), 0, b""
    with plain_reader(tree, dataclasses.replace(entry, source=f"/proc/self/fd/{file.fd}")) as reader:
        try:
            while data := read_some(reader, _CHUNK):
                session.progress.advance(len(data))
                end = data.rfind(b"\n") + 1
                block, rest = (rest + data[:end], data[end:]) if end else (b"", rest + data)
                if block:
                    scan_block(block, offset, found)
                    for line in block.split(b"\n")[:-1]:
                        checker.feed(line + b"\n", f"live log {entry.path}")
                    offset += len(block)
        except Unfinished:
            live.not_read.append(f"live log {entry.path}: compressed, and without an end")
    if rest:
        checker.feed(rest, f"live log {entry.path}")
    for run in found.runs:
        if run.chain:
            live.covers.setdefault(run.chain, Intervals()).add(run.first, run.last)
        if run.chain or window.touches(run.since, run.until):
            live.holdings.setdefault(run.chain, []).append(Holding(run, entry.path, live=file))
            kept = True
    if not kept:
        live.files.remove(file)
        os.close(file.fd)


def _nanoseconds(time: str) -> int:
    return int(datetime.datetime.fromisoformat(time.replace("Z", "+00:00")).timestamp()) * 10**9
