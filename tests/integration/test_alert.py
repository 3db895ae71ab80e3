# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Alerts that arrive, or do not: a real mail server and real HTTP receivers, and the module as Ansible runs it."""

from __future__ import annotations

import json
import os
import pathlib
import re
import typing as t

import pytest

from support.alerts import BAD, FAILURE, GOOD, Alerts
from support.processes import free_ports
from support.receivers import DINGTALK_SECRET, WECOM_KEY, Mailbox, Receiver, receiver, smtp_server


@pytest.fixture
def http() -> t.Iterator[Receiver]:
    with receiver() as running:
        yield running


@pytest.fixture
def mail() -> t.Iterator[tuple[Mailbox, str]]:
    (port,) = free_ports(1)
    with smtp_server(port) as mailbox:
        yield mailbox, f"mailto://127.0.0.1:{port}?from=patrol@example.org&to=ops@example.org&mode=insecure"


@pytest.fixture
def alerts(tmp_path: pathlib.Path) -> Alerts:
    return Alerts(tmp_path / "state")


def test_wecom_hears_of_changes_only(alerts: Alerts, http: Receiver) -> None:
    alerts.secrets = [WECOM_KEY]
    first = alerts.run(BAD, http.wecom).succeeded()
    assert (first["sent"], first["raised"], first["changed"]) == (["URL 1 (wecombot)"], 1, True)
    again = alerts.run(BAD, http.wecom).succeeded()
    assert (again["sent"], again["changed"]) == ([], False)
    assert alerts.run(GOOD, http.wecom).succeeded()["cleared"] == 1
    assert len(http.texts) == 2
    assert http.texts[0].startswith("**Guard guard-01: 1 new**\nNew:\n- guard-01 snapshot logs: expected one younger")
    assert "Well again" in http.texts[1]


def test_first_run_tries_the_way(alerts: Alerts, http: Receiver) -> None:
    assert alerts.run(GOOD, http.wecom).succeeded()["tested"] == ["URL 1 (wecombot)"]
    assert "a test of the alerts" in http.texts[0]
    assert alerts.run(GOOD, http.wecom).succeeded()["sent"] == []
    (path,) = alerts.state.glob("*.json")
    assert path.stat().st_mode & 0o777 == 0o600
    raw = json.loads(path.read_text())
    for memory in raw["targets"].values():
        memory["reached"] = "2026-01-01T00:00:00Z"
    path.write_text(json.dumps(raw))
    assert alerts.run(GOOD, http.wecom).succeeded()["tested"] == ["URL 1 (wecombot)"]


def test_all_kinds_of_receivers_at_once(alerts: Alerts, http: Receiver, mail: tuple[Mailbox, str]) -> None:
    alerts.secrets = [WECOM_KEY, DINGTALK_SECRET]
    mailbox, mail_url = mail
    webhook = http.url.replace("http://", "json://") + "/hook/s3cret-path"
    done = alerts.run(BAD, http.wecom, http.dingtalk, webhook, mail_url).succeeded()
    assert done["sent"] == ["URL 1 (wecombot)", "URL 2 (dingtalk)", "URL 3 (json)", "URL 4 (mailto)"]
    paths = dict(http.taken)
    assert set(paths) == {"/cgi-bin/webhook/send", "/robot/send", "/hook/s3cret-path"}
    assert paths["/robot/send"]["markdown"]["title"] == "Guard guard-01: 1 new"
    assert paths["/hook/s3cret-path"]["title"] == "Guard guard-01: 1 new"
    (letter,) = mailbox.mails
    assert letter["Subject"] == "Guard guard-01: 1 new"
    assert letter["To"] == "ops@example.org"
    assert letter.get_content_type() == "text/plain"
    lines = letter.get_payload(decode=True).decode().splitlines()
    assert lines[0] == "New:"
    assert lines[1].startswith("- guard-01 ")
    assert "000012-3f9a2c1d, 30 hours ago" in lines[1]
    assert lines[2].startswith("Open:")


def test_a_long_verdict_is_several_messages(alerts: Alerts, http: Receiver) -> None:
    many = [{**FAILURE, "instance": f"守卫-{number:03d}"} for number in range(200)]
    done = alerts.run({**BAD, "failures": many}, http.wecom).succeeded()
    assert (done["raised"], done["left"]) == (200, 0)
    assert 1 < len(http.texts) <= 10
    assert all(len(text.encode()) <= 4096 for text in http.texts)
    for number, text in enumerate(http.texts, start=1):
        assert text.splitlines()[0] == f"**Guard guard-01: 200 new ({number} of {len(http.texts)})**"
        assert text.count("New:") == text.count("Open: failures 200") == 1
    assert [sum(f"- 守卫-{number:03d} " in text for text in http.texts) for number in range(200)] == [1] * 200
    assert alerts.run({**BAD, "failures": many}, http.wecom).succeeded()["sent"] == []


def test_of_a_large_outage_all_is_told_in_the_end(alerts: Alerts, http: Receiver) -> None:
    """As many as there is room for; of the rest the names, and all of it the next time."""
    many = [{**FAILURE, "instance": f"guard-{number:04d}"} for number in range(450)]
    bad = {**BAD, "failures": many, "warnings": [{**FAILURE, "check": "log_rate"}]}
    told = [alerts.run(bad, http.wecom).succeeded()]
    assert len(http.texts) == 10
    left = told[0]["left"]
    assert 0 < left < 300
    assert http.texts[-1].splitlines()[1].startswith(f"{left} more, which are told in full the next time: guard-0")
    assert all(f"guard-{number:04d}" in "".join(http.texts) for number in range(450))
    while told[-1]["left"]:
        told.append(alerts.run(bad, http.wecom).succeeded())
    assert sum(done["raised"] for done in told) == 451
    everything = "\n".join(http.texts)
    assert [everything.count(f"- guard-{number:04d} snapshot") for number in range(450)] == [1] * 450
    # Well again is news of which nothing is lost either.
    good = [alerts.run(GOOD, http.wecom).succeeded()]
    while good[-1]["left"]:
        good.append(alerts.run(GOOD, http.wecom).succeeded())
    assert sum(done["cleared"] for done in good) == 451


def test_messages_after_one_that_was_refused_come_the_next_time(
    alerts: Alerts, http: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [{**FAILURE, "instance": f"guard-{number:04d}"} for number in range(80)]
    answer = http.answer

    def two_only(*request: t.Any) -> tuple[int, dict[str, t.Any]]:
        return answer(*request) if len(http.taken) < 2 else (200, {"errcode": 45009})  # too many

    monkeypatch.setattr(http, "answer", two_only)
    assert alerts.run({**BAD, "failures": many}, http.wecom).failed
    before = "".join(http.texts).count("- guard-")
    monkeypatch.undo()
    assert alerts.run({**BAD, "failures": many}, http.wecom).succeeded()["raised"] == 80 - before
    everything = "\n".join(http.texts)
    assert [everything.count(f"- guard-{number:04d} ") for number in range(80)] == [1] * 80


@pytest.mark.parametrize(("url", "status", "words"), [
    ("wecombot://wrong-key?endpoint={http}", 200, r"URL 1 \(wecombot\): .*errcode 93000"),
    ("{wecom}", 502, r"status 502"),
    ("dingtalk://wrong?endpoint={http}", 200, r"URL 1 \(dingtalk\): .*errcode 310000"),
    ("json://{host}/s3cret", 500, r"URL 1 \(json\): .*status 500"),
    ("nosuchservice://s3cret", 200, r"a URL that Apprise knows"),
    ("mailto://127.0.0.1:1?from=a@example.org&to=b@example.org&mode=insecure&pass=s3cret", 200, r"URL 1 \(mailto\)"),
    ("wecombot://s3cret?endpoint=http://127.0.0.1:1", 200, r"an answer, found none \(Connection refused\)"),
])  # fmt: skip
def test_a_delivery_that_fails_is_a_failure(alerts: Alerts, http: Receiver, url: str, status: int, words: str) -> None:
    alerts.secrets = ["s3cret", "wrong-key", WECOM_KEY]
    http.status = status
    url = url.format(http=http.url, wecom=http.wecom, host=http.url.partition("//")[2])
    done = alerts.run(BAD, url)
    assert done.failed
    assert re.search(words, done.result["msg"]), done.result["msg"]
    assert "It is tried again next time" in done.result["msg"]


def test_who_was_not_reached_is_told_later_and_the_others_not_twice(
    alerts: Alerts, http: Receiver, mail: tuple[Mailbox, str]
) -> None:
    mailbox, mail_url = mail
    http.status = 503
    assert alerts.run(BAD, http.wecom, mail_url).failed
    assert (len(mailbox.mails), http.taken) == (1, [])
    http.status = 200
    assert alerts.run(BAD, http.wecom, mail_url).succeeded()["sent"] == ["URL 1 (wecombot)"]
    assert (len(mailbox.mails), len(http.taken)) == (1, 1)


def test_heartbeat_after_each_verdict_that_was_delivered(alerts: Alerts, http: Receiver) -> None:
    """Else nobody would notice a patrol that died while something was wrong."""
    beat = f"{http.url}/ping/s3cret"
    alerts.secrets = ["s3cret"]

    def beats() -> int:
        return [path for path, _document in http.taken].count("/ping/s3cret")

    assert alerts.run(GOOD, heartbeat_url=beat).succeeded()["heartbeat"] is True
    assert alerts.run(BAD, heartbeat_url=beat).succeeded()["heartbeat"] is True
    assert alerts.run(BAD, http.wecom, heartbeat_url=beat).succeeded()["heartbeat"] is True
    assert beats() == 3
    assert alerts.run(GOOD, "wecombot://x?endpoint=http://127.0.0.1:1", heartbeat_url=beat).failed
    assert alerts.run({**BAD, "checked": [FAILURE]}, heartbeat_url=beat).succeeded()["heartbeat"] is False
    assert beats() == 3
    http.status = 404
    done = alerts.run(GOOD, heartbeat_url=beat)
    assert done.failed
    assert "heartbeat_url: expected a status of 200 to 299, found status 404" in done.result["msg"]
    done = alerts.run(GOOD, heartbeat_url="http://[s3cret")
    assert "heartbeat_url: expected http:// or https:// and a host, found another one" in done.result["msg"]


def test_check_mode_sends_and_remembers_nothing(alerts: Alerts, http: Receiver) -> None:
    done = alerts.run(BAD, http.wecom, heartbeat_url=f"{http.url}/ping", check=True).succeeded()
    assert (done["sent"], done["changed"]) == (["URL 1 (wecombot)"], True)
    assert not http.taken
    assert not alerts.state.exists()


@pytest.mark.parametrize("damage", ["noise", "a list", "a target", "a finding", "its fields", "its time"])
def test_damaged_memory_tells_everything_again(alerts: Alerts, http: Receiver, damage: str) -> None:
    alerts.run(BAD, http.wecom).succeeded()
    (path,) = alerts.state.glob("*.json")
    raw = json.loads(path.read_bytes())
    (target,) = raw["targets"]
    (known,) = raw["targets"][target]["known"].values()
    if damage == "a list":
        raw["targets"] = [1]
    elif damage == "a target":
        raw["targets"][target] = 7
    elif damage == "a finding":
        known["finding"] = "x"
    elif damage == "its fields":
        known["finding"] = {"check": "units"}
    elif damage == "its time":
        known["told"] = 7
    path.write_bytes(os.urandom(50) if damage == "noise" else json.dumps(raw).encode())
    assert alerts.run(BAD, http.wecom).succeeded()["raised"] == 1


@pytest.mark.parametrize(("more", "words"), [
    ({"source": "../etc"}, "option source"),
    ({"verdict": {"failures": "many"}}, "option verdict, failures"),
    ({"verdict": {"scope": "wide"}}, "option verdict, scope"),
])  # fmt: skip
def test_options_that_make_no_sense(alerts: Alerts, more: dict[str, t.Any], words: str) -> None:
    verdict = more.pop("verdict", BAD)
    done = alerts.run(verdict, "wecombot://k", **more)
    assert done.failed
    assert words in done.result["msg"]
