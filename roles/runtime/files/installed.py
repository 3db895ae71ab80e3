# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Say which distributions are not here in the versions that stdin names, and try to import the main ones.

stdin: a JSON object, version by name. stdout: a line for each that is wrong; without any, the versions of the main
ones. Exit code 1 when something is wrong.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import sys

# By distribution: what is imported to see that it is not only there but works.
_MAIN = {
    "ansible-core": "ansible",
    "boto3": "boto3",
    "numpy": "numpy",
    "python-gnupg": "gnupg",
    "safetensors": "safetensors",
    "tokenizers": "tokenizers",
    "zstandard": "zstandard",
}


def found_version(name: str) -> str:
    """The version that is installed; empty where there is none."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def why_not_importable(module: str) -> str:
    """Empty where it can be imported."""
    try:
        importlib.import_module(module)
    except (ImportError, OSError) as error:  # OSError: a library that it loads is cut or missing
        return f"{type(error).__name__}: {error}"
    return ""


def main() -> int:
    pins: dict[str, str] = json.load(sys.stdin)
    found = {name: found_version(name) for name in pins}
    wrong = [
        f"{name}: expected version {version}, found {found[name] or 'none'}"
        for name, version in pins.items()
        if found[name] != version
    ]
    main_ones = {name: module for name, module in _MAIN.items() if found.get(name)}
    problems = {name: why_not_importable(module) for name, module in main_ones.items()}
    wrong += [f"{name}: cannot be imported ({problem})" for name, problem in problems.items() if problem]
    print("\n".join(wrong or [f"{name} {found[name]}" for name in main_ones]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
