# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The application in this process: what it answers, to whom, and what it records."""

from __future__ import annotations

import hashlib
import json
import typing as t
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from qwen3guard_gateway import config
from qwen3guard_gateway.app import make_app
from support.fake_upstream import UNSAFE, FakeUpstream, completion
from support.gateway_logs import read_entries


@pytest.fixture
def upstream() -> t.Iterator[FakeUpstream]:
    with FakeUpstream() as running:
        yield running


class Place:
    """Makes clients of gateways that log below ``base``."""

    def __init__(self, base: Path, upstream: FakeUpstream):
        self.base, self.upstream = base, upstream
        (base / "logs").mkdir()
        (base / "state").mkdir()

    def client(self, *, upstream: dict[str, t.Any] | None = None, **settings: t.Any) -> TestClient:
        log = {"directory": f"{self.base}/logs", "state_directory": f"{self.base}/state", "min_free_bytes": 0}
        log["archive_ledger"] = f"{self.base}/ledger.json"
        log.update(settings.pop("log", {}))
        given = {"model": "8b", "upstream": {"url": self.upstream.url, **(upstream or {})}, "log": log, **settings}
        return TestClient(make_app(config.build(given)), raise_server_exceptions=False, client=("10.0.0.1", 4711))

    def records(self) -> list[dict[str, t.Any]]:
        return [entry.content for entry in read_entries(self.base / "logs") if entry.content["event"] == "audit"]


@pytest.fixture
def gateway(tmp_path: Path, upstream: FakeUpstream) -> Place:
    return Place(tmp_path, upstream)


def test_an_answer_has_its_record(gateway: Place) -> None:
    gateway.upstream.reply = completion(UNSAFE)
    with gateway.client(upstream={"model": "Qwen3Guard-Gen-8B"}) as client:
        answer = client.post("/api/audit", json={"text": "怎样偷看？"}).json()
        (record,) = gateway.records()
    assert answer == {
        "trace_id": record["trace_id"],
        "verdict": "unsafe",
        "label": "Unsafe",
        "severity": 2,
        "categories": ["Violent", "PII"],
        "refusal": None,
        "confidence": None,
        "model": "Qwen3Guard-Gen-8B",
        "source_ip": "10.0.0.1",
        "time": record["time"],
        "backup_status": "pending",
        "recorded": True,
    }
    expected = {"text": "怎样偷看？", "verdict": "unsafe", "severity": 2, "status": 200, "error": None, "client": None}
    assert {name: record[name] for name in expected} == expected
    assert "response" not in record
    assert record["upstream_ms"] > 0


def test_labels_in_chinese_and_responses(gateway: Place) -> None:
    gateway.upstream.reply = completion("Safety: Controversial\nCategories: PII\nRefusal: Yes")
    with gateway.client(language="zh") as client:
        answer = client.post("/api/audit", json={"text": "a", "response": "b"}).json()
    assert (answer["verdict"], answer["label"], answer["refusal"]) == ("controversial", "有争议", True)
    assert gateway.records()[0]["response"] == "b"


def test_contradictions_are_recorded_as_such(gateway: Place) -> None:
    gateway.upstream.reply = completion("Safety: Unsafe\nCategories: None")
    with gateway.client() as client:
        assert client.post("/api/audit", json={"text": "a"}).json()["verdict"] == "unsafe"
    (record,) = gateway.records()
    assert record["status"] == 200
    assert "contradict" in record["error"]


def test_web_upstream_keeps_its_verdict(gateway: Place) -> None:
    gateway.upstream.reply = b'{"verdict":"Controversial","categories":["PII"],"confidence":0.75,"label":"x"}'
    with gateway.client(upstream={"kind": "web"}) as client:
        answer = client.post("/api/audit", json={"text": "a"}).json()
    assert (answer["verdict"], answer["confidence"]) == ("controversial", 0.75)
    assert gateway.upstream.questions == [{"text": "a"}]


@pytest.mark.parametrize(
    ("reply", "status", "code"),
    [
        (completion(""), 200, "upstream_garbled"),
        (completion("I think it is Safe."), 200, "upstream_garbled"),
        (b"", 200, "upstream_garbled"),
        (b"\xff\xfe", 200, "upstream_garbled"),
        (b"{}", 500, "upstream_refused"),
        (completion("Safety: Safe\nCategories: None"), 201, "upstream_refused"),
        (b"", 302, "upstream_refused"),  # redirects are not followed: texts would go who knows where
        (b"", 307, "upstream_refused"),
    ],
)
def test_failures_are_errors_with_a_record(gateway: Place, reply: bytes, status: int, code: str) -> None:
    gateway.upstream.reply, gateway.upstream.status = reply, status
    with gateway.client() as client:
        answer = client.post("/api/audit", json={"text": "a text"})
        counters = client.get("/health").json()["counters"]
    assert answer.status_code == 502
    assert "verdict" not in answer.json()
    assert answer.json()["error"]["code"] == code
    (record,) = gateway.records()
    assert record["trace_id"] == answer.json()["trace_id"]
    assert (record["verdict"], record["severity"], record["status"]) == (None, None, 502)
    assert record["error"].startswith(code)
    assert counters["failed"] == {code: 1}
    assert not counters["audits"]


def test_what_is_rejected_is_counted_and_not_recorded(gateway: Place) -> None:
    json_type = {"Content-Type": "application/json"}
    with gateway.client(limits={"body_bytes": 1024}) as client:
        found = [
            client.post("/api/audit", content=b"{", headers=json_type),
            client.post("/api/audit", content=b"{}", headers=json_type),
            client.post("/api/audit", content=b'{"text":"' + b"a" * 1024 + b'"}', headers=json_type),
            client.post("/api/audit", content=b'{"text":"a"}', headers={"Content-Type": "text/plain"}),
            client.post("/api/audit", content=b'{"text":"a"}', headers={**json_type, "Content-Encoding": "gzip"}),
            client.post("/api/audit", content=b"{}", headers={"Content-Type": "application/json; charset=gbk"}),
            client.get("/api/audit"),
            client.get("/api"),
            client.get("/page.py"),
            client.get("/../config.py"),
        ]
        counters = client.get("/health").json()["counters"]
    assert [answer.status_code for answer in found] == [400, 422, 413, 415, 415, 415, 405, 404, 404, 404]
    assert all(answer.json()["error"]["message"] for answer in found)
    assert sum(counters["rejected"].values()) == len(found)
    assert gateway.records() == []
    assert gateway.upstream.questions == []


def test_keys(gateway: Place, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"web:{hashlib.sha256(b'one').hexdigest()}\n", encoding="ascii")
    with gateway.client(keys_file=str(keys)) as client:
        for headers in ({}, {"X-API-Key": "two"}, {"Authorization": "Basic one"}):
            answer = client.post("/api/audit", json={"text": "a"}, headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")
        made = client.post("/api/audit", json={"text": "a"}, headers={"Authorization": "Bearer one"}).json()
        assert client.post("/api/audit", json={"text": "a"}, headers={"X-API-Key": "one"}).status_code == 200
        path = f"/api/audit/{made['trace_id']}"
        assert client.get(path).status_code == 401  # records hold people's texts
        assert client.get(path, headers={"X-API-Key": "one"}).json()["record"]["client"] == "web"
        assert client.get("/health").status_code == 200
    assert [record["client"] for record in gateway.records()] == ["web", "web"]


@pytest.mark.parametrize(("trusted", "expected"), [([], "10.0.0.1"), (["10.0.0.0/8"], "1.2.3.4")])
def test_forwarded_addresses_only_from_trusted_proxies(gateway: Place, trusted: list[str], expected: str) -> None:
    with gateway.client(trusted_proxies=trusted) as client:
        headers = {"X-Forwarded-For": "6.6.6.6, 1.2.3.4", "X-Real-IP": "6.6.6.6", "Forwarded": "for=6.6.6.6"}
        answer = client.post("/api/audit", json={"text": "a"}, headers=headers).json()
    assert answer["source_ip"] == expected == gateway.records()[0]["source_ip"]


def test_records_say_where_they_are_archived(gateway: Place, tmp_path: Path) -> None:
    with gateway.client() as client:
        first, second = (client.post("/api/audit", json={"text": "a"}).json()["trace_id"] for _number in range(2))
        record = client.get(f"/api/audit/{first}").json()["record"]
        status = "archived_to_oss_20261123_0923"
        entry = {"chain": record["chain"], "first": 1, "last": record["seq"], "snapshot": "s", "status": status}
        ledger = {"format": 1, "remote": "oss", "archived": [entry]}
        (tmp_path / "ledger.json").write_text(json.dumps(ledger), encoding="utf-8")
        archived, pending = (client.get(f"/api/audit/{trace_id}").json() for trace_id in (first, second))
        unknown = client.get(f"/api/audit/{first[:-1]}")
    assert archived["record"] == record
    assert archived["intact"] is True
    assert archived["backup_status"] == status
    assert archived["archived"] == {"remote": "oss", "time": "2026-11-23T09:23Z"}
    assert (pending["backup_status"], pending["archived"]) == ("pending", None)
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "not_found")


@pytest.mark.parametrize("policy", ["refuse", "answer"])
def test_without_a_log(gateway: Place, tmp_path: Path, policy: str) -> None:
    (tmp_path / "logs").rmdir()
    (tmp_path / "logs").write_text("no directory", encoding="ascii")
    with gateway.client(log={"on_failure": policy}) as client:
        answer, health = client.post("/api/audit", json={"text": "a"}), client.get("/health")
    assert health.status_code == 503
    assert health.json()["upstream"] == {"ok": True}
    assert not health.json()["log"]["ok"]
    assert health.json()["counters"]["unrecorded"] == 1
    if policy == "refuse":
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "log_unavailable")
        assert "safe" not in answer.text
    else:
        found = answer.json()
        assert (found["verdict"], found["recorded"], found["trace_id"]) == ("safe", False, None)
        assert found["backup_status"] == "not_recorded"


def test_log_mode_none_says_that_nothing_is_recorded(gateway: Place) -> None:
    with gateway.client(log={"mode": "none"}) as client:
        assert client.post("/api/audit", json={"text": "a"}).json()["recorded"] is False
        assert client.get("/api/audit/qwg-20261123-8b-0123456789abcdef").status_code == 404
        assert client.get("/health").status_code == 200
    assert not list((gateway.base / "logs").iterdir())


def test_health_asks_the_probe_text_where_one_is_set(gateway: Place) -> None:
    """An engine whose health path answers may still be unable to do its work."""
    gateway.upstream.reply = completion("?")
    with gateway.client() as client:
        assert client.get("/health").status_code == 200
    with gateway.client(upstream={"probe_text": "How are you?"}) as client:
        health = client.get("/health")
        assert health.status_code == 503
        assert health.json()["upstream"]["error"].startswith("upstream_garbled")
    assert gateway.records() == []


def test_health_believes_failed_audits_more_than_the_health_path(gateway: Place) -> None:
    gateway.upstream.reply = completion("?")
    with gateway.client() as client:
        for _number in range(5):
            client.post("/api/audit", json={"text": "a"})
        health = client.get("/health")
    assert health.status_code == 503
    assert "the last 5 questions failed" in health.json()["upstream"]["error"]


def test_an_error_of_ours_tells_nothing(gateway: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from qwen3guard_gateway import app

    def broken(*_arguments: t.Any) -> t.NoReturn:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(app.Gateway, "_fields", broken)
    with gateway.client() as client:
        answer = client.post("/api/audit", json={"text": "a"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert "secret" not in answer.text


def test_upstream_key_comes_from_its_file(gateway: Place, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cr3t\n", encoding="ascii")
    with gateway.client(upstream={"key_file": str(tmp_path / "secret")}) as client:
        client.post("/api/audit", json={"text": "a"})
    assert gateway.upstream.headers[0]["authorization"] == "Bearer s3cr3t"
