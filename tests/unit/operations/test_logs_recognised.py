# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which log a file is: by inode, by its beginning, with torn lines and odd content. Every line is restored once."""

from __future__ import annotations

import collections
import os
import pathlib
import random

import pytest

from ansible_collections.guardops.qwen3guard.plugins.module_utils.format import streams
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.manifest import FULL, INCREMENT
from support.log_chain import Chain, LogDirectory, check

ACTIVE = "audit.log"


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
