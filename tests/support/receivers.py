# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real receivers for messages: a WeCom bot that is as strict as WeCom's, DingTalk's, a webhook, and an SMTP server."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import http.server
import json
import threading
import typing as t
import urllib.parse

from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Message as MessageHandler

WECOM_KEY = "693a91f6-7aaa-4bc4-97a0-0ec2sifa5aaa"
DINGTALK_TOKEN, DINGTALK_SECRET = "0af7fe88", "SEC5b2c"
_WECOM_BYTES = {"markdown": 4096, "text": 2048}


class Receiver:
    """An HTTP server; ``taken`` holds (path, document) of all that it took, ``status`` is what it answers instead."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, t.Any]] = []
        self.status = 200
        self.url = ""

    @property
    def texts(self) -> list[str]:
        """What people would have read in WeCom."""
        found = [document for path, document in self.taken if path == "/cgi-bin/webhook/send"]
        return [document["markdown"]["content"] for document in found]

    @property
    def wecom(self) -> str:
        """The URL of the WeCom bot."""
        return f"wecombot://{WECOM_KEY}?endpoint={self.url}"

    @property
    def dingtalk(self) -> str:
        """The URL of the DingTalk robot, which demands a signature."""
        return f"dingtalk://{DINGTALK_SECRET}@{DINGTALK_TOKEN}?endpoint={self.url}"

    def answer(self, path: str, body: bytes, content_type: str) -> tuple[int, dict[str, t.Any]]:
        """Status and document, as the services answer: an error is a 200 as well."""
        if self.status != 200:
            return self.status, {}
        parts = urllib.parse.urlsplit(path)
        query = dict(urllib.parse.parse_qsl(parts.query))
        problem = 0
        if parts.path == "/cgi-bin/webhook/send":
            problem = wecom_problem(query, body, content_type)
        elif parts.path == "/robot/send":
            problem = dingtalk_problem(query, body)
        if not problem:
            self.taken.append((parts.path, json.loads(body) if body else None))
        return 200, {"errcode": problem, "errmsg": "ok" if not problem else "told in errcode"}


def wecom_problem(query: dict[str, str], body: bytes, content_type: str) -> int:
    """The code that WeCom answers, 0 where it takes the message."""
    if query != {"key": WECOM_KEY}:
        return 93000  # invalid webhook url
    try:
        document = json.loads(body.decode("utf-8"))
        kind = document["msgtype"]
        content = document[kind]["content"]
    except (ValueError, KeyError, TypeError):
        return 40008  # invalid message type
    if not content_type.startswith("application/json") or set(document) != {"msgtype", kind}:
        return 40008
    if kind not in _WECOM_BYTES or not isinstance(content, str) or not content:
        return 40008
    return 40058 if len(content.encode()) > _WECOM_BYTES[kind] else 0  # exceeds the maximum length


def dingtalk_problem(query: dict[str, str], body: bytes) -> int:
    """The same of DingTalk, for a robot with a secret."""
    text = f"{query.get('timestamp', '')}\n{DINGTALK_SECRET}"
    sign = base64.b64encode(hmac.new(DINGTALK_SECRET.encode(), text.encode(), hashlib.sha256).digest()).decode()
    if query.get("access_token") != DINGTALK_TOKEN or query.get("sign") != sign:
        return 310000
    document = json.loads(body)
    well = document["msgtype"] == "markdown" and document["markdown"]["title"] and document["markdown"]["text"]
    return 0 if well and len(body) <= 20000 else 400035


@contextlib.contextmanager
def receiver() -> t.Iterator[Receiver]:
    """A receiver that runs."""
    found = Receiver()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            self._reply(*found.answer(self.path, body, self.headers["Content-Type"] or ""))

        def do_GET(self) -> None:
            self._reply(*found.answer(self.path, b"", ""))

        def _reply(self, status: int, document: dict[str, t.Any]) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(document).encode())

        def log_message(self, *_arguments: t.Any) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()


class Mailbox(MessageHandler):
    """Keeps the mails that the server takes."""

    def __init__(self) -> None:
        super().__init__()
        self.mails: list[t.Any] = []

    def handle_message(self, message: t.Any) -> None:
        self.mails.append(message)


@contextlib.contextmanager
def smtp_server(port: int) -> t.Iterator[Mailbox]:
    """A mail server on loopback."""
    mailbox = Mailbox()
    controller = Controller(mailbox, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield mailbox
    finally:
        controller.stop()
