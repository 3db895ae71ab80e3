# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long a patrol of a fleet takes: 1,000 instances in a directory, and in a local S3 (SeaweedFS).

    .venv/bin/python tests/bench/bench_patrol.py [--instances N] [--days N] [--only local|s3] [--runs N]

Each run is one process of the module, as Ansible runs it, from start to end. On one machine the S3 server shares the
processors with it, and there is no network between them.

Each instance has three snapshots of the model, five of the configuration, and for each day a full and 24 increments of
the logs; daily quick verifications of all layers and a weekly restored one; a drill; and the sign of life of its own
patrol. Every 50th instance has a fault, which the patrol has to find. Of a snapshot there is only its manifest, as a
patrol of a fleet looks at nothing else, and a manifest that it cannot ask for (all but the newest, the newest full and
the oldest) is empty. In the S3 there are fewer days: a listing costs the same for 10 as for 1,000 snapshots.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from support.checkout import find_tool, link_collection
from support.modules import module_command, module_environment, module_input
from support.seaweed import Seaweed

sys.path.insert(0, str(link_collection()))

from bench.contenders import Command
from bench.measure import Measured, measure
from support.fleet import FAULTS, make_instance

GOAL_S = 60.0
DATA = pathlib.Path(__file__).with_name("data")


def build(root: pathlib.Path, instances: int, days: int) -> dict[str, str]:
    """The repository; the fault by instance."""
    now = datetime.datetime.now(datetime.timezone.utc)
    faults = {}
    # What was never restored is late only when it is a week old.
    kinds = [fault for fault in FAULTS if days > 8 or fault != "never restored"]
    for number in range(instances):
        name = f"guard-{number:04d}"
        fault = kinds[number // 50 % len(kinds)] if number % 50 == 0 else ""
        make_instance(root, name, now, days, fault)
        if fault:
            faults[name] = fault
    return faults


def patrol(location: str, work: pathlib.Path, config: str | None, faults: dict[str, str]) -> Measured:
    """One run; it has to find the faults, all of them and no others."""

    def check(output: bytes) -> None:
        verdict = json.loads(output)["verdict"]
        found = {item["instance"] for item in verdict["failures"]}
        if found != set(faults):
            raise RuntimeError(
                f"found {sorted(found ^ set(faults))[:5]} too many or too few: {verdict['failures'][:3]}"
            )

    arguments = {
        "instances": ["all"], "repository": location, "rclone_config": config, "rclone_path": find_tool("rclone"),
        "state_dir": str(work / "state"), "metrics_file": str(work / "metrics.prom"),
    }  # fmt: skip
    given = {name: value for name, value in arguments.items() if value is not None}
    runner = (
        "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:], input=sys.stdin.buffer.read()).returncode != 1)"
    )
    # The module ends with 1 as there are faults.
    command = [sys.executable, "-c", runner, *module_command("patrol")]
    return measure(Command(command, env=module_environment(), stdin=module_input(given), check=check))


def row(place: str, objects: int, measured: list[Measured], instances: int) -> str:
    seconds = statistics.median(item.seconds for item in measured)
    cpu = statistics.median(item.cpu_seconds for item in measured)
    peak = max(item.peak_mib for item in measured)
    reached = "yes" if seconds < GOAL_S * instances / 1000 else "**no**"
    return f"| {place} | {instances:,} | {objects:,} | {seconds:.1f} | {cpu:.1f} | {peak:.0f} | {reached} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--instances", type=int, default=1000)
    parser.add_argument("--days", type=int, default=30, help="of logs in the directory")
    parser.add_argument("--s3-days", type=int, default=3)
    parser.add_argument("--only", choices=["local", "s3"])
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    DATA.mkdir(exist_ok=True)
    rows = []
    with tempfile.TemporaryDirectory(dir=DATA, prefix="patrol-") as directory:
        work = pathlib.Path(directory)
        if options.only != "s3":
            root = work / "repository"
            faults = build(root, options.instances, options.days)
            objects = sum(len(files) for _path, _names, files in os.walk(root))
            runs = [patrol(str(root), work, None, faults) for _run in range(options.runs)]
            rows.append(row(f"directory, {options.days} days of logs", objects, runs, options.instances))
            print(rows[-1], flush=True)
            shutil.rmtree(root)
        if options.only != "local":
            rows.append(in_s3(options, work))
            print(rows[-1], flush=True)
    names = ["repository", "instances", "objects", "seconds", "CPU seconds", "peak MiB", "under a minute"]
    print("", f"| {' | '.join(names)} |", f"|{'---|' * len(names)}", *rows, sep="\n")


def in_s3(options: argparse.Namespace, work: pathlib.Path) -> str:
    root = work / "source"
    faults = build(root, options.instances, options.s3_days)
    objects = sum(len(files) for _path, _names, files in os.walk(root))
    with Seaweed(work / "seaweed") as server:
        bucket = server.make_bucket("bench-patrol")
        config = str(server.rclone_config(work / "rclone.conf"))
        started = time.monotonic()
        copy = [find_tool("rclone"), "--config", config, "copy", "--transfers", "32", "--checkers", "32"]
        subprocess.run([*copy, "--s3-no-head", "--no-check-dest", str(root), f"store:{bucket}/fleet"], check=True)
        print(f"uploaded {objects:,} objects in {time.monotonic() - started:.0f} s", flush=True)
        shutil.rmtree(root)
        runs = [patrol(f"store:{bucket}/fleet", work, config, faults) for _run in range(options.runs)]
    return row(f"SeaweedFS, {options.s3_days} days of logs", objects, runs, options.instances)


if __name__ == "__main__":
    main()
