# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a snapshot of the logs holds: everything, or what was written since the last one.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import typing as t

from ..errors import GuardError, SourceChanged
from ..format.compressed import PLAIN, plain_name
from ..format.manifest import FULL, INCREMENT
from ..format.streams import Located, Resolution, Stream, free_name, mark, resolve
from ..format.tree import DIRECTORY, FILE, HARDLINK, Entry, Skipped, Tree, scan
from .records import Log
from .snapshot import Plan, require_directory

_SCANS = 10
# What the gateway keeps in the directory for itself: no logs, and one of them is written anew at each health check.
_NO_LOGS = (".gateway.lock", ".gateway.probe")


@dataclasses.dataclass
class LogsPlan:
    """A plan, and what is known of the streams once it is carried out."""

    plan: Plan
    streams: list[Stream]
    copies: list[tuple[str, str]]
    unfinished: list[tuple[str, int]]  # (path, bytes after the last whole line; 0: being compressed)
    forked: list[str]  # files for whose sake an increment would not do: see `Resolution`

    @property
    def new_bytes(self) -> int:
        """Bytes of log that the plan would store."""
        return self.plan.content_bytes


def plan_logs(root: str, known: t.Sequence[Stream], chain: t.Sequence[str], kind: str, scratch: str) -> LogsPlan:
    """Plan a snapshot of the log directory.

    ``known`` are the streams after the last snapshot, ``chain`` its full and increments (the last
    one last), ``kind`` is full or increment.
    """
    require_directory(root, "logs")
    with Tree(root) as tree:
        entries, skipped = _stable_scan(root)
        files = [entry for entry in entries if entry.type == FILE]
        for entry in files:
            entry.data = None  # lines have no holes: zeros that a truncation left are kept as zeros
        if not files:
            raise GuardError(
                root, "at least one log file", "none", "Is its file system mounted, and does the service run?"
            )
        # A full stands alone: what was known before is none of its business.
        found = resolve(tree, files, known if kind == INCREMENT else (), scratch)
        marks = {item.stream.path: _mark(tree, item) for item in found.located}  # by the name on disk
    if kind == FULL:
        return _full(root, entries, skipped, found, marks)
    return _increment(root, entries, skipped, found, marks, chain)


def _stable_scan(root: str) -> tuple[list[Entry], list[Skipped]]:
    """A listing in which no file is missing or twice because it was renamed meanwhile:
    afterwards the same names stand for the same files."""
    for _attempt in range(_SCANS):
        entries, skipped = scan(root, exclude=_NO_LOGS)
        seen = {entry.path: entry.identity[1] for entry in entries if entry.type in (FILE, HARDLINK)}
        directories = [e.path for e in entries if e.type == DIRECTORY and e.identity[0] == entries[0].identity[0]]
        if _inodes(root, directories, seen) == seen:
            return entries, skipped
    raise SourceChanged(root, "file names that stay the same for a moment", f"{_SCANS} listings that all differ")


def _inodes(root: str, directories: list[str], seen: dict[str, int]) -> dict[str, int]:
    """The inode of each file by its name; where the directory tells what was ``seen``, no file is looked at."""
    found = {}
    for directory in directories:
        prefix = "" if directory == "." else f"{directory}/"
        with contextlib.suppress(FileNotFoundError), os.scandir(os.path.join(root, directory)) as items:
            for item in items:
                path = prefix + item.name
                if path not in _NO_LOGS and item.is_file(follow_symlinks=False):
                    # Some file systems number files otherwise in a directory than when asked (overlayfs, FUSE).
                    same = item.inode() == seen.get(path)
                    found[path] = item.inode() if same else item.stat(follow_symlinks=False).st_ino
    return found


def _mark(tree: Tree, item: Located) -> tuple[int, str]:
    """What the file will be recognised by the next time; not read again where nothing moved."""
    length = item.entry.size if item.stream.encoding != PLAIN else item.end
    if item.entry.identity == item.stream.identity and item.stream.mark[0] == length:
        return item.stream.mark
    return mark(tree, item.entry, length)


def _full(
    root: str, entries: list[Entry], skipped: list[Skipped], found: Resolution, marks: dict[str, tuple[int, str]]
) -> LogsPlan:
    """All files as they are, bytes after the last line end included; copies of others are not."""
    names = {entry.path for entry in entries}
    copies = {path for path, _original in found.copies}
    kept = _without(entries, copies | {path for path in found.unfinished if plain_name(path) in names - {path}})
    line_ends = {item.entry.path: item.end for item in found.located if item.stream.encoding == PLAIN}
    streams: list[Stream] = []
    layer: dict[str, t.Any] = {}

    def finish() -> None:
        _check_marks(root, found, marks)
        for item in found.located:
            segments = [(e.length, e.sha256) for e in item.entry.extents if e.offset + e.length <= item.end]
            streams.append(_saved(item, marks, segments))
        layer.update(streams=[stream.to_json() for stream in streams])

    for item in found.located:
        item.entry.extra["stream"] = item.stream.number
    plan = Plan(
        root, kept, _skipped(skipped, found), type=FULL, layer=layer, grows=True, finish=finish,
        cuts=lambda entry: [line_ends[entry.path]] if entry.path in line_ends else (),
        logs=_logs(found, {entry.path for entry in kept}),
    )  # fmt: skip
    return LogsPlan(plan, streams, found.copies, _unfinished(found), found.forked)


def _increment(
    root: str, entries: list[Entry], skipped: list[Skipped], found: Resolution, marks: dict[str, tuple[int, str]],
    chain: t.Sequence[str],
) -> LogsPlan:  # fmt: skip
    """New whole lines of each stream; everything else is only listed."""
    by_path = {item.entry.path: item for item in found.located}
    kept = _without(entries, {path for path, _original in found.copies} | set(found.unfinished))
    names = {entry.path for entry in entries}
    renamed = {}
    for entry in kept:
        before = entry.path
        item = by_path.get(before) if entry.type == FILE else None
        if item is not None:
            _prepare(entry, item, names)
            renamed[before] = entry.path
        elif entry.type != DIRECTORY:
            entry.listed_only = True
    for entry in kept:
        if entry.type == HARDLINK:
            entry.target = renamed.get(entry.target, entry.target)
    streams: list[Stream] = []
    layer: dict[str, t.Any] = {"gone": [{"stream": s.number, "path": s.path} for s in found.gone]}

    def finish() -> None:
        _check_marks(root, found, marks)
        for item in found.located:
            new = [(extent.length, extent.sha256) for extent in item.entry.extents]
            streams.append(_saved(item, marks, [*item.stream.segments, *new]))
        streams.extend(found.gone)
        layer.update(streams=[stream.to_json() for stream in streams])

    plan = Plan(
        root, kept, _skipped(skipped, found), type=INCREMENT, base=chain[0], parent=chain[-1], layer=layer,
        grows=True, finish=finish, logs=_logs(found, {entry.path for entry in kept}),
    )  # fmt: skip
    return LogsPlan(plan, streams, found.copies, _unfinished(found), found.forked)


def _logs(found: Resolution, kept: t.Collection[str]) -> list[Log]:
    """What the plan stores of logs, to find the records in it."""
    chosen = [item for item in found.located if item.entry.path in kept and not item.entry.listed_only]
    return [Log(item.entry, item.end, item.stream.raw, item.stream.raw and item.start > 0) for item in chosen]


def _without(entries: list[Entry], left_out: t.Collection[str]) -> list[Entry]:
    """The other entries; further names of a file go with it."""
    return [e for e in entries if e.path not in left_out and not (e.type == HARDLINK and e.target in left_out)]


def _skipped(skipped: list[Skipped], found: Resolution) -> list[Skipped]:
    return [*skipped, *(Skipped(path, f"a copy of {original}") for path, original in found.copies)]


def _unfinished(found: Resolution) -> list[tuple[str, int]]:
    torn = [(item.stream.path, item.torn) for item in found.located if item.torn]
    return torn + [(path, 0) for path in found.unfinished]


def _prepare(entry: Entry, item: Located, names: set[str]) -> None:
    """Let the entry stand for its new lines only, under the name that a restore gives it."""
    entry.extra["stream"] = item.stream.number
    if item.stream.encoding != PLAIN and not item.stream.raw:
        # It was saved as plain lines, so plain lines are what comes back, under a name that says so.
        entry.path = free_name(plain_name(entry.path), names, item.stream.number)
        names.add(entry.path)
        entry.source = item.unpacked
    entry.size = item.end
    entry.window = (item.start, item.end)
    entry.listed_only = item.start == item.end


def _check_marks(root: str, found: Resolution, marks: dict[str, tuple[int, str]]) -> None:
    """Refuse what was read of a file that was truncated, and written again, meanwhile."""
    with Tree(root) as tree:
        for item in found.located:
            if not item.entry.extents or item.entry.source:
                continue
            try:
                now = mark(tree, item.entry, marks[item.stream.path][0])
            except SourceChanged:
                continue  # renamed since, or removed; but it was there to be read
            if now != marks[item.stream.path]:
                where = os.path.join(root, item.entry.path)
                raise SourceChanged(where, "a log that only grows while it is read", "one that was truncated")


def _saved(item: Located, marks: dict[str, tuple[int, str]], segments: list[tuple[int, str]]) -> Stream:
    if item.entry.identity == item.stream.identity and item.start == item.end:
        return item.stream  # of 10,000 logs one is new
    return dataclasses.replace(
        item.stream, identity=item.entry.identity, offset=item.end, segments=segments, mark=marks[item.stream.path]
    )
