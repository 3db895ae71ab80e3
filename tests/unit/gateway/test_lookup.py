# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Finding one record in the live logs."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import threading
import time
import typing as t

import pytest

from qwen3guard_gateway import lookup
from qwen3guard_gateway.lookup import LookupBusy, find_record, search
from qwen3guard_gateway.record import encode_fields
from support.gateway_logs import Place, audits


def test_in_plain_and_compressed_logs(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "_BLOCK", 1000)  # lines lie across blocks
    writer = place.writer()
    written = []
    for number in (3, 2, 1):
        written += audits(writer, 20, "x" * (number * 500))
        place.active.rename(place.logs / f"audit.log.{number}")
    written += audits(writer, 20)
    plain = place.logs / "audit.log.3"
    (place.logs / "audit.log.3.gz").write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    for record in written:
        found = search(place.logs, record.line.trace_id)
        assert found is not None
        assert found.pop("intact") is True
        assert found == json.loads(record.line.data)
    assert search(place.logs, written[0].line.trace_id[:-1] + "g") is None


def test_a_text_that_names_another_record_is_not_it(place: Place) -> None:
    writer = place.writer()
    (record,) = audits(writer)
    trace_id = record.line.trace_id
    writer.commit([encode_fields({"text": trace_id, "client": {"trace_id": trace_id}, "list": [trace_id]})])
    found = search(place.logs, trace_id)
    assert found is not None
    assert found["seq"] == 2


def test_a_changed_record_is_told(place: Place) -> None:
    (record,) = audits(place.writer())
    place.active.write_bytes(place.active.read_bytes().replace(b"a text", b"A text"))
    found = search(place.logs, record.line.trace_id)
    assert found is not None
    assert (found["text"], found["intact"]) == ("A text 0", False)


def test_records_of_older_installations(place: Place) -> None:
    place.active.write_bytes(b'no record\n{"trace_id": "qwg-20240520-8b-7f3a9c21", "text": "old"}\n')
    found = search(place.logs, "qwg-20240520-8b-7f3a9c21")
    assert found == {"trace_id": "qwg-20240520-8b-7f3a9c21", "text": "old", "intact": None}


def test_only_files_of_that_day_are_read(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    day = 24 * 3600 * 10**9
    now = [time.time_ns() - 20 * day]
    writer = place.writer(clock=lambda: now[0])
    written = []
    for number in range(20):
        written += audits(writer)
        os.utime(place.active, ns=(now[0], now[0]))
        place.active.rename(place.logs / f"audit.log.{20 - number}")
        now[0] += day
    opened: list[str] = []
    search_plain = lookup._search_plain
    monkeypatch.setattr(
        lookup, "_search_plain", lambda path, asked: opened.append(path.name) or search_plain(path, asked)
    )
    found = search(place.logs, written[10].line.trace_id)
    assert found is not None
    assert found["seq"] == written[10].head.seq
    assert len(opened) <= 5


def test_one_search_at_a_time_and_not_too_many_wait(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    (record,) = audits(place.writer())
    running, most = 0, 0
    allowed = threading.Event()
    real = lookup.search

    def slow(*asked: t.Any) -> t.Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        allowed.wait(30)
        running -= 1
        return real(*asked)

    monkeypatch.setattr(lookup, "search", slow)

    async def main() -> list[t.Any]:
        tasks = [asyncio.create_task(find_record(place.logs, record.line.trace_id)) for _number in range(20)]
        await asyncio.sleep(0.05)
        tasks[0].cancel()  # its thread goes on, and so nobody else begins
        await asyncio.sleep(0.05)
        allowed.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    results = asyncio.run(main())
    assert most == 1
    assert sum(isinstance(result, LookupBusy) for result in results) == 4
    assert sum(isinstance(result, dict) for result in results) == 15
    assert lookup._turns == {}


@pytest.mark.parametrize("trace_id", ["", "a b", 'x"', "../x", "x" * 65])
def test_what_is_no_trace_id_is_not_searched(place: Place, trace_id: str) -> None:
    assert asyncio.run(find_record(place.logs / "missing", trace_id)) is None
