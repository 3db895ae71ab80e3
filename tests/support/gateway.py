# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The gateway as a real process, and a client without dependencies."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import time
import typing as t
from pathlib import Path

from .checkout import ROOT
from .processes import LOOPBACK, free_ports

PACKAGE = ROOT / "roles" / "gateway" / "files"
JSON = {"Content-Type": "application/json"}


class Answer(t.NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> t.Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """Of an error."""
        return self.json["error"]["code"]


class GatewayProcess:
    """One gateway below ``base``: ``start`` and ``stop`` as often as wanted."""

    def __init__(self, base: Path, upstream_url: str, **settings: t.Any):
        self.base = base
        self.logs = base / "logs"
        self.state = base / "state"
        self.ledger = base / "ledger.json"
        self.config_file = base / "gateway.json"
        self.messages = base / "stderr"
        for directory in (self.logs, self.state):
            directory.mkdir(parents=True, exist_ok=True)
        self.settings: dict[str, t.Any] = {
            "model": "8b",
            "upstream": {"url": upstream_url, "answer_seconds": 2.0, **settings.pop("upstream", {})},
            "log": {
                "directory": str(self.logs),
                "state_directory": str(self.state),
                "archive_ledger": str(self.ledger),
                "min_free_bytes": 0,
                **settings.pop("log", {}),
            },
            "listen": settings.pop("listen", {}),
            **settings,
        }
        self.tls: ssl.SSLContext | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def __enter__(self) -> GatewayProcess:
        return self.start()

    def __exit__(self, *_exception: object) -> None:
        self.kill()

    def start(self, prefix: t.Sequence[str] = (), environment: t.Mapping[str, str] | None = None) -> GatewayProcess:
        """Start it and wait until it listens; a port taken meanwhile is another try."""
        for _attempt in range(3):
            (self.port,) = free_ports(1)
            self.settings["listen"]["port"] = self.port
            self.config_file.write_text(json.dumps(self.settings), encoding="utf-8")
            with open(self.messages, "ab") as messages:
                self.process = subprocess.Popen(
                    [*prefix, sys.executable, "-m", "qwen3guard_gateway", "--config", str(self.config_file)],
                    env={**os.environ, "PYTHONPATH": str(PACKAGE), **(environment or {})},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=messages,
                )
            if self._wait():
                return self
            self.kill()
        raise AssertionError(f"the gateway does not start:\n{self.messages.read_text(encoding='utf-8')}")

    def _wait(self) -> bool:
        end = time.monotonic() + 30
        while self.process is not None and self.process.poll() is None and time.monotonic() < end:
            with contextlib.suppress(OSError):
                self.get("/page.css")
                return True
            time.sleep(0.02)
        return False

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(30)

    def kill(self) -> None:
        """SIGKILL, if it still runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(30)

    # -- asking ------------------------------------------------------------------------------------------------------

    def connect(self) -> http.client.HTTPConnection:
        if self.tls:
            return http.client.HTTPSConnection(LOOPBACK, self.port, timeout=90, context=self.tls)
        return http.client.HTTPConnection(LOOPBACK, self.port, timeout=90)

    def request(self, method: str, path: str, body: t.Any = None, headers: dict[str, str] | None = None) -> Answer:
        with contextlib.closing(self.connect()) as connection:
            connection.request(method, path, body, headers or {})
            reply = connection.getresponse()
            return Answer(reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read())

    def get(self, path: str, headers: dict[str, str] | None = None) -> Answer:
        return self.request("GET", path, headers=headers)

    def audit(self, text: t.Any, response: t.Any = None, headers: dict[str, str] | None = None) -> Answer:
        question = {"text": text, **({} if response is None else {"response": response})}
        return self.request("POST", "/api/audit", json.dumps(question).encode(), {**JSON, **(headers or {})})

    # -- looking -----------------------------------------------------------------------------------------------------

    def records(self) -> list[dict[str, t.Any]]:
        """All audit records in the logs, in the order of files' names reversed (rotated ones have later names)."""
        paths = sorted(self.logs.glob("audit.log*"), reverse=True)
        lines = [line for path in paths for line in path.read_bytes().splitlines()]
        return [record for record in map(json.loads, lines) if record["event"] == "audit"]


def wait_for(what: t.Callable[[], bool], seconds: float = 20.0) -> None:
    """Until something is true; an error if it never is."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
