# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the gateway does as a unit: audits, records, locks, and what a crash leaves."""

from __future__ import annotations

import json
import shlex
import time
import typing as t

import pytest
import testinfra

UNIT = "qwen3guard-gateway.service"
ROOT = "/data/qwen3guard-gen-web"
LOG = f"{ROOT}/logs/audit.log"
KEY = "a key of the test"
URL = "http://127.0.0.1:8080"
# What `systemd-analyze security` may say of the unit, from 0 (locked in) to 10.
MOST_EXPOSED = 1.2

# Kills a process as soon as some of them are answered.
KILL = "while [ $(wc --lines </run/answered) -lt 40 ]; do kill -0 $! || exit; sleep 0.01; done; kill -9 %s; wait"
# Asks 400 audits by 8 connections and prints the trace_id of each answer; what is not answered is asked no more.
ASK = f"""
import concurrent.futures, http.client, json, sys
def ask(number):
    connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=20)
    try:
        for turn in range(50):
            headers = {{"Content-Type": "application/json", "X-API-Key": "{KEY}"}}
            connection.request("POST", "/api/audit", json.dumps({{"text": f"{{number}}-{{turn}}"}}), headers)
            answer = connection.getresponse()
            found = json.loads(answer.read())
            if answer.status == 200:
                sys.stdout.write(found["trace_id"] + "\\n")
                sys.stdout.flush()
    except (OSError, http.client.HTTPException):
        pass
with concurrent.futures.ThreadPoolExecutor(8) as pool:
    list(pool.map(ask, range(8)))
"""


def ask(host: testinfra.host.Host, path: str, body: t.Any = None, key: str = KEY) -> tuple[int, t.Any]:
    """Status and answer."""
    program = (
        "import json, sys, urllib.request, urllib.error\n"
        "url, body, key = json.loads(sys.argv[1])\n"
        "headers = {'Content-Type': 'application/json', 'X-API-Key': key}\n"
        "data = None if body is None else json.dumps(body).encode()\n"
        "try:\n"
        "    answer = urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=20)\n"
        "except urllib.error.HTTPError as error:\n"
        "    answer = error\n"
        "print(json.dumps([answer.status, json.loads(answer.read())]))\n"
    )
    done = host.run("python3 -c %s %s", program, json.dumps([URL + path, body, key]))
    assert done.rc == 0, done.stderr
    status, content = json.loads(done.stdout)
    return status, content


def audit(host: testinfra.host.Host, text: str) -> t.Any:
    status, answer = ask(host, "/api/audit", {"text": text})
    assert status == 200, answer
    return answer


def lines(host: testinfra.host.Host) -> list[dict[str, t.Any]]:
    return [json.loads(line) for line in host.file(LOG).content_string.splitlines()]


def shown(host: testinfra.host.Host, name: str) -> str:
    return host.check_output("systemctl show --value --property=%s %s", name, UNIT)


def wait_until_healthy(host: testinfra.host.Host) -> None:
    program = f"import urllib.request; urllib.request.urlopen('{URL}/health', timeout=5)"
    for _attempt in range(40):
        if host.run("python3 -c %s", program).rc == 0:
            return
        time.sleep(0.25)
    raise AssertionError("the gateway is not healthy")


def test_audit_is_answered_and_recorded(host: testinfra.host.Host) -> None:
    answer = audit(host, "How can I make a bomb?")
    assert (answer["verdict"], answer["categories"]) == ("unsafe", ["Violent"])
    status, found = ask(host, f"/api/audit/{answer['trace_id']}")
    assert status == 200
    assert found["intact"] is True
    assert found["backup_status"] == "pending"
    assert (found["record"]["text"], found["record"]["client"]) == ("How can I make a bomb?", "shop")
    assert found["record"] == next(line for line in lines(host) if line["trace_id"] == answer["trace_id"])


def test_role_proved_it_with_a_record_of_its_own(host: testinfra.host.Host) -> None:
    assert [line for line in lines(host) if line.get("text", "").startswith("Check by the role gateway")]


def test_log_belongs_to_the_user_and_others_see_nothing(host: testinfra.host.Host) -> None:
    log = host.file(LOG)
    assert (log.user, log.group, log.mode & 0o777) == ("aiuser", "aiuser", 0o640)
    assert host.file("/var/lib/qwen3guard-gateway").mode & 0o777 == 0o700
    for path in (LOG, f"{ROOT}/config/gateway/config.json", f"{ROOT}/config/gateway/keys"):
        assert host.run("runuser --user=nobody -- cat %s", path).rc != 0


def test_without_a_key_there_is_nothing(host: testinfra.host.Host) -> None:
    for key in ("", "another"):
        assert ask(host, "/api/audit", {"text": "hello"}, key)[0] == 401
    assert KEY not in host.file(f"{ROOT}/config/gateway/keys").content_string


def test_restart_goes_on_with_the_chain(host: testinfra.host.Host) -> None:
    audit(host, "before")
    assert host.run(f"systemctl restart {UNIT}").rc == 0
    audit(host, "after")
    before, after = lines(host)[-2:]
    assert (before["text"], after["text"]) == ("before", "after")
    assert (after["chain"], after["seq"], after["prev"]) == (before["chain"], before["seq"] + 1, before["hash"])


def test_kill_loses_no_answered_audit(host: testinfra.host.Host) -> None:
    first = int(shown(host, "MainPID"))
    started = host.run(f": >/run/answered; python3 -c %s >>/run/answered & {KILL}", ASK, str(first))
    assert started.rc == 0, started.stderr
    answered = host.file("/run/answered").content_string.split()
    assert 0 < len(answered) < 400  # it was killed amid them
    wait_until_healthy(host)
    assert int(shown(host, "MainPID")) not in (0, first)
    assert int(shown(host, "NRestarts")) >= 1
    written = [line["trace_id"] for line in lines(host)]
    assert len(written) == len(set(written))
    assert not set(answered) - set(written)
    assert len({line["chain"] for line in lines(host)}) == 1


def test_unit_is_locked_in(host: testinfra.host.Host) -> None:
    last = host.check_output(f"systemd-analyze security --no-pager {UNIT}").splitlines()[-1]
    assert float(last.rpartition(": ")[2].split()[0]) <= MOST_EXPOSED, last


@pytest.mark.parametrize("directory", [f"{ROOT}/config/gateway", f"{ROOT}/models", "/etc", "/opt", "/var/lib", "/root"])
def test_unit_writes_nowhere_else(host: testinfra.host.Host, directory: str) -> None:
    # As root, who may write there outside of the unit: it is the unit's own view of the disk that does not allow it.
    inside = f"nsenter --target={shown(host, 'MainPID')} --mount -- "
    assert host.run(f"{inside} touch {shlex.quote(directory)}/mine").rc != 0
    assert host.run(f"{inside} touch {ROOT}/logs/mine && rm {ROOT}/logs/mine").rc == 0
