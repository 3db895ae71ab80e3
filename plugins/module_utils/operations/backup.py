# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Back up one layer: look, plan, and take the snapshot if there is anything to take.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
import typing as t

from ..errors import SourceChanged
from ..format.manifest import FULL, INCREMENT, Manifest
from ..format.repository import MANIFEST, Listed
from ..format.streams import Stream
from ..format.tree import DIRECTORY, FILE, Entry, Skipped
from ..services.git import GitRepository
from . import fences, ledger, snapshots
from .contents import Change
from .logs import plan_logs
from .session import Session
from .snapshot import Plan, Taken, next_number, take
from .trees import differences, fingerprint, scan_layer

PRIVATE = ".guardops"  # a directory in the snapshot, not on disk
BUNDLE = f"{PRIVATE}/config.bundle"
_TRIES = 3


@dataclasses.dataclass
class Options:
    """What a backup may be told."""

    path: str
    type: str = "auto"
    part_size: int = 256 << 20
    git_remote: str = ""
    git_branch: str = "main"
    git_ssh_key_file: str = ""
    archive_ledger: str = ""  # of the logs: a file that says which records are archived


@dataclasses.dataclass
class Outcome:
    """What a backup did, or in check mode would do."""

    changed: bool = False
    snapshot: str = ""
    type: str = ""
    reason: str = ""
    files: int = 0
    bytes: int = 0
    parts: int = 0
    stored_bytes: int = 0
    reused_parts: int = 0
    seconds: float = 0.0
    # Not called skipped: Ansible would take the task for one that was skipped.
    left_out: list[dict[str, str]] = dataclasses.field(default_factory=list)
    unfinished: list[dict[str, t.Any]] = dataclasses.field(default_factory=list)
    commit: str = ""
    pushed: bool = False
    not_checked: list[str] = dataclasses.field(default_factory=list)
    diff: str = ""


Work = t.Callable[[Session, Options, list[Listed]], Outcome]  # one for each layer


def backup(session: Session, options: Options) -> Outcome:
    """One snapshot of ``session.layer``, or none when nothing changed."""
    started = time.monotonic()
    work: Work = {"model": _backup_model, "config": _backup_config, "logs": _backup_logs}[session.layer]
    with contextlib.nullcontext() if session.dry else session.alone():
        listed = fences.begin(session)
        tries = 1 if session.dry or session.layer == "model" else _TRIES
        outcome = _again_if_it_changed(session, options, listed, work, tries)
    outcome.seconds = round(time.monotonic() - started, 3)
    return outcome


def _again_if_it_changed(
    session: Session, options: Options, listed: list[Listed], work: Work, tries: int
) -> Outcome:  # fmt: skip
    """Small layers are simply read again when somebody wrote meanwhile; weights are not: that takes minutes."""
    for _attempt in range(tries - 1):
        try:
            return work(session, options, listed)
        except SourceChanged:
            time.sleep(0.2)
            listed = fences.begin(session)  # what the last try stored may be gone again
    return work(session, options, listed)


def _backup_model(session: Session, options: Options, listed: list[Listed]) -> Outcome:
    entries, skipped = scan_layer(options.path, "model")
    reason, changes = _why(session, options, entries, listed, lambda _layer: True)
    if not reason:
        return _unchanged(listed)
    plan = Plan(options.path, entries, skipped)
    state = {"fingerprint": fingerprint(entries)}
    return _take(session, options, plan, listed, reason, changes, lambda manifest: _tree_state(manifest, state))


def _backup_config(session: Session, options: Options, listed: list[Listed]) -> Outcome:
    git = GitRepository(options.path)
    entries, skipped = scan_layer(options.path, "config", exclude=(".git", PRIVATE))
    before = git.changes() if git.exists() else None
    dirty = before is None or any(change.status != "!!" for change in before)
    diff = git.diff() if dirty else ""
    commit = ""
    if dirty and not session.dry:
        git.ensure()
        commit = git.commit("Configuration changed") or ""
        # Committing makes .git, and nothing else: but what was committed is what was there just now.
        entries, skipped = scan_layer(options.path, "config", exclude=(".git", PRIVATE))
    if os.path.lexists(os.path.join(options.path, PRIVATE)):
        skipped.append(Skipped(PRIVATE, "a name that this collection uses for itself"))
    head = git.head() or ""
    left_out = [f"not in Git: {path} ({why})" for path, why in git.left_out()]
    reason, changes = _why(session, options, entries, listed, lambda layer: layer.get("git", {}).get("head") == head)
    if dirty and session.dry:
        reason = reason or "uncommitted changes"
    if not reason:
        outcome = _unchanged(listed)
    else:
        with session.scratch("bundle") as scratch:
            plan = Plan(options.path, entries, skipped)
            if not session.dry:
                _add_bundle(git, plan, scratch)
            state = {"fingerprint": fingerprint(entries), "head": head}
            outcome = _take(session, options, plan, listed, reason, changes, lambda made: _tree_state(made, state))
    if options.git_remote and not session.dry:
        # After the snapshot: a Git server that is down must not keep the configuration out of the repository.
        git.push(options.git_remote, options.git_branch, options.git_ssh_key_file or None)
        outcome.pushed = True
    outcome.commit = commit
    outcome.changed = outcome.changed or bool(commit)
    outcome.diff = diff + outcome.diff
    outcome.not_checked += left_out
    return outcome


def _add_bundle(git: GitRepository, plan: Plan, scratch: str) -> None:
    path = os.path.join(scratch, "config.bundle")
    made = git.bundle(path)
    status = os.stat(path)
    plan.entries.append(Entry(PRIVATE, DIRECTORY, mode=0o700, uid=status.st_uid, gid=status.st_gid))
    plan.entries.append(
        Entry(BUNDLE, FILE, mode=0o600, uid=status.st_uid, gid=status.st_gid, size=status.st_size,
              mtime_ns=status.st_mtime_ns, source=path)
    )  # fmt: skip
    plan.layer["git"] = {"head": made.head, "branch": made.branch or "", "bundle": BUNDLE}


def _why(
    session: Session, options: Options, entries: list[Entry], listed: list[Listed],
    same_layer: t.Callable[[dict[str, t.Any]], bool],
) -> tuple[str, list[Change]]:  # fmt: skip
    """Why a snapshot of a whole tree is due (empty: it is not), and what changed."""
    newest = next((item for item in reversed(listed) if item.believed), None)
    if newest is None:
        return "first snapshot", []
    if options.type == FULL:
        return "a full was asked for", []
    state = session.load_state("state")
    known = state.get("snapshot") == newest.snapshot and state.get("objects") == newest.objects
    if known and state.get("fingerprint") == fingerprint(entries) and same_layer({"git": state}):
        return "", []
    opened = snapshots.usable_index(session, newest)
    if isinstance(opened, snapshots.Unreadable):
        session.warn(opened.warning)
        return opened.reason, []
    manifest, index = opened.manifest, opened.index
    indexed = [entry for entry in index.entries if entry.path.split("/")[0] != PRIVATE]
    session.progress.begin("comparing", sum(entry.size for entry in entries))
    changes = differences(options.path, entries, indexed, session.workers)
    if changes or not same_layer(index.layer):
        return "content changed" if changes else "history changed", changes
    if not session.dry:
        session.save_state(
            "state",
            {
                "snapshot": manifest.snapshot,
                "objects": newest.objects,
                "fingerprint": fingerprint(entries),
                **index.layer.get("git", {}),
            },
        )
    return "", []


def _unchanged(listed: list[Listed]) -> Outcome:
    newest = next(item for item in reversed(listed) if item.believed)
    return Outcome(snapshot=newest.snapshot, reason="nothing changed since this snapshot")


def _take(
    session: Session, options: Options, plan: Plan, listed: list[Listed], reason: str, changes: list[Change],
    state_after: t.Callable[[Manifest], dict[str, t.Any]],
) -> Outcome:  # fmt: skip
    outcome = Outcome(changed=True, type=plan.type, reason=reason)
    outcome.left_out = [{"path": item.path, "reason": item.reason} for item in plan.skipped]
    outcome.diff = "".join(f"{change}\n" for change in changes)
    outcome.files = sum(1 for entry in plan.entries if entry.type == FILE)
    outcome.bytes = plan.content_bytes
    if session.dry:
        return outcome
    taken = take(session, plan, next_number(listed), options.part_size)
    _tell(outcome, taken)
    session.save_state("state", state_after(taken.manifest))
    return outcome


def _tree_state(manifest: Manifest, state: dict[str, t.Any]) -> dict[str, t.Any]:
    return {"snapshot": manifest.snapshot, "objects": _objects(manifest), **state}


def _objects(manifest: Manifest) -> dict[str, int]:
    """What the store lists of the snapshot from now on."""
    sizes = {part.name: part.size for part in [*manifest.parts, manifest.index]}
    return {**sizes, MANIFEST: len(manifest.to_bytes())}


def _tell(outcome: Outcome, taken: Taken) -> None:
    outcome.snapshot = taken.manifest.snapshot
    outcome.bytes = taken.manifest.content_bytes
    outcome.parts = len(taken.manifest.parts)
    outcome.stored_bytes = taken.uploaded
    outcome.reused_parts = taken.reused
    outcome.not_checked.append(
        "the content of the stored parts: their sizes were read back, not their bytes; verify does"
    )


def _backup_logs(session: Session, options: Options, listed: list[Listed]) -> Outcome:
    known, chain, why_full = _known_streams(session, listed)
    before = next((item.snapshot for item in reversed(listed) if item.believed), "")
    taken: list[Manifest] = []
    kind, reason = FULL, why_full or "a full was asked for"
    if options.type != FULL and not why_full:
        kind, reason = INCREMENT, "new lines"
    with session.scratch("unpacked") as scratch:
        session.progress.begin("looking for new lines")
        planned = plan_logs(options.path, known, list(chain), kind, scratch)
        if kind == INCREMENT and planned.forked:
            kind, reason = FULL, f"{planned.forked[0]} begins like a log that was saved, and goes on otherwise"
            planned = plan_logs(options.path, (), (), kind, scratch)
        if kind == INCREMENT and not planned.new_bytes:
            outcome = _unchanged(listed)
            planned.plan.finish()
            if not session.dry and not _same_streams(planned.streams, known):
                session.save_state("state", _logs_state(chain, planned.streams))
        else:
            stands_on = chain if kind == INCREMENT else {}

            def state_after(manifest: Manifest) -> dict[str, t.Any]:
                taken.append(manifest)
                return _logs_state({**stands_on, manifest.snapshot: _objects(manifest)}, planned.streams)

            outcome = _take(session, options, planned.plan, listed, reason, [], state_after)
    if options.archive_ledger and not session.dry:
        ranges = ledger.ranges_of(planned.plan.layer.get("records", []))
        ledger.update(session, options.archive_ledger, before, taken[0] if taken else None, ranges)
    outcome.unfinished = [{"path": path, "bytes": count} for path, count in planned.unfinished]
    outcome.diff += "".join(
        f"{e.path}: {e.window[1] - e.window[0] if e.window else e.size} bytes\n"
        for e in planned.plan.entries
        if e.type == FILE and not e.listed_only and outcome.changed
    )
    return outcome


def _same_streams(some: t.Iterable[Stream], others: t.Iterable[Stream]) -> bool:
    return {stream.number: stream for stream in some} == {stream.number: stream for stream in others}


def _logs_state(chain: dict[str, dict[str, int]], streams: t.Iterable[Stream]) -> dict[str, t.Any]:
    """What the next increment stands on, so that it need not read the newest index."""
    return {"chain": chain, "snapshot": list(chain)[-1], "streams": [stream.to_json() for stream in streams]}


def _known_streams(session: Session, listed: list[Listed]) -> tuple[list[Stream], dict[str, dict[str, int]], str]:
    """(streams after the newest snapshot, its chain with the objects of each, why only a full can come next)."""
    complete = {item.snapshot: item.objects for item in listed if item.believed}
    if not complete:
        return [], {}, "first snapshot"
    newest = list(complete)[-1]
    state = session.load_state("state")
    if state.get("snapshot") == newest and state.get("chain", {}).get(newest) == complete[newest]:
        chain, raw = state["chain"], state["streams"]
    else:
        opened = snapshots.usable_index(session, next(item for item in listed if item.snapshot == newest))
        if isinstance(opened, snapshots.Unreadable):
            session.warn(opened.warning)
            return [], {}, opened.reason
        raw = opened.index.layer["streams"]
        ids = [newest] if opened.manifest.type == FULL else _chain_of(session, opened.manifest)
        chain = {snapshot: complete.get(snapshot, {}) for snapshot in ids}
    if any(not objects or complete.get(snapshot) != objects for snapshot, objects in chain.items()):
        return [], {}, "the chain of increments is broken"
    return [Stream.from_json(item) for item in raw], chain, ""


def _chain_of(session: Session, manifest: Manifest) -> list[str]:
    """The ids from the full to this increment, by what their manifests say."""
    manifests = session.repository.manifests("logs")
    chain = [manifest.snapshot]
    while chain[0] != manifest.base:
        parent = manifests.get(chain[0])
        if not isinstance(parent, Manifest) or not parent.parent:
            return ["broken"]
        chain.insert(0, parent.parent)
    return chain
