# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What of a recovery's 300 seconds goes into bytes: the phases of a drill that depend on the size of the weights.

    .venv/bin/python tests/bench/bench_recovery.py [--size 16G] [--only local|s3] [--warm]

One instance with random weights of that size (valid shards and index), a configuration and a week of logs is backed
up, then brought back layer by layer as recover.yml does: configuration and weights at the same time, then the logs.
The page cache is dropped before each phase where that is allowed: a replaced host has none. Beside it, what the machine
gives: `cp` or `rclone copy` of the same stored parts. Writes RECOVERY_RESULTS.md. Needs three times the size as free
disk space. Starting a model engine is not in it: that needs the GPU that it is for.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import pathlib
import shutil
import sys
import tempfile
import threading
import typing as t

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests")]

from sample_instance.instance import Instance, make_instance
from sample_instance.model_tree import write_model

from bench.bench import DATA, local_place, machine, parse_size, s3_place
from bench.contenders import Collection, Command, Place
from bench.measure import Measured, measure
from support.checkout import find_tool

BUDGET = 300.0  # seconds from the start to the first audit
RESULTS = pathlib.Path(__file__).with_name("RECOVERY_RESULTS.md")
LAYERS = ("config", "model", "logs")
PLACES = {"local": ("a local directory", local_place), "s3": ("SeaweedFS on the same machine", s3_place)}


class Layer(Collection):
    """Backup and restore of one layer."""

    def __init__(self, layer: str):
        self.layer = layer

    def _options(self, place: Place) -> dict[str, t.Any]:
        return {**super()._options(place), "layer": self.layer}


class Phases(t.NamedTuple):
    """One drill's figures; ``both``: configuration and weights, which come back at the same time."""

    config: Measured
    model: Measured
    logs: Measured
    both: float
    copied: Measured  # the same bytes, by rclone or cp, without decryption


def drop_cache() -> bool:
    """Let everything come from the disk; whether that was allowed."""
    os.sync()
    try:
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("3\n", encoding="utf-8")
    except OSError:
        return False
    return True


def back_up(instance: Instance, place: Place) -> None:
    """All layers, untimed."""
    (place.work / "state").mkdir()
    Layer("model").prepare(place)
    for layer in LAYERS:
        measure(Layer(layer).backup(place._replace(source=source_of(instance, layer))))


def source_of(instance: Instance, layer: str) -> pathlib.Path:
    """The layer's directory."""
    return {"config": instance.config, "model": instance.models, "logs": instance.logs}[layer]


def drill(place: Place, prepare: t.Callable[[], object]) -> Phases:
    """Bring all layers back into empty directories; ``prepare`` comes before each phase."""
    found: dict[str, Measured] = {}

    def restore(layer: str) -> None:
        command = Layer(layer).restore(place)
        target = str(place.work / "restored")
        command = command._replace(stdin=command.stdin.replace(target.encode(), f"{target}-{layer}".encode()))
        found[layer] = measure(command)

    prepare()
    weights = threading.Thread(target=restore, args=("model",))
    weights.start()
    restore("config")
    weights.join()
    prepare()
    restore("logs")
    for layer in LAYERS:
        shutil.rmtree(place.work / f"restored-{layer}")
    return Phases(**found, both=max(found["config"].seconds, found["model"].seconds), copied=copy_parts(place, prepare))


def copy_parts(place: Place, prepare: t.Callable[[], object]) -> Measured:
    """What the transport alone takes for the parts of the weights."""
    prepare()
    target = place.work / "copied"
    source = f"{place.remote}/bench/model"
    if place.remote.startswith("/"):
        command = Command(["cp", "-r", source, str(target)])
    else:
        command = Command([find_tool("rclone"), "--config", place.rclone_config, "copy", source, str(target)])
    measured = measure(command)
    shutil.rmtree(target)
    return measured


def disk_speed(work: pathlib.Path) -> float:
    """MB/s that the disk takes for long: 2 GiB, synced."""
    file = work / "disk"
    argv = ["dd", "if=/dev/zero", f"of={file}", "bs=4M", "count=512", "conv=fdatasync"]
    done = measure(Command(argv))
    file.unlink()
    return float((2 << 30) / 1e6 / done.seconds)


def render(size: int, found: dict[str, Phases], disk: float, cold: bool) -> str:
    """RECOVERY_RESULTS.md."""
    when = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
    lines = [
        "# Benchmark of a recovery",
        "",
        "Written by `make bench-recovery`. The phases of a recovery that depend on the size of the weights, against",
        f"the {BUDGET:.0f} s in which the service is to answer. Preparing the host and starting the engine are not in",
        "it.",
        "",
        f"{when}; {machine()}; {size / 2**30:g} GiB of random weights; page cache {'dropped' if cold else 'warm'}",
        f"before each phase; the disk takes {disk:.0f} MB/s (`dd`, 2 GiB, synced). The weights' CPU seconds have the",
        "configuration's in them.",
    ]
    for name, phases in found.items():
        left = BUDGET - phases.both
        ratio = phases.model.seconds / phases.copied.seconds
        lines += [
            "",
            f"## Repository: {PLACES[name][0]}",
            "",
            "| phase | seconds | MB/s | CPU s | processors in use |",
            "|---|---|---|---|---|",
            _row("configuration (beside the weights)", phases.config),
            _row("weights", phases.model, size),
            f"| **both, from the start** | **{phases.both:.1f}** | | | |",
            _row("history of the logs (after the first audit)", phases.logs),
            _row("the same parts by " + ("cp" if name == "local" else "rclone copy") + " alone", phases.copied, size),
            "",
            f"The weights take {ratio:.2f} times as long as their parts alone. Of the {BUDGET:.0f} s {left:.0f} are",
            "left for the host's preparation, the start of the engine, and the first audit.",
        ]
    return "\n".join(lines) + "\n"


def _row(name: str, run: Measured, size: int = 0) -> str:
    speed = f"{size / 1e6 / run.seconds:.0f}" if size else ""
    used = run.cpu_seconds / run.seconds
    return f"| {name} | {run.seconds:.1f} | {speed} | {run.cpu_seconds:.1f} | {used:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", default="16G", help="bytes of weights")
    parser.add_argument("--only", choices=list(PLACES), action="append")
    parser.add_argument("--warm", action="store_true", help="leave the page cache alone: others need it too")
    options = parser.parse_args()
    size = parse_size(options.size)
    DATA.mkdir(exist_ok=True)
    found: dict[str, Phases] = {}
    with contextlib.ExitStack() as stack:
        directory = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(dir=DATA)))
        if shutil.disk_usage(directory).free < 3.2 * size:
            raise SystemExit(f"{directory}: expected {3.2 * size / 2**30:.0f} GiB of free space for {options.size}")
        instance = make_instance(directory / "source", days=7, records_per_day=2000)
        shutil.rmtree(instance.models)
        write_model(instance.models / "Qwen3Guard-Gen-8B", size)
        disk, cold = disk_speed(directory), not options.warm and drop_cache()
        for name in options.only or PLACES:
            place_of = PLACES[name][1]
            with tempfile.TemporaryDirectory(dir=DATA) as work, place_of(instance.root, pathlib.Path(work)) as place:
                back_up(instance, place)
                found[name] = drill(place, drop_cache if cold else int)
                print(f"{name}: {found[name]}", flush=True)
    text = render(size, found, disk, cold)
    print(text)
    if not options.only and cold:
        RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
