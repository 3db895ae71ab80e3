# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every line that a log directory held at a snapshot is restored exactly once, whatever rotation did to it."""

from __future__ import annotations

import collections
import os
import pathlib
import random
import secrets
import threading

import pytest

from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import GuardError, SourceChanged
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format import streams
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.manifest import FULL, INCREMENT
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import logs as engine
from support.log_chain import PACK, Chain, LogDirectory

ACTIVE = "audit.log"


@pytest.fixture(name="logs")
def fixture_logs(tmp_path: pathlib.Path) -> LogDirectory:
    logs = LogDirectory(tmp_path / "logs")
    logs.append(ACTIVE, 5)
    return logs


@pytest.fixture(name="chain")
def fixture_chain(logs: LogDirectory) -> Chain:
    """A chain whose full holds the first five lines."""
    chain = Chain(logs.root)
    chain.full()
    return chain


def check(logs: LogDirectory, chain: Chain) -> None:
    """Every line once, by the collection and by hand."""
    expected = collections.Counter(logs.lines)
    assert set(expected.values()) == {1}
    assert chain.lines() == expected
    assert chain.lines_by_hand() == expected


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


class TestCompression:
    @pytest.mark.parametrize("lost", [False, True], ids=["state", "index"])
    @pytest.mark.parametrize("unsaved", [0, 3])
    @pytest.mark.parametrize("suffix", sorted(PACK))
    def test_between_increments(self, logs: LogDirectory, chain: Chain, suffix: str, unsaved: int, lost: bool) -> None:
        logs.append(ACTIVE, unsaved)
        logs.rename(ACTIVE, f"{ACTIVE}.1")
        logs.compress(f"{ACTIVE}.1", suffix)
        logs.append(ACTIVE, 1)
        if lost:
            chain.lose_state()
        chain.increment()
        check(logs, chain)
        assert set(chain.restored()) == {ACTIVE, f"{ACTIVE}.1"}, "saved as lines, so lines come back"
        chain.nothing_new()
        logs.rename(f"{ACTIVE}.1{suffix}", f"{ACTIVE}.2{suffix}")
        logs.append(ACTIVE, 1)
        chain.increment()
        check(logs, chain)

    @pytest.mark.parametrize("suffix", sorted(PACK))
    def test_of_a_log_that_was_never_seen_plain(self, logs: LogDirectory, chain: Chain, suffix: str) -> None:
        logs.append("new.log")
        logs.compress("new.log", suffix)
        chain.increment()
        check(logs, chain)
        assert chain.restored()[f"new.log{suffix}"] == logs.path(f"new.log{suffix}").read_bytes()
        chain.lose_state()
        chain.nothing_new()

    @pytest.mark.parametrize("suffix", sorted(PACK))
    def test_in_progress(self, logs: LogDirectory, chain: Chain, suffix: str) -> None:
        """The plain file and a half-written compressed one: only the first counts."""
        logs.append(ACTIVE, 400)
        logs.rename(ACTIVE, f"{ACTIVE}.1")
        logs.append(ACTIVE)
        for part in (0.0, 0.002, 0.5, 0.99, 1.0):
            logs.compress(f"{ACTIVE}.1", suffix, keep=True, part=part)
            logs.append(ACTIVE, 1)
            chain.increment()
            check(logs, chain)
            assert Chain(logs.root).full()
        logs.remove(f"{ACTIVE}.1")
        logs.append(ACTIVE, 1)
        chain.increment()
        check(logs, chain)

    @pytest.mark.parametrize("part", [0.0, 0.3, 0.9])
    def test_in_progress_during_the_full(self, logs: LogDirectory, part: float) -> None:
        logs.append(f"{ACTIVE}.1", 300)
        logs.compress(f"{ACTIVE}.1", keep=True, part=part)
        chain = Chain(logs.root)
        chain.full()
        assert chain.lines() == collections.Counter(logs.lines)
        logs.compress(f"{ACTIVE}.1")
        logs.append(ACTIVE)
        chain.increment()
        assert chain.lines() == collections.Counter(logs.lines)

    @pytest.mark.parametrize("name", ["audit.log.1", "audit.old", "audit.log.gz.1"])
    def test_tells_by_content_not_by_name(self, logs: LogDirectory, chain: Chain, name: str) -> None:
        logs.append(ACTIVE)
        logs.compress(ACTIVE)
        logs.rename(f"{ACTIVE}.gz", name)
        logs.append("plain.gz")
        chain.increment()
        check(logs, chain)

    def test_of_a_saved_log_before_a_full(self, logs: LogDirectory, chain: Chain, tmp_path: pathlib.Path) -> None:
        """The full keeps it as it is, and so does what follows."""
        logs.append(ACTIVE)
        logs.rename(ACTIVE, f"{ACTIVE}.1")
        logs.compress(f"{ACTIVE}.1")
        logs.append(ACTIVE)
        chain.full()
        check(logs, chain)
        (tmp_path / "x").write_bytes(logs.path(f"{ACTIVE}.1.gz").read_bytes())
        (tmp_path / "x").rename(logs.path(f"{ACTIVE}.1.gz"))
        chain.nothing_new()

    def test_name_of_the_lines_is_taken(self, logs: LogDirectory, chain: Chain) -> None:
        """A compressed and a plain log of nearly the same name: neither hides the other."""
        logs.rename(ACTIVE, "a.log")
        logs.compress("a.log")
        logs.append("a.log", 2)
        chain.increment()
        check(logs, chain)
        assert set(chain.restored()) == {"a.log", "a.log.stream-1"}

    def test_with_a_torn_end_is_final(self, logs: LogDirectory, chain: Chain) -> None:
        logs.tear(ACTIVE)
        content = logs.path(ACTIVE).read_bytes()
        logs.compress(ACTIVE)
        logs.append("new.log")
        chain.increment()
        assert chain.restored()[ACTIVE] == content

    def test_of_a_file_that_grows_compressed(self, logs: LogDirectory, chain: Chain) -> None:
        """A writer that compresses by itself: what is there is saved as it is, and then the rest."""
        packed = PACK[".gz"](b"".join(logs.line() for _number in range(3000)))
        for end in (len(packed) // 3, len(packed) // 2, len(packed)):
            with logs.path("direct.gz").open("ab") as file:
                file.write(packed[file.tell() : end])
            chain.increment()
            assert chain.restored()["direct.gz"] == packed[:end]
        chain.nothing_new()

    @pytest.mark.parametrize("change", ["unpacked", "packed anew"])
    def test_of_what_is_kept_compressed_is_undone(self, logs: LogDirectory, change: str) -> None:
        """No increment can say that: a full starts over."""
        logs.append("old.log")
        logs.compress("old.log")
        chain = Chain(logs.root)
        chain.full()
        logs.remove("old.log.gz")
        logs.path("old.log").write_bytes(b"".join(logs.lines[5:]))
        if change == "packed anew":
            logs.compress("old.log", ".zst")
        logs.append(ACTIVE)
        taken = chain.take(INCREMENT)
        assert taken is not None
        assert taken.type == FULL
        check(logs, chain)


class TestTornLines:
    @pytest.mark.parametrize("first", [FULL, INCREMENT])
    def test_completed_later(self, logs: LogDirectory, chain: Chain, first: str) -> None:
        logs.append(ACTIVE, 1)
        logs.tear(ACTIVE)
        chain.take(first)
        assert chain.last is not None
        assert chain.last.unfinished == [(ACTIVE, 10)]
        assert chain.lines() == collections.Counter(logs.lines)
        chain.nothing_new()
        logs.complete(ACTIVE)
        logs.append(ACTIVE)
        chain.increment()
        check(logs, chain)
        assert chain.restored()[ACTIVE] == logs.path(ACTIVE).read_bytes()

    def test_completed_under_another_name(self, logs: LogDirectory, chain: Chain) -> None:
        logs.tear(ACTIVE)
        chain.full()
        logs.rename(ACTIVE, "b")
        logs.complete(ACTIVE, "b")
        logs.append(ACTIVE)
        chain.lose_state()
        chain.increment()
        check(logs, chain)

    @pytest.mark.parametrize("more", [0, 3])
    def test_cut_by_the_writer(self, logs: LogDirectory, chain: Chain, more: int) -> None:
        size = logs.path(ACTIVE).stat().st_size
        logs.tear(ACTIVE)
        chain.full()
        os.truncate(logs.path(ACTIVE), size)
        logs.append(ACTIVE, more)
        logs.append("other.log")
        chain.increment()
        check(logs, chain)
        assert chain.restored()[ACTIVE] == logs.path(ACTIVE).read_bytes()

    @pytest.mark.parametrize("first", [FULL, INCREMENT])
    def test_no_line_yet(self, logs: LogDirectory, chain: Chain, first: str) -> None:
        logs.tear("new.log")
        logs.append(ACTIVE, 1)
        chain.take(first)
        logs.complete("new.log")
        chain.increment()
        check(logs, chain)

    def test_longer_than_any_buffer(self, logs: LogDirectory, chain: Chain) -> None:
        with logs.path("long.log").open("ab") as file:
            file.write(b"x" * 200_000)
        logs.append(ACTIVE, 1)
        chain.increment()
        assert chain.last is not None
        assert ("long.log", 200_000) in chain.last.unfinished
        with logs.path("long.log").open("ab") as file:
            file.write(b"\n")
        logs.lines.append(b"x" * 200_000 + b"\n")
        chain.increment()
        check(logs, chain)


class TestInodes:
    def test_used_again_after_a_removal(self, logs: LogDirectory, chain: Chain) -> None:
        """The name and the inode of the old log, and a content of its own."""
        inode = logs.path(ACTIVE).stat().st_ino
        data = b"".join(logs.line() for _number in range(9))
        logs.path(ACTIVE).write_bytes(data)  # what a new file with the old inode number looks like
        assert logs.path(ACTIVE).stat().st_ino == inode
        logs.lines += data.splitlines(keepends=True)
        chain.increment()
        check(logs, chain)

    def test_of_an_empty_log_used_again_by_a_copy(self, logs: LogDirectory, chain: Chain) -> None:
        logs.path("empty.log").touch()
        logs.append(ACTIVE, 1)
        chain.increment()
        with logs.path("empty.log").open("ab") as file:
            file.write(logs.path(ACTIVE).read_bytes())
        logs.append(ACTIVE, 1)
        chain.increment()
        check(logs, chain)

    def test_all_new_on_another_host(self, logs: LogDirectory, chain: Chain, tmp_path: pathlib.Path) -> None:
        logs.append(ACTIVE)
        logs.rename(ACTIVE, f"{ACTIVE}.1")
        logs.append(f"{ACTIVE}.2")
        logs.compress(f"{ACTIVE}.2")
        logs.append(ACTIVE)
        chain.increment()
        for name, data in chain.restored().items():
            (tmp_path / "new" / name).parent.mkdir(exist_ok=True)
            (tmp_path / "new" / name).write_bytes(data)
        logs.root = chain.root = tmp_path / "new"
        chain.lose_state()
        chain.nothing_new()
        logs.append(ACTIVE, 1)
        chain.increment()
        check(logs, chain)

    def test_device_number_changed_by_a_restart(
        self, logs: LogDirectory, chain: Chain, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for stream in chain.known:
            stream.identity = (stream.identity[0] + 1, *stream.identity[1:])
        with monkeypatch.context() as patch:
            patch.setattr(streams, "_next_is", None)  # nothing is read from the first byte on
            chain.nothing_new()
        logs.append(ACTIVE)
        chain.increment()
        check(logs, chain)

    def test_hard_links(self, logs: LogDirectory, chain: Chain) -> None:
        os.link(logs.path(ACTIVE), logs.path("zz.link"))
        logs.append(ACTIVE)
        chain.increment()
        check(logs, chain)
        assert chain.restored()["zz.link"] == logs.path(ACTIVE).read_bytes()
        logs.rename(ACTIVE, "zzz")  # now the other name comes first
        logs.append("zzz")
        chain.increment()
        check(logs, chain)

    def test_hard_links_of_files_that_change_their_name_or_are_left_out(self, logs: LogDirectory, chain: Chain) -> None:
        logs.compress(ACTIVE)
        os.link(logs.path(f"{ACTIVE}.gz"), logs.path("zz.gz"))
        logs.append("other.log")
        logs.copy("other.log", "other.log.1")
        os.link(logs.path("other.log.1"), logs.path("zz.copy"))
        chain.increment()
        check(logs, chain)
        assert set(chain.restored()) == {ACTIVE, "zz.gz", "other.log"}
        again = Chain(logs.root)
        again.full()
        assert set(again.restored()) == {f"{ACTIVE}.gz", "zz.gz", "other.log"}


class TestBeginnings:
    def test_identical_first_lines(self, logs: LogDirectory) -> None:
        heading = b"# time trace_id verdict\n"
        for name in ("a", "b", "c", "d"):
            logs.path(name).write_bytes(heading)
            logs.append(name)
        logs.path("e").write_bytes(heading)
        chain = Chain(logs.root)
        chain.full()
        logs.rename("a", "a.1")
        logs.compress("b")
        logs.remove("c")
        logs.path("a").write_bytes(heading)
        logs.append("a")
        logs.append("d")
        chain.lose_state()
        chain.increment()
        found = chain.lines()
        assert found.pop(heading) >= 4
        assert found == collections.Counter(logs.lines)

    def test_one_log_begins_with_all_of_another(self, logs: LogDirectory, chain: Chain, tmp_path: pathlib.Path) -> None:
        """Then the longer one holds it all, and the other is a copy."""
        heading = b"# heading\n"
        logs.path("a").write_bytes(heading)
        logs.append("b", 1)
        content = heading + logs.path("b").read_bytes()
        logs.path("b").write_bytes(content)
        chain.full()
        for name in ("a", "b"):
            (tmp_path / name).write_bytes(logs.path(name).read_bytes())
        for name in ("a", "b"):  # with new inodes
            (tmp_path / name).rename(logs.path(name))
        logs.append("b", 1)
        chain.increment()
        found = chain.lines()
        found.pop(heading)
        assert found == collections.Counter(logs.lines)

    @pytest.mark.parametrize("padding", [5000, 70_000, 300_000])
    def test_long_lines(self, logs: LogDirectory, chain: Chain, padding: int) -> None:
        logs.append("long.log", 2, padding=padding)
        chain.increment()
        logs.append("long.log", 1, padding=padding)
        logs.rename("long.log", "long.log.1")
        logs.compress("long.log.1")
        logs.append("long.log", 1, padding=padding)
        chain.lose_state()
        chain.increment()
        check(logs, chain)

    def test_a_copy_that_went_on(self, logs: LogDirectory, chain: Chain) -> None:
        """mv audit.log bak; cp bak audit.log: the writer goes on in the copy."""
        logs.append(ACTIVE)
        logs.rename(ACTIVE, "bak")
        logs.copy("bak", ACTIVE)
        logs.append(ACTIVE)
        chain.increment()
        check(logs, chain)
        assert set(chain.restored()) == {ACTIVE}
        logs.append(ACTIVE)
        chain.increment()
        check(logs, chain)
        again = Chain(logs.root)
        again.full()
        check(logs, again)

    def test_a_log_that_lost_its_end(self, logs: LogDirectory, chain: Chain) -> None:
        """A power cut takes back what was saved, and the writer goes on from there: a full starts over."""
        os.truncate(logs.path(ACTIVE), 3 * len(logs.lines[0]))
        del logs.lines[3:]
        logs.append(ACTIVE)
        taken = chain.take(INCREMENT)
        assert taken is not None
        assert taken.type == FULL
        check(logs, chain)

    def test_binary_and_carriage_returns(self, logs: LogDirectory, chain: Chain) -> None:
        logs.append("windows.log", end=b"\r\n")
        garbage = random.Random(7).randbytes(100_000)
        logs.path("garbage.bin").write_bytes(garbage)
        logs.path("garbage.gz").write_bytes(b"\x1f\x8b\x08" + garbage)
        chain.increment()
        restored = chain.restored()
        assert restored["windows.log"] == logs.path("windows.log").read_bytes()
        assert restored["garbage.bin"] == garbage[: garbage.rfind(b"\n") + 1]
        assert chain.last is not None
        assert ("garbage.gz", 0) in chain.last.unfinished
        again = Chain(logs.root)
        again.full()
        assert again.restored() == {path.name: path.read_bytes() for path in logs.root.iterdir()}


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

    def scan_and_rotate(root: str) -> object:
        found = real(root)
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
