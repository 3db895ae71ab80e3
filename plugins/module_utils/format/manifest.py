# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The manifest: the public description of a snapshot, and the commit point.

Private to the collection: use the modules, not this file.

The repository's format is public and stable; docs/repository-format.md describes it. A manifest
comes from a store that anybody may have written to: it is checked as hostile.
"""

from __future__ import annotations

import dataclasses
import json
import re
import secrets
import typing as t

from ..errors import IntegrityError
from . import fields, record_summary

FORMAT = 1
KIND = "guardops.qwen3guard snapshot"
LAYERS = ("model", "config", "logs")
FULL, INCREMENT = "full", "increment"

_SNAPSHOT = re.compile(r"\A([0-9]{6,12})-([0-9a-f]{8})\Z")
_OBJECT = re.compile(r"\A(part-[0-9]{5,9}(\.zst)?|index)\.gpg\Z")


def new_snapshot_id(number: int) -> str:
    """Number and a random part: two hosts that take the same number never write the same object."""
    return f"{number:06d}-{secrets.token_hex(4)}"


def snapshot_number(snapshot: str) -> int | None:
    """The number in a snapshot's id, or None where it is not one."""
    match = _SNAPSHOT.match(snapshot)
    return int(match.group(1)) if match else None


def is_object(name: str) -> bool:
    """Whether a part or an index may have this name."""
    return _OBJECT.match(name) is not None


class StoredPart(t.NamedTuple):
    """One object of a snapshot. ``start`` and ``length`` are of the plain tar stream, in bytes."""

    name: str
    size: int
    sha256: str  # of the ciphertext
    start: int = 0
    length: int = 0
    codec: str = "none"


@dataclasses.dataclass
class Manifest:
    """What anybody may know of a snapshot."""

    instance: str
    layer: str
    snapshot: str
    type: str  # full or increment
    created: str  # RFC 3339, UTC: for people; order comes from the number
    base: str  # the full that an increment stands on; its own id for a full
    parent: str  # the snapshot before it in the chain; empty for a full
    key: dict[str, t.Any]  # the wrapped data key
    parts: list[StoredPart]
    index: StoredPart
    files: int
    content_bytes: int
    host: str = ""
    records: dict[str, t.Any] | None = None  # of the logs: see `record_summary`
    fence: str = ""  # that the host held which made it; empty: it knew of none

    @property
    def number(self) -> int:
        """Its place in the order of its layer."""
        return snapshot_number(self.snapshot) or 0

    @property
    def stored_bytes(self) -> int:
        """What it takes in the store, the manifest aside."""
        return self.index.size + sum(part.size for part in [*self.parts, *self.tables])

    @property
    def tables(self) -> list[StoredPart]:
        """The record tables of a snapshot of the logs. Their names are below the instance, not below the snapshot."""
        listed = self.records["tables"] if self.records else []
        return [StoredPart(table["name"], table["size"], table["sha256"]) for table in listed]

    @property
    def table_days(self) -> list[str]:
        """The days that it has record tables for."""
        return [table["day"] for table in self.records["tables"]] if self.records else []

    @property
    def objects(self) -> list[StoredPart]:
        """What lies below the snapshot beside the manifest itself."""
        return [*self.parts, self.index]

    def to_bytes(self) -> bytes:
        """The object's content: JSON that people can read."""
        raw: dict[str, t.Any] = {"kind": KIND, "format": FORMAT}
        raw.update(dataclasses.asdict(self))
        raw["parts"] = [part._asdict() for part in self.parts]
        raw["index"] = {"name": self.index.name, "size": self.index.size, "sha256": self.index.sha256}
        if not self.fence:
            del raw["fence"]
        return (json.dumps(raw, indent=1, sort_keys=True) + "\n").encode()


def parse(data: bytes, where: str, instance: str, layer: str, snapshot: str) -> Manifest:
    """The manifest in ``data``, which must be the one of that snapshot; `IntegrityError` otherwise."""
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise IntegrityError(where, "a manifest in JSON", f"{len(data)} bytes that are not ({error})") from error
    if not isinstance(raw, dict) or raw.get("kind") != KIND:
        raise IntegrityError(where, f"a manifest (kind {KIND!r})", "another document")
    if raw.get("format") != FORMAT:
        raise IntegrityError(
            where, f"repository format {FORMAT}", f"format {raw.get('format')!r}",
            "A newer release of the collection wrote it: upgrade this one.",
        )  # fmt: skip
    for name, expected in (("instance", instance), ("layer", layer), ("snapshot", snapshot)):
        if raw.get(name) != expected:
            raise IntegrityError(where, f"the manifest of {name} {expected}", f"that of {raw.get(name)!r}")
    try:
        manifest = Manifest(
            instance=instance,
            layer=layer,
            snapshot=snapshot,
            type=fields.one_of(raw["type"], (FULL, INCREMENT)),
            created=fields.time(raw["created"]),
            base=fields.matching(raw["base"], _SNAPSHOT),
            parent=fields.matching(raw["parent"], _SNAPSHOT) if raw["parent"] else "",
            key=fields.of_type(raw["key"], dict),
            parts=[_part(item) for item in fields.of_type(raw["parts"], list)],
            index=_part({"start": 0, "length": 0, "codec": "zstd", **fields.of_type(raw["index"], dict)}),
            files=fields.count(raw["files"]),
            content_bytes=fields.count(raw["content_bytes"]),
            host=fields.of_type(raw["host"], str)[:255],
            records=record_summary.parse(raw.get("records"), snapshot, raw["type"] == FULL),
            fence=fields.matching(raw["fence"], _SNAPSHOT) if "fence" in raw else "",
        )
        _check_chain(manifest)
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrityError(where, "a complete manifest", f"one whose fields do not fit ({error!r})") from error
    return manifest


def _check_chain(manifest: Manifest) -> None:
    """Parts lie end to end, and a chain leads back in numbers."""
    if manifest.index.name != "index.gpg":
        raise ValueError("an index of another name")
    position = 0
    for number, part in enumerate(manifest.parts):
        suffix = ".zst.gpg" if part.codec == "zstd" else ".gpg"
        if part.name != f"part-{number:05d}{suffix}" or part.start != position:
            raise ValueError(f"part {number} is not where it belongs")
        position += part.length
    if manifest.type == FULL:
        if manifest.base != manifest.snapshot or manifest.parent:
            raise ValueError("a full that stands on another snapshot")
        return
    base, parent = snapshot_number(manifest.base) or 0, snapshot_number(manifest.parent) or 0
    if not manifest.parent or not base <= parent < manifest.number:
        raise ValueError("an increment that stands on a later snapshot")


def _part(raw: dict[str, t.Any]) -> StoredPart:
    return StoredPart(
        name=fields.matching(raw["name"], _OBJECT),
        size=fields.count(raw["size"]),
        sha256=fields.matching(raw["sha256"], fields.SHA256),
        start=fields.count(raw["start"]),
        length=fields.count(raw["length"]),
        codec=fields.one_of(raw["codec"], ("none", "zstd")),
    )
