# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Do what RECOVERY.md says, word for word, as a person with a shell would."""

from __future__ import annotations

import os
import re
import subprocess
import typing as t
from pathlib import Path

from .checkout import find_tool


def shell_blocks(page: str) -> list[str]:
    """The commands on the page, in order."""
    return re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def follow(
    page: str, layer: str, snapshot: str, place: Path, env: t.Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run all commands of the page in ``place`` in one shell; the tree is then `restored`."""
    place.mkdir(parents=True, exist_ok=True)
    commands = "".join(shell_blocks(page)).replace("LAYER", layer).replace("SNAPSHOT", snapshot)
    path = os.pathsep.join([os.path.dirname(find_tool("rclone")), os.environ["PATH"]])
    return subprocess.run(
        ["sh", "-e", "-c", commands],
        cwd=place, check=False, capture_output=True, text=True, errors="replace", timeout=120,
        env={"PATH": path, "HOME": str(place), **(env or {})},
    )  # fmt: skip


def restored(place: Path, snapshot: str) -> Path:
    """Where the page puts the tree."""
    return place / snapshot / "restored"
