# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a directory tree holds: one entry for each name, with all that must survive a restore.

Private to the collection: use the modules, not this file.

Names are text with surrogate escapes, relative to the root of the tree, as `os.fsdecode` gives
them; the root itself is ``.``. Nothing here follows a symbolic link.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import errno
import functools
import grp
import os
import pwd
import stat
import typing as t

from ..errors import GuardError, SourceChanged
from ..services.acl import ACL_ACCESS, ACL_DEFAULT, decode_acl, encode_acl, read_xattrs

FILE, DIRECTORY, SYMLINK, HARDLINK = "file", "directory", "symlink", "hardlink"


# Set by the system for its own ends; restoring them is neither possible nor wanted.
FOREIGN_XATTRS = ("security.selinux", "security.ima", "security.evm", "system.nfs4_acl")


class Extent(t.NamedTuple):
    """A run of a file's content that lies in one piece in the tar stream."""

    offset: int  # in the file, bytes
    length: int
    position: int  # in the tar stream, bytes
    sha256: str  # of the plain content


@dataclasses.dataclass
class Entry:
    """One name in a tree."""

    path: str
    type: str
    mode: int = 0
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    size: int = 0
    target: str = ""  # of a symbolic link; of a hard link: the first name, relative to the root
    owner: str = ""
    group: str = ""
    xattrs: dict[str, bytes] = dataclasses.field(default_factory=dict)
    data: list[tuple[int, int]] | None = None  # (offset, length) of what is not a hole, if sparse
    extents: list[Extent] = dataclasses.field(default_factory=list)
    extra: dict[str, t.Any] = dataclasses.field(default_factory=dict)  # what a layer adds (log streams)
    window: tuple[int, int] | None = None  # (start, end): only this much of the content is in the stream
    listed_only: bool = False  # in the index, with nothing in the stream
    source: str = ""  # read the content from this file instead (a Git bundle, an unpacked log)
    identity: tuple[int, ...] = ()  # device, inode, size, mtime_ns, ctime_ns when it was looked at

    def ranges(self) -> list[tuple[int, int]]:
        """(offset, length) of the content that goes into the tar stream."""
        if self.listed_only:
            return []
        if self.window is not None:
            return [(self.window[0], self.window[1] - self.window[0])]
        return [(0, self.size)] if self.data is None else self.data

    def to_json(self) -> dict[str, t.Any]:
        """The form the index keeps. Empty things are left out."""
        out: dict[str, t.Any] = {"path": self.path, "type": self.type}
        if self.type != HARDLINK:
            out.update(mode=f"{self.mode:04o}", uid=self.uid, gid=self.gid, mtime_ns=self.mtime_ns)
        if self.type == FILE:
            out.update(size=self.size, extents=[list(e) for e in self.extents])
        for name in ("target", "owner", "group"):
            if getattr(self, name):
                out[name] = getattr(self, name)
        for name, key in ((ACL_ACCESS, "acl"), (ACL_DEFAULT, "default_acl")):
            if name in self.xattrs:
                out[key] = decode_acl(self.xattrs[name])
        plain = {n: base64.b64encode(v).decode() for n, v in self.xattrs.items() if n not in (ACL_ACCESS, ACL_DEFAULT)}
        if plain:
            out["xattrs"] = plain
        if self.extra:
            out["extra"] = self.extra
        return out

    @classmethod
    def from_json(cls, raw: dict[str, t.Any]) -> Entry:
        """The reverse of `to_json`. `index` checks what the entries say together."""
        xattrs = {name: base64.b64decode(value) for name, value in raw.get("xattrs", {}).items()}
        for key, name in (("acl", ACL_ACCESS), ("default_acl", ACL_DEFAULT)):
            if key in raw:
                xattrs[name] = encode_acl(raw[key])
        return cls(
            path=checked_name(raw["path"]),
            type=raw["type"],
            mode=int(raw.get("mode", "0"), 8),
            uid=raw.get("uid", 0),
            gid=raw.get("gid", 0),
            mtime_ns=raw.get("mtime_ns", 0),
            size=raw.get("size", 0),
            target=raw.get("target", ""),
            owner=raw.get("owner", ""),
            group=raw.get("group", ""),
            xattrs=xattrs,
            extents=[Extent(*e) for e in raw.get("extents", [])],
            extra=raw.get("extra", {}),
        )


class Skipped(t.NamedTuple):
    """A name that is not backed up, and why."""

    path: str
    reason: str


def checked_name(path: str) -> str:
    """A name that stays inside the root, or an error: names from outside are hostile."""
    parts = path.split("/")
    if path != "." and (not path or "\0" in path or any(p in ("", ".", "..") for p in parts)):
        raise GuardError(repr(path), "a relative name inside the snapshot's root", "one that leaves it")
    return path


def scan(root: str, exclude: t.Container[str] = ()) -> tuple[list[Entry], list[Skipped]]:
    """All entries below ``root``, the root first, then in byte order of the names; and what was skipped.

    ``exclude`` names children of the root to leave out with all below. Raises `GuardError` where
    the root is no directory, `SourceChanged` where something vanished twice while it was read.
    """
    entries: list[Entry] = []
    skipped: list[Skipped] = []
    first_names: dict[tuple[int, ...], str] = {}
    with Tree(root) as tree:
        root_device = os.fstat(tree.fd).st_dev
        entries.append(_entry(".", os.fstat(tree.fd), _attributes(f"/proc/self/fd/{tree.fd}", True)))
        waiting = ["."]
        while waiting:
            directory = waiting.pop()
            try:
                found, below = _scan_directory(tree, directory, exclude if directory == "." else (), skipped)
            except FileNotFoundError as error:
                where = os.path.join(root, directory)
                raise SourceChanged(where, "the directory that was listed", error.strerror or str(error)) from error
            except OSError as error:
                where = os.path.join(root, directory)
                raise GuardError(where, "a tree that can be read", error.strerror or str(error)) from error
            for entry in found:
                if entry.type == DIRECTORY and entry.identity[0] != root_device:
                    skipped.append(Skipped(entry.path, "another file system is mounted here"))
                if entry.type == FILE and entry.extra.pop("links", 1) > 1:
                    first = first_names.setdefault(entry.identity[:2], entry.path)
                    if first != entry.path:
                        entry = dataclasses.replace(entry, type=HARDLINK, target=first, size=0, data=None)
                entries.append(entry)
            waiting.extend(path for path, device in reversed(below) if device == root_device)
    return entries, skipped


def _scan_directory(
    tree: Tree, directory: str, exclude: t.Container[str], skipped: list[Skipped]
) -> tuple[list[Entry], list[tuple[str, int]]]:
    found: list[Entry] = []
    below: list[tuple[str, int]] = []
    prefix = "" if directory == "." else f"{directory}/"
    fd = tree.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with os.scandir(fd) as items:
            names = sorted((item.name for item in items), key=os.fsencode)
        for name in names:
            if name in exclude:
                continue
            path = prefix + name
            try:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                kind = stat.S_IFMT(status.st_mode)
                if kind not in _TYPES:
                    skipped.append(Skipped(path, _SPECIAL.get(kind, "unknown type")))
                    continue
                entry = _entry(path, status, _attributes(f"/proc/self/fd/{fd}/{name}", False))
                if kind == stat.S_IFLNK:
                    entry.target = os.readlink(name, dir_fd=fd)
                elif kind == stat.S_IFREG and status.st_size > status.st_blocks * 512:
                    entry.data = _data_map(fd, name, status.st_size)
            except FileNotFoundError:
                continue  # it vanished between listing and looking: it is not in the tree
            if kind == stat.S_IFDIR:
                below.append((path, status.st_dev))
            found.append(entry)
    finally:
        os.close(fd)
    return found, below


_TYPES = {stat.S_IFREG: FILE, stat.S_IFDIR: DIRECTORY, stat.S_IFLNK: SYMLINK}
_SPECIAL = {
    stat.S_IFIFO: "named pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


def _entry(path: str, status: os.stat_result, xattrs: dict[str, bytes]) -> Entry:
    kind = _TYPES[stat.S_IFMT(status.st_mode)]
    entry = Entry(
        path=path,
        type=kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime_ns=status.st_mtime_ns,
        size=status.st_size if kind == FILE else 0,
        owner=_user_name(status.st_uid),
        group=_group_name(status.st_gid),
        xattrs=xattrs,
        identity=identity(status),
    )
    if kind == FILE and status.st_nlink > 1:
        entry.extra["links"] = status.st_nlink
    return entry


def identity(status: os.stat_result) -> tuple[int, int, int, int, int]:
    """What is the same only while nobody wrote to the file."""
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _attributes(path: str, follow_symlinks: bool) -> dict[str, bytes]:
    found = read_xattrs(path, follow_symlinks=follow_symlinks)
    return {name: value for name, value in found.items() if name not in FOREIGN_XATTRS}


def _data_map(directory_fd: int, name: str, size: int) -> list[tuple[int, int]]:
    """Where a sparse file holds data. A file system that cannot tell says: everywhere."""
    ranges = []
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory_fd)
    try:
        end = 0
        while end < size:
            try:
                start = os.lseek(fd, end, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # only a hole is left
                    break
                return [(0, size)]
            end = os.lseek(fd, start, os.SEEK_HOLE)
            ranges.append((start, min(end, size) - start))
    finally:
        os.close(fd)
    return ranges


@functools.lru_cache(maxsize=4096)
def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


@functools.lru_cache(maxsize=4096)
def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return ""


class Tree:
    """An open root, below which names are opened without ever following a symbolic link."""

    def __init__(self, root: str):
        self.root = root
        try:
            self.fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise GuardError(root, "a directory that can be read", error.strerror or str(error)) from error

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_exc: object) -> None:
        os.close(self.fd)

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        """A descriptor for ``path``; every component is opened with O_NOFOLLOW."""
        flags |= os.O_NOFOLLOW | os.O_CLOEXEC
        if path == ".":
            return os.open(".", flags, dir_fd=self.fd)
        with self.parent(path) as (parent, name):
            return os.open(name, flags, mode, dir_fd=parent)

    def open_file(self, entry: Entry) -> int:
        """The very file that was scanned, for reading; `SourceChanged` where another has its place."""
        if entry.source:
            return os.open(entry.source, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fd = self.open(entry.path, os.O_RDONLY | os.O_NONBLOCK)
        except PermissionError as error:
            raise GuardError(
                os.path.join(self.root, entry.path), "a file that can be read", error.strerror or str(error),
                "Run as root (become), or as a user who may read the whole layer.",
            ) from error  # fmt: skip
        except OSError as error:
            raise SourceChanged(
                os.path.join(self.root, entry.path), "the file that was listed", error.strerror or str(error)
            ) from error
        if identity(os.fstat(fd))[:2] != entry.identity[:2]:
            os.close(fd)
            raise SourceChanged(
                os.path.join(self.root, entry.path), "the file that was listed", "another file of that name"
            )
        return fd

    @contextlib.contextmanager
    def parent(self, path: str) -> t.Iterator[tuple[int, str]]:
        """(descriptor of the directory that holds ``path``, last component of ``path``)."""
        *directories, name = path.split("/")
        fd = self.fd
        try:
            for component in directories:
                inner = os.open(component, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
                if fd != self.fd:
                    os.close(fd)
                fd = inner
            yield fd, name
        finally:
            if fd != self.fd:
                os.close(fd)
