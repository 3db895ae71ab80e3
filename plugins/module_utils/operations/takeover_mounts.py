# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Does the container that an old installation's script starts see the directories that its data go to?

Without a mount it would make them anew in its own layer, which is gone with it: that is what a takeover is against.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import os
import typing as t

from ..errors import GuardError
from ..format import shell_containers


def check_mounts(path: str, script: bytes, targets: t.Sequence[str]) -> list[str]:
    """What the script alone does not tell. Fails where no container that it starts mounts all of the targets."""
    runs = shell_containers.containers(script)
    if not runs or not targets or any(_covers(run, targets) for run in runs):
        return []
    unclear = [run for run in runs if run.unclear]
    if unclear:
        what = "; ".join(f"line {run.line}: {run.unclear}" for run in unclear)
        return [f"whether the container mounts {', '.join(targets)} ({what})"]
    run = runs[-1]
    top = os.path.commonpath(list(targets))
    raise GuardError(
        f"{path}, line {run.line}",
        f"a container that mounts {', '.join(_missing(run, targets))}",
        f"mounts of {', '.join(run.mounts)}" if run.mounts else "no mount of a directory",
        f"Add --volume={top}:{top} to its command, or the container's own name for it behind the colon: what it writes"
        " elsewhere is gone with it. Where it gets the directory in another way, set check_mounts (of the role:"
        " storage_takeover_check_mounts) to false.",
    )


def _covers(run: shell_containers.Run, targets: t.Sequence[str]) -> bool:
    return not _missing(run, targets)


def _missing(run: shell_containers.Run, targets: t.Sequence[str]) -> list[str]:
    mounts = [os.path.realpath(mount) for mount in run.mounts]
    return [name for name in targets if not any(_is_below(os.path.realpath(name), mount) for mount in mounts)]


def _is_below(path: str, top: str) -> bool:
    return os.path.commonpath([path, top]) == top
