# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Evidence bundles: what somebody did to the records is found, named, and told apart from everyday life."""

from __future__ import annotations

import datetime
import gzip
import json
import os
import shutil
import typing as t
from pathlib import Path

import pytest
import zstandard
from sample_instance.chained import START, ChainedWriter, record_line

from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import snapshots
from support.engine import INSTANCE
from support.evidence import Bundle, Trail, altered

SECOND = datetime.timedelta(seconds=1)
FALSE = "a" * 64


@pytest.fixture(name="trail")
def fixture_trail(tmp_path: Path) -> Trail:
    return Trail(tmp_path)


def wrong(bundle: Bundle) -> list[tuple[str, int, int]]:
    """What is not innocent; the bundle's checker must fail, and name the numbers too."""
    assert not bundle.outcome.ok
    checked = bundle.check()
    found = bundle.told(innocent=False)
    for _kind, first, last in found:
        assert any(str(first) in failure and str(last) in failure for failure in checked.failures), checked.output
    return found


# -- nothing happened


def test_archives_and_live_logs_together_give_each_record_once(trail: Trail) -> None:
    trail.writer.append(40)
    trail.save()
    trail.writer.append(30)
    trail.writer.rotate("audit.log.1")
    trail.writer.append(9)
    trail.save()
    trail.save(type="full")
    trail.writer.append(5)
    bundle = trail.export()
    assert bundle.lines == trail.lines()
    assert bundle.outcome.ok
    assert bundle.outcome.findings[0]["kind"] == "new_chain"
    assert bundle.outcome.conservation == {
        "written": 85, "live": 85, "archived": 80, "restorable": 80, "exported": 85, "missing": 0,
    }  # fmt: skip
    bundle.check()
    # The increment for what it begins with, and of the two fulls one for what was before it.
    assert sorted(item["type"] for item in bundle.statement["sources"]["snapshots"]) == ["full", "increment"]
    trail.lose_live()
    alone = trail.export(live=False)
    assert alone.lines == trail.lines(1, 80)
    assert any("no live logs were read" in text for text in alone.outcome.not_proven)
    assert not [name for name in os.listdir(trail.base / "state" / INSTANCE) if "export" in name]


def test_edges_are_half_open_and_known(trail: Trail) -> None:
    trail.writer.append(100)
    trail.save()
    start, end = START + 20 * SECOND, START + 60 * SECOND  # record n was made n - 2 seconds after START
    bundle = trail.export(start, end)
    assert bundle.lines == trail.lines(22, 61)
    (chain,) = bundle.statement["chains"]
    assert (chain["first"], chain["last"]) == (22, 61)
    assert (chain["before"]["seq"], chain["after"]["seq"]) == (21, 62)
    assert chain["before"]["hash"] == trail.written[20].hash
    bundle.check()
    assert any("no record was cut off at the end of the window" in text for text in bundle.outcome.proven)
    assert not [text for text in bundle.outcome.not_proven if "changed or cut off" in text]
    # No record at all is a result too.
    nothing = trail.export(start - datetime.timedelta(days=9), start - datetime.timedelta(days=8))
    assert (nothing.outcome.ok, nothing.outcome.records, nothing.lines) == (True, 0, [])
    nothing.check()


def test_a_record_id_that_spans_a_rotation_and_compressed_logs(trail: Trail) -> None:
    trail.writer.append(20)
    trail.writer.rotate("audit.log.1")
    with gzip.open(trail.logs / "audit.log.1.gz", "wb") as output:
        output.write((trail.logs / "audit.log.1").read_bytes())
    (trail.logs / "audit.log.1").unlink()
    trail.writer.append(20)
    first = trail.export()
    assert first.lines == trail.lines()  # all of it live
    assert first.outcome.conservation["archived"] == 0
    trail.save(type="full")
    second = trail.export(live=False)
    assert second.lines == trail.lines()
    assert second.outcome.conservation["restorable"] == 41
    second.check()


# -- somebody was at the records before they were archived, or at the live logs


def inserted(lines: list[bytes], number: int = 10) -> list[bytes]:
    chain = json.loads(lines[0])["chain"]
    return [*lines[:9], record_line(chain, number, FALSE, START + 8 * SECOND, event="audit").line, *lines[9:]]


TAMPERED: list[tuple[str, t.Callable[[list[bytes]], list[bytes]], list[tuple[str, int, int]]]] = [
    ("altered", altered, [("altered", 10, 10)]),
    ("removed", lambda lines: [*lines[:9], *lines[10:]], [("missing", 10, 10)]),
    ("a segment removed", lambda lines: [*lines[:9], *lines[19:]], [("missing", 10, 19)]),
    ("inserted", inserted, [("inserted", 10, 10)]),
    ("inserted far off", lambda lines: inserted(lines, 90_000), [("inserted", 90_000, 90_000)]),
    ("reordered", lambda lines: [*lines[:9], lines[10], lines[9], *lines[11:]], [("reordered", 10, 10)]),
    ("made no record", lambda lines: [*lines[:9], b"{" + lines[9][3:], *lines[10:]], [("missing", 10, 10)]),
]


@pytest.mark.parametrize(("tamper", "expected"), [item[1:] for item in TAMPERED], ids=[item[0] for item in TAMPERED])
@pytest.mark.parametrize("place", ["archived", "live only"])
def test_tampered(trail: Trail, tamper: t.Any, expected: list[tuple[str, int, int]], place: str) -> None:
    trail.writer.append(29)
    trail.put(tamper(trail.lines()))
    if place == "archived":
        trail.save()
        trail.lose_live()
    bundle = trail.export()
    assert wrong(bundle) == expected
    finding = next(item for item in bundle.outcome.findings if not item["innocent"])
    around = {record.time for record in trail.written[7:21]}
    assert finding["since"] in around
    assert finding["until"] in around
    if "reordered" in expected[0] or "inserted" in expected[0]:
        assert bundle.lines == trail.lines()
    page = (bundle.path / "summary.html").read_text()
    assert "WRONG" in page
    assert expected[0][0] in page


def test_duplicates_are_innocent_and_exported_once(trail: Trail) -> None:
    trail.writer.append(29)
    trail.put([*trail.lines(), *trail.lines(5, 9)])
    trail.put(trail.lines(1, 20), "copy.log")
    for _place in ("live", "archived"):
        bundle = trail.export()
        assert bundle.outcome.ok
        assert bundle.lines == trail.lines()
        assert {item["kind"] for item in bundle.outcome.findings} >= {"duplicate", "new_chain"}
        bundle.check()
        trail.engine.backup(trail.logs)


def test_live_logs_are_held_against_the_archive(trail: Trail) -> None:
    """What was archived is what is exported; that the live copy differs is told."""
    trail.writer.append(29)
    trail.save()
    cases: list[tuple[list[bytes], tuple[str, int, int]]] = [
        (altered(trail.lines()), ("altered", 10, 10)),
        (trail.lines(1, 25), ("cut_tail", 26, 30)),
        ([*trail.lines(1, 9), *trail.lines(15)], ("missing", 10, 14)),
    ]
    for lines, expected in cases:
        trail.put(lines)
        bundle = trail.export()
        assert bundle.told(innocent=False, scope="live logs") == [expected]
        assert bundle.outcome.ok
        assert bundle.lines == trail.lines()
        bundle.check()


def test_a_history_written_anew_shows_at_the_anchor(trail: Trail) -> None:
    trail.writer.append(29)
    trail.save()
    prev, forged = trail.written[9].hash, trail.lines(1, 10)
    for old in trail.written[10:]:
        made = record_line(old.chain, old.seq, prev, START + old.seq * SECOND, old.trace_id, event="audit")
        forged.append(made.line)
        prev = made.hash
    trail.put(forged)
    bundle = trail.export()
    assert bundle.lines == trail.lines()
    assert wrong(bundle) == [("fork", 11, 30)]
    # And where the archive has the forged one too, its anchors disagree with one another.
    trail.save()
    again = trail.export(live=False)
    assert ("fork", 11, 30) in wrong(again)


def test_tail_cut_off_from_the_archive(trail: Trail) -> None:
    """An index that is gone takes the way to its parts with it; the manifest still says what there was."""
    trail.writer.append(19)
    trail.save()
    trail.writer.append(10)
    last = trail.save()
    trail.lose_live()
    (trail.engine.objects(last) / "index.gpg").write_bytes(b"broken")
    bundle = trail.export()
    assert bundle.lines == trail.lines(1, 20)
    assert ("cut_tail", 21, 30) in wrong(bundle)
    assert bundle.outcome.conservation["missing"] == 10
    assert any(last in text for text in bundle.outcome.not_proven)


@pytest.mark.parametrize("damage", ["removed", "changed", "cut"])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_part_lost(trail: Trail, damage: str, elsewhere: bool) -> None:
    trail.writer.append(19)
    trail.save()
    trail.writer.append(10)
    middle = trail.save()
    trail.writer.append(10)
    trail.save()
    if elsewhere:
        middle = trail.save(type="full")  # holds all; without it the others do
    trail.lose_live()
    (part,) = trail.engine.objects(middle).glob("part-*")
    if damage == "removed":
        part.unlink()
    else:
        data = bytearray(part.read_bytes())
        data[len(data) // 2] ^= 1
        part.write_bytes(data if damage == "changed" else data[: len(data) // 2])
    bundle = trail.export()
    finding = bundle.finding("unreadable")
    assert (finding["first"], finding["last"]) == ((1, 40) if elsewhere else (21, 30))
    assert middle in finding["where"]
    assert finding["innocent"] is elsewhere
    if elsewhere:
        assert bundle.outcome.ok
        assert bundle.lines == trail.lines()
        bundle.check()
    else:
        assert bundle.lines == [*trail.lines(1, 20), *trail.lines(31)]
        assert ("missing", 21, 30) in wrong(bundle)
        table = bundle.statement["conservation"]["total"]
        assert (table["archived"], table["restorable"], table["missing"]) == (40, 30, 10)


def test_a_part_exchanged_by_somebody_with_the_key(trail: Trail) -> None:
    """gpg is content with it; the encrypted index is not."""
    trail.writer.append(19)
    snapshot = trail.save()
    trail.lose_live()
    (part,) = trail.engine.objects(snapshot).glob("part-*")
    with trail.engine.session() as session:
        opened = snapshots.open_snapshot(session, session.repository.listed("logs")[0])
        plain = session.gpg.decrypt_bytes(part.read_bytes(), opened.passphrase)
        zstd = part.name.endswith(".zst.gpg")
        stream = zstandard.ZstdDecompressor().stream_reader(plain).read() if zstd else plain
        stream = stream.replace(b'"status":200', b'"status":500', 1)
        plain = zstandard.ZstdCompressor().compress(stream) if zstd else stream
        part.write_bytes(session.gpg.encrypt_bytes(plain, opened.passphrase))
    bundle = trail.export()
    assert bundle.lines == []
    assert ("unreadable", 1, 20) in wrong(bundle)


def test_a_snapshot_removed(trail: Trail) -> None:
    trail.writer.append(19)
    trail.save()
    trail.writer.append(10)
    middle = trail.save()
    trail.writer.append(10)
    trail.save()
    trail.lose_live()
    shutil.rmtree(trail.engine.objects(middle))
    bundle = trail.export()
    finding = bundle.finding("missing")
    assert (finding["first"], finding["last"]) == (21, 30)
    assert (finding["since"], finding["until"]) == (trail.written[19].time, trail.written[30].time)
    wrong(bundle)


def test_records_missing_at_the_edge_of_the_window(trail: Trail) -> None:
    trail.writer.append(59)
    trail.put([*trail.lines(1, 18), *trail.lines(24, 39), *trail.lines(45)])
    bundle = trail.export(START + 20 * SECOND, START + 40 * SECOND)  # records 22 to 41
    assert wrong(bundle) == [("missing", 19, 23), ("missing", 40, 44)]


# -- everyday life


def test_two_writers(trail: Trail) -> None:
    trail.writer.append(20)
    other = ChainedWriter(trail.logs / "second.log", start=START + 5 * SECOND)
    other.append(10)
    trail.save()
    trail.writer.append(5)
    other.append(5)
    bundle = trail.export()
    assert bundle.outcome.ok
    assert [chain["count"] for chain in bundle.statement["chains"]] in ([26, 16], [16, 26])
    assert "two_writers" in {finding["kind"] for finding in bundle.outcome.findings}
    merged = sorted([*trail.written, *other.written], key=lambda record: record.time)
    assert [json.loads(line)["time"] for line in bundle.lines] == [record.time for record in merged]
    assert sorted(bundle.lines) == sorted(record.line for record in merged)
    bundle.check()


def test_one_chain_written_by_two_is_a_fork(trail: Trail) -> None:
    trail.writer.append(20)
    branch = [record_line(trail.writer.chain, 12, trail.written[10].hash, START, event="audit")]
    branch.append(record_line(trail.writer.chain, 13, branch[0].hash, START, event="audit"))
    trail.put([record.line for record in branch], "old-host.log")
    trail.save()
    bundle = trail.export()
    assert bundle.lines == trail.lines()
    assert wrong(bundle) == [("fork", 12, 13)]
    assert "old-host.log" in bundle.finding("fork")["where"]


def test_clock_stepping_back_moves_no_record(trail: Trail) -> None:
    trail.writer.append(20)
    trail.writer.step_clock(-datetime.timedelta(hours=1, minutes=10))
    trail.writer.append(20)
    trail.save()
    trail.writer.step_clock(datetime.timedelta(hours=1, minutes=10))
    trail.writer.append(10)
    bundle = trail.export(START, START + 3600 * SECOND)
    assert bundle.outcome.ok
    assert bundle.lines == trail.lines()
    (chain,) = bundle.statement["chains"]
    assert chain["off_clock"] == 20
    assert bundle.finding("clock_step")["first"] == 22
    assert set(bundle.statement["conservation"]["hours"]) == {"2026-11-23T07", "2026-11-23T09"}
    assert any("20 records belong to the window" in text for text in bundle.outcome.not_proven)
    bundle.check()


def test_chain_restarted_after_a_restore(trail: Trail) -> None:
    trail.writer.append(20)
    first = trail.writer.chain
    trail.save()
    trail.writer.new_chain("restored or moved")
    trail.writer.append(10)
    bundle = trail.export()
    assert bundle.outcome.ok
    assert bundle.lines == trail.lines()
    starts = [finding for finding in bundle.outcome.findings if finding["kind"] == "new_chain"]
    assert any(f"record 21 of chain {first}" in finding["why"] for finding in starts)
    bundle.check()
    # The window begins after the change of hosts: the chain before is not in it, and known all the same.
    later = trail.export(START + 19 * SECOND, START + 100 * SECOND)
    assert later.outcome.ok, later.outcome.findings


def test_records_lost_between_two_chains(trail: Trail) -> None:
    trail.writer.append(20)
    trail.put(trail.lines(1, 15))  # the last six did not come back
    trail.writer.new_chain("restored or moved")
    trail.writer.append(10)
    trail.save()
    bundle = trail.export()
    assert wrong(bundle) == [("new_chain", 1, 1)]
    assert "no such record" in next(f["why"] for f in bundle.outcome.findings if not f["innocent"])


def test_records_of_an_older_installation(trail: Trail) -> None:
    old = [
        b'{"seq": %d, "time": "2026-11-23T17:00:%02d.5+08:00", "trace_id": "qwg-20261123-8b-%08x"}\n' % (n, n, n)
        for n in range(30)
    ]
    trail.put(old[:20], "old.log")
    trail.writer.append(3)
    trail.save()
    trail.put(old, "old.log")
    trail.put(old[5:25], "old-copy.log")
    bundle = trail.export()
    assert sorted(line for line in bundle.lines if b"chain" not in line) == sorted(old)
    assert bundle.statement["records"]["unchained"] == 30
    assert bundle.statement["records"]["unchained_copies_left_out"] >= 20
    assert any("30 records have no chain" in text for text in bundle.outcome.not_proven)
    times = [line.split(b'"time":')[1][:20] for line in bundle.lines if b"chain" in line]
    assert times == sorted(times)
    bundle.check()
