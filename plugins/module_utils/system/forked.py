# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Do pieces of one job in processes of their own: for work that Python's threads would do one after the other.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import traceback
import typing as t

from .process import widen_pipe

Result = t.TypeVar("Result")


def run_forked(job: t.Callable[[int], Result], count: int) -> list[Result]:
    """``[job(0), …, job(count - 1)]``, each in a forked copy of this process; its result must be picklable.

    A job can change what belongs to its process (its working directory) and is gone when this returns.
    An exception in a job is raised here as a RuntimeError with its traceback; what a caller is to act on
    belongs into the job's result. No threads may be running, for a fork copies their locks but not them.
    """
    children: list[tuple[int, int]] = []
    try:
        for number in range(count):
            children.append(_start(job, number, [reader for _pid, reader in children]))
        return [t.cast(Result, _result(reader)) for _pid, reader in children]
    finally:
        for pid, reader in children:
            os.close(reader)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)  # only after a failure is there still one that works
            os.waitpid(pid, 0)


def _start(job: t.Callable[[int], t.Any], number: int, inherited: list[int]) -> tuple[int, int]:
    reader, writer = os.pipe()
    widen_pipe(reader)
    pid = os.fork()
    if pid:
        os.close(writer)
        return pid, reader
    # From here on the child: it must never return into the caller's code, nor run its clean-up.
    status = 1
    try:
        for fd in [reader, *inherited]:
            os.close(fd)
        try:
            answer: tuple[t.Any, str] = (job(number), "")
        except Exception:  # noqa: BLE001 - not handled here: the parent raises it again
            answer = (None, traceback.format_exc())
        with os.fdopen(writer, "wb") as handle:
            pickle.dump(answer, handle, pickle.HIGHEST_PROTOCOL)
        status = 0
    finally:
        os._exit(status)


def _result(reader: int) -> t.Any:
    with os.fdopen(reader, "rb", closefd=False) as handle:
        data = handle.read()
    if not data:
        raise RuntimeError("a forked worker ended without a result: it was killed, or out of memory")
    value, trace = pickle.loads(data)  # noqa: S301 - from our own child, by a pipe of our own
    if trace:
        raise RuntimeError(f"a forked worker failed:\n{trace}")
    return value
