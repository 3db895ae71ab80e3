# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every operation works with, and how it tells of its progress.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import glob
import json
import os
import tempfile
import threading
import time
import typing as t

from ..errors import GuardError
from ..format.repository import Repository
from ..services.gpg import Gpg
from ..services.keys.base import KeyProvider
from ..system.files import lock, make_private_directory, scratch_directory, write_atomically
from ..system.process import end_children
from .part_io import Cancelled, Traffic

_STATE_FORMAT = 1  # one more whenever what is kept changes its form: what an older release left is then not read

Work = t.TypeVar("Work")
Answer = t.TypeVar("Answer")


@dataclasses.dataclass
class Session:
    """One run of one operation on one layer of one instance."""

    repository: Repository
    layer: str
    gpg: Gpg
    keys: KeyProvider | None  # None: only what needs no key can be done
    state_directory: str
    workers: int
    attempts: int  # tries for each part
    part_timeout: float  # seconds for each part
    progress: Progress
    dry: bool = False  # check mode: look, change nothing
    fence: str = ""  # that this run goes by; empty: there is none
    warnings: list[str] = dataclasses.field(default_factory=list)  # what the user should see though the run goes on

    def warn(self, text: str) -> None:
        """Keep a warning; an empty one is none."""
        if text and text not in self.warnings:
            self.warnings.append(text)

    def state_path(self, suffix: str) -> str:
        """A file of this instance and layer in the state directory."""
        return os.path.join(self.state_directory, self.repository.instance, f"{self.layer}.{suffix}")

    def prepare(self) -> None:
        """Make the instance's part of the state directory."""
        make_private_directory(os.path.dirname(self.state_path("lock")))

    @contextlib.contextmanager
    def alone(self) -> t.Iterator[None]:
        """Hold the layer's lock, so that two runs on this host never overlap."""
        self.prepare()
        with lock(self.state_path("lock"), f"{self.repository.instance}/{self.layer}"):
            # Nobody else writes state now: what is not finished is of a run that was killed.
            for left in glob.glob(f"{glob.escape(self.state_path(''))}*.tmp"):
                os.unlink(left)
            yield

    @contextlib.contextmanager
    def scratch(self, purpose: str) -> t.Iterator[str]:
        """A private directory beside the state, for what may be large; gone afterwards.

        Check mode makes no state directory: where there is none, it takes the system's place for temporary files.
        """
        parent, prefix = os.path.dirname(self.state_path("x")), f"{self.layer}.{purpose}-"
        if not self.dry:
            self.prepare()
        elif not os.path.isdir(parent):
            parent, prefix = tempfile.gettempdir(), f"guardops-{prefix}"
        with scratch_directory(parent, prefix) as path:
            yield path

    def require_keys(self) -> KeyProvider:
        """The key provider, or an error that says which option is missing."""
        if self.keys is None:
            raise GuardError("option key", "a key provider", "none", "This needs the data key: set the option key.")
        return self.keys

    def data_key_context(self, snapshot: str) -> dict[str, str]:
        """What a data key is bound to, so that it opens no other snapshot."""
        return {"instance": self.repository.instance, "layer": self.layer, "snapshot": snapshot}

    def traffic(self, passphrase: bytes) -> Traffic:
        """What the parts of one transfer share."""
        return Traffic(self.repository.store, self.gpg, passphrase, self.part_timeout, self.progress.advance)

    def load_state(self, suffix: str) -> dict[str, t.Any]:
        """A state file's content; empty where there is none or it is damaged: it is only ever a short cut."""
        return read_state(self.state_path(suffix), self.repository.where(self.layer))

    def save_state(self, suffix: str, state: dict[str, t.Any]) -> None:
        """Replace a state file. It names the repository, so that another one never takes it for its own."""
        self.prepare()
        state = {**state, "format": _STATE_FORMAT, "repository": self.repository.where(self.layer)}
        write_atomically(self.state_path(suffix), json.dumps(state).encode())

    def drop_state(self, suffix: str) -> None:
        """Remove a state file."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.state_path(suffix))


def read_state(path: str, repository: str) -> dict[str, t.Any]:
    """What `Session.save_state` left for this place in a repository; empty where there is nothing of the kind."""
    try:
        with open(path, "rb") as handle:
            raw = json.load(handle)
    except (FileNotFoundError, ValueError):
        return {}
    ours = {"format": _STATE_FORMAT, "repository": repository}
    return raw if isinstance(raw, dict) and {**raw, **ours} == raw else {}


class Progress:
    """Tells a file, at most twice a second, how far the run is: JSON that `watch cat` can show."""

    def __init__(self, path: str | None = None):
        self.path = path
        self.phase = ""
        self.total = 0
        self.done = 0
        self._started = time.monotonic()
        self._written = 0.0
        self._lock = threading.Lock()

    def begin(self, phase: str, total: int = 0) -> None:
        """A new phase, of ``total`` bytes (0: not known)."""
        with self._lock:
            self.phase, self.total, self.done = phase, total, 0
            self._started = time.monotonic()
            self._write()

    def advance(self, count: int) -> None:
        """``count`` more bytes passed."""
        with self._lock:
            self.done += count
            if time.monotonic() - self._written > 0.5:
                self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        if self.path is None:
            return
        seconds = self._written - self._started
        raw = {"phase": self.phase, "bytes": self.done, "of_bytes": self.total, "seconds": round(seconds, 1)}
        # Neither synced nor fatal: whoever watches sees the next one.
        temporary = f"{self.path}.tmp"
        with contextlib.suppress(OSError):
            with open(temporary, "w", encoding="utf-8") as handle:
                json.dump(raw, handle)
            os.replace(temporary, self.path)


def in_parallel(
    items: t.Sequence[Work], workers: int, traffic: Traffic, work: t.Callable[[Work], Answer]
) -> t.Iterator[tuple[Work, Answer]]:
    """Do ``work`` on all items, many at once; (item, answer) as they end. The first failure stops the rest."""
    with concurrent.futures.ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        futures = {pool.submit(work, item): item for item in items}
        try:
            for future in concurrent.futures.as_completed(futures):
                yield futures[future], future.result()
        except BaseException as error:
            traffic.cancelled.set()
            for future in futures:
                future.cancel()
            end_children()  # a store that stalls would hold the others for minutes
            if isinstance(error, Cancelled):
                concurrent.futures.wait(futures)
                raise _first_failure(list(futures)) from error
            raise


def _first_failure(futures: t.Sequence[concurrent.futures.Future[t.Any]]) -> BaseException:
    for future in futures:
        error = None if future.cancelled() else future.exception()
        if error is not None and not isinstance(error, Cancelled):
            return error
    return Cancelled()
