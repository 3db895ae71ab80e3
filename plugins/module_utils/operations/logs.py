# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a snapshot of the logs holds: everything, or what was written since the last one.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ..errors import GuardError, SourceChanged
from ..format.manifest import FULL, INCREMENT
from ..format.streams import PLAIN, Located, Resolution, Stream, mark, plain_name, resolve
from ..format.tree import FILE, Entry, Skipped, Tree, scan
from .snapshot import Plan, require_directory

_SCANS = 10


@dataclasses.dataclass
class LogsPlan:
    """A plan, and what is known of the streams once it is carried out."""

    plan: Plan
    streams: list[Stream]
    copies: list[tuple[str, str]]
    unfinished: list[tuple[str, int]]  # (path, bytes after the last whole line; 0: being compressed)

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
        found = resolve(tree, files, known, scratch)
        marks = {item.entry.path: _mark(tree, item) for item in found.located}
    if kind == FULL:
        return _full(root, entries, skipped, found, marks)
    return _increment(root, entries, skipped, found, marks, chain)


def _stable_scan(root: str) -> tuple[list[Entry], list[Skipped]]:
    """A listing in which no file is missing or twice because it was renamed meanwhile: two that agree."""
    before = scan(root)
    for _attempt in range(_SCANS):
        after = scan(root)
        if [(e.path, e.identity[:2]) for e in before[0]] == [(e.path, e.identity[:2]) for e in after[0]]:
            return after
        before = after
    raise SourceChanged(root, "file names that stay the same for a moment", f"{_SCANS} listings that all differ")


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
    left_out = {path for path, _original in found.copies}
    names = {entry.path for entry in entries}
    left_out.update(path for path in found.unfinished if plain_name(path) in names)
    kept = [entry for entry in entries if entry.path not in left_out]
    line_ends = {item.entry.path: item.end for item in found.located if item.stream.encoding == PLAIN}
    streams: list[Stream] = []
    layer: dict[str, t.Any] = {}

    def finish() -> None:
        for item in found.located:
            raw = item.stream.encoding != PLAIN
            until = item.entry.size if raw else item.end
            segments = [(e.length, e.sha256) for e in item.entry.extents if e.offset + e.length <= until]
            streams.append(_saved(item, marks, raw=raw, offset=until, segments=segments))
        layer.update(streams=[stream.to_json() for stream in streams])

    for item in found.located:
        item.entry.extra["stream"] = item.stream.number
    plan = Plan(
        root, kept, [*skipped, *(Skipped(path, f"a copy of {of}") for path, of in found.copies)],
        type=FULL, layer=layer, grows=True, finish=finish,
        cuts=lambda entry: [line_ends[entry.path]] if entry.path in line_ends else (),
    )  # fmt: skip
    unfinished = [(item.entry.path, item.torn) for item in found.located if item.torn]
    return LogsPlan(plan, streams, found.copies, unfinished + [(path, 0) for path in found.unfinished])


def _increment(
    root: str, entries: list[Entry], skipped: list[Skipped], found: Resolution, marks: dict[str, tuple[int, str]],
    chain: t.Sequence[str],
) -> LogsPlan:  # fmt: skip
    """New whole lines of each stream; everything else is only listed."""
    by_path = {item.entry.path: item for item in found.located}
    left_out = {path for path, _original in found.copies} | set(found.unfinished)
    names = {entry.path for entry in entries}
    kept = []
    for entry in entries:
        if entry.path in left_out:
            continue
        item = by_path.get(entry.path)
        if item is not None:
            _prepare(entry, item, names)
        elif entry.type != "directory":
            entry.listed_only = True
        kept.append(entry)
    streams: list[Stream] = []
    layer: dict[str, t.Any] = {"gone": [{"stream": s.number, "path": s.path} for s in found.gone]}

    def finish() -> None:
        for item in found.located:
            new = [(extent.length, extent.sha256) for extent in item.entry.extents]
            offset = item.entry.size if item.stream.raw else item.end
            streams.append(
                _saved(item, marks, raw=item.stream.raw, offset=offset, segments=[*item.stream.segments, *new])
            )
        streams.extend(found.gone)
        layer.update(streams=[stream.to_json() for stream in streams])

    plan = Plan(
        root, kept, [*skipped, *(Skipped(path, f"a copy of {of}") for path, of in found.copies)],
        type=INCREMENT, base=chain[0], parent=chain[-1], layer=layer, grows=True, finish=finish,
    )  # fmt: skip
    unfinished = [(item.entry.path, item.torn) for item in found.located if item.torn]
    return LogsPlan(plan, streams, found.copies, unfinished + [(path, 0) for path in found.unfinished])


def _prepare(entry: Entry, item: Located, names: set[str]) -> None:
    """Let the entry stand for its new lines only, under the name that a restore gives it."""
    entry.extra["stream"] = item.stream.number
    entry.data = None
    if item.stream.raw:
        # Compressed and never seen plain: kept as it is, once.
        if item.stream.segments:
            entry.listed_only = True
        return
    if item.stream.encoding != PLAIN:
        # It was saved as plain lines, so plain lines are what comes back.
        entry.extra["on_disk"] = entry.path
        if plain_name(entry.path) not in names:
            entry.path = plain_name(entry.path)
        entry.source = item.unpacked
    entry.size = item.end
    entry.window = (item.start, item.end)
    entry.listed_only = item.start == item.end


def _saved(
    item: Located, marks: dict[str, tuple[int, str]], raw: bool, offset: int, segments: list[tuple[int, str]]
) -> Stream:
    on_disk = item.entry.extra.get("on_disk", item.entry.path)
    return dataclasses.replace(
        item.stream, path=on_disk, identity=item.entry.identity, raw=raw, offset=offset, segments=segments,
        mark=marks[on_disk], present=True,
    )  # fmt: skip
