# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a check of chained records says of each thing that can happen to them, done by somebody or by everyday life."""

from __future__ import annotations

import datetime
import random
import resource
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_instance.chained import START, ChainedWriter, Written, record_line

from ansible_collections.guardops.qwen3guard.plugins.module_utils.format import chain as chains
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format import chain_segments
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.chain import ChainChecker
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.chain_findings import Finding, Report
from support.checkout import ROOT, link_collection

FILE = "audit.log"


@pytest.fixture(name="writer")
def fixture_writer(tmp_path: Path) -> ChainedWriter:
    writer = ChainedWriter(tmp_path / "w" / FILE)
    writer.append(11)
    return writer  # numbers 1 to 12


def check(*files: t.Sequence[bytes], anchors: t.Sequence[Written] = (), known: dict[str, int] | None = None) -> Report:
    checker = ChainChecker()
    for number, lines in enumerate(files):
        for line in lines:
            checker.feed(line, FILE if not number else f"{FILE}.{number}")
    for record in anchors:
        checker.anchor(record.chain, record.seq, record.hash, "snapshot 000001")
    for chain, last in (known or {}).items():
        checker.know(chain, last)
    return checker.finish()


def lines_of(written: t.Sequence[Written]) -> list[bytes]:
    return [record.line for record in written]


def told(report: Report, innocent: bool | None = None) -> list[tuple[str, int, int]]:
    return [
        (finding.kind, finding.first, finding.last)
        for finding in report.findings
        if innocent is None or finding.innocent is innocent
    ]


def only(report: Report, kind: str) -> Finding:
    """The one finding that is not innocent."""
    wrong = [finding for finding in report.findings if not finding.innocent]
    assert [finding.kind for finding in wrong] == [kind], [str(finding) for finding in report.findings]
    assert not report.ok
    return wrong[0]


def test_nothing_happened(writer: ChainedWriter) -> None:
    report = check(lines_of(writer.written), anchors=[writer.written[4], writer.head])
    assert report.ok
    assert told(report) == [("new_chain", 1, 1)]
    (chain,) = report.chains
    assert (chain.chain, chain.first, chain.last, chain.count, chain.gaps) == (writer.chain, 1, 12, 12, [])
    assert (chain.prev, chain.head) == ("0" * 64, writer.head.hash)
    assert (chain.since, chain.until) == (writer.written[0].time, writer.head.time)
    assert [anchor.state for anchor in report.anchors] == ["equal", "equal"]


def test_altered(writer: ChainedWriter) -> None:
    lines = lines_of(writer.written)
    lines[5] = lines[5].replace(b'"verdict":"safe"', b'"verdict":"unsafe"')
    finding = only(check(lines), "altered")
    assert (finding.first, finding.last, finding.chain) == (6, 6, writer.chain)
    assert finding.since == writer.written[5].time
    assert finding.where == FILE


def test_altered_with_its_hash_made_anew(writer: ChainedWriter) -> None:
    old = writer.written[5]
    new = record_line(old.chain, 6, writer.written[4].hash, START, old.trace_id, event="audit", verdict="unsafe")
    lines = [*lines_of(writer.written[:5]), new.line, *lines_of(writer.written[6:])]
    finding = only(check(lines), "broken_link")
    assert (finding.first, finding.last) == (6, 7)
    assert finding.until == writer.written[6].time


def test_everything_after_a_change_made_anew_shows_at_the_anchor_only(writer: ChainedWriter) -> None:
    forged, prev = lines_of(writer.written[:5]), writer.written[4].hash
    for old in writer.written[5:]:
        new = record_line(old.chain, old.seq, prev, START, old.trace_id, event="audit", verdict="safe")
        forged.append(new.line)
        prev = new.hash
    assert check(forged).ok
    finding = only(check(forged, anchors=[writer.written[8]]), "head_differs")
    assert (finding.first, finding.where) == (9, "snapshot 000001")


@pytest.mark.parametrize("count", [1, 3])
def test_removed(writer: ChainedWriter, count: int) -> None:
    written = writer.written
    finding = only(check(lines_of([*written[:4], *written[4 + count :]])), "missing")
    assert (finding.first, finding.last, finding.count) == (5, 4 + count, count)
    assert (finding.since, finding.until) == (written[3].time, written[4 + count].time)


def test_a_file_in_the_middle_missing(writer: ChainedWriter) -> None:
    written = writer.written
    report = check(lines_of(written[8:]), lines_of(written[:4]))  # the newest file first, as names sort
    finding = only(report, "missing")
    assert (finding.first, finding.last) == (5, 8)
    assert report.chains[0].gaps == [(5, 8)]
    assert report.chains[0].count == 8


@pytest.mark.parametrize("number", [6, 40])
@pytest.mark.parametrize("position", [5, 6, 9])
def test_inserted(writer: ChainedWriter, number: int, position: int) -> None:
    false = record_line(writer.chain, number, "a" * 64, START, event="audit")
    lines = lines_of(writer.written)
    finding = only(check([*lines[:position], false.line, *lines[position:]]), "inserted")
    assert (finding.first, finding.last, finding.since) == (number, number, false.time)


def test_inserted_in_the_place_of_one_that_is_there_elsewhere(writer: ChainedWriter) -> None:
    false = record_line(writer.chain, 6, "a" * 64, START, event="audit")
    lines = lines_of(writer.written)
    report = check([*lines[:5], false.line, *lines[6:]], lines)  # a copy of the file still has number 6
    assert only(report, "inserted").first == 6


def test_another_record_in_the_place_of_one(writer: ChainedWriter) -> None:
    false = record_line(writer.chain, 6, "a" * 64, START, event="audit")
    lines = lines_of(writer.written)
    report = check([*lines[:5], false.line, *lines[6:]])
    assert told(report, innocent=False) == [("broken_link", 5, 6), ("broken_link", 6, 7)]


def test_reordered(writer: ChainedWriter) -> None:
    lines = lines_of(writer.written)
    report = check([*lines[:4], lines[6], *lines[4:6], *lines[7:]])
    finding = only(report, "reordered")
    assert (finding.first, finding.last) == (5, 6)
    assert "after record 7" in finding.why
    assert report.chains[0].gaps == []


def test_files_in_another_order_are_innocent(writer: ChainedWriter) -> None:
    lines = lines_of(writer.written)
    report = check(lines[9:], lines[4:9], lines[:4])
    assert report.ok
    assert told(report) == [("new_chain", 1, 1)]


@pytest.mark.parametrize("copy", [slice(2, 5), slice(0, 12), slice(11, 12), slice(3, 4)])
def test_duplicated_is_innocent(writer: ChainedWriter, copy: slice) -> None:
    lines = lines_of(writer.written)
    for report in (check(lines, lines[copy]), check(lines[copy], lines), check([*lines, *lines[copy]])):
        assert report.ok
        assert ("duplicate", copy.start + 1, copy.stop) in told(report, innocent=True)
        assert (report.chains[0].count, report.chains[0].gaps) == (12, [])


def test_copies_that_overlap_make_one_whole(writer: ChainedWriter) -> None:
    lines = lines_of(writer.written)
    report = check(lines[6:], lines[3:9], lines[:5])
    assert report.ok
    assert report.chains[0].count == 12
    assert [item for item in told(report) if item[0] == "duplicate"] == [("duplicate", 4, 5), ("duplicate", 7, 9)]


def test_one_number_twice_is_a_fork(writer: ChainedWriter) -> None:
    lines, prev = lines_of(writer.written), writer.written[5].hash
    other = []
    for number in (7, 8, 9):
        made = record_line(writer.chain, number, prev, START, event="audit", text="another")
        other.append(made.line)
        prev = made.hash
    for files in ((lines, other), (other, lines), (lines, lines[4:6] + other)):
        finding = only(check(*files), "fork")
        assert (finding.first, finding.last) in ((7, 9), (7, 12))


def test_tail_cut_off(writer: ChainedWriter) -> None:
    finding = only(check(lines_of(writer.written[:9]), anchors=[writer.written[10], writer.written[3]]), "cut_tail")
    assert (finding.first, finding.last) == (10, 11)
    assert finding.since == writer.written[8].time
    assert "snapshot 000001" in finding.why


def test_a_whole_chain_gone(writer: ChainedWriter) -> None:
    assert only(check(anchors=[writer.head]), "lost_chain").chain == writer.chain
    assert check(anchors=[writer.head], known={writer.chain: 12}).ok


def test_two_writers_are_innocent(writer: ChainedWriter, tmp_path: Path) -> None:
    other = ChainedWriter(tmp_path / "other", start=START + datetime.timedelta(seconds=3))
    other.append(4)
    mixed = sorted([*writer.written, *other.written], key=lambda record: (record.time, record.chain))
    for report in (check(lines_of(mixed)), check(lines_of(writer.written), lines_of(other.written))):
        assert report.ok
        assert [chain.count for chain in report.chains] == [12, 5]
        assert [finding.kind for finding in report.findings if finding.kind == "two_writers"] == ["two_writers"]


def test_clock_stepping_back_is_innocent(writer: ChainedWriter) -> None:
    writer.step_clock(-datetime.timedelta(hours=1, minutes=5))
    writer.append(3)
    for report in (
        check(lines_of(writer.written)),
        check(lines_of(writer.written[12:]), lines_of(writer.written[:12])),
    ):
        assert report.ok
        (finding,) = [finding for finding in report.findings if finding.kind == "clock_step"]
        assert (finding.first, finding.since) == (13, writer.written[12].time)
        assert "1:04:59" in finding.why


def test_records_of_one_moment_in_another_order_are_nothing(writer: ChainedWriter) -> None:
    writer.append(3, step=-0.2)
    assert told(check(lines_of(writer.written))) == [("new_chain", 1, 1)]


def test_chain_restarted_after_a_restore_is_innocent(writer: ChainedWriter) -> None:
    first, last = writer.chain, writer.head
    writer.new_chain("restored or moved")
    writer.append(3)
    report = check(lines_of(writer.written))
    assert report.ok
    start = report.findings[-1]
    assert (start.kind, start.chain) == ("new_chain", writer.chain)
    assert f"record {last.seq} of chain {first}" in start.why
    # The chain before it lies outside of what is looked at.
    assert check(lines_of(writer.written[12:]), known={first: 12}).ok
    assert only(check(lines_of(writer.written[12:])), "new_chain").first == 1


def test_records_lost_between_two_chains(writer: ChainedWriter) -> None:
    writer.new_chain("restored or moved")
    writer.append(3)
    wrong = check(lines_of([*writer.written[:10], *writer.written[12:]]))  # 11 and 12 did not come back
    finding = only(wrong, "new_chain")
    assert finding.since == writer.written[12].time
    assert "no such record" in finding.why


def test_the_writer_itself_missed_records(tmp_path: Path) -> None:
    writer = ChainedWriter(tmp_path / FILE)
    writer.append(5)
    here, lost = writer.head, {"chain": writer.chain, "seq": 9, "hash": "b" * 64}
    start = record_line(
        "c" * 16, 1, here.hash, START, event="chain", reason="records missing",
        continues={"chain": here.chain, "seq": here.seq, "hash": here.hash}, expected=lost,
    )  # fmt: skip
    finding = only(check([*lines_of(writer.written), start.line]), "cut_tail")
    assert (finding.chain, finding.first, finding.last) == (here.chain, 7, 9)


@pytest.mark.parametrize(
    "continues", [7, "x", {"chain": 1}, {"chain": "a", "seq": "b"}, {"chain": "a", "seq": 1, "hash": 2}]
)
def test_a_beginning_that_tells_nonsense(continues: t.Any) -> None:
    start = record_line("c" * 16, 1, "d" * 64, START, event="chain", reason=[], continues=continues)
    assert only(check([start.line]), "new_chain").first == 1


def test_lines_that_are_no_records(writer: ChainedWriter) -> None:
    lines = lines_of(writer.written)
    report = check([*lines[:3], b'{"chain":\x00\xff\n', *lines[3:], b"another program's\n", lines[0][:30]])
    finding = only(report, "not_a_record")
    assert (finding.where, report.odd) == (FILE, 3)
    assert [f.kind for f in report.findings if f.innocent] == ["not_a_record", "unfinished", "new_chain"]


def test_a_writer_that_repaired_its_log_is_innocent(writer: ChainedWriter) -> None:
    writer.append(1, event="repair")
    report = check(lines_of(writer.written))
    assert report.ok
    assert ("repair", 13, 13) in told(report, innocent=True)


def test_a_user_text_cannot_pass_for_a_repair(writer: ChainedWriter) -> None:
    writer.append(1, text='"event":"repair"')
    assert told(check(lines_of(writer.written))) == [("new_chain", 1, 1)]


def test_records_without_a_chain_are_counted(writer: ChainedWriter) -> None:
    old = b'{"trace_id": "qwg-20240520-8b-7f3a9c21", "time": "2024-05-20T14:23:00+08:00"}\n'
    report = check([old, *lines_of(writer.written), old])
    assert report.ok
    assert (report.unchained, report.records) == (2, 12)


def test_a_log_in_too_many_pieces_is_told_and_bounded(writer: ChainedWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains, "_MOST_SEGMENTS", 5)
    report = check(lines_of(writer.written)[::-1])
    assert "not_checked" in {finding.kind for finding in report.findings}
    assert not report.ok


def test_findings_of_a_kind_are_bounded(writer: ChainedWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains, "_MOST_FINDINGS", 3)
    report = check([line.replace(b'"status":200', b'"status":500') for line in lines_of(writer.written)])
    assert [finding.kind for finding in report.findings].count("altered") == 4
    assert "8 more" in report.findings[-1].why


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_one_thing_done_to_a_long_log_is_found(data: st.DataObject) -> None:
    """Whatever is done, and wherever: found, and nothing else is said that is not innocent."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chain_segments, "_BLOCK", 4)  # so that block boundaries are met
        lines, digests = list(LONG), list(LONG)
        cuts = sorted(data.draw(st.lists(st.integers(1, len(lines) - 1), max_size=3, unique=True)))
        place = data.draw(st.integers(1, len(lines) - 2))
        what = data.draw(st.sampled_from(["nothing", "alter", "remove", "insert", "swap"]))
        if what == "alter":
            lines[place] = lines[place].replace(b'"status":200', b'"status":201')
        elif what == "remove":
            del lines[place]
        elif what == "insert":
            lines.insert(place, record_line(CHAIN, data.draw(st.integers(1, 99)), "e" * 64, START, event="audit").line)
        elif what == "swap":
            lines[place], lines[place + 1] = digests[place + 1], digests[place]
        pieces = [lines[low:high] for low, high in zip([0, *cuts], [*cuts, len(lines)])]
        if what not in ("swap", "insert"):  # these are seen by their place within one file
            random.Random(place).shuffle(pieces)
        kinds = {finding.kind for finding in check(*(pieces if what not in ("swap", "insert") else [lines])).findings}
        wanted = {"alter": "altered", "remove": "missing", "insert": "inserted", "swap": "reordered"}.get(what)
        assert kinds - {"new_chain", "clock_step"} == ({wanted} if wanted else set())


CHAIN = "0123456789abcdef"


def _long() -> list[bytes]:
    prev, lines = "0" * 64, []
    for number in range(1, 31):
        made = record_line(CHAIN, number, prev, START + datetime.timedelta(seconds=number), event="audit", status=200)
        prev = made.hash
        lines.append(made.line)
    return lines


LONG = _long()

_STREAM = """
import hashlib, resource, sys
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.chain import ChainChecker
checker, prev = ChainChecker(), "0" * 64
for seq in range(1, int(sys.argv[1]) + 1):
    body = (
        f'{{"chain":"0123456789abcdef","seq":{seq},"prev":"{prev}","time":"2026-11-23T09:00:00.000000Z",'
        f'"trace_id":"qwg-20261123-8b-{seq:016x}","event":"audit","text":"{"x" * 200}"'
    ).encode()
    prev = hashlib.sha256(body).hexdigest()
    checker.feed(body + b',"hash":"' + prev.encode() + b'"}\\n', "audit.log")
report = checker.finish()
assert report.ok and report.chains[0].count == int(sys.argv[1])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_records() -> None:
    """In a process of its own: the peak for 20 times as many records is the same, less a few megabytes."""
    few, many = (_peak(count) for count in (15_000, 300_000))
    assert many - few < 12 * 1024, (few, many)
    assert resource.getpagesize()  # the figures are KiB on Linux


def _peak(count: int) -> int:
    done = subprocess.run(
        [sys.executable, "-c", _STREAM, str(count)], check=True, capture_output=True, timeout=300, cwd=ROOT,
        env={"PYTHONPATH": str(link_collection())},
    )  # fmt: skip
    return int(done.stdout)
