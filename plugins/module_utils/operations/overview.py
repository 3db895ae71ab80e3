# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a repository holds of an instance, as anybody can see it.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import typing as t

from ..errors import GuardError, IntegrityError
from ..format.manifest import LAYERS, Manifest
from ..format.record_table import PREFIX, parse_name
from ..format.repository import Listed, Repository
from . import drills, fences
from .snapshots import check_listed, check_table

_DRILLS = 12  # a year of monthly ones


def overview(repository: Repository, layer: str | None = None, held: str = "") -> dict[str, t.Any]:
    """Snapshots by layer, the newest sound one of each, the bytes they take, and which host writes.

    ``held`` is the fence of the host that asks.
    """
    ids = fences.listed(repository)
    known = fences.read(repository, ids)
    snapshots = {name: _layer(repository, name, known) for name in ([layer] if layer else LAYERS)}
    newest = {
        name: next((item for item in reversed(items) if item["complete"] and not item["damaged"]), None)
        for name, items in snapshots.items()
    }
    total = sum(item["stored_bytes"] for items in snapshots.values() for item in items)
    return {
        "snapshots": snapshots,
        "newest": newest,
        "bytes": total,
        "drills": drills.newest(repository, _DRILLS),
        "fence": known.describe(ids[-1], held) if ids else None,
    }


def _layer(repository: Repository, layer: str, known: fences.Fences) -> list[dict[str, t.Any]]:
    listed = repository.listed(layer)
    manifests = repository.manifests(layer)
    verdicts = repository.all_verdicts(layer)
    tables = repository.store.list(repository.name(PREFIX)) if layer == "logs" else {}
    tables = {f"{PREFIX}/{name}": size for name, size in tables.items()}
    numbers = [item.number for item in listed if item.complete]
    sound: set[str] = set()
    found = []
    for item in listed:
        told = _describe(repository, layer, item, manifests.get(item.snapshot), tables)
        if item.complete:
            told["damaged"] = told["damaged"] or known.why_not(layer, item.snapshot, told.get("fence", ""))
        told["verified"] = verdicts.get(item.snapshot, {})
        if item.complete and numbers.count(item.number) > 1:
            told["damaged"] = told["damaged"] or f"two snapshots have the number {item.number}: two hosts wrote at once"
        parent = told.get("parent")
        if parent and parent not in sound:  # it has a lower number, so it was looked at before
            where = repository.where(layer, item.snapshot)
            told["damaged"] = told["damaged"] or f"{where}: stands on {parent}, which is damaged or missing"
        if item.complete and not told["damaged"]:
            sound.add(item.snapshot)
        found.append(told)
    return found


def _describe(
    repository: Repository,
    layer: str,
    item: Listed,
    manifest: Manifest | IntegrityError | None,
    tables: dict[str, int],
) -> dict[str, t.Any]:
    told: dict[str, t.Any] = {
        "snapshot": item.snapshot,
        "number": item.number,
        "complete": item.complete,
        "stored_bytes": sum(item.objects.values()) + _bytes_of_tables(item.snapshot, tables),
        "damaged": "",
    }
    if isinstance(manifest, Manifest):
        try:
            check_listed(repository, manifest, item)
            for table in manifest.tables:
                check_table(repository, table, tables)
        except GuardError as error:
            told["damaged"] = str(error)
        for name in ("type", "created", "base", "parent", "files", "content_bytes", "records", "host", "fence"):
            told[name] = getattr(manifest, name)
        told["parts"] = len(manifest.parts)
        told["key_provider"] = manifest.key.get("provider", "")
    elif manifest is not None:
        told["damaged"] = str(manifest)
    elif item.complete:
        told["damaged"] = f"{repository.where(layer, item.snapshot)}: the manifest is listed and cannot be read"
    return told


def _bytes_of_tables(snapshot: str, tables: dict[str, int]) -> int:
    """What the record tables of a snapshot take, those of an interrupted run too."""
    named = ((parse_name(name), size) for name, size in tables.items())
    return sum(size for name, size in named if name is not None and name.snapshot == snapshot)
