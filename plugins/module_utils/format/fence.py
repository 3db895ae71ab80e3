# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A fence: from here on another host writes into the instance, and what the old one still stores is not believed.

Private to the collection: use the modules, not this file.

It lies beside the snapshots, in the clear, and is written once. It comes from a store that anybody may have written to.
"""

from __future__ import annotations

import dataclasses
import json
import typing as t

from ..errors import IntegrityError
from . import fields
from .manifest import LAYERS, snapshot_number

PREFIX = "fences"
FORMAT = 1
KIND = "guardops.qwen3guard fence"
REASON_LENGTH = 2000  # characters
HOST_LENGTH = 255
_LIMIT = 64 << 10  # bytes of one document


@dataclasses.dataclass
class Fence:
    """Who took the instance over, and what each layer had by then."""

    instance: str
    fence: str  # its own id, which is formed as those of snapshots are
    host: str  # that writes from here on
    created: str  # RFC 3339, UTC: for people; order comes from the number
    reason: str
    newest: dict[str, str]  # by layer, the newest snapshot that there was; empty: none

    def shuts_out(self, layer: str, snapshot: str, held: str) -> bool:
        """Whether a snapshot came after this fence, from a host that held ``held``: an older one, or none."""
        if rank(held) >= rank(self.fence):
            return False
        newest = self.newest[layer]
        return snapshot != newest and rank(snapshot)[0] >= rank(newest)[0]

    def to_bytes(self) -> bytes:
        """The object's content: JSON that people can read."""
        return (json.dumps({"kind": KIND, "format": FORMAT, **dataclasses.asdict(self)}, indent=1) + "\n").encode()


def rank(name: str) -> tuple[int, str]:
    """The place of a fence among all of them: by its number, and where two have the same, by the whole id."""
    return snapshot_number(name) or 0, name


def object_name(fence: str) -> str:
    """Below the instance."""
    return f"{PREFIX}/{fence}.json"


def id_of(name: str) -> str:
    """The id of the fence in an object of this name below the prefix; empty where it is none of ours."""
    fence = name[: -len(".json")] if name.endswith(".json") else ""
    return fence if is_id(fence) else ""


def is_id(text: t.Any) -> bool:
    """Whether a fence can have this id."""
    return isinstance(text, str) and bool(snapshot_number(text))


def parse(data: bytes, where: str, instance: str, fence: str) -> Fence:
    """The fence in ``data``, which must be the one of that id; `IntegrityError` otherwise."""
    try:
        raw = json.loads(data) if len(data) <= _LIMIT else None
    except (ValueError, RecursionError) as error:
        raise IntegrityError(where, "a fence in JSON", f"{len(data)} bytes that are not") from error
    if not isinstance(raw, dict) or raw.get("kind") != KIND or raw.get("format") != FORMAT:
        found = f"format {raw.get('format')!r:.20}" if isinstance(raw, dict) else "another document"
        raise IntegrityError(where, f"a fence (kind {KIND!r}, format {FORMAT})", found)
    for name, expected in (("instance", instance), ("fence", fence)):
        if raw.get(name) != expected:
            raise IntegrityError(where, f"the fence of {name} {expected}", f"that of {raw.get(name)!r:.80}")
    try:
        newest = fields.of_type(raw["newest"], dict)
        return Fence(
            instance=instance,
            fence=fence,
            host=fields.text(raw["host"], HOST_LENGTH),
            created=fields.time(raw["created"]),
            reason=fields.text(raw["reason"], REASON_LENGTH),
            newest={layer: _snapshot(newest[layer]) for layer in LAYERS},
        )
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrityError(where, "a complete fence", f"fields that do not fit ({error!r:.200})") from error


def _snapshot(value: t.Any) -> str:
    if value != "" and (not isinstance(value, str) or snapshot_number(value) is None):
        raise ValueError(f"{value!r:.80}")
    return str(value)
