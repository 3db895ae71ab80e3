# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One writer, one chain: starts, restarts, crashes, and logs that are not what they were."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen3guard_gateway import chain_writer, log_ends
from qwen3guard_gateway.errors import JournalError, JournalUnavailable
from qwen3guard_gateway.log_file import LOCK
from support.gateway_logs import Place, audits, chains_of, events, read_entries


def test_first_start_then_audits_then_restart(place: Place) -> None:
    writer = place.writer()
    written = audits(writer, 3)
    writer.close()
    again = place.writer()
    written += audits(again, 2)
    (entries,) = chains_of(place.logs).values()
    assert [entry.content["event"] for entry in entries] == ["chain"] + ["audit"] * 5
    assert entries[0].content["reason"] == "first start"
    assert [entry.record.trace_id for entry in entries[1:]] == [record.line.trace_id for record in written]
    assert [record.head.seq for record in written] == [2, 3, 4, 5, 6]
    assert again.reports == []


steps = st.lists(
    st.one_of(
        st.integers(1, 5),
        st.sampled_from(["rotate", "rotate and make", "restart", "crash", "torn", "save", "pack"]),
    ),
    max_size=14,
)


@settings(max_examples=40, deadline=None)
@given(steps)
def test_whatever_the_order_there_is_one_chain(tmp_path_factory: pytest.TempPathFactory, todo: list[int | str]) -> None:
    place = Place(tmp_path_factory.mktemp("chain"))
    writer = place.writer()
    told: list[str] = []
    number = torn = 0
    for step in todo:
        if isinstance(step, int):
            told += [record.line.trace_id for record in audits(writer, step)]
        elif step.startswith("rotate") and place.active.exists():
            number += 1
            place.active.rename(place.logs / f"audit.log.{number}")
            if step == "rotate and make":
                place.active.touch()
        elif step == "pack" and (place.logs / f"audit.log.{number}").exists():
            plain = place.logs / f"audit.log.{number}"
            packed = place.logs / f"audit.log.{number}.gz"
            audits(writer)  # as with delaycompress
            packed.write_bytes(gzip.compress(plain.read_bytes()))
            plain.unlink()
        elif step == "save":
            writer.save_state()
        elif step == "restart":
            writer.close()
            writer = place.writer()
        elif step in ("crash", "torn"):
            place.crash(writer)
            if step == "torn" and place.active.exists():
                torn += 1
                with open(place.active, "ab") as log:
                    log.write(b'{"chain":"0123')
            writer = place.writer()
    told += [record.line.trace_id for record in audits(writer)]
    place.close()
    (entries,) = chains_of(place.logs).values()
    found = [entry.record.trace_id for entry in entries]
    assert set(told) <= set(found)
    assert len(found) == len(set(found))
    assert len(events(place.logs, "repair")) == torn == len(list(place.logs.glob("*.torn-*")))


def test_a_line_torn_at_every_byte(place: Place) -> None:
    writer = place.writer()
    audits(writer, 2)
    writer.save_state()
    before = place.active.read_bytes()
    audits(writer)
    line = place.active.read_bytes()[len(before) :]
    writer.close()
    saved = (place.state / "chain.json").read_bytes().replace(b'"seq": 4', b'"seq": 3')
    head = json.loads(before.splitlines()[-1])["hash"]
    state = {**json.loads(saved), "hash": head}
    for length in range(1, len(line)):
        place.active.write_bytes(before + line[:length])
        (place.state / "chain.json").write_text(json.dumps(state))
        writer = place.writer()
        (kept,) = place.logs.glob("audit.log.torn-*")
        assert kept.read_bytes() == line[:length]
        assert stat.S_IMODE(kept.stat().st_mode) == 0o640
        (repair,) = events(place.logs, "repair")
        assert (repair["reason"], repair["bytes"], repair["kept_as"]) == ("torn line", length, kept.name)
        assert repair["seq"] == 4
        assert "damaged" in writer.reports[0]
        writer.close()
        kept.unlink()


@pytest.mark.parametrize("damage", [b"\0" * 5000, b"\0\0\n", b'{"chain":"0123456789abcdef","seq":3}\n'])
def test_what_a_power_failure_leaves(place: Place, damage: bytes) -> None:
    writer = place.writer()
    audits(writer, 2)
    place.crash(writer)
    with open(place.active, "ab") as log:
        log.write(damage)
    audits(place.writer())
    (entries,) = chains_of(place.logs).values()
    assert [entry.content["event"] for entry in entries] == ["chain", "audit", "audit", "repair", "audit"]
    (kept,) = place.logs.glob("*.torn-*")
    assert kept.read_bytes() == damage


def test_a_file_torn_right_after_its_rotation(place: Place) -> None:
    writer = place.writer()
    audits(writer, 2)
    place.crash(writer)
    with open(place.active, "ab") as log:
        log.write(b'{"chain":"')
    place.active.rename(place.logs / "audit.log.1")
    place.active.touch()
    audits(place.writer())
    assert [entry.content["event"] for entry in next(iter(chains_of(place.logs).values()))][-2:] == ["repair", "audit"]


def test_lines_of_an_older_installation_stay(place: Place) -> None:
    old = b'{"trace_id": "qwg-20240520-8b-7f3a9c21", "text": "old"}\n' * 3
    place.active.write_bytes(old)
    (place.logs / "audit.log.1").write_bytes(b"a text without an end")
    audits(place.writer())
    assert place.active.read_bytes().startswith(old)
    assert (place.logs / "audit.log.1").read_bytes() == b"a text without an end"
    (place.logs / "audit.log.1").unlink()
    assert len(read_entries(place.logs)) == 5
    (begin,) = events(place.logs, "chain")
    assert begin["reason"] == "first start"


def test_log_restored_on_a_new_host(place: Place) -> None:
    writer = place.writer()
    last = audits(writer, 2)[-1].head
    writer.close()
    (place.state / "chain.json").unlink()
    writer = place.writer()
    begin = events(place.logs, "chain")[1]
    assert (begin["reason"], begin["continues"]) == ("restored or moved", last.as_json())
    assert "expected" not in begin
    assert begin["prev"] == last.hash
    assert "restored or moved" in writer.reports[0]


def test_another_machine_with_the_same_state(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = place.writer()
    writer.close()
    monkeypatch.setattr(chain_writer, "machine_name", lambda: "another")
    place.writer()
    assert [event["reason"] for event in events(place.logs, "chain")] == ["first start", "restored or moved"]


def test_an_older_log_of_the_same_chain(place: Place) -> None:
    writer = place.writer()
    audits(writer, 2)
    older = place.active.read_bytes()
    reached = audits(writer, 5)[-1].head
    writer.close()
    place.active.write_bytes(older)
    place.writer()
    begin = events(place.logs, "chain")[1]
    assert (begin["reason"], begin["continues"]["seq"]) == ("records missing", 3)
    assert begin["expected"] == reached.as_json()


def test_the_last_record_replaced_by_another(place: Place) -> None:
    writer = place.writer()
    audits(writer, 1)
    before, _line = place.active.read_bytes().splitlines(keepends=True)
    reached = audits(writer, 0)
    writer.close()
    assert reached == []
    saved = (place.state / "chain.json").read_bytes()
    place.active.write_bytes(before)
    state = {**json.loads(saved), "seq": 1, "hash": json.loads(before)["hash"]}
    (place.state / "chain.json").write_text(json.dumps(state))
    writer = place.writer()
    audits(writer, 1, "another")
    writer.close()
    (place.state / "chain.json").write_bytes(saved)
    place.writer()
    begin = events(place.logs, "chain")[1]
    assert (begin["reason"], begin["expected"]["hash"]) == ("records missing", json.loads(saved)["hash"])
    assert begin["continues"]["hash"] != begin["expected"]["hash"]


def test_logs_of_another_chain_put_in_the_place(place: Place, tmp_path: Path) -> None:
    writer = place.writer()
    audits(writer)
    writer.close()
    (tmp_path / "other").mkdir()
    other = Place(tmp_path / "other")
    audits(other.writer())
    other.close()
    shutil.copy(other.active, place.active)
    place.writer()
    (chain,) = chains_of(other.logs)
    begin = events(place.logs, "chain")[-1]
    assert (begin["reason"], begin["continues"]["chain"]) == ("restored or moved", chain)
    assert begin["expected"]["chain"] not in chains_of(place.logs)


def test_all_logs_gone(place: Place) -> None:
    writer = place.writer()
    head = audits(writer)[0].head
    writer.close()
    place.active.unlink()
    place.writer()
    (begin,) = events(place.logs, "chain")
    assert (begin["reason"], begin["expected"], begin["prev"]) == ("records missing", head.as_json(), "0" * 64)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format":1,"chain":"x","seq":1,"hash":""}', b"\xff"])
def test_state_that_cannot_be_read(place: Place, content: bytes) -> None:
    (place.state / "chain.json").write_bytes(content)
    writer = place.writer()
    assert "cannot be understood" in writer.reports[0]
    assert events(place.logs, "chain")[0]["reason"] == "restored or moved"


def test_stopped_between_the_decision_and_the_first_record(place: Place) -> None:
    writer = place.writer()
    audits(writer)
    writer.close()
    (place.state / "chain.json").unlink()
    log = place.active.read_bytes()
    writer = place.writer()
    chain = writer.head.chain
    event = {name: events(place.logs, "chain")[1][name] for name in ("event", "reason", "continues")}
    place.crash(writer)
    place.active.write_bytes(log)
    state = json.loads((place.state / "chain.json").read_bytes())
    assert (state["seq"], state["event"]) == (0, event)
    writer = place.writer()
    assert writer.head.chain == chain
    assert len(chains_of(place.logs)) == 2
    place.crash(writer)  # after its first record, and before the state says so
    place.writer()
    assert len(chains_of(place.logs)) == 2


def test_compressed_at_once_and_nothing_since(place: Place) -> None:
    writer = place.writer()
    audits(writer, 3)
    writer.close()
    (place.logs / "audit.log.1.gz").write_bytes(gzip.compress(place.active.read_bytes()))
    place.active.unlink()
    audits(place.writer())
    (entries,) = chains_of(place.logs).values()
    assert len(entries) == 5


def test_two_writers(place: Place) -> None:
    writer = place.writer()
    with pytest.raises(JournalError, match="another gateway writes to"):
        place.writer()
    audits(writer)
    (place.logs / LOCK).unlink()  # someone tidied up: taken again, so that a second one still cannot come
    audits(writer)
    with pytest.raises(JournalError, match="another gateway writes to"):
        place.writer()
    writer.close()
    place.writer()


def test_a_directory_that_is_not_there_is_not_made(place: Place) -> None:
    place.logs.rmdir()
    with pytest.raises(JournalError, match="the log directory"):
        place.writer()
    assert not place.logs.exists()


def test_a_directory_that_goes_away(place: Place) -> None:
    writer = place.writer()
    audits(writer)
    place.logs.rename(place.logs.with_name("unmounted"))
    place.logs.mkdir()
    with pytest.raises(JournalUnavailable, match="replaced or unmounted"):
        audits(writer)
    with pytest.raises(JournalUnavailable, match="replaced or unmounted"):
        writer.probe()
    assert list(place.logs.iterdir()) == []


@pytest.mark.parametrize("inside", [".", "below"])
def test_the_state_has_to_lie_elsewhere(place: Place, inside: str) -> None:
    place.state = place.logs / inside
    place.state.mkdir(exist_ok=True)
    with pytest.raises(JournalError, match="lies in the log directory"):
        place.writer()


def test_modes_do_not_depend_on_the_umask(place: Place) -> None:
    before = os.umask(0o077)
    try:
        audits(place.writer())
    finally:
        os.umask(before)
    assert stat.S_IMODE(place.active.stat().st_mode) == 0o640


def test_a_symbolic_link_is_not_followed(place: Place, tmp_path: Path) -> None:
    place.active.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(JournalError, match="symbolic link"):
        place.writer()
    assert not (tmp_path / "elsewhere").exists()


def test_the_end_is_found_without_reading_the_file(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = place.writer()
    audits(writer)
    writer.close()
    content = place.active.read_bytes()
    with open(place.active, "r+b") as log:  # 30 GB in front of it, which take no room
        log.seek(30 * 1000**3)
        log.write(b"\n" + content)
    read = []
    pread = os.pread
    monkeypatch.setattr(log_ends.os, "pread", lambda *asked: read.append(asked[1]) or pread(*asked))
    writer = place.writer()
    assert writer.reports == []
    assert sum(read) < 4 * 1024 * 1024
