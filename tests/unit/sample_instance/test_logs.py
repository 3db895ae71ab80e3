# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The sample log has the traps that it promises, and every record in it exactly once."""

from __future__ import annotations

import gzip
import json
import re
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sample_instance import logs

TRACE_ID = re.compile(r"qwg-\d{8}-8b-[0-9a-f]{8}")
DAYS, RECORDS_PER_DAY = 4, 40


@pytest.fixture(name="directory")
def fixture_directory(tmp_path: Path) -> Path:
    return tmp_path / "logs"


@pytest.fixture(name="history")
def fixture_history(directory: Path) -> logs.History:
    return logs.write_history(directory, DAYS, RECORDS_PER_DAY, seed=7)


def by_number(directory: Path) -> list[logs.Record]:
    return sorted(logs.iter_records(directory, torn=[]), key=lambda record: record["seq"])


def times_in(path: Path) -> tuple[str, str]:
    times = [record["time"] for record in file_records(path)]
    return min(times), max(times)


def file_records(path: Path) -> list[logs.Record]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as lines:
        return [json.loads(line) for line in lines if line.endswith(b"\n")]


def test_every_record_is_there_exactly_once(directory: Path, history: logs.History) -> None:
    assert by_number(directory) == history.records
    assert [record["seq"] for record in history.records] == list(range(1, DAYS * RECORDS_PER_DAY + 1))


def test_same_seed_gives_same_files(directory: Path, history: logs.History, tmp_path: Path) -> None:
    logs.write_history(tmp_path / "again", DAYS, RECORDS_PER_DAY, seed=7)
    names = sorted(path.name for path in directory.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "again").iterdir())
    for name in names:
        assert (tmp_path / "again" / name).read_bytes() == (directory / name).read_bytes()
        assert (tmp_path / "again" / name).stat().st_mtime_ns == (directory / name).stat().st_mtime_ns


def test_another_seed_gives_other_records(history: logs.History, tmp_path: Path) -> None:
    other = logs.write_history(tmp_path / "other", DAYS, RECORDS_PER_DAY, seed=8)
    ids = {record["trace_id"] for record in history.records}
    assert not ids & {record["trace_id"] for record in other.records}


def test_record_has_the_promised_fields(history: logs.History) -> None:
    for record in history.records:
        assert set(record) == {
            "seq", "time", "trace_id", "source_ip", "text", "verdict", "categories", "confidence",
        }  # fmt: skip
        assert TRACE_ID.fullmatch(record["trace_id"])
        assert datetime.fromisoformat(record["time"]).utcoffset() == timedelta(hours=8)
        assert 0.5 <= record["confidence"] <= 1
    assert {record["verdict"] for record in history.records} == {"safe", "controversial", "unsafe"}
    texts = "".join(record["text"] for record in history.records)
    assert re.search("[\u4e00-\u9fff]", texts)
    assert re.search("[a-z]{4} [a-z]", texts)


def test_lines_hold_chinese_as_it_is(directory: Path, history: logs.History) -> None:
    assert re.search("[\u4e00-\u9fff]", (directory / logs.ACTIVE).read_bytes().decode("utf-8", "ignore"))


def test_trace_ids_are_unique(history: logs.History) -> None:
    assert len({record["trace_id"] for record in history.records}) == len(history.records)


def test_clock_steps_back_exactly_once(history: logs.History) -> None:
    times = [datetime.fromisoformat(record["time"]) for record in history.records]
    backward = [number for number in range(1, len(times)) if times[number] < times[number - 1]]
    assert [history.records[number - 1]["seq"] for number in backward] == [history.stepped_back_after_seq]


def test_two_files_of_one_date_overlap_in_time(directory: Path, history: logs.History) -> None:
    first_of_one, last_of_one = times_in(directory / "audit.log-20240520")
    first_of_two, last_of_two = times_in(directory / "audit.log-20240520.1")
    assert first_of_one < first_of_two < last_of_one < last_of_two


def test_plain_and_compressed_file_of_one_name_hold_different_records(directory: Path, history: logs.History) -> None:
    plain = file_records(directory / "audit.log-20240522")
    packed = file_records(directory / "audit.log-20240522.gz")
    assert plain
    assert packed
    assert not [record for record in plain if record in packed]


def test_each_way_of_rotation_is_there(directory: Path, history: logs.History) -> None:
    assert {path.name for path in directory.iterdir()} == {
        "audit.log",
        "audit.log.1",
        "audit.log.2",
        "audit.log.3.gz",
        "audit.log-20240520",
        "audit.log-20240520.1",
        "audit.log-20240522",
        "audit.log-20240522.gz",
        "audit.log-20240523",
    }


def test_active_file_ends_in_half_a_line_and_it_is_reported(directory: Path, history: logs.History) -> None:
    content = (directory / logs.ACTIVE).read_bytes()
    tail = content.rpartition(b"\n")[2]
    with pytest.raises(ValueError):
        json.loads(tail)
    torn: list[str] = []
    assert len(list(logs.iter_records(directory, torn))) == len(history.records)
    assert torn == [
        f"{directory / logs.ACTIVE}: half-written last line of {len(tail)} bytes at offset {len(content) - len(tail)}"
    ]


def test_bad_line_inside_a_file_is_an_error(directory: Path, history: logs.History) -> None:
    path = directory / "audit.log-20240520"
    path.write_bytes(b'{"seq": 1\n' + path.read_bytes())
    with pytest.raises(ValueError, match=r"audit\.log-20240520: line 1 is no record"):
        list(logs.iter_records(directory))


def test_new_writer_goes_on_and_completes_the_torn_line(directory: Path, history: logs.History) -> None:
    with logs.Writer(directory, seed=7) as writer:
        assert writer.torn
        added = writer.append(3)
        assert not writer.torn
    assert by_number(directory) == history.records + added
    assert len({record["trace_id"] for record in by_number(directory)}) == len(history.records) + 3


def test_writer_of_another_seed_refuses_the_torn_line(directory: Path, history: logs.History) -> None:
    with pytest.raises(ValueError, match="not of this generator with seed 8"):
        logs.Writer(directory, seed=8)


def test_writer_goes_on_in_the_renamed_file_until_it_reopens(directory: Path) -> None:
    with logs.Writer(directory) as writer:
        before = writer.append(2)
        renamed = writer.rotate("dated", reopen=False)
        late = writer.append(2)
        writer.reopen()
        after = writer.append(1)
    assert file_records(renamed) == before + late
    assert file_records(directory / logs.ACTIVE) == after


def test_numbered_rotation_shifts_compressed_files_too(directory: Path) -> None:
    with logs.Writer(directory) as writer:
        oldest = writer.append(1)
        writer.rotate("numbered")
        writer.compress("audit.log.1")
        middle = writer.append(1)
        writer.rotate("numbered")
        newest = writer.append(1)
        writer.rotate("numbered")
    assert file_records(directory / "audit.log.3.gz") == oldest
    assert file_records(directory / "audit.log.2") == middle
    assert file_records(directory / "audit.log.1") == newest


def test_copytruncate_keeps_the_inode_of_the_active_file(directory: Path) -> None:
    with logs.Writer(directory) as writer:
        before = writer.append(2)
        inode = writer.active.stat().st_ino
        copy = writer.copytruncate()
        after = writer.append(1)
    assert writer.active.stat().st_ino == inode
    assert file_records(copy) == before
    assert file_records(writer.active) == after


@pytest.mark.parametrize("action", ["reopen", "copytruncate"])
def test_torn_line_is_not_spread_over_two_files(directory: Path, action: str) -> None:
    with logs.Writer(directory) as writer:
        writer.append(1, torn=True)
        with pytest.raises(ValueError, match="complete the half-written line first"):
            getattr(writer, action)()


def test_unknown_scheme_names_the_known_ones(directory: Path) -> None:
    with logs.Writer(directory) as writer, pytest.raises(ValueError, match="numbered, dated, found 'weekly'"):
        writer.rotate("weekly")


def test_hard_links_and_symbolic_links_do_not_double_records(directory: Path, history: logs.History) -> None:
    (directory / "audit.log.hard").hardlink_to(directory / logs.ACTIVE)
    (directory / "audit.log.soft").symlink_to(logs.ACTIVE)
    assert len(list(logs.iter_records(directory, torn=[]))) == len(history.records)


def test_bulk_lines_are_whole_unique_records_of_the_wanted_size(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    count = logs.bulk_lines(path, 2_000_000, seed=7)
    records = list(logs.iter_records(tmp_path))
    assert 2_000_000 <= path.stat().st_size < 2_010_000
    assert count == len(records) == len({record["trace_id"] for record in records})
    assert [record["seq"] for record in records] == list(range(1, count + 1))
    assert set(records[0]) == {
        "seq", "time", "trace_id", "source_ip", "text", "verdict", "categories", "confidence",
    }  # fmt: skip


def test_many_rotated_files(tmp_path: Path) -> None:
    count = logs.many_rotated_files(tmp_path / "logs", files=20, total_bytes=210_000)
    paths = list((tmp_path / "logs").iterdir())
    records = list(logs.iter_records(tmp_path / "logs"))
    assert len(paths) == 21
    assert 210_000 <= sum(path.stat().st_size for path in paths) < 225_000
    assert sorted(record["seq"] for record in records) == list(range(1, count + 1))
