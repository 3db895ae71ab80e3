# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Requests read with limits and checked strictly; everything else is a `Rejected` with a status and a code."""

from __future__ import annotations

import json
import typing as t

import anyio
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope


class Rejected(Exception):
    """Not an audit: it is answered with an error, counted, and not recorded."""

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None):
        self.status = status
        self.code = code
        self.headers = headers or {}
        super().__init__(message)


class Question(t.NamedTuple):
    """What is to be audited."""

    text: str
    response: str | None


def header(scope: Scope, name: bytes) -> str:
    """The first header of a name; empty if there is none."""
    for key, value in scope["headers"]:
        if key == name:
            return t.cast(bytes, value).decode("latin-1")
    return ""


def headers(scope: Scope, name: bytes) -> list[str]:
    """All headers of a name."""
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def check_content_type(scope: Scope) -> None:
    """JSON in UTF-8. A page of another origin cannot send this type without asking first."""
    media, _semicolon, parameters = header(scope, b"content-type").partition(";")
    charset = parameters.replace(" ", "").replace('"', "").lower()
    if media.strip().lower() != "application/json" or charset not in ("", "charset=utf-8"):
        raise Rejected(415, "unsupported_media_type", "expected Content-Type: application/json, in UTF-8")
    if header(scope, b"content-encoding").lower() not in ("", "identity"):
        raise Rejected(415, "unsupported_media_type", "compressed bodies are not accepted")


async def read_body(scope: Scope, receive: Receive, limit: int, seconds: float) -> bytes:
    """The body, never more of it than the limit, whatever the headers promise."""
    too_large = Rejected(413, "too_large", f"the body has more than {limit} bytes", {"Connection": "close"})
    length = header(scope, b"content-length")
    if length.isdecimal() and int(length[:20]) > limit:
        raise too_large
    found = b""
    try:
        with anyio.fail_after(seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                found += t.cast(bytes, message.get("body", b""))
                if len(found) > limit:
                    raise too_large
                if not message.get("more_body", False):
                    return found
    except TimeoutError:
        raise Rejected(
            408, "too_slow", f"the body was not there within {seconds:g} s", {"Connection": "close"}
        ) from None


def parse_question(body: bytes) -> Question:
    """``{"text": …, "response": …}`` and nothing else."""
    try:
        decoded = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Rejected(400, "invalid_utf8", f"the body is not UTF-8: byte {error.start}") from None
    try:
        given = json.loads(decoded, object_pairs_hook=_no_duplicates)
    except _Duplicate:
        raise Rejected(400, "invalid_json", "the body is not JSON: a key is given twice") from None
    except json.JSONDecodeError as error:
        raise Rejected(400, "invalid_json", f"the body is not JSON: {error.msg}: character {error.pos}") from None
    except (ValueError, RecursionError):  # a number of ten thousand digits; thousands of brackets
        raise Rejected(400, "invalid_json", "the body is not JSON that can be read") from None
    if not isinstance(given, dict):
        raise Rejected(422, "invalid_request", "expected a JSON object")
    unknown = set(given) - {"text", "response"}
    if unknown:
        raise Rejected(422, "unknown_key", "expected the keys text and response, and no others")
    if "text" not in given:
        raise Rejected(422, "missing_text", "the key text is missing")
    return Question(
        text=_check_text("text", given["text"]),
        response=None if given.get("response") is None else _check_text("response", given["response"]),
    )


def _check_text(name: str, value: t.Any) -> str:
    if not isinstance(value, str):
        raise Rejected(422, "invalid_type", f"{name}: expected a text")
    if not value.strip():
        raise Rejected(422, f"empty_{name}", f"{name}: empty")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise Rejected(422, "invalid_text", f"{name}: half of a surrogate pair is no character") from None
    return value


class _Duplicate(ValueError):
    """A key is given twice: readers disagree about which one counts, and so could auditors."""


def _no_duplicates(pairs: list[tuple[str, t.Any]]) -> dict[str, t.Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Duplicate
    return found
