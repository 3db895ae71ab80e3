# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What systemd says of units, timers and the clock.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import datetime
import re
import shutil
import typing as t

from ..errors import GuardError
from ..system.process import clean_environment, run

_TIMEOUT = 60.0
_PROPERTIES = (
    "Id", "LoadState", "ActiveState", "ActiveEnterTimestamp", "LastTriggerUSec",
    "NextElapseUSecRealtime", "NextElapseUSecMonotonic",
)  # fmt: skip
# systemctl show writes times for people; with TZ and LC_ALL set they always look like this.
_TIME = re.compile(r"[A-Z][a-z]{2} (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(?:\.\d+)? UTC")


class NoSystemd(GuardError):
    """Nothing here that could be asked."""


class Timer(t.NamedTuple):
    """One timer. Times are None where there is none."""

    name: str
    loaded: bool
    active: bool
    since: datetime.datetime | None  # active since
    last: datetime.datetime | None  # ran last
    waits: bool  # whether it will run again


def failed_arguments(patterns: t.Sequence[str]) -> list[str]:
    """Lists failed units, one a line, without what is for people."""
    return ["systemctl", "list-units", "--all", "--state=failed", "--plain", "--no-legend", "--no-pager", "--full",
            "--", *patterns]  # fmt: skip


def show_arguments(names: t.Sequence[str]) -> list[str]:
    """Shows what is asked of units, an empty line between two."""
    return ["systemctl", "show", f"--property={','.join(_PROPERTIES)}", "--no-pager", "--", *names]


def failed_units(patterns: t.Sequence[str]) -> list[str]:
    """Names of the units that match and failed."""
    return [line.split()[0] for line in _ask(failed_arguments(patterns)).splitlines() if line.split()]


def timers(names: t.Sequence[str]) -> list[Timer]:
    """These timers, whether they exist or not."""
    return parse_timers(_ask(show_arguments(names))) if names else []


def parse_timers(text: str) -> list[Timer]:
    """Timers from the output of ``systemctl show``."""
    found = []
    for block in re.split(r"\n\s*\n", text.strip()):
        told = dict(line.partition("=")[::2] for line in block.splitlines() if "=" in line)
        waits = [told.get(f"NextElapseUSec{kind}", "") for kind in ("Realtime", "Monotonic")]
        found.append(
            Timer(
                name=told.get("Id", ""),
                loaded=told.get("LoadState") == "loaded",
                active=told.get("ActiveState") == "active",
                since=_time(told.get("ActiveEnterTimestamp", "")),
                last=_time(told.get("LastTriggerUSec", "")),
                waits=any(value not in ("", "0", "n/a", "infinity") for value in waits),
            )
        )
    return found


def clock_is_synchronized() -> bool:
    """Whether the kernel's clock is kept right by somebody."""
    answer = _ask(["timedatectl", "show", "--property=NTPSynchronized"])
    return answer.strip() == "NTPSynchronized=yes"


def _time(text: str) -> datetime.datetime | None:
    match = _TIME.fullmatch(text)
    return datetime.datetime.fromisoformat(f"{match.group(1)}+00:00") if match else None


def _ask(arguments: list[str]) -> str:
    if shutil.which(arguments[0]) is None:
        raise NoSystemd(arguments[0], "systemd", "no such program")
    result = run(arguments, env=clean_environment({"TZ": "UTC"}), timeout=_TIMEOUT)
    if result.rc != 0:
        raise NoSystemd(arguments[0], "an answer", (result.stderr or f"exit code {result.rc}").splitlines()[0])
    return result.stdout.decode("utf-8", "replace")
