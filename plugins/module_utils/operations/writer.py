# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Put entries into a directory: every file whole or not at all, nothing outside, no link followed.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
import threading
import typing as t

from ..errors import GuardError
from ..format.tree import DIRECTORY, FOREIGN_XATTRS, SYMLINK, Entry, Extent, Tree
from ..services.acl import read_xattrs

LEFTOVER = re.compile(r"\A\.guardops-restore-[0-9a-f]{8}-\d+\Z")
_BUFFER = 1 << 20


class Appeared(GuardError):
    """A name was free when the restore was planned, and is taken now; another try may help."""


class Draft:
    """A file in the making: beside its place, under a name of its own, until all its extents are there."""

    def __init__(self, writer: Writer, entry: Entry, missing: int, kept: t.Sequence[Extent] = ()):
        self.writer = writer
        self.entry = entry
        self.missing = missing
        self._kept = kept  # extents to copy from the file that is there now
        self._lock = threading.Lock()
        self._path = writer.temporary_beside(entry.path)
        self._made: tuple[int, int] | None = None  # device and inode, once it is made

    def open(self) -> int:
        """A descriptor for writing; the file is made at the first call."""
        with self._lock:
            if self._made:
                return self._reopen()
            fd = self.writer.tree.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                self._made = os.fstat(fd).st_dev, os.fstat(fd).st_ino
                os.ftruncate(fd, self.entry.size)
                self._copy_kept(fd)
            except BaseException:
                os.close(fd)
                raise
            return fd

    def _reopen(self) -> int:
        """The same file again, not what somebody has put in its place since."""
        fd = self.writer.tree.open(self._path, os.O_RDWR | os.O_NONBLOCK)
        if (os.fstat(fd).st_dev, os.fstat(fd).st_ino) != self._made:
            os.close(fd)
            where = os.path.join(self.writer.tree.root, self._path)
            raise GuardError(where, "the file that this restore made", "another", "Who else writes to the directory?")
        return fd

    def arrived(self, count: int = 1) -> None:
        """``count`` more extents are written and proven; with the last one the file takes its place."""
        with self._lock:
            self.missing -= count
            ready = self.missing == 0
        if ready:
            self.complete()

    def complete(self) -> None:
        """Give the file its attributes and its name."""
        fd = self.open()
        try:
            self.writer.set_attributes(fd, self.entry)
        finally:
            os.close(fd)
        self.writer.replace(self._path, self.entry.path)
        self._made = None

    def drop(self) -> None:
        """Remove what was written so far."""
        if self._made:
            # An error has been told by now, and this one's cause is the same; the next restore removes the file.
            with contextlib.suppress(OSError):
                self.writer.remove(self._path)

    def _copy_kept(self, fd: int) -> None:
        if not self._kept:
            return
        old = self.writer.tree.open(self.entry.path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            for extent in self._kept:
                position, end = extent.offset, extent.offset + extent.length
                while position < end and (data := os.pread(old, min(_BUFFER, end - position), position)):
                    position += write_at(fd, data, position)
        finally:
            os.close(old)


def write_at(fd: int, data: bytes | memoryview, offset: int) -> int:
    """Write all of ``data`` at ``offset``; its length."""
    done = 0
    while done < len(data):
        done += os.pwrite(fd, data[done:], offset + done)
    return done


class Writer:
    """The target directory of a restore."""

    def __init__(self, root: str, ownership: bool, keep: bool = False):
        self.ownership = ownership  # False: owners and what only root may set stay as they come
        self.keep = keep  # never replace anything
        try:
            os.makedirs(root, mode=0o700, exist_ok=True)
        except OSError as error:
            raise GuardError(root, "a directory that can be made", error.strerror or str(error)) from error
        self.tree = Tree(root)
        self._token = secrets.token_hex(4)
        self._count = 0

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.tree.__exit__(*exc)

    def temporary_beside(self, path: str) -> str:
        """A name of our own in the directory of ``path``."""
        self._count += 1
        directory, slash, _name = path.rpartition("/")
        return f"{directory}{slash}.guardops-restore-{self._token}-{self._count}"

    def links(self, path: str) -> int:
        """How many names the file has."""
        with self.tree.parent(path) as (parent, name):
            return os.stat(name, dir_fd=parent, follow_symlinks=False).st_nlink

    def let_owner_in(self, paths: t.Iterable[str]) -> None:
        """Let directories that are there take these names; their own modes are set again at the end."""
        for directory in {path.rpartition("/")[0] or "." for path in paths}:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # yet to be made
                fd = self.tree.open(directory, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    mode = stat.S_IMODE(os.fstat(fd).st_mode)
                    if os.geteuid() and mode & 0o300 != 0o300:  # root needs no leave
                        os.fchmod(fd, mode | 0o300)
                finally:
                    os.close(fd)

    def make_directory(self, path: str) -> None:
        """A directory at ``path``, open to nobody else until its attributes are set. A link there is replaced."""
        if path == ".":
            return
        with self.tree.parent(path) as (parent, name):
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=parent, follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    return
                os.unlink(name, dir_fd=parent)
            os.mkdir(name, mode=0o700, dir_fd=parent)

    def make_symlink(self, entry: Entry) -> None:
        """A symbolic link, text as it was; where it points is nobody's business here."""
        temporary = self.temporary_beside(entry.path)
        with self.tree.parent(temporary) as (parent, name):
            os.symlink(entry.target, name, dir_fd=parent)
            if self.ownership:
                os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
            for xattr, value in entry.xattrs.items():
                self._permitted(
                    entry, os.setxattr, f"/proc/self/fd/{parent}/{name}", xattr, value, follow_symlinks=False
                )
            os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent, follow_symlinks=False)
        self.replace(temporary, entry.path)

    def make_hardlink(self, entry: Entry) -> None:
        """Another name for a file that is complete already."""
        temporary = self.temporary_beside(entry.path)
        with self.tree.parent(entry.target) as (source, first), self.tree.parent(temporary) as (parent, name):
            os.link(first, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        self.replace(temporary, entry.path)
        # rename does nothing where both names are one file already, and leaves the first name behind
        with contextlib.suppress(FileNotFoundError):
            self.remove(temporary)

    def mend_attributes(self, entry: Entry) -> None:
        """Set the attributes of what is in its place already."""
        if entry.type == SYMLINK:
            self.remove(entry.path)
            self.make_symlink(entry)
            return
        flags = os.O_RDONLY | (os.O_DIRECTORY if entry.type == DIRECTORY else os.O_NONBLOCK)
        fd = self.tree.open(entry.path, flags)
        try:
            self.set_attributes(fd, entry)
        finally:
            os.close(fd)

    def set_attributes(self, fd: int, entry: Entry) -> None:
        """Owner, access lists, other xattrs, mode, time: in the order in which none undoes another."""
        if self.ownership:
            status = os.fstat(fd)
            if (status.st_uid, status.st_gid) != (entry.uid, entry.gid):
                os.fchown(fd, entry.uid, entry.gid)  # clears setuid and capabilities: they come after
        present = read_xattrs(fd)
        for name in present:
            # A default list of the directory gives every new file a list that it never had.
            if name not in entry.xattrs and name not in FOREIGN_XATTRS:
                self._permitted(entry, os.removexattr, fd, name)
        for name, value in entry.xattrs.items():
            if present.get(name) != value:
                self._permitted(entry, os.setxattr, fd, name, value)
        os.fchmod(fd, entry.mode)
        os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))

    def _permitted(self, entry: Entry, call: t.Callable[..., None], *args: t.Any, **kwargs: t.Any) -> None:
        try:
            call(*args, **kwargs)
        except OSError as error:
            if self.ownership or not isinstance(error, PermissionError):
                where = os.path.join(self.tree.root, entry.path)
                raise GuardError(where, f"that {args[1]} can be set", error.strerror or str(error)) from error

    def replace(self, temporary: str, path: str) -> None:
        """Let ``temporary`` take the place of whatever is at ``path``, a directory with content excepted."""
        with self.tree.parent(path) as (parent, name):
            source = temporary.rpartition("/")[2]
            if self.keep:
                self._take_free_name(parent, source, name, path)
                return
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=parent, follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    try:
                        os.rmdir(name, dir_fd=parent)
                    except OSError as error:
                        where = os.path.join(self.tree.root, path)
                        raise GuardError(where, "a file, or nothing", "a directory that is not empty",
                                         "Move it away, then restore again.") from error  # fmt: skip
            os.rename(source, name, src_dir_fd=parent, dst_dir_fd=parent)

    def _take_free_name(self, parent: int, source: str, name: str, path: str) -> None:
        """A rename that replaces nothing, not even what was made a moment ago."""
        try:
            os.link(source, name, src_dir_fd=parent, dst_dir_fd=parent, follow_symlinks=False)
        except FileExistsError as error:
            where = os.path.join(self.tree.root, path)
            raise Appeared(where, "nothing", "a file that appeared just now", "Restore again.") from error
        os.unlink(source, dir_fd=parent)

    def remove(self, path: str) -> None:
        """Remove one name; a directory only when it is empty."""
        with self.tree.parent(path) as (parent, name):
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                os.rmdir(name, dir_fd=parent)
            else:
                os.unlink(name, dir_fd=parent)
