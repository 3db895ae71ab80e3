# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a patrol finds of the service and its logs on a host: logs that stop, records that stay."""

from __future__ import annotations

import contextlib
import datetime
import gzip
import http.server
import json
import os
import pathlib
import shutil
import ssl
import subprocess
import threading
import typing as t

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sample_instance.chained import ChainedWriter

from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import live_ends, patrol_logs
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.patrol_findings import Findings, Limits

NOW = datetime.datetime(2026, 11, 23, 12, 0, tzinfo=datetime.timezone.utc)
HOUR = datetime.timedelta(hours=1)


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


@pytest.mark.parametrize("name", ["audit.log", ""])
def test_what_cannot_be_counted_is_not_well_again(tmp_path: pathlib.Path, name: str) -> None:
    """A log without a record, and a directory in the place of one: neither says that all is archived."""
    path = tmp_path / "audit.log"
    path.touch() if name else path.mkdir()
    assert ("archived", str(path)) in checks(look(path).not_checked)


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
def service(status: int, body: bytes, certificate: pathlib.Path | None = None) -> t.Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: t.Any) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if certificate is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_port}/health"
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


def test_service_with_a_certificate_for_the_name_that_clients_use(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "guard.pem"
    made = ["-subj", "/CN=guard.example.org", "-out", path, "-keyout", path]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *made]
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not there")
    subprocess.run(command, check=True, capture_output=True)
    findings = Findings("guard-01")
    with service(200, json.dumps(HEALTHY).encode(), path) as url:
        assert patrol_logs.check_service(url, findings) == HEALTHY
    assert not findings.failures


def test_service_that_is_not_there() -> None:
    with service(200, b"") as url:
        pass
    findings = Findings("guard-01")
    assert patrol_logs.check_service(url, findings) is None
    assert checks(findings.failures) == {("service", "health")}
