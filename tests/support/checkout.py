# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Make the checkout importable, and usable by Ansible, as the collection that it is."""

from __future__ import annotations

import contextlib
import importlib
import pathlib
import shutil

ROOT = pathlib.Path(__file__).resolve().parents[2]
COLLECTIONS = ROOT / ".cache" / "collections"


def link_collection() -> pathlib.Path:
    """A folder for ``sys.path`` and ``ANSIBLE_COLLECTIONS_PATH`` in which the checkout is guardops.qwen3guard."""
    link = COLLECTIONS / "ansible_collections" / "guardops" / "qwen3guard"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        with contextlib.suppress(FileExistsError):  # another worker was faster
            link.symlink_to("../../../..", target_is_directory=True)
        importlib.invalidate_caches()  # Python remembers that the folder on sys.path was not there
    return COLLECTIONS


def find_tool(name: str) -> str:
    """A program of the virtual environment, else the one on PATH."""
    local = ROOT / ".venv" / "bin" / name
    found = str(local) if local.exists() else shutil.which(name)
    if not found:
        raise FileNotFoundError(f"{name}: neither in {local.parent} nor on PATH. Run tools/venv test first.")
    return found
