# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a snapshot of the logs says of its records, held against every line that was written."""

from __future__ import annotations

import collections
import datetime
import gzip
import os
import typing as t
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_instance.chained import ChainedWriter, Written

from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import GuardError, SourceChanged, StoreError
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.manifest import FULL, INCREMENT
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.record_table import RecordTable
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.records import day_of
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.slicing import PLAIN, slice_entries
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.tree import FILE, Entry, Tree, scan
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import records as scans
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import snapshot as taking
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import snapshots, verify
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.overview import overview
from support.engine import INSTANCE, Engine


class Audited:
    """A gateway's log, the engine that saves it, and what the newest snapshot says."""

    def __init__(self, place: Path):
        self.logs = place / "logs"
        self.engine = Engine(place, "logs")
        self.writer = ChainedWriter(self.logs / "audit.log")

    def save(self, kind: str, **options: t.Any) -> snapshots.Opened:
        """A backup of this type, opened."""
        outcome = self.engine.backup(self.logs, **options)
        assert outcome.type == kind, outcome
        with self.engine.session() as session:
            return snapshots.open_snapshot(session, session.repository.listed("logs")[-1])

    def check(self, opened: snapshots.Opened, written: t.Sequence[Written], packed: bool = False) -> None:
        """The summary, the runs and the tables speak of exactly these records."""
        told = opened.manifest.records
        assert told is not None
        assert (told["count"], told["odd"], told["not_scanned"]) == (len(written), 0, [])
        assert told["hours"] == dict(collections.Counter(record.time[:13] for record in written))
        numbers = collections.defaultdict(list)
        for record in written:
            numbers[record.chain].append(record.seq)
        assert {c["chain"]: (c["first"], c["last"], c["count"], c["breaks"]) for c in told["chains"]} == {
            chain: (min(seqs), max(seqs), len(seqs), 0) for chain, seqs in numbers.items()
        }
        heads = {record.chain: record.hash for record in sorted(written, key=lambda record: record.seq)}
        assert {c["chain"]: c["head"] for c in told["chains"]} == heads
        runs = opened.index.layer["records"]
        assert {run["packed"] for run in runs} == {packed}
        held = [(run["chain"], seq) for run in runs for seq in range(run["first"], run["last"] + 1)]
        assert sorted(held) == sorted((record.chain, record.seq) for record in written)
        tables = self.tables(opened)
        for record in written:
            (part,) = tables[day_of(record.trace_id)].parts_with(record.trace_id)
            mine = [r for r in runs if r["chain"] == record.chain and r["first"] <= record.seq <= r["last"]]
            assert [run["part"] for run in mine] == [part]

    def tables(self, opened: snapshots.Opened) -> dict[str, RecordTable]:
        found = {}
        with self.engine.session() as session:
            for table in opened.manifest.records["tables"]:
                name = session.repository.name(table["name"])
                plain = session.gpg.decrypt_bytes(session.repository.store.read(name), opened.passphrase, name)
                found[table["day"]] = RecordTable.decode(plain, name, table["name"])
        return found

    def stored_tables(self) -> list[Path]:
        return [path for path in (self.engine.store_path / INSTANCE / "records").rglob("*") if path.is_file()]


@pytest.fixture(name="audited")
def fixture_audited(tmp_path: Path) -> Audited:
    return Audited(tmp_path)


def test_fulls_increments_rotation_and_clocks(audited: Audited) -> None:
    writer = audited.writer
    writer.append(30)
    audited.check(audited.save(FULL), writer.written)
    before = len(writer.written)
    writer.append(10)
    writer.rotate("audit.log.1")
    writer.step_clock(datetime.timedelta(hours=-2))
    writer.append(10)
    audited.check(audited.save(INCREMENT), writer.written[before:])
    before = len(writer.written)
    writer.rotate("audit.log.2")
    writer.step_clock(datetime.timedelta(days=3))
    writer.append(5)
    writer.new_chain()
    writer.append(5)
    opened = audited.save(INCREMENT)
    audited.check(opened, writer.written[before:])
    assert {chain["prev"] for chain in opened.manifest.records["chains"]} == {
        writer.written[before - 1].hash, writer.written[-7].hash,
    }  # fmt: skip
    audited.check(audited.save(FULL, type="full"), writer.written)
    with audited.engine.session() as session:
        verdict = verify.verify(session, verify.Options("loaded", ownership=False))
        assert verdict.ok, verdict.failures
        assert verdict.details["logs"]["anchors"] == {"equal": 2, "of": 2}
        (told,) = [item for item in overview(session.repository)["snapshots"]["logs"] if item["type"] == "full"][-1:]
    folder = audited.engine.objects(told["snapshot"])
    own = [path for path in audited.stored_tables() if told["snapshot"] in path.name]
    assert len(own) == 2
    assert told["stored_bytes"] == sum(path.stat().st_size for path in [*folder.iterdir(), *own])


def test_compressed_torn_and_strange_files(audited: Audited) -> None:
    """What is kept compressed is read; what cannot be read is told; an unfinished line is no record."""
    writer = audited.writer
    writer.append(20)
    packed = audited.logs / "audit.log.1.gz"
    plain = writer.rotate("audit.log.1")
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    (audited.logs / "audit.log").unlink()
    audited.check(audited.save(FULL), writer.written, packed=True)
    (audited.logs / "torn.log.gz").write_bytes(gzip.compress(os.urandom(9000) + b'{"trace_id":"x"}\n')[:-20])
    (audited.logs / "other.log").write_bytes(b"no record\n" + b'{"trace_id":"a-1"}\n' + b'{"trace_id":"torn')
    opened = audited.save(FULL, type="full")
    told = opened.manifest.records
    assert told["not_scanned"] == ["torn.log.gz"]
    assert (told["count"], told["unchained"], told["odd"]) == (len(writer.written) + 1, 1, 1)
    assert audited.tables(opened)["undated"].parts_with("a-1") == [0]


def test_many_processes_find_the_same(audited: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    audited.writer.append(6000)
    monkeypatch.setattr(scans, "_WORTH_FORKING", 1)
    opened = audited.save(FULL)
    assert len(opened.manifest.parts) > 2
    audited.check(opened, audited.writer.written)


def test_a_line_too_long_for_a_part_is_one_record(audited: Audited) -> None:
    audited.writer.append(2)
    audited.writer.append(1, text="x" * 2_500_000)
    audited.writer.append(2)
    opened = audited.save(FULL)
    assert len(opened.manifest.parts) > 2
    audited.check(opened, audited.writer.written)


def test_a_line_that_never_ends_is_no_record(audited: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scans, "_LONGEST_LINE", 1000)
    monkeypatch.setattr(scans, "_BLOCK", 400)
    before = list(audited.writer.append(3, text="short"))
    with open(audited.writer.path, "ab") as log:
        log.write(b'{"trace_id":"x","text":"' + b"y" * 5000 + b'"}\n')
    written = [*before, *audited.writer.append(2, text="short")]
    opened = audited.save(FULL)
    assert opened.manifest.records["odd"] == 1
    assert opened.manifest.records["count"] == len(written) + 1


def test_renamed_after_it_was_stored(audited: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    audited.writer.append(10)
    real = taking._store_parts

    def rotated(*arguments: t.Any) -> int:
        stored = real(*arguments)
        audited.writer.rotate("audit.log.1")
        return stored

    monkeypatch.setattr(taking, "_store_parts", rotated)
    audited.check(audited.save(FULL), audited.writer.written)


@pytest.mark.parametrize("times", [1, 9])
def test_changed_after_it_was_stored(audited: Audited, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """The table must speak of what the parts hold, or there is no snapshot; and the next run is none the worse."""
    audited.writer.append(100)
    real, calls = taking._store_parts, []

    def changed(*arguments: t.Any) -> int:
        stored = real(*arguments)
        calls.append(stored)
        if len(calls) <= times:
            data = bytearray(audited.writer.path.read_bytes())
            data[20000] ^= 1  # far from what a log is recognised by
            audited.writer.path.write_bytes(data)
        return stored

    monkeypatch.setattr(taking, "_store_parts", changed)
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    if times > 3:
        with pytest.raises(SourceChanged):
            audited.engine.backup(audited.logs)
        assert not audited.stored_tables()
        assert not audited.engine.repository.listed("logs")
        calls += [0] * times
    audited.save(FULL)
    assert audited.engine.restore(audited.logs.parent / "back").files == 1
    assert (audited.logs.parent / "back" / "audit.log").read_bytes() == audited.writer.path.read_bytes()


def test_an_interrupted_run_leaves_no_tables(audited: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    audited.writer.append(10)

    def refuse(*_arguments: t.Any) -> t.NoReturn:
        raise StoreError("store", "a store", "none")

    for there, same in enumerate((True, False)):
        with monkeypatch.context() as patch:
            patch.setattr(taking, "_store_index", refuse)
            with pytest.raises(GuardError):
                audited.engine.backup(audited.logs, type="full")
        assert len(audited.stored_tables()) == there + 1
        if not same:
            audited.writer.append(1)
        opened = audited.save(FULL, type="full")
        audited.check(opened, audited.writer.written)
        complete = {item.snapshot for item in audited.engine.repository.listed("logs") if item.complete}
        assert {path.name.split(".")[0] for path in audited.stored_tables()} == complete


def test_a_missing_or_changed_table_is_found(audited: Audited) -> None:
    audited.writer.append(10)
    opened = audited.save(FULL)
    (table,) = audited.stored_tables()
    good = table.read_bytes()
    for data, levels in ((None, verify.LEVELS), (good[:-1] + b"x", ("stored", "decrypted"))):
        if data is None:
            table.unlink()
        else:
            table.write_bytes(data)
        for level in levels:
            with audited.engine.session() as session:
                verdict = verify.verify(session, verify.Options(level, ownership=False))
            assert not verdict.ok
            assert all(table.name in failure for failure in verdict.failures)
    with audited.engine.session() as session:
        assert not overview(session.repository)["snapshots"]["logs"][0]["damaged"]
        table.unlink()
        assert table.name in overview(session.repository)["snapshots"]["logs"][0]["damaged"]
    assert audited.engine.restore(audited.logs.parent / "back").files == 1, "a restore needs no table"
    assert opened.manifest.stored_bytes > opened.manifest.index.size + len(good)


@pytest.mark.parametrize("change", [
    lambda lines: lines[:3] + lines[4:], lambda lines: [*lines[:3], lines[3].replace(b"safe", b"SAFE"), *lines[4:]],
    lambda lines: [*lines[:3], lines[4], lines[3], *lines[5:]],
])  # fmt: skip
def test_loaded_checks_the_chain(audited: Audited, change: t.Callable[[list[bytes]], list[bytes]]) -> None:
    audited.writer.append(10, text="x")
    path = audited.writer.path
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))
    audited.engine.backup(audited.logs)
    with audited.engine.session() as session:
        assert verify.verify(session, verify.Options("restored", ownership=False)).ok
        verdict = verify.verify(session, verify.Options("loaded", ownership=False))
    assert not verdict.ok
    assert audited.writer.chain in verdict.failures[0]


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 90_000), min_size=1, max_size=30),
    part_size=st.integers(1000, 400_000),
    packed=st.booleans(),
)
def test_no_line_lies_in_two_parts(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], part_size: int, packed: bool
) -> None:
    """Unless it is longer than 64 KiB, or than a part; and whatever is cut where, all of the file is there."""
    root = tmp_path_factory.mktemp("lines")
    lines = [bytes([97 + number % 26]) * (length - 1) + b"\n" for number, length in enumerate(lengths)]
    (root / "audit.log").write_bytes(b"".join(lines))
    with Tree(str(root)) as tree:
        entries = scan(str(root))[0]
        (entry,) = [entry for entry in entries if entry.type == FILE]
        ends = scans.part_ends(tree, [scans.Log(entry, entry.size, packed)])
        parts = slice_entries(entries, lambda _entry: PLAIN, part_size, part_ends=ends)
    assert all(part.length <= part_size for part in parts if part.codec == PLAIN)
    extents = entry.extents
    assert sum(extent.length for extent in extents) == entry.size
    if packed:
        return
    cuts = {extent.offset for extent in extents[1:]}
    position = 0
    for line in lines:
        inside = [cut for cut in cuts if position < cut < position + len(line)]
        assert not inside or len(line) > min(part_size, 65536)
        position += len(line)


def test_part_ends_of_other_files() -> None:
    entry = Entry("x", FILE)
    assert scans.part_ends(t.cast(Tree, None), [])(entry, 3, 7) == 7
