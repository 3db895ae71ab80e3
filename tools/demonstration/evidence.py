# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the instance is before the disaster and after the recovery, and every difference."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import os
import pathlib
import subprocess

from sample_instance.compare import TreeState, compare_trees, snapshot_tree
from sample_instance.instance import Instance
from sample_instance.logs import iter_records

_GIT = (".git", ".git/*")


@dataclasses.dataclass
class Evidence:
    """The instance at one moment; it outlives the files."""

    trees: dict[str, TreeState]  # by layer
    records: collections.Counter[str]  # by trace_id: how often each is in the logs
    git: dict[str, str]
    half_written: dict[str, int]  # log file: bytes after its last whole line


def take_evidence(instance: Instance) -> Evidence:
    """Read everything once."""
    directories = {"model": instance.models, "config": instance.config, "logs": instance.logs}
    return Evidence(
        trees={layer: snapshot_tree(directory) for layer, directory in directories.items()},
        records=collections.Counter(record["trace_id"] for record in iter_records(instance.logs, torn=[])),
        git=_git_state(instance.config),
        half_written=_half_written(instance.logs),
    )


def expect_whole_lines(evidence: Evidence, logs: pathlib.Path) -> None:
    """Take half-written last lines out of what is expected: an increment leaves them to the next one by design.

    Everything else of these files (their whole lines, modes, owners, ACLs, times) is still expected as it is.
    """
    for name, excess in evidence.half_written.items():
        entry = evidence.trees["logs"].entries[name]
        content = (logs / name).read_bytes()[:-excess]
        entry.size = entry.data_bytes = len(content)
        entry.content = hashlib.sha256(content).hexdigest()


def differences(before: Evidence, after: Evidence) -> list[str]:
    """All of them, a line each."""
    found = []
    for layer, tree in before.trees.items():
        # Git's own files hold times and pack files of the moment; what they mean is compared below.
        ignore = _GIT if layer == "config" else ()
        found += [f"{layer}: {text}" for text in compare_trees(tree, after.trees[layer], ignore)]
    for name, text in before.git.items():
        if after.git[name] != text:
            found.append(f"config: git {name}: expected {text!r}, found {after.git[name]!r}")
    for name in ("status", "fsck"):
        if after.git[name]:
            found.append(f"config: git {name}: expected nothing, found {after.git[name]!r}")
    if before.records != after.records:
        found.append(f"logs: {lost(before, after)} records lost, {repeated(after)} there more than once")
    return found


def lost(before: Evidence, after: Evidence) -> int:
    """Records that did not come back."""
    return len(before.records.keys() - after.records.keys())


def repeated(after: Evidence) -> int:
    """Records that are there more than once."""
    return sum(1 for count in after.records.values() if count > 1)


def _half_written(logs: pathlib.Path) -> dict[str, int]:
    plain = [path for path in logs.iterdir() if path.is_file() and path.suffix != ".gz"]
    tails = {path.name: len(path.read_bytes().rpartition(b"\n")[2]) for path in plain}
    return {name: length for name, length in tails.items() if length}


def _git_state(config: pathlib.Path) -> dict[str, str]:
    """The history's commits and branches, what differs from it, and what Git finds wrong with it."""
    return {
        "log": _git(config, "log", "--format=%H %T %an %ae %at %s"),
        "branches": _git(config, "for-each-ref", "--format=%(refname) %(objectname)", "refs/heads"),
        "HEAD": _git(config, "symbolic-ref", "HEAD"),
        "status": _git(config, "status", "--porcelain", "--ignored"),
        "fsck": _git(config, "fsck", "--full", "--strict", "--no-dangling", "--no-progress"),
    }


def _git(directory: pathlib.Path, *arguments: str) -> str:
    # Without optional locks, `git status` leaves the index alone: looking changes nothing.
    environment = {"PATH": os.environ["PATH"], "GIT_OPTIONAL_LOCKS": "0", "GIT_CONFIG_GLOBAL": os.devnull,
                   "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C.UTF-8"}  # fmt: skip
    done = subprocess.run(
        ["git", "-C", os.fspath(directory), *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        return f"exit code {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout
