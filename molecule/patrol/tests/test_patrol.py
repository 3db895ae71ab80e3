# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the patrol finds and whom it tells, by its unit and with a receiver that is really asked. In this order."""

from __future__ import annotations

import datetime
import json
import pathlib
import time
import typing as t

import pytest
import testinfra

ROOT = "/data/qwen3guard-gen-web"
STORE = "/srv/store"
STATE = "/var/lib/guardops-qwen3guard"
SETTINGS = "/etc/guardops-qwen3guard/patrol.json"
METRICS = "/var/lib/prometheus/node-exporter/guardops_qwen3guard.prom"
PATROL = "qwen3guard-patrol.service"
REPORT = "qwen3guard-report.service"
PAGE = "/var/www/html/guards.html"
BACKUP = "qwen3guard-backup@logs.service"
GATEWAY = "qwen3guard-gateway.service"
# As in inventory/hosts.yml.
WECOM, HEARTBEAT = "5b0e9d3c-wecom-key-of-the-test", "77c1a4e2-heartbeat-of-the-test"
MOST_EXPOSED = 2.4  # what `systemd-analyze security` may say of the unit, from 0 (locked in) to 10
_PATIENCE = 300  # seconds; a playbook's run takes a few, on a busy machine many: the units are nice

# Looks for secrets where every user of the host can look, until a file is there.
WATCH = """
import os, pathlib, sys
secrets, looks = [word.encode() for word in sys.stdin.read().split()], 0
while not os.path.exists("/run/enough"):
    looks += 1
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes() + path.with_name("environ").read_bytes()
        except OSError:
            continue # it has ended
        if any(secret in words for secret in secrets):
            print("seen:", words)
print("looked" if looks > 10 else "hardly looked")
"""
AUDIT = """
import json, sys, urllib.request
for number in range(int(sys.argv[1])):
    request = urllib.request.Request("http://127.0.0.1:8080/api/audit", json.dumps({"text": f"text {number}"}).encode(),
                                     {"Content-Type": "application/json"})
    assert "trace_id" in json.load(urllib.request.urlopen(request, timeout=30))
"""


class Receiver:
    """What the receiver on the host took since it was asked last."""

    TAKEN, REFUSE = "/run/receiver/taken", "/run/receiver/refuse"

    def __init__(self, host: testinfra.host.Host) -> None:
        self._host = host
        self._seen = 0

    def start(self) -> None:
        program = pathlib.Path(__file__).with_name("receiver.py").read_text(encoding="utf-8")
        self._host.run_expect([0], "mkdir -m 0700 /run/receiver && printf %%s %s >/run/receiver/receiver.py", program)
        self._host.run_expect(
            [0],
            "systemd-run --quiet --unit=receiver --property=UMask=0077"
            f" python3 /run/receiver/receiver.py 8099 {self.TAKEN} {self.REFUSE}",
        )
        until("the receiver", lambda: self._host.socket("tcp://127.0.0.1:8099").is_listening)

    def stop(self) -> None:
        self._host.run_expect([0], "systemctl stop receiver && rm -r /run/receiver")

    def taken(self) -> tuple[list[str], list[str]]:
        """New messages, as people read them in WeCom, and new requests of the heartbeat."""
        lines = self._host.run(f"cat {self.TAKEN}").stdout.splitlines()
        new = [json.loads(line) for line in lines[self._seen :]]
        self._seen = len(lines)
        messages = [told for told in new if told["method"] == "POST" and not told["refused"]]
        for told in messages:
            assert told["path"] == f"/cgi-bin/webhook/send?key={WECOM}"
            assert told["type"].startswith("application/json")
            document = json.loads(told["body"])
            assert set(document) == {"msgtype", "markdown"}
            assert document["msgtype"] == "markdown"
            assert 0 < len(document["markdown"]["content"].encode()) <= 4096
        beats = [told["path"] for told in new if told["method"] == "GET"]
        assert set(beats) <= {f"/ping/{HEARTBEAT}"}
        return [json.loads(told["body"])["markdown"]["content"] for told in messages], beats

    def message(self) -> str:
        """The one message that comes, and its text."""
        found: list[str] = []

        def came() -> bool:
            found.extend(self.taken()[0])
            return bool(found)

        until("a message", came)
        assert len(found) == 1
        return found[0]


@pytest.fixture(scope="module")
def receiver(host: testinfra.host.Host) -> t.Iterator[Receiver]:
    made = Receiver(host)
    made.start()
    yield made
    made.stop()


def until(what: str, condition: t.Callable[[], bool]) -> None:
    """Wait for what a unit does in the background."""
    end = time.monotonic() + _PATIENCE
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {_PATIENCE} s"
        time.sleep(0.5)


def patrol(host: testinfra.host.Host, ends_well: bool) -> dict[str, t.Any]:
    """The verdict of a patrol that the unit makes."""
    done = host.run(f"systemctl start {PATROL}")
    words = host.run(f"journalctl --quiet --output=cat --lines=60 --unit={PATROL}").stdout
    assert (done.rc == 0) == ends_well, words
    return read_verdict(host)


def read_verdict(host: testinfra.host.Host) -> dict[str, t.Any]:
    return json.loads(host.file(f"{STATE}/verdict.json").content_string)


def found(verdict: dict[str, t.Any]) -> set[tuple[str, str]]:
    return {(item["check"], item["thing"]) for item in verdict["failures"]}


def part(message: str, head: str) -> str:
    """What a message says below New or Well again."""
    _before, _head, after = message.partition(f"{head}:\n")
    return "\n".join(line for line in after.split("\nOpen:")[0].split("\nWell again:")[0].splitlines())


def ask(host: testinfra.host.Host, audits: int) -> None:
    host.run_expect([0], f"python3 -c %s {audits}", AUDIT)


@pytest.mark.parametrize(("timer", "hours"), [("qwen3guard-patrol.timer", [2, 14]), ("qwen3guard-report.timer", [5])])
def test_timer_comes_in_the_zone_that_was_asked_for(host: testinfra.host.Host, timer: str, hours: list[int]) -> None:
    assert host.service(timer).is_enabled
    (told,) = json.loads(host.check_output(f"systemctl list-timers --output=json {timer}"))
    shanghai = datetime.timezone(datetime.timedelta(hours=8))
    there = datetime.datetime.fromtimestamp(told["next"] / 1e6, shanghai)
    assert there.hour in hours
    assert there.minute <= 5  # the host's own delay
    written = host.check_output(f"systemctl cat {timer}").splitlines()
    for hour in hours:
        assert f"OnCalendar=*-*-* {hour:02}:00:00 Asia/Shanghai" in written


@pytest.mark.parametrize("unit", [PATROL, REPORT])
def test_unit_may_do_little(host: testinfra.host.Host, unit: str) -> None:
    rated = host.run(f"systemd-analyze security --no-pager {unit}").stdout.splitlines()[-1]
    print(f"{host.backend.name}: {rated}")
    assert float(rated.split(":")[1].split()[0]) <= MOST_EXPOSED
    shown = host.check_output(f"systemctl show --property=ReadWritePaths,ProtectSystem {unit}")
    assert "ProtectSystem=strict" in shown
    assert ROOT not in shown


def test_good_host(host: testinfra.host.Host, receiver: Receiver) -> None:
    host.run_expect([0], f"printf %s >/run/receiver/secrets '{WECOM} {HEARTBEAT}'")
    watched = host.run(
        f"python3 -c %s </run/receiver/secrets & systemctl start {PATROL}; touch /run/enough; wait; rm /run/enough",
        WATCH,
    )
    assert watched.stdout.split("\n")[0] == "looked", watched.stdout
    assert host.check_output(f"systemctl show --property=Result --value {PATROL}") == "success"
    verdict = read_verdict(host)
    assert verdict["ok"] is True
    assert verdict["failures"] == []
    left = {item["check"] for item in verdict["not_checked"]}
    assert {"object_lock", "content", "certificates"} <= left
    assert not left & {"canary", "service", "log_growth", "archived", "units", "timers"}
    assert host.file(f"{STATE}/verdict.json").mode == 0o600
    # The first message tries the way, or tells warnings.
    (message,), beats = receiver.taken()
    assert message.startswith("**Guard guardops-patrol-")
    assert len(beats) == 1
    host.run_expect([0], f"test -s {STORE}/*/patrol.json && ! ls {STORE}/*/canary-*")


def test_metrics_are_for_everybody(host: testinfra.host.Host) -> None:
    metrics = host.file(METRICS)
    assert metrics.mode == 0o644
    name = host.check_output("hostname")
    values = dict(line.rsplit(" ", 1) for line in metrics.content_string.splitlines() if not line.startswith("#"))
    assert values["guardops_qwen3guard_patrol_ok"] == "1"
    assert values[f'guardops_qwen3guard_service_up{{guard="{name}"}}'] == "1"
    assert float(values[f'guardops_qwen3guard_snapshot_size_bytes{{guard="{name}",layer="model"}}']) > 100_000


def test_page_is_for_a_web_server(host: testinfra.host.Host) -> None:
    """What the unit writes can be read by others, and shows this guard."""
    host.run_expect([0], f"systemctl start {REPORT}")
    page = host.file(PAGE)
    assert page.mode == 0o644
    text = page.content_string
    assert text.startswith("<!DOCTYPE html>")
    assert host.check_output("hostname") in text
    assert all(secret not in text for secret in (WECOM, HEARTBEAT))


def test_playbook_starts_the_unit_and_tells_its_verdict(host: testinfra.host.Host, receiver: Receiver) -> None:
    """As AWX does: with the unit's own memory, so that nothing is told again."""
    receiver.taken()
    before = host.check_output(f"systemctl show --property=InvocationID {PATROL}")
    done = host.run("qwen3guard patrol -e guardops_patrol_unit=true")
    assert done.rc == 0, done.stdout
    assert host.check_output(f"systemctl show --property=InvocationID {PATROL}") != before
    assert "1 instances in " in done.stdout
    messages, beats = receiver.taken()
    assert (messages, len(beats)) == ([], 1)


def test_failed_backup_is_told_at_once_and_once(host: testinfra.host.Host, receiver: Receiver) -> None:
    """By the unit itself, without a patrol: the role backup knows of no one to tell."""
    ask(host, 1)
    host.run_expect([0], "mv /etc/guardops-qwen3guard/trial.key /etc/guardops-qwen3guard/trial.away")
    assert host.run(f"systemctl start {BACKUP}").rc != 0
    message = receiver.message()
    assert f"units {BACKUP}" in part(message, "New")
    assert "1 new" in message.splitlines()[0]
    assert host.run(f"systemctl start {BACKUP}").rc != 0
    until("the end of the alert", lambda: '"count": 2' in host.file(f"{STATE}/failures/{BACKUP}.json").content_string)
    assert receiver.taken() == ([], [])


def test_patrol_of_what_cannot_be_reached(host: testinfra.host.Host, receiver: Receiver) -> None:
    """The store is gone and so is who has to be told: the unit fails, and says no secret."""
    host.run_expect([0], f"touch {receiver.REFUSE} && mv {STORE} {STORE}.away")
    try:
        verdict = patrol(host, ends_well=False)
    finally:
        host.run_expect([0], f"mv {STORE}.away {STORE} && rm {receiver.REFUSE}")
    assert ("repository", "store") in found(verdict)
    words = host.check_output(f"journalctl --quiet --output=cat --unit={PATROL}")
    assert "URL 1 (wecombot): expected a service that takes the message, found status 200, errcode 93000" in words
    assert receiver.taken() == ([], [])


def test_patrol_tells_what_is_new_once(host: testinfra.host.Host, receiver: Receiver) -> None:
    """But not what the unit has told already."""
    host.run("systemd-run --quiet --wait --unit=qwen3guard-of-the-test false")
    host.run_expect([0], f"mv {STORE}/$(hostname)/model {STORE}/model.away")
    # A gateway that answers and records nothing: somebody left the settings of a benchmark behind.
    host.run_expect(
        [0],
        f"""sed 's/"log": {{/"log": {{"mode": "none",/' {ROOT}/config/gateway/config.json >/run/none.json
        chmod 0644 /run/none.json && mkdir -p /run/systemd/system/{GATEWAY}.d
        systemctl cat {GATEWAY} | sed -n '/^ExecStart=/s/--config .*/--config \\/run\\/none.json/p' |
            sed '1i [Service]\\nExecStart=' >/run/systemd/system/{GATEWAY}.d/none.conf
        systemctl daemon-reload && systemctl restart {GATEWAY}""",
    )
    ask(host, 20)  # more than it had answered before
    broken = {
        ("units", "qwen3guard-of-the-test.service"),
        ("snapshot", "model"),
        ("log_growth", f"{ROOT}/logs/audit.log"),
    }
    verdict = patrol(host, ends_well=False)
    assert verdict["ok"] is False
    assert found(verdict) == {*broken, ("units", BACKUP)}
    message = receiver.message()
    new = part(message, "New")
    assert [thing for _check, thing in broken if thing not in new] == []
    assert BACKUP not in message
    assert "Open: failures 4," in message
    assert found(patrol(host, ends_well=False)) == {*broken, ("units", BACKUP)}
    assert receiver.taken() == ([], [f"/ping/{HEARTBEAT}"])  # a patrol that finds something is alive too
    assert "guardops_qwen3guard_patrol_ok 0\n" in host.file(METRICS).content_string


def test_all_is_well_again(host: testinfra.host.Host, receiver: Receiver) -> None:
    host.run_expect([0], "mv /etc/guardops-qwen3guard/trial.away /etc/guardops-qwen3guard/trial.key")
    host.run_expect([0], f"systemctl start {BACKUP}")
    message = receiver.message()
    assert f"units {BACKUP}" in part(message, "Well again")
    assert not part(message, "New")
    host.run_expect([0], f"mv {STORE}/model.away {STORE}/$(hostname)/model")
    host.run_expect([0], "systemctl reset-failed qwen3guard-of-the-test.service")
    host.run_expect([0], f"rm -r /run/systemd/system/{GATEWAY}.d; systemctl daemon-reload; systemctl restart {GATEWAY}")
    ask(host, 1)
    assert patrol(host, ends_well=True)["ok"] is True
    (message,), beats = receiver.taken()
    well = part(message, "Well again")
    assert [thing for thing in ("qwen3guard-of-the-test", "snapshot model", "audit.log") if thing not in well] == []
    assert BACKUP not in message
    assert len(beats) == 1


def test_secrets_are_for_root_alone(host: testinfra.host.Host) -> None:
    """After all of this: in one file, and in no message of the system's."""
    settings = host.file(SETTINGS)
    assert (settings.user, settings.group, settings.mode) == ("root", "root", 0o600)
    for secret in (WECOM, HEARTBEAT):
        have = host.run(f"grep -rlsF -e {secret} /etc /opt /srv /data /tmp /usr/local /var/lib /var/tmp").stdout.split()
        assert have == [SETTINGS]
        assert host.run(f"journalctl --quiet --no-pager --grep={secret}").stdout == ""
        assert secret not in host.check_output(f"systemctl show {PATROL}")
