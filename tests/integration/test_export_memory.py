# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An export streams: six times the records take no more memory. tests/bench/bench_export.py measures 26 million."""

from __future__ import annotations

import datetime
import subprocess
import sys
from pathlib import Path

import pytest
from bench.bench_export import START, write_hour

from support.checkout import ROOT, link_collection
from support.engine import INSTANCE, Engine
from support.evidence import run_checker

_EXPORT = """
import resource, sys
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.repository import Repository
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import export
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.session import Progress, Session
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.gpg import Gpg
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.keys.key_file import KeyFile
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.store import DirectoryStore
store, instance, key, state, path, start, end = sys.argv[1:]
with Gpg() as gpg:
    session = Session(
        Repository(DirectoryStore(store), instance), "logs", gpg, KeyFile(key, gpg), state, 2, 1, 120.0, Progress(None)
    )
    outcome = export.export(session, export.Options(start, end, path, unsigned=True))
print(outcome.records, outcome.parts, outcome.ok, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak(base: Path, rate: int) -> tuple[int, int]:
    """(parts that were read, KiB) for an hour of so many records a second, from the archive alone."""
    base.mkdir()
    engine, logs = Engine(base, "logs"), base / "logs"
    logs.mkdir()
    write_hour(logs / "audit.log", 0, rate, "0" * 64)
    engine.backup(logs, part_size=1 << 20)
    times = [START.isoformat(), (START + datetime.timedelta(hours=1)).isoformat()]
    places = [str(engine.store_path), INSTANCE, str(engine.key_file), str(base / "state"), str(base / "bundle")]
    done = subprocess.run(
        [sys.executable, "-c", _EXPORT, *places, *times], check=True, capture_output=True, timeout=600, cwd=ROOT,
        env={"PYTHONPATH": str(link_collection()), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    records, parts, right, kib = done.stdout.decode().split()
    assert (int(records), right) == (3600 * rate, "True")
    assert run_checker(base / "bundle").rc == 0
    return int(parts), int(kib)


@pytest.mark.slow
def test_memory_stays_where_it_is(tmp_path: Path) -> None:
    few, many = peak(tmp_path / "few", 10), peak(tmp_path / "many", 60)
    assert many[0] > 5 * few[0]
    assert many[1] - few[1] < 12 * 1024, (few, many)
