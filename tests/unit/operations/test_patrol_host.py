# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a patrol finds on a host: logs that stop, records that stay, disks that fill, units, certificates."""

from __future__ import annotations

import contextlib
import datetime
import gzip
import http.server
import json
import os
import pathlib
import threading
import typing as t

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sample_instance.chained import ChainedWriter

from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import (
    live_ends,
    patrol_logs,
    patrol_system,
)
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.patrol_findings import Findings, Limits
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.gpg import Gpg

NOW = datetime.datetime(2026, 11, 23, 12, 0, tzinfo=datetime.timezone.utc)
HOUR = datetime.timedelta(hours=1)
DAY = 86400.0


def checks(found: list[t.Any]) -> set[tuple[str, str]]:
    return {(item.check, item.thing) for item in found}


# -- the ends of logs ----------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=st.integers(0, 5), sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4), data=st.data())
def test_every_number_is_found_by_bisection(
    tmp_path_factory: pytest.TempPathFactory, before: int, sizes: list[int], data: st.DataObject
) -> None:
    writer = ChainedWriter(tmp_path_factory.mktemp("logs") / "audit.log")
    writer.append(before)
    writer.new_chain()
    for number, size in enumerate(sizes):
        if number:
            os.utime(writer.rotate(f"audit.log-{number}"), (number, number))
        writer.append(size)
    log = live_ends.find_log(str(writer.path))
    newest = live_ends.newest_record(log)
    assert newest is not None
    assert (newest.chain, newest.seq) == (writer.chain, writer.seq)
    wanted = data.draw(st.integers(1, writer.seq))
    found = live_ends.find_number(log, writer.chain, wanted)
    assert found is not None
    assert (found.chain, found.seq) == (writer.chain, wanted)


def test_what_is_compressed_already_is_told_by_the_first_record_after_it(tmp_path: pathlib.Path) -> None:
    writer = ChainedWriter(tmp_path / "audit.log")
    writer.append(9)
    old = writer.rotate("audit.log-1")
    pathlib.Path(f"{old}.gz").write_bytes(gzip.compress(old.read_bytes()))
    old.unlink()
    writer.append(5)
    log = live_ends.find_log(str(writer.path))
    assert log == [writer.path]
    found = live_ends.find_number(log, writer.chain, 3)
    assert found is not None
    assert found.seq == 11


def test_a_torn_last_line_and_an_empty_active_file_do_not_hide_the_newest_record(tmp_path: pathlib.Path) -> None:
    writer = ChainedWriter(tmp_path / "audit.log")
    writer.append(3)
    writer.rotate("audit.log-20261123")
    (tmp_path / "audit.log.torn-1").write_bytes(b'{"chain":"')
    newest = live_ends.newest_record(live_ends.find_log(str(writer.path)))
    assert newest is not None
    assert newest.seq == 4
    with writer.path.open("ab") as output:
        output.write(b'{"chain":"torn')
    assert live_ends.newest_record(live_ends.find_log(str(writer.path))) == newest


def test_a_last_line_longer_than_the_first_look(tmp_path: pathlib.Path) -> None:
    writer = ChainedWriter(tmp_path / "audit.log")
    writer.append(1, text="x" * 300_000)
    newest = live_ends.newest_record(live_ends.find_log(str(writer.path)))
    assert newest is not None
    assert newest.seq == 2


# -- growth, and what is archived ----------------------------------------------------------------------------------

HEALTHY: dict[str, t.Any] = {"status": "ok", "counters": {"audits": {"safe": 7, "unsafe": 2}}}


def look(
    path: pathlib.Path, health: t.Any = "healthy", state: dict[str, t.Any] | None = None,
    archived: dict[str, int] | None = None, **limits: float,
) -> Findings:  # fmt: skip
    findings = Findings("guard-01")
    findings.facts["records"] = {"archived": archived or {}}
    health = HEALTHY if health == "healthy" else health
    patrol_logs.check_logs(str(path), health, {} if state is None else state, Limits(**limits), NOW, findings)
    return findings


def test_a_log_that_grows_and_is_archived_is_fine(tmp_path: pathlib.Path) -> None:
    writer = ChainedWriter(tmp_path / "audit.log", start=NOW - HOUR)
    writer.append(20, step=60)
    findings = look(writer.path, archived={writer.chain: 11})
    assert not findings.failures
    assert findings.facts["not_archived"] == 10
    assert findings.facts["oldest_not_archived"] == (NOW - HOUR).timestamp() + 10 * 60
    assert findings.facts["last_record"] == (NOW - HOUR).timestamp() + 19 * 60


def test_silence_while_the_service_answers_is_a_failure(tmp_path: pathlib.Path) -> None:
    writer = ChainedWriter(tmp_path / "audit.log", start=NOW - 30 * HOUR)
    archived = {writer.chain: 1}
    assert checks(look(writer.path, archived=archived).failures) == {("log_growth", str(writer.path))}
    assert not look(writer.path, archived=archived, silence_hours=31).failures
    # Where it does not answer, that is the failure, and nothing can be said about growth.
    findings = look(writer.path, None, archived=archived)
    assert not findings.failures
    assert ("log_growth", str(writer.path)) in checks(findings.not_checked)


def test_audits_without_records_are_found_at_once(tmp_path: pathlib.Path) -> None:
    writer = ChainedWriter(tmp_path / "audit.log", start=NOW)
    state: dict[str, t.Any] = {}

    def failed(audits: int | None) -> bool:
        health = None if audits is None else {"counters": {"audits": {"safe": audits}}}
        found = look(writer.path, health, state, {writer.chain: writer.seq}).failures
        return ("log_growth", str(writer.path)) in checks(found)

    assert not failed(100)
    assert not failed(100)  # nobody asked
    assert failed(130)
    assert failed(130)  # nobody asked since, and nothing is well for that
    writer.append(30)
    assert not failed(160)
    assert not failed(None)  # it does not answer
    assert not failed(160)
    assert failed(161)
    assert not failed(3)  # it was started anew
    assert failed(4)


def test_records_that_do_not_get_into_the_repository_are_a_failure(tmp_path: pathlib.Path) -> None:
    writer = ChainedWriter(tmp_path / "audit.log", start=NOW - 50 * HOUR)
    writer.append(50, step=3600)
    findings = look(writer.path, archived={writer.chain: 20})
    (failure,) = findings.failures
    assert (failure.check, failure.found) == ("archived", "31 records are not there, the oldest for 31 hours")
    assert not look(writer.path, archived={writer.chain: 40}).failures
    # Nothing of this chain is there at all.
    assert look(writer.path, archived={"f" * 16: 99}).facts["not_archived"] == 51


def test_a_log_that_cannot_be_read_is_a_failure(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "nowhere" / "audit.log"
    assert checks(look(path).failures) == {("log_growth", str(path))}


def test_records_without_numbers_are_not_counted_and_that_is_said(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "audit.log"
    path.write_text(json.dumps({"trace_id": "qwg-20261123-8b-7f3a9c21", "time": "2026-11-23T11:59:00Z"}) + "\n")
    findings = look(path)
    assert not findings.failures
    assert ("archived", str(path)) in checks(findings.not_checked)


# -- the service ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def service(status: int, body: bytes) -> t.Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: t.Any) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/health"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(("status", "body", "words"), [
    (200, json.dumps(HEALTHY).encode(), ""),
    (200, b"fine", ""),  # another service than the gateway
    (503, b'{"upstream": "upstream_down: refused", "log": "ok"}', "503, upstream: upstream_down"),
    (404, b"[]", "404"),
])  # fmt: skip
def test_service_is_asked(status: int, body: bytes, words: str) -> None:
    findings = Findings("guard-01")
    with service(status, body) as url:
        told = patrol_logs.check_service(url, findings)
    assert (told is None) is bool(words)
    assert [item.found for item in findings.failures] == [] if not words else words in findings.failures[0].found
    assert findings.facts["service_up"] is (status == 200)


def test_service_that_is_not_there() -> None:
    with service(200, b"") as url:
        pass
    findings = Findings("guard-01")
    assert patrol_logs.check_service(url, findings) is None
    assert checks(findings.failures) == {("service", "health")}


# -- room ----------------------------------------------------------------------------------------------------------


def samples(*free_by_day: float) -> list[tuple[float, float]]:
    return [(number * DAY, free) for number, free in enumerate(free_by_day)]


@pytest.mark.parametrize(("history", "days"), [
    (samples(), None), (samples(9), None), (samples(9, 8), None),  # too few
    ([(0, 9.0), (60, 5.0), (120, 1.0)], None),  # too short
    (samples(9, 9, 9), None), (samples(5, 7, 9), None),  # nothing is used up
    (samples(10, 9, 8), 8), (samples(100, 80, 60, 40), 2),
    ([*samples(1e9, 1e8, 1e3), *[(when + 60 * DAY, free) for when, free in samples(10, 9, 8)]], 8),  # long ago
])  # fmt: skip
def test_days_that_are_left(history: list[tuple[float, float]], days: float | None) -> None:
    assert patrol_system.days_left(history) == (None if days is None else pytest.approx(days))


def test_room_is_remembered_and_its_trend_told(tmp_path: pathlib.Path) -> None:
    place = str(tmp_path)
    free = os.statvfs(place).f_bavail * os.statvfs(place).f_frsize
    state: dict[str, t.Any] = {"room": {place: [[NOW.timestamp() - n * DAY, free * (1 + n)] for n in (3, 2, 1)]}}
    state = json.loads(json.dumps(state))
    findings = Findings("guard-01")
    patrol_system.check_room([place, place], state, Limits(free_percent=0), NOW, findings)
    assert checks(findings.failures) == {("free_space_trend", place)}
    assert "used up in 1.0 days" in findings.failures[0].found
    assert len(state["room"][place]) == 4
    findings = Findings("guard-01")
    patrol_system.check_room([place, "/nowhere"], {}, Limits(free_percent=101), NOW, findings)
    assert checks(findings.failures) >= {("free_space", place), ("free_space", "/nowhere")}


# -- units ---------------------------------------------------------------------------------------------------------

SHOWN = """\
Id=qwen3guard-backup@logs.timer
LoadState=loaded
ActiveState=active
ActiveEnterTimestamp=Fri 2026-11-20 08:00:00 UTC
LastTriggerUSec=Mon 2026-11-23 11:05:02 UTC
NextElapseUSecRealtime=Mon 2026-11-23 12:05:00 UTC
NextElapseUSecMonotonic=0

Id=old.timer
LoadState=loaded
ActiveState=active
ActiveEnterTimestamp=Fri 2026-11-20 08:00:00 UTC
LastTriggerUSec=Sat 2026-11-21 11:05:02.123456 UTC
NextElapseUSecRealtime=
NextElapseUSecMonotonic=2d 3h

Id=never.timer
LoadState=loaded
ActiveState=active
ActiveEnterTimestamp=Fri 2026-11-20 08:00:00 UTC
LastTriggerUSec=n/a
NextElapseUSecRealtime=Mon 2026-11-23 12:05:00 UTC
NextElapseUSecMonotonic=0

Id=stopped.timer
LoadState=loaded
ActiveState=inactive
ActiveEnterTimestamp=n/a
LastTriggerUSec=n/a
NextElapseUSecRealtime=n/a
NextElapseUSecMonotonic=infinity

Id=lost.timer
LoadState=loaded
ActiveState=active
ActiveEnterTimestamp=Fri 2026-11-20 08:00:00 UTC
LastTriggerUSec=Mon 2026-11-23 11:05:02 UTC
NextElapseUSecRealtime=n/a
NextElapseUSecMonotonic=infinity

Id=missing.timer
LoadState=not-found
ActiveState=inactive
"""
TIMERS = {"qwen3guard-backup@logs.timer": 2, "old.timer": 24, "never.timer": 24, "stopped.timer": 0, "lost.timer": 0,
          "missing.timer": 0}  # fmt: skip


def put_program(directory: pathlib.Path, name: str, script: str) -> None:
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(f"#!/bin/sh\n{script}")
    (directory / name).chmod(0o755)


def test_units_and_timers_that_are_not_as_they_should_be(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shown").write_text(SHOWN)
    script = f"""
case "$1" in
list-units)
    echo "qwen3guard.service loaded failed failed The guard"
    echo "qwen3guard-patrol.service loaded failed failed Patrol" ;;
show) test "$TZ" = UTC && cat {tmp_path}/shown ;;
esac
"""
    put_program(tmp_path / "bin", "systemctl", script)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    findings = Findings("guard-01")
    patrol_system.check_units(["qwen3guard*"], TIMERS, NOW, findings)
    assert {(item.thing, item.found) for item in findings.failures} == {
        ("qwen3guard.service", "failed"),
        ("old.timer", "it ran 49 hours ago"),
        ("never.timer", "never, and it is active since 3 days ago"),
        ("stopped.timer", "it is not active"),
        ("lost.timer", "it waits for no time"),
        ("missing.timer", "no such unit"),
    }
    # Its own unit fails because of what it finds: else a patrol by hand could never be without a failure after that.
    assert checks(findings.warnings) == {("units", "qwen3guard-patrol.service")}


@pytest.mark.parametrize(("answer", "warned"), [("yes", False), ("no", True)])
def test_clock(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, answer: str, warned: bool) -> None:
    put_program(tmp_path / "bin", "timedatectl", f"echo NTPSynchronized={answer}\n")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    findings = Findings("guard-01")
    patrol_system.check_clock(findings)
    assert bool(findings.warnings) is warned


def test_no_systemd_is_said(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("systemctl", "timedatectl"):
        put_program(tmp_path / "bin", name, "echo System has not been booted with systemd >&2; exit 1\n")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    findings = Findings("guard-01")
    patrol_system.check_units(["qwen3guard*"], {}, NOW, findings)
    patrol_system.check_clock(findings)
    assert not findings.failures
    assert {(item.check, item.found) for item in findings.not_checked} == {
        ("units", "System has not been booted with systemd"), ("clock", "System has not been booted with systemd"),
    }  # fmt: skip


# -- GPUs, certificates, keys --------------------------------------------------------------------------------------


def test_a_specification_of_what_is_gone_is_a_failure(tmp_path: pathlib.Path) -> None:
    findings = Findings("guard-01")
    patrol_system.check_gpus([str(tmp_path)], findings)
    assert not findings.failures
    assert ("cdi", "GPUs") in checks(findings.not_checked)
    text = "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n- name: all\n  containerEdits:\n    deviceNodes:\n"
    path = tmp_path / "nvidia.yaml"
    path.write_text(f"{text}    - path: {tmp_path}/nvidia0\n")
    patrol_system.check_gpus([str(tmp_path)], findings)
    assert checks(findings.failures) == {("cdi", "GPUs")}
    assert f"{tmp_path}/nvidia0" in findings.failures[0].found
    (tmp_path / "nvidia0").touch()
    findings = Findings("guard-01")
    patrol_system.check_gpus([str(tmp_path)], findings)
    assert not findings.failures


def test_certificates_and_keys(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = {"soon": NOW + 24 * 20 * HOUR, "late": NOW + 24 * 13 * HOUR, "over": NOW - HOUR, "long": NOW + 9999 * HOUR}

    def certificates(place: str) -> list[t.Any]:
        return [patrol_system.expiry.Expiry("long", read["long"]), patrol_system.expiry.Expiry(place, read[place])]

    monkeypatch.setattr(patrol_system.expiry, "certificates", certificates)
    findings = Findings("guard-01")
    with Gpg() as gpg:
        patrol_system.check_expiry([*read], [str(tmp_path / "no-key")], gpg, Limits(), NOW, findings)
    assert checks(findings.failures) == {
        ("certificate", "late"), ("certificate", "over"), ("openpgp_key", str(tmp_path / "no-key")),
    }  # fmt: skip
    assert checks(findings.warnings) == {("certificate", "soon")}
    assert findings.facts["expiry"]["over"] == read["over"].timestamp()
    assert {item.thing: item.found for item in findings.failures}["over"] == "over: ended 1 hour ago"
