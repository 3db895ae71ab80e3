# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An object on its way through rclone.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import contextlib

from ..system.process import Child
from .rclone import NoDirectory, check
from .transfers import Download, NotStored, Upload


class RcloneUpload(Upload):
    """What is written goes to rclone's stdin."""

    def __init__(self, child: Child, name: str):
        self.child = child
        self.name = name
        self.fd = child.stdin.fileno()

    def __exit__(self, *exc: object) -> None:
        # Killed before its stdin is closed: an end of input would complete a part that is not whole.
        self.child.__exit__(*exc)

    def commit(self) -> None:
        with contextlib.suppress(BrokenPipeError):  # its exit code says why
            self.child.stdin.close()
        check(self.child, self.name)


class RcloneDownload(Download):
    """What is read comes from rclone's stdout."""

    def __init__(self, child: Child, name: str):
        self.child = child
        self.name = name
        self.fd = child.stdout.fileno()

    def __exit__(self, *exc: object) -> None:
        self.child.__exit__(*exc)

    def check(self) -> None:
        try:
            check(self.child, self.name)
        except NoDirectory:  # so a remote that has directories, such as SFTP, says of an object too
            raise NotStored(self.name, "an object", "none of that name") from None
