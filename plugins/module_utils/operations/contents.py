# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compare a tree on disk with what an index says of it, down to the content.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import os
import typing as t

from ..format.tree import FILE, HARDLINK, SYMLINK, Entry, Extent, Tree
from ..services.acl import decode_acl

MISSING, EXTRA, TYPE, CONTENT, METADATA = "missing", "extra", "type", "content", "metadata"

_BUFFER = 1 << 20


@dataclasses.dataclass
class Change:
    """One name at which disk and index differ."""

    path: str
    kind: str
    indexed: Entry | None = None
    on_disk: Entry | None = None
    same: list[Extent] = dataclasses.field(default_factory=list)  # content: what need not be fetched
    attributes: dict[str, tuple[str, str]] = dataclasses.field(default_factory=dict)  # name: (on disk, indexed)

    def __str__(self) -> str:
        told = "".join(f" {name} {old or '-'} -> {new or '-'}" for name, (old, new) in sorted(self.attributes.items()))
        return f"{self.path}: {self.kind}{told}"


def compare(
    tree: Tree, on_disk: t.Sequence[Entry], indexed: t.Sequence[Entry], workers: int = 2,
    advance: t.Callable[[int], object] = int,
) -> list[Change]:  # fmt: skip
    """All differences, in the order of the index, then what only the disk has."""
    disk = {entry.path: entry for entry in on_disk}
    wanted = {entry.path for entry in indexed}
    with concurrent.futures.ThreadPoolExecutor(max_workers=workers) as pool:
        futures = [pool.submit(_compare_one, tree, disk.get(e.path), e, advance) for e in indexed]
        changes = [change for future in futures if (change := future.result()) is not None]
    changes.extend(Change(e.path, EXTRA, on_disk=e) for e in on_disk if e.path not in wanted)
    return changes


def _compare_one(tree: Tree, disk: Entry | None, indexed: Entry, advance: t.Callable[[int], object]) -> Change | None:
    if disk is None:
        return Change(indexed.path, MISSING, indexed=indexed)
    if disk.type != indexed.type:
        return Change(indexed.path, TYPE, indexed, disk, attributes={"type": (disk.type, indexed.type)})
    if disk.type in (SYMLINK, HARDLINK) and disk.target != indexed.target:
        return Change(indexed.path, CONTENT, indexed, disk, attributes={"target": (disk.target, indexed.target)})
    attributes = {} if disk.type == HARDLINK else differing_attributes(disk, indexed)
    if disk.type == FILE:
        same = same_extents(tree, disk, indexed, advance)
        if len(same) != len(indexed.extents) or disk.size != indexed.size:
            attributes["size"] = (str(disk.size), str(indexed.size))
            return Change(indexed.path, CONTENT, indexed, disk, same, attributes)
    return Change(indexed.path, METADATA, indexed, disk, attributes=attributes) if attributes else None


def differing_attributes(disk: Entry, indexed: Entry) -> dict[str, tuple[str, str]]:
    """Name -> (on disk, in the index) for what a restore would have to mend, content aside."""
    found = {}
    pairs: list[tuple[str, t.Any, t.Any]] = [
        ("uid", disk.uid, indexed.uid),
        ("gid", disk.gid, indexed.gid),
        ("mtime_ns", disk.mtime_ns, indexed.mtime_ns),
    ]
    if disk.type != SYMLINK:  # Linux gives all links the same mode
        pairs.append(("mode", f"{disk.mode:04o}", f"{indexed.mode:04o}"))
    for name in {*disk.xattrs, *indexed.xattrs}:
        pairs.append((name, _shown(name, disk.xattrs.get(name)), _shown(name, indexed.xattrs.get(name))))
    for name, old, new in pairs:
        if old != new:
            found[name] = (str(old), str(new))
    return found


def _shown(name: str, value: bytes | None) -> str:
    if value is None:
        return ""
    return decode_acl(value) if name.startswith("system.posix_acl_") else value.hex()


def same_extents(tree: Tree, disk: Entry, indexed: Entry, advance: t.Callable[[int], object] = int) -> list[Extent]:
    """The extents of ``indexed`` whose very bytes the file on disk holds at the same place."""
    same = []
    fd = tree.open_file(disk)
    try:
        for extent in indexed.extents:
            if extent.offset + extent.length <= disk.size and hash_range(fd, extent, advance) == extent.sha256:
                same.append(extent)
        if _has_data_outside(fd, indexed):
            return []  # what should be a hole holds data: rewrite the file
    finally:
        os.close(fd)
    return same


def hash_range(fd: int, extent: Extent, advance: t.Callable[[int], object] = int) -> str:
    """SHA-256 of a range of a file; of what there is of it where the file is shorter."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(min(_BUFFER, max(extent.length, 1))))
    position, end = extent.offset, extent.offset + extent.length
    while position < end:
        count = os.preadv(fd, [buffer[: end - position]], position)
        if not count:
            break
        digest.update(buffer[:count])
        advance(count)
        position += count
    return digest.hexdigest()


def _has_data_outside(fd: int, indexed: Entry) -> bool:
    """Whether a byte that no extent covers (a hole in the backup) is not zero on disk."""
    position = 0
    for extent in [*sorted(indexed.extents), Extent(indexed.size, 0, 0, "")]:
        while position < extent.offset:
            data = os.pread(fd, min(_BUFFER, extent.offset - position), position)
            if not data:
                break
            if data.count(0) != len(data):
                return True
            position += len(data)
        position = max(position, extent.offset + extent.length)
    return False
