# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Settings in a shell script: lines such as ``export LOG_DIR="/root/logs/audit"``. Bytes, whatever their encoding.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import re
import shlex
import typing as t


class Change(t.NamedTuple):
    """One line of the script. ``before`` is None for a line that was added; line ends are not part of either."""

    before: bytes | None
    after: bytes


def assignment(name: str, value: str) -> bytes:
    """The shell's words for it, quoted as people do."""
    quoted = f'"{value}"' if re.fullmatch(r"[\w@%+=:,./ -]*", value) else shlex.quote(value)
    return f"{name}={quoted}".encode()


def set_settings(script: bytes, settings: t.Mapping[str, str]) -> tuple[bytes, list[Change]]:
    """The script with these settings, and what was changed.

    Every line that sets one of them is changed; what stands before the name and a comment behind the value stay.
    A setting that the script does not have comes behind the last one that was found, or behind the first comments.
    """
    lines = script.splitlines(keepends=True)
    changes: list[Change] = []
    behind = _head(lines)
    missing: list[str] = []
    for name, value in settings.items():
        wanted = assignment(name, value)
        found = [(number, _pattern(name).match(line.rstrip(b"\r\n"))) for number, line in enumerate(lines)]
        positions = [(number, match) for number, match in found if match]
        if not positions:
            missing.append(name)
        for number, match in positions:
            old = match.string
            new = match["lead"] + wanted + _comment(match["value"])
            if new != old:
                lines[number] = new + lines[number][len(old) :]
                changes.append(Change(old, new))
            behind = max(behind, number + 1)
    end = b"\r\n" if lines and lines[0].endswith(b"\r\n") else b"\n"
    if missing and behind and not lines[behind - 1].endswith(b"\n"):
        lines[behind - 1] += end
    for name in missing:
        lines.insert(behind, assignment(name, settings[name]) + end)
        changes.append(Change(None, lines[behind].rstrip(b"\r\n")))
        behind += 1
    return b"".join(lines), changes


def undo_changes(script: bytes, changes: t.Iterable[Change]) -> tuple[bytes, list[bytes]]:
    """The script with these lines as they were, and those that it has in neither form."""
    lines = script.splitlines(keepends=True)
    gone: list[bytes] = []
    for change in changes:
        plain = [line.rstrip(b"\r\n") for line in lines]
        if change.after in plain:
            number = plain.index(change.after)
            if change.before is None:
                del lines[number]
            else:
                lines[number] = change.before + lines[number][len(change.after) :]
        elif change.before is not None and change.before not in plain:
            gone.append(change.after)
    return b"".join(lines), gone


def _pattern(name: str) -> re.Pattern[bytes]:
    lead = rb"(?P<lead>\s*(?:(?:export|readonly|declare(?:\s+-\w+)*)\s+)?)"
    return re.compile(lead + re.escape(name.encode()) + rb"=(?P<value>.*)$")


def _comment(value: bytes) -> bytes:
    """A comment behind a value, with the space before it."""
    match = re.match(rb"""(?:"[^"]*"|'[^']*'|[^\s"'#;&|]+)*(?P<comment>\s+#.*)?$""", value)
    return (match["comment"] or b"") if match else b""


def _head(lines: t.Sequence[bytes]) -> int:
    """How many lines the interpreter's line and the comments below it take."""
    count = 0
    while count < len(lines) and lines[count].startswith(b"#"):
        count += 1
    return count
