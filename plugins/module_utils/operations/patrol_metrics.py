# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A verdict as metrics for the textfile collector of Prometheus' node_exporter.

Private to the collection: use the modules, not this file.

Times are told, not ages: an age would stand still when patrols do. The label is ``guard`` and not ``instance``, which
Prometheus sets itself, to the host that it scraped.
"""

from __future__ import annotations

import collections
import re
import typing as t

from .patrol_findings import parse_time

PREFIX = "guardops_qwen3guard_"
_METRICS = {
    "patrol_timestamp_seconds": "When the patrol began.",
    "patrol_ok": "1 if the patrol found no failure.",
    "patrol_duration_seconds": "How long the patrol took.",
    "findings": "Findings of the last patrol by check and severity (failure, warning, not_checked).",
    "snapshot_timestamp_seconds": "When the newest snapshot of the layer was made.",
    "snapshot_size_bytes": "Bytes that the newest snapshot of the layer takes in the store.",
    "snapshots": "Snapshots of the layer, interrupted ones included.",
    "increments": "Increments of the logs that stand on the newest full.",
    "verification_timestamp_seconds": "When the layer was last verified, by kind: quick reads, proven restores.",
    "verification_ok": "1 if that verification passed.",
    "drill_timestamp_seconds": "When the newest drill or recovery began.",
    "drill_ok": "1 if it ended within its budget.",
    "drill_duration_seconds": "How long the service was away in it.",
    "drill_budget_seconds": "How long it may be away.",
    "drill_phase_seconds": "How long each phase of it took.",
    "archived_record_timestamp_seconds": "Time of the newest record in the repository.",
    "record_timestamp_seconds": "Time of the newest record in the live log.",
    "records_not_archived": "Records of the live log that the repository does not have yet.",
    "oldest_not_archived_timestamp_seconds": "Time of the oldest of them.",
    "service_up": "1 if the service answered its health check.",
    "free_bytes": "Free bytes of the file system at the path.",
    "size_bytes": "Size of the file system at the path.",
    "expiry_timestamp_seconds": "When the certificate or key at the path ends.",
    "host_patrol_timestamp_seconds": "When the host's own patrol left its last sign of life.",
    "host_patrol_ok": "1 if it found no failure.",
}
_SPECIAL = re.compile(r'[\\\n"]')
_ESCAPED = {"\\": "\\\\", "\n": "\\n", '"': '\\"'}

Labels = dict[str, str]


class _Page:
    """Samples by metric."""

    def __init__(self) -> None:
        self.samples: dict[str, list[tuple[Labels, float]]] = collections.defaultdict(list)

    def add(self, name: str, value: t.Any, **labels: str) -> None:
        """One sample; a value of None is none, and a text is a time."""
        if isinstance(value, str):
            when = parse_time(value)
            value = when.timestamp() if when else None
        if value is not None:
            self.samples[name].append((labels, float(value)))

    def text(self) -> str:
        """The exposition format."""
        lines = []
        for name, about in _METRICS.items():
            samples = self.samples.get(name)
            if samples:
                lines += [f"# HELP {PREFIX}{name} {about}", f"# TYPE {PREFIX}{name} gauge"]
                lines += [f"{PREFIX}{name}{_told(labels)} {_number(value)}" for labels, value in samples]
        return "".join(f"{line}\n" for line in lines)


def render(verdict: dict[str, t.Any]) -> str:
    """The file's content."""
    page = _Page()
    page.add("patrol_timestamp_seconds", verdict["time"])
    page.add("patrol_ok", verdict["ok"])
    page.add("patrol_duration_seconds", verdict["seconds"])
    severities = {"failure": "failures", "warning": "warnings", "not_checked": "not_checked"}
    for severity, name in severities.items():
        counted = collections.Counter((item["instance"], item["check"]) for item in verdict[name])
        for (instance, check), count in sorted(counted.items()):
            page.add("findings", count, guard=instance, check=check, severity=severity)
    for instance, facts in verdict["facts"].items():
        _add_repository(page, instance, facts)
        _add_host(page, instance, facts)
    return page.text()


def _add_repository(page: _Page, guard: str, facts: dict[str, t.Any]) -> None:
    for layer, told in facts.get("layers", {}).items():
        page.add("snapshot_timestamp_seconds", told.get("created"), guard=guard, layer=layer)
        page.add("snapshot_size_bytes", told.get("bytes"), guard=guard, layer=layer)
        page.add("snapshots", told.get("snapshots"), guard=guard, layer=layer)
        page.add("increments", told.get("increments"), guard=guard)
        for kind in ("quick", "proven"):
            verified = told.get(kind)
            if verified:
                page.add("verification_timestamp_seconds", verified["verified"], guard=guard, layer=layer, kind=kind)
                page.add("verification_ok", verified["ok"] is True, guard=guard, layer=layer, kind=kind)
    drill = facts.get("drill")
    if drill:
        page.add("drill_timestamp_seconds", drill["started"], guard=guard)
        page.add("drill_ok", drill["ok"], guard=guard)
        page.add("drill_duration_seconds", drill["seconds"], guard=guard)
        page.add("drill_budget_seconds", drill["budget_seconds"], guard=guard)
        for phase, seconds in drill["phases"].items():
            page.add("drill_phase_seconds", seconds, guard=guard, phase=phase)
    page.add("archived_record_timestamp_seconds", facts.get("records", {}).get("last"), guard=guard)
    beat = facts.get("heartbeat")
    if beat:
        page.add("host_patrol_timestamp_seconds", beat["time"], guard=guard)
        page.add("host_patrol_ok", beat["ok"], guard=guard)


def _add_host(page: _Page, guard: str, facts: dict[str, t.Any]) -> None:
    page.add("record_timestamp_seconds", facts.get("last_record"), guard=guard)
    page.add("records_not_archived", facts.get("not_archived"), guard=guard)
    page.add("oldest_not_archived_timestamp_seconds", facts.get("oldest_not_archived"), guard=guard)
    page.add("service_up", facts.get("service_up"), guard=guard)
    for path, room in facts.get("room", {}).items():
        page.add("free_bytes", room["free"], guard=guard, path=path)
        page.add("size_bytes", room["size"], guard=guard, path=path)
    for path, until in facts.get("expiry", {}).items():
        page.add("expiry_timestamp_seconds", until, guard=guard, path=path)


def _told(labels: Labels) -> str:
    if not labels:
        return ""
    shown = (f'{name}="{_SPECIAL.sub(_escape, value)}"' for name, value in labels.items())
    return f"{{{','.join(shown)}}}"


def _escape(match: re.Match[str]) -> str:
    return _ESCAPED[match.group()]


def _number(value: float) -> str:
    """Whole numbers without a fraction: a time in seconds needs all its digits."""
    return str(int(value)) if value == int(value) else f"{value:.3f}"
