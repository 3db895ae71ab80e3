# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A model engine that says and does what the test wants: right verdicts, nonsense, half answers, silence."""

from __future__ import annotations

import contextlib
import http.server
import json
import socketserver
import threading
import typing as t

from .processes import LOOPBACK

SAFE = "Safety: Safe\nCategories: None"
UNSAFE = "Safety: Unsafe\nCategories: Violent, PII"


def completion(content: t.Any, finish_reason: str = "stop", **choice: t.Any) -> bytes:
    """The body of an OpenAI-compatible answer."""
    message = {"role": "assistant", "content": content}
    return json.dumps(
        {"choices": [{"index": 0, "message": message, "finish_reason": finish_reason, **choice}]}
    ).encode()


class FakeUpstream:
    """``reply`` is what a question gets; set ``act`` for what is not even an answer.

    ``act(handler, body)`` may do anything with the connection. ``questions`` holds what was asked.
    """

    def __init__(self, port: int = 0) -> None:
        self.reply: bytes = completion(SAFE)
        self.status = 200
        self.act: t.Callable[[http.server.BaseHTTPRequestHandler, dict[str, t.Any]], None] | None = None
        self.questions: list[dict[str, t.Any]] = []
        self.headers: list[dict[str, str]] = []
        self.stop_waiting = threading.Event()
        upstream = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                self.send_body(200, b"{}")

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                upstream.questions.append(body)
                upstream.headers.append({name.lower(): value for name, value in self.headers.items()})
                if upstream.act:
                    upstream.act(self, body)
                else:
                    self.send_body(upstream.status, upstream.reply)

            def send_body(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                if status in (302, 307):
                    self.send_header("Location", "/elsewhere")
                self.end_headers()
                self.wfile.write(body)

            def handle(self) -> None:
                with contextlib.suppress(ConnectionError):  # whoever asked went away
                    super().handle()

            def log_message(self, *_arguments: t.Any) -> None:
                """Nothing: the tests look at ``questions``."""

        class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
            daemon_threads = True
            request_queue_size = 128

        self._server = Server((LOOPBACK, port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    def __enter__(self) -> FakeUpstream:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop_waiting.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    # -- faults ------------------------------------------------------------------------------------------------------

    def silent(self, _handler: t.Any, _body: t.Any) -> None:
        """No answer until the upstream ends."""
        self.stop_waiting.wait(60)

    def cut(self, handler: t.Any, _body: t.Any) -> None:
        """The connection ends without a word."""
        handler.close_connection = True

    def half(self, handler: t.Any, _body: t.Any) -> None:
        """Less than what the header promises, then the end."""
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(self.reply)))
        handler.end_headers()
        handler.wfile.write(self.reply[: len(self.reply) // 2])
        handler.close_connection = True

    def endless(self, handler: t.Any, _body: t.Any) -> None:
        """More and more, until nobody listens."""
        handler.close_connection = True
        handler.send_response(200)
        handler.end_headers()
        while not self.stop_waiting.is_set():
            handler.wfile.write(b" " * 65536)
