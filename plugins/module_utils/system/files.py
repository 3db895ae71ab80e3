# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files that are there whole or not at all, and locks that die with their holder.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import tempfile
import time
import typing as t

from ..errors import GuardError


def fsync_path(path: str) -> None:
    """Make a file's content, or the names in a directory, survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomically(path: str, data: bytes, mode: int = 0o600) -> None:
    """Replace ``path`` by ``data``: a reader sees the old file or the new one, also after a power cut."""
    temporary = f"{path}.{secrets.token_hex(4)}.tmp"
    try:
        _write_through(temporary, path, data, mode)
    except OSError as error:
        raise GuardError(path, "a file that can be written", error.strerror or str(error)) from error
    finally:
        with contextlib.suppress(OSError):  # it was renamed, or what kept it from being written keeps it from this too
            os.unlink(temporary)


def _write_through(temporary: str, path: str, data: bytes, mode: int) -> None:
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "wb") as handle:
        os.fchmod(fd, mode)  # whatever the umask
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())
    os.rename(temporary, path)
    fsync_path(os.path.dirname(path) or ".")


def make_private_directory(path: str) -> str:
    """A directory that only its owner enters; made with its parents where it is absent."""
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
    except OSError as error:
        raise GuardError(path, "a directory that can be made", error.strerror or str(error)) from error
    return path


@contextlib.contextmanager
def lock(path: str, what: str, patience: float = 0.0) -> t.Iterator[None]:
    """Hold ``path`` alone, or fail after ``patience`` and name the holder. The kernel frees it when the holder dies."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise GuardError(path, "a lock that can be made", error.strerror or str(error)) from error
    try:
        try:
            _take(fd, patience)
        except BlockingIOError as error:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise GuardError(
                what,
                "no other run at the same time",
                f"one running with process id {holder}",
                f"Wait for it to end. The lock is {path}; it is free as soon as that process is gone.",
            ) from error
        except OSError as error:
            raise GuardError(path, "a lock that can be taken", error.strerror or str(error)) from error
        with contextlib.suppress(OSError):  # who holds it only helps to understand: a full disk takes locks too
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


def _take(fd: int, patience: float) -> None:
    end = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= end:
                raise
            time.sleep(0.1)


def memory_directory() -> str:
    """A directory in memory in which we may make a new, private one; empty where there is none."""
    for path in ("/dev/shm", f"/run/user/{os.getuid()}", "/run"):  # noqa: S108 - a new, private name is made there
        if _is_tmpfs(path) and os.access(path, os.W_OK | os.X_OK):
            return path
    return ""


def directory_for_many() -> str:
    """Where to make thousands of small files for a moment: in memory, if that has room for them.

    To make one on a disk took up to 1 ms, which is more than to fetch it. Containers often have 64 MB only.
    """
    path = memory_directory()
    if path:
        room = os.statvfs(path)
        if room.f_bavail * room.f_frsize >= _ROOM_FOR_MANY:
            return path
    return tempfile.gettempdir()


_ROOM_FOR_MANY = 1 << 30


def _is_tmpfs(path: str) -> bool:
    """Whether ``path`` is on tmpfs; /run is a plain directory in many containers."""
    best, kind = "", ""
    real = os.path.realpath(path)
    with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as mounts:
        for line in mounts:
            point, this = line.split(" ")[1:3]
            if (real + "/").startswith(point.rstrip("/") + "/") and len(point) >= len(best):
                best, kind = point, this
    return kind == "tmpfs" and os.path.isdir(real)


@contextlib.contextmanager
def scratch_directory(parent: str, prefix: str) -> t.Iterator[str]:
    """A private directory in ``parent`` that is gone afterwards. Those that killed runs left go first."""
    remove_abandoned(parent, prefix, shutil.rmtree)
    path, claim = claimed_directory(parent, prefix)
    try:
        yield path
    finally:
        try:
            shutil.rmtree(path)
        finally:
            os.close(claim)


def claimed_directory(parent: str, prefix: str) -> tuple[str, int]:
    """(path, descriptor) of a new private directory; it counts as in use while the descriptor is open."""
    while True:
        try:
            path = tempfile.mkdtemp(prefix=prefix, dir=parent)
        except OSError as error:
            raise GuardError(parent, "a directory that can be written", error.strerror or str(error)) from error
        fd = _open_if_idle(path)
        if fd is not None:
            return path, fd
        # Another run took it for an abandoned one in the moment before we had claimed it, and removes it.


def remove_abandoned(parent: str, prefix: str, remove: t.Callable[[str], object]) -> None:
    """Remove our directories of that prefix whose makers are gone: nothing else would, after a kill -9."""
    for name in os.listdir(parent):
        if name.startswith(prefix):
            path = os.path.join(parent, name)
            fd = _open_if_idle(path)
            if fd is not None:
                try:
                    remove(path)
                finally:
                    os.close(fd)


def _open_if_idle(path: str) -> int | None:
    """A descriptor that holds the directory's lock; None where it is not ours, in use, or gone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if os.fstat(fd).st_uid == os.geteuid():
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.exists(path):
                return fd
    except BlockingIOError:
        pass
    os.close(fd)
    return None
