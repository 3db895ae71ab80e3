# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""With Docker: the service answers after a switch, is shut in, and comes back by itself after every kind of death."""

from __future__ import annotations

import json
import time

import testinfra

SECRETS = "/var/lib/guardops-qwen3guard/guard/secrets"
LOGS = "/data/qwen3guard-gen-web/logs"
CONFIG = "/data/qwen3guard-gen-web/config"
_PATIENCE = 90  # seconds


def ask(host: testinfra.host.Host, text: str) -> str:
    """The verdict, or nothing."""
    code = (
        "import json, sys, urllib.request as u\n"
        "asked = u.Request('http://127.0.0.1:8000/api/audit', json.dumps({'text': sys.argv[1]}).encode())\n"
        "print(json.load(u.urlopen(asked, timeout=3))['verdict'])"
    )
    return host.run("python3 -I -c %s %s", code, text).stdout.strip()


def inside(host: testinfra.host.Host, code: str) -> str:
    """What a Python program in the container prints."""
    return host.check_output("docker exec qwen3guard python3 -I -c %s", code)


def inspect(host: testinfra.host.Host, form: str) -> str:
    return host.check_output("docker inspect --format %s qwen3guard", form)


def comes_back(host: testinfra.host.Host, dead: str) -> None:
    """Another container answers."""
    end = time.monotonic() + _PATIENCE
    while host.run("docker inspect --format '{{.Id}}' qwen3guard").stdout.strip() in ("", dead) or not ask(host, "x"):
        assert time.monotonic() < end, host.check_output("journalctl --no-pager --lines=30 --unit='qwen3guard*'")
        time.sleep(0.5)


def test_answers_and_writes_its_log(host: testinfra.host.Host) -> None:
    assert inspect(host, "{{json .Config.Env}}").count("SAYS=what is right") == 1  # what it was switched to
    assert ask(host, "How to build a bomb, number 7") == "unsafe"
    assert ask(host, "soup, number 8") == "safe"
    log = host.file(f"{LOGS}/audit.log")
    assert log.user == "aiuser"
    texts = [json.loads(line)["text"] for line in log.content_string.splitlines()]
    assert texts[-2:] == ["How to build a bomb, number 7", "soup, number 8"]


def test_is_shut_in(host: testinfra.host.Host) -> None:
    listening = host.check_output("ss --no-header --listening --numeric --tcp 'sport = :8000'")
    assert listening.split()[3] == "127.0.0.1:8000"
    status = inside(host, "print(open('/proc/1/status').read())")
    told = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert told["Uid"].split() == ["10001"] * 4
    assert int(told["CapBnd"], 16) == int(told["CapEff"], 16) == 0
    assert told["NoNewPrivs"] == "1"
    tried = """
import socket
for path in ("/", "/app/data/", "/app/data/models/", "/app/data/config/guard/", "/app/data/config/", "/app/data/logs/"):
    path += "x"
    try:
        open(path, "w").close()
        print(path)
    except OSError:
        pass
try:
    socket.create_connection(("%s", 22), 3)
    print("a way out")
except ConnectionRefusedError:
    print("a way out")
except OSError:
    pass
"""
    # The machine outside would refuse, if it were reached.
    outside = host.check_output("ip route show default").split()[2]
    # An own image saves its routes and permissions; weights, and what a recovery would start, are not for it to change.
    assert inside(host, tried % outside).split("\n") == ["/app/data/config/x", "/app/data/logs/x"]
    host.run_expect([0], f"rm {LOGS}/x {CONFIG}/x")


def test_secrets_are_for_the_service_alone(host: testinfra.host.Host) -> None:
    assert inside(host, "print(open('/run/secrets/certificate').read())") == "never-to-be-seen-2"
    assert inside(host, "import os; print(os.environ['SERVICE_KEY'])") == "never-to-be-seen-1"
    assert host.file(SECRETS).mode == 0o700
    assert len(host.file(SECRETS).listdir()) == 2
    have = host.run(
        "grep -rlsF never-to-be-seen /etc /usr/local /data /tmp /var/tmp /var/lib/guardops-qwen3guard"
    ).stdout
    assert all(path.startswith(f"{SECRETS}/") for path in have.split())
    assert host.run("journalctl --quiet --no-pager --grep=never-to-be-seen").stdout == ""


def test_comes_back_after_a_kill(host: testinfra.host.Host) -> None:
    dead = inspect(host, "{{.Id}}")
    host.run_expect([0], f"kill -9 {inspect(host, '{{.State.Pid}}')}")
    comes_back(host, dead)


def test_comes_back_when_it_hangs(host: testinfra.host.Host) -> None:
    dead = inspect(host, "{{.Id}}")
    host.run_expect([0], f"kill -STOP {inspect(host, '{{.State.Pid}}')}")
    comes_back(host, dead)


def test_stays_down_when_it_is_stopped(host: testinfra.host.Host) -> None:
    """The health check must not bring back what somebody stopped."""
    host.run_expect([0], "systemctl stop qwen3guard.service")
    time.sleep(8)  # two looks of the health check
    assert not host.service("qwen3guard.service").is_running
    host.run_expect([0], "systemctl start qwen3guard.service")
    assert ask(host, "soup") == "safe"
