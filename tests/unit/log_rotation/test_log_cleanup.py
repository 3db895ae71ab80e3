# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The program that removes rotated logs: only what is old and archived, record by record."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import pytest

from qwen3guard_gateway import record
from support.checkout import ROOT

PROGRAM = ROOT / "roles" / "log_rotation" / "files" / "log_cleanup.py"
CHAIN = "f163744e7471c240"
NOW = time.time_ns()
DAY = 86400
HOUR_NS = 3600 * 10**9


class Logs:
    """A live log with rotated files beside it, and a ledger."""

    def __init__(self, base: Path):
        self.directory = base / "logs"
        self.directory.mkdir()
        self.ledger = base / "archived.json"
        self.live = self.directory / "audit.log"
        self.live.write_bytes(self.lines(1, 3))
        self.archive((1, 100))

    @staticmethod
    def lines(first: int, last: int, age_hours: int = 60 * 24) -> bytes:
        fields = record.encode_fields({"text": "hello"})
        when = NOW - age_hours * HOUR_NS
        return b"".join(
            record.make_line(CHAIN, seq, record.NO_HASH, when, "8b", fields).data for seq in range(first, last + 1)
        )

    def rotated(self, content: bytes, number: int = 0, age_days: float = 40, name: str = "") -> Path:
        path = self.directory / (name or f"audit.log-20260901-{1788220800 + number}")
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
        os.utime(path, (time.time() - age_days * DAY,) * 2)
        return path

    def archive(self, *ranges: tuple[int, int], made: str = "20261001_0923") -> None:
        entries = [
            {"chain": CHAIN, "first": first, "last": last, "snapshot": "000001-0", "status": f"archived_to_oss_{made}"}
            for first, last in ranges
        ]
        told = {"format": 1, "remote": "oss", "snapshot": "000001-0", "archived": entries}
        self.ledger.write_text(json.dumps(told), encoding="utf-8")

    def clean(self, *options: str, days: int = 30) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, str(PROGRAM), "--ledger", str(self.ledger), "--days", str(days), *options]
        return subprocess.run([*words, str(self.live)], capture_output=True, text=True, check=False)


@pytest.fixture
def logs(tmp_path: Path) -> Logs:
    made = Logs(tmp_path)
    made.archive((1, 100), made=time.strftime("%Y%m%d_%H%M", time.gmtime(NOW / 1e9 - 59 * DAY)))
    return made


def test_old_and_archived_files_are_removed(logs: Logs) -> None:
    plain = logs.rotated(logs.lines(1, 10))
    others = [
        logs.rotated(logs.lines(11, 20), name="audit.log-20260901-1788220900.gz"),
        logs.rotated(logs.lines(21, 30), name="audit.log-restored-000012"),  # by a recovery
        logs.rotated(logs.lines(31, 40), name="audit.log-20260901-1788220900-restored-000012-2.gz"),
    ]
    done = logs.clean()
    assert done.returncode == 0, done.stderr
    assert not any(path.exists() for path in [plain, *others])
    assert "10 records are archived" in done.stdout


def test_what_is_no_rotated_log_stays(logs: Logs) -> None:
    names = [
        "audit.log.torn-20260901T000000Z",
        "audit.log.suspect-20260901",
        "audit.log-20260901",
        "other.log-20260901-1788220800",
    ]
    paths = [logs.rotated(logs.lines(1, 5), name=name) for name in names]
    os.utime(logs.live, (1, 1))
    logs.clean()
    assert all(path.exists() for path in [*paths, logs.live])


def test_young_files_stay_whatever_their_names_say(logs: Logs) -> None:
    young = logs.rotated(logs.lines(1, 5), age_days=29, name="audit.log-20200101-1577836800")
    assert logs.clean().returncode == 0
    assert young.exists()


@pytest.mark.parametrize("ranges", [[], [(1, 9)], [(2, 10)], [(1, 4), (6, 10)]])
def test_one_record_that_is_not_archived_keeps_its_file(logs: Logs, ranges: list[tuple[int, int]]) -> None:
    old = logs.rotated(logs.lines(1, 10))
    other = logs.rotated(logs.lines(2, 4), number=1)
    logs.archive(*ranges)
    done = logs.clean()
    assert done.returncode == 1
    assert old.exists()
    assert "is not archived" in done.stderr
    assert other.exists() is (ranges == [])


def test_numbers_given_a_second_time_are_not_taken_for_archived(logs: Logs) -> None:
    # The host was set back: the same chain went on from an older number, after the snapshot was made.
    old = logs.rotated(logs.lines(1, 10, age_hours=50 * 24))
    done = logs.clean()
    assert done.returncode == 1
    assert "newer than the snapshot" in done.stderr
    assert old.exists()


def _altered(content: bytes) -> bytes:
    return content.replace(b"hello", b"hullo", 1)


def _half(content: bytes) -> bytes:
    return content[:-20]


@pytest.mark.parametrize(
    ("change", "code"), [(_altered, 1), (_half, 0), (lambda content: b"a line of an older installation\n" + content, 0)]
)
def test_what_no_ledger_can_speak_of_stays(logs: Logs, change: t.Callable[[bytes], bytes], code: int) -> None:
    old = logs.rotated(change(logs.lines(1, 10)))
    assert logs.clean().returncode == code
    assert old.exists()


def test_damaged_archives_stay(logs: Logs) -> None:
    old = logs.rotated(logs.lines(1, 10), name="audit.log-20260901-1788220900.gz")
    content = old.read_bytes()
    old.write_bytes(content[:-10])
    os.utime(old, (1, 1))
    assert logs.clean().returncode == 1
    assert old.exists()


@pytest.mark.parametrize(
    "content", [None, "", "[]", '{"format": 2}', '{"format": 1, "archived": [{"chain": "f163744e7471c240"}]}']
)
def test_without_a_ledger_everything_stays(logs: Logs, content: str | None) -> None:
    old = logs.rotated(logs.lines(1, 10))
    if content is None:
        logs.ledger.unlink()
    else:
        logs.ledger.write_text(content, encoding="utf-8")
    done = logs.clean()
    assert done.returncode == 2
    assert "1 old files stay" in done.stderr
    assert old.exists()


@pytest.mark.parametrize(("options", "days"), [(["--dry-run"], 30), ([], 0)])
def test_nothing_is_removed_when_not_asked_to(logs: Logs, options: list[str], days: int) -> None:
    old = logs.rotated(logs.lines(1, 10))
    assert logs.clean(*options, days=days).returncode == 0
    assert old.exists()
