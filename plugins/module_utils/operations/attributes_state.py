# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bring an ACL snapshot and a tree together: saved, compared or restored, with a report for people.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import dataclasses
import os
import typing as t

from ..errors import GuardError
from ..format import attribute_snapshot
from ..format.attribute_snapshot import SIDECAR_SUFFIX, Snapshot
from ..format.getfacl import printable
from .attributes import Difference, Selection, capture, compare, not_checked
from .attributes_restore import Outcome, restore


@dataclasses.dataclass
class Options:
    """What is wanted: see the module's documentation."""

    path: str
    file: str
    state: str = "saved"
    exclude: tuple[str, ...] = ()
    fail_on_difference: bool = False
    limit: int = 1000
    dry: bool = False


@dataclasses.dataclass
class Report:
    """What came of it. ``failure`` is empty when all is well."""

    result: dict[str, t.Any]
    diff: dict[str, str]
    failure: str = ""
    warnings: list[str] = dataclasses.field(default_factory=list)


def reach(options: Options) -> Report:
    """Bring about the state that the options name, or say what would be done."""
    if options.limit < 0:
        raise GuardError("option max_differences", "0 or more", str(options.limit))
    if options.state == "saved" and options.fail_on_difference:
        raise GuardError("option fail_on_difference", "state compared or restored", "state saved")
    selection = Selection(options.exclude, _own_paths(options.path, options.file))
    return {"saved": _save, "compared": _compare, "restored": _restore}[options.state](options, selection)


def readable(text: str) -> str:
    """An error's text, fit for JSON: it may name a file whose name is no valid UTF-8."""
    return os.fsencode(text).decode("utf-8", "replace")


def _save(options: Options, selection: Selection) -> Report:
    if not os.path.isdir(os.path.dirname(options.file) or "."):
        raise GuardError(options.file, "a path in a directory that exists", "no such directory")
    found = capture(options.path, selection)
    old = attribute_snapshot.read_bytes(options.file)
    changed = old != (found.snapshot.text, found.snapshot.sidecar())
    differences: list[Difference] = []
    warnings = []
    if changed and old is not None:
        try:
            differences = compare(attribute_snapshot.load(options.file), found.snapshot, selection)
        except GuardError as error:
            # Saving is the way out of a damaged snapshot, so it must not stop here.
            warnings.append(f"The old snapshot could not be read and is replaced. {readable(str(error))}")
    if changed and not options.dry:
        found.snapshot.write(options.file)
    report = _report(options, differences, found.snapshot, found.entries, found.excluded, changed)
    if changed and old is None:
        report.diff = {"before": "", "after": f"{options.file}: a snapshot of {found.entries} entries\n"}
    report.warnings += warnings
    if found.snapshot.unread:
        report.warnings.append(f"{len(found.snapshot.unread)} paths could not be read, so the snapshot lacks them.")
    return report


def _compare(options: Options, selection: Selection) -> Report:
    saved = attribute_snapshot.load(options.file)
    found = capture(options.path, selection)
    differences = compare(saved, found.snapshot, selection)
    report = _report(options, differences, found.snapshot, found.entries, found.excluded, False, saved)
    if differences and options.fail_on_difference:
        paths = len({difference.path for difference in differences})
        report.failure = f"{options.path}: expected the attributes in {options.file}, found {paths} paths that differ."
    return report


def _restore(options: Options, selection: Selection) -> Report:
    saved = attribute_snapshot.load(options.file)
    outcome = restore(options.path, saved, selection, options.dry)
    report = _report(
        options, outcome.differences, outcome.tree, outcome.entries, outcome.excluded, outcome.changed, saved
    )
    report.result.update(
        missing=[printable(path) for path in outcome.missing[: options.limit]],
        extra=[printable(path) for path in outcome.extra[: options.limit]],
        failures=[
            {"path": printable(path), "reason": readable(reason)}
            for path, reason in list(outcome.failures.items())[: options.limit]
        ],
    )
    report.failure = _failure(options, outcome)
    if outcome.missing or outcome.extra:
        report.warnings.append(f"{len(outcome.missing)} entries are missing in the tree, {len(outcome.extra)} are new.")
    return report


def _failure(options: Options, outcome: Outcome) -> str:
    if outcome.failures:
        path, reason = next(iter(outcome.failures.items()))
        return (
            f"{options.path}: expected the attributes in {options.file}, found {len(outcome.failures)} entries that "
            f"could not be restored. The first is {printable(path)}: {readable(reason)}"
        )
    if options.fail_on_difference and (outcome.missing or outcome.extra):
        return (
            f"{options.path}: expected the entries in {options.file}, found {len(outcome.missing)} missing and "
            f"{len(outcome.extra)} new ones."
        )
    return ""


def _report(
    options: Options,
    differences: list[Difference],
    tree: Snapshot,
    entries: int,
    excluded: list[str],
    changed: bool,
    saved: Snapshot | None = None,
) -> Report:
    shown = [
        {**difference._asdict(), "path": printable(difference.path), "attribute": printable(difference.attribute)}
        for difference in differences[: options.limit]
    ]
    snapshots = [tree] if saved is None else [tree, saved]
    # No key may be called ``skipped``: Ansible takes a task whose result has one for a skipped task.
    result = {
        "changed": changed,
        "differences": shown,
        "difference_count": len(differences),
        "entries": entries,
        "excluded": [printable(path) for path in excluded[: options.limit]],
        "not_checked": [printable(text) for text in not_checked(*snapshots)[: options.limit + 1]],
    }
    diff = {
        side: "".join(f"{item['path']}: {item['attribute']}: {item[side] or '-'}\n" for item in shown)
        for side in ("before", "after")
    }
    return Report(result, diff)


def _own_paths(root: str, file: str) -> frozenset[str]:
    """The snapshot's own files, should they lie in the tree."""
    directory, name = os.path.split(os.path.abspath(file))
    relative = os.path.relpath(os.path.join(os.path.realpath(directory), name), os.path.realpath(root))
    return frozenset() if relative.startswith("../") else frozenset((relative, relative + SIDECAR_SUFFIX))
