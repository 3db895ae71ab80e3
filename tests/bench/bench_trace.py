# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long audit_trace takes among 0.3, 3 and 30 million archived records of 30 days with hourly increments.

    .venv/bin/python tests/bench/bench_trace.py [--records N ...] [--days N ...] [--only local|s3] [--runs N] [--json]

Each run is one process of the module, as Ansible runs it on a host, from start to end; the page cache is warm. The
key provider is a key file, the slowest there is: it takes 0.06 s of processor time for each table that is read.
"increment" is the median over records of hours spread over the day, "last_hour" the most that a record in an
increment can cost: all tables of its day are read before.

What is real: on the day that is traced the module `backup` made everything, a full at its beginning (with 200 records
that no increment has) and 24 increments of chained records, one each hour. On each other day there are 24 increments
and a full too, of which the manifests are real and all tables have their right size; but what is in the objects is
random bytes, as a trace of that one day never reads them. The exception are the tables of the traced day that later
fulls have: they are encrypted, with a data key of their own, and hold as many ids as the day has records, all random,
so that who looks there reads them all and finds nothing.

"objects" and "bytes" are what a trace of a record in the last increment of the day reads: the day's tables and their
manifests, an index and a part.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import hashlib
import json
import os
import pathlib
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import typing as t

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from sample_instance.chained import ChainedWriter, Written

from support.checkout import find_tool, link_collection
from support.modules import module_command, module_environment, module_input
from support.seaweed import Seaweed

sys.path.insert(0, str(link_collection()))

from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.manifest import (
    FULL,
    INCREMENT,
    Manifest,
    StoredPart,
    new_snapshot_id,
)
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.record_table import encode, table_name
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.records import ID_BYTES
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.repository import Repository
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.gpg import Gpg
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.keys.key_file import KeyFile, make_key_file
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.store import DirectoryStore

GOAL_S = 2.0
HOURS = 24
ONLY_IN_FULL = 200
INSTANCE = "bench"
DATA = pathlib.Path(__file__).with_name("data")
FIRST_DAY = datetime.datetime(2026, 10, 25, tzinfo=datetime.timezone.utc)


class Built(t.NamedTuple):
    """A repository in a directory, and records in it."""

    root: pathlib.Path
    key: pathlib.Path
    by_hour: list[Written]  # one of each hour, increments
    in_full: Written
    day: str  # the day that is traced, 20261108


class Builder:
    """Builds one repository of ``days`` days with ``hourly`` records an hour; the day in the middle is real."""

    def __init__(self, work: pathlib.Path, days: int, hourly: int):
        self.work, self.days, self.hourly = work, days, hourly
        self.root, self.key = work / "repository", work / "key"
        self.root.mkdir(parents=True)
        make_key_file(str(self.key))
        self.repository = Repository(DirectoryStore(str(self.root)), INSTANCE)
        self.real = days // 2
        self.chosen = random.Random(hourly)

    def build(self) -> Built:
        """Everything, in the order of the numbers."""
        plans = [(day, hour) for day in range(self.days) for hour in range(HOURS + 1) if day != self.real]
        before = sum(day < self.real for day, _hour in plans)
        with Gpg() as gpg:
            keys = KeyFile(str(self.key), gpg)
            shared = keys.new_key({"instance": INSTANCE, "layer": "logs", "snapshot": "000001-00000000"}).wrapped
            for day, hour in plans[:before]:
                self._made_up(gpg, keys, shared, day, hour)
            by_hour, in_full = self._real_day()
            for day, hour in plans[before:]:
                self._made_up(gpg, keys, shared, day, hour)
        return Built(self.root, self.key, by_hour, in_full, self._day(self.real))

    def _day(self, day: int) -> str:
        return f"{FIRST_DAY + datetime.timedelta(days=day):%Y%m%d}"

    def _made_up(self, gpg: Gpg, keys: KeyFile, wrapped: dict[str, t.Any], day: int, hour: int) -> None:
        """A snapshot of another day; hour 0 is the full."""
        snapshot = new_snapshot_id(day * (HOURS + 1) + hour + 1)
        full = hour == 0
        count = ONLY_IN_FULL if full else self.hourly
        tables = [self._table(snapshot, self._day(day), os.urandom(count * ID_BYTES + 100), count, full)]
        if full and day > self.real:
            key = keys.new_key({"instance": INSTANCE, "layer": "logs", "snapshot": snapshot})
            wrapped, traced, count = key.wrapped, self._day(self.real), self.hourly * HOURS + ONLY_IN_FULL
            plain = encode(snapshot, traced, [(0, os.urandom(count * ID_BYTES))])
            tables.append(self._table(snapshot, traced, gpg.encrypt_bytes(plain, key.passphrase), count, full))
        total = sum(table["count"] for table in tables)
        manifest = Manifest(
            instance=INSTANCE, layer="logs", snapshot=snapshot, type=FULL if full else INCREMENT, key=wrapped,
            created=f"{FIRST_DAY + datetime.timedelta(days=day, hours=hour):%Y-%m-%dT%H:%M:%SZ}",
            base=snapshot if full else "000001-00000000", parent="" if full else "000001-00000000",
            parts=[self._object(snapshot, "part-00000.zst.gpg", 2048, 2048)], files=1, content_bytes=2048,
            index=self._object(snapshot, "index.gpg", 2048, 0),
            records={
                "count": total, "unchained": total, "odd": 0, "hours": {"": total}, "chains": [],
                "tables": tables, "not_scanned": [],
            },
        )  # fmt: skip
        self.repository.store.put(f"{INSTANCE}/logs/{snapshot}/manifest.json", manifest.to_bytes())

    def _object(self, snapshot: str, name: str, size: int, length: int) -> StoredPart:
        data = os.urandom(size)
        self.repository.store.put(f"{INSTANCE}/logs/{snapshot}/{name}", data)
        return StoredPart(name, size, hashlib.sha256(data).hexdigest(), 0, length, "zstd")

    def _table(self, snapshot: str, day: str, data: bytes, count: int, full: bool) -> dict[str, t.Any]:
        name = table_name(day, snapshot, full)
        self.repository.store.put(f"{INSTANCE}/{name}", data)
        digest = hashlib.sha256(data).hexdigest()
        return {"name": name, "day": day, "size": len(data), "sha256": digest, "count": count}

    def _real_day(self) -> tuple[list[Written], Written]:
        """What `backup` makes of a day's log."""
        start = FIRST_DAY + datetime.timedelta(days=self.real)
        logs = self.work / "logs"
        writer = ChainedWriter(logs / "audit.log", start=start)
        writer.append(ONLY_IN_FULL, step=0.001)
        in_full = self.chosen.choice(writer.written)
        self._back_up(logs)
        by_hour = []
        for hour in range(HOURS):
            writer.clock = start + datetime.timedelta(hours=hour, seconds=1)
            by_hour.append(self.chosen.choice(writer.append(self.hourly, step=3500 / self.hourly)))
            del writer.written[:-1]  # the whole day would not fit the memory of a small machine
            self._back_up(logs)
        return by_hour, in_full

    def _back_up(self, logs: pathlib.Path) -> None:
        run_timed(
            "backup",
            {"layer": "logs", "path": str(logs), "repository": str(self.root), "state_dir": str(self.work / "state")},
            self.key,
        )


class Run(t.NamedTuple):
    """One run of a module."""

    whole: float  # seconds of the process
    cpu: float  # of it and its children: tells more than the rest where the machine is busy with other things
    result: dict[str, t.Any]


def run_timed(module: str, arguments: dict[str, t.Any], key: pathlib.Path) -> Run:
    """Run a module to its end."""
    given = {"instance": INSTANCE, "key": {"provider": "file", "key_file": str(key)}, **arguments}
    data = module_input({name: value for name, value in given.items() if value is not None})
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        module_command(module), input=data, capture_output=True, env=module_environment(), check=False
    )
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    result = json.loads(done.stdout)
    if done.returncode:
        raise RuntimeError(f"{module} failed: {result.get('msg')}")
    return Run(seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, result)


class Place(t.NamedTuple):
    """How the modules reach the repository."""

    repository: str
    rclone_config: str | None


@contextlib.contextmanager
def local_place(_work: pathlib.Path, built: Built) -> t.Iterator[Place]:
    """The directory that it was built in."""
    yield Place(str(built.root), None)


@contextlib.contextmanager
def s3_place(work: pathlib.Path, built: Built) -> t.Iterator[Place]:
    """A bucket of a new SeaweedFS, with a copy of it."""
    with Seaweed(work / "weed", volume_size_mb=1024) as server:
        bucket, config = server.make_bucket("bench"), server.rclone_config(work / "rclone.conf")
        command = [find_tool("rclone"), "--config", config, "copy", "--transfers", "16", str(built.root)]
        subprocess.run([*command, f"store:{bucket}"], check=True)
        yield Place(f"store:{bucket}", config)


PLACES = {"local": local_place, "s3": s3_place}


def measure(place: Place, built: Built, runs: int, work: pathlib.Path) -> dict[str, t.Any]:
    """Medians in seconds of traces of records that lie in increments, in a full only, and nowhere."""
    unknown = f"qwg-{built.day}-8b-0000000000000000"
    hours = [built.by_hour[number * HOURS // runs] for number in range(runs)]
    wanted = {
        "increment": [record.trace_id for record in hours],
        "last_hour": [built.by_hour[-1].trace_id] * 3,
        "full_only": [built.in_full.trace_id] * 3,
        "nowhere": [unknown],
    }
    arguments = {"repository": place.repository, "rclone_config": place.rclone_config, "state_dir": str(work / "s")}
    run_timed("audit_trace", {**arguments, "trace_id": unknown}, built.key)  # warms the caches
    found: dict[str, t.Any] = {}
    for kind, ids in wanted.items():
        runs_done = []
        for trace_id in ids:
            run = run_timed("audit_trace", {**arguments, "trace_id": trace_id}, built.key)
            result = run.result
            if result["found"] != (kind != "nowhere") or result["parts_fetched"] != int(result["found"]):
                raise RuntimeError(f"{kind} {trace_id}: {result}")
            if not all(record["check"]["ok"] for record in result["records"]):
                raise RuntimeError(f"{kind} {trace_id}: {result['records'][0]['check']}")
            runs_done.append(run)
        found[kind] = round(statistics.median(run.whole for run in runs_done), 2)
        found[f"{kind}_cpu"] = round(statistics.median(run.cpu for run in runs_done), 2)
        if kind == "last_hour":
            found["objects"], found["bytes"] = read_for(built, runs_done[-1].result)
    return found


def read_for(built: Built, result: dict[str, t.Any]) -> tuple[int, int]:
    """Objects and bytes that a trace of a record in an increment read."""
    base = built.root / INSTANCE
    names = [path for path in (base / "records" / built.day).iterdir() if not path.name.endswith(".full.gpg")]
    names += [base / "logs" / path.name.removesuffix(".gpg") / "manifest.json" for path in names]
    snapshot = base / "logs" / result["records"][0]["snapshot"]
    names += [snapshot / "index.gpg", snapshot / pathlib.Path(result["records"][0]["object"]).name]
    return len(names), sum(path.stat().st_size for path in names)


def run_bench(sizes: t.Sequence[int], days: t.Sequence[int], runs: int, kinds: t.Sequence[str]) -> dict[str, t.Any]:
    """All figures."""
    DATA.mkdir(exist_ok=True)
    found: dict[str, t.Any] = {"goal_s": GOAL_S, "runs": runs, "results": []}
    for records in sizes:
        for count in days:
            with tempfile.TemporaryDirectory(dir=DATA) as folder:
                work = pathlib.Path(folder)
                started = time.perf_counter()
                # As many records a day whatever the number of days, so that one sees what days alone cost.
                built = Builder(work, count, records // 30 // HOURS).build()
                row: dict[str, t.Any] = {
                    "records": records * count // 30, "days": count,
                    "built_in_s": round(time.perf_counter() - started, 1),
                }  # fmt: skip
                for kind in kinds:
                    with PLACES[kind](work, built) as place:
                        row[kind] = measure(place, built, runs, work)
                found["results"].append(row)
                print(json.dumps(row), file=sys.stderr, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--records", type=int, nargs="+", default=[300_000, 3_000_000, 30_000_000], help="in 30 days")
    parser.add_argument("--days", type=int, nargs="+", default=[30])
    parser.add_argument("--runs", type=int, default=7, help="records of different hours that are traced")
    parser.add_argument("--only", choices=sorted(PLACES), action="append")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = run_bench(options.records, options.days, options.runs, options.only or list(PLACES))
    if options.json:
        print(json.dumps(found))
        return
    print(f"audit_trace, seconds of the whole process, medians; goal: {GOAL_S} s for a record in an increment")
    for row in found["results"]:
        for kind in PLACES:
            for name, value in row.get(kind, {}).items():
                print(f"  {row['records']:>10} records {row['days']:>3} days  {kind:<6}{name:<18}{value}")


if __name__ == "__main__":
    main()
