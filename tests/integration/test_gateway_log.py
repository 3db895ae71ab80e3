# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The gateway's log as a client sees it: a full disk, lost permissions, rotation under load, kill -9."""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import json
import os
import subprocess
import typing as t
from pathlib import Path

import pytest

from support.fake_upstream import FakeUpstream
from support.gateway import JSON, GatewayProcess, wait_for
from support.gateway_logs import chains_of, events

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small disk")


@pytest.fixture
def upstream() -> t.Iterator[FakeUpstream]:
    with FakeUpstream() as running:
        yield running


@pytest.fixture
def small_disk(tmp_path: Path) -> t.Iterator[Path]:
    place = tmp_path / "logs"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@AS_ROOT
@pytest.mark.root
def test_full_disk_refuses_audits_and_recovers(tmp_path: Path, upstream: FakeUpstream, small_disk: Path) -> None:
    with GatewayProcess(tmp_path, upstream.url) as gateway:
        acknowledged = []
        for _number in range(30):
            answer = gateway.audit("a" * 100_000)
            if answer.status != 200:
                break
            acknowledged.append(answer.json["trace_id"])
        assert acknowledged
        assert (answer.status, answer.code) == (503, "log_unavailable")
        assert "verdict" not in answer.json
        filler = small_disk / "filler"
        with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
            while True:
                file.write(b"\0" * 512)
        wait_for(lambda: gateway.get("/health").status == 503)
        health = gateway.get("/health").json
        assert health["upstream"] == {"ok": True}
        assert "space" in health["log"]["error"]
        # Space again: logrotate moved the log away.
        moved = tmp_path / "moved"
        moved.write_bytes((small_disk / "audit.log").read_bytes())
        (small_disk / "audit.log").unlink()
        filler.unlink()
        wait_for(lambda: gateway.audit("again").status == 200)
        wait_for(lambda: gateway.get("/health").status == 200)
        assert gateway.stop() == 0
        kept = [
            json.loads(line) for path in (moved, small_disk / "audit.log") for line in path.read_bytes().splitlines()
        ]
        assert set(acknowledged) <= {record["trace_id"] for record in kept}


@AS_ROOT
@pytest.mark.root
@pytest.mark.parametrize("policy", ["refuse", "answer"])
def test_lost_permission_turns_health_red(tmp_path: Path, upstream: FakeUpstream, policy: str) -> None:
    """What a restore with wrong ownership leaves: the service looks fine and cannot write."""
    nobody = 65534
    gateway = GatewayProcess(tmp_path, upstream.url, log={"on_failure": policy})
    try:
        # The interpreter may lie where only root can go: so root it is, but one whom permissions bind.
        gateway.start(prefix=["setpriv", "--bounding-set=-dac_override,-dac_read_search"])
        assert gateway.audit("a").status == 200
        active = gateway.logs / "audit.log"
        active.rename(gateway.logs / "audit.log-1")  # the next record needs a new file
        os.chown(gateway.logs, nobody, nobody)
        answer = gateway.audit("b")
        if policy == "refuse":
            assert (answer.status, answer.code) == (503, "log_unavailable")
        else:
            assert (answer.json["verdict"], answer.json["recorded"]) == ("safe", False)
        wait_for(lambda: gateway.get("/health").status == 503)
        assert "ermission" in gateway.get("/health").json["log"]["error"]
        os.chown(gateway.logs, 0, 0)
        wait_for(lambda: gateway.audit("c").json.get("recorded") is True)
        wait_for(lambda: gateway.get("/health").status == 200)
    finally:
        gateway.kill()


class Crowd:
    """Clients that ask until they are told to stop, and remember what was acknowledged."""

    def __init__(self, gateway: GatewayProcess, clients: int = 4):
        self._gateway = gateway
        self._stop = False
        self.acknowledged: list[str] = []
        self.unexpected: list[t.Any] = []
        self._pool = concurrent.futures.ThreadPoolExecutor(clients)
        self._done = [self._pool.submit(self._ask) for _number in range(clients)]

    def _ask(self) -> None:
        connection = self._gateway.connect()
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            while not self._stop:
                connection.request("POST", "/api/audit", b'{"text":"a"}', JSON)
                reply = connection.getresponse()
                body = json.loads(reply.read())
                if reply.status == 200:
                    self.acknowledged.append(body["trace_id"])
                else:
                    self.unexpected.append(body)

    def end(self) -> list[str]:
        self._stop = True
        for task in self._done:
            task.result(30)
        self._pool.shutdown()
        assert self.unexpected == []
        return self.acknowledged


def trace_ids(logs: Path) -> list[str]:
    """Of all audits; every chain has to be whole."""
    entries = [entry for chain in chains_of(logs).values() for entry in chain]
    return [entry.record.trace_id for entry in entries if entry.content["event"] == "audit"]


def test_rotation_under_load_loses_nothing(tmp_path: Path, upstream: FakeUpstream) -> None:
    with GatewayProcess(tmp_path, upstream.url) as gateway:
        crowd = Crowd(gateway)
        for number in range(4):
            size = len(crowd.acknowledged)
            wait_for(lambda: len(crowd.acknowledged) > size + 20)  # noqa: B023 - called at once
            (gateway.logs / "audit.log").rename(gateway.logs / f"audit.log-{number}")
            wait_for((gateway.logs / "audit.log").exists)
        acknowledged = crowd.end()
        assert gateway.stop() == 0
    recorded = trace_ids(gateway.logs)
    assert len(list(gateway.logs.glob("audit.log-*"))) == 4
    assert sorted(recorded) == sorted(acknowledged)
    assert len(chains_of(gateway.logs)) == 1


def test_kill_loses_no_acknowledged_record(tmp_path: Path, upstream: FakeUpstream) -> None:
    gateway = GatewayProcess(tmp_path, upstream.url)
    acknowledged: list[str] = []
    for _number in range(3):
        with gateway:
            crowd = Crowd(gateway)
            wait_for(lambda: len(crowd.acknowledged) > 30)  # noqa: B023 - called at once
            gateway.kill()
            acknowledged += crowd.end()
    with gateway:
        assert gateway.audit("last").status == 200
        found = gateway.get(f"/api/audit/{acknowledged[0]}")
        assert (found.status, found.json["intact"]) == (200, True)
        assert gateway.stop() == 0
    recorded = trace_ids(gateway.logs)
    assert set(acknowledged) <= set(recorded)
    assert len(recorded) == len(set(recorded))
    assert len(events(gateway.logs, "chain")) == 1  # it went on with its chain each time
