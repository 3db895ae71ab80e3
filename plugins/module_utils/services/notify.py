# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Deliver a message to people: WeCom and DingTalk bots, and all that Apprise reaches (mail, Slack, webhooks, …).

Private to the collection: use the modules, not this file.

A URL holds secrets. No error, no log and no result names more of it than its place in the list and its scheme.

The two bots are ours, though Apprise knows them: they answer 200 to a wrong key or a message that is too long, with the
error in the body, and Apprise takes that for delivered (seen with 2.2.0).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import re
import time
import typing as t
import urllib.parse

from ..errors import GuardError
from . import http

try:
    import apprise
except ImportError:  # told where a URL needs it
    apprise = None

WECOM_HOST, DINGTALK_HOST = "https://qyapi.weixin.qq.com", "https://oapi.dingtalk.com"
_WECOM_BYTES, _DINGTALK_BYTES = 4096, 18000
_BOTS = ("wecombot", "dingtalk")
_WEBHOOK = re.compile(r"\Ahttps?://[^/]+/cgi-bin/webhook/send/?\?(?:.*&)?key=[A-Za-z0-9_-]+")
_HAS_KEY = re.compile(r"[?&](?:key|access_token)=[^&]")
_SCHEME = re.compile(r"\A([A-Za-z][A-Za-z0-9+.-]{0,30})://")
# What is written into a verdict may come from a store that anybody writes to: no links, no tags.
_PLAIN = str.maketrans({"<": "‹", ">": "›", "[": "(", "]": ")"})
_NOT_SENT = "Check the URL, and whether this host reaches the service."


class Message(t.NamedTuple):
    """``urgent`` where something is wrong."""

    title: str
    lines: list[str]
    urgent: bool


class Target:
    """One URL. ``name`` is what people may see of it."""

    def __init__(self, url: str, place: int):
        match = _SCHEME.match(url)
        if match is None:
            raise GuardError(f"URL {place}", "a URL", "something else", "docs/patrol.md shows the forms.")
        self._url = url
        scheme = match.group(1).lower()
        self.kind = "wecombot" if _WEBHOOK.match(url) else scheme
        self.name = f"URL {place} ({self.kind})"
        # Tells one target from another from run to run, and does not give the URL away.
        self.identity = hashlib.sha256(url.encode()).hexdigest()[:16]
        self._made: t.Any = None

    def check(self) -> None:
        """Raise `GuardError` where no message can ever go this way; nothing is sent."""
        if self.kind in _BOTS:
            http.check(self._address(), self.name)
        else:
            self._service()

    def fits(self, message: Message) -> bool:
        """Whether the service takes it as a whole; `GuardError` where it takes none."""
        if self.kind == "wecombot":
            _title, lines, most = _wecom_text(message)
        elif self.kind == "dingtalk":
            _title, lines, most = _dingtalk_text(message)
        else:
            lines, most = message.lines, self._service().body_maxlen
        return fit(lines, most) == lines

    def send(self, message: Message) -> None:
        """Deliver it, or raise `GuardError`."""
        if self.kind in _BOTS:
            payload = wecom_payload if self.kind == "wecombot" else dingtalk_payload
            self._to_bot(self._address(), payload(message))
        else:
            self._by_apprise(message)

    def _address(self) -> str:
        try:
            made = wecom_address(self._url) if self.kind == "wecombot" else dingtalk_address(self._url, time.time())
        except ValueError:  # a bracket that is alone
            made = ""
        if not _HAS_KEY.search(made):
            raise GuardError(self.name, "a URL with a key", "something else", "docs/patrol.md shows the forms.")
        return made

    def _to_bot(self, address: str, payload: dict[str, t.Any]) -> None:
        reply = http.post_json(address, payload, self.name)
        try:
            code = json.loads(reply.body)["errcode"]
        except (ValueError, KeyError, TypeError, RecursionError):
            code = None
        if reply.status != 200 or code != 0:
            found = f"status {reply.status}" + (f", errcode {code}" if isinstance(code, int) else "")
            raise GuardError(self.name, "a service that takes the message", found, _NOT_SENT)

    def _service(self) -> t.Any:
        """What Apprise makes of the URL."""
        if apprise is None:
            raise GuardError(
                self.name, "the Python library apprise", "none",
                "Install requirements/alerts.txt. WeCom (wecombot://) and DingTalk (dingtalk://) need no library.",
            )  # fmt: skip
        if self._made is None:
            with _Listener():
                self._made = apprise.Apprise.instantiate(self._url)
        if self._made is None:
            raise GuardError(self.name, "a URL that Apprise knows", "another", "docs/patrol.md shows the forms.")
        return self._made

    def _by_apprise(self, message: Message) -> None:
        service = self._service()
        with _Listener() as listener:
            kind = apprise.NotifyType.FAILURE if message.urgent else apprise.NotifyType.INFO
            body = "\n".join(fit(message.lines, service.body_maxlen))
            title = message.title[: service.title_maxlen or None]
            # It is told that this is text: what it is not told it takes for HTML in mails, in which lines run together.
            sender = apprise.Apprise()
            sender.add(service)
            taken = sender.notify(body=body, title=title, notify_type=kind, body_format=apprise.NotifyFormat.TEXT)
        if not taken:
            raise GuardError(self.name, "a service that takes the message", listener.told(), _NOT_SENT)


class _Listener(logging.Handler):
    """Takes what Apprise logs, so that nothing of a URL reaches stderr; keeps status codes only."""

    def __init__(self) -> None:
        super().__init__()
        self._codes: list[str] = []
        self._logger = logging.getLogger("apprise")

    def __enter__(self) -> _Listener:
        self._before = self._logger.propagate
        self._logger.propagate = False
        self._logger.addHandler(self)
        return self

    def __exit__(self, *_exc: object) -> None:
        self._logger.removeHandler(self)
        self._logger.propagate = self._before

    def emit(self, record: logging.LogRecord) -> None:
        self._codes += re.findall(r"\berror=(\d{3})\b", record.getMessage())

    def told(self) -> str:
        """What is known of the failure."""
        return f"status {self._codes[-1]}" if self._codes else "one that did not"


def wecom_address(url: str) -> str:
    """From ``wecombot://KEY``, or the address that WeCom shows (of a private deployment too), to that address."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme in ("http", "https"):
        return url
    options = urllib.parse.parse_qs(parts.query)
    key = urllib.parse.quote((options.get("key") or [parts.netloc])[0], safe="")
    return f"{(options.get('endpoint') or [WECOM_HOST])[0].rstrip('/')}/cgi-bin/webhook/send?key={key}"


def wecom_payload(message: Message) -> dict[str, t.Any]:
    """Markdown, of at most 4,096 bytes."""
    title, lines, most = _wecom_text(message)
    return {"msgtype": "markdown", "markdown": {"content": "\n".join([f"**{title}**", *fit(lines, most)])}}


def _wecom_text(message: Message) -> tuple[str, list[str], int]:
    """Title, lines, and the bytes that these may have."""
    title = message.title.translate(_PLAIN)
    return title, [line.translate(_PLAIN) for line in message.lines], _WECOM_BYTES - len(f"**{title}**\n".encode())


def dingtalk_address(url: str, now: float) -> str:
    """From ``dingtalk://[SECRET@]TOKEN`` to the robot's address, signed where there is a secret."""
    parts = urllib.parse.urlsplit(url)
    secret, _at, token = parts.netloc.rpartition("@")
    options = urllib.parse.parse_qs(parts.query)
    address = f"{(options.get('endpoint') or [DINGTALK_HOST])[0].rstrip('/')}/robot/send"
    query = {"access_token": urllib.parse.unquote(token)}
    if secret:
        secret = urllib.parse.unquote(secret)
        stamp = str(round(now * 1000))
        digest = hmac.new(secret.encode(), f"{stamp}\n{secret}".encode(), hashlib.sha256).digest()
        query.update(timestamp=stamp, sign=base64.b64encode(digest).decode())
    return f"{address}?{urllib.parse.urlencode(query)}"


def dingtalk_payload(message: Message) -> dict[str, t.Any]:
    """Markdown; its lines are paragraphs only with an empty line between."""
    title, lines, most = _dingtalk_text(message)
    text = "\n\n".join([f"**{title}**", *fit(lines, most)])
    return {"msgtype": "markdown", "markdown": {"title": title, "text": text}}


def _dingtalk_text(message: Message) -> tuple[str, list[str], int]:
    return message.title.translate(_PLAIN), [line.translate(_PLAIN) for line in message.lines], _DINGTALK_BYTES // 2


def fit(lines: t.Sequence[str], most: int) -> list[str]:
    """As many whole lines as have room in so many bytes, and in the last one how many have not."""
    kept: list[str] = []
    size = 0
    reserve = len("… 99999 more lines".encode()) + 1
    for number, line in enumerate(lines):
        size += len(line.encode()) + 1
        last = number == len(lines) - 1
        if size - 1 > most - (0 if last else reserve):
            if not kept:  # one line that is too long by itself
                kept.append(line.encode()[: most - reserve - len("…".encode())].decode("utf-8", "ignore") + "…")
                number += 1
            left = len(lines) - number
            return [*kept, f"… {left} more line{'' if left == 1 else 's'}"] if left else kept
        kept.append(line)
    return kept
