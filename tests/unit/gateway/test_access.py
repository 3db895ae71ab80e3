# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whose address counts, and whose key."""

from __future__ import annotations

import hashlib
import ipaddress
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from qwen3guard_gateway import access
from qwen3guard_gateway.access import ApiKeys, secret_of, source_address
from qwen3guard_gateway.config import ConfigError

PROXIES = [ipaddress.ip_network(text) for text in ("10.0.0.0/8", "fd00::/8")]


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("203.0.113.5", [], "203.0.113.5"),
        ("203.0.113.5", ["1.2.3.4"], "203.0.113.5"),  # no proxy of ours: its header is its own say
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["1.2.3.4"], "1.2.3.4"),
        ("10.0.0.1", ["6.6.6.6, 1.2.3.4"], "1.2.3.4"),  # the left one is what the client sent
        ("10.0.0.1", ["6.6.6.6", "1.2.3.4"], "1.2.3.4"),  # the same in two headers
        ("10.0.0.1", ["6.6.6.6, 1.2.3.4, 10.9.9.9"], "1.2.3.4"),
        ("10.0.0.1", ["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
        ("10.0.0.1", ["6.6.6.6, nonsense"], "10.0.0.1"),
        ("10.0.0.1", ["6.6.6.6, nonsense, 10.2.2.2"], "10.2.2.2"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["1.2.3.4:5678"], "1.2.3.4"),
        ("fd00::1", ["[2001:db8::7]:443"], "2001:db8::7"),
        ("fd00::1", ["2001:db8::7"], "2001:db8::7"),
        ("::ffff:10.0.0.1", ["1.2.3.4"], "1.2.3.4"),
        ("fe80::1%eth0", ["1.2.3.4"], "fe80::1"),
        ("", ["1.2.3.4"], ""),
    ],
)
def test_source_address(peer: str, forwarded: list[str], expected: str) -> None:
    assert source_address(peer, forwarded, PROXIES) == expected


@hypothesis.settings(max_examples=100, deadline=None)
@hypothesis.given(st.lists(st.text(), max_size=4), st.ip_addresses(v=4))
def test_nobody_can_choose_the_address_that_the_proxy_saw(said: list[str], seen: ipaddress.IPv4Address) -> None:
    hypothesis.assume(seen not in PROXIES[0])
    assert source_address("10.0.0.1", [*said, str(seen)], PROXIES) == str(seen)
    assert source_address(str(seen), said, PROXIES) == str(seen)


def key_line(name: str, secret: str) -> str:
    return f"{name}:{hashlib.sha256(secret.encode()).hexdigest()}\n"


def test_keys_are_known_by_their_hash(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# who may ask\n\n" + key_line("web", "one") + key_line("batch", "two"), encoding="ascii")
    keys = ApiKeys(str(path))
    assert keys.name_of("one") == "web"
    assert keys.name_of("two") == "batch"
    assert keys.name_of("three") is None
    assert keys.name_of(hashlib.sha256(b"one").hexdigest()) is None
    assert keys.name_of("") is None


def test_keys_are_read_again_when_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "_LOOK_AGAIN", 0.0)
    path = tmp_path / "keys"
    path.write_text(key_line("web", "one"), encoding="ascii")
    keys = ApiKeys(str(path))
    path.write_text(key_line("web", "another"), encoding="ascii")
    assert (keys.name_of("one"), keys.name_of("another")) == (None, "web")
    path.write_text("broken", encoding="ascii")
    assert keys.name_of("another") == "web"
    assert "line 1" in keys.problem
    path.unlink()
    assert keys.name_of("another") == "web"
    assert "No such file" in keys.problem
    path.write_text(key_line("web", "third"), encoding="ascii")
    assert (keys.name_of("another"), keys.name_of("third")) == (None, "web")
    assert not keys.problem


@pytest.mark.parametrize("content", ["", "# nobody\n", "web\n", "web:123\n", "we b:" + "0" * 64, "ключ:" + "0" * 64])
def test_key_files_that_cannot_be_meant(tmp_path: Path, content: str) -> None:
    path = tmp_path / "keys"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match="keys_file"):
        ApiKeys(str(path))


def test_a_name_given_twice_is_an_error_that_repeats_no_hash(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(key_line("web", "one") + key_line("web", "two"), encoding="ascii")
    with pytest.raises(ConfigError, match="line 2") as caught:
        ApiKeys(str(path))
    assert hashlib.sha256(b"two").hexdigest() not in str(caught.value)


@pytest.mark.parametrize(
    ("authorization", "api_key", "expected"),
    [
        ("Bearer abc", "", "abc"),
        ("bearer  abc ", "", "abc"),
        ("", "abc", "abc"),
        ("Basic abc", "", ""),
        ("Bearer", "", ""),
        ("", "", ""),
    ],
)
def test_where_a_key_may_stand(authorization: str, api_key: str, expected: str) -> None:
    assert secret_of(authorization, api_key) == expected


@pytest.mark.parametrize("content", ["", "\n", "two\nlines", "\xff"])
def test_secrets_for_the_upstream_are_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "secret"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(ConfigError, match=r"upstream\.key_file"):
        access.read_secret(str(path), "upstream.key_file")
