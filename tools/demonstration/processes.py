# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Processes that the demo started, directly or not: found and ended, whatever became of their parents."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pathlib
import signal
import time

_PR_SET_CHILD_SUBREAPER = 36
_PATIENCE = 10.0  # seconds for modules to end their own children and remove their files


def adopt_orphans() -> None:
    """From now on a process whose parent ended becomes our child, not init's, and can be found."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def descendants() -> list[int]:
    """All processes below this one, those that ended but were not waited for left out."""
    children: dict[int, list[int]] = {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            state, parent = stat.read_text(errors="replace").rpartition(")")[2].split()[:2]
            if state != "Z":
                children.setdefault(int(parent), []).append(int(stat.parent.name))
    found: list[int] = []
    waiting = [os.getpid()]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def end_all() -> None:
    """End all descendants: as Ctrl-C would first, so that they clean up, then by force."""
    for sign, patience in ((signal.SIGINT, _PATIENCE), (signal.SIGTERM, _PATIENCE / 2), (signal.SIGKILL, _PATIENCE)):
        for pid in descendants():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sign)
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            _reap()
            if not descendants():
                return
            time.sleep(0.05)


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
