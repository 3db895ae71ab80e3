# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Parts of the report's page: calendars, bars of drills, sizes by month, and texts that are safe to show.

Private to the collection: use the modules, not this file.

Whatever comes from a store is escaped, cut, and freed of characters that change the direction of what stands beside
them. Everything that a colour says, a sign or a number says too.
"""

from __future__ import annotations

import datetime
import html
import re
import typing as t

from .patrol_findings import hours_between, parse_time, told_age
from .report import Day, Details, Gap

_ODD = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]+")
_CUT = 600  # characters of one text
_PHASES = 40  # of one drill
_COLOURS = 6  # of phases
_MONTHS = 24
_MOST = 1e12  # of a number that anybody may have written
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def e(value: t.Any, most: int = _CUT) -> str:
    """A text, fit to stand in the page, and in an attribute."""
    text = _ODD.sub(" ", str(value).encode("utf-8", "replace").decode())
    return html.escape(text if len(text) <= most else f"{text[: most - 2]} …")


def told_bytes(count: int) -> str:
    """``1.2 GiB``."""
    number, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while number >= 1024 and len(units) > 1:
        number, units = number / 1024, units[1:]
    return f"{number:.0f} {units[0]}" if units[0] == "B" or number >= 100 else f"{number:.1f} {units[0]}"


def told_seconds(seconds: float) -> str:
    """``2 min 54 s``."""
    seconds = min(seconds, _MOST)
    if seconds < 59.5:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = (f"{hours} h", f"{minutes} min") if hours else (f"{minutes} min", f"{rest} s")
    return parts[0] if parts[1].startswith("0 ") else " ".join(parts)


def told_time(when: t.Any) -> str:
    """A time to the minute, as people read it; empty where it is none."""
    parsed = when if isinstance(when, datetime.datetime) else parse_time(when)
    return f"{parsed:%Y-%m-%d %H:%M}" if parsed else ""


def sign(kind: str) -> str:
    """A sign with its name for those who do not see it."""
    glyph, name = {"good": ("✓", "well"), "warn": ("!", "warning"), "bad": ("✗", "failure")}[kind]
    return f'<b class="{kind}" role="img" aria-label="{name}">{glyph}</b>'


# -- calendar --------------------------------------------------------------------------------------------------------

LEGEND = """<p class="legend">A row is a week, times are UTC. <span class="key s">3</span> snapshots made that day
<span class="key"><b class="good">✓</b></span> a verification passed
<span class="key"><b class="bad">✗</b></span> a verification failed, or a snapshot of that day is damaged</p>
"""


def calendar(layer: str, made: t.Mapping[datetime.date, Day], days: t.Sequence[datetime.date]) -> str:
    """One layer's weeks. The caption says in words what the table shows."""
    some = [day for day in made.values() if day.snapshots]
    passed, failed = sum(day.passed for day in made.values()), sum(day.failed for day in made.values())
    text = (
        f"{sum(day.snapshots for day in some)} snapshots on {len(some)} of {len(days)} days; verifications: {passed} "
        f"passed, {failed} failed"
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in _WEEKDAYS)
    shown, rows = set(days), []
    monday = days[0] - datetime.timedelta(days=days[0].weekday())
    while monday <= days[-1]:
        week = [monday + datetime.timedelta(days=n) for n in range(7)]
        cells = "".join(_cell(date, made.get(date)) if date in shown else '<td class="o"></td>' for date in week)
        rows.append(f'<tr><th scope="row"><time datetime="{monday}">{monday:%b %d}</time></th>{cells}</tr>\n')
        monday += datetime.timedelta(days=7)
    return (
        f'<table class="cal"><caption><strong>{e(layer)}</strong> {text}</caption>\n<thead><tr><th scope="col">Week of'
        f"</th>{head}</tr></thead>\n<tbody>\n{''.join(rows)}</tbody></table>\n"
    )


def _cell(date: datetime.date, day: Day | None) -> str:
    if day is None:
        return "<td></td>"
    told = [f"{day.snapshots} snapshots"] if day.snapshots else []
    told += [f"{count} {what}" for count, what in (
        (day.damaged, "damaged"), (day.passed, "verifications passed"), (day.failed, "verifications failed"),
    ) if count]  # fmt: skip
    mark = '<b class="bad">✗</b>' if day.failed or day.damaged else '<b class="good">✓</b>' if day.passed else ""
    name = ' class="s"' if day.snapshots else ""
    return f'<td{name} title="{date}: {", ".join(told)}">{day.snapshots or ""}{mark}</td>'


# -- recovery points -------------------------------------------------------------------------------------------------


def recovery_points(facts: t.Mapping[str, t.Any], layers: t.Sequence[str], now: datetime.datetime) -> str:
    """How old the newest snapshot of each layer is, and how old what proves it."""
    rows = []
    for layer in layers:
        told = facts.get("layers", {}).get(layer, {})
        newest = f"{age(told.get('created'), now)}<br><small>{e(told['snapshot'])}</small>" if told else "none"
        rows.append(
            f'<tr><th scope="row">{e(layer)}</th><td>{newest}</td><td>{verified(told.get("quick"), now)}</td>'
            f"<td>{verified(told.get('proven'), now)}</td></tr>\n"
        )
    head = "".join(f'<th scope="col">{name}</th>' for name in ("Layer", "Newest snapshot", "Last read", "Restored"))
    return f'<table class="points"><thead><tr>{head}</tr></thead>\n<tbody>\n{"".join(rows)}</tbody></table>\n'


def gap_text(gap: Gap | None, days: int, now: datetime.datetime) -> str:
    """The longest time in which a disaster would have lost all that was logged."""
    if gap is None:
        return "<p>Longest gap between snapshots of the logs: there is no sound snapshot.</p>\n"
    end = "now" if gap.end == now else told_time(gap.end)
    return (
        f"<p>Longest gap between snapshots of the logs in {days} days: <strong>{told_age(gap.hours)}</strong>, "
        f"from {told_time(gap.start)} to {end}.</p>\n"
    )


def age(when: t.Any, now: datetime.datetime) -> str:
    """How long ago, with the time itself to point at."""
    parsed = parse_time(when)
    if parsed is None:
        return "never"
    hours = hours_between(parsed, now)
    text = f"{told_age(hours)} ago" if hours >= 0 else f"{told_age(-hours)} from now"
    return f'<time datetime="{parsed:%Y-%m-%dT%H:%M:%SZ}" title="{told_time(parsed)} UTC">{text}</time>'


def verified(told: dict[str, t.Any] | None, now: datetime.datetime) -> str:
    """The newest verification of a kind."""
    if not told:
        return "never"
    return f"{sign('good' if told.get('ok') is True else 'bad')} {age(told.get('verified'), now)}"


# -- drills ----------------------------------------------------------------------------------------------------------


def drills(records: t.Sequence[dict[str, t.Any]]) -> str:
    """A bar for each, the oldest first, all on one scale, with a line where the budget ends."""
    if not records:
        return "<p>None yet.</p>\n"
    sound = [record for record in records if not record["damaged"]]
    scale = max((max(_allowed(record), _answered(record)) for record in sound), default=0.0) * 1.02 or 1.0
    items = "".join(_drill(record, scale) for record in reversed(records))
    return (
        f'<ol class="drills">\n{items}</ol>\n<p class="legend">Each phase has its number and its length. The upright '
        "line is the budget. What is pale came after the first audit was answered, and does not count.</p>\n"
    )


def _answered(record: dict[str, t.Any]) -> float:
    """How much of it counts; all of it where the service never answered."""
    seconds = record["recovery_time_seconds"]
    return min(float(record["total_seconds"] if seconds is None else seconds), _MOST)


def _allowed(record: dict[str, t.Any]) -> float:
    return min(float(record["budget_seconds"]), _MOST)


def _drill(record: dict[str, t.Any], scale: float) -> str:
    if record["damaged"]:
        return f"<li>{sign('bad')} A record that cannot be read: {e(record['damaged'])}</li>\n"
    budget, answered = _allowed(record), _answered(record)
    never = record["recovery_time_seconds"] is None
    result = "never answered" if never else f"answered after {told_seconds(answered)}"
    phases = record["phases"][:_PHASES]
    bars, texts, start = [], [], 0.0
    for number, phase in enumerate(phases, 1):
        seconds = min(phase["seconds"], _MOST)
        after = not never and start >= answered
        x, width = 100 * start / scale, 100 * seconds / scale
        if x < 100 and width > 0.05:
            bars.append(
                _bar(number, x, min(width, 100 - x), after, f"{number} {phase['name']}: {told_seconds(seconds)}")
            )
        start += seconds
        failed = "" if phase["ok"] else f" {sign('bad')}"
        texts.append(
            f'<li class="{"after" if after else ""}"><i class="p p{(number - 1) % _COLOURS}">{number}</i> '
            f"{e(phase['name'], 60)} {told_seconds(seconds)}{failed}</li>"
        )
    if len(record["phases"]) > _PHASES:
        texts.append(f"<li>and {len(record['phases']) - _PHASES} more</li>")
    line = f"{100 * budget / scale:.2f}%"
    point = record["recovery_point"]
    lost = f"; {told_seconds(point['seconds'])} of records lost" if point else ""
    failures = "".join(f"<p>{e(text)}</p>\n" for text in record["failures"][:3])
    return (
        f"<li><p>{sign('good' if record['ok'] else 'bad')} <strong>{told_time(record['started'])}</strong> "
        f"{e(record['kind'])} on {e(record['host'], 80)}: {result}, {told_seconds(budget)} allowed{lost}</p>\n"
        f'<svg class="bar" role="img" aria-label="{e(result)}, {told_seconds(budget)} allowed">{"".join(bars)}'
        f'<line x1="{line}" x2="{line}" y1="0" y2="100%"><title>budget: {told_seconds(budget)}</title></line></svg>\n'
        f'<ul class="phases">{"".join(texts)}</ul>\n{failures}</li>\n'
    )


def _bar(number: int, x: float, width: float, after: bool, told: str) -> str:
    text = f'<text x="{x + width / 2:.2f}%" y="50%">{number}</text>' if width > 4 else ""
    name = f"p{(number - 1) % _COLOURS}{' after' if after else ''}"
    return (
        f'<g class="{name}"><title>{e(told, 120)}</title><rect x="{x:.2f}%" width="{width:.2f}%" y="3" height="20"/>'
        f"{text}</g>"
    )


# -- sizes -----------------------------------------------------------------------------------------------------------


def sizes(details: Details, layers: t.Sequence[str]) -> str:
    """What lies in the store now, by the month in which it was made."""
    named = sorted((month for month in details.months if month), reverse=True)
    rows = [(month, details.months[month]) for month in named[:_MONTHS]]
    if named[_MONTHS:]:
        rows.append(("before", _sum(details.months[month] for month in named[_MONTHS:])))
    if "" in details.months:
        rows.append(("unknown", details.months[""]))
    most = max((sum(month.values()) for _name, month in rows), default=0) or 1
    body = "".join(_month(name, month, layers, most) for name, month in rows)
    head = "".join(f'<th scope="col" class="n l{n}">{e(layer)}</th>' for n, layer in enumerate(layers))
    total = _sum(details.months.values())
    foot = "".join(f'<td class="n">{told_bytes(total.get(layer, 0))}</td>' for layer in layers)
    return (
        f'<table class="sizes"><thead><tr><th scope="col">Month</th>{head}<th scope="col" class="n">all</th>'
        f'<th scope="col" class="chart"><span class="hidden">Chart</span></th></tr></thead>\n<tbody>\n{body}</tbody>\n'
        f'<tfoot><tr><th scope="row">All</th>{foot}<td class="n">{told_bytes(sum(total.values()))}</td>'
        '<td class="chart"></td></tr></tfoot></table>\n'
    )


def _sum(months: t.Iterable[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for month in months:
        for layer, count in month.items():
            total[layer] = total.get(layer, 0) + count
    return total


def _month(name: str, month: dict[str, int], layers: t.Sequence[str], most: int) -> str:
    cells, bars, x = [], [], 0.0
    for number, layer in enumerate(layers):
        count = month.get(layer, 0)
        cells.append(f'<td class="n">{told_bytes(count) if count else "-"}</td>')
        width = 100 * count / most
        if width > 0.05:
            bars.append(
                f'<rect class="p{number}" x="{x:.2f}%" width="{width:.2f}%" y="2" height="14">'
                f"<title>{e(layer)}: {told_bytes(count)}</title></rect>"
            )
        x += width
    return (
        f'<tr><th scope="row">{e(name)}</th>{"".join(cells)}<td class="n">{told_bytes(sum(month.values()))}</td>'
        f'<td class="chart"><svg aria-hidden="true">{"".join(bars)}</svg></td></tr>\n'
    )
