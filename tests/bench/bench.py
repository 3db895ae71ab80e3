# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Measure backup and restore against what people use today, and write RESULTS.md.

    .venv/bin/python tests/bench/bench.py [--size 2G] [--runs 3] [--only local|s3|memory|increment|acl]

Contenders take turns in every round, so that a machine that slows down slows all of them; medians
and ratios are what counts. Needs about four times the size as free disk space.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile
import typing as t

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests")]

from sample_instance.logs import bulk_lines
from sample_instance.model_tree import plain_weights

from bench import report
from bench.contenders import Collection, Contender, Cp, Place, RcloneCopy, Restic, UsualRecipe
from bench.measure import Measured, measure
from support.seaweed import Seaweed

LOG_BYTES = 200 * 1000 * 1000
RESULTS = pathlib.Path(__file__).with_name("RESULTS.md")
PROFILE = pathlib.Path(__file__).with_name("PROFILE.md")  # written by people: why the figures are what they are
DATA = pathlib.Path(__file__).with_name("data")


def make_source(directory: pathlib.Path, size: int) -> pathlib.Path:
    """Random weights in four files, and log lines."""
    plain_weights(directory, size, files=4)
    bulk_lines(directory / "audit.log", LOG_BYTES, seed=1)
    return directory


def contenders(local: bool) -> list[Contender]:
    """Those that are installed."""
    found: list[Contender] = [Collection(), RcloneCopy()]
    if local:
        found += [UsualRecipe(), Cp()]
    if shutil.which("restic"):
        found.append(Restic())
    return found


@contextlib.contextmanager
def local_place(source: pathlib.Path, work: pathlib.Path) -> t.Iterator[Place]:
    """A directory as the repository."""
    repository = work / "repository"
    repository.mkdir()
    (work / "rclone.conf").touch(mode=0o600)
    yield Place(source, work, str(repository), str(work / "rclone.conf"))


@contextlib.contextmanager
def s3_place(source: pathlib.Path, work: pathlib.Path) -> t.Iterator[Place]:
    """A bucket of a new SeaweedFS."""
    with Seaweed(work / "weed", volume_size_mb=1024) as server:
        bucket = server.make_bucket("bench")
        config = server.rclone_config(work / "rclone.conf")
        keys = (server.access_key, server.secret_key)
        yield Place(source, work, f"store:{bucket}", str(config), server.endpoint, keys)


def run_rounds(
    source: pathlib.Path, place_of: t.Callable[..., t.ContextManager[Place]], runs: int, rivals: list[Contender]
) -> dict[str, tuple[list[Measured], list[Measured]]]:
    """Backups and restores by contender."""
    found: dict[str, tuple[list[Measured], list[Measured]]] = {rival.name: ([], []) for rival in rivals}
    for number in range(runs):
        for rival in rivals:
            with tempfile.TemporaryDirectory(dir=DATA) as work, place_of(source, pathlib.Path(work)) as place:
                rival.prepare(place)
                state = place.work / "state"
                state.mkdir(exist_ok=True)
                backups, restores = found[rival.name]
                backups.append(measure(rival.backup(place), [state]))
                if rival.restores:
                    restores.append(measure(rival.restore(place)))
                told = [f"{m.seconds:.1f} s ({m.cpu_seconds:.1f} s CPU)" for m in (backups[-1], *restores[-1:])]
                print(f"round {number + 1}: {rival.name}: {', '.join(told)}", flush=True)
    return found


def other_benchmark(script: str) -> dict[str, t.Any]:
    """Run a benchmark that stands alone and says its figures as JSON."""
    path = pathlib.Path(__file__).with_name(script)
    done = subprocess.run([sys.executable, str(path), "--json"], stdout=subprocess.PIPE, check=True)
    return dict(json.loads(done.stdout))


def machine() -> str:
    """What the figures were measured on."""
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        models = [line.partition(":")[2].strip() for line in info if line.startswith("model name")]
    memory = int(pathlib.Path("/proc/meminfo").read_text(encoding="utf-8").split()[1]) / 2**20
    return (
        f"{len(models)} x {models[0] if models else platform.machine()}, {memory:.0f} GiB, Linux {platform.release()}"
    )


def parse_size(text: str) -> int:
    """2G, 512M or bytes."""
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    return int(float(text[:-1]) * units[text[-1].upper()]) if text[-1].upper() in units else int(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", default="2G", help="bytes of weights")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", choices=["local", "s3", "memory", "increment", "acl"], action="append")
    options = parser.parse_args()
    wanted = options.only or ["local", "s3", "increment", "acl"]
    size = parse_size(options.size)
    DATA.mkdir(exist_ok=True)
    figures: dict[str, t.Any] = {}
    with tempfile.TemporaryDirectory(dir=DATA) as directory:
        if {"local", "s3", "memory"} & set(wanted):
            source = make_source(pathlib.Path(directory) / "source", size)
        if "local" in wanted:
            figures["local"] = run_rounds(source, local_place, options.runs, contenders(True))
        if "s3" in wanted:
            figures["s3"] = run_rounds(source, s3_place, options.runs, contenders(False))
        if "memory" in wanted:  # one run of ours alone: for sizes that the others would take hours for
            figures["memory"] = run_rounds(source, local_place, 1, [Collection()])
    for name, script in (("increment", "bench_increment.py"), ("acl", "bench_acl.py")):
        if name in wanted:
            figures[name] = other_benchmark(script)
    when = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
    text = report.render(figures, size, LOG_BYTES, options.runs, machine(), when) + "\n" + PROFILE.read_text("utf-8")
    print(text)
    if not options.only:
        RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
