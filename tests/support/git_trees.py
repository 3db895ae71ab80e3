# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Directories and Git commands for the tests of the Git wrapper."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import typing as t
from pathlib import Path

from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.git import GitRepository


@contextlib.contextmanager
def open_place() -> t.Iterator[Path]:
    """A directory that other users can enter, as the parents of a data root are."""
    path = Path(tempfile.mkdtemp(prefix="guardops-test-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)


def new_tree(place: Path) -> Path:
    """A config directory with one file and no repository."""
    folder = place / "config"
    folder.mkdir()
    (folder / "nginx.conf").write_text("worker_processes 2;\n")
    return folder


def plain_git(folder: Path, *words: str) -> str:
    """Git as a user runs it, for what the tests need around the collection."""
    settings = ("user.name=t", "user.email=t@example.org", "safe.directory=*")
    done = subprocess.run(
        ["git", "-C", str(folder), *(word for one in settings for word in ("-c", one)), *words],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
    )
    return done.stdout.strip()


def bare(place: Path, name: str = "remote.git") -> Path:
    """A bare repository to push to."""
    subprocess.run(["git", "init", "--quiet", "--bare", "-b", "main", str(place / name)], check=True)
    return place / name


def committed(tree: Path) -> tuple[GitRepository, str | None]:
    """The repository of a directory, with a first commit."""
    repository = GitRepository(str(tree))
    repository.ensure()
    return repository, repository.commit("first")
