# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Does what was restored work? The last level of a verification, for each layer.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import dataclasses
import json
import lzma
import os
import typing as t
import zlib

from ..format.compressed import plain_reader
from ..format.index import Index
from ..format.tree import FILE, Tree, scan
from ..services.git import GitRepository
from .model_check import check_model

# A set of so many hashes takes 150 MiB; a verification must not need more memory than the service.
_MOST_TRACE_IDS = 2_000_000


@dataclasses.dataclass
class Found:
    """What a layer's own check has to say."""

    failures: list[str] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)
    not_checked: list[str] = dataclasses.field(default_factory=list)
    details: dict[str, t.Any] = dataclasses.field(default_factory=dict)


def check(layer: str, target: str, index: Index, canaries: list[dict[str, t.Any]], python: str) -> Found:
    """Try what was restored into ``target``."""
    if layer == "model":
        return _model(target, canaries, python)
    return _config(target, index) if layer == "config" else _logs(target)


def _model(target: str, canaries: list[dict[str, t.Any]], python: str) -> Found:
    """Every directory with a config.json is a model, and each must load; a link to one is not another."""
    found = Found()
    directories = sorted(folder for folder, _names, files in os.walk(target) if "config.json" in files)
    if not directories:
        found.failures.append(f"{target}: expected a model (a directory with a config.json), found none")
    for directory in directories:
        name = os.path.relpath(directory, target)
        told = check_model(directory, canaries=canaries or None, python=python or None)
        for kind in ("failures", "warnings", "not_checked"):
            getattr(found, kind).extend(f"{name}: {text}" for text in told.pop(kind))
        found.details[name] = told
    return found


def _config(target: str, index: Index) -> Found:
    """The history is whole, and what is checked out is its head."""
    found = Found(not_checked=["whether the web server accepts the configuration"])
    git = index.layer.get("git")
    if not git:
        found.not_checked.append("the Git history: the snapshot has none")
        return found
    head = GitRepository(target).head()
    if head != git["head"]:
        found.failures.append(f"config: expected Git commit {git['head']}, found {head}")
    found.details["head"] = head
    return found


def _logs(target: str) -> Found:
    """Every record is read and counted; none may be there twice."""
    found = Found(not_checked=["whether a record is missing: that needs the chain of records"])
    records = odd = 0
    seen: set[int] = set()
    twice: list[str] = []
    with Tree(target) as tree:
        for entry in scan(target)[0]:
            if entry.type != FILE:
                continue
            try:
                with plain_reader(tree, entry) as reader:
                    for line in reader:
                        records += 1
                        trace = _trace_id(line)
                        if trace is None:
                            odd += 1
                        elif hash(trace) in seen:
                            twice.append(trace)
                        elif len(seen) < _MOST_TRACE_IDS:
                            seen.add(hash(trace))
            except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
                found.failures.append(f"{entry.path}: expected a log that can be read, found {error}")
    if twice:
        found.failures.append(f"logs: expected every record once, found {len(twice)} twice: {', '.join(twice[:10])}")
    if odd:
        found.warnings.append(f"logs: {odd} of {records} lines are no audit records with a trace_id")
    if len(seen) == _MOST_TRACE_IDS:
        found.not_checked.append(f"whether a record is there twice, after the first {_MOST_TRACE_IDS}")
    found.details.update(records=records, not_records=odd)
    return found


def _trace_id(line: bytes) -> str | None:
    try:
        raw = json.loads(line)
    except ValueError:
        return None
    trace = raw.get("trace_id") if isinstance(raw, dict) else None
    return trace if isinstance(trace, str) else None
