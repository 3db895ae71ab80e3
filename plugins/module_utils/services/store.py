# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where objects live: a directory, or anything that rclone reaches.

Private to the collection: use the modules, not this file.

Names of objects are relative to the repository's root, with slashes, and are made by this
collection. An object appears whole or not at all, as far as the store allows; whether it did is
for the caller to read back.
"""

from __future__ import annotations

import collections
import contextlib
import os
import re
import shutil
import typing as t

from ..errors import GuardError, StoreError
from ..system.files import fsync_path
from . import rclone
from .file_transfers import FileDownload, FileUpload
from .rclone import NoDirectory
from .rclone_transfers import RcloneDownload, RcloneUpload
from .transfers import Details, Download, NotStored, Upload

__all__ = ["DirectoryStore", "NotStored", "RcloneStore", "Store", "open_store", "plain_names", "write_all"]


class Store:
    """What the engine needs of a store."""

    location: str

    def list(self, prefix: str) -> dict[str, int]:
        """Sizes in bytes of all objects below ``prefix``, by name relative to it; empty if there is none."""
        raise NotImplementedError

    def walk(self, prefix: str, levels: t.Sequence[t.Collection[str] | None]) -> t.Sequence[str]:
        """Names of objects and directories (these with a slash at their end) below ``prefix``, relative to it.

        One entry of ``levels`` for each level that is looked at: the names that count there, None for all. Nothing
        else is entered, so that a look at many instances does not list all that they ever stored.
        """
        raise NotImplementedError

    def details(self, prefix: str) -> dict[str, Details]:
        """The same as `list`, with what else the store tells at no cost."""
        raise NotImplementedError

    def present(self, names: t.Collection[str]) -> set[str]:
        """Those of these objects that are there."""
        raise NotImplementedError

    @property
    def has_tiers(self) -> bool:
        """Whether objects can be moved to another storage class."""
        return False

    def set_tier(self, names: t.Collection[str], tier: str) -> None:
        """Move these objects to another storage class. Whether they are there then is for the caller to read back."""
        raise NotImplementedError

    def upload(self, name: str) -> Upload:
        """Begin an object."""
        raise NotImplementedError

    def download(self, name: str) -> Download:
        """Begin to read an object. A missing one may show only as an empty one: compare the size."""
        raise NotImplementedError

    def remove(self, prefix: str) -> None:
        """Remove all objects below ``prefix``. Nothing there is no error."""
        raise NotImplementedError

    def tidy(self, prefix: str) -> None:
        """Remove what a killed upload of ours left below ``prefix`` beside the objects. Most stores leave nothing."""

    def read_many(self, prefix: str, name: str) -> dict[str, bytes]:
        """The contents of all small objects called ``name`` anywhere below ``prefix``."""
        raise NotImplementedError

    def read_several(self, names: t.Collection[str]) -> dict[str, bytes]:
        """The contents of these small objects, by name; those that are not there are left out."""
        raise NotImplementedError

    def remove_several(self, names: t.Collection[str]) -> None:
        """Remove these objects. One that is not there is no error."""
        raise NotImplementedError

    def remove_empty(self, prefix: str) -> None:
        """Remove directories that hold nothing below ``prefix``. Most object stores have no such thing."""

    def read(self, name: str, limit: int = 1 << 30) -> bytes:
        """A small object's content. Raises `NotStored`, or `StoreError` past ``limit`` bytes."""
        with self.download(name) as download:
            chunks, size = [], 0
            while chunk := os.read(download.fd, 1 << 20):
                size += len(chunk)
                if size > limit:
                    raise StoreError(self.full_name(name), f"at most {limit} bytes", "more")
                chunks.append(chunk)
            download.check()
        if not size:
            directory, _slash, base = name.rpartition("/")
            if base not in self.list(directory):
                raise NotStored(self.full_name(name), "an object", "none of that name")
        return b"".join(chunks)

    def settle(self) -> None:
        """Return when all objects made so far would survive a power cut."""
        raise NotImplementedError

    def put(self, name: str, data: bytes) -> None:
        """Store a small object. Whether it is there, and stays, is for the caller to find out."""
        with self.upload(name) as upload:
            try:
                write_all(upload.fd, data)
            except BrokenPipeError:
                upload.commit()  # says why the store took no more; if it does not know, reading back does
            except OSError as error:
                what = self.full_name(name)
                raise StoreError(what, "an object that can be written", error.strerror or str(error)) from error
            else:
                upload.commit()

    def write(self, name: str, data: bytes) -> None:
        """Store a small object, let it and all before it settle, and read it back."""
        self.put(name, data)
        self.settle()
        if self.read(name) != data:
            raise StoreError(self.full_name(name), f"the {len(data)} bytes just written", "something else read back")

    def full_name(self, name: str) -> str:
        """How a person finds the object."""
        return f"{self.location.rstrip('/')}/{name}"


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write everything; a pipe takes what it has room for."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def plain_names(names: t.Iterable[str]) -> list[str]:
    """``names``, if each can be nothing but an object of this repository: in a list of names a line break makes
    two of one, and some come from documents that anybody may have written."""
    for name in names:
        if not _NAME.match(name) or any(component in ("", ".", "..") for component in name.split("/")):
            raise StoreError(f"object {name!r:.120}", "a name that a repository has", "another")
    return list(names)


_NAME = re.compile(r"\A[A-Za-z0-9._/-]{1,1024}\Z")
_REMOTE = re.compile(r"\A[\w.+@][\w.+@ -]*:")


def open_store(location: str, options: rclone.Options) -> Store:
    """A store for an absolute path, or for ``remote:path``."""
    if location.startswith("/"):
        return DirectoryStore(location)
    if not _REMOTE.match(location):
        # A connection string (:s3,secret_access_key=…:bucket) would put its secrets into argument lists.
        remote, colon, _path = location.partition(":")
        shown = f"{remote}:…" if colon and "=" not in remote else "something else"
        expected = "the name of a remote in rclone's configuration and a path (remote:path), or an absolute path"
        raise GuardError("repository", expected, shown)
    return RcloneStore(location, options)


class DirectoryStore(Store):
    """A local or mounted directory. It must exist: a mount that is missing must not look like an empty one."""

    def __init__(self, location: str):
        self.location = location.rstrip("/") or "/"
        self._unsettled: collections.deque[str] = collections.deque()  # workers append to it at once

    def _path(self, name: str) -> str:
        return os.path.join(self.location, name)

    def _has_to_exist(self) -> None:
        if not os.path.isdir(self.location):
            raise StoreError(
                f"repository {self.location}", "a directory", "none", "Is it mounted? It is not made by itself."
            )

    def list(self, prefix: str) -> dict[str, int]:
        return {name: details.size for name, details in self.details(prefix).items()}

    def details(self, prefix: str) -> dict[str, Details]:
        self._has_to_exist()
        root = self._path(prefix)
        found = {}
        for directory, _names, files in os.walk(root, onerror=_unless_gone):
            for file in files:
                if not file.startswith("."):  # one that is being written
                    path = os.path.join(directory, file)
                    try:
                        status = os.stat(path)
                        found[os.path.relpath(path, root)] = Details(status.st_size, status.st_mtime)
                    except OSError as error:
                        _unless_gone(error)
        return found

    def present(self, names: t.Collection[str]) -> set[str]:
        return {name for name in plain_names(names) if os.path.lexists(self._path(name))}

    def walk(self, prefix: str, levels: t.Sequence[t.Collection[str] | None]) -> t.Sequence[str]:
        self._has_to_exist()
        found: list[str] = []
        below = [""]
        for wanted in levels:
            entered = []
            for directory in below:
                for name, is_directory in _entries(self._path(f"{prefix}/{directory}".strip("/"))):
                    if (wanted is None or name in wanted) and not name.startswith("."):
                        found.append(f"{directory}{name}{'/' if is_directory else ''}")
                        entered += [found[-1]] if is_directory else []
            below = entered
        return found

    def tidy(self, prefix: str) -> None:
        for directory, _names, files in os.walk(self._path(prefix), onerror=_unless_gone):
            for file in files:
                if file.startswith(".") and file.endswith(".tmp"):
                    os.unlink(os.path.join(directory, file))

    def upload(self, name: str) -> Upload:
        return FileUpload(self._path(name), self.location, self._unsettled)

    def settle(self) -> None:
        """The disk was told of each file when it was complete, so that little is left to wait for."""
        directories = set()
        try:
            while self._unsettled:
                path = self._unsettled.pop()
                fsync_path(path)
                directory = os.path.dirname(path)
                while directory.startswith(self.location) and directory not in directories:
                    directories.add(directory)
                    fsync_path(directory)
                    directory = os.path.dirname(directory)
        except OSError as error:
            raise StoreError(self.location, "a disk that keeps what it is given", str(error)) from error

    def download(self, name: str) -> Download:
        return FileDownload(self._path(name))

    def remove(self, prefix: str) -> None:
        path = self._path(prefix)
        if os.path.isdir(path):
            try:
                shutil.rmtree(path)
            except OSError as error:
                raise StoreError(path, "a directory that can be removed", error.strerror or str(error)) from error
        self._forget(lambda stored: stored.startswith(f"{path}/"))

    def read_many(self, prefix: str, name: str) -> dict[str, bytes]:
        found = {}
        for path in self.list(prefix):
            if path.rpartition("/")[2] == name:
                found[path] = self.read(f"{prefix}/{path}")
        return found

    def read_several(self, names: t.Collection[str]) -> dict[str, bytes]:
        found = {}
        for name in plain_names(names):
            with contextlib.suppress(NotStored):
                found[name] = self.read(name)
        return found

    def remove_several(self, names: t.Collection[str]) -> None:
        for name in plain_names(names):
            try:
                os.unlink(self._path(name))
            except OSError as error:
                _unless_gone(error)
        removed = {self._path(name) for name in names}
        self._forget(lambda stored: stored in removed)

    def remove_empty(self, prefix: str) -> None:
        for directory, _names, _files in os.walk(self._path(prefix), topdown=False):
            with contextlib.suppress(OSError):  # it holds something, or somebody else was faster
                os.rmdir(directory)

    def _forget(self, removed: t.Callable[[str], bool]) -> None:
        """What was made and removed again in one run (a source that changed meanwhile) need not settle."""
        kept = [path for path in self._unsettled if not removed(path)]
        self._unsettled.clear()
        self._unsettled.extend(kept)


def _entries(path: str) -> list[tuple[str, bool]]:
    """(name, whether it is a directory) of what a directory holds; nothing where it is gone."""
    try:
        with os.scandir(path) as entries:
            return sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
    except OSError as error:
        _unless_gone(error)
        return []


def _unless_gone(error: OSError) -> None:
    """What another run removes while we look is not there; what cannot be read must not look like nothing."""
    if not isinstance(error, FileNotFoundError):
        raise StoreError(str(error.filename), "a repository that can be read", error.strerror or str(error)) from error


class RcloneStore(Store):
    """Anything that rclone reaches."""

    def __init__(self, location: str, options: rclone.Options):
        self.location = location.rstrip("/") if not location.endswith(":") else location
        self.rclone = rclone.Rclone(options)

    def full_name(self, name: str) -> str:
        joint = "" if self.location.endswith(":") or not name else "/"
        return f"{self.location}{joint}{name}"

    def list(self, prefix: str) -> dict[str, int]:
        with contextlib.suppress(NoDirectory):
            return self.rclone.listing(self.full_name(prefix))
        # A prefix without objects is fine; a bucket or a root that is not there is not.
        if not self._has_root():
            raise StoreError(
                f"repository {self.location}", "a bucket or directory that exists", "none",
                "Check its name and the remote's settings; it is not made by itself.",
            )  # fmt: skip
        return {}

    def walk(self, prefix: str, levels: t.Sequence[t.Collection[str] | None]) -> t.Sequence[str]:
        with contextlib.suppress(NoDirectory):
            return self.rclone.walk(self.full_name(prefix), levels)
        self.list(prefix)  # says so where there is no repository at all
        return []

    def details(self, prefix: str) -> dict[str, Details]:
        with contextlib.suppress(NoDirectory):
            return self.rclone.details(self.full_name(prefix))
        return {name: Details(size) for name, size in self.list(prefix).items()}  # none, or it says what is wrong

    def present(self, names: t.Collection[str]) -> set[str]:
        return set(self.rclone.present(self.location, plain_names(names))) if names else set()

    @property
    def has_tiers(self) -> bool:
        return self.rclone.feature(self.location, "SetTier")

    def set_tier(self, names: t.Collection[str], tier: str) -> None:
        if names:
            self.rclone.set_tier(self.location, plain_names(names), tier)

    def _has_root(self) -> bool:
        try:
            self.rclone.listing(self.location, recurse=False)
        except NoDirectory:
            return False
        return True

    def settle(self) -> None:
        return  # what a remote has accepted is its own to keep

    def upload(self, name: str) -> Upload:
        return RcloneUpload(self.rclone.rcat(self.full_name(name)), self.full_name(name))

    def download(self, name: str) -> Download:
        return RcloneDownload(self.rclone.cat(self.full_name(name)), self.full_name(name))

    def remove(self, prefix: str) -> None:
        self.rclone.purge(self.full_name(prefix))

    def tidy(self, prefix: str) -> None:
        self.rclone.drop_unfinished(self.full_name(prefix))

    def read_many(self, prefix: str, name: str) -> dict[str, bytes]:
        try:
            return self.rclone.read_many(self.full_name(prefix), name)
        except NoDirectory:
            return {}

    def read_several(self, names: t.Collection[str]) -> dict[str, bytes]:
        try:
            return self.rclone.read_several(self.location, plain_names(names)) if names else {}
        except NoDirectory:
            return {}

    def remove_several(self, names: t.Collection[str]) -> None:
        if names:
            with contextlib.suppress(NoDirectory):
                self.rclone.remove_several(self.location, plain_names(names))

    def remove_empty(self, prefix: str) -> None:
        if self.rclone.feature(self.location, "CanHaveEmptyDirectories"):
            with contextlib.suppress(NoDirectory):
                self.rclone.remove_empty(self.full_name(prefix))
