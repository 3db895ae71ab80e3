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
import typing as t

from ..errors import GuardError


def fsync_directory(path: str) -> None:
    """Make a rename or a removal in ``path`` survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomically(path: str, data: bytes, mode: int = 0o600) -> None:
    """Replace ``path`` by ``data``: a reader sees the old file or the new one, also after a power cut."""
    temporary = f"{path}.{secrets.token_hex(4)}.tmp"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(fd, "wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    fsync_directory(os.path.dirname(path) or ".")


def make_private_directory(path: str) -> str:
    """A directory that only its owner enters; made with its parents where it is absent."""
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
    except OSError as error:
        raise GuardError(path, "a directory that can be made", error.strerror or str(error)) from error
    return path


@contextlib.contextmanager
def lock(path: str, what: str) -> t.Iterator[None]:
    """Hold ``path`` alone, or fail at once and name the holder. The kernel frees it when the holder dies."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise GuardError(
                what,
                "no other run at the same time",
                f"one running with process id {holder}",
                f"Wait for it to end. The lock is {path}; it is free as soon as that process is gone.",
            ) from error
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)
