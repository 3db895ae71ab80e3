# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Go about a tree by directory descriptors, so that a directory swapped for a symlink leads nowhere else.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import os

from ..errors import GuardError, IntegrityError

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_KEPT_OPEN = 64


class Directories:
    """The directories of a tree, opened one component after the other and never through a symlink.

    The way to the last directory stays open, for the next one is often near. Use as a context manager.
    """

    def __init__(self, root: str):
        try:
            # Only the root itself may be a symlink: it is what the user named.
            self.root = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise GuardError(root, "a directory", error.strerror or str(error)) from error
        self._way: list[tuple[str, int]] = []

    def __enter__(self) -> Directories:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._back_to(0)
        os.close(self.root)

    def open(self, path: str) -> int:
        """A descriptor (O_PATH) of the directory at ``path`` below the root; it is valid until the next call."""
        parts = path.split("/") if path else []
        if any(part in ("", ".", "..") for part in parts):
            raise IntegrityError(path, "a path below the root", "one that may leave it")
        common = 0
        while common < min(len(parts), len(self._way)) and parts[common] == self._way[common][0]:
            common += 1
        if common and self._way[common - 1][1] < 0:
            common = 0
        self._back_to(common)
        for part in parts[common:]:
            above = self._way[-1][1] if self._way else self.root
            self._way.append((part, os.open(part, _DIRECTORY, dir_fd=above)))
            self._close_at(len(self._way) - 1 - _KEPT_OPEN)
        return self._way[-1][1] if self._way else self.root

    def _back_to(self, length: int) -> None:
        while len(self._way) > length:
            self._close_at(len(self._way) - 1)
            self._way.pop()

    def _close_at(self, position: int) -> None:
        """Close one directory on the way but remember its name: in a deep tree descriptors would run out."""
        if position >= 0 and self._way[position][1] >= 0:
            os.close(self._way[position][1])
            self._way[position] = (self._way[position][0], -1)
