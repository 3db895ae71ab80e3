# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""roles/runtime/files/pack_collection.py packs the same for the same content, from a checkout and from a release."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from support.checkout import ROOT

SCRIPT = ROOT / "roles" / "runtime" / "files" / "pack_collection.py"
FILES = {
    "galaxy.yml": "---\nnamespace: guardops\nversion: 1.2.3\n",
    "meta/runtime.yml": "{}\n",
    "playbooks/backup.yml": "[]\n",
    "plugins/modules/backup.py": "pass\n",
    "requirements/runtime.txt": "boto3==1\n",
    "roles/x/files/tool": "#!/bin/sh\n",
    "plugins/modules/__pycache__/backup.pyc": "x",
    "tests/unit/test_x.py": "x",
    ".git/config": "secret",
    "roles/.hidden": "x",
}


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    root = tmp_path / "collection"
    for name, content in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (root / "roles/x/files/tool").chmod(0o700)
    return root


def pack(root: Path, directory: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(root), str(directory)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_holds_what_a_host_needs_and_nothing_else(collection: Path, tmp_path: Path) -> None:
    release = pack(collection, tmp_path / "packed")
    assert release.startswith("1.2.3-")
    with tarfile.open(tmp_path / "packed" / f"{release}.tar") as archive:
        modes = {member.name: member.mode for member in archive}
    assert modes == {
        "galaxy.yml": 0o644,
        "meta/runtime.yml": 0o644,
        "playbooks/backup.yml": 0o644,
        "plugins/modules/backup.py": 0o644,
        "requirements/runtime.txt": 0o644,
        "roles/x/files/tool": 0o755,
    }


def test_same_content_is_the_same_release(collection: Path, tmp_path: Path) -> None:
    first = pack(collection, tmp_path / "packed")
    copy = tmp_path / "copy"
    shutil.copytree(collection, copy)
    os.utime(copy / "galaxy.yml", (1, 1))
    (copy / "playbooks/backup.yml").chmod(0o600)  # another umask
    assert pack(copy, tmp_path / "packed") == first
    (copy / "playbooks/backup.yml").write_text("[1]\n")
    assert pack(copy, tmp_path / "packed") != first


def test_release_that_galaxy_installed(collection: Path, tmp_path: Path) -> None:
    (collection / "galaxy.yml").unlink()
    (collection / "MANIFEST.json").write_text(json.dumps({"collection_info": {"version": "2.0.0"}}))
    assert pack(collection, tmp_path / "packed").startswith("2.0.0-")


def test_half_a_collection_is_refused(collection: Path, tmp_path: Path) -> None:
    (collection / "requirements/runtime.txt").unlink()
    arguments = [sys.executable, str(SCRIPT), str(collection), str(tmp_path / "packed")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "no requirements/runtime.txt" in done.stderr
    assert not (tmp_path / "packed").exists()


def test_old_ones_go(collection: Path, tmp_path: Path) -> None:
    old, new = tmp_path / "old.tar", tmp_path / "new.tar"
    for path in (old, new):
        path.touch()
    os.utime(old, (time.time() - 90_000,) * 2)
    release = pack(collection, tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.tar")) == sorted(["new.tar", f"{release}.tar"])
