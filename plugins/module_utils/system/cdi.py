# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Specifications by which container engines find GPUs (CDI), and whether one still fits its host.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import os
import pathlib
import re
import typing as t

# The later one wins where both describe a device.
DIRECTORIES = ("/etc/cdi", "/var/run/cdi")
SUFFIXES = (".yaml", ".yml", ".json")

# Written by nvidia-ctk, as YAML or JSON, of which these are all that is looked at: hosts need no YAML parser.
_KIND = re.compile(r"""(?:^|[{,])\s*["']?kind["']?:\s*["']?nvidia\.com/gpu["']?""", re.MULTILINE)
_ALL = re.compile(r"""["']?name["']?:\s*["']?all["']?\s*(?:[,}]|$)""", re.MULTILINE)
_PATH = re.compile(r"""["']?(?:hostPath|path)["']?:\s*["']?(/[^"'\s,]+)""")
_DRIVER = re.compile(r"/libcuda\.so\.(\d+\.\d[\d.]*)")


class Specification(t.NamedTuple):
    """The one that counts. ``problem`` is empty where it fits the host."""

    path: str = ""
    driver: str = ""  # the driver it was made for
    problem: str = "no CDI specification of nvidia.com/gpu"


def look(directories: t.Sequence[str], driver: str) -> Specification:
    """The specification that engines use, judged against the driver of that version (empty: none works)."""
    texts = _specifications(directories)
    if not texts:
        return Specification()
    path, text = texts[-1]
    made_for = _DRIVER.search(text)
    found = Specification(path=path, driver=made_for.group(1) if made_for else "", problem="")
    if not _ALL.search(text):
        return found._replace(problem=f"{path}: has no nvidia.com/gpu=all")
    if driver and found.driver and found.driver != driver:
        return found._replace(problem=f"{path}: was made for driver {found.driver}, and {driver} runs")
    gone = missing_paths(text)
    if gone:
        return found._replace(problem=f"{path}: names what is not there, such as {gone[0]} ({len(gone)} in all)")
    return found


def missing_paths(text: str) -> list[str]:
    """What a specification wants to give to containers and the host has not: libraries, programs, devices."""
    return sorted({path for path in _PATH.findall(text) if not os.path.exists(path)})


def _specifications(directories: t.Sequence[str]) -> list[tuple[str, str]]:
    """Path and text of all that describe GPUs, in the order of their precedence."""
    found = []
    for directory in map(pathlib.Path, directories):
        for path in sorted(directory.glob("*")):
            if path.suffix in SUFFIXES and path.is_file():
                text = path.read_text(encoding="utf-8", errors="replace")
                if _KIND.search(text):
                    found.append((str(path), text))
    return found
