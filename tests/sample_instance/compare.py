# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compare two trees in everything a restore has to bring back. It shares no code with the collection.

By hand: ``python tests/sample_instance/compare.py EXPECTED ACTUAL``.
"""

from __future__ import annotations

import argparse
import errno
import fnmatch
import hashlib
import os
import stat
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING or __package__:
    from .permissions import ACCESS_ACL, DEFAULT_ACL, acl_text
else:  # started as a script: find the package that this file is in
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from sample_instance.permissions import ACCESS_ACL, DEFAULT_ACL, acl_text

_READ_SIZE = 1 << 20
_HOLE_SLACK = 64 << 10
# Labels follow from the policy and the path; no backup is expected to carry them to another place.
_NOT_COMPARED_XATTRS = ("security.selinux",)
_SHOWN_VALUE = 60
_TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symbolic link",
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}
# In the order of the report.
ASPECTS = (
    "size", "content", "target", "device", "mode", "uid", "gid", "mtime_ns", "xattrs", "hard_links", "holes",
)  # fmt: skip


@dataclass
class Entry:
    """One name of a tree. Fields that a type does not have keep their empty value."""

    type: str
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    xattrs: dict[str, bytes]
    size: int = 0
    content: str = ""  # SHA-256
    data_bytes: int = 0  # without the holes
    target: str = ""
    device: int = 0
    hard_links: tuple[str, ...] = ()


@dataclass
class TreeState:
    """A tree at one moment, with a hash in place of each file's bytes: it outlives the tree."""

    root: Path
    entries: dict[str, Entry] = field(default_factory=dict)


class Summary(NamedTuple):
    files: int
    bytes: int


def snapshot_tree(root: Path) -> TreeState:
    """Read a whole tree, the root itself (``.``) included."""
    state = TreeState(Path(root))
    names: dict[tuple[int, int], list[str]] = {}
    digests: dict[tuple[int, int], tuple[str, int]] = {}
    for name, path, status in _walk(Path(root)):
        inode = (status.st_dev, status.st_ino)
        entry = Entry(
            type=_TYPES[stat.S_IFMT(status.st_mode)],
            mode=stat.S_IMODE(status.st_mode),
            uid=status.st_uid,
            gid=status.st_gid,
            mtime_ns=status.st_mtime_ns,
            xattrs=_xattrs(path),
        )
        if stat.S_ISREG(status.st_mode):
            if inode not in digests:
                digests[inode] = (_digest(path), _data_bytes(path, status.st_size))
            entry.size = status.st_size
            entry.content, entry.data_bytes = digests[inode]
        elif stat.S_ISLNK(status.st_mode):
            entry.target = os.readlink(path)
        elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
            entry.device = status.st_rdev
        if not stat.S_ISDIR(status.st_mode):
            names.setdefault(inode, []).append(name)
        state.entries[name] = entry
    for group in names.values():
        for name in group:
            state.entries[name].hard_links = tuple(sorted(group))
    return state


def tree_summary(root: Path) -> Summary:
    """How many files, and how many bytes they have; hard links count once, links and directories not at all."""
    sizes = {
        (status.st_dev, status.st_ino): status.st_size
        for _name, _path, status in _walk(Path(root))
        if stat.S_ISREG(status.st_mode)
    }
    return Summary(len(sizes), sum(sizes.values()))


def compare_trees(
    expected: Path | TreeState,
    actual: Path | TreeState,
    ignore: Collection[str] = (),
    aspects: Collection[str] = ASPECTS,
) -> list[str]:
    """Every difference, a line each; an empty list is equality.

    ``ignore``: glob patterns of names relative to the root, as in ``logs/audit.log*`` or ``.`` for the root
    itself. ``aspects``: what is compared, beside names and types.
    """
    unknown = set(aspects) - set(ASPECTS)
    if unknown:
        raise ValueError(f"aspects: expected some of {', '.join(ASPECTS)}, found {', '.join(sorted(unknown))}")
    before = expected if isinstance(expected, TreeState) else snapshot_tree(expected)
    after = actual if isinstance(actual, TreeState) else snapshot_tree(actual)
    differences = []
    for name in sorted(before.entries.keys() | after.entries.keys()):
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in ignore):
            continue
        shown = _printable(name)
        old, new = before.entries.get(name), after.entries.get(name)
        if new is None:
            differences.append(f"{shown}: missing")
        elif old is None:
            differences.append(f"{shown}: not expected ({new.type})")
        elif old.type != new.type:
            differences.append(f"{shown}: type: expected {old.type}, found {new.type}")
        else:
            differences += [f"{shown}: {text}" for text in _entry_differences(old, new, aspects)]
    return differences


def _entry_differences(old: Entry, new: Entry, aspects: Collection[str]) -> Iterator[str]:
    for aspect in (aspect for aspect in ASPECTS if aspect in aspects):
        if aspect == "xattrs":
            yield from _xattr_differences(old.xattrs, new.xattrs)
        elif aspect == "holes":
            # Only a sparse file can lose its holes; some blocks more are the file system's business.
            if old.data_bytes < old.size and new.data_bytes > old.data_bytes + max(_HOLE_SLACK, old.data_bytes // 10):
                yield f"holes: expected {old.data_bytes} bytes of data, found {new.data_bytes}"
        elif getattr(old, aspect) != getattr(new, aspect):
            was, found = _shown(aspect, getattr(old, aspect)), _shown(aspect, getattr(new, aspect))
            yield f"{aspect}: expected {was}, found {found}"


def _xattr_differences(old: dict[str, bytes], new: dict[str, bytes]) -> Iterator[str]:
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            yield f"{name}: expected {_shown_xattr(name, old)}, found {_shown_xattr(name, new)}"


def _shown_xattr(name: str, xattrs: dict[str, bytes]) -> str:
    if name not in xattrs:
        return "none"
    value = xattrs[name]
    if name in (ACCESS_ACL, DEFAULT_ACL):
        return acl_text(value)
    text = repr(value)
    return text if len(text) <= _SHOWN_VALUE else f"{text[:_SHOWN_VALUE]}… ({len(value)} bytes)"


def _shown(aspect: str, value: Any) -> str:
    if aspect == "mode":
        return f"{value:04o}"
    if aspect == "hard_links":
        return " = ".join(_printable(name) for name in value)
    return _printable(str(value))


def _printable(name: str) -> str:
    """Chinese as it is; newlines and bytes that are no UTF-8 escaped: a report has one line for each difference."""
    return name if name.isprintable() else ascii(name)


def _walk(root: Path) -> Iterator[tuple[str, str, os.stat_result]]:
    """Relative name, path and status of all in a tree. Names that are no UTF-8 come as Python's escapes."""
    yield ".", str(root), os.lstat(root)
    waiting = [""]
    while waiting:
        directory = waiting.pop()
        with os.scandir(os.path.join(root, directory)) as children:
            for child in children:
                name = os.path.join(directory, child.name)
                yield name, child.path, child.stat(follow_symlinks=False)
                if child.is_dir(follow_symlinks=False):
                    waiting.append(name)


def _xattrs(path: str) -> dict[str, bytes]:
    return {
        name: os.getxattr(path, name, follow_symlinks=False)
        for name in os.listxattr(path, follow_symlinks=False)
        if name not in _NOT_COMPARED_XATTRS
    }


def _digest(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as content:
        while block := content.read(_READ_SIZE):
            digest.update(block)
    return digest.hexdigest()


def _data_bytes(path: str, size: int) -> int:
    """Bytes outside holes. Where the file system knows no holes, all of them."""
    total, position = 0, 0
    descriptor = os.open(path, os.O_RDONLY)
    try:
        while position < size:
            try:
                start = os.lseek(descriptor, position, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # nothing but a hole until the end
                    break
                raise
            position = os.lseek(descriptor, start, os.SEEK_HOLE)
            total += position - start
    finally:
        os.close(descriptor)
    return total


def main() -> int:
    parser = argparse.ArgumentParser(description="Name every difference of two trees.")
    parser.add_argument("expected", type=Path)
    parser.add_argument("actual", type=Path)
    parser.add_argument("--ignore", action="append", default=[], metavar="GLOB")
    options = parser.parse_args()
    differences = compare_trees(options.expected, options.actual, options.ignore)
    print("\n".join(differences) or "equal")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
