# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Any sequence of writing, rotation, loss and backups: all that was there at a snapshot is restored exactly once.

Real files, a real store and real gpg; the model is a list of lines for each name. The same with snapshots in
memory goes through many more and longer sequences in the same time.
"""

from __future__ import annotations

import collections
import os
import pathlib
import shutil
import tempfile

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.manifest import FULL, INCREMENT
from support.engine import Engine
from support.log_chain import PACK, Chain, LogDirectory, whole_lines

ACTIVE = "audit.log"
SCHEMES = ("numbered", "dated", "moved")


class Logs(RuleBasedStateMachine):
    """A log directory with one writer; whoever rotates keeps to what logrotate can do."""

    def __init__(self) -> None:
        super().__init__()
        self.place = pathlib.Path(tempfile.mkdtemp(prefix="logs-stateful-"))
        self.logs = LogDirectory(self.place / "logs")
        self.engine = Engine(self.place, "logs")
        self.model: dict[str, list[bytes]] = {ACTIVE: []}  # whole lines on disk
        self.saved: set[bytes] = set()  # what a restore of the newest snapshot has to give
        self.torn = False
        self.rotations = 0

    def teardown(self) -> None:
        shutil.rmtree(self.place)

    @initialize(count=st.integers(1, 3))
    def first_lines(self, count: int) -> None:
        self.append(count)

    # -- the writer

    @rule(count=st.integers(1, 4))
    def append(self, count: int) -> None:
        if self.torn:
            self.complete()
        self.logs.append(ACTIVE, count)
        self.model.setdefault(ACTIVE, []).extend(self.logs.lines[-count:])

    @precondition(lambda self: not self.torn)
    @rule()
    def tear(self) -> None:
        self.logs.tear(ACTIVE)
        self.model.setdefault(ACTIVE, [])
        self.torn = True

    def complete(self) -> None:
        self.logs.complete(ACTIVE)
        self.model[ACTIVE].append(self.logs.lines[-1])
        self.torn = False

    # -- logrotate

    def rotated(self) -> list[str]:
        return sorted(name for name in self.model if name != ACTIVE)

    @precondition(lambda self: ACTIVE in self.model and not self.torn)
    @rule(scheme=st.sampled_from(SCHEMES), create=st.booleans())
    def rotate(self, scheme: str, create: bool) -> None:
        self.logs.rename(ACTIVE, target := self.free_name(scheme))
        self.model[target] = self.model.pop(ACTIVE)
        if create:
            self.logs.path(ACTIVE).touch()
            self.model[ACTIVE] = []

    @precondition(lambda self: ACTIVE in self.model and not self.torn)
    @rule(scheme=st.sampled_from(SCHEMES))
    def copytruncate(self, scheme: str) -> None:
        target = self.free_name(scheme)
        self.logs.path(target).parent.mkdir(exist_ok=True)
        self.logs.copytruncate(ACTIVE, target)
        self.model[target], self.model[ACTIVE] = self.model[ACTIVE], []

    def free_name(self, scheme: str) -> str:
        if scheme == "numbered":
            numbered = [name for name in self.model if name.startswith(f"{ACTIVE}.")]
            for name in sorted(numbered, key=lambda name: -int(name.split(".")[2])):
                number, dot, suffix = name[len(ACTIVE) + 1 :].partition(".")
                self.logs.rename(name, target := f"{ACTIVE}.{int(number) + 1}{dot}{suffix}")
                self.model[target] = self.model.pop(name)
            return f"{ACTIVE}.1"
        self.rotations += 1
        return f"{ACTIVE}-20240520.{self.rotations}" if scheme == "dated" else f"old/{self.rotations}.log"

    @precondition(lambda self: any(pathlib.Path(name).suffix not in PACK for name in self.rotated()))
    @rule(data=st.data(), suffix=st.sampled_from(sorted(PACK)), interrupted=st.booleans())
    def compress(self, data: st.DataObject, suffix: str, interrupted: bool) -> None:
        plain = [name for name in self.rotated() if pathlib.Path(name).suffix not in PACK]
        name = data.draw(st.sampled_from(plain))
        self.logs.compress(name, suffix, keep=interrupted, part=0.6 if interrupted else 1)
        if interrupted:  # seen by a backup, and then done
            self.back_up(INCREMENT)
            self.logs.compress(name, suffix)
        self.model[name + suffix] = self.model.pop(name)

    @precondition(lambda self: self.rotated())
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.rotated()))
        self.logs.remove(name)
        del self.model[name]

    # -- bad days

    @rule()
    def lose_state(self) -> None:
        shutil.rmtree(self.place / "state", ignore_errors=True)

    @rule(seconds=st.integers(0, 10**9))
    def step_clock(self, seconds: int) -> None:
        for name in self.model:
            os.utime(self.logs.path(name), (seconds, seconds))

    @rule()
    def move_to_a_new_host(self) -> None:
        """All inodes are new."""
        for name in self.model:
            shutil.copy2(self.logs.path(name), copy := self.place / "copy")
            copy.rename(self.logs.path(name))

    # -- snapshots

    def take(self, kind: str) -> str | None:
        """The type of the snapshot that was taken, if one was."""
        outcome = self.engine.backup(self.logs.root, type=kind)
        return outcome.type if outcome.changed else None

    def restored(self) -> collections.Counter[bytes]:
        """All whole lines that a restore gives."""
        target = self.place / "restored"
        shutil.rmtree(target, ignore_errors=True)
        self.engine.restore(target)
        return whole_lines([path.read_bytes() for path in target.rglob("*") if path.is_file()])

    @rule(kind=st.sampled_from([FULL, INCREMENT, INCREMENT]))
    def back_up(self, kind: str) -> None:
        if not self.model:
            return
        on_disk = {line for lines in self.model.values() for line in lines}
        taken = self.take(kind)
        assert taken == FULL or kind == INCREMENT
        assert taken is not None or on_disk <= self.saved
        self.saved = on_disk if taken == FULL else self.saved | on_disk

    @precondition(lambda self: self.saved)
    @rule()
    def restore(self) -> None:
        assert self.restored() == collections.Counter(self.saved)


class InMemory(Logs):
    """Without gpg and store."""

    def __init__(self) -> None:
        super().__init__()
        self.chain = Chain(self.logs.root)

    def take(self, kind: str) -> str | None:
        taken = self.chain.take(kind if self.chain.opened else FULL)
        return taken.type if taken else None

    def restored(self) -> collections.Counter[bytes]:
        found = self.chain.lines()
        assert self.chain.lines_by_hand() == found
        return found

    @rule()
    def lose_state(self) -> None:
        if self.chain.opened:
            self.chain.lose_state()


_ALL = list(HealthCheck)  # backups are slow, and rules that do not apply are skipped often
Logs.TestCase.settings = settings(max_examples=15, stateful_step_count=12, deadline=None, suppress_health_check=_ALL)
InMemory.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=_ALL
)
TestLogs = Logs.TestCase
TestInMemory = InMemory.TestCase
