# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long audit_export takes for so many hours of so many records a second, and how much memory and disk.

    .venv/bin/python tests/bench/bench_export.py [--hours N ...] [--rate N] [--json]

72 hours at 100 records a second are 26 million records. Every hour of logs is archived by the module `backup`: a full
first, then one increment an hour, into a directory; logs older than two hours are removed, as a rotation would. Only
the last hour is still live when the module `audit_export` runs, in a process of its own, unsigned. Then the bundle's
check.py reads all of it. "memory" is the largest sum of resident sets of all processes of the run.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import pathlib
import secrets
import sys
import tempfile
import time
import typing as t

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from bench.contenders import Command
from bench.measure import Measured, measure
from support.modules import module_command, module_environment, module_input, run_module

START = datetime.datetime(2026, 11, 20, tzinfo=datetime.timezone.utc)
CHAIN = "0123456789abcdef"
TEXTS = ["请问今天天气怎么样？", "How do I bake bread?" * 3, "x" * 200, 'a "quoted" text']


def write_hour(path: pathlib.Path, hour: int, rate: int, prev: str) -> str:
    """One hour of records; returns the last one's hash."""
    texts = [json.dumps(text, ensure_ascii=False) for text in TEXTS]
    day = START + datetime.timedelta(hours=hour)
    seq = hour * 3600 * rate
    with open(path, "wb") as output:
        for second in range(3600):
            when = f"{day:%Y-%m-%dT%H}:{second // 60:02d}:{second % 60:02d}"
            ids = secrets.token_hex(8 * rate)
            lines = []
            for number in range(rate):
                seq += 1
                body = (
                    f'{{"chain":"{CHAIN}","seq":{seq},"prev":"{prev}","time":"{when}.{number * 10**6 // rate:06d}Z",'
                    f'"trace_id":"qwg-{day:%Y%m%d}-8b-{ids[16 * number : 16 * number + 16]}","event":"audit",'
                    f'"model":"Qwen3Guard-Gen-8B","source_ip":"192.0.2.7","text":{texts[seq % 4]},"verdict":"safe",'
                    '"severity":"Safe","categories":["None"],"refusal":null,"confidence":null,"status":200,"error":null,'
                    '"upstream_ms":12,"client":null'
                ).encode()
                prev = hashlib.sha256(body).hexdigest()
                lines.append(body + b',"hash":"' + prev.encode() + b'"}\n')
            output.write(b"".join(lines))
    return prev


def archive(work: pathlib.Path, hours: int, rate: int) -> tuple[dict[str, t.Any], int]:
    """Make a repository with all hours but the last, which is live. The common options, and the bytes of all logs."""
    logs, key_file = work / "logs", work / "bench.key"
    for directory in (logs, work / "repository", work / "state"):
        directory.mkdir()
    key_file.touch(mode=0o600)
    key_file.write_text(secrets.token_urlsafe(32) + "\n")
    common = {
        "instance": "guard-01", "repository": str(work / "repository"), "state_dir": str(work / "state"),
        "key": {"provider": "file", "key_file": str(key_file)},
    }  # fmt: skip
    prev, size = "0" * 64, 0
    for hour in range(hours):
        path = logs / f"audit.log-{hour:05d}"
        prev = write_hour(path, hour, rate, prev)
        size += path.stat().st_size
        if hour < hours - 1:
            run_module("backup", {**common, "layer": "logs", "path": str(logs)}).succeeded()
        if hour >= 2:
            (logs / f"audit.log-{hour - 2:05d}").unlink()
    return common, size


def bench(work: pathlib.Path, hours: int, rate: int) -> dict[str, t.Any]:
    """One size."""
    began = time.perf_counter()
    common, size = archive(work, hours, rate)
    preparing = time.perf_counter() - began
    bundle = work / "bundle"
    end = START + datetime.timedelta(hours=hours)
    arguments = {
        **common, "path": str(bundle), "logs_path": str(work / "logs"), "start": START.isoformat(),
        "end": end.isoformat(), "unsigned": True,
    }  # fmt: skip
    answer: dict[str, t.Any] = {}

    def remember(output: bytes) -> None:
        answer.update(json.loads(output.decode().splitlines()[-1]))

    exported = measure(
        Command(module_command("audit_export"), module_input(arguments), module_environment(), remember),
        [work / "state"],
    )
    if not answer["ok"] or answer["records"] != hours * 3600 * rate:
        raise RuntimeError(f"{answer['records']} records, findings {answer['findings'][:3]}")
    checked = measure(Command([sys.executable, "-I", "-S", str(bundle / "check.py")]))
    return {
        "hours": hours, "records": answer["records"], "log_bytes": size, "bundle_bytes": answer["bytes"],
        "preparing_seconds": preparing, "export": exported._asdict(), "check": checked._asdict(),
    }  # fmt: skip


def told(result: dict[str, t.Any]) -> str:
    """One line of the table."""
    export, check = (Measured(**result[name]) for name in ("export", "check"))
    return (
        f"{result['hours']:>4} h {result['records']:>11,} records {result['log_bytes'] / 1e9:6.2f} GB of logs: export "
        f"{export.seconds:7.1f} s ({export.cpu_seconds:.0f} s of processor, "
        f"{result['records'] / export.seconds:,.0f} a second), {export.peak_mib:5.0f} MiB of "
        f"memory, {export.peak_disk_mib:6.0f} MiB of scratch, bundle {result['bundle_bytes'] / 1e9:5.2f} GB; check.py "
        f"{check.seconds:6.1f} s, {check.peak_mib:4.0f} MiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure audit_export.")
    parser.add_argument("--hours", type=int, nargs="+", default=[1, 8, 72])
    parser.add_argument("--rate", type=int, default=100, help="records a second")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    for hours in options.hours:
        with tempfile.TemporaryDirectory(prefix="bench-export-") as work:
            result = bench(pathlib.Path(work), hours, options.rate)
        print(json.dumps(result) if options.json else told(result), flush=True)


if __name__ == "__main__":
    main()
