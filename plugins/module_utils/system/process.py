# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run external programs: no shell, a clean environment, bounded time, nothing left behind.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import typing as t

from ..errors import GuardError

# Measured: with the default 64 KiB a 256 MiB part costs 4,096 context switches each way.
PIPE_BYTES = 1 << 20
F_SETPIPE_SZ = 1031  # fcntl.F_SETPIPE_SZ exists only from Python 3.10 on

_PASSED_ON = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "TZ")
_PROXIES = ("http_proxy", "https_proxy", "no_proxy")  # without them a host behind one reaches no store


def clean_environment(extra: dict[str, str] | None = None) -> dict[str, str]:
    """What a child may see: nothing secret, and nothing that bends it (AWS_CA_BUNDLE breaks rclone 1.60)."""
    wanted = (*_PASSED_ON, *_PROXIES, *(name.upper() for name in _PROXIES))
    env = {name: os.environ[name] for name in wanted if name in os.environ}
    env.setdefault("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    env["LC_ALL"] = "C.UTF-8"
    env.update(extra or {})
    return env


def find_program(name: str, hint: str = "") -> str:
    """The absolute path of a program; a name with a slash is taken as it is."""
    found = shutil.which(name)
    if not found:
        raise GuardError(name, "an executable program", "none on PATH", hint)
    return found


@functools.lru_cache(maxsize=1)
def _dies_with_us() -> tuple[str, ...]:
    """What goes before a command so that the kernel kills it when the thread that started it is gone.

    Without it a kill -9 of ours is, to a child that reads a pipe, a regular end of its input: an upload would
    complete a part that is cut, perhaps while the next run stores the whole one under the same name.
    Empty where util-linux is older than 2.33 or absent.
    """
    program = shutil.which("setpriv")
    if program is None:
        return ()
    command = (program, "--pdeathsig", "KILL", "--")
    tried = subprocess.run(
        [*command, program, "--version"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    return command if tried.returncode == 0 else ()


def widen_pipe(fd: int) -> None:
    """Make a pipe larger; where the user's pipe budget is used up it stays as it is, only slower."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, F_SETPIPE_SZ, PIPE_BYTES)


_running: set[Child] = set()  # so that a signal can end them all
_running_lock = threading.RLock()  # the handler of a signal may interrupt its holder


def end_children() -> None:
    """Kill every child that runs now; whoever waits for one sees it end."""
    with _running_lock:
        for child in list(_running):
            child.kill()


class Child:
    """A running program with its stderr kept (the last 64 KiB) and a deadline.

    Use as a context manager: whatever happens inside, no process is left when it is left.
    ``secret`` is written to a pipe whose number replaces ``{secret_fd}`` in the arguments.
    ``user`` makes the program run as that numeric user, with ``group`` and only ``extra_groups`` beside it.
    """

    def __init__(
        self,
        argv: t.Sequence[str],
        *,
        stdin: int | None = subprocess.DEVNULL,
        stdout: int | None = subprocess.DEVNULL,
        env: dict[str, str] | None = None,
        secret: bytes | None = None,
        timeout: float = 3600.0,
        cwd: str | None = None,
        user: int | None = None,
        group: int | None = None,
        extra_groups: t.Sequence[int] = (),
    ):
        self.argv = list(argv)
        self.timeout = timeout
        self.timed_out = False
        if shutil.which(self.argv[0]) is None:  # setpriv would tell of it too late
            raise GuardError(self.argv[0], "a program that starts", "no executable file of that name")
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        secret_fd = _pipe_with(secret) if secret is not None else None
        try:
            self.process = subprocess.Popen(
                [*_dies_with_us(), *(str(secret_fd) if a == "{secret_fd}" else a for a in self.argv)],
                stdin=stdin,
                stdout=stdout,
                stderr=self._errors,
                env=clean_environment() if env is None else env,
                pass_fds=() if secret_fd is None else (secret_fd,),
                start_new_session=True,
                cwd=cwd,
                user=user,
                group=group,
                # Without this a program that gives up root would keep root's supplementary groups.
                extra_groups=None if user is None else list(extra_groups),
            )
        except OSError as error:
            self._errors.close()
            raise GuardError(self.argv[0], "a program that starts", str(error)) from error
        finally:
            if secret_fd is not None:
                os.close(secret_fd)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                widen_pipe(stream.fileno())
        self._deadline = threading.Timer(timeout, self._expire)
        self._deadline.daemon = True
        self._deadline.start()
        with _running_lock:
            _running.add(self)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._deadline.cancel()
        self.kill()
        with _running_lock:
            _running.discard(self)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):  # a broken pipe was reported by whoever wrote
                    stream.close()
        self.process.wait()
        self._errors.close()

    def _expire(self) -> None:
        self.timed_out = True
        self.kill()

    def kill(self) -> None:
        """End the child and all it started."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    @property
    def stdin(self) -> t.IO[bytes]:
        """The pipe to the child; only where it was asked for."""
        if self.process.stdin is None:
            raise RuntimeError("the child has no pipe as its stdin")
        return self.process.stdin

    @property
    def stdout(self) -> t.IO[bytes]:
        """The pipe from the child; only where it was asked for."""
        if self.process.stdout is None:
            raise RuntimeError("the child has no pipe as its stdout")
        return self.process.stdout

    def wait(self) -> int:
        """The exit code. The deadline stays in force; a killed child gives a negative number."""
        return self.process.wait()

    def errors(self) -> str:
        """The end of what the program wrote to stderr."""
        size = os.fstat(self._errors.fileno()).st_size
        return os.pread(self._errors.fileno(), 65536, max(0, size - 65536)).decode("utf-8", "replace").strip()


class Result(t.NamedTuple):
    """What a program that ran to its end left."""

    rc: int
    stdout: bytes
    stderr: str
    timed_out: bool
    seconds: float


def run(
    argv: t.Sequence[str],
    *,
    data: bytes | None = None,
    env: dict[str, str] | None = None,
    secret: bytes | None = None,
    timeout: float = 600.0,
    cwd: str | None = None,
    user: int | None = None,
    group: int | None = None,
    extra_groups: t.Sequence[int] = (),
) -> Result:
    """Run a program to its end, give it ``data`` on stdin, keep its stdout in memory."""
    started = time.monotonic()
    with Child(
        argv,
        stdin=subprocess.DEVNULL if data is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=env,
        secret=secret,
        timeout=timeout,
        cwd=cwd,
        user=user,
        group=group,
        extra_groups=extra_groups,
    ) as child:
        stdout, _none = child.process.communicate(data)
        return Result(child.wait(), stdout, child.errors(), child.timed_out, time.monotonic() - started)


def _pipe_with(secret: bytes) -> int:
    """The reading end of a pipe that holds ``secret``; it must fit the pipe, so that nobody waits."""
    if len(secret) > 4096:
        raise GuardError("secret", "at most 4096 bytes", f"{len(secret)} bytes")
    reader, writer = os.pipe()
    try:
        os.write(writer, secret)
    finally:
        os.close(writer)
    return reader
