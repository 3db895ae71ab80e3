# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long an increment of 1 MB takes among 10,000 rotated logs of 1 GB, and how long it takes to find nothing.

    .venv/bin/python tests/bench/bench_increment.py [--files N] [--size BYTES] [--runs N] [--only local|s3] [--json]

Each run is one backup of the module, as Ansible runs it on a host: "whole" is its process from start to end,
"inside" the module's own `seconds`, "cpu" all processor time. The full before is one untimed run; the page cache is
warm. That nothing new stores nothing is checked by listing the store before and after.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import typing as t

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from sample_instance.logs import ACTIVE, bulk_lines, many_rotated_files

from support.modules import module_command, module_environment, module_input
from support.seaweed import Seaweed

GOALS = {"increment": 2.0, "nothing_new": 1.0}
INCREMENT_BYTES = 1_000_000
DATA = pathlib.Path(__file__).with_name("data")


class Place(t.NamedTuple):
    """A repository, and a way to list its objects."""

    repository: str
    rclone_config: str | None
    objects: t.Callable[[], dict[str, int]]


@contextlib.contextmanager
def local_place(work: pathlib.Path) -> t.Iterator[Place]:
    """A directory."""
    root = work / "repository"
    root.mkdir(parents=True)
    yield Place(str(root), None, lambda: {str(p): p.stat().st_mtime_ns for p in root.rglob("*") if p.is_file()})


@contextlib.contextmanager
def s3_place(work: pathlib.Path) -> t.Iterator[Place]:
    """A bucket of a new SeaweedFS."""
    with Seaweed(work / "weed", volume_size_mb=1024) as server:
        bucket = server.make_bucket("bench")

        def objects() -> dict[str, int]:
            pages = server.client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
            return {o["Key"]: o["LastModified"].timestamp() for page in pages for o in page.get("Contents", [])}

        yield Place(f"store:{bucket}", str(server.rclone_config(work / "rclone.conf")), objects)


PLACES = {"local": local_place, "s3": s3_place}


class Run(t.NamedTuple):
    """One backup."""

    whole: float  # seconds of the process
    cpu: float  # of it and its children: tells more than the rest where the machine is busy with other things
    result: dict[str, t.Any]


def back_up(logs: pathlib.Path, place: Place, work: pathlib.Path) -> Run:
    """Run the module."""
    arguments = {
        "instance": "bench", "layer": "logs", "path": str(logs), "repository": place.repository,
        "rclone_config": place.rclone_config, "state_dir": str(work / "state"),
        "key": {"provider": "file", "key_file": str(work / "key")},
    }  # fmt: skip
    given = module_input({name: value for name, value in arguments.items() if value is not None})
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        module_command("backup"), input=given, capture_output=True, env=module_environment(), check=False
    )
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    result = json.loads(done.stdout)
    if done.returncode:
        raise RuntimeError(f"backup failed: {result}")
    return Run(seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, result)


def measure(logs: pathlib.Path, work: pathlib.Path, kind: str, runs: int) -> dict[str, t.Any]:
    """Medians in seconds for one kind of repository."""
    runs_of: dict[str, list[Run]] = {goal: [] for goal in GOALS}
    work.mkdir()
    (work / "key").write_text("0123456789abcdef" * 3)
    (work / "key").chmod(0o600)
    with PLACES[kind](work) as place:
        full = back_up(logs, place, work)
        for number in range(runs + 1):
            bulk_lines(work / "new", INCREMENT_BYTES, seed=number + 2, first_seq=10**8 * (number + 1))
            with (logs / ACTIVE).open("ab") as active:
                active.write((work / "new").read_bytes())
            increment = back_up(logs, place, work)
            if increment.result["type"] != "increment" or abs(increment.result["bytes"] - INCREMENT_BYTES) > 1000:
                raise RuntimeError(f"not an increment of what was written: {increment.result}")
            before = place.objects()
            idle = back_up(logs, place, work)
            if idle.result["changed"] or place.objects() != before:
                raise RuntimeError(f"something was stored though nothing was new: {idle.result}")
            if number:  # the first one warmed the caches
                runs_of["increment"].append(increment)
                runs_of["nothing_new"].append(idle)
    found: dict[str, t.Any] = {}
    for name, done in runs_of.items():
        found[f"{name}_whole"] = round(statistics.median(run.whole for run in done), 2)
        found[f"{name}_inside"] = round(statistics.median(run.result["seconds"] for run in done), 2)
        found[f"{name}_cpu"] = round(statistics.median(run.cpu for run in done), 2)
    return {
        **found,
        "full_whole": round(full.whole, 2),
        "full_stored_bytes": full.result["stored_bytes"],
        "increment_stored_bytes": increment.result["stored_bytes"],
        "reached": all(found[f"{name}_whole"] < goal for name, goal in GOALS.items()),
    }


def run_bench(files: int, size: int, runs: int, kinds: t.Sequence[str]) -> dict[str, t.Any]:
    """All figures."""
    DATA.mkdir(exist_ok=True)
    found: dict[str, t.Any] = {"files": files, "bytes": size, "runs": runs, "goals_s": GOALS}
    with tempfile.TemporaryDirectory(dir=DATA) as folder:
        logs = pathlib.Path(folder, "logs")
        many_rotated_files(logs, files, size)
        for kind in kinds:
            found[kind] = measure(logs, pathlib.Path(folder, kind), kind, runs)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=1_000_000_000, help="bytes of all logs together")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", choices=sorted(PLACES), action="append")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = run_bench(options.files, options.size, options.runs, options.only or list(PLACES))
    if options.json:
        print(json.dumps(found))
        return
    print(f"{found['files']} logs of {found['bytes'] / 1e6:.0f} MB together, medians of {found['runs']}, seconds")
    for kind in PLACES:
        for name, value in found.get(kind, {}).items():
            print(f"  {kind:<6}{name:<24}{value}")
    print(f"goals: {found['goals_s']}")


if __name__ == "__main__":
    main()
