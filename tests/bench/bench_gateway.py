# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a durable record costs: the gateway in front of an engine that answers at once. Runs alone:

    .venv/bin/python tests/bench/bench_gateway.py [--seconds N] [--rounds N] [--rate N] [--requests N] [--json]

Gateway, engine and the one who asks are three processes on the same cores. The same gateway with ``log.mode`` none
runs in turn with the real one; times are medians over the rounds. The log lies below the current directory, on its
disk, and every answer waits for that disk; how long the disk takes by itself is measured too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import typing as t
import urllib.request

import psutil

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent
GOAL_RATE = 1000
GOAL_ADDED_MS = 20.0
CONNECTIONS = 64
WARM_UP = 3000
MOST = 10_000  # audits of a run as fast as it goes


@contextlib.contextmanager
def engine() -> t.Iterator[int]:
    """The null upstream; its port."""
    with subprocess.Popen(
        [sys.executable, str(HERE / "null_upstream.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.communicate()


@contextlib.contextmanager
def gateway(upstream: int, root: pathlib.Path, mode: str) -> t.Iterator[tuple[int, psutil.Process]]:
    """A gateway with its own log; its port and process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    logs, state, config = root / f"{mode}-logs", root / f"{mode}-state", root / f"{mode}.json"
    logs.mkdir()
    state.mkdir()
    settings = {
        "model": "8b",
        "listen": {"port": port},
        "limits": {"concurrency": 128, "queue": 2000},
        "upstream": {"url": f"http://127.0.0.1:{upstream}", "model": "Qwen3Guard-Gen-8B"},
        "log": {"mode": mode, "directory": str(logs), "state_directory": str(state)},
    }
    config.write_text(json.dumps(settings))
    with subprocess.Popen(
        [sys.executable, "-m", "qwen3guard_gateway", "--config", str(config)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "roles" / "gateway" / "files")},
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            _wait(port, process)
            yield port, psutil.Process(process.pid)
        finally:
            process.terminate()


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return
        except OSError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the gateway did not become healthy: {error}") from error
            time.sleep(0.1)


def load(port: int, kind: str, first: float, second: float) -> dict[str, t.Any]:
    """Ask; every answer has to be a verdict."""
    command = [sys.executable, str(HERE / "gateway_load.py"), str(port), kind, str(first), str(second)]
    result: dict[str, t.Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    if result["bad"]:
        raise RuntimeError(f"{result['bad']} of {result['good'] + result['bad']} answers were no verdicts")
    return result


def disk_alone(root: pathlib.Path, seconds: float = 3.0) -> dict[str, float]:
    """Appending 700 bytes and fdatasync, one after the other, by nobody else."""
    times = []
    descriptor = os.open(root / "disk", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        os.write(descriptor, b"x" * 700)
        started = time.perf_counter()
        os.fdatasync(descriptor)
        times.append((time.perf_counter() - started) * 1000)
    os.close(descriptor)
    times.sort()
    return {
        "p50": round(times[len(times) // 2], 3),
        "p99": round(times[len(times) * 99 // 100], 3),
        "max": round(times[-1], 3),
    }


def records_in(root: pathlib.Path) -> int:
    """Audits in the log: must be as many as were answered."""
    with open(root / "journal-logs" / "audit.log", "rb") as log:
        return sum(b'"event":"audit"' in line for line in log)


def compare(upstream: int, root: pathlib.Path, arguments: argparse.Namespace) -> dict[str, t.Any]:
    """With and without a log, in turn."""
    found: dict[str, t.Any] = {}
    with gateway(upstream, root, "journal") as with_log, gateway(upstream, root, "none") as without:
        both = {"journal": with_log, "none": without}
        for name, (port, _process) in both.items():
            load(port, "closed", CONNECTIONS, WARM_UP)
            found[name], found[f"{name}_most"] = [], []
        for _round in range(arguments.rounds):
            for name, (port, process) in both.items():
                before = sum(process.cpu_times()[:2])
                run = load(port, "open", arguments.rate, arguments.seconds)
                run["cpu_ms"] = (sum(process.cpu_times()[:2]) - before) * 1000 / run["good"]
                found[name].append(run)
                found[f"{name}_most"].append(load(port, "closed", CONNECTIONS, MOST))
    answered = WARM_UP + sum(run["good"] for run in found["journal"] + found["journal_most"])
    if records_in(root) != answered:
        raise RuntimeError(f"{answered} audits were answered, and {records_in(root)} are in the log")
    return found


def memory(upstream: int, root: pathlib.Path, most: int) -> list[tuple[int, float]]:
    """The resident set, in MiB, after so many audits."""
    found = []
    with gateway(upstream, root, "journal") as (port, process):
        done = 0
        for count in (10_000, 100_000, 300_000, 1_000_000):
            if count > most:
                break
            load(port, "closed", CONNECTIONS, count - done)
            done = count
            found.append((count, round(process.memory_info().rss / 2**20, 1)))
    return found


def median(runs: list[dict[str, t.Any]], name: str) -> float:
    return round(statistics.median(run[name] for run in runs), 2)


def report(found: dict[str, t.Any]) -> str:
    """As a section of AUDIT_RESULTS.md."""
    journal, none, disk = found["journal"], found["none"], found["disk"]
    added = round(median(journal, "p99") - median(none, "p99"), 2)
    lines = [
        "## The gateway: what a durable record costs",
        "",
        f"{found['rate']:.0f} audits a second at random moments; medians of {len(journal)} runs,",
        f"{found['seconds']:.0f} s each; {os.cpu_count()} cores for gateway, null upstream and load together.",
        "",
        "| | answered/s | p50 ms | p99 ms | p99.9 ms | slowest ms | CPU ms each | at most/s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for title, runs, most in (
        ("every answer durable", journal, found["journal_most"]),
        ("same server, no log", none, found["none_most"]),
    ):
        slowest = max(run["max"] for run in runs)
        lines.append(
            f"| {title} | {median(runs, 'rate')} | {median(runs, 'p50')} | {median(runs, 'p99')} | "
            f"{median(runs, 'p999')} | {slowest} | {median(runs, 'cpu_ms')} | {median(most, 'rate')} |"
        )
    lines += [
        "",
        f"- Added to the p99 by the log: {added} ms (goal: under {GOAL_ADDED_MS:.0f}).",
        f"- The disk alone (fdatasync of 700 bytes): p50 {disk['p50']}, p99 {disk['p99']}, slowest {disk['max']} ms.",
        "- Memory: " + ", ".join(f"{size} MiB after {count:,} audits" for count, size in found["memory"]) + ".",
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="What a durable record costs.")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each run at a fixed rate (default 20)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=GOAL_RATE, help="audits a second (default 1000)")
    parser.add_argument("--requests", type=int, default=1_000_000, help="for memory: 10000, 100000... up to this")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found: dict[str, t.Any] = {"rate": arguments.rate, "seconds": arguments.seconds}
    with tempfile.TemporaryDirectory(dir=ROOT / ".cache", prefix="bench-gateway-") as name, engine() as upstream:
        for part in ("compare", "memory"):
            (pathlib.Path(name) / part).mkdir()
        found["disk"] = disk_alone(pathlib.Path(name))
        found.update(compare(upstream, pathlib.Path(name) / "compare", arguments))
        found["memory"] = memory(upstream, pathlib.Path(name) / "memory", arguments.requests)
    print(json.dumps(found) if arguments.json else report(found))
    added = median(found["journal"], "p99") - median(found["none"], "p99")
    return 0 if added < GOAL_ADDED_MS and median(found["journal_most"], "rate") >= GOAL_RATE else 1


if __name__ == "__main__":
    sys.exit(main())
