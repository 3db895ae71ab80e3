# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From a chain of snapshots to the tree that a restore makes: every entry, and where its bytes are.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ..format.manifest import StoredPart
from ..format.streams import free_name
from ..format.tree import DIRECTORY, FILE, Entry, Extent
from .snapshots import Opened


class Piece(t.NamedTuple):
    """An extent, and the snapshot whose parts hold it."""

    opened: Opened
    extent: Extent


@dataclasses.dataclass
class Image:
    """The tree as it was at the last snapshot of the chain."""

    entries: list[Entry]
    pieces: dict[str, list[Piece]]  # by path

    @property
    def bytes(self) -> int:
        """Bytes of content."""
        return sum(piece.extent.length for pieces in self.pieces.values() for piece in pieces)


def image_of(chain: t.Sequence[Opened]) -> Image:
    """Merge a full and its increments; a single snapshot is a chain of one."""
    if len(chain) == 1:
        entries = chain[0].index.entries
        return Image(entries, {e.path: [Piece(chain[0], x) for x in e.extents] for e in entries if e.type == FILE})
    content: dict[int, list[Piece]] = {}
    last_seen: dict[int, Entry] = {}
    directories: dict[str, Entry] = {}
    for opened in chain:
        for entry in opened.index.entries:
            if entry.type == DIRECTORY:
                directories[entry.path] = entry
            if "stream" in entry.extra:
                number = entry.extra["stream"]
                content[number] = _continued(content.get(number, []), [Piece(opened, x) for x in entry.extents])
                last_seen[number] = entry
    # What a full saved of a last line without its end may be another line by now: whole lines only.
    for raw in chain[-1].index.layer["streams"]:
        pieces = content.get(raw["number"], [])
        content[raw["number"]] = [piece for piece in pieces if piece.extent.offset < raw["offset"]]
    entries = [dataclasses.replace(entry) for entry in chain[-1].index.entries]
    for item in chain[-1].index.layer["gone"]:
        if content.get(item["stream"]) and item["stream"] in last_seen:
            # Rotated away since: its records are still ours to give back, under a name that is free.
            _bring_back(entries, last_seen[item["stream"]], directories)
    found = {}
    for entry in entries:
        if entry.type == FILE:
            found[entry.path] = content.get(entry.extra.get("stream", 0), [Piece(chain[-1], x) for x in entry.extents])
            entry.extents = [piece.extent for piece in found[entry.path]]
            entry.size = max((x.offset + x.length for x in entry.extents), default=0)
    return Image(entries, found)


def _bring_back(entries: list[Entry], gone: Entry, directories: dict[str, Entry]) -> None:
    """Add a file that is no longer there, and the directories that it was in."""
    types = {entry.path: entry.type for entry in entries}
    path = gone.path
    parents = [path[:end] for end in range(len(path)) if path[end] == "/"]
    if any(types.get(parent, DIRECTORY) != DIRECTORY for parent in parents):
        path, parents = path.replace("/", "_"), []  # a file has the directory's name now
    entries.extend(dataclasses.replace(directories[parent]) for parent in parents if parent not in types)
    entries.append(dataclasses.replace(gone, path=free_name(path, types, gone.extra["stream"])))


def _continued(before: list[Piece], new: list[Piece]) -> list[Piece]:
    """A half line at the end of a full is written again, whole, by the increment after it."""
    if not new:
        return before
    start = min(piece.extent.offset for piece in new)
    return [piece for piece in before if piece.extent.offset < start] + new


def part_holding(opened: Opened, extent: Extent) -> StoredPart:
    """The part in which an extent lies; extents never span two."""
    parts = opened.manifest.parts
    low, high = 0, len(parts) - 1
    while low < high:
        middle = (low + high + 1) // 2
        if parts[middle].start <= extent.position:
            low = middle
        else:
            high = middle - 1
    return parts[low]
