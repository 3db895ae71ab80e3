# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restoring over what is there: only what differs is fetched, check mode tells the truth, nobody's owner is needed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sample_instance import permissions
from sample_instance.compare import compare_trees, snapshot_tree

from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import GuardError
from support.engine import Engine, short_place

NOBODY = 65534


@pytest.fixture
def place() -> Iterator[Path]:
    with short_place() as path:
        yield path


@pytest.fixture
def engine(place: Path) -> Engine:
    """A snapshot of a tree in which a file spans many parts, restored once."""
    source = place / "source"
    (source / "d").mkdir(parents=True)
    (source / "weights").write_bytes(os.urandom(100_000))
    (source / "d" / "config.json").write_text("{}\n")
    (source / "d" / "tokenizer.json").write_text("[]\n")
    os.link(source / "weights", source / "d" / "hard")
    (source / "link").symlink_to("weights")
    engine = Engine(place / "engine")
    engine.backup(source)
    engine.restore(place / "target")
    return engine


def edit(path: Path, offset: int) -> None:
    """Change one byte, and leave the time as it was."""
    status = path.stat()
    with open(path, "r+b") as handle:
        handle.seek(offset)
        byte = handle.read(1)
        handle.seek(offset)
        handle.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def remove_all(target: Path) -> None:
    shutil.rmtree(target)


# What is done to the target, and how many parts must be fetched to mend it (None: all).
CHANGES: dict[str, tuple[Callable[[Path], object], int | None]] = {
    "nothing": (lambda target: None, 0),
    "one byte": (lambda target: edit(target / "weights", 50_000), 1),
    "two bytes far apart": (lambda target: (edit(target / "weights", 1), edit(target / "weights", 90_000)), 2),
    "a file cut short": (lambda target: os.truncate(target / "weights", 99_999), 1),
    "a file that grew": (lambda target: (target / "weights").open("ab").write(b"more"), 0),
    "a mode": (lambda target: (target / "weights").chmod(0o600), 0),
    "a time": (lambda target: os.utime(target / "d" / "config.json"), 0),
    "a directory's mode": (lambda target: (target / "d").chmod(0o700), 0),
    "an xattr too many": (lambda target: os.setxattr(target / "d" / "config.json", "user.x", b"1"), 0),
    "an access list too many": (lambda target: permissions.allow_user(target / "weights", 1000, 6), 0),
    "a link elsewhere": (
        lambda target: ((target / "link").unlink(), (target / "link").symlink_to("/etc/passwd")), 0
    ),
    "a hard link gone": (lambda target: (target / "d" / "hard").unlink(), 0),
    "a hard link that is a copy": (
        lambda target: ((target / "d" / "hard").unlink(), shutil.copy(target / "weights", target / "d" / "hard")), 0
    ),
    "a file gone": (lambda target: (target / "d" / "config.json").unlink(), 1),
    "a file that is a directory": (
        lambda target: ((target / "d" / "config.json").unlink(), (target / "d" / "config.json").mkdir()), 1
    ),
    "everything": (remove_all, None),
}  # fmt: skip


@pytest.mark.parametrize(("change", "parts"), CHANGES.values(), ids=CHANGES.keys())
def test_only_what_differs_is_fetched(
    place: Path, engine: Engine, change: Callable[[Path], object], parts: int | None
) -> None:
    target = place / "target"
    change(target)
    before = snapshot_tree(target) if target.exists() else None
    told = engine.restore(target, overwrite=True, dry=True)
    assert (snapshot_tree(target) if target.exists() else None) == before, "check mode writes nothing"
    outcome = engine.restore(target, overwrite=True)
    assert compare_trees(place / "source", target) == []
    assert outcome.changed == (parts != 0 or before != snapshot_tree(target))
    if parts is not None:
        assert outcome.fetched_parts == parts
    for name in ("changed", "fetched_bytes", "fetched_parts", "files", "bytes", "extra", "diff"):
        assert getattr(told, name) == getattr(outcome, name), name
    assert bool(outcome.fetched_bytes) == bool(outcome.fetched_parts)
    again = engine.restore(target, overwrite=True)
    assert not again.changed
    assert again.diff == ""


def test_what_else_is_there(place: Path, engine: Engine) -> None:
    """Kept and named unless its removal is asked for; without leave nothing happens at all."""
    target = place / "target"
    status = target.stat()
    (target / "more" / "below").mkdir(parents=True)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))  # else that alone would be a difference
    (target / "more" / "below" / "file").write_text("mine")
    with pytest.raises(GuardError, match=r"expected an empty directory"):
        engine.restore(target)
    kept = engine.restore(target, overwrite=True)
    assert not kept.changed
    assert kept.extra == ["more", "more/below", "more/below/file"]
    told = engine.restore(target, overwrite=True, remove_extra=True, dry=True)
    assert told.changed
    assert (target / "more" / "below" / "file").read_text() == "mine"
    assert engine.restore(target, overwrite=True, remove_extra=True).changed
    assert compare_trees(place / "source", target) == []


def test_a_sparse_file_larger_than_the_disk(place: Path) -> None:
    """Holes take no room."""
    (place / "source").mkdir()
    with open(place / "source" / "sparse", "wb") as handle:
        handle.write(b"data")
        handle.truncate(shutil.disk_usage(place).free + (1 << 30))
    engine = Engine(place / "engine")
    engine.backup(place / "source")
    assert engine.restore(place / "target", dry=True).changed


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a file capable")
def test_a_capability_too_many(place: Path, engine: Engine) -> None:
    permissions.let_bind_low_ports(place / "target" / "weights")
    assert engine.restore(place / "target", overwrite=True).changed
    assert compare_trees(place / "source", place / "target") == []


# What runs as another user; it imports all it needs before it gives its rights away.
AS_NOBODY = """
import concurrent.futures.thread, os, sys  # Python may lie where that user cannot read: nothing is imported late
sys.path[:0] = sys.argv[1].split(os.pathsep)
from pathlib import Path
from support.engine import Engine
from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import GuardError
engine = Engine.__new__(Engine)
base = Path(sys.argv[2])
engine.base, engine.layer, engine.store_path = base, "model", base / "repository"
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.keys.key_file import KeyFile
engine.provider = lambda gpg: KeyFile(str(base / "trial.key"), gpg)
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
target = Path(sys.argv[3])
os.environ["HOME"] = str(target.parent)
try:
    engine.restore(target)
except GuardError as error:
    print("refused:", error)
outcome = engine.restore(target, ownership=False)
print(outcome.changed, outcome.not_checked)
print(engine.restore(target, ownership=False, overwrite=True).changed)
(target / "d").chmod(0o700)
(target / "d" / "config.json").chmod(0o600)
(target / "d" / "config.json").write_text("changed")
os.setxattr(target / "d" / "readable", "user.note", b"changed")
(target / "d").chmod(0o500)
print(engine.restore(target, ownership=False, overwrite=True).changed)
"""


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make what an ordinary user may not")
def test_an_ordinary_user_without_owners(place: Path) -> None:
    source = place / "source"
    (source / "d").mkdir(parents=True)
    (source / "d" / "config.json").write_text("{}\n")
    (source / "d" / "readable").write_text("r\n")
    os.setxattr(source / "d" / "readable", "user.note", b"kept")
    (source / "program").write_text("#!/bin/sh\n")
    (source / "program").chmod(0o6755)
    os.chown(source / "d" / "config.json", 1000, 1000)
    permissions.allow_user(source / "d" / "config.json", 1000, 4)
    permissions.let_bind_low_ports(source / "d" / "readable")
    (source / "d").chmod(0o500)
    engine = Engine(place / "engine")
    engine.backup(source)
    home = place / "home"
    home.mkdir()
    for path in (home, engine.base, *engine.base.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    place.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-B", "-c", AS_NOBODY, os.pathsep.join(sys.path), str(engine.base), str(home / "target")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    refused, first, second, third = done.stdout.splitlines()
    assert "set ownership: false" in refused
    assert first.startswith("True")
    assert "owners" in first
    assert (second, third) == ("False", "True")
    differences = compare_trees(source, home / "target", aspects=("size", "content", "mtime_ns", "xattrs", "mode"))
    capability, mode = differences
    assert capability.startswith("d/readable: security.capability: ")
    assert capability.endswith("found none")
    assert mode == "program: mode: expected 6755, found 0755", "it must not run as whoever restores it"
