# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compare rclone's configuration with the remotes that stdin names, and find settings that rclone does not know.

usage: check_remotes.py RCLONE CONFIGURATION <REMOTES

stdin: a JSON object, settings by remote. stdout: a line for each that is wrong, with names and never with values.
A setting that its backend does not have is ignored by rclone without a word: a misspelt one, or a time-out.
"""

from __future__ import annotations

import json
import subprocess
import sys
import typing as t

_ANYWHERE = ("type", "description")
_PREFIXES = ("global.", "override.")  # rclone 1.71 and newer: any of its flags


def ask(program: str, configuration: str, *arguments: str) -> t.Any:
    """What rclone answers in JSON."""
    command = [program, f"--config={configuration}", "--ask-password=false", *arguments]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=60).stdout)


def in_file(value: object) -> str:
    """A value as the configuration has it."""
    return str(value).lower() if isinstance(value, bool) else str(value).strip()


def unknown_settings(settings: dict[str, object], known: dict[str, set[str]]) -> list[str]:
    """Names that the remote's backend does not have."""
    names = known.get(str(settings["type"]))
    if names is None:
        return [f"type {settings['type']}"]
    return [name for name in settings if name not in names and name not in _ANYWHERE and not name.startswith(_PREFIXES)]


def main() -> int:
    program, configuration = sys.argv[1:]
    wanted: dict[str, dict[str, object]] = json.load(sys.stdin)
    known: dict[str, set[str]] = {}
    for backend in ask(program, configuration, "config", "providers"):
        names = {option["Name"] for option in backend["Options"]}
        for name in (backend["Name"], *(backend.get("Aliases") or ())):
            known[name] = names
    found = ask(program, configuration, "config", "dump")
    wrong = []
    for remote, settings in wanted.items():
        wrong += [
            f"Remote {remote}: rclone knows no {name}; it would be ignored."
            for name in unknown_settings(settings, known)
        ]
        read = found.get(remote, {})
        differing = [name for name in settings if read.get(name) != in_file(settings[name])]
        wrong += [f"Remote {remote}: rclone reads another {name} than was given." for name in differing]
    wrong += [f"Remote {remote}: not in runtime_rclone_remotes." for remote in found if remote not in wanted]
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
