# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restoring from an index, and into a directory, that mean harm: nothing outside the target is ever touched."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import stat
import subprocess
import threading
import typing as t
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sample_instance.compare import TreeState, compare_trees, snapshot_tree

from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import GuardError, IntegrityError
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format import index as indexes
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.repository import MANIFEST
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.tree import (
    DIRECTORY,
    FILE,
    HARDLINK,
    SYMLINK,
    Entry,
)  # fmt: skip
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import snapshots
from support.engine import Engine, short_place


@dataclasses.dataclass
class Scene:
    """A snapshot, a target, and sentinels around it."""

    place: Path
    engine: Engine
    before: TreeState

    @property
    def target(self) -> Path:
        return self.place / "around" / "target"

    @property
    def outside(self) -> Path:
        return self.place / "around" / "outside"

    def check(self) -> None:
        """Everything around the target is as it was, attributes and times included."""
        assert compare_trees(self.before, self.place / "around", ignore=["target", "target/*", "."]) == []


@pytest.fixture
def scene() -> Iterator[Scene]:
    with short_place() as place:
        source = place / "source"
        (source / "d" / "e").mkdir(parents=True)
        (source / "a").write_bytes(os.urandom(20_000))
        (source / "d" / "b").write_text("b" * 9000)
        (source / "d" / "e" / "c").write_text("c" * 100)
        os.link(source / "a", source / "d" / "hard")
        (source / "link").symlink_to("a")
        outside = place / "around" / "outside"
        (outside / "e").mkdir(parents=True)
        for name in ("a", "b", "e/c", "config.bundle"):
            (outside / name).write_text("a sentinel\n")
            (outside / name).chmod(0o640)
        engine = Engine(place / "engine")
        engine.backup(source)
        yield Scene(place, engine, snapshot_tree(place / "around"))


def forge(engine: Engine, change: Callable[[list[Entry]], t.Any], layer: dict[str, t.Any] | None = None) -> None:
    """Replace the snapshot's index, as whoever has the key can."""
    with engine.session() as session:
        opened = snapshots.open_snapshot(session, snapshots.choose(session, "latest"))
        change(opened.index.entries)
        opened.index.layer.update(layer or {})
        data = session.gpg.encrypt_bytes(
            indexes.to_bytes(opened.index, opened.manifest), opened.passphrase, "forged index"
        )
        index = opened.manifest.index._replace(size=len(data), sha256=hashlib.sha256(data).hexdigest())
        manifest = dataclasses.replace(opened.manifest, index=index)
        objects = engine.objects(manifest.snapshot)
        (objects / "index.gpg").write_bytes(data)
        (objects / MANIFEST).write_bytes(manifest.to_bytes())


def _set(of: str, /, **values: t.Any) -> Callable[[list[Entry]], None]:
    """Change fields of one entry."""

    def change(entries: list[Entry]) -> None:
        entry = next(entry for entry in entries if entry.path == of)
        for name, value in values.items():
            setattr(entry, name, value)

    return change


def _add(*entries: Entry) -> Callable[[list[Entry]], None]:
    return lambda present: present.extend(entries)


HOSTILE: dict[str, Callable[[list[Entry]], t.Any]] = {
    "name above": _set("a", path="../outside/a"),
    "absolute name": _set("a", path="/etc/guardops-test"),
    "name that leaves later": _set("d/b", path="d/../../outside/b"),
    "empty component": _set("d/b", path="d//b"),
    "dot component": _set("d/b", path="d/./b"),
    "null byte": _set("d/b", path="d/b\0c"),
    "no name": _set("a", path=""),
    "a file below a symlink": _set("d", type=SYMLINK, target="../outside"),
    "a file below a file": _set("d", type=FILE),
    "a directory that comes too late": lambda entries: entries.append(entries.pop(2)),
    "a name without its directory": _add(Entry("nowhere/x", FILE)),
    "a hard link to outside": _set("d/hard", target="../outside/a"),
    "a hard link to an absolute name": _set("d/hard", target="/etc/passwd"),
    "a hard link to a symlink": _set("d/hard", target="link"),
    "a hard link to a directory": _set("d/hard", target="d"),
    "a hard link to nothing": _set("d/hard", target="gone"),
    "a name twice": _add(Entry("a", FILE)),
    "a name twice, as a symlink": _add(Entry("d", SYMLINK, target="../outside")),
    "an unknown type": _set("link", type="device"),
    "a root that is a link": _set(".", type=SYMLINK, target="../outside"),
    "no root": lambda entries: entries.pop(0),
    "nothing": lambda entries: entries.clear(),
    "content past the end of the file": _set("a", size=10),
    "content from behind the stream": lambda entries: entries[-1].extents.__setitem__(
        0, entries[-1].extents[0]._replace(position=1 << 40)
    ),
    "content before the file": lambda entries: entries[-1].extents.__setitem__(
        0, entries[-1].extents[0]._replace(offset=-5)
    ),
    "a target that is no text": _set("link", target=["a"]),
    "a hard link, by a newer release a hard link's link": _set("d/hard", target="d/hard", type=HARDLINK),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_index_is_refused(scene: Scene, change: Callable[[list[Entry]], t.Any]) -> None:
    forge(scene.engine, change)
    with pytest.raises(IntegrityError, match=r"index\.gpg"):
        scene.engine.restore(scene.target)
    assert not scene.target.exists()
    scene.check()


def test_the_forger_can_make_a_sound_index(scene: Scene) -> None:
    """So that the refusals above are for what was changed, and not for the forging."""
    forge(scene.engine, lambda entries: None)
    scene.engine.restore(scene.target)
    assert compare_trees(scene.place / "source", scene.target) == []


@pytest.mark.parametrize("entry", [Entry(".git", DIRECTORY), Entry(".git", SYMLINK, target="../outside")])
def test_a_git_directory_in_an_index_of_the_configuration(entry: Entry) -> None:
    """Git would run what the settings in it say."""
    with short_place() as place:
        (place / "source").mkdir()
        (place / "source" / "nginx.conf").write_text("events {}\n")
        engine = Engine(place / "engine", "config")
        engine.backup(place / "source")
        forge(engine, _add(entry))
        with pytest.raises(IntegrityError, match=r"an index without a Git directory"):
            engine.restore(place / "target")
        assert not (place / "target").exists()


def test_a_bundle_elsewhere(scene: Scene) -> None:
    """The index names the bundle: no other file is ever moved."""
    source = scene.place / "config"
    source.mkdir()
    (source / "nginx.conf").write_text("events {}\n")
    engine = Engine(scene.place / "other engine", "config")
    engine.backup(source)
    with engine.session() as session:
        git = snapshots.open_snapshot(session, snapshots.choose(session, "latest")).index.layer["git"]
    forge(engine, lambda entries: None, {"git": {**git, "bundle": "../outside/config.bundle"}})
    engine.restore(scene.target)
    assert (scene.target / ".git").is_dir()
    scene.check()


def hostile_targets() -> dict[str, Callable[[Scene], t.Any]]:
    def link_for(name: str, to: str) -> Callable[[Scene], t.Any]:
        return lambda scene: (scene.target / name).symlink_to(to)

    def special(scene: Scene) -> None:
        os.mkfifo(scene.target / "a")
        os.mkfifo(scene.target / "d")

    def leftovers(scene: Scene) -> None:
        (scene.target / ".guardops-restore-0123abcd-1").write_text("half a file")
        (scene.target / "d").mkdir()
        (scene.target / "d" / ".guardops-restore-0123abcd-2").symlink_to("../../outside/a")

    def full_directory(scene: Scene) -> None:
        (scene.target / "a" / "b").mkdir(parents=True)
        (scene.target / "a" / "b" / "link").symlink_to(scene.outside)

    return {
        "a link where a directory should be": link_for("d", "../outside"),
        "a link where a file should be": link_for("a", "../outside/a"),
        "an absolute link": lambda scene: (scene.target / "d").symlink_to(scene.outside),
        "a link to itself": link_for("d", "d"),
        "named pipes": special,
        "what a killed restore left": leftovers,
        "a directory with content where a file should be": full_directory,
    }


@pytest.mark.parametrize("prepare", hostile_targets().values(), ids=hostile_targets().keys())
def test_a_hostile_target(scene: Scene, prepare: Callable[[Scene], t.Any]) -> None:
    scene.target.mkdir()
    prepare(scene)
    scene.engine.restore(scene.target, overwrite=True, remove_extra=True)
    assert compare_trees(scene.place / "source", scene.target) == []
    scene.check()


def test_another_name_outside(scene: Scene) -> None:
    """A file with the right content whose other name lies outside: that one's attributes are not ours."""
    scene.engine.restore(scene.target)
    (scene.target / "d" / "b").chmod(0o600)
    os.link(scene.target / "d" / "b", scene.outside / "linked")
    scene.before = snapshot_tree(scene.place / "around")
    outcome = scene.engine.restore(scene.target, overwrite=True)
    assert outcome.changed
    assert outcome.fetched_bytes == 0
    assert compare_trees(scene.place / "source", scene.target) == []
    assert stat.S_IMODE((scene.outside / "linked").stat().st_mode) == 0o600
    assert (scene.outside / "linked").stat().st_nlink == 1


def test_a_directory_is_swapped_for_a_link_meanwhile(scene: Scene) -> None:
    """The race that a check before the use would lose: whoever wins, nothing outside is written."""
    ended = threading.Event()
    scene.target.mkdir()
    real, aside = scene.target / "d", scene.target / "aside"

    def flip() -> None:
        while not ended.is_set():
            try:
                os.rename(real, aside)
                os.symlink("../outside", real)
                os.unlink(real)
                os.rename(aside, real)
            except OSError:
                continue  # the restore was at it

    flipper = threading.Thread(target=flip)
    flipper.start()
    try:
        for _attempt in range(10):
            with contextlib.suppress(GuardError):  # it may lose; it must not do harm
                scene.engine.restore(scene.target, overwrite=True, remove_extra=True)
    finally:
        ended.set()
        flipper.join()
    scene.check()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make files immutable")
def test_an_immutable_directory(scene: Scene) -> None:
    """An error that names the target; no temporary file; after chattr -i the restore goes on."""
    scene.engine.restore(scene.target)
    (scene.target / "d" / "b").write_text("changed")
    frozen = scene.target / "d"
    if subprocess.run(["chattr", "+i", str(frozen)], check=False, capture_output=True).returncode:
        pytest.skip("the file system has no immutable files")
    try:
        with pytest.raises(GuardError, match=r"Operation not permitted"):
            scene.engine.restore(scene.target, overwrite=True)
    finally:
        subprocess.run(["chattr", "-i", str(frozen)], check=True)
    assert list(scene.target.rglob(".guardops-restore-*")) == []
    scene.engine.restore(scene.target, overwrite=True)
    assert compare_trees(scene.place / "source", scene.target) == []
