# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every line that a log directory held at a snapshot is restored exactly once, whatever rotation did to it."""

from __future__ import annotations

import collections
import os
import pathlib
import secrets
import threading

import pytest

from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import GuardError, SourceChanged
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.manifest import INCREMENT
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import logs as engine
from support.log_chain import Chain, LogDirectory, check

ACTIVE = "audit.log"


def test_only_new_lines_are_stored(logs: LogDirectory, chain: Chain) -> None:
    logs.append(ACTIVE, 2)
    taken = chain.increment()
    assert chain.last is not None
    assert chain.last.new_bytes == sum(map(len, logs.lines[-2:]))
    assert taken.base == taken.parent == chain.opened[0].manifest.snapshot
    check(logs, chain)
    assert chain.restored() == {ACTIVE: b"".join(logs.lines)}


def test_nothing_new(logs: LogDirectory, chain: Chain) -> None:
    chain.nothing_new()
    chain.lose_state()
    chain.nothing_new()
    os.utime(logs.path(ACTIVE), (1, 1))
    os.chmod(logs.path(ACTIVE), 0o600)
    logs.rename(ACTIVE, "old/other.name")
    chain.nothing_new()


@pytest.mark.parametrize("lost", [False, True], ids=["state", "index"])
@pytest.mark.parametrize("name", ["audit.log.1", "audit.log-20240520", "audit.log-20240520.1", "old/deep/er/a"])
def test_rotation_by_rename(logs: LogDirectory, chain: Chain, name: str, lost: bool) -> None:
    logs.append(ACTIVE)
    logs.rename(ACTIVE, name)
    logs.append(name)  # a writer that has not reopened it yet
    logs.append(ACTIVE)
    if lost:
        chain.lose_state()
    chain.increment()
    check(logs, chain)
    logs.append(ACTIVE)
    chain.increment()
    check(logs, chain)
    assert set(chain.restored()) == {ACTIVE, name}


def test_numbered_rotation_moves_all_names_by_one(logs: LogDirectory, chain: Chain) -> None:
    for _round in range(4):
        for number in (3, 2, 1):
            if logs.path(f"{ACTIVE}.{number}").exists():
                logs.rename(f"{ACTIVE}.{number}", f"{ACTIVE}.{number + 1}")
        logs.rename(ACTIVE, f"{ACTIVE}.1")
        logs.append(ACTIVE)
        chain.increment()
        check(logs, chain)
    assert chain.restored() == {path.name: path.read_bytes() for path in logs.root.iterdir()}


def test_two_logs_that_swap_their_names(logs: LogDirectory, chain: Chain) -> None:
    logs.append("other.log")
    chain.increment()
    logs.rename(ACTIVE, "x")
    logs.rename("other.log", ACTIVE)
    logs.rename("x", "other.log")
    logs.append(ACTIVE)
    logs.append("other.log")
    chain.increment()
    check(logs, chain)


class TestCopyAndTruncate:
    def test_between_increments(self, logs: LogDirectory, chain: Chain) -> None:
        logs.append(ACTIVE)
        logs.copytruncate(ACTIVE, f"{ACTIVE}.1")
        logs.append(ACTIVE, 1)
        chain.increment()
        check(logs, chain)
        logs.append(ACTIVE)
        chain.increment()
        check(logs, chain)

    def test_regrown_beyond_the_saved_offset(self, logs: LogDirectory, chain: Chain) -> None:
        logs.copytruncate(ACTIVE, f"{ACTIVE}.1")
        logs.append(ACTIVE, 50)
        chain.increment()
        check(logs, chain)

    @pytest.mark.parametrize("more", [0, 2])
    def test_copied_and_not_yet_truncated(self, logs: LogDirectory, chain: Chain, more: int) -> None:
        """Also when the writer goes on between copy and truncation: then the copy lacks what was saved."""
        logs.append(ACTIVE)
        logs.copy(ACTIVE, f"{ACTIVE}.1")
        logs.append(ACTIVE, more)
        chain.increment()
        check(logs, chain)
        assert chain.last is not None
        assert chain.last.copies == [(f"{ACTIVE}.1", ACTIVE)]
        os.truncate(logs.path(ACTIVE), 0)
        logs.append(ACTIVE, 1)
        logs.compress(f"{ACTIVE}.1")
        chain.increment()
        check(logs, chain)
        logs.append(ACTIVE, 1)
        chain.lose_state()
        chain.increment()
        check(logs, chain)

    def test_in_the_full(self, logs: LogDirectory) -> None:
        chain = Chain(logs.root)
        logs.copy(ACTIVE, f"{ACTIVE}.1")
        logs.append(ACTIVE)
        chain.full()
        check(logs, chain)
        assert set(chain.restored()) == {ACTIVE}

    def test_without_a_copy(self, logs: LogDirectory, chain: Chain) -> None:
        os.truncate(logs.path(ACTIVE), 0)
        logs.append(ACTIVE, 2)
        chain.increment()
        check(logs, chain)
        assert set(chain.restored()) == {ACTIVE, f"{ACTIVE}.stream-1"}

    @pytest.mark.parametrize("padding", [0, 3_000_000])
    def test_by_a_writer_that_does_not_append(self, logs: LogDirectory, chain: Chain, padding: int) -> None:
        """It goes on at its own offset: a hole takes the place of what was cut."""
        logs.append(ACTIVE, 1, padding=padding)
        chain.increment()
        offset = logs.path(ACTIVE).stat().st_size
        logs.copytruncate(ACTIVE, f"{ACTIVE}.1")
        line = logs.line()
        with logs.path(ACTIVE).open("r+b") as file:
            file.seek(offset)
            file.write(line)
        logs.lines.append(bytes(offset) + line)  # zeros and all, it is one line
        chain.increment()
        check(logs, chain)
        logs.append(ACTIVE)
        chain.increment()
        check(logs, chain)
        assert chain.restored()[ACTIVE] == logs.path(ACTIVE).read_bytes()
        again = Chain(logs.root)
        again.full()
        check(logs, again)

    def test_while_it_is_read(self, logs: LogDirectory, chain: Chain, tmp_path: pathlib.Path) -> None:
        """Not a mixture of two files: the run is refused, and the next one finds all."""
        logs.append(ACTIVE, 2)
        full = chain.opened[0].manifest.snapshot
        planned = engine.plan_logs(str(logs.root), chain.known, [full], INCREMENT, str(tmp_path))
        logs.copytruncate(ACTIVE, f"{ACTIVE}.1")
        logs.append(ACTIVE, 20)
        with pytest.raises(SourceChanged, match="truncated"):
            chain.carry_out(planned)
        chain.increment()
        check(logs, chain)


class TestGone:
    def test_removed_logs_come_back(self, logs: LogDirectory, chain: Chain) -> None:
        logs.append("deep/er/old.log")
        logs.rename(ACTIVE, f"{ACTIVE}.1")
        logs.append(ACTIVE)
        chain.increment()
        logs.remove("deep/er/old.log")
        os.removedirs(logs.path("deep/er"))
        logs.remove(f"{ACTIVE}.1")
        logs.append(ACTIVE)
        chain.increment()
        check(logs, chain)
        assert set(chain.restored()) == {ACTIVE, f"{ACTIVE}.1", "deep/er/old.log"}
        logs.append("deep")  # a file where the directory was
        logs.rename(ACTIVE, f"{ACTIVE}.1")
        chain.increment()
        check(logs, chain)
        chain.lose_state()
        logs.append("deep")
        chain.increment()
        check(logs, chain)

    def test_a_log_that_was_away(self, logs: LogDirectory, chain: Chain, tmp_path: pathlib.Path) -> None:
        logs.path(ACTIVE).rename(tmp_path / "away")
        logs.append("other.log")
        chain.increment()
        (tmp_path / "away").rename(logs.path("back.log"))
        logs.append("back.log")
        chain.increment()
        check(logs, chain)
        assert set(chain.restored()) == {"other.log", "back.log"}

    def test_after_the_next_full_they_are_the_older_snapshots(self, logs: LogDirectory, chain: Chain) -> None:
        kept = list(logs.lines)
        logs.rename(ACTIVE, f"{ACTIVE}.1")
        logs.append(ACTIVE)
        chain.increment()
        logs.remove(f"{ACTIVE}.1")
        chain.full()
        assert chain.lines() == collections.Counter(logs.lines[len(kept) :])
        assert chain.lines(1) == collections.Counter(logs.lines)


def test_clock_that_goes_back(logs: LogDirectory, chain: Chain) -> None:
    for name in (f"{ACTIVE}-20240520", f"{ACTIVE}-20240519"):
        logs.append(ACTIVE)
        os.utime(logs.path(ACTIVE), (10**9, 10**9))
        logs.rename(ACTIVE, name)
        logs.append(ACTIVE)
        os.utime(logs.path(ACTIVE), (10**9 - 86400, 10**9 - 86400))
        chain.increment()
        check(logs, chain)


def test_names_that_are_no_text(logs: LogDirectory, chain: Chain) -> None:
    name = os.fsdecode(b"audit-\xff\xfe\n.log")
    logs.append(name)
    chain.increment()
    logs.rename(name, name + ".1")
    logs.append(name + ".1")
    logs.append(name)
    chain.lose_state()
    chain.increment()
    check(logs, chain)
    assert set(chain.restored()) == {ACTIVE, name, name + ".1"}


def test_empty_files_and_symbolic_links(logs: LogDirectory, chain: Chain) -> None:
    for name in ("empty.log", "empty.gz"):
        logs.path(name).touch()
    logs.path("current").symlink_to(ACTIVE)
    chain.nothing_new()
    logs.append(ACTIVE)
    chain.increment()
    check(logs, chain)
    assert set(chain.restored()) == {ACTIVE, "empty.log", "empty.gz"}
    logs.append("empty.log")
    chain.increment()
    check(logs, chain)


def test_many_increments_fulls_and_points_in_time(logs: LogDirectory, chain: Chain) -> None:
    seen = {0: len(logs.lines)}
    for number in range(1, 30):
        logs.append(ACTIVE)
        if number % 7 == 3:
            logs.rename(ACTIVE, f"{ACTIVE}-{number}")
        if number % 11 == 5:
            logs.append(ACTIVE)
            logs.compress(ACTIVE)
            logs.rename(f"{ACTIVE}.gz", f"{ACTIVE}-{number}.gz")
        if number == 15:
            chain.full()
        else:
            chain.increment()
        seen[number] = len(logs.lines)
    for number, count in seen.items():
        assert chain.lines(number) == collections.Counter(logs.lines[:count]), number


def test_no_log_at_all_is_an_error(tmp_path: pathlib.Path) -> None:
    with pytest.raises(GuardError, match="mounted"):
        Chain(tmp_path / secrets.token_hex(4)).full()
    (tmp_path / "empty").mkdir()
    with pytest.raises(GuardError, match="at least one log file"):
        Chain(tmp_path / "empty").full()


def test_names_that_never_stand_still(logs: LogDirectory, chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rename between two looks could hide a file or show it twice: then it is looked at again."""
    real = engine.scan
    rounds = iter(range(100))

    def scan_and_rotate(root: str, exclude: tuple[str, ...]) -> object:
        found = real(root, exclude)
        number = next(rounds)
        if number < quiet_after:
            logs.rename(ACTIVE, f"{ACTIVE}.{number}")
            logs.append(ACTIVE)
        return found

    monkeypatch.setattr(engine, "scan", scan_and_rotate)
    quiet_after = 3
    chain.increment()
    check(logs, chain)
    quiet_after = 100
    with pytest.raises(SourceChanged):
        chain.take(INCREMENT)


def test_a_writer_that_never_stops(logs: LogDirectory, chain: Chain) -> None:
    """Rotation and writing go on while snapshots are taken: the last one has it all."""
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.wait(0.001):
            number += 1
            logs.append(ACTIVE)
            if number % 5 == 0:
                logs.rename(ACTIVE, f"{ACTIVE}.{number}")

    writer = threading.Thread(target=write)
    writer.start()
    taken = 0
    try:
        while taken < 10:
            try:
                taken += chain.take(INCREMENT) is not None
            except SourceChanged:
                continue
    finally:
        stop.set()
        writer.join()
    chain.take(INCREMENT)
    check(logs, chain)
