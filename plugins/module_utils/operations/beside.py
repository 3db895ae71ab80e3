# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restore logs into a directory that a service writes to: what is there stays, and history comes beside it.

Private to the collection: use the modules, not this file.

After a recovery the service answers before its history is back, so the active log's name is taken when the log of
that name comes back. That one gets a name of its own, which the gateway, backups and traces take for a rotated log.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import typing as t

from ..errors import GuardError
from ..format.tree import DIRECTORY, FILE, HARDLINK, SYMLINK, Entry, Tree
from .contents import same_extents
from .image import Image

_PACKED = re.compile(r"\A(.*?)(\.(?:gz|xz|bz2|zst))?\Z", re.DOTALL)  # what is compressed is known by its suffix


@dataclasses.dataclass
class Beside:
    """What became of names that are taken."""

    kept: list[str] = dataclasses.field(default_factory=list)  # hold all that the snapshot has of them, and maybe more
    renamed: dict[str, str] = dataclasses.field(default_factory=dict)  # in the snapshot -> in the directory
    names_left_out: list[str] = dataclasses.field(default_factory=list)  # further names of files that came beside


def make_way(root: str, image: Image, on_disk: list[Entry], number: int) -> Beside:
    """Take out of the image what the directory holds already, and give a free name to what would replace a file.

    ``number`` is the snapshot's. The same again finds its own files, so that a second restore changes nothing.
    """
    if not on_disk:
        return Beside()
    with Tree(root) as tree:
        return _MakeWay(tree, image, on_disk, number).run()


class _MakeWay:
    """One run of `make_way`."""

    def __init__(self, tree: Tree, image: Image, on_disk: list[Entry], number: int):
        self.tree, self.image, self.number = tree, image, number
        self.disk = {entry.path: entry for entry in on_disk}
        self.wanted = {entry.path: entry for entry in image.entries}
        self.found = Beside()

    def run(self) -> Beside:
        entries = []
        for entry in self.image.entries:
            placed = self._further_name(entry) if entry.type == HARDLINK else self._placed(entry)
            if placed is not None:
                entries.append(placed)
        self.image.entries = entries
        return self.found

    def _placed(self, entry: Entry) -> Entry | None:
        """The entry under the name that it gets; None where nothing is to be done."""
        there = self.disk.get(entry.path)
        if there is None:
            return entry
        if entry.type == DIRECTORY:
            if there.type != DIRECTORY:
                where = f"{self.tree.root}/{entry.path}"
                raise GuardError(where, "a directory, or nothing", f"a {there.type}", "Move it away.")
            return entry
        if self._holds(there, entry):
            self._keep(entry, entry.path)
            return None
        for name in _names(entry.path, self.number):
            there = self.disk.get(name)
            if there is not None and self._holds(there, entry):
                self.found.renamed[entry.path] = name
                self._keep(entry, name)
                return None
            if there is None and name not in self.wanted:
                self.found.renamed[entry.path] = name
                if entry.path in self.image.pieces:
                    self.image.pieces[name] = self.image.pieces.pop(entry.path)
                return dataclasses.replace(entry, path=name)
        raise AssertionError("names never end")

    def _keep(self, entry: Entry, name: str) -> None:
        self.found.kept.append(name)
        self.image.pieces.pop(entry.path, None)

    def _further_name(self, entry: Entry) -> Entry | None:
        """A hard link whose file and whose own name are as in the snapshot. Others add nothing but a name."""
        first = entry.target
        if entry.path in self.disk or first in self.found.renamed or first in self.found.kept:
            self.found.names_left_out.append(entry.path)
            return None
        return entry

    def _holds(self, there: Entry, entry: Entry) -> bool:
        """Whether a name on disk has all that the snapshot has: a log that has grown since does."""
        if there.type == HARDLINK:
            there = dataclasses.replace(self.disk[there.target], path=there.path)
        if entry.type == SYMLINK:
            return there.type == SYMLINK and there.target == entry.target
        if there.type != FILE or there.size < entry.size:
            return False
        return len(same_extents(self.tree, there, entry)) == len(entry.extents)


def _names(path: str, number: int) -> t.Iterator[str]:
    """audit.log-restored-000012, audit.log-restored-000012-2, …; of NAME.gz NAME-restored-000012.gz."""
    match = _PACKED.match(path)
    stem, suffix = (match.group(1), match.group(2) or "") if match else (path, "")
    for count in itertools.count(1):
        again = f"-{count}" if count > 1 else ""
        yield f"{stem}-restored-{number:06d}{again}{suffix}"
