# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What role storage takes for a blank device: nothing that is missing, no device, or cannot be read."""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
import typing as t

import pytest

from support.role_tasks import run_tasks, stand_in


def refused(place: pathlib.Path, device: pathlib.Path, why: str) -> None:
    """In check mode too, and nothing is formatted. The stand-in ends the run before it would mount anything."""
    formatted = place / "formatted"
    stand_in(place / "programs", "mkfs", f"touch {formatted}; exit 1")
    for flags in ([], ["--check"]):
        ran = run_tasks(
            place,
            "storage",
            ["device"],
            *flags,
            programs=place / "programs",
            path="/usr/sbin:/usr/bin:/sbin:/bin",
            storage_device=str(device),
            storage_data_root=str(place / "data"),
        )
        assert ran.returncode != 0, ran.stdout
        assert why in " ".join(ran.stdout.split()), ran.stdout
        assert "mkfs --type" not in ran.stdout
        assert not formatted.exists()


def test_a_misspelt_device_is_not_blank(tmp_path: pathlib.Path) -> None:
    refused(tmp_path, tmp_path / "misspelt", "misspelt: expected a block device, found nothing of that name")


def test_a_file_is_no_device(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_bytes(bytes(1 << 20))
    refused(tmp_path, tmp_path / "file", "file: expected a block device, found something else")


@pytest.fixture
def broken(tmp_path: pathlib.Path) -> t.Iterator[pathlib.Path]:
    """A loop device whose file ends before it does."""
    image = tmp_path / "broken.img"
    image.write_bytes(bytes(1 << 20))
    made = subprocess.run(["losetup", "--find", "--show", str(image)], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no loop device to be had: {made.stderr}")
    os.truncate(image, 0)
    with contextlib.ExitStack() as stack:
        stack.callback(subprocess.run, ["losetup", "--detach", made.stdout.strip()], check=True)
        link = tmp_path / "by-id"
        link.symlink_to(made.stdout.strip())
        yield link


@pytest.mark.root
def test_a_device_that_cannot_be_read_is_not_blank(tmp_path: pathlib.Path, broken: pathlib.Path) -> None:
    refused(tmp_path, broken, "by-id: expected a device that can be read, found dd: error reading")
