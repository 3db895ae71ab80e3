# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Time a process, and watch what its whole tree of processes takes."""

from __future__ import annotations

import pathlib
import resource
import subprocess
import threading
import time
import typing as t

import psutil

from .contenders import Command


class Measured(t.NamedTuple):
    """One run."""

    seconds: float  # wall clock
    cpu_seconds: float  # user and system, of the process and all its children
    peak_mib: float  # the largest sum of resident sets at one moment: shared pages count each time
    peak_disk_mib: float  # the largest total of files below the watched directory


def measure(command: Command, watched: t.Sequence[pathlib.Path] = ()) -> Measured:
    """Run a command to its end. It must succeed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    with subprocess.Popen(
        command.argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=command.env
    ) as process:
        watcher = _Watcher(process.pid, watched)
        output, errors = process.communicate(command.stdin)
        seconds = time.perf_counter() - started
    watcher.end()
    if process.returncode:
        raise RuntimeError(f"{command.argv[:3]} ended with {process.returncode}: {output[-500:]!r} {errors[-2000:]!r}")
    command.check(output)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Measured(seconds, cpu, watcher.peak / 2**20, watcher.peak_disk / 2**20)


class _Watcher(threading.Thread):
    """Looks ten times a second: often enough for parts that take a second, too seldom to cost anything."""

    def __init__(self, pid: int, watched: t.Sequence[pathlib.Path]):
        super().__init__(daemon=True)
        self.pid, self.watched = pid, watched
        self.peak = self.peak_disk = 0
        self._over = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._over.wait(0.1):
            self.peak = max(self.peak, _resident(self.pid))
            self.peak_disk = max(self.peak_disk, sum(_disk_use(path) for path in self.watched))

    def end(self) -> None:
        """Stop looking."""
        self._over.set()
        self.join()


def _resident(pid: int) -> int:
    try:
        root = psutil.Process(pid)
        processes = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    total = 0
    for process in processes:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue  # it ended between listing and looking
    return total


def _disk_use(directory: pathlib.Path) -> int:
    total = 0
    for path in directory.rglob("*"):
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue  # it was temporary indeed
        total += status.st_blocks * 512
    return total
