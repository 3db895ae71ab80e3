# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What all upstreams share: one HTTP client with limits, and the four ways in which an upstream fails."""

from __future__ import annotations

import asyncio
import json
import ssl
import typing as t

import aiohttp

from . import access
from .config import ConfigError, Upstream
from .verdict import Garbled, Verdict

# Below the 5 s after which uvicorn, which most engines run on, closes an idle connection.
_KEEP_ALIVE = 3.0


class UpstreamError(Exception):
    """No verdict. ``status`` and ``code`` are what the client gets; the text never holds users' words."""

    status = 502
    code = "upstream_down"


class UpstreamDown(UpstreamError):
    """No connection, or it broke."""


class UpstreamSlow(UpstreamError):
    status = 504
    code = "upstream_slow"


class UpstreamRefused(UpstreamError):
    """It answered with an HTTP status other than 200."""

    code = "upstream_refused"


class UpstreamGarbled(UpstreamError):
    """It answered, but not with a verdict."""

    code = "upstream_garbled"


class Protocol(t.Protocol):
    """How to speak to one kind of upstream."""

    path: str

    def request(self, text: str, response: str | None) -> dict[str, t.Any]:
        """The body to send."""

    def verdict(self, answer: t.Any, *, of_response: bool) -> Verdict:
        """Read the parsed answer; `Garbled` if it is no verdict."""


class Client:
    """Asks one upstream. `open` and `close` belong to the event loop that uses it."""

    def __init__(self, settings: Upstream, protocol: Protocol):
        self._settings = settings
        self._protocol = protocol
        self._url = settings.url + protocol.path
        self._session: aiohttp.ClientSession | None = None
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if settings.key_file:
            key = access.read_secret(settings.key_file, "upstream.key_file")
            self._headers["Authorization"] = f"Bearer {key}"
        self._tls = ssl_context(settings.ca_file)
        self._timeout = aiohttp.ClientTimeout(total=settings.answer_seconds, sock_connect=settings.connect_seconds)

    async def open(self, connections: int) -> None:
        connector = aiohttp.TCPConnector(limit=connections, keepalive_timeout=_KEEP_ALIVE, ssl=self._tls)
        self._session = aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), timeout=self._timeout, trust_env=False
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def audit(self, text: str, response: str | None) -> Verdict:
        """The verdict; an `UpstreamError` otherwise."""
        body = json.dumps(self._protocol.request(text, response)).encode()
        data = await self._guarded(lambda: self._post(body))
        try:
            answer = json.loads(data)
        except (ValueError, RecursionError):
            raise UpstreamGarbled("the answer is not JSON") from None
        try:
            return self._protocol.verdict(answer, of_response=response is not None)
        except Garbled as error:
            raise UpstreamGarbled(str(error)) from None

    async def ping(self) -> None:
        """Ask for the upstream's health path."""
        await self._guarded(self._get)

    async def _guarded(self, ask: t.Callable[[], t.Awaitable[bytes]]) -> bytes:
        """What the network can do to us, as the errors above."""
        try:
            try:
                return await ask()
            except (aiohttp.ServerDisconnectedError, ConnectionResetError):
                # Mostly an idle connection that was closed while we took it. To ask again changes nothing upstream.
                return await ask()
        except asyncio.TimeoutError:
            raise UpstreamSlow(f"no answer within {self._settings.answer_seconds:g} s") from None
        except aiohttp.ClientConnectorError as error:
            raise UpstreamDown(f"no connection: {_reason(error)}") from None
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamDown(f"the connection broke: {_reason(error)}") from None

    async def _post(self, body: bytes) -> bytes:
        async with self._use().post(self._url, data=body, headers=self._headers, allow_redirects=False) as reply:
            return await self._read(reply)

    async def _get(self) -> bytes:
        url = self._settings.url + self._settings.health_path
        async with self._use().get(url, headers=self._headers, allow_redirects=False) as reply:
            return await self._read(reply)

    def _use(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise UpstreamDown("the gateway is starting or stopping")
        return self._session

    async def _read(self, reply: aiohttp.ClientResponse) -> bytes:
        if reply.status != 200:
            raise UpstreamRefused(f"HTTP status {reply.status}")
        found = bytearray()
        async for piece in reply.content.iter_any():
            found += piece
            if len(found) > self._settings.answer_bytes:
                reply.close()
                raise UpstreamGarbled(f"the answer has more than {self._settings.answer_bytes} bytes")
        return bytes(found)


def _reason(error: BaseException) -> str:
    """One line, without addresses and bodies."""
    inner = getattr(error, "os_error", error)
    return getattr(inner, "strerror", None) or type(inner).__name__


def ssl_context(ca_file: str) -> ssl.SSLContext:
    """Verifies the upstream: by the system's authorities, or by those given."""
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"upstream.ca_file: {ca_file}: {error.strerror or error}") from error
