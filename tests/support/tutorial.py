# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The commands of a document, and what it says that they print.

A block ``sh`` is commands (``shell``: such that no test runs); a block ``text`` right after it is what they print. In
that, ``…`` stands for anything, a line of nothing else for any lines, and what differs from run to run (times, hashes,
sizes) is not compared.

By hand, for new output to copy: ``python tests/support/tutorial.py docs/tutorial.md PLAYGROUND``.
"""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys
import tempfile
import typing as t

_BLOCK = re.compile(r"^```(sh|shell|text)\n(.*?)^```\n(?P<between>\s*)", re.MULTILINE | re.DOTALL)
# In the order of trial: a time is no number.
_VOLATILE = (
    r"\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d)?(?:\.\d+)?Z",
    r"\d{8}_\d{4}",  # in backup_status
    r"[0-9a-f]{8,}|[0-9A-F]{16,}",
    r"\d+\.\d+",
    r"(?<![\d.])[1-9]\d{4,}",  # not a snapshot's number
)
_TOKEN = re.compile("|".join(f"({pattern})" for pattern in _VOLATILE))


class Step(t.NamedTuple):
    """Commands, and the lines that they print; ``line`` is where in the document they are."""

    line: int
    commands: str
    printed: list[str]


def read_steps(document: pathlib.Path) -> list[Step]:
    """All commands of a document, in order."""
    text = document.read_text(encoding="utf-8")
    steps: list[Step] = []
    end = -1  # of a block of commands that nothing but space separates from here
    for block in _BLOCK.finditer(text):
        kind, content = block.group(1, 2)
        if kind != "text":
            steps.append(Step(text.count("\n", 0, block.start()) + 2, content, []))
            end = block.end()
        elif block.start() == end:
            steps[-1].printed.extend(line for line in content.splitlines() if line.strip())
    return steps


def run_steps(steps: t.Sequence[Step], place: pathlib.Path, environment: t.Mapping[str, str]) -> list[str]:
    """Run them all in one shell, so that variables stay; what each printed. It ends at the first that fails."""
    with tempfile.TemporaryDirectory() as outputs:
        script = "".join(
            f"{{\n{step.commands}}} >{outputs}/{number} 2>&1 </dev/null || exit 1\n"
            for number, step in enumerate(steps)
        )
        subprocess.run(["bash", "-c", script], cwd=place, env=environment, check=False, timeout=1800)
        written = sorted(pathlib.Path(outputs).iterdir(), key=lambda path: int(path.name))
        return [path.read_text(encoding="utf-8") for path in written]


def first_missing(step: Step, output: str, names: t.Mapping[str, str]) -> str:
    """The first line of what the document says that is not in the output, in its order; none if all are.

    ``names``: what a text of the document is here.
    """
    lines = iter(output.splitlines())
    for told in step.printed:
        if told.strip() != "…" and not any(_pattern(told, names).fullmatch(line.rstrip()) for line in lines):
            return told
    return ""


def _pattern(told: str, names: t.Mapping[str, str]) -> re.Pattern[str]:
    for name, here in names.items():
        told = told.replace(name, here)
    pattern, position = "", 0
    for token in _TOKEN.finditer(told.rstrip()):
        pattern += re.escape(told[position : token.start()]) + f"(?:{_VOLATILE[token.lastindex - 1]})"
        position = token.end()
    pattern += re.escape(told[position:].rstrip())
    return re.compile(pattern.replace("…", ".*"))


def main() -> None:
    document, place = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    steps = read_steps(document)
    start = next(number for number, step in enumerate(steps) if ". ./env" in step.commands)
    outputs = run_steps(steps[start:], place.parent, {"PATH": "/usr/bin:/bin", "HOME": str(place)})
    for step, output in zip(steps[start:], outputs):
        print(f"\n######## {document}:{step.line}\n{step.commands}-------- printed\n{output}")


if __name__ == "__main__":
    main()
