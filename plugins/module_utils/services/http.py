# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A request over HTTP, for a state or a sign of life.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import typing as t
import urllib.error
import urllib.parse
import urllib.request

from ..errors import GuardError

_LARGEST = 1 << 20


class Reply(t.NamedTuple):
    """What the server said."""

    status: int
    body: bytes


def get(url: str, patience: float = 10.0, name: str = "") -> Reply:
    """GET a URL. An answer of any status is an answer; `GuardError`, which names no more than the host, for none."""
    return _ask(url, None, patience, name)


def get_here(url: str, patience: float = 10.0) -> Reply:
    """GET a URL of this host: by no proxy, and whatever its certificate says, which speaks of the name for others."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return _ask(url, None, patience, "", urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))


def post_json(url: str, content: t.Any, name: str = "", patience: float = 20.0) -> Reply:
    """POST an object. ``name`` stands for the URL in errors."""
    return _ask(url, json.dumps(content, ensure_ascii=False).encode(), patience, name)


def check(url: str, name: str = "") -> str:
    """What may be shown of a URL: what comes after the host may be secret. `GuardError` where it leads nowhere."""
    try:
        parts = urllib.parse.urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a bracket that is alone, or a port that is no number
        known = False
    if not known:
        raise GuardError(name or "a URL", "http:// or https:// and a host", "another one")
    return f"{parts.scheme}://{parts.hostname}"


def _ask(
    url: str, data: bytes | None, patience: float, name: str, *handlers: urllib.request.BaseHandler
) -> Reply:  # fmt: skip
    shown = check(url, name)
    where = name or shown
    headers = {"User-Agent": "guardops", **({"Content-Type": "application/json; charset=utf-8"} if data else {})}
    request = urllib.request.Request(url, data, headers)  # noqa: S310 - the scheme was looked at above
    opener = urllib.request.build_opener(*handlers)
    try:
        try:
            with opener.open(request, timeout=patience) as reply:
                return Reply(reply.status, reply.read(_LARGEST))
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, error.read(_LARGEST))
    except (OSError, http.client.HTTPException, ValueError) as error:
        # Not the error's own text, which may quote the URL.
        reason = getattr(error, "reason", error)
        told = os.strerror(reason.errno) if isinstance(reason, OSError) and reason.errno else type(reason).__name__
        raise GuardError(where, "an answer", f"none ({told})") from None
