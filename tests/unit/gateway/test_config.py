# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The configuration: every mistake has a message that names the key."""

from __future__ import annotations

import copy
import json
import re
import typing as t
from pathlib import Path

import pytest

from qwen3guard_gateway import config
from qwen3guard_gateway.config import ConfigError
from support.checkout import ROOT

LEAST: dict[str, t.Any] = {
    "model": "8b",
    "upstream": {"url": "http://127.0.0.1:8000"},
    "log": {"directory": "/data/logs", "state_directory": "/var/lib/gateway"},
}


def changed(name: str, value: t.Any) -> dict[str, t.Any]:
    """The least configuration with one key set, named with dots."""
    given = copy.deepcopy(LEAST)
    inner = given
    *path, last = name.split(".")
    for key in path:
        inner = inner.setdefault(key, {})
    inner[last] = value
    return given


def test_defaults_are_careful() -> None:
    found = config.build(LEAST)
    assert (found.listen.host, found.listen.port) == ("127.0.0.1", 8080)
    assert found.log.on_failure == "refuse"
    assert found.trusted_proxies == ()
    assert found.limits.body_bytes == 256 * 1024
    assert found.upstream.model == "8b"  # unless the engine has another name for it


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mode", "8b"),
        ("listen.prot", 80),
        ("upstream.fields.verdikt", "x"),
        ("model", 8),
        ("model", "8-b"),  # dashes part the fields of a trace_id
        ("language", "fr"),
        ("listen.port", "8080"),
        ("listen.port", True),
        ("listen.port", 65536),
        ("listen", []),
        ("listen.tls_key", "/etc/key"),  # without a certificate
        ("limits.body_bytes", 0),
        ("limits.concurrency", 0),
        ("upstream.kind", "null"),
        ("upstream.url", "127.0.0.1:8000"),
        ("upstream.url", "ftp://127.0.0.1"),
        ("upstream.url", "http://user:secret@127.0.0.1"),
        ("upstream.url", "http://127.0.0.1:port"),
        ("upstream.url", "http://127.0.0.1/?x=1"),
        ("upstream.answer_seconds", float("nan")),
        ("upstream.answer_seconds", -1),
        ("upstream.health_path", "health"),
        ("upstream.fields.verdict", ""),
        ("upstream.key_file", "key"),
        ("keys_file", "keys"),
        ("trusted_proxies", "10.0.0.0/8"),
        ("trusted_proxies", ["10.0.0.1/8"]),
        ("trusted_proxies", [10]),
        ("log.on_failure", "ignore"),
        ("log.mode", "off"),
        ("log.directory", ""),
        ("log.state_directory", ""),
        ("log.state_directory", "/data/logs"),
        ("log.state_directory", "/data/logs/state"),
    ],
)
def test_mistakes_are_named(name: str, value: t.Any) -> None:
    with pytest.raises(ConfigError) as caught:
        config.build(changed(name, value))
    assert name.rpartition(".")[0] in str(caught.value)
    assert name.rpartition(".")[2] in str(caught.value)
    assert "secret" not in str(caught.value) or name == "upstream.url"
    assert "user:secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["model", "upstream.url"])
def test_what_has_no_default_must_be_given(name: str) -> None:
    given = copy.deepcopy(LEAST)
    inner, last = (given, name) if "." not in name else (given["upstream"], "url")
    del inner[last]
    with pytest.raises(ConfigError, match=f"missing key: {name}"):
        config.build(given)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model": "8b", "model": "4b"}', b"\xff"])
def test_files_that_are_no_configuration(tmp_path: Path, content: str | bytes) -> None:
    path = tmp_path / "gateway.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=re.escape(str(path))):
        config.load(str(path))


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        config.load(str(tmp_path / "gateway.json"))


def test_documentation_has_every_key_and_default() -> None:
    text = (ROOT / "docs" / "gateway.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([a-z_.]+)` \| (?:`([^`]*)`|[a-z]+) \|", text, re.MULTILINE))
    assert rows == {name: "" if value is None else json.dumps(value) for name, value in flat(config.DEFAULTS)}


def flat(values: dict[str, t.Any], where: str = "") -> t.Iterator[tuple[str, t.Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{where}{key}.")
        else:
            yield where + key, value
