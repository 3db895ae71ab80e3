# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which processes use files or run a script, as /proc tells.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import os
import typing as t

FileId = tuple[int, int]  # device and inode


def processes_using(files: t.AbstractSet[FileId], script: str) -> tuple[list[str], list[str]]:
    """Processes that have one of the files open or mapped, or run the script; and those that may not be looked into.

    Each is a text such as "4711 (bash)".
    """
    using: list[str] = []
    unknown: list[str] = []
    for pid in _other_processes():
        try:
            name = f"{pid} ({_read(pid, 'comm').decode('utf-8', 'replace').strip()})"
            try:
                if _runs(pid, script) or not files.isdisjoint(_open_files(pid) | _mapped_files(pid)):
                    using.append(name)
            except PermissionError:
                unknown.append(name)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
    return using, unknown


def _other_processes() -> list[str]:
    return [name for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]


def _read(pid: str, name: str) -> bytes:
    with open(f"/proc/{pid}/{name}", "rb") as file:
        return file.read()


def _runs(pid: str, script: str) -> bool:
    """Compared by the file's name too: inside a container it lies under another path."""
    name = os.fsencode(os.path.basename(script))
    return any(os.path.basename(word) == name for word in _read(pid, "cmdline").split(b"\0"))


def _open_files(pid: str) -> set[FileId]:
    found = set()
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            status = os.stat(f"/proc/{pid}/fd/{number}")
        except FileNotFoundError:
            continue  # closed meanwhile
        found.add((status.st_dev, status.st_ino))
    return found


def _mapped_files(pid: str) -> set[FileId]:
    """An engine maps its weights and closes them."""
    found = set()
    for line in _read(pid, "maps").splitlines():
        _range, _mode, _offset, device, inode, *_path = line.split(None, 5)
        major, minor = device.split(b":")
        found.add((os.makedev(int(major, 16), int(minor, 16)), int(inode)))
    return found
