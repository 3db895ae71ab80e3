# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The event loop's side of the log: group commit, back-pressure, health, and the end."""

from __future__ import annotations

import asyncio
import threading
import typing as t
from pathlib import Path

import pytest

from qwen3guard_gateway import journal as journal_module
from qwen3guard_gateway.errors import JournalError, JournalUnavailable
from qwen3guard_gateway.journal import Journal
from support.gateway_logs import Place, chains_of


def run(main: t.Coroutine[t.Any, t.Any, t.Any]) -> t.Any:
    return asyncio.run(asyncio.wait_for(main, 60))


def made(place: Place) -> Journal:
    return Journal(place.logs, place.state, min_free_bytes=0)


def slow(monkeypatch: pytest.MonkeyPatch, journal: Journal) -> tuple[threading.Event, list[int]]:
    """Let no batch through until the event is set; the sizes of the batches."""
    allowed, sizes = threading.Event(), []
    commit = journal._writer.commit

    def wait(batch: list[bytes]) -> t.Any:
        allowed.wait(30)
        sizes.append(len(batch))
        return commit(batch)

    monkeypatch.setattr(journal._writer, "commit", wait)
    return allowed, sizes


def test_answers_come_when_the_record_is_in_the_file(place: Place) -> None:
    async def main() -> None:
        journal = made(place)
        await journal.start()

        async def one(number: int) -> None:
            got = await journal.append({"text": str(number)})
            assert f'"trace_id":"{got["trace_id"]}"'.encode() in place.active.read_bytes()
            told.append((got["chain"], got["seq"], got["hash"], got["time"], got["trace_id"]))

        await asyncio.gather(*(one(number) for number in range(200)))
        await journal.close()

    told: list[tuple[t.Any, ...]] = []
    run(main())
    (entries,) = chains_of(place.logs).values()
    written = [(r.chain, r.seq, r.hash, r.time, r.trace_id) for r in (entry.record for entry in entries)]
    assert sorted(told) == sorted(written[1:])


def test_those_who_come_during_a_sync_share_the_next(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        journal = made(place)
        await journal.start()
        allowed, sizes = slow(monkeypatch, journal)
        tasks = [asyncio.create_task(journal.append({}))]
        await asyncio.sleep(0.05)
        tasks += [asyncio.create_task(journal.append({})) for _number in range(50)]
        await asyncio.sleep(0.05)
        allowed.set()
        await asyncio.gather(*tasks)
        assert sizes == [1, 50]
        await journal.close()

    run(main())


def test_who_goes_away_takes_nobody_along(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        journal = made(place)
        await journal.start()
        allowed, _sizes = slow(monkeypatch, journal)
        tasks = [asyncio.create_task(journal.append({"text": str(number)})) for number in range(3)]
        await asyncio.sleep(0.05)
        tasks[1].cancel()
        allowed.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(results[1], asyncio.CancelledError)
        assert [isinstance(result, dict) for result in results] == [True, False, True]
        await journal.close()

    run(main())
    (entries,) = chains_of(place.logs).values()
    assert len(entries) == 4


def test_fields_that_cannot_be_written_hurt_nobody_else(place: Place) -> None:
    async def main() -> None:
        journal = made(place)
        await journal.start()
        results = await asyncio.gather(
            journal.append({"text": "a"}), journal.append({"n": float("nan")}), journal.append({"x": object()}),
            journal.append({"seq": 5}), journal.append({"text": "b"}), return_exceptions=True,
        )  # fmt: skip
        assert [type(result) for result in results] == [dict, ValueError, TypeError, ValueError, dict]
        await journal.close()

    run(main())


def test_a_disk_that_hangs_fills_no_memory(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "_MOST_WAITING", 5)
    monkeypatch.setattr(journal_module, "_STALLED_SECONDS", 0.05)

    async def main() -> None:
        journal = made(place)
        await journal.start()
        allowed, _sizes = slow(monkeypatch, journal)
        tasks = [asyncio.create_task(journal.append({})) for _number in range(20)]
        await asyncio.sleep(0.1)
        assert sum(task.done() for task in tasks) == 15
        with pytest.raises(JournalUnavailable, match="has not answered"):
            await journal.probe()
        allowed.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert sum(isinstance(result, dict) for result in results) == 5
        assert all("wait for the disk" in str(result) for result in results if not isinstance(result, dict))
        await journal.close()

    run(main())


def test_red_until_the_disk_works_and_then_green_by_itself(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "_PROBE_SECONDS", 0.0)

    async def main() -> None:
        journal = made(place)
        await journal.start()
        await journal.probe()
        size = place.active.stat().st_size
        place.active.rename(place.logs / "audit.log.1")
        place.active.mkdir()  # cannot be opened as a file, whoever asks
        for _attempt in range(2):
            with pytest.raises(JournalUnavailable):
                await journal.append({})
            with pytest.raises(JournalUnavailable, match=r"audit\.log|directory"):
                await journal.probe()
        place.active.rmdir()
        await journal.probe()
        await journal.probe()
        assert (place.logs / "audit.log.1").stat().st_size == size
        await journal.append({})
        await journal.close()

    run(main())
    (entries,) = chains_of(place.logs).values()
    assert [entry.content["event"] for entry in entries] == ["chain", "repair", "audit"]
    assert entries[1].content["refused"] == 2


def test_idle_logs_are_looked_after(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "_LOOK_SECONDS", 0.02)

    async def main() -> None:
        journal = made(place)
        await journal.start()
        await journal.append({})
        place.active.rename(place.logs / "audit.log.1")
        looked = asyncio.Event()
        loop = asyncio.get_running_loop()
        save = journal._writer.save_state
        monkeypatch.setattr(journal._writer, "save_state", lambda: (save(), loop.call_soon_threadsafe(looked.set)))
        await looked.wait()
        assert place.active.exists()
        assert b'"seq": 2' in (place.state / "chain.json").read_bytes()
        await journal.close()

    run(main())


def test_close_writes_what_waits(place: Place) -> None:
    async def main() -> None:
        journal = made(place)
        with pytest.raises(JournalUnavailable, match="not started"):
            await journal.append({})
        await journal.start()
        tasks = [asyncio.create_task(journal.append({})) for _number in range(30)]
        await asyncio.sleep(0)
        await journal.close()
        assert all(isinstance(result, dict) for result in await asyncio.gather(*tasks))
        for call in (journal.append({}), journal.probe()):
            with pytest.raises(JournalUnavailable, match="closed"):
                await call
        await journal.close()
        await journal.start()
        await journal.append({})
        await journal.close()
        assert len(journal.reports) == 1

    run(main())
    (entries,) = chains_of(place.logs).values()
    assert len(entries) == 32


def test_start_may_be_tried_again(place: Place, tmp_path: Path) -> None:
    async def main() -> None:
        journal = Journal(tmp_path / "later", place.state, min_free_bytes=0)
        with pytest.raises(JournalError, match="later"):
            await journal.start()
        (tmp_path / "later").mkdir()
        await journal.start()
        await journal.append({})
        await journal.close()

    run(main())


def test_an_error_of_ours_leaves_nobody_waiting(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        journal = made(place)
        await journal.start()

        def broken(_batch: list[bytes]) -> t.Any:
            raise ZeroDivisionError

        monkeypatch.setattr(journal._writer, "commit", broken)
        for _attempt in range(2):
            with pytest.raises(JournalUnavailable, match="has stopped"):
                await journal.append({})
        with pytest.raises(JournalUnavailable, match="has stopped"):
            await journal.probe()
        with pytest.raises(ZeroDivisionError):
            await journal.close()

    run(main())
