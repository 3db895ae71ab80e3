# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The alerting rules, tried by promtool on days as they are: metrics step when a patrol runs, and then stand still."""

from __future__ import annotations

import datetime
import json
import os
import pathlib
import re
import shutil
import subprocess
import typing as t

import pytest

from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import patrol_metrics
from support.checkout import ROOT

RULES = ROOT / "roles" / "patrol" / "files" / "guardops-qwen3guard.rules.yml"
PROMTOOL = shutil.which("promtool", path=os.pathsep.join([str(ROOT / ".cache" / "promtool"), os.environ["PATH"]]))
STRICT = os.environ.get("CI", "").lower() in ("true", "1")

MINUTE, HOUR, DAY = 60, 3600, 86400
STEP = 15 * MINUTE  # between two samples, and two looks of Prometheus
DAYS = 4
FLEET, HOST = 2 * HOUR, 2 * HOUR + 4 * MINUTE  # of each day: the fleet's patrol comes just before that of the host
WATCH, GUARD = "watch", "guard-host"  # what Prometheus scrapes
_SERIES = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")

Facts = dict[str, t.Any]
# From a day and what is to be seen on it to what its patrol sees; None: there is no patrol.
Fault = t.Callable[[int, Facts], t.Optional[Facts]]
Fired = set[tuple[str, str]]


@pytest.fixture(name="promtool")
def fixture_promtool() -> str:
    if PROMTOOL is None:
        (pytest.fail if STRICT else pytest.skip)("promtool is missing: run tools/promtool")
    return PROMTOOL


def told(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def repository_at(now: float, day: int) -> Facts:
    """What lies in the repository with the schedules that the roles bring, at its oldest that is still well."""
    verified = {"snapshot": "000001-00000001", "level": "decrypted", "ok": True, "seconds": 9.0}
    layer = {
        "bytes": 1000, "snapshots": 3, "quick": {**verified, "verified": told(now - 23 * HOUR)},
        "proven": {**verified, "verified": told(now - (6 + day / 4) * DAY)},  # every Friday at 15:00
    }  # fmt: skip
    return {
        "layers": {
            "logs": {**layer, "created": told(now - 59 * MINUTE), "increments": 2},
            "model": {**layer, "created": told(now - 90 * DAY)},
        },
        # Every first Wednesday: 35 days lie between two of them. The next one is on the second day.
        "drill": {"started": told(HOST + HOUR - (35 * DAY if day == 0 else 0)), "ok": True, "seconds": 174.0,
                  "budget_seconds": 300.0, "phases": {"model": 110.0}},
    }  # fmt: skip


def host_at(now: float, day: int) -> Facts:
    """The same, seen by the host. One record came since the last backup."""
    return {
        **repository_at(now, day), "service_up": True, "not_archived": 1, "oldest_not_archived": now - 55 * MINUTE,
        "last_record": now - 55 * MINUTE, "room": {"/data": {"free": 5e11, "size": 1e12}},
        "expiry": {"/etc/gateway.pem": 60 * DAY}, "findings": [],
    }  # fmt: skip


def page(now: float, facts: Facts) -> dict[str, float]:
    """The file that a patrol writes then, by series."""
    found = [{"instance": "guard-01", "check": check} for check in facts.pop("findings", [])]
    verdict = {"ok": True, "time": told(now), "seconds": 1.25, "failures": found, "warnings": [], "not_checked": [],
               "facts": {"guard-01": facts}}  # fmt: skip
    lines = [line for line in patrol_metrics.render(verdict).splitlines() if not line.startswith("#")]
    return {f"{name}{{{labels or ''}": float(value) for name, labels, value in _parsed(lines)}


def _parsed(lines: list[str]) -> t.Iterator[tuple[str, str, str]]:
    for line in lines:
        match = _SERIES.match(line)
        assert match, line
        yield t.cast("tuple[str, str, str]", match.groups())


def series(pages: dict[int, dict[str, float] | None], instance: str) -> list[dict[str, str]]:
    """Samples as Prometheus takes them, from the file that there is at each moment; None: the file is gone."""
    steps = range(0, DAYS * DAY, STEP)
    seen = [pages[max(made)] if (made := [when for when in pages if when <= step]) else None for step in steps]
    names = {name for shown in seen for name in shown or {}}
    all_of_them = []
    for name in sorted(names):
        comma = "" if name.endswith("{") else ","
        values = [str((shown or {}).get(name, "_")) for shown in seen]
        all_of_them.append({"series": f'{name}{comma}instance="{instance}"}}', "values": " ".join(values)})
    return all_of_them


def healthy(_day: int, facts: Facts) -> Facts | None:
    return facts


def days(of_host: Fault = healthy, of_fleet: Fault = healthy, gone: float = 0) -> list[dict[str, str]]:
    """Days with a patrol of a host and one of its fleet, which sees the host's last sign of life."""
    by_host: dict[int, dict[str, float] | None] = {}
    by_fleet: dict[int, dict[str, float] | None] = {}
    sign = HOST - DAY
    for day in range(DAYS):
        now = day * DAY + FLEET
        beat = {"heartbeat": {"time": told(sign), "ok": True}}
        if (facts := of_fleet(day, {**repository_at(now, day), **beat})) is not None:
            by_fleet[now] = page(now, facts)
        now = day * DAY + HOST
        if (facts := of_host(day, host_at(now, day))) is not None:
            by_host[now] = page(now, facts)
            sign = now
    if gone:
        by_host[int(gone)] = None
    return series(by_fleet, WATCH) + series(by_host, GUARD)


def try_rules(promtool: str, place: pathlib.Path, inputs: list[dict[str, str]], **tests: t.Any) -> str:
    """What promtool says of it; empty where all is as expected."""
    test = {"interval": "15m", "input_series": inputs, **tests}
    path = place / "test.yml"
    path.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "15m", "tests": [test]}))
    done = subprocess.run([promtool, "test", "rules", str(path)], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def fired(hours: float, expected: Fired) -> dict[str, t.Any]:
    """All that fired from the beginning until then."""
    hosts = {instance: f', instance="{instance}"' if instance else "" for _name, instance in expected}
    labels = [f'{{alertname="{name}"{hosts[instance]}}}' for name, instance in sorted(expected)]
    return {
        "expr": f'group by (alertname, instance) (count_over_time(ALERTS{{alertstate="firing"}}[{DAYS + 1}d]))',
        "eval_time": f"{hours * 60:.0f}m", "exp_samples": [{"labels": one, "value": 1} for one in labels],
    }  # fmt: skip


END = DAYS * 24 - 1


def test_nothing_fires_while_all_keeps_to_its_schedule(promtool: str, tmp_path: pathlib.Path) -> None:
    assert try_rules(promtool, tmp_path, days(), promql_expr_test=[fired(END, set())]) == ""


def stops(day: int, change: t.Callable[[Facts, Facts], None]) -> Fault:
    """From that day on something stays as it was in the night before."""

    def seen(today: int, facts: Facts) -> Facts:
        if today > day:
            change(facts, host_at(day * DAY + HOST, day))
        return facts

    return seen


def no_backups(facts: Facts, before: Facts) -> None:
    facts["layers"]["logs"]["created"] = before["layers"]["logs"]["created"]


def no_verification(kind: str) -> t.Callable[[Facts, Facts], None]:
    def change(facts: Facts, before: Facts) -> None:
        facts["layers"]["model"][kind] = before["layers"]["model"][kind]

    return change


def no_drill(facts: Facts, before: Facts) -> None:
    facts["drill"] = before["drill"]


def no_archive(facts: Facts, before: Facts) -> None:
    facts["oldest_not_archived"] = before["oldest_not_archived"]


def from_day(day: int, **changed: t.Any) -> Fault:
    return lambda today, facts: {**facts, **changed} if today >= day else facts


def until(day: int) -> Fault:
    return lambda today, facts: facts if today <= day else None


def failed_verification(day: int, facts: Facts) -> Facts:
    facts["layers"]["logs"]["quick"]["ok"] = day == 0
    return facts


def failed_drill(day: int, facts: Facts) -> Facts:
    return {**facts, "drill": {**facts["drill"], "ok": day == 0}}


NIGHT = HOST / HOUR  # hours until the host's patrol of the first day
FAULTS: dict[str, tuple[dict[str, t.Any], float, str]] = {  # fault, hours until it is told, alert
    "no backups": ({"of_host": stops(0, no_backups)}, NIGHT + 24, "GuardLogsNotBackedUp"),
    "no quick verification": ({"of_host": stops(0, no_verification("quick"))}, NIGHT + 48, "GuardNotVerified"),
    "no proven verification": ({"of_host": stops(0, no_verification("proven"))}, NIGHT + 72, "GuardNotVerified"),
    "failed verification": ({"of_host": failed_verification}, NIGHT + 24, "GuardVerificationFailed"),
    "no drill": ({"of_host": stops(0, no_drill)}, NIGHT + 24, "GuardDrillMissing"),
    "failed drill": ({"of_host": failed_drill}, NIGHT + 24, "GuardDrillFailed"),
    "records stay": ({"of_host": stops(0, no_archive)}, NIGHT + 24, "GuardRecordsNotArchived"),
    "full": ({"of_host": from_day(1, room={"/data": {"free": 1e9, "size": 1e12}})}, NIGHT + 24, "GuardDiskFull"),
    # A date needs no patrol to come nearer.
    "certificate": ({"of_host": from_day(0, expiry={"/etc/x.pem": 16 * DAY})}, 48, "GuardCertificateEnds"),
    "a finding": ({"of_host": from_day(1, findings=["units"])}, NIGHT + 24, "GuardPatrolFailures"),
    "gone": ({"gone": 36 * HOUR}, 37, "GuardMetricsVanished"),
}
_BY_GUARD = ("GuardPatrolFailures",)  # it sums over the hosts that tell


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_fires_its_alert_in_time_and_no_other(promtool: str, tmp_path: pathlib.Path, name: str) -> None:
    fault, hours, alert = FAULTS[name]
    expected = {(alert, "" if alert in _BY_GUARD else GUARD)}
    tests = [fired(hours - 0.1, set()), fired(hours + 0.3, expected), fired(END, expected)]
    assert try_rules(promtool, tmp_path, days(**fault), promql_expr_test=tests) == ""


def test_a_host_that_patrols_no_more_is_told_by_its_metrics_and_by_its_fleet(
    promtool: str, tmp_path: pathlib.Path
) -> None:
    by_itself = ("GuardPatrolMissing", GUARD)
    tests = [
        fired(NIGHT + 26, set()),
        fired(NIGHT + 26.6, {by_itself}),
        fired(FLEET / HOUR + 48.1, {by_itself, ("GuardHostPatrolMissing", WATCH)}),
        fired(END, {by_itself, ("GuardHostPatrolMissing", WATCH)}),
    ]
    assert try_rules(promtool, tmp_path, days(of_host=until(0)), promql_expr_test=tests) == ""


def test_a_fleet_that_patrols_no_more_blames_no_host(promtool: str, tmp_path: pathlib.Path) -> None:
    tests = [fired(END, {("GuardPatrolMissing", WATCH)})]
    assert try_rules(promtool, tmp_path, days(of_fleet=until(0)), promql_expr_test=tests) == ""


def test_an_alert_says_what_the_patrol_saw(promtool: str, tmp_path: pathlib.Path) -> None:
    alerts = [{
        "eval_time": "40h", "alertname": "GuardLogsNotBackedUp", "exp_alerts": [{
            "exp_labels": {"severity": "critical", "guard": "guard-01", "layer": "logs", "instance": GUARD},
            "exp_annotations": {
                "summary": "The newest snapshot of the logs of guard-01 was 1d 0h 59m 0s old",
                "description": "Look at the timers of the backup and their last runs.",
            },
        }],
    }]  # fmt: skip
    assert try_rules(promtool, tmp_path, days(of_host=stops(0, no_backups)), alert_rule_test=alerts) == ""


def test_promtool_takes_the_rules(promtool: str) -> None:
    subprocess.run([promtool, "check", "rules", str(RULES)], check=True)


def test_promtool_takes_the_metrics(promtool: str) -> None:
    facts = {key: value for key, value in host_at(0, 0).items() if key != "findings"}
    verdict = {"ok": True, "time": told(0), "seconds": 1.25, "failures": [], "warnings": [], "not_checked": [],
               "facts": {"guard-01": facts}}  # fmt: skip
    text = patrol_metrics.render(verdict)
    done = subprocess.run([promtool, "check", "metrics"], input=text, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
