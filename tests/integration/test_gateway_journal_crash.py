# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""kill -9 at any moment: every acknowledged record is there, the chain holds, the next start repairs and says so."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from support.gateway_logs import Place, chains_of, events

ROOT = Path(__file__).resolve().parents[2]
CHILD = ROOT / "tests" / "support" / "journal_child.py"
ROUNDS = 30


def start(place: Place) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "roles" / "gateway" / "files")}
    command = [sys.executable, str(CHILD), str(place.logs), str(place.state)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)


def run_and_kill(place: Place, seconds: float, rotate: bool) -> list[str]:
    """One life of the writer; what it acknowledged."""
    child = start(place)
    assert child.stdout is not None
    lines: list[bytes] = []
    reader = threading.Thread(target=lambda: lines.extend(child.stdout or []))
    try:
        assert child.stdout.readline() == b"started\n"
        reader.start()
        if rotate:
            time.sleep(seconds / 2)
            place.active.rename(place.logs / f"audit.log.{time.time_ns()}")
        time.sleep(seconds)
    finally:
        child.kill()
        child.wait()
        if reader.ident is not None:
            reader.join()
        child.stdout.close()
    return [line.decode().strip() for line in lines if line.endswith(b"\n")]


@pytest.mark.slow
def test_kill_at_random_moments(tmp_path: Path) -> None:
    place = Place(tmp_path)
    told: list[str] = []
    torn = 0
    for number in range(ROUNDS):
        told += run_and_kill(place, random.uniform(0.0, 0.25), rotate=number % 3 == 0)
        # What a kill in the middle of a write leaves is rare to meet: half of the rounds make sure of it.
        if number % 2 and place.active.exists():
            with open(place.active, "ab") as log:
                log.write(b'{"chain":"0123456789abcdef","seq":12')
        ends = [path for path in place.logs.glob("audit.log*") if path.read_bytes()[-1:] not in (b"", b"\n")]
        torn += len([path for path in ends if ".torn-" not in path.name])
        assert len([path for path in ends if ".torn-" not in path.name]) <= 1
    writer = place.writer()
    place.close()
    assert writer.reports == [] or "damaged record" in writer.reports[0]
    (entries,) = list(chains_of(place.logs).values())  # complete, unbroken, every line whole
    found = [entry.record.trace_id for entry in entries]
    assert len(told) > ROUNDS
    assert set(told) <= set(found)
    assert len(found) == len(set(found))
    assert len(told) == len(set(told))
    repairs = events(place.logs, "repair")
    assert [event["reason"] for event in repairs] == ["torn line"] * torn
    assert torn >= ROUNDS // 2 - 1
    assert len(list(place.logs.glob("*.torn-*"))) == torn
