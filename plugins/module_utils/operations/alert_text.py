# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What people read: changes as one message, or as several where one has no room for all.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import datetime
import typing as t

from ..services.notify import Message
from .patrol_findings import UTC, parse_time, told_age

RAISED, STILL, CLEARED = "raised", "still", "cleared"
_HEADS = {RAISED: "New", STILL: "Still", CLEARED: "Well again"}
_MOST = 10  # messages at a time: WeCom and DingTalk take 20 a minute from a bot, and a unit may have to tell something


class Change(t.NamedTuple):
    """One finding and what is new about it. ``key`` is by what it is remembered."""

    kind: str
    severity: str
    since: str
    finding: dict[str, str]
    key: str


class Page(t.NamedTuple):
    """One message, and the changes that it tells."""

    message: Message
    changes: t.Sequence[Change]


def is_whole(verdict: dict[str, t.Any]) -> bool:
    """Whether it speaks of all that there is to be looked at."""
    return verdict.get("checked") is None


def pages(
    source: str, verdict: dict[str, t.Any], found: t.Sequence[Change], fits: t.Callable[[Message], bool]
) -> list[Page]:
    """All in one message where that has room; else in several, what is new first.

    What has no room in those either is only named, in the last one, and is told the next time.
    """
    order = list(_HEADS)
    rest = sorted(found, key=lambda change: (order.index(change.kind), change.severity))
    parts: list[list[Change]] = []
    while rest and len(parts) < _MOST:
        count = _how_many(rest, lambda some: fits(compose(source, verdict, found, some, f" ({_MOST} of {_MOST})")))
        parts.append(rest[:count])
        rest = rest[count:]
    if rest:
        rest = [*parts.pop(), *rest]
    total = len(parts) + bool(rest)
    made = []
    for number, part in enumerate(parts, start=1):
        mark = f" ({number} of {total})" if total > 1 else ""
        made.append(Page(compose(source, verdict, found, part, mark), part))
    if rest:
        names = dict.fromkeys(change.finding["instance"] or change.finding["check"] for change in rest)
        line = f"{len(rest)} more, which are told in full the next time: {', '.join(names)}"
        message = compose(source, verdict, found, [], f" ({total} of {total})")
        made.append(Page(message._replace(lines=[line]), []))
    return made or [Page(compose(source, verdict, []), [])]


def _how_many(items: t.Sequence[Change], fit: t.Callable[[t.Sequence[Change]], bool]) -> int:
    """The most of the first that fit; one at least, which is cut where it does not."""
    low, high = 1, len(items)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fit(items[:middle]) else (low, middle - 1)
    return low


def compose(
    source: str, verdict: dict[str, t.Any], found: t.Sequence[Change], told: t.Sequence[Change] | None = None,
    mark: str = "",
) -> Message:  # fmt: skip
    """The message: what is new first, then what is well again, and how much is open.

    ``told``: only these of what was found. ``mark``: which message of several it is.
    """
    lines: list[str] = []
    counts = []
    for kind, head in _HEADS.items():
        count = sum(change.kind == kind for change in found)
        counts += [f"{count} {head.lower()}"] if count else []
        chosen = [change for change in (found if told is None else told) if change.kind == kind]
        if chosen:
            lines += [f"{head}:", *(_told(change) for change in sorted(chosen, key=lambda item: item.severity))]
    if is_whole(verdict):
        failures, warnings = (len(verdict.get(name) or []) for name in ("failures", "warnings"))
        left = len(verdict.get("not_checked") or [])
        lines.append(f"Open: failures {failures}, warnings {warnings}. Not checked: {left}.")
    if not found:
        lines.append("This message tries the way that alerts take. There is nothing to do.")
    where = " ".join(filter(None, (str(verdict.get("host") or ""), str(verdict.get("time") or ""))))
    if where:
        lines.append(f"From {where}")
    urgent = any(change.kind != CLEARED and change.severity == "failure" for change in found)
    title = f"Guard {source}: {', '.join(counts) or 'a test of the alerts'}"
    return Message(title[: 200 - len(mark)] + mark, lines, urgent)


def _told(change: Change) -> str:
    finding = change.finding
    what = " ".join(filter(None, (finding["instance"], finding["check"], finding["thing"])))
    since = parse_time(change.since)
    if change.kind == CLEARED:
        lasted = f", after {told_age((datetime.datetime.now(UTC) - since).total_seconds() / 3600)}" if since else ""
        return f"- {what}{lasted}"
    mark = "" if change.severity == "failure" else "(warning) "
    still = f" (since {change.since})" if change.kind == STILL else ""
    hint = f" {finding['hint']}" if finding["hint"] else ""
    text = f"- {mark}{what}{still}: expected {finding['expected']}, found {finding['found']}.{hint}"
    return " ".join(text.split())
