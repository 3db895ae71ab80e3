# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The configuration: one JSON file. Unknown keys are errors; secrets are named by the path of their file.

docs/gateway.md lists all keys with their defaults; a test holds it against `DEFAULTS`.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import math
import os
import re
import sys
import typing as t
import urllib.parse

from . import record

Network = t.Union[ipaddress.IPv4Network, ipaddress.IPv6Network]


class ConfigError(Exception):
    """The configuration cannot be used; the text says which key, and why."""


@dataclasses.dataclass(frozen=True)
class Listen:
    host: str
    port: int
    tls_certificate: str
    tls_key: str


@dataclasses.dataclass(frozen=True)
class Limits:
    body_bytes: int
    body_seconds: float
    concurrency: int
    queue: int
    shutdown_seconds: int


@dataclasses.dataclass(frozen=True)
class Upstream:
    kind: str
    url: str
    model: str
    key_file: str
    ca_file: str
    connect_seconds: float
    answer_seconds: float
    answer_bytes: int
    max_tokens: int
    logprobs: bool
    health_path: str
    probe_text: str
    fields: t.Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Log:
    mode: str
    directory: str
    state_directory: str
    archive_ledger: str
    on_failure: str
    min_free_bytes: int


@dataclasses.dataclass(frozen=True)
class Config:
    model: str
    language: str
    keys_file: str
    trusted_proxies: tuple[Network, ...]
    listen: Listen
    limits: Limits
    upstream: Upstream
    log: Log


# Every key there is. A value of None has no default: the file must give it (empty: not used).
DEFAULTS: dict[str, t.Any] = {
    "model": None,
    "language": "en",
    "keys_file": "",
    "trusted_proxies": [],
    "listen": {"host": "127.0.0.1", "port": 8080, "tls_certificate": "", "tls_key": ""},
    "limits": {"body_bytes": 262144, "body_seconds": 10.0, "concurrency": 32, "queue": 128, "shutdown_seconds": 30},
    "upstream": {
        "kind": "openai",
        "url": None,
        "model": "",
        "key_file": "",
        "ca_file": "",
        "connect_seconds": 3.0,
        "answer_seconds": 30.0,
        "answer_bytes": 65536,
        "max_tokens": 128,
        "logprobs": False,
        "health_path": "/health",
        "probe_text": "",
        "fields": {
            "text": "text",
            "response": "response",
            "verdict": "verdict",
            "categories": "categories",
            "refusal": "refusal",
            "confidence": "confidence",
        },
    },
    "log": {
        "mode": "journal",
        "directory": "",
        "state_directory": "",
        "archive_ledger": "",
        "on_failure": "refuse",
        "min_free_bytes": 67108864,
    },
}
_CHOICES = {
    "language": ("en", "zh"),
    "upstream.kind": ("openai", "web"),
    "log.mode": ("journal", "none"),
    "log.on_failure": ("refuse", "answer"),
}
_RANGES: dict[str, tuple[float, float]] = {
    "listen.port": (0, 65535),
    "limits.body_bytes": (1024, 16 << 20),
    "limits.body_seconds": (0.1, 600),
    "limits.concurrency": (1, 10_000),
    "limits.queue": (0, 100_000),
    "limits.shutdown_seconds": (1, 600),
    "upstream.connect_seconds": (0.1, 60),
    "upstream.answer_seconds": (0.1, 600),
    "upstream.answer_bytes": (1024, 16 << 20),
    "upstream.max_tokens": (16, 4096),
    "log.min_free_bytes": (0, 1 << 50),
}
_PATHS = (
    "keys_file",
    "listen.tls_certificate",
    "listen.tls_key",
    "upstream.key_file",
    "upstream.ca_file",
    "log.directory",
    "log.state_directory",
    "log.archive_ledger",
)


def load(path: str) -> Config:
    """Read and check a configuration file; ``-`` is standard input, for one that this user may not open by its name."""
    source: str | int = path
    if path == "-":
        source, path = sys.stdin.fileno(), "standard input"
    try:
        with open(source, encoding="utf-8") as file:
            given = json.load(file, object_pairs_hook=_no_duplicates)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except ValueError as error:  # no JSON, or no UTF-8
        raise ConfigError(f"{path}: not JSON: {error}") from error
    try:
        return build(given)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def build(given: t.Any) -> Config:
    """The configuration from a parsed file."""
    values = _merge(DEFAULTS, given, "")
    _check(values)
    values["trusted_proxies"] = tuple(_network(text) for text in values["trusted_proxies"])
    upstream = dict(values["upstream"])
    upstream["model"] = upstream["model"] or values["model"]
    upstream["url"] = upstream["url"].rstrip("/")
    return Config(
        **{
            **values,
            "listen": Listen(**values["listen"]),
            "limits": Limits(**values["limits"]),
            "upstream": Upstream(**upstream),
            "log": Log(**values["log"]),
        }
    )


def _no_duplicates(pairs: list[tuple[str, t.Any]]) -> dict[str, t.Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice in one object")
    return found


def _merge(defaults: dict[str, t.Any], given: t.Any, where: str) -> dict[str, t.Any]:
    """Defaults with what is given in their place: the same keys, and values of the same types."""
    if not isinstance(given, dict):
        raise ConfigError(f"{where or 'the file'}: expected an object")
    unknown = sorted(set(given) - set(defaults))
    if unknown:
        raise ConfigError(f"unknown key: {', '.join(_join(where, key) for key in unknown)}")
    merged: dict[str, t.Any] = {}
    for key, default in defaults.items():
        name = _join(where, key)
        if isinstance(default, dict):
            merged[key] = _merge(default, given.get(key, {}), name)
        elif key in given:
            merged[key] = _typed(name, given[key], default)
        elif default is None:
            raise ConfigError(f"missing key: {name}")
        else:
            merged[key] = default
    return merged


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _typed(name: str, value: t.Any, default: t.Any) -> t.Any:
    wanted: type = str if default is None else type(default)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):  # a bool is an int, too
        raise ConfigError(f"{name}: expected {_TYPES[wanted]}")
    return value


_TYPES = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", list: "a list"}


def _check(values: dict[str, t.Any]) -> None:
    flat = {
        _join(key, inner): inner_value
        for key, value in values.items()
        for inner, inner_value in (value.items() if isinstance(value, dict) else (("", value),))
    }
    flat = {name.rstrip("."): value for name, value in flat.items()}
    for name, choices in _CHOICES.items():
        if flat[name] not in choices:
            raise ConfigError(f"{name}: expected one of {', '.join(choices)}")
    for name, (low, high) in _RANGES.items():
        if not math.isfinite(flat[name]) or not low <= flat[name] <= high:
            raise ConfigError(f"{name}: expected {low:g} to {high:g}")
    for name in _PATHS:
        if flat[name] and not os.path.isabs(flat[name]):
            raise ConfigError(f"{name}: expected an absolute path")
    if not record.is_model(flat["model"]):
        raise ConfigError("model: expected 1 to 16 letters, digits and dots, as it stands in every trace_id (8b)")
    if bool(flat["listen.tls_certificate"]) != bool(flat["listen.tls_key"]):
        raise ConfigError("listen.tls_certificate, listen.tls_key: give both or none")
    if flat["log.mode"] == "journal" and not (flat["log.directory"] and flat["log.state_directory"]):
        raise ConfigError("log.directory, log.state_directory: both are needed (log.mode none is for benchmarks only)")
    if flat["log.directory"] and _is_below(flat["log.state_directory"], flat["log.directory"]):
        raise ConfigError(
            "log.state_directory: must lie outside log.directory, or a restored log would bring its own state"
        )
    for field, name in flat["upstream.fields"].items():
        if not name:
            raise ConfigError(f"upstream.fields.{field}: expected a name, not an empty text")
    if not re.fullmatch(r"/[\x21-\x7e]*", flat["upstream.health_path"]):
        raise ConfigError("upstream.health_path: expected a path that begins with /")
    _check_url(flat["upstream.url"])


def _is_below(path: str, directory: str) -> bool:
    return bool(path) and os.path.commonpath([os.path.realpath(path), os.path.realpath(directory)]) == (
        os.path.realpath(directory)
    )


def _check_url(url: str) -> None:
    try:
        parts = urllib.parse.urlsplit(url)
        parts.port  # noqa: B018 - raises ValueError when it is no number
    except ValueError as error:
        raise ConfigError(f"upstream.url: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ConfigError("upstream.url: expected http://HOST:PORT or https://HOST:PORT, and no more than a path")
    if parts.username is not None or parts.password is not None:
        raise ConfigError("upstream.url: holds a secret; put it into upstream.key_file")


def _network(text: t.Any) -> Network:
    try:
        return ipaddress.ip_network(text if isinstance(text, str) else "")
    except ValueError as error:
        raise ConfigError(f"trusted_proxies: expected networks like 10.0.0.0/8: {error}") from error
