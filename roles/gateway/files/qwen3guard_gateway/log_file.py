# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The active log file: durable appending, and noticing what others do to it.

Everything here blocks; one thread at a time uses it.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import typing as t
from pathlib import Path

from .errors import JournalError, JournalUnavailable
from .log_ends import ACTIVE, FILE_MODE, free_name, is_compressed

logger = logging.getLogger(__name__)

LOCK = ".gateway.lock"
SUSPECT = ".suspect-"
FOREIGN = "foreign lines"
_APPEND = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
_WHY = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EFBIG: "the file may not become larger",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "no permission",
    errno.EPERM: "no permission",
    errno.EIO: "the disk reports an error",
    errno.ELOOP: "it is a symbolic link",
}


class Suspect(Exception):
    """Nobody knows what of the last batch is on disk; what was acknowledged before is."""


class Vanished(Exception):
    """While it was written, the file was removed or truncated."""


def why(error: OSError, what: str) -> str:
    """The reason in words for people."""
    known = _WHY.get(error.errno or 0)
    text = f"{known} ({error.strerror})" if known else str(error.strerror or error)
    return f"{what}: {text}"


class DirectoryLock:
    """At most one writer for a log directory, which must be there and stay the same one."""

    def __init__(self, directory: Path):
        self._directory = directory
        self._path = directory / LOCK
        self._opened: tuple[int, int] | None = None  # the directory and the lock file

    @property
    def directory_descriptor(self) -> int:
        """To make names durable in the very directory that was locked."""
        if self._opened is None:
            raise JournalUnavailable(f"{self._directory} is not locked")
        return self._opened[0]

    def acquire(self) -> None:
        """Take it; JournalError says who or what is in the way."""
        try:
            directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            # Not made here: a file system that is not mounted must not look like an empty log.
            raise JournalError(why(error, f"the log directory {self._directory} cannot be used")) from error
        try:
            self._opened = (directory, self._take())
        except BaseException:
            os.close(directory)
            raise

    def _take(self) -> int:
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise JournalError(why(error, f"{self._path} cannot be written")) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno == errno.EWOULDBLOCK:
                raise JournalError(f"another gateway writes to {self._directory}: each needs its own") from error
            raise JournalError(why(error, f"{self._path} cannot be locked")) from error
        return descriptor

    def check(self) -> None:
        """Still the same directory, and still ours; JournalUnavailable if not."""
        if self._opened is None:
            raise JournalUnavailable(f"{self._directory} is not locked")
        directory, descriptor = self._opened
        if not _is_same(self._directory, directory):
            raise JournalUnavailable(f"the log directory {self._directory} was replaced or unmounted; start again")
        if _is_same(self._path, descriptor):
            return
        try:  # someone tidied up
            taken = self._take()
        except JournalError as error:
            raise JournalUnavailable(f"the lock was lost: {error}") from error
        os.close(descriptor)
        self._opened = (directory, taken)

    def release(self) -> None:
        """Let others write."""
        for descriptor in self._opened or ():
            os.close(descriptor)
        self._opened = None


def _is_same(path: Path, descriptor: int) -> bool:
    """Whether a name still leads to what was opened."""
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=True), os.fstat(descriptor))
    except FileNotFoundError:
        return False
    except OSError as error:
        raise JournalUnavailable(why(error, str(path))) from error


class LogFile:
    """``audit.log``. ``size`` is where the durable records end."""

    def __init__(self, directory: Path, directory_descriptor: int):
        self.path = directory / ACTIVE
        self.size = 0
        self._directory_descriptor = directory_descriptor
        self._descriptor = -1
        self._names_durable = False
        self._line_open = False  # someone left a line without an end

    def open(self) -> None:
        """Open it, make it if it is not there. Its name is durable before anything is written."""
        self.close()
        try:
            self._descriptor = os.open(self.path, _APPEND | os.O_CREAT | os.O_EXCL, FILE_MODE)
            os.fchmod(self._descriptor, FILE_MODE)  # whatever the umask
        except FileExistsError:
            self._descriptor = os.open(self.path, _APPEND)
        self._measure(os.fstat(self._descriptor).st_size)

    def close(self) -> None:
        """Nothing is lost: every batch was made durable."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor, self._names_durable = -1, False

    def _measure(self, size: int) -> None:
        self.size = size
        self._line_open = size > 0 and os.pread(self._descriptor, 1, size - 1) != b"\n"

    def follow(self) -> list[dict[str, t.Any]]:
        """Open it (again) where rotation renamed it. What should not have happened is returned as repair events."""
        events: list[dict[str, t.Any]] = []
        if self._descriptor < 0:
            self.open()
        opened = os.fstat(self._descriptor)
        try:
            named: os.stat_result | None = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            named = None
        if named is None or not os.path.samestat(named, opened):
            if opened.st_nlink == 0 and self.size and not self._was_compressed(opened):
                events.append(_repair("file removed", self.size))
            self.open()
        elif opened.st_size < self.size:
            events.append(_repair("file truncated", self.size - opened.st_size))
            self._measure(opened.st_size)
        elif opened.st_size > self.size:
            events.append(_repair(FOREIGN, opened.st_size - self.size))
            self._measure(opened.st_size)
        if not self._names_durable:
            os.fsync(self._directory_descriptor)
            self._names_durable = True
        return events

    def _was_compressed(self, opened: os.stat_result) -> bool:
        """Whether rotation went on to compress it and removed the plain file; compressors keep the time."""
        for path in self.path.parent.glob(f"{ACTIVE}*"):
            if is_compressed(path) and abs(path.stat().st_mtime - opened.st_mtime) < 2:
                return True
        return False

    def append(self, data: bytes) -> None:
        """Write whole lines and make them durable.

        OSError: the file is as it was. `Suspect`, `Vanished`: it is not known what is on disk.
        """
        if self._line_open:
            data = b"\n" + data
        written = 0
        try:
            while written < len(data):
                written += os.write(self._descriptor, data[written:] if written else data)
        except OSError as error:
            self._undo(written, error)
            raise
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            # The kernel may now take the pages for clean: another fsync would succeed and prove nothing.
            self._drop_batch()
            raise Suspect(why(error, f"{self.path} could not be made durable")) from error
        after = os.fstat(self._descriptor)
        if after.st_nlink == 0 or after.st_size < self.size + len(data):
            raise Vanished(f"{self.path} was removed or truncated while records were written to it")
        self.size += len(data)
        self._line_open = False

    def _undo(self, written: int, cause: OSError) -> None:
        """Take a part of a batch back."""
        try:
            if os.fstat(self._descriptor).st_size != self.size + written:
                raise Suspect(why(cause, f"{self.path} could not be written, and others write to it"))
            os.ftruncate(self._descriptor, self.size)
        except OSError as error:
            raise Suspect(why(error, f"{self.path} could not be written, nor cut back")) from error

    def _drop_batch(self) -> None:
        """At once, so that after a kill nobody finds records in memory that are not on disk. As good as it goes:
        where it does not, the next chain says where this one ended."""
        try:
            if os.fstat(self._descriptor).st_size > self.size:
                os.ftruncate(self._descriptor, self.size)
        except OSError as error:
            logger.warning("%s", why(error, f"{self.path} could not be cut back to its last durable record"))

    def set_aside(self, when: str) -> str:
        """Give the file another name, so that records go to a new one; the name that it has got, or nothing."""
        if self._descriptor < 0:
            return ""
        self._drop_batch()
        aside = None
        if _is_same(self.path, self._descriptor):
            if self.size:
                aside = free_name(self.path, SUSPECT, when)
                os.rename(self.path, aside)
            else:
                os.unlink(self.path)  # nothing in it was acknowledged
        self.close()
        return aside.name if aside else ""


def _repair(reason: str, count: int) -> dict[str, t.Any]:
    return {"event": "repair", "reason": reason, "file": ACTIVE, "bytes": count}
