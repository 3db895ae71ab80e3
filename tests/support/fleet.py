# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Instances of a fleet as they look in a repository: manifests, verdicts, a drill, a sign of life. Nothing else.

All of it is what the engine itself would write, of a healthy guard; a fault is one thing that is not so.
"""

from __future__ import annotations

import datetime
import json
import pathlib
import typing as t

from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.drill import Drill, Phase, object_name
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.manifest import (
    FULL,
    INCREMENT,
    Manifest,
    StoredPart,
)

SHA = "ab" * 32
CHAIN = "0123456789abcdef"
HOURLY = 20  # records
FAULTS = (
    "old logs", "no config", "never restored", "failed verdict", "no drill", "failed drill", "future", "silent",
    "host dark", "gap",
)  # fmt: skip
HOUR = datetime.timedelta(hours=1)


def told(when: datetime.datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def manifest(
    instance: str, layer: str, number: int, when: datetime.datetime, base: int = 0, records: t.Any = None
) -> Manifest:
    """``base``: the full's number; 0 for a full."""
    snapshot = identity(number)
    return Manifest(
        instance=instance, layer=layer, snapshot=snapshot, type=INCREMENT if base else FULL, created=told(when),
        base=identity(base) if base else snapshot, parent=identity(number - 1) if base else "",
        key={"provider": "file", "pgp_message": "x" * 600},
        parts=[StoredPart("part-00000.zst.gpg", 1000, SHA, 0, 4096, "zstd")], index=StoredPart("index.gpg", 500, SHA),
        files=3, content_bytes=3000, host=f"{instance}-host", records=records,
    )  # fmt: skip


def identity(number: int) -> str:
    return f"{number:06d}-{number:08x}"


def summary(
    snapshot: str, full: bool, first: int, last: int, hours: dict[str, int], until: datetime.datetime, breaks: int = 0
) -> dict[str, t.Any]:
    """What a manifest of the logs says of records ``first`` to ``last``."""
    count = sum(hours.values())
    chain = {
        "chain": CHAIN, "first": first, "last": last, "count": count, "prev": "0" * 64, "head": SHA, "breaks": breaks,
        "since": f"{min(hours)}:00:00.000000Z", "until": until.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }  # fmt: skip
    day = max(hours)[:10].replace("-", "")
    name = f"records/{day}/{snapshot}{'.full' if full else ''}.gpg"
    tables = [{"name": name, "day": day, "size": 200, "sha256": SHA, "count": count}]
    return {"count": count, "unchained": 0, "odd": 0, "hours": hours, "chains": [chain] if count else [],
            "tables": tables if count else [], "not_scanned": []}  # fmt: skip


def verdict(snapshot: str, level: str, when: datetime.datetime, ok: bool = True) -> dict[str, t.Any]:
    failures = [] if ok else ["part-00000.zst.gpg: expected the SHA-256 that the manifest gives, found another"]
    return {
        "snapshot": snapshot,
        "level": level,
        "ok": ok,
        "failures": failures,
        "verified": told(when),
        "seconds": 9.5,
    }


def put(path: pathlib.Path, content: bytes | dict[str, t.Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else (json.dumps(content, indent=1) + "\n").encode())


def put_verdicts(place: pathlib.Path, layer: str, snapshot: str, *verdicts: dict[str, t.Any]) -> None:
    raw = {"layer": layer, "snapshot": snapshot, "verdicts": {item["level"]: item for item in verdicts}}
    put(place / "verifications" / layer / f"{snapshot}.json", raw)


def drill(instance: str, when: datetime.datetime, ok: bool = True) -> Drill:
    phases = [Phase("config", 4.0, True), Phase("model", 110.0, True), Phase("service", 60.0, True)]
    return Drill(
        kind="drill", instance=instance, host="spare", started=told(when), ended=told(when + HOUR), phases=phases,
        recovery_point=None, recovery_time_seconds=174.0, total_seconds=174.0, budget_seconds=300.0, ok=ok,
        failures=[] if ok else ["model: took too long"],
    )  # fmt: skip


def make_instance(
    root: pathlib.Path, name: str, now: datetime.datetime, days: int = 3, fault: str = ""
) -> pathlib.Path:
    """One instance, ``days`` of logs, as it is at ``now``."""
    place = root / name
    newest = now - {"old logs": 30, "future": -3}.get(fault, 0.2) * HOUR
    for layer, count in (("model", 3), ("config", 0 if fault == "no config" else 5)):
        for number in range(1, count + 1):
            made = manifest(name, layer, number, now - datetime.timedelta(days=20 * (count - number) + 9))
            put(place / layer / made.snapshot / "manifest.json", made.to_bytes())
        if count:
            put_verdicts(place, layer, identity(count), verdict(identity(count), "decrypted", now - 3 * HOUR),
                         verdict(identity(count), "restored", now - 60 * HOUR))  # fmt: skip
    last = _make_logs(place, name, newest, days, fault)
    for day in range(min(days, 8)):
        snapshot = identity(max(1, last - 25 * day - 3))
        level = "restored" if day == min(days, 3) - 1 and fault != "never restored" else "decrypted"
        ok = fault != "failed verdict" or day > 0
        put_verdicts(place, "logs", snapshot, verdict(snapshot, level, now - (24 * day + 3) * HOUR, ok))
    if fault != "no drill":
        for age in (20, 50):
            record = drill(name, now - datetime.timedelta(days=age), ok=fault != "failed drill" or age > 20)
            put(place / object_name(record.started), record.to_bytes())
    beat = now - (50 if fault == "host dark" else 1) * HOUR
    put(place / "patrol.json", {"kind": "guardops.qwen3guard patrol", "format": 1, "time": told(beat), "ok": True})
    put(place / "RECOVERY.md", b"# How to restore\n")
    return place


def _make_logs(place: pathlib.Path, name: str, newest: datetime.datetime, days: int, fault: str) -> int:
    """Fulls and increments up to ``newest``; the number of the last."""
    last = days * 25 - 1  # the newest day is without its last increment
    full = (days - 1) * 25 + 1
    silent = 40 * HOUR if fault == "silent" else 0 * HOUR
    for number in range(1, last + 1):
        directory = place / "logs" / identity(number)
        if number not in (1, full, last):
            put(directory / "manifest.json", b"{}")
            continue
        hour = (number - 1) % 25
        when = newest - (last - number) * HOUR
        base = 0 if hour == 0 else full
        end = when - silent - datetime.timedelta(minutes=5)
        span = 1 if base else 24 * days
        hours = {f"{end - n * HOUR:%Y-%m-%dT%H}": HOURLY for n in range(span)}
        first = 1 if not base else HOURLY * 24 * days + (number - full - 1) * HOURLY + 1
        count = sum(hours.values())
        broken = fault == "gap" and number == last
        made = manifest(name, "logs", number, when, base)
        made.records = summary(made.snapshot, not base, first, first + count - 1 + broken, hours, end, int(broken))
        put(directory / "manifest.json", made.to_bytes())
    return last
