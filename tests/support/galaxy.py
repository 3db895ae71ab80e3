# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Collections of other people, and this one as its users install it."""

from __future__ import annotations

import os
import pathlib
import subprocess
import tarfile

from .checkout import ROOT, find_tool


def other_collections() -> pathlib.Path:
    """A folder for ``ANSIBLE_COLLECTIONS_PATH`` with awx.awx in it; fetched from the package index the first time."""
    done = subprocess.run([str(ROOT / "tools" / "collections")], check=True, stdout=subprocess.PIPE, text=True)
    return pathlib.Path(done.stdout.strip())


def build_collection(work: pathlib.Path) -> pathlib.Path:
    """The tar.gz of the collection. Built from a copy of what git would commit, so that it takes no time to look."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate"],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
    ).stdout.split(b"\0")
    copy = work / "checkout"
    copy.mkdir(parents=True)
    archive = work / "checkout.tar"
    with tarfile.open(archive, "w") as tar:
        for name in sorted(os.fsdecode(name) for name in names if name):
            if (ROOT / name).exists():  # one that was deleted and not yet committed is still listed
                tar.add(ROOT / name, arcname=name, recursive=False)
    with tarfile.open(archive) as tar:
        tar.extractall(copy, filter="data")
    subprocess.run(
        [find_tool("ansible-galaxy"), "collection", "build", "--output-path", str(work), str(copy)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    (built,) = work.glob("guardops-qwen3guard-*.tar.gz")
    return built
