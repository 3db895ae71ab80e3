# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The gateway as a real process, in front of an upstream that misbehaves, on a disk that does too."""

from __future__ import annotations

import concurrent.futures
import contextlib
import datetime
import http.client
import ipaddress
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from qwen3guard_gateway.config import ConfigError, load
from qwen3guard_gateway.server import make_server
from support.fake_upstream import SAFE, UNSAFE, FakeUpstream, completion
from support.gateway import JSON, PACKAGE, GatewayProcess, wait_for
from support.processes import LOOPBACK, free_ports


@pytest.fixture
def upstream() -> t.Iterator[FakeUpstream]:
    with FakeUpstream() as running:
        yield running


@pytest.fixture
def gateway(tmp_path: Path, upstream: FakeUpstream) -> t.Iterator[GatewayProcess]:
    with GatewayProcess(tmp_path, upstream.url, upstream={"answer_seconds": 0.5}) as running:
        yield running


def test_bad_upstreams_are_told_apart_and_recorded(gateway: GatewayProcess, upstream: FakeUpstream) -> None:
    """One process for all of them: each is followed by a right answer."""
    half = completion("Safety: Safe\nCateg", finish_reason="length")
    faults: list[tuple[t.Any, bytes, int, str]] = [
        (upstream.silent, b"", 504, "upstream_slow"),
        (upstream.cut, b"", 502, "upstream_down"),
        (upstream.half, completion(SAFE), 502, "upstream_down"),
        (upstream.endless, b"", 502, "upstream_garbled"),
        (None, b"", 502, "upstream_garbled"),
        (None, b"<html>Safety: Safe</html>", 502, "upstream_garbled"),
        (None, completion("Safety: Harmless\nCategories: None"), 502, "upstream_garbled"),
        (None, half, 502, "upstream_garbled"),
    ]
    for act, reply, status, code in faults:
        upstream.act, upstream.reply = act, reply
        answer = gateway.audit("fault")
        assert (answer.status, answer.code) == (status, code)
        assert "verdict" not in answer.json
        upstream.act, upstream.reply = None, completion(UNSAFE)
        assert gateway.audit("after").json["verdict"] == "unsafe"
    records = gateway.records()
    assert [record["status"] for record in records if record["text"] == "fault"] == [fault[2] for fault in faults]
    assert all(record["verdict"] is None for record in records if record["text"] == "fault")
    assert gateway.get("/health").status == 200
    counters = gateway.get("/health").json["counters"]
    assert counters["failed"] == {"upstream_slow": 1, "upstream_down": 2, "upstream_garbled": 5}
    assert counters["audits"] == {"unsafe": len(faults)}


def test_upstream_down_and_up_again(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with GatewayProcess(tmp_path, f"http://{LOOPBACK}:{port}") as gateway:
        assert (gateway.audit("a").status, gateway.audit("a").code) == (502, "upstream_down")
        health = gateway.get("/health")
        assert health.status == 503
        assert health.json["upstream"]["error"].startswith("upstream_down")
        assert health.json["log"] == {"ok": True}
        with FakeUpstream(port):
            assert gateway.audit("a").json["verdict"] == "safe"
            wait_for(lambda: gateway.get("/health").status == 200)
        assert [record["status"] for record in gateway.records()] == [502, 502, 200]


def test_queue_is_bounded(tmp_path: Path, upstream: FakeUpstream) -> None:
    """One question at the upstream, one waits, the rest is told to come again and leaves no record."""
    upstream.act = upstream.silent
    with GatewayProcess(tmp_path, upstream.url, limits={"concurrency": 1, "queue": 1}) as gateway:
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            first = pool.submit(gateway.audit, "a")
            wait_for(lambda: bool(upstream.questions))
            second = pool.submit(gateway.audit, "a")
            wait_for(lambda: gateway.get("/health").json["counters"]["waiting"] == 1)
            refused = [pool.submit(gateway.audit, "a").result() for _attempt in range(3)]
            upstream.act = None
            assert [answer.code for answer in refused] == ["overloaded"] * 3
            assert all(answer.status == 503 and answer.headers["retry-after"] == "1" for answer in refused)
            assert first.result().status == 504
            # It waited as long as the first one took, which is as long as anybody waits: either way it was close.
            assert second.result().status in (200, 503)
        answered = 1 + (second.result().status == 200)
        assert len(gateway.records()) == answered


def chunks(size: int, pieces: int) -> t.Iterator[bytes]:
    for _number in range(pieces):
        yield b"a" * size


def test_bodies_over_the_limit_end_early(gateway: GatewayProcess, upstream: FakeUpstream) -> None:
    assert gateway.audit("a" * 300_000).code == "too_large"
    with contextlib.closing(gateway.connect()) as connection:
        with contextlib.suppress(ConnectionError):  # it does not wait for the end of it
            connection.request("POST", "/api/audit", chunks(65536, 2000), JSON, encode_chunked=True)
        reply = connection.getresponse()
        assert (reply.status, json.loads(reply.read())["error"]["code"]) == (413, "too_large")
    with contextlib.closing(gateway.connect()) as connection:  # chunked is fine below the limit
        connection.request("POST", "/api/audit", iter([b'{"text":', b'"a"}']), JSON, encode_chunked=True)
        assert connection.getresponse().status == 200
    assert [question["messages"][0]["content"] for question in upstream.questions] == ["a"]
    assert len(gateway.records()) == 1


def test_a_body_that_never_comes(tmp_path: Path, upstream: FakeUpstream) -> None:
    with GatewayProcess(tmp_path, upstream.url, limits={"body_seconds": 0.3}) as gateway:
        with contextlib.closing(gateway.connect()) as connection:
            connection.putrequest("POST", "/api/audit")
            connection.putheader("Content-Type", "application/json")
            connection.putheader("Content-Length", "100")
            connection.endheaders(b"{")
            assert connection.getresponse().status == 408
        connection = gateway.connect()
        connection.putrequest("POST", "/api/audit")
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", "100")
        connection.endheaders(b"{")
        connection.close()  # gone in the middle of it
        assert gateway.audit("a").status == 200
        assert len(gateway.records()) == 1


def test_headers(gateway: GatewayProcess) -> None:
    """Of addresses nobody is believed by default; pages and answers carry what protects browsers."""
    forged = {"X-Forwarded-For": "6.6.6.6", "X-Real-IP": "6.6.6.6", "Forwarded": "for=6.6.6.6"}
    assert gateway.audit("a", headers=forged).json["source_ip"] == LOOPBACK
    for answer in (gateway.get("/"), gateway.get("/health"), gateway.get("/nothing")):
        assert "server" not in answer.headers
        assert answer.headers["content-security-policy"].startswith("default-src 'none'; ")
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
    records = gateway.records()
    assert [record["source_ip"] for record in records] == [LOOPBACK]


def test_texts_stay_out_of_messages(gateway: GatewayProcess, upstream: FakeUpstream) -> None:
    upstream.reply = completion("Safety: tell-tale answer")
    gateway.audit("tell-tale text")
    gateway.request("POST", "/api/audit", b'{"text": tell-tale', JSON)
    gateway.get("/api/audit/tell-tale")
    assert gateway.stop() == 0
    messages = gateway.messages.read_text(encoding="utf-8")
    assert "tell-tale" not in messages
    assert [json.loads(line)["message"] for line in messages.splitlines()][-1] == "stopped"


def make_certificate(directory: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(LOOPBACK))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = directory / "certificate.pem", directory / "key.pem"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    return certificate_file, key_file


def test_tls_by_given_certificate(tmp_path: Path, upstream: FakeUpstream) -> None:
    certificate, key = make_certificate(tmp_path)
    listen = {"tls_certificate": str(certificate), "tls_key": str(key)}
    gateway = GatewayProcess(tmp_path, upstream.url, listen=listen)
    gateway.tls = ssl.create_default_context(cafile=str(certificate))
    with gateway:
        assert gateway.audit("a").json["verdict"] == "safe"
        gateway.tls = None
        with pytest.raises((http.client.BadStatusLine, ConnectionError)):
            gateway.audit("a")


def test_upstream_behind_tls_is_verified(tmp_path: Path, upstream: FakeUpstream) -> None:
    """A gateway in front of a gateway: the web upstream, with a certificate that is trusted, and then is not."""
    certificate, key = make_certificate(tmp_path)
    listen = {"tls_certificate": str(certificate), "tls_key": str(key)}
    inner = GatewayProcess(tmp_path / "inner", upstream.url, listen=listen)
    inner.tls = ssl.create_default_context(cafile=str(certificate))
    with inner:
        url = f"https://{LOOPBACK}:{inner.port}"
        settings = {"kind": "web", "ca_file": str(certificate)}
        with GatewayProcess(tmp_path / "outer", url, upstream=settings) as outer:
            assert outer.audit("a").json["verdict"] == "safe"
            assert outer.get("/health").status == 200
        with GatewayProcess(tmp_path / "wary", url, upstream={"kind": "web"}) as wary:
            assert wary.audit("a").code == "upstream_down"


def test_sigterm_finishes_what_is_in_flight(tmp_path: Path, upstream: FakeUpstream) -> None:
    gate = upstream.stop_waiting

    def slow(handler: t.Any, _body: t.Any) -> None:
        gate.wait(10)
        handler.send_body(200, completion(UNSAFE))

    upstream.act = slow
    with GatewayProcess(tmp_path, upstream.url, upstream={"answer_seconds": 20}) as gateway:
        assert gateway.process is not None
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            answer = pool.submit(gateway.audit, "a")
            wait_for(lambda: bool(upstream.questions))
            gateway.process.send_signal(signal.SIGTERM)
            wait_for(lambda: "stopping" in gateway.messages.read_text(encoding="utf-8"))
            gate.set()
            assert answer.result().json["verdict"] == "unsafe"
        assert gateway.process.wait(20) == 0
    assert [record["trace_id"] for record in gateway.records()] == [answer.result().json["trace_id"]]


def test_systemd_is_told(tmp_path: Path, upstream: FakeUpstream) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0gateway-{os.getpid()}-{time.monotonic_ns()}")
        manager.settimeout(20)
        name = "@" + manager.getsockname()[1:].decode()
        gateway = GatewayProcess(tmp_path, upstream.url)
        try:
            gateway.start(environment={"NOTIFY_SOCKET": name})
            assert manager.recv(100) == b"READY=1"
            assert gateway.stop() == 0
            assert manager.recv(100) == b"STOPPING=1"
        finally:
            gateway.kill()


def test_check_reads_all_files_that_are_named(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    gateway = GatewayProcess(tmp_path, "http://127.0.0.1:1")
    _other, other_key = make_certificate(gateway.state)

    def check(settings: dict[str, t.Any]) -> None:
        gateway.config_file.write_text(json.dumps(settings), encoding="utf-8")
        make_server(load(str(gateway.config_file)))

    good = {**gateway.settings, "listen": {"tls_certificate": str(certificate), "tls_key": str(key)}}
    check(good)
    for change in (
        {"listen": {"tls_certificate": str(certificate), "tls_key": str(other_key)}},
        {"listen": {"tls_certificate": str(tmp_path / "none"), "tls_key": str(key)}},
        {"keys_file": str(tmp_path / "none")},
        {"upstream": {"url": "http://127.0.0.1:1", "key_file": str(tmp_path / "none")}},
        {"upstream": {"url": "https://127.0.0.1:1", "ca_file": str(key)}},
    ):
        with pytest.raises(ConfigError):
            check({**good, **change})


@pytest.mark.parametrize("by_name", [True, False])
@pytest.mark.parametrize(("model", "rc"), [("8b", 0), ("", 2)])
def test_check_on_the_command_line(tmp_path: Path, model: str, rc: int, by_name: bool) -> None:
    gateway = GatewayProcess(tmp_path, "http://127.0.0.1:1", model=model)
    gateway.config_file.write_text(json.dumps(gateway.settings), encoding="utf-8")
    with gateway.config_file.open("rb") as config_file:
        named = str(gateway.config_file) if by_name else "-"
        found = subprocess.run(
            [sys.executable, "-m", "qwen3guard_gateway", "--check", "--config", named],
            env={**os.environ, "PYTHONPATH": str(PACKAGE)},
            stdin=subprocess.DEVNULL if by_name else config_file,
            capture_output=True,
            text=True,
            check=False,
        )
    assert found.returncode == rc
    if rc:
        where = named if by_name else "standard input"
        assert found.stderr.startswith(f"qwen3guard_gateway: {where}: model: ")
        assert "Traceback" not in found.stderr
    else:
        assert found.stdout == f"{named}: fine\n"
