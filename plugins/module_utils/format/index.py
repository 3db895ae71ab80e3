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

from ..errors import GuardError, IntegrityError
from .manifest import Manifest
from .slicing import require_zstandard
from .tree import DIRECTORY, FILE, HARDLINK, SYMLINK, Entry, Skipped

# A bound on what a damaged frame header can make us allocate; 200,000 entries take 100 MiB.
_LARGEST = 4 << 30
_TYPES = (DIRECTORY, FILE, SYMLINK, HARDLINK)


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
        # Not with the rest: older readers compare that, field by field.
        **({"fence": manifest.fence} if manifest.fence else {}),
        "skipped": [list(item) for item in index.skipped],
        "layer": index.layer,
        "entries": [entry.to_json() for entry in index.entries],
    }
    text = json.dumps(raw, separators=(",", ":")).encode()
    return bytes(require_zstandard().ZstdCompressor(level=3, write_checksum=True).compress(text))


def from_bytes(data: bytes, manifest: Manifest, where: str) -> Index:
    """The index in ``data``; `IntegrityError` where it and the manifest do not tell the same story."""
    zstandard = require_zstandard()
    try:
        if zstandard.get_frame_parameters(data).content_size > _LARGEST:
            raise IntegrityError(where, f"an index of at most {_LARGEST} bytes", "more")
        raw = json.loads(zstandard.ZstdDecompressor().decompress(data))
    except (zstandard.ZstdError, ValueError, RecursionError) as error:
        raise IntegrityError(where, "an index (zstd over JSON)", f"something else ({error})") from error
    try:
        return _checked(raw, manifest, where)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise IntegrityError(where, "a complete index", f"one whose fields do not fit ({error!r})") from error
    except IntegrityError:
        raise
    except GuardError as error:  # a name, or an access list
        raise IntegrityError(where, error.expected, f"{error.thing}: {error.found}", error.hint) from error


def _checked(raw: dict[str, t.Any], manifest: Manifest, where: str) -> Index:
    told, found = {**raw["snapshot"], "fence": raw.get("fence", "")}, {**public_part(manifest), "fence": manifest.fence}
    different = sorted(name for name in {*told, *found} if told.get(name) != found.get(name))
    if different:
        raise IntegrityError(
            where, "the manifest that belongs to this index", f"one that differs in {', '.join(different)}",
            "Somebody changed the manifest in the store. Do not trust this snapshot.",
        )  # fmt: skip
    index = Index(
        entries=[Entry.from_json(item) for item in raw["entries"]],
        skipped=[Skipped(*item) for item in raw["skipped"]],
        layer=dict(raw["layer"]),
    )
    _check_entries(index.entries, sum(part.length for part in manifest.parts))
    return index


def _check_entries(entries: list[Entry], stream_length: int) -> None:
    """Names that make a tree, and content that lies in the stream: a restore writes where an index says."""
    types: dict[str, str] = {}
    for entry in entries:
        texts, numbers = (entry.target, entry.owner, entry.group), (entry.uid, entry.gid, entry.mtime_ns, entry.size)
        if not all(isinstance(text, str) for text in texts) or not all(isinstance(n, int) for n in numbers):
            raise ValueError(f"{entry.path!r} has a field of another type")
        if entry.path in types:
            raise ValueError(f"{entry.path!r} is there twice")
        if entry.type not in _TYPES:
            raise ValueError(f"{entry.path!r} is of type {entry.type!r}")
        expected = types.get(entry.path.rpartition("/")[0] or ".") if entry.path != "." else entry.type
        if expected != DIRECTORY:
            raise ValueError(f"{entry.path!r} does not follow a directory that it is in")
        types[entry.path] = entry.type
        for extent in entry.extents:
            inside = min(extent.offset, extent.length) >= 0 and extent.offset + extent.length <= entry.size
            if entry.type != FILE or not inside or not 0 <= extent.position <= stream_length - extent.length:
                raise ValueError(f"{entry.path!r} has content where none can be")
    for entry in entries:
        if entry.type == HARDLINK and types.get(entry.target) != FILE:
            raise ValueError(f"{entry.path!r} is another name of {entry.target!r}, which is no file of this index")
    if "." not in types:
        raise ValueError("the root is not there")


def public_part(manifest: Manifest) -> dict[str, t.Any]:
    """What the index repeats of the manifest: all but the wrapped key (rotation re-wraps it) and itself."""
    raw = dataclasses.asdict(manifest)
    raw["parts"] = [list(part) for part in manifest.parts]
    return {name: value for name, value in raw.items() if name not in ("key", "index", "fence")}
