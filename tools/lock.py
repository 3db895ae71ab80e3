# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Write requirements/*.txt from requirements/*.in: the newest versions that fit together, all pinned.

Run it with the oldest Python that the project supports on controllers, so that the choice fits newer ones too.
Versions already in the .txt files stay; ``--upgrade`` drops them first.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "requirements")
FOR_BUILDER = os.path.join(os.path.dirname(HERE), "meta", "requirements")  # why: meta/execution-environment.yml
# Each level with those that it contains, which come before it.
LEVELS: dict[str, tuple[str, ...]] = {
    "runtime": (),
    "gateway": (),
    "host": ("runtime",),
    "loading": (),
    "alerts": (),
    "demo": ("runtime", "gateway", "host", "loading"),
    "test": ("runtime", "gateway", "host", "loading", "alerts", "demo"),
    "engine-transformers": (),
    "engine-vllm": (),
    "importer": (),
}
SEPARATE = ("engine-transformers", "engine-vllm", "importer")  # in environments of their own: tools/own-venv
HEAD = "# Made by tools/lock.py from {name}.in on Python {version}; do not edit.\n"


def canonical(name: str) -> str:
    """PEP 503: one spelling for a project's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_pins(name: str) -> dict[str, str]:
    """The pins of a .txt file; none when there is no such file yet."""
    path = os.path.join(HERE, f"{name}.txt")
    if not os.path.exists(path):
        return {}
    with open(path, encoding="utf-8") as file:
        return dict(re.findall(r"^([\w.-]+)==(\S+)", file.read(), re.MULTILINE))


def resolve(levels: tuple[str, ...], fixed: dict[str, str]) -> dict[str, str]:
    """What pip would install for these levels, given versions that must stay."""
    with tempfile.TemporaryDirectory() as work:
        constraints, report = os.path.join(work, "constraints.txt"), os.path.join(work, "report.json")
        with open(constraints, "w", encoding="utf-8") as file:
            file.writelines(f"{name}=={version}\n" for name, version in fixed.items())
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        command += ["--report", report, "--constraint", constraints]
        for level in levels:
            command += ["--requirement", os.path.join(HERE, f"{level}.in")]
        subprocess.run(command, check=True)
        with open(report, encoding="utf-8") as file:
            found = [item["metadata"] for item in json.load(file)["install"]]
    # A local version (`2.13.0+cpu`) is one package index's build: what is pinned is the version.
    return {canonical(item["name"]): item["version"].partition("+")[0] for item in found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--upgrade", action="store_true", help="choose the newest versions of everything")
    upgrade = parser.parse_args().upgrade
    chosen: dict[str, dict[str, str]] = {}  # level -> what is in it, the levels that it contains included
    everything: dict[str, str] = {}  # one version for all levels that share an environment
    for level, contained in LEVELS.items():
        old = {} if upgrade else read_pins(level)
        alone = level in SEPARATE
        chosen[level] = resolve((*contained, level), old if alone else {**old, **everything})
        everything.update({} if alone else chosen[level])
        inherited = {name for other in contained for name in chosen[other]}
        own = {name: version for name, version in sorted(chosen[level].items()) if name not in inherited}
        with open(os.path.join(HERE, f"{level}.txt"), "w", encoding="utf-8") as file:
            file.write(HEAD.format(name=level, version=f"{sys.version_info[0]}.{sys.version_info[1]}"))
            direct = [other for other in contained if not any(other in LEVELS[third] for third in contained)]
            file.writelines(f"-r {other}.txt\n" for other in direct)
            file.writelines(f"{name}=={version}\n" for name, version in own.items())
        print(f"requirements/{level}.txt: {len(own)} packages")
    shutil.copy(os.path.join(HERE, "runtime.txt"), FOR_BUILDER)


if __name__ == "__main__":
    main()
