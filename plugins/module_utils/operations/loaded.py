# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Does what was restored work? The last level of a verification, for each layer.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import dataclasses
import lzma
import os
import typing as t
import zlib

from ..format.chain import ChainChecker
from ..format.chain_findings import NEW_CHAIN, NOT_A_RECORD, UNFINISHED, Report
from ..format.compressed import plain_reader
from ..format.index import Index
from ..format.tree import FILE, Tree, scan
from ..services.git import GitRepository
from .model_check import check_model
from .snapshots import Opened

# A set of so many hashes takes 150 MiB; a verification must not need more memory than the service.
_MOST_TRACE_IDS = 2_000_000
# Not worth a warning each where they are innocent; lines that are no records are counted.
_EVERYDAY = (NEW_CHAIN, NOT_A_RECORD, UNFINISHED)


@dataclasses.dataclass
class Found:
    """What a layer's own check has to say."""

    failures: list[str] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)
    not_checked: list[str] = dataclasses.field(default_factory=list)
    details: dict[str, t.Any] = dataclasses.field(default_factory=dict)


def check(
    layer: str, target: str, chain: t.Sequence[Opened], canaries: list[dict[str, t.Any]], python: str,
    elsewhere: t.Mapping[str, int],
) -> Found:  # fmt: skip
    """Try what was restored into ``target`` from the snapshots of ``chain``.

    ``elsewhere`` are chains of records, each with the highest number that is in older snapshots.
    """
    if layer == "model":
        return _model(target, canaries, python)
    return _config(target, chain[-1].index) if layer == "config" else _logs(target, chain, elsewhere)


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


def _logs(target: str, chain: t.Sequence[Opened], elsewhere: t.Mapping[str, int]) -> Found:
    """Every record is read and counted, and none is there twice; chained ones are held against their hashes, their
    numbers, and what the manifests say of them."""
    found = Found()
    checker = ChainChecker(os.path.dirname(target))
    for name, last in elsewhere.items():
        checker.know(name, last)
    for opened in chain:
        for item in opened.manifest.records["chains"] if opened.manifest.records else []:
            checker.anchor(item["chain"], item["last"], item["head"], f"the manifest of {opened.manifest.snapshot}")
    seen: set[int] = set()
    twice: list[str] = []
    with Tree(target) as tree:
        for entry in scan(target)[0]:
            if entry.type != FILE:
                continue
            try:
                with plain_reader(tree, entry) as reader:
                    for line in reader:
                        record = checker.feed(line, entry.path)
                        if record is None:
                            continue
                        if hash(record.trace_id) in seen:
                            twice.append(record.trace_id)
                        elif len(seen) < _MOST_TRACE_IDS:
                            seen.add(hash(record.trace_id))
            except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
                found.failures.append(f"{entry.path}: expected a log that can be read, found {error}")
    report = checker.finish()
    _tell_of_chains(report, found)
    lines = report.records + report.unchained + report.odd
    if twice:
        found.failures.append(f"logs: expected every record once, found {len(twice)} twice: {', '.join(twice[:10])}")
    if report.odd:
        found.warnings.append(f"logs: {report.odd} of {lines} lines are no audit records with a trace_id")
    if report.unchained:
        found.not_checked.append(f"whether a record is missing among the {report.unchained} that have no chain")
    if len(seen) == _MOST_TRACE_IDS:
        found.not_checked.append(f"whether a record is there twice, after the first {_MOST_TRACE_IDS}")
    found.details.update(records=lines, not_records=report.odd, chained=report.records)
    return found


def _tell_of_chains(report: Report, found: Found) -> None:
    """What is wrong fails; what everyday operation explains is at most a warning."""
    found.details["chains"] = [dataclasses.asdict(item) for item in report.chains]
    for finding in report.findings:
        if not finding.innocent and finding.kind != NEW_CHAIN:
            found.failures.append(f"logs: {finding}")
        elif not finding.innocent or finding.kind not in _EVERYDAY:
            found.warnings.append(f"logs: {finding}")
    equal = sum(anchor.state == "equal" for anchor in report.anchors)
    found.details["anchors"] = {"equal": equal, "of": len(report.anchors)}
