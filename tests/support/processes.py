# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Free ports on loopback, and child processes that surely end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess

LOOPBACK = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses now, below the range from which the kernel gives ports to clients.

    Another process can still take one before it is used: whoever starts a server tries again then.
    """
    chosen: list[int] = []
    with contextlib.ExitStack() as held:
        while len(chosen) < count:
            port = 15000 + int.from_bytes(os.urandom(2), "big") % 15000
            probe = held.enter_context(socket.socket())
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            chosen.append(port)
    return chosen


def end_group(process: subprocess.Popen[bytes], patience: float = 3.0) -> None:
    """End a child that leads its own process group, and all it started, and wait until it is gone."""
    for sign, wait in ((signal.SIGTERM, patience), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        try:
            process.wait(wait)
        except subprocess.TimeoutExpired:
            continue
        with contextlib.suppress(ProcessLookupError):  # what outlived the leader
            os.killpg(process.pid, signal.SIGKILL)
        return
