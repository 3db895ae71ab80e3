# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An object on its way to or from a directory.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import collections
import contextlib
import os
import secrets

from ..errors import StoreError
from .transfers import Download, NotStored, Upload


class FileUpload(Upload):
    """A file that gets its name when it is complete."""

    is_file = True

    def __init__(self, path: str, root: str, unsettled: collections.deque[str]):
        self.path = path
        self.unsettled = unsettled
        directory, name = os.path.split(path)
        self.temporary = os.path.join(directory, f".{name}.{secrets.token_hex(4)}.tmp")
        if not os.path.isdir(root):
            raise StoreError(f"repository {root}", "a directory", "none", "Is it mounted? It is not made by itself.")
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            self.fd = os.open(self.temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(path, "a file that can be written", error.strerror or str(error)) from error

    def __exit__(self, *_exc: object) -> None:
        os.close(self.fd)
        with contextlib.suppress(FileNotFoundError):  # it was renamed
            os.unlink(self.temporary)

    def commit(self) -> None:
        try:
            # Starts to write to the disk and does not wait: the next part is made meanwhile.
            os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.rename(self.temporary, self.path)
            self.unsettled.append(self.path)
        except OSError as error:
            raise StoreError(self.path, "a file that can be completed", error.strerror or str(error)) from error


class FileDownload(Download):
    """A file that is there."""

    def __init__(self, path: str):
        try:
            self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise NotStored(path, "an object", "none of that name") from error
        except OSError as error:
            raise StoreError(path, "a file that can be read", error.strerror or str(error)) from error

    def __exit__(self, *_exc: object) -> None:
        os.close(self.fd)

    def check(self) -> None:
        return  # a file's end is its end
