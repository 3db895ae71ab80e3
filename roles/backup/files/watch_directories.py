# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Let a path unit watch every directory below one, since systemd's watches do not reach below.

usage: watch_directories.py DIRECTORY UNIT

Writes a drop-in of UNIT and restarts it when the directories are others than before. Git's own are left out.
"""

from __future__ import annotations

import os
import subprocess
import sys

_UNITS = "/etc/systemd/system"
_MOST = 500  # inotify's watches are not without end; beyond, the timer has to do


def directories_below(root: str) -> list[str]:
    """All of them, without the root itself, in order."""
    found = []
    for folder, names, _files in os.walk(root):
        names[:] = sorted(name for name in names if name != ".git")
        found += [os.path.join(folder, name) for name in names]
    return found


def drop_in(directories: list[str]) -> str:
    """The drop-in's text. A name that a unit's line cannot hold is left to the timer."""
    lines = ["# Written by watch_directories.py after each backup of the configuration.", "[Path]"]
    fit = [path for path in directories if path.isprintable() and path == path.strip()]
    lines += [f"PathChanged={path.replace('%', '%%')}" for path in fit[:_MOST]]
    return "\n".join(lines) + "\n"


def content_of(path: str) -> str:
    """Empty where there is no such file."""
    try:
        with open(path, encoding="utf-8") as handle:
            return handle.read()
    except FileNotFoundError:
        return ""


def main() -> None:
    root, unit = sys.argv[1:]
    directories = directories_below(root)
    wanted = drop_in(directories)
    path = f"{_UNITS}/{unit}.d/directories.conf"
    if content_of(path) == wanted:
        return
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    with open(f"{path}.new", "w", encoding="utf-8") as handle:
        os.fchmod(handle.fileno(), 0o644)
        handle.write(wanted)
    os.replace(f"{path}.new", path)
    subprocess.run(["systemctl", "daemon-reload"], check=True, timeout=60)
    # Not waited for: this may run within the service that the unit starts.
    subprocess.run(["systemctl", "--no-block", "try-restart", unit], check=True, timeout=60)
    print(f"watching {len(directories)} directories below {root}")


if __name__ == "__main__":
    main()
