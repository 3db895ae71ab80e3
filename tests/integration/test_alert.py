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

from support.forked_modules import run_forked
from support.modules import ModuleRun
from support.processes import free_ports
from support.receivers import DINGTALK_SECRET, WECOM_KEY, Mailbox, Receiver, receiver, smtp_server

FAILURE = {
    "check": "snapshot", "thing": "logs", "expected": "one younger than 24 hours",
    "found": "000012-3f9a2c1d, 30 hours ago", "hint": "Look at the timer.",
    "instance": "guard-01",
}  # fmt: skip
BAD: dict[str, t.Any] = {"ok": False, "failures": [FAILURE], "warnings": [], "not_checked": []}
GOOD: dict[str, t.Any] = {"ok": True, "failures": [], "warnings": [], "not_checked": []}


class Alerts:
    """Runs the module for one source; what it prints and remembers is searched for secrets."""

    def __init__(self, state: pathlib.Path):
        self.state = state
        self.secrets: list[str] = []

    def run(self, verdict: dict[str, t.Any], *urls: str, **more: t.Any) -> ModuleRun:
        arguments = {"source": "guard-01", "verdict": verdict, "urls": list(urls), "memory_dir": str(self.state)}
        check = more.pop("check", False)
        done = run_forked("alert", {**arguments, **more}, {}, check=check)
        remembered = (
            [path.read_text() for path in self.state.rglob("*") if path.is_file()] if self.state.exists() else []
        )
        for secret in self.secrets:
            for text in (json.dumps(done.result), done.stderr, *remembered):
                assert secret not in text
        return done


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


def test_a_long_verdict_is_cut_to_what_wecom_takes(alerts: Alerts, http: Receiver) -> None:
    many = [{**FAILURE, "instance": f"守卫-{number:03d}"} for number in range(200)]
    assert alerts.run({**BAD, "failures": many}, http.wecom).succeeded()["raised"] == 200
    (text,) = http.texts
    assert len(text.encode()) <= 4096
    shown = text.count("- 守卫-")
    left = int(text.splitlines()[-1].split()[1])
    assert shown + left == 200 + 1  # and the line of what is open


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


def test_heartbeat_only_after_a_good_verdict_and_delivery(alerts: Alerts, http: Receiver) -> None:
    beat = f"{http.url}/ping/s3cret"
    alerts.secrets = ["s3cret"]

    def beats() -> int:
        return [path for path, _document in http.taken].count("/ping/s3cret")

    assert alerts.run(GOOD, heartbeat_url=beat).succeeded()["heartbeat"] is True
    assert beats() == 1
    assert alerts.run(BAD, heartbeat_url=beat).succeeded()["heartbeat"] is False
    assert alerts.run(GOOD, "wecombot://x?endpoint=http://127.0.0.1:1", heartbeat_url=beat).failed
    assert beats() == 1
    http.status = 404
    done = alerts.run(GOOD, heartbeat_url=beat)
    assert done.failed
    assert "heartbeat_url: expected a status of 200 to 299, found status 404" in done.result["msg"]


def test_check_mode_sends_and_remembers_nothing(alerts: Alerts, http: Receiver) -> None:
    done = alerts.run(BAD, http.wecom, heartbeat_url=f"{http.url}/ping", check=True).succeeded()
    assert (done["sent"], done["changed"]) == (["URL 1 (wecombot)"], True)
    assert not http.taken
    assert not alerts.state.exists()


def test_damaged_memory_tells_everything_again(alerts: Alerts, http: Receiver) -> None:
    alerts.run(BAD, http.wecom).succeeded()
    (path,) = alerts.state.glob("*.json")
    path.write_bytes(os.urandom(50))
    assert alerts.run(BAD, http.wecom).succeeded()["raised"] == 1


@pytest.mark.parametrize(("more", "words"), [
    ({"source": "../etc"}, "option source"),
    ({"verdict": {"failures": "many"}}, "option verdict, failures"),
])  # fmt: skip
def test_options_that_make_no_sense(alerts: Alerts, more: dict[str, t.Any], words: str) -> None:
    verdict = more.pop("verdict", BAD)
    done = alerts.run(verdict, "wecombot://k", **more)
    assert done.failed
    assert words in done.result["msg"]
