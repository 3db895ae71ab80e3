# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who is told what, and when: changes only, each target for itself, and never a secret."""

from __future__ import annotations

import datetime
import json
import typing as t

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import GuardError
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.alert_text import (
    CLEARED,
    RAISED,
    STILL,
    compose,
)
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.alerts import Options, changes, of_unit
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.patrol_findings import (
    Findings,
    unit_finding,
)
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.notify import (
    Message,
    Target,
    dingtalk_address,
    fit,
    wecom_address,
    wecom_payload,
)
from support.receivers import WECOM_KEY, wecom_problem

NOW = datetime.datetime(2026, 11, 23, 2, 0, tzinfo=datetime.timezone.utc)
OPTIONS = Options(source="guard-01", state_path="/nowhere")


def finding(check: str, thing: str = "logs", found: str = "none", instance: str = "guard-01") -> dict[str, str]:
    return {"check": check, "thing": thing, "expected": "one", "found": found, "hint": "Do it.", "instance": instance}


def verdict(*failures: str, warnings: t.Sequence[str] = (), not_checked: t.Any = ()) -> dict[str, t.Any]:
    return {
        "ok": not failures, "failures": [finding(name) for name in failures],
        "warnings": [finding(name) for name in warnings], "not_checked": list(not_checked),
    }  # fmt: skip


class Days:
    """One target over some days."""

    def __init__(self, options: Options = OPTIONS) -> None:
        self.known: dict[str, t.Any] = {}
        self.options = options

    def told(self, day: float, found: dict[str, t.Any]) -> list[tuple[str, str]]:
        """(what is new, check) on that day."""
        news, self.known = changes(found, self.known, self.options, NOW + datetime.timedelta(days=day))
        return [(change.kind, change.finding["check"]) for change in news]


def test_only_changes_are_told() -> None:
    days = Days()
    assert days.told(0, verdict("snapshot", "drill")) == [(RAISED, "snapshot"), (RAISED, "drill")]
    assert days.told(0.1, verdict("snapshot", "drill")) == []
    assert days.told(0.5, verdict("drill", "units")) == [(RAISED, "units"), (CLEARED, "snapshot")]
    # After a day, seconds early: a timer is not exact.
    assert days.told(0.999, verdict("drill", "units")) == [(STILL, "drill")]
    assert days.told(1.2, verdict("drill", "units")) == []
    assert days.told(2.0, verdict()) == [(CLEARED, "drill"), (CLEARED, "units")]
    assert days.told(3.0, verdict()) == []


def test_what_differs_from_day_to_day_is_no_news() -> None:
    days = Days()
    day = verdict("snapshot")
    assert days.told(0, day)
    day["failures"][0]["found"] = "another age"
    assert days.told(0.1, day) == []


def test_warnings_are_told_once_or_not_at_all() -> None:
    days = Days()
    assert days.told(0, verdict(warnings=["log_rate"])) == [(RAISED, "log_rate")]
    assert days.told(5, verdict(warnings=["log_rate"])) == []
    assert days.told(6, verdict("log_rate")) == [(RAISED, "log_rate"), (CLEARED, "log_rate")]  # worse now
    assert Days(Options("x", "/x", with_warnings=False)).told(0, verdict(warnings=["log_rate"])) == []


@pytest.mark.parametrize(("left", "cleared"), [
    ({"check": "everything"}, False),
    ({"check": "everything", "instance": "guard-02"}, True),
    ({"check": "snapshot", "thing": "logs", "instance": "guard-01"}, False),
    ({"check": "snapshot", "thing": "model", "instance": "guard-01"}, True),
])  # fmt: skip
def test_what_was_not_looked_at_is_not_well_again(left: dict[str, str], cleared: bool) -> None:
    days = Days()
    days.told(0, verdict("snapshot"))
    assert days.told(0.1, verdict(not_checked=[left])) == ([(CLEARED, "snapshot")] if cleared else [])
    assert days.told(0.2, verdict()) == ([] if cleared else [(CLEARED, "snapshot")])


def test_verdict_of_one_unit_and_that_of_a_patrol_do_not_repeat_each_other() -> None:
    unit = "qwen3guard-backup@logs.service"
    patrols = Findings("guard-01")
    patrols.failures.append(unit_finding(unit)._replace(instance="guard-01"))
    whole = {"failures": [finding("drill"), *(item._asdict() for item in patrols.failures)]}
    days = Days()
    assert days.told(0, verdict("drill")) == [(RAISED, "drill")]
    assert days.told(0.1, of_unit("guard-01", unit, failed=True)) == [(RAISED, "units")]
    assert days.told(0.2, whole) == []
    assert days.told(0.3, of_unit("guard-01", "another.service", failed=False)) == []
    assert days.told(0.4, of_unit("guard-01", unit, failed=False)) == [(CLEARED, "units")]
    assert days.told(0.5, verdict("drill")) == []
    assert days.told(0.6, whole) == [(RAISED, "units")]
    assert days.told(0.7, verdict("drill")) == [(CLEARED, "units")]


def test_message_of_one_unit_does_not_speak_of_the_rest() -> None:
    found = of_unit("guard-01", "a.service", failed=True, host="spare")
    news, _known = changes(found, {}, OPTIONS, NOW)
    assert compose("guard-01", found, news).lines == [
        "New:",
        "- guard-01 units a.service: expected a unit that has not failed, found failed. systemctl status a.service",
        f"From spare {found['time']}",
    ]


def test_message_says_what_is_new_first_and_how_much_is_open() -> None:
    found = verdict("snapshot", "units", warnings=["log_rate"], not_checked=[finding("content")])
    news, _known = changes(found, {}, OPTIONS, NOW)
    message = compose("guard-01", {**found, "host": "spare", "time": "2026-11-23T02:00:00Z"}, news)
    assert message == Message("Guard guard-01: 3 new", [
        "New:",
        "- guard-01 snapshot logs: expected one, found none. Do it.",
        "- guard-01 units logs: expected one, found none. Do it.",
        "- (warning) guard-01 log_rate logs: expected one, found none. Do it.",
        "Open: failures 2, warnings 1. Not checked: 1.",
        "From spare 2026-11-23T02:00:00Z",
    ], urgent=True)  # fmt: skip


def test_good_news_are_not_urgent() -> None:
    _news, known = changes(verdict("snapshot"), {}, OPTIONS, NOW)
    news, _known = changes(verdict(), known, OPTIONS, NOW)
    message = compose("guard-01", verdict(), news)
    assert message.title == "Guard guard-01: 1 well again"
    assert not message.urgent


# -- forms ---------------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(lines=st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=80), max_size=60))
def test_wecom_takes_every_message(lines: list[str]) -> None:
    payload = wecom_payload(Message("Guard 守卫: <3> new", lines * 8, True))
    body = json.dumps(payload, ensure_ascii=False).encode()
    assert wecom_problem({"key": WECOM_KEY}, body, "application/json; charset=utf-8") == 0


def test_what_is_cut_is_counted() -> None:
    lines = [f"line {number}" for number in range(100)]
    kept = fit(lines, 200)
    assert len("\n".join(kept).encode()) <= 200
    assert kept[-1] == f"… {100 - (len(kept) - 1)} more lines"
    assert kept[:-1] == lines[: len(kept) - 1]
    assert fit(lines, 10_000) == lines
    assert fit(["字" * 100, "b"], 100) == ["字" * 25 + "…", "… 1 more line"]
    assert fit([], 10) == []


def test_links_and_tags_of_a_hostile_store_stay_text() -> None:
    message = Message("Guard", ["found [click](http://evil.example) <font color=info>fine</font>"], True)
    content = wecom_payload(message)["markdown"]["content"]
    assert not set("[]<>") & set(content)


@pytest.mark.parametrize(("url", "address"), [
    ("wecombot://a-b_1", "https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=a-b_1"),
    ("wecombot://a1?endpoint=https://im.example.org/", "https://im.example.org/cgi-bin/webhook/send?key=a1"),
    ("https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=a1", None),
    ("https://im.example.org/cgi-bin/webhook/send?key=a1", None),
])  # fmt: skip
def test_wecom_addresses(url: str, address: str | None) -> None:
    assert Target(url, 1).kind == "wecombot"
    assert wecom_address(url) == (address or url)


def test_dingtalk_is_signed_only_with_a_secret() -> None:
    assert dingtalk_address("dingtalk://abc", 1.0) == "https://oapi.dingtalk.com/robot/send?access_token=abc"
    signed = dingtalk_address("dingtalk://SEC1@abc", 1.0)
    assert "access_token=abc&timestamp=1000&sign=" in signed
    assert "SEC1" not in signed


@pytest.mark.parametrize("url", ["s3cret", "", "://s3cret", "1x://s3cret"])
def test_what_is_no_url_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(GuardError, match="URL 3: expected a URL") as error:
        Target(url, 3)
    assert "s3cret" not in str(error.value)


def test_names_of_targets_have_no_secret() -> None:
    target = Target("mailtos://user:s3cret@mail.example.org", 2)
    assert target.name == "URL 2 (mailtos)"
    assert "s3cret" not in target.identity
