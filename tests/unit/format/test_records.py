# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Records as they are found in a log: the fast ways find what looking at line after line does."""

from __future__ import annotations

import dataclasses
import datetime
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_instance.chained import NO_HASH, START, record_line

from ansible_collections.guardops.qwen3guard.plugins.module_utils.format import records
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.records import Scanned, scan_block

CHAINS = ("a" * 16, "b" * 16)


def plain(number: int, time: str = "2026-11-23T10:00:00.000000+08:00") -> bytes:
    return json.dumps({"seq": number, "time": time, "trace_id": f"qwg-20261123-8b-{number:08x}"}).encode() + b"\n"


def one_by_one(block: bytes, offset: int) -> Scanned:
    """What `parse_line` says of each line."""
    found = Scanned()
    for line in block.split(b"\n")[:-1]:
        scan_lines(found, line + b"\n", offset)
        offset += len(line) + 1
    return found


def scan_lines(found: Scanned, line: bytes, offset: int) -> None:
    record = records.parse_line(line)
    if record is None:
        found.odd += 1
        return
    found.hours[record.hour] = found.hours.get(record.hour, 0) + 1
    found.ids.setdefault(records.day_of(record.trace_id), []).append(records.id_hash(record.trace_id))
    run = found.runs[-1] if found.runs else None
    goes_on = run is not None and run.chain == record.chain and run.offset + run.length == offset
    if run is not None and goes_on and (not run.chain or (record.seq, record.prev) == (run.last + 1, run.head)):
        run.length, run.count = run.length + len(line), run.count + 1
        run.last, run.head = record.seq, record.hash
        run.since = min(filter(None, (run.since, record.time)), default="")
        run.until = max(run.until, record.time)
        return
    found.runs.append(
        records.Run(record.chain, offset, len(line), 1, record.seq, record.seq, record.prev, record.hash, record.time,
                    record.time)
    )  # fmt: skip


def comparable(found: Scanned) -> tuple[object, ...]:
    ids = {day: b"".join(hashes) for day, hashes in found.ids.items()}
    return [dataclasses.astuple(run) for run in found.runs], found.hours, ids, found.odd


@st.composite
def a_log(draw: st.DrawFn) -> bytes:
    """Lines of two chains, of none, and of nothing; with numbers left out, links broken and a clock that jumps."""
    kinds = draw(st.sampled_from(["chained", "plain", "both", "any"]))
    lines, heads, seqs = [], dict.fromkeys(CHAINS, NO_HASH), dict.fromkeys(CHAINS, 0)
    clock = START
    for number in range(draw(st.integers(1, 12))):
        clock += datetime.timedelta(minutes=draw(st.sampled_from([1, 50, -90])))
        kind = (
            kinds
            if kinds in ("chained", "plain")
            else draw(st.sampled_from(["chained", "plain", "odd"][: 2 + (kinds == "any")]))
        )
        if kind == "chained":
            chain = draw(st.sampled_from(CHAINS[:1] * 5 + CHAINS[1:]))
            seqs[chain] += draw(st.sampled_from([1, 1, 1, 1, 2]))
            prev = draw(st.sampled_from([heads[chain]] * 5 + ["0" * 63 + "1"]))
            trace = draw(st.sampled_from([""] * 6 + ["odd-id", "qwg-20261399-8b-1"]))
            made = record_line(
                chain, seqs[chain], prev, clock, trace, text=draw(st.sampled_from(["x", '","hash":"', "\r"]))
            )
            heads[chain] = made.hash
            lines.append(made.line)
        elif kind == "plain":
            time = draw(st.sampled_from([
                "2026-11-23T10:00:00.000000+08:00", "2026-11-23T11:10:00.100000+08:00", "2026-11-23T10:00:00.000001Z",
                "2026-11-23T10:00:00Z", "2026-11-23T10:00:00.000000+05:30", "2026-13-23T10:00:00.000000+08:00", "never",
            ][: draw(st.sampled_from([2, 3, 7]))]))  # fmt: skip
            lines.append(plain(number, time))
        else:
            lines.append(draw(st.sampled_from([
                b"\n", b"text\n", b'{"trace_id": 5}\n', b'{"chain":"a"}\n', b"\xff\x00\n", b' {"trace_id":"a"}\n',
                b'{"trace_id":"a","x":{"trace_id":"b"}}\n', b'x{"trace_id":"a"}\n',
            ])))  # fmt: skip
    return b"".join(lines)


@settings(max_examples=300, deadline=None)
@given(a_log(), st.integers(0, 1000))
def test_a_block_is_what_its_lines_are(block: bytes, offset: int) -> None:
    found = Scanned()
    scan_block(block, offset, found)
    assert comparable(found) == comparable(one_by_one(block, offset))


@settings(max_examples=50, deadline=None)
@given(a_log(), st.data())
def test_blocks_join(block: bytes, data: st.DataObject) -> None:
    whole, cut = Scanned(), Scanned()
    scan_block(block, 0, whole)
    ends = [place + 1 for place, byte in enumerate(block) if byte == 10]
    middle = data.draw(st.sampled_from([0, *ends]))
    scan_block(block[:middle], 0, cut)
    scan_block(block[middle:], middle, cut)
    assert comparable(cut) == comparable(whole)


@pytest.mark.parametrize("change", [
    lambda line: line.replace(b'"prev":"0', b'"prev":"g'), lambda line: line.replace(b"T09:", b"T0x:"),
    lambda line: line.replace(b'"chain":"a', b'"chain":"A'), lambda line: line[:-4] + b'"}\n',
    lambda line: line.replace(b'"seq":1', b'"seq":0'),
])  # fmt: skip
def test_what_only_looks_like_a_chained_record(change) -> None:
    line = record_line(CHAINS[0], 1, NO_HASH, START).line
    changed = change(line)
    assert changed != line
    found = Scanned()
    scan_block(changed * 3, 0, found)
    assert all(not run.chain for run in found.runs)
    assert comparable(found) == comparable(one_by_one(changed * 3, 0))


def test_intact() -> None:
    line = record_line(CHAINS[0], 1, NO_HASH, START, text="请问").line
    assert records.is_intact(line)
    assert not records.is_intact(line.replace("请".encode(), "情".encode()))
    assert not records.is_intact(line.replace(b"T09:", b"T08:"))


@pytest.mark.parametrize(("trace_id", "day"), [
    ("qwg-20261123-8b-0123456789abcdef", "20261123"), ("qwg-20261399-8b-01", "undated"), ("x", "undated"),
    ("QwG-20240229-8b-1", "20240229"), ("qwg-../../..-1", "undated"),
])  # fmt: skip
def test_days(trace_id: str, day: str) -> None:
    assert records.day_of(trace_id) == day
