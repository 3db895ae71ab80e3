# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Snapshots that were never taken: whole by all that the public part of the format says, and made in microseconds.

Their parts are random bytes; levels `listed` and `stored` of a verification pass.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import secrets
import typing as t
from pathlib import Path

from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.manifest import FULL, Manifest, StoredPart
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.record_table import table_name

from .engine import INSTANCE

NOW = datetime.datetime(2026, 11, 23, 12, 0, 0, tzinfo=datetime.timezone.utc).timestamp()
DAY = 86400.0
CHAIN = "f163744e7471c240"
_HASH = "0" * 64


class MadeUp:
    """Snapshots of one layer in a directory. Times are days before ``NOW``."""

    def __init__(self, repository: Path, layer: str = "logs", instance: str = INSTANCE):
        self.repository = repository
        self.layer = layer
        self.place = repository / instance
        self.instance = instance
        self.number = 0
        self.last_record = 0
        self.manifests: dict[str, Manifest] = {}
        self.place.mkdir(parents=True, exist_ok=True)

    def add(self, days: float, parent: str = "", *, number: int = 0, size: int = 20, records: int = 0) -> str:
        """One snapshot; with a ``parent`` an increment. ``records`` more of the one chain are in it, and in a table."""
        self.number = number or self.number + 1
        snapshot = f"{self.number:06d}-{secrets.token_hex(4)}"
        made = datetime.datetime.fromtimestamp(NOW - days * DAY, tz=datetime.timezone.utc)
        parts = []
        for name in ("part-00000.gpg", "index.gpg"):
            data = os.urandom(size)
            self.write(f"{self.layer}/{snapshot}/{name}", data, days)
            parts.append(StoredPart(name, size, hashlib.sha256(data).hexdigest()))
        manifest = Manifest(
            instance=self.instance, layer=self.layer, snapshot=snapshot,
            type="increment" if parent else FULL, created=made.strftime("%Y-%m-%dT%H:%M:%SZ"),
            base=self.manifests[parent].base if parent else snapshot, parent=parent,
            key={"provider": "file"}, parts=[parts[0]._replace(length=size)], index=parts[1],
            files=1, content_bytes=size, host="guard-host",
            records=self._records(snapshot, made, records, not parent) if records else None,
        )  # fmt: skip
        self.write(f"{self.layer}/{snapshot}/manifest.json", manifest.to_bytes(), days)
        self.manifests[snapshot] = manifest
        return snapshot

    def chain(self, days: float, increments: int, **more: t.Any) -> list[str]:
        """A full, and increments an hour apart."""
        made = [self.add(days, **more)]
        for hour in range(1, increments + 1):
            made.append(self.add(days - hour / 24, made[-1], **more))
        return made

    def _records(self, snapshot: str, made: datetime.datetime, count: int, full: bool) -> dict[str, t.Any]:
        first, self.last_record = self.last_record + 1, self.last_record + count
        day = f"{made:%Y%m%d}"
        name = table_name(day, snapshot, full)
        data = os.urandom(10)
        self.write(name, data, (NOW - made.timestamp()) / DAY)
        moment = made.strftime("%Y-%m-%dT%H:%M:%S.000000Z")
        return {
            "count": count, "unchained": 0, "odd": 0, "hours": {f"{made:%Y-%m-%dT%H}": count}, "not_scanned": [],
            "chains": [{"chain": CHAIN, "first": first, "last": self.last_record, "count": count, "prev": _HASH,
                        "head": _HASH, "breaks": 0, "since": moment, "until": moment}],
            "tables": [{"name": name, "day": day, "size": 10, "sha256": hashlib.sha256(data).hexdigest(),
                        "count": count}],
        }  # fmt: skip

    def verdict(self, snapshot: str, days: float = 0.0, *, sample: int = 0, **levels: bool) -> None:
        """Verdicts by level, of a sample of so many bytes."""
        more = {"sample_bytes": sample} if sample else {}
        verdicts = {level: {"snapshot": snapshot, "level": level, "ok": ok, **more} for level, ok in levels.items()}
        self.write(self.verdict_name(snapshot), json.dumps({"verdicts": verdicts}).encode(), days)

    def verdict_name(self, snapshot: str) -> str:
        return f"verifications/{self.layer}/{snapshot}.json"

    def write(self, name: str, data: bytes, days: float = 0.0) -> Path:
        """An object below the instance, stored so many days ago."""
        path = self.place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        os.utime(path, (NOW - days * DAY, NOW - days * DAY))
        return path

    def listed(self) -> list[str]:
        """The snapshots whose manifests are there."""
        return sorted(path.parent.name for path in (self.place / self.layer).glob("*/manifest.json"))

    def objects(self) -> set[str]:
        """Names of all objects below the instance."""
        return {str(path.relative_to(self.place)) for path in self.place.rglob("*") if path.is_file()}
