# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Logs that are compressed, or are being compressed, between snapshots: every line is restored exactly once."""

from __future__ import annotations

import collections
import pathlib

import pytest

from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.manifest import FULL, INCREMENT
from support.log_chain import PACK, Chain, LogDirectory, check

ACTIVE = "audit.log"


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

    def test_unpacked_beside_and_written_to(self, logs: LogDirectory) -> None:
        """gunzip --keep, and then the writer goes on in the plain file."""
        logs.append("old.log")
        logs.compress("old.log")
        chain = Chain(logs.root)
        chain.full()
        logs.path("old.log").write_bytes(b"".join(logs.lines[5:]))
        chain.nothing_new()
        logs.append("old.log")
        taken = chain.take(INCREMENT)
        assert taken is not None
        assert taken.type == FULL
        check(logs, chain)
        assert set(chain.restored()) == {ACTIVE, "old.log"}

    def test_a_compressed_copy_with_more_than_the_plain_log(self, logs: LogDirectory) -> None:
        content = logs.path(ACTIVE).read_bytes()
        logs.append(ACTIVE)
        logs.compress(ACTIVE)
        logs.path("cut.log").write_bytes(content)
        chain = Chain(logs.root)
        chain.full()
        check(logs, chain)
        assert set(chain.restored()) == {f"{ACTIVE}.gz"}
