# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The process: sockets, TLS, signals, and the word to systemd that it is ready."""

from __future__ import annotations

import gc
import os
import signal
import socket
import ssl
import sys

import uvicorn

from . import messages
from .app import make_app
from .config import Config, ConfigError

# Nothing from elsewhere, nothing inline, in no frame, and nothing kept: answers may hold what people wrote.
_CONTENT = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = [
    ("Content-Security-Policy", _CONTENT),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
]


class _Server(uvicorn.Server):
    """Tells systemd when it listens and when it stops."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            messages.info("listening", host=self.config.host, port=self.config.port, tls=self.config.is_ssl)
            notify("READY=1")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        messages.info("stopping: requests in flight are finished first")
        notify("STOPPING=1")
        await super().shutdown(sockets)
        messages.info("stopped")


def notify(state: str) -> None:
    """sd_notify: one datagram to the socket that systemd names, if it does."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.sendto(state.encode(), address)
    except OSError as error:
        messages.warning("systemd cannot be told", state=state, reason=str(error.strerror))


def make_server(config: Config) -> uvicorn.Server:
    """Everything made and checked, nothing opened yet."""
    check_tls(config)
    settings = uvicorn.Config(
        make_app(config),
        host=config.listen.host,
        port=config.listen.port,
        ssl_certfile=config.listen.tls_certificate or None,
        ssl_keyfile=config.listen.tls_key or None,
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # whom to believe about addresses is decided in access.py
        server_header=False,
        headers=_HEADERS,
        timeout_graceful_shutdown=config.limits.shutdown_seconds,
    )
    return _Server(settings)


def check_tls(config: Config) -> None:
    """Whether certificate and key can be read and belong together."""
    certificate, key = config.listen.tls_certificate, config.listen.tls_key
    if not certificate:
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without the callable, a key with a passphrase would make OpenSSL ask on the terminal.
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except ssl.SSLError as error:
        raise ConfigError(f"listen.tls_certificate, listen.tls_key: {error.reason or error}") from error
    except OSError as error:
        raise ConfigError(f"listen.tls_certificate, listen.tls_key: {error.strerror}") from error


def serve(config: Config) -> None:
    """Run until SIGTERM or SIGINT."""
    server = make_server(config)
    # The thread that writes records waits for the event loop so long at the most; Python's own 5 ms add up to many.
    sys.setswitchinterval(0.001)
    gc.freeze()  # what is there now stays: looking through it again and again would hold up requests
    gc.set_threshold(20_000, 20, 20)
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn sends itself the signal again at the end: exit with 0
        signal.signal(number, lambda *_arguments: None)
    server.run()
