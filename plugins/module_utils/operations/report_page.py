# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report as one page of HTML: no scripts, nothing from elsewhere, and never without bounds.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import itertools
import typing as t

from .patrol_findings import Finding, hours_between, parse_time, told_age
from .report import Guard, Report
from .report_parts import (
    LEGEND,
    calendar,
    drills,
    e,
    gap_text,
    recovery_points,
    sign,
    sizes,
    told_bytes,
    told_time,
)
from .report_style import STYLE

LARGEST = 8 << 20  # characters of all closer looks together
_ROWS = 5000  # instances in the table
_OPEN = 200  # findings of each kind
_OPEN_OF_ONE = 10
_HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>{style}</style>
</head>
<body>
<header>
<h1>{title}</h1>
<p class="quiet">Made {made} UTC on {host}, from {repositories}. Ages are those of that moment.</p>
<p class="verdict {kind}">{verdict}</p>
</header>
<main>
"""
_TAIL = """</main>
<footer>
<h2>What this page does not say</h2>
<ul>
<li>Whether the bytes are there and whole. Manifests, verdicts and records of drills are believed; verifications and
drills are what proves them, and who can write to the store can forge these, too.</li>
<li>How the hosts are: services, disks, clocks, and records that wait for their backup. Patrols look at them.</li>
{cut}</ul>
</footer>
</body>
</html>
"""


def page(report: Report) -> str:
    """The whole page."""
    guards = report.guards
    single = guards[0].name if len(guards) == 1 else ""
    sections, left_out = _sections(report)
    table, cut = "", []
    if not single:
        table = _fleet(report, set(sections))
        if len(guards) > _ROWS:
            cut.append(f"{len(guards) - _ROWS} instances without failures are not in the table.")
    if left_out:
        cut.append(
            f"Calendars, drills and sizes are shown of {len(sections)} instances; {left_out} were left out. Make a "
            "page of those that you want to see."
        )
    opened = _open(report, set(sections), "failures") + _open(report, set(sections), "warnings")
    title = f"Backups of {single}" if single else f"Backups of {len(guards)} instances"
    parts = [
        _HEAD.format(
            title=e(title), style=STYLE, made=told_time(report.made), host=e(report.host),
            repositories=e(", ".join(report.repositories), 2000), kind="good" if report.ok else "bad",
            verdict=_verdict(report),
        ),
        "<h2>Open</h2>\n",
        opened or "<p>Nothing.</p>\n",
        table,
        *sections.values(),
        _TAIL.format(cut="".join(f"<li>{e(text)}</li>\n" for text in cut)),
    ]  # fmt: skip
    return "".join(parts)


def _verdict(report: Report) -> str:
    if report.ok:
        return f"{sign('good')} Nothing is wrong, as far as the repositories tell."
    failing = sum(1 for guard in report.guards if guard.findings.failures)
    count = len(report.whole.failures) + sum(len(guard.findings.failures) for guard in report.guards)
    return f"{sign('bad')} {count} to mend; {failing} of {len(report.guards)} instances have failures."


def _open(report: Report, detailed: set[int], kind: str) -> str:
    """Findings of all instances, some of each."""
    items: list[str] = []
    named: list[tuple[int, Guard | None, list[Finding]]] = [(-1, None, getattr(report.whole, kind))]
    named += [(number, guard, getattr(guard.findings, kind)) for number, guard in enumerate(report.guards)]
    total = sum(len(found) for _number, _guard, found in named)
    told, left = 0, total  # shown, and of instances that come after
    for number, guard, found in named:
        if told >= _OPEN:
            break
        name = _link(number, guard, detailed) if guard else ""
        few = found[: min(_OPEN_OF_ONE, _OPEN - told)]
        items += [_finding(finding, name, kind == "warnings") for finding in few]
        told, left = told + len(few), left - len(found)
        if len(found) > len(few):
            items.append(f'<li class="w">{name}: and {len(found) - len(few)} more {kind}</li>\n')
    if left:
        items.append(f'<li class="w">and {left} more {kind} of other instances</li>\n')
    return f'<h3>{kind.capitalize()}: {total}</h3>\n<ul class="open">\n{"".join(items)}</ul>\n' if items else ""


def _finding(finding: Finding, name: str, warning: bool) -> str:
    hint = f'<p class="quiet">{e(finding.hint)}</p>' if finding.hint else ""
    kind, mark = ("w", sign("warn")) if warning else ("f", sign("bad"))
    title = f"{e(finding.check.replace('_', ' '))}: {e(finding.thing, 120)}"
    return (
        f'<li class="{kind}"><p>{mark} {name} <strong>{title}</strong></p><p>{e(finding.found)}</p>'
        f'<p class="quiet">Expected: {e(finding.expected)}</p>{hint}</li>\n'
    )


def _link(number: int, guard: Guard, detailed: set[int]) -> str:
    return f'<a href="#i{number}">{e(guard.name)}</a>' if number in detailed else e(guard.name)


def _fleet(report: Report, detailed: set[int]) -> str:
    """A row for each instance. On a narrow screen a row is a small list, which is why roles are spelt out."""
    names = [
        "State",
        *(f"Newest {layer}" for layer in report.options.limits.layers),
        "All read",
        "All restored",
        "Drill",
    ]
    head = "".join(f'<th role="columnheader" scope="col">{e(name)}</th>' for name in ["Instance", *names])
    labels = "".join(f'.fleet td:nth-child({n})::before{{content:"{name}"}}' for n, name in enumerate(names, 2))
    rows = [
        _row(number, guard, report, detailed) for number, guard in enumerate(itertools.islice(report.guards, _ROWS))
    ]
    return (
        f"<h2>Instances</h2>\n<style>@media (max-width: 45rem) {{ {labels} }}</style>\n"
        f'<table class="fleet" role="table"><thead role="rowgroup"><tr role="row">{head}</tr></thead>\n'
        f'<tbody role="rowgroup">\n{"".join(rows)}</tbody></table>\n'
        '<p class="legend">All read, all restored: how long ago, of the layer that waits longest.</p>\n'
    )


def _row(number: int, guard: Guard, report: Report, detailed: set[int]) -> str:
    failures, warnings = len(guard.findings.failures), len(guard.findings.warnings)
    kind = "bad" if failures else "warn" if warnings else "good"
    state = f"{sign(kind)} " + (f"{failures} to mend" if failures else f"{warnings} odd" if warnings else "well")
    facts, layers = guard.findings.facts.get("layers", {}), report.options.limits.layers
    cells = [state, *(_age(facts.get(layer, {}).get("created"), report) for layer in layers)]
    cells += [_oldest([facts.get(layer, {}).get(level) for layer in layers], report) for level in ("quick", "proven")]
    drill = guard.findings.facts.get("drill")
    good = sign("good" if drill["ok"] else "bad") if drill else ""
    cells.append(f"{good} {_age(drill['started'], report)}" if drill else "never")
    where = f"<br><small>{e(guard.repository)}</small>" if len(report.repositories) > 1 else ""
    body = "".join(f'<td role="cell"><span>{cell}</span></td>' for cell in cells)
    return f'<tr role="row"><th role="rowheader" scope="row">{_link(number, guard, detailed)}{where}</th>{body}</tr>\n'


def _age(when: t.Any, report: Report) -> str:
    """Short: there may be thousands."""
    parsed = parse_time(when)
    if parsed is None:
        return "none"
    hours = hours_between(parsed, report.made)
    return told_age(hours) if hours >= 0 else f"{told_age(-hours)} ahead"


def _oldest(told: list[dict[str, t.Any] | None], report: Report) -> str:
    """Of several layers the one that was verified longest ago; a failure before that."""
    if not all(told):
        return "not all"
    verdicts = [verdict for verdict in told if verdict]
    failed = any(verdict.get("ok") is not True for verdict in verdicts)
    times = [parse_time(verdict.get("verified")) for verdict in verdicts]
    first = min((when for when in times if when), default=None)
    return f"{sign('bad' if failed else 'good')} {_age(first and f'{first:%Y-%m-%dT%H:%M:%SZ}', report)}"


def _sections(report: Report) -> tuple[dict[int, str], int]:
    """The closer looks by the number of the instance, and how many instances have none."""
    sections: dict[int, str] = {}
    length = 0
    for number, guard in enumerate(report.guards):
        if guard.details is not None and length < LARGEST:
            sections[number] = _section(number, guard, report)
            length += len(sections[number])
    return sections, sum(1 for guard in report.guards if guard.repository) - len(sections)


def _section(number: int, guard: Guard, report: Report) -> str:
    details = guard.details
    if details is None:
        return ""
    layers, days, facts = report.options.limits.layers, report.days, guard.findings.facts
    made = ", ".join(f"{count} of {e(layer)}" for layer, count in details.snapshots.items())
    calendars = "".join(calendar(layer, details.calendar[layer], days) for layer in layers)
    return (
        f'<section id="i{number}">\n<h2>{e(guard.name)}</h2>\n'
        f'<p class="quiet">{e(guard.repository)}: {told_bytes(details.stored_bytes)}; snapshots: {made}</p>\n'
        f"<h3>Recovery points</h3>\n{recovery_points(facts, layers, report.made)}"
        f"{gap_text(details.gap, report.options.days, report.made) if 'logs' in layers else ''}"
        f"<h3>Snapshots and verifications, {report.options.days} days</h3>\n{LEGEND}"
        f'<div class="calendars">\n{calendars}</div>\n'
        f"<h3>Drills and recoveries</h3>\n{drills(details.drills)}"
        f"<h3>Size in the store, by the month in which it was made</h3>\n{sizes(details, layers)}</section>\n"
    )
