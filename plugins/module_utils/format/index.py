# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The index: the private description of a snapshot.

Private to the collection: use the modules, not this file.

Encrypted like a part. It repeats what the manifest says of the snapshot, so that whoever has the
key finds out a manifest that was changed or belongs elsewhere.
"""

from __future__ import annotations

import dataclasses
import json
import typing as t

from ..errors import IntegrityError
from .manifest import Manifest
from .slicing import require_zstandard
from .tree import Entry, Skipped

# A bound on what a damaged frame header can make us allocate; 200,000 entries take 100 MiB.
_LARGEST = 4 << 30


@dataclasses.dataclass
class Index:
    """The entries of a snapshot, and what a layer adds to say about itself."""

    entries: list[Entry]
    skipped: list[Skipped] = dataclasses.field(default_factory=list)
    layer: dict[str, t.Any] = dataclasses.field(
        default_factory=dict
    )  # log streams; the head of config's Git repository


def to_bytes(index: Index, manifest: Manifest) -> bytes:
    """The index's plain form: zstd over JSON."""
    raw = {
        "snapshot": public_part(manifest),
        "skipped": [list(item) for item in index.skipped],
        "layer": index.layer,
        "entries": [entry.to_json() for entry in index.entries],
    }
    text = json.dumps(raw, separators=(",", ":")).encode()
    return bytes(require_zstandard().ZstdCompressor(level=3).compress(text))


def from_bytes(data: bytes, manifest: Manifest, where: str) -> Index:
    """The index in ``data``; `IntegrityError` where it and the manifest do not tell the same story."""
    zstandard = require_zstandard()
    try:
        raw = json.loads(zstandard.ZstdDecompressor().decompress(data, max_output_size=_LARGEST))
    except (zstandard.ZstdError, ValueError) as error:
        raise IntegrityError(where, "an index (zstd over JSON)", f"something else ({error})") from error
    told, found = raw["snapshot"], public_part(manifest)
    different = sorted(name for name in {*told, *found} if told.get(name) != found.get(name))
    if different:
        raise IntegrityError(
            where, "the manifest that belongs to this index", f"one that differs in {', '.join(different)}",
            "Somebody changed the manifest in the store. Do not trust this snapshot.",
        )  # fmt: skip
    return Index(
        entries=[Entry.from_json(item) for item in raw["entries"]],
        skipped=[Skipped(*item) for item in raw["skipped"]],
        layer=raw["layer"],
    )


def public_part(manifest: Manifest) -> dict[str, t.Any]:
    """What the index repeats of the manifest: all but the wrapped key (rotation re-wraps it) and itself."""
    raw = dataclasses.asdict(manifest)
    raw["parts"] = [list(part) for part in manifest.parts]
    return {name: value for name, value in raw.items() if name not in ("key", "index")}
