# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a snapshot of the model or of the configuration holds: the whole tree, if it changed.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import hashlib
import json
import typing as t

from ..errors import GuardError
from ..format.tree import FILE, Entry, Skipped, Tree, scan
from .contents import Change, compare
from .snapshot import require_directory


def scan_layer(path: str, layer: str, exclude: t.Container[str] = ()) -> tuple[list[Entry], list[Skipped]]:
    """The tree of a layer; one without a byte in it is an error, not a backup."""
    require_directory(path, layer)
    entries, skipped = scan(path, exclude)
    if not any(entry.type == FILE and entry.size for entry in entries):
        raise GuardError(
            path, f"a {layer} with at least one file that is not empty", f"{len(entries) - 1} names and no content",
            "Is its file system mounted? An empty directory is not backed up.",
        )  # fmt: skip
    return entries, skipped


def fingerprint(entries: t.Sequence[Entry]) -> str:
    """Differs whenever anything was written to the tree; says nothing of what is in it."""
    digest = hashlib.sha256()
    for entry in entries:
        told = entry.to_json()
        told.pop("extents", None)
        digest.update(json.dumps([told, entry.identity]).encode())
    return digest.hexdigest()


def differences(path: str, entries: t.Sequence[Entry], indexed: t.Sequence[Entry], workers: int) -> list[Change]:
    """What would make a new snapshot worth taking. A new modification time alone does not."""
    found = []
    with Tree(path) as tree:
        for change in compare(tree, entries, indexed, workers):
            change.attributes.pop("mtime_ns", None)
            if change.kind != "metadata" or change.attributes:
                found.append(change)
    return found
