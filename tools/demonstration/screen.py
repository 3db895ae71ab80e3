# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the demo prints: numbered steps, one live line on a terminal, a table."""

from __future__ import annotations

import contextlib
import sys
import time
import typing as t

INDENT = " " * 6
_LINE_EVERY = 5.0  # seconds, where no terminal shows the live line
_WIDTH = 100


class Screen:
    """Prints as the work goes on. ``steps`` is how many there will be."""

    def __init__(self, steps: int):
        self.steps = steps
        self.number = 0
        self._terminal = sys.stdout.isatty()
        self._last_line = time.monotonic()
        self._last_text = ""

    @contextlib.contextmanager
    def step(self, title: str) -> t.Iterator[None]:
        """A numbered step: its title now, its duration when it went well."""
        self.number += 1
        started = self._last_line = time.monotonic()
        print(f"[{self.number}/{self.steps}] {title}", flush=True)
        yield
        self.say(f"{time.monotonic() - started:.1f} s")

    def say(self, text: str) -> None:
        """A line that stays."""
        self.clear()
        print(INDENT + text, flush=True)

    def live(self, text: str) -> None:
        """How far it is: rewritten in place on a terminal, elsewhere a line now and then."""
        if self._terminal:
            print(f"\r\x1b[K{INDENT}{text[:_WIDTH]}", end="", flush=True)
        elif time.monotonic() - self._last_line > _LINE_EVERY and text != self._last_text:
            self._last_line, self._last_text = time.monotonic(), text
            print(INDENT + text, flush=True)

    def clear(self) -> None:
        """Remove the live line."""
        if self._terminal:
            print("\r\x1b[K", end="", flush=True)


def table(header: t.Sequence[str], rows: t.Sequence[t.Sequence[str]]) -> str:
    """Columns as wide as they must be; text to the left, numbers to the right."""
    columns = list(zip(header, *rows))
    widths = [max(map(len, column)) for column in columns]
    right = [all(_is_number(cell) for cell in column[1:]) for column in columns]
    lines = []
    for row in (header, ["-" * width for width in widths], *rows):
        cells = [
            cell.rjust(width) if numeric else cell.ljust(width) for cell, width, numeric in zip(row, widths, right)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _is_number(cell: str) -> bool:
    return cell.replace(",", "").replace(".", "").removesuffix(" s").isdigit()


def amount(count: float) -> str:
    """Bytes in decimal units, as disks and networks are sold."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
