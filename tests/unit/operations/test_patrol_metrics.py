# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Metrics of a verdict, and the rules and the dashboard that live on them."""

from __future__ import annotations

import dataclasses
import datetime
import json
import pathlib
import re
import typing as t

import yaml

from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import patrol, patrol_metrics
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.patrol_findings import Limits
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.store import DirectoryStore
from support.checkout import ROOT
from support.fleet import make_instance

FILES = ROOT / "roles" / "patrol" / "files"
RULES = FILES / "guardops-qwen3guard.rules.yml"
DASHBOARD = FILES / "guardops-qwen3guard.dashboard.json"
_SAMPLE = re.compile(r'(guardops_qwen3guard_[a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\["\\n])*",?)+)\})? (-?[0-9.]+)\n')
_NAME = re.compile(r"guardops_qwen3guard_([a-z_]+)")


def verdict_of(**facts: t.Any) -> dict[str, t.Any]:
    return {
        "ok": True, "time": "2026-11-23T02:00:00Z", "seconds": 1.25, "failures": [], "warnings": [], "not_checked": [],
        "facts": {"guard-01": facts},
    }  # fmt: skip


def samples(text: str) -> dict[str, list[tuple[str, float]]]:
    """Labels and values by metric; every line has to have the form that Prometheus reads."""
    found: dict[str, list[tuple[str, float]]] = {}
    described: set[str] = set()
    for line in text.splitlines(keepends=True):
        if line.startswith("# "):
            _hash, kind, name, *_rest = line.split()
            assert kind in ("HELP", "TYPE")
            described.add(name)
            continue
        match = _SAMPLE.fullmatch(line)
        assert match, line
        assert match.group(1) in described
        found.setdefault(match.group(1)[len(patrol_metrics.PREFIX) :], []).append(
            (match.group(2), float(match.group(3)))
        )
    return found


def test_metrics_of_a_fleet(tmp_path: pathlib.Path) -> None:
    now = datetime.datetime.now(datetime.timezone.utc)
    for name, fault in (("guard-01", ""), ("guard-02", "failed verdict")):
        make_instance(tmp_path / "r", name, now, fault=fault)
    fleet = patrol.Fleet(["all"], [], str(tmp_path / "state"))
    found = patrol.patrol_fleet([DirectoryStore(str(tmp_path / "r"))], fleet, Limits(), dry=True)
    told = samples(patrol_metrics.render(dataclasses.asdict(found)))
    assert told["patrol_ok"] == [(None, 0)]
    assert ('guard="guard-02",check="verdict",severity="failure"', 1) in told["findings"]
    assert ('guard="guard-02",layer="logs",kind="quick"', 0) in told["verification_ok"]
    assert ('guard="guard-01",layer="logs",kind="quick"', 1) in told["verification_ok"]
    assert len(told["snapshot_timestamp_seconds"]) == 6
    assert [value for _labels, value in told["drill_duration_seconds"]] == [174, 174]
    (_labels, made), *_more = told["snapshot_timestamp_seconds"]
    assert abs(made - now.timestamp()) < 86400 * 10


def test_metrics_of_a_host() -> None:
    told = samples(patrol_metrics.render(verdict_of(
        service_up=True, not_archived=3, oldest_not_archived=1795399200.5, last_record=1795399260.0,
        room={"/data": {"free": 2**43 + 1, "size": 2**44}}, expiry={'/etc/a "b"\\c\n.pem': 1796000000.0},
    )))  # fmt: skip
    assert told["service_up"] == [('guard="guard-01"', 1)]
    assert told["oldest_not_archived_timestamp_seconds"] == [('guard="guard-01"', 1795399200.5)]
    assert told["free_bytes"] == [('guard="guard-01",path="/data"', 2**43 + 1)]
    assert told["expiry_timestamp_seconds"] == [('guard="guard-01",path="/etc/a \\"b\\"\\\\c\\n.pem"', 1796000000)]


def test_names_follow_the_conventions() -> None:
    for name, about in patrol_metrics._METRICS.items():
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", name)
        assert about.endswith(".")
        assert not name.endswith("_total"), "all of them are gauges"
        if "time" in about.lower() and "newest" in about.lower():
            assert name.endswith("_timestamp_seconds")


def expressions() -> list[str]:
    """Of all rules and panels."""
    rules = [rule["expr"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return rules + [target["expr"] for panel in panels for target in panel["targets"]]


def test_rules_and_panels_ask_for_metrics_that_there_are() -> None:
    asked = {name for expression in expressions() for name in _NAME.findall(expression)}
    assert asked <= set(patrol_metrics._METRICS)
    assert len(asked) > 15


def test_rules_are_whole() -> None:
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules) > 8
    for rule in rules:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert {"summary", "description"} == set(rule["annotations"])


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken
        assert max(x for x, _y in cells) < 24
        taken |= cells
        assert panel["title"]
