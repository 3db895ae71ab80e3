# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Owner, mode, ACLs, file capabilities and extended attributes of a tree: read them, compare them.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import base64
import dataclasses
import errno
import fnmatch
import os
import re
import stat
import typing as t

from ..errors import GuardError
from ..format.attribute_snapshot import LONGEST_PATH, Extra, Snapshot
from ..format.getfacl import file_block, parse_block, render_text, symlink_block
from ..services.acl import ACL_ACCESS, ACL_DEFAULT, CAPABILITY, read_values
from ..system.forked import run_forked
from ..system.tree import Directories

# Below this a second process costs more than it saves.
_WORTH_A_PROCESS = 5_000
_SPLIT_FROM = 64
_LONGEST_NAME = 255
_NO_XATTRS: dict[str, bytes] = {}
_ONLY_ACCESS = [ACL_ACCESS]

ABSENT = "absent"
PRESENT = "present"
NEVER_READ = "inode flags (chattr) and labels of security modules (SELinux, Smack, IMA, EVM)"


class Difference(t.NamedTuple):
    """One attribute of one path. ``attribute`` is ``entry`` where the path itself came or went."""

    path: str
    attribute: str
    before: str | None
    after: str | None


@dataclasses.dataclass
class Selection:
    """What of a tree is left out: shell patterns for names or paths, and exact paths."""

    patterns: tuple[str, ...] = ()
    paths: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self._match = re.compile("|".join(map(fnmatch.translate, self.patterns))).match if self.patterns else None

    def leaves_out(self, path: str) -> bool:
        """Whether the path itself is left out (and with it all below)."""
        if path in self.paths:
            return True
        return self._match is not None and bool(self._match(path) or self._match(path.rpartition("/")[2]))

    def leaves_out_with_parents(self, path: str) -> bool:
        """Whether the path or a directory above it is left out."""
        return any(self.leaves_out(above) for above in _upwards(path))


@dataclasses.dataclass
class Capture:
    """A tree as it was found."""

    snapshot: Snapshot
    entries: int
    excluded: list[str]


@dataclasses.dataclass
class _Piece:
    """What one worker read: a text for each directory, in their order."""

    texts: list[bytes] = dataclasses.field(default_factory=list)
    extras: dict[str, Extra] = dataclasses.field(default_factory=dict)
    unread: dict[str, str] = dataclasses.field(default_factory=dict)
    entries: int = 0


def capture(root: str, selection: Selection | None = None, workers: int | None = None) -> Capture:
    """The attributes of the tree at ``root``, read by ``workers`` processes (as many as there are cores)."""
    listing, unread, excluded = _list(root, selection or Selection())
    if workers is None:
        total = sum(map(len, listing.values()))
        workers = max(1, min(len(os.sched_getaffinity(0)), total // _WORTH_A_PROCESS))
    count = workers
    # Always forked: a worker goes from directory to directory by fchdir, for Python reads xattrs only by path,
    # and a name in the working directory is the only path that is both short and safe.
    pieces = run_forked(lambda number: _read_piece(root, listing, number, count), count)
    snapshot = Snapshot(b"".join(text for texts in zip(*(piece.texts for piece in pieces)) for text in texts))
    snapshot.unread.update(unread)
    for piece in pieces:
        snapshot.extras.update(piece.extras)
        snapshot.unread.update(piece.unread)
    return Capture(snapshot, sum(piece.entries for piece in pieces), excluded)


def compare(before: Snapshot, after: Snapshot, selection: Selection | None = None) -> list[Difference]:
    """What changed, by path. What one of the two could not read, or is left out now, is not compared."""
    if before.text == after.text and before.extras == after.extras:
        return []
    old, new = before.blocks(), after.blocks()
    unread = {**before.unread, **after.unread}
    differences = []
    for path in sorted(old.keys() | new.keys(), key=os.fsencode):
        if old.get(path) == new.get(path) and before.xattrs(path) == after.xattrs(path):
            continue
        if _in_unread(path, unread) or (selection and selection.leaves_out_with_parents(path)):
            continue
        if path not in old:
            differences.append(Difference(path, "entry", ABSENT, PRESENT))
        elif path not in new:
            differences.append(Difference(path, "entry", PRESENT, ABSENT))
        else:
            differences += _compare_path(path, old[path], new[path], before.xattrs(path), after.xattrs(path))
    return differences


def not_checked(*snapshots: Snapshot) -> list[str]:
    """What a comparison of these snapshots says nothing about."""
    found = {f"{path}: {reason}" for snapshot in snapshots for path, reason in snapshot.unread.items()}
    if os.geteuid() != 0:
        found.add("extended attributes in the namespace trusted: only root sees them")
    return [NEVER_READ, *sorted(found, key=os.fsencode)]


def own_xattr(name: str) -> bool:
    """Whether an xattr belongs to the tree; security labels belong to the host's policy and cannot be moved."""
    return name == CAPABILITY or not name.startswith("security.")


def _list(root: str, selection: Selection) -> tuple[dict[str, list[str]], dict[str, str], list[str]]:
    """The sorted names in each directory (by its path, with a slash at the end), what could not be listed or was
    left out. Listed once, so that all workers divide the same list."""
    listing: dict[str, list[str]] = {}
    unread: dict[str, str] = {}
    excluded: list[str] = []
    filtered = bool(selection.patterns or selection.paths)
    waiting = [""]
    with Directories(root) as directories:
        while waiting:
            prefix = waiting.pop()
            try:
                fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directories.open(prefix[:-1]))
            except OSError as error:
                if not prefix:
                    raise GuardError(root, "a directory that can be read", error.strerror or str(error)) from error
                if error.errno != errno.ENOENT:
                    unread[prefix] = error.strerror or str(error)
                continue
            try:
                with os.scandir(fd) as entries:
                    found = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
            finally:
                os.close(fd)
            names = sorted(found)
            if filtered:
                gone = {name for name in names if selection.leaves_out(prefix + name)}
                excluded += [prefix + name for name in names if name in gone]
                names = [name for name in names if name not in gone]
            listing[prefix] = names if prefix else [".", *names]
            waiting += [f"{prefix}{name}/" for name in reversed(names) if found[name]]
    return listing, unread, excluded


def _read_piece(root: str, listing: dict[str, list[str]], number: int, count: int) -> _Piece:
    """One worker's share: a slice of each large directory, every so many small ones."""
    piece = _Piece()
    cache: dict[tuple[t.Any, ...], str] = {}
    with Directories(root) as directories:
        for position, (prefix, names) in enumerate(listing.items()):
            if len(names) >= _SPLIT_FROM:
                first, end = (len(names) * worker // count for worker in (number, number + 1))
                share = names[first:end]
            else:
                share = names if position % count == number else []
            text = b""
            if share:
                try:
                    os.fchdir(directories.open(prefix[:-1]))
                    text = _read_directory(prefix, share, piece, cache)
                except OSError as error:
                    if error.errno != errno.ENOENT:
                        piece.unread[prefix] = error.strerror or str(error)
            piece.texts.append(text)
    return piece


def _read_directory(prefix: str, names: list[str], piece: _Piece, cache: dict[tuple[t.Any, ...], str]) -> bytes:
    """The text of these entries of the working directory; what the text cannot say goes into ``piece``."""
    blocks: dict[str, str] = {}
    may_be_long = len(os.fsencode(prefix)) + _LONGEST_NAME > LONGEST_PATH
    for name in names:
        try:
            status = os.lstat(name)
            try:
                present = os.listxattr(name, follow_symlinks=False)
            except OSError as error:
                if error.errno != errno.EOPNOTSUPP:
                    raise
                present = []
            mode = status.st_mode
            if not present:  # most files by far: nothing is made for them that is not needed
                xattrs, access, default = _NO_XATTRS, None, None
            elif present == _ONLY_ACCESS:
                xattrs, access, default = _NO_XATTRS, read_values(name, present).get(ACL_ACCESS), None
            else:
                xattrs = read_values(name, [xattr for xattr in present if own_xattr(xattr)])
                access, default = xattrs.pop(ACL_ACCESS, None), xattrs.pop(ACL_DEFAULT, None)
            key = (mode, status.st_uid, status.st_gid, access, default)
            block = cache.get(key)
            if block is None:
                if stat.S_ISLNK(mode):
                    block = symlink_block(status.st_uid, status.st_gid)
                else:
                    block = file_block(mode, status.st_uid, status.st_gid, access, default)
                cache[key] = block
        except OSError as error:
            if error.errno != errno.ENOENT:  # gone since it was listed
                piece.unread[prefix + name] = error.strerror or str(error)
            continue
        except GuardError as error:  # an ACL with an id that this user namespace does not have
            piece.unread[prefix + name] = str(error)
            continue
        piece.entries += 1
        only_beside = stat.S_ISLNK(mode) or (may_be_long and len(os.fsencode(prefix + name)) > LONGEST_PATH)
        if only_beside or xattrs:
            piece.extras[prefix + name] = Extra(block if only_beside else "", xattrs)
        if not only_beside:
            blocks[name] = block
    return os.fsencode(render_text(prefix, blocks))


def _compare_path(
    path: str, before: str, after: str, before_xattrs: dict[str, bytes], after_xattrs: dict[str, bytes]
) -> list[Difference]:
    old, new = parse_block(before), parse_block(after)
    if old.symlink != new.symlink:
        kinds = {True: "symlink", False: "not a symlink"}
        return [Difference(path, "type", kinds[old.symlink], kinds[new.symlink])]
    pairs: list[tuple[str, str | None, str | None]] = [
        ("owner", str(old.owner), str(new.owner)),
        ("group", str(old.group), str(new.group)),
        ("mode", f"{old.mode:04o}", f"{new.mode:04o}"),
        ("acl", old.acl or None, new.acl or None),
        ("default_acl", old.default_acl or None, new.default_acl or None),
    ]
    for name in sorted(before_xattrs.keys() | after_xattrs.keys()):
        pairs.append((_attribute(name), _shown(before_xattrs.get(name)), _shown(after_xattrs.get(name))))
    return [Difference(path, *pair) for pair in pairs if pair[1] != pair[2]]


def _attribute(xattr: str) -> str:
    return "capability" if xattr == CAPABILITY else f"xattr {xattr}"


def _shown(value: bytes | None) -> str | None:
    """An xattr's value for people: as text where it is some."""
    if value is None:
        return None
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    if text.isprintable() and (text or not value) and not text.startswith("base64:"):
        return text
    return "base64:" + base64.b64encode(value).decode("ascii")


def _in_unread(path: str, unread: dict[str, str]) -> bool:
    """An unread directory stands there with a slash at its end: it was seen itself, but nothing below it."""
    return bool(unread) and (path in unread or any(f"{above}/" in unread for above in _upwards(path)))


def _upwards(path: str) -> t.Iterator[str]:
    while path:
        yield path
        path = path.rpartition("/")[0]
