# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a specification for containers still fits its host."""

from __future__ import annotations

import json
import pathlib

import pytest

from ansible_collections.guardops.qwen3guard.plugins.module_utils.system import cdi


def specification(library: pathlib.Path, device: str = "/dev/null") -> str:
    """As nvidia-ctk writes them."""
    return f"""---
cdiVersion: 0.5.0
containerEdits:
  hooks:
  - args: [nvidia-cdi-hook, update-ldcache, --folder, /usr/lib/nowhere]
    hookName: createContainer
    path: /bin/sh
  mounts:
  - containerPath: /usr/lib/nowhere/libcuda.so
    hostPath: {library}
devices:
- containerEdits:
    deviceNodes:
    - path: {device}
  name: "0"
- containerEdits:
    deviceNodes:
    - path: {device}
  name: all
kind: nvidia.com/gpu
"""


@pytest.fixture
def library(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "libcuda.so.550.163.01"
    path.touch()
    return path


def test_one_that_fits(tmp_path: pathlib.Path, library: pathlib.Path) -> None:
    path = tmp_path / "nvidia.yaml"
    path.write_text(specification(library))
    expected = cdi.Specification(path=str(path), driver="550.163.01", problem="")
    assert cdi.look([str(tmp_path)], "550.163.01") == expected
    assert cdi.look([str(tmp_path)], "") == expected  # no driver to compare with


@pytest.mark.parametrize("indent", [None, 2])
def test_json_is_read_too(tmp_path: pathlib.Path, library: pathlib.Path, indent: int | None) -> None:
    document = {
        "kind": "nvidia.com/gpu",
        "devices": [{"name": "all", "containerEdits": {"deviceNodes": [{"path": "/dev/null"}]}}],
        "containerEdits": {"mounts": [{"hostPath": str(library), "containerPath": "/nowhere"}]},
    }
    (tmp_path / "nvidia.json").write_text(json.dumps(document, indent=indent))
    assert cdi.look([str(tmp_path)], "550.163.01").problem == ""


def test_another_driver(tmp_path: pathlib.Path, library: pathlib.Path) -> None:
    (tmp_path / "nvidia.yaml").write_text(specification(library))
    assert "was made for driver 550.163.01, and 580.1.1 runs" in cdi.look([str(tmp_path)], "580.1.1").problem


def test_files_and_devices_that_are_gone(tmp_path: pathlib.Path, library: pathlib.Path) -> None:
    (tmp_path / "nvidia.yaml").write_text(specification(library, "/dev/no-such-gpu"))
    library.unlink()
    text = (tmp_path / "nvidia.yaml").read_text()
    assert cdi.missing_paths(text) == sorted([str(library), "/dev/no-such-gpu"])
    assert "/dev/no-such-gpu (2 in all)" in cdi.look([str(tmp_path)], "550.163.01").problem


def test_no_device_for_all(tmp_path: pathlib.Path, library: pathlib.Path) -> None:
    (tmp_path / "nvidia.yaml").write_text(specification(library).replace("name: all", 'name: "1"'))
    assert "has no nvidia.com/gpu=all" in cdi.look([str(tmp_path)], "550.163.01").problem


def test_the_later_directory_wins(tmp_path: pathlib.Path, library: pathlib.Path) -> None:
    for name in ("etc", "run"):
        (tmp_path / name).mkdir()
    directories = [str(tmp_path / "etc"), str(tmp_path / "run")]
    assert cdi.look(directories, "550.163.01") == cdi.Specification()
    (tmp_path / "etc" / "nvidia.yaml").write_text(specification(library))
    (tmp_path / "run" / "other.yaml").write_text(specification(library).replace("nvidia.com/gpu", "example.com/nic"))
    assert cdi.look(directories, "550.163.01").path == str(tmp_path / "etc" / "nvidia.yaml")
    (tmp_path / "run" / "nvidia.yaml").write_text(specification(library))
    assert cdi.look(directories, "550.163.01").path == str(tmp_path / "run" / "nvidia.yaml")
