# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whatever a tree holds comes back equal through the engine: backup, then restore."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from sample_instance.compare import compare_trees

from support import trees
from support.engine import Engine, short_place

# Examples end in minutes, not in seconds, where two of these run on two cores: no deadlines.
SETTINGS = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


def round_trip(place: Path, tree: list[trees.Node]) -> None:
    """Back up, restore elsewhere, compare; what cannot be backed up is named, and nothing else differs."""
    source, target = place / "source", place / "target"
    skipped = trees.build(source, tree)
    engine = Engine(place / "engine")
    taken = engine.backup(source)
    assert sorted(item["path"] for item in taken.left_out) == skipped
    outcome = engine.restore(target)
    assert outcome.changed
    assert unexpected(compare_trees(source, target), skipped) == []
    assert not engine.restore(target, overwrite=True).changed


def unexpected(differences: list[str], skipped: list[str]) -> list[str]:
    """The differences, less that what was skipped is missing."""
    missing = {f"{name if name.isprintable() else ascii(name)}: missing" for name in skipped}
    return [line for line in differences if line not in missing]


@SETTINGS
@given(trees.trees())
def test_any_tree(tree: list[trees.Node]) -> None:
    with short_place() as place:
        round_trip(place, tree)


def test_a_tree_with_everything() -> None:
    with short_place() as place:
        round_trip(place, trees.everything())
        names = {os.fsencode(path.name) for path in (place / "target").iterdir()}
        assert {b"\xff\xfe", b"new\nline", b"-rf"} <= names  # the builder really made them


def test_files_span_parts() -> None:
    """Large enough for parts of both kinds, with cuts within files."""
    with short_place() as place:
        (place / "source").mkdir()
        (place / "source" / "weights").write_bytes(os.urandom(300_000))
        (place / "source" / "text").write_bytes(b"the same line\n" * 200_000)
        engine = Engine(place / "engine")
        taken = engine.backup(place / "source")
        assert taken.parts > 30
        assert {path.suffixes[0] for path in engine.objects(taken.snapshot).glob("part-*")} == {".gpg", ".zst"}
        engine.restore(place / "target")
        assert compare_trees(place / "source", place / "target") == []


def config_round_trip(place: Path, tree: list[trees.Node]) -> None:
    source, target = place / "source", place / "target"
    skipped = trees.build(source, tree)
    engine = Engine(place / "engine", "config")
    assert engine.backup(source).commit
    (source / "routes.json").write_text("{}\n")
    taken = engine.backup(source)
    assert taken.commit
    assert sorted(item["path"] for item in taken.left_out) == skipped
    outcome = engine.restore(target)
    assert unexpected(compare_trees(source, target, ignore=[".git", ".git/*"]), skipped) == []
    assert [line for line in outcome.not_checked if "commit" in line] == []
    assert history(target) == history(source)
    assert len(history(target)) == 2
    assert not engine.restore(target, overwrite=True).changed


def history(tree: Path) -> list[str]:
    """All commits, the newest first."""
    command = ["git", "-c", "safe.directory=*", "-C", str(tree), "log", "--format=%H %s"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


@settings(SETTINGS, max_examples=10)
@given(trees.trees())
def test_any_configuration_with_its_history(tree: list[trees.Node]) -> None:
    with short_place() as place:
        config_round_trip(place, tree)


def test_a_configuration_with_everything() -> None:
    with short_place() as place:
        config_round_trip(place, trees.everything())


@pytest.mark.parametrize("layer", ["model", "logs"])
def test_a_git_clone_outside_the_config_layer_is_a_tree_like_any_other(layer: str) -> None:
    """Weights are often cloned with Git."""
    with short_place() as place:
        (place / "source" / ".git" / "objects").mkdir(parents=True)
        (place / "source" / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
        (place / "source" / "weights").write_text("w\n")
        engine = Engine(place / "engine", layer)
        engine.backup(place / "source")
        engine.restore(place / "target")
        assert compare_trees(place / "source", place / "target") == []
        shutil.rmtree(place / "target" / ".git")
        assert engine.restore(place / "target", overwrite=True).changed
        assert compare_trees(place / "source", place / "target") == []
