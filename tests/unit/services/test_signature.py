# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Detached signatures with real gpg: made, read back, and refused where they are not good."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import GuardError, KeyProviderError
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.gpg import Gpg
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.signature import (
    Signer,
    read_passphrase,
    sign_arguments,
)
from support.keyring import KeyRing, WatchedProgram, living


@pytest.fixture(scope="module", name="ring")
def fixture_ring() -> t.Iterator[KeyRing]:
    ring = KeyRing()
    ring.make("first")
    ring.make("second")
    ring.make("locked", passphrase="open sesame")
    ring.make("expired", "", "default", "--faked-system-time", "20200101T000000", expires="1d")
    yield ring
    ring.remove()


def signed(signer: Signer, directory: Path, data: bytes) -> tuple[str, str]:
    signature, path = directory / "data.asc", directory / "data"
    signature.write_bytes(signer.sign(data))
    path.write_bytes(data)
    return str(signature), str(path)


def test_good_and_changed(ring: KeyRing, tmp_path: Path) -> None:
    with Gpg() as gpg:
        home = gpg.home
        signer = Signer(gpg, ring.private("first", tmp_path))
        signature, path = signed(signer, tmp_path, b"a statement\n")
        signer.verify(signature, path)
        assert b"PUBLIC KEY" in signer.public_key()
        Path(path).write_bytes(b"b statement\n")
        with pytest.raises(GuardError, match="a good signature"):
            signer.verify(signature, path)
    assert not living(home)
    assert not Path(home).exists()


def test_a_good_signature_of_another_key_is_refused(ring: KeyRing, tmp_path: Path) -> None:
    with Gpg() as gpg:
        first = Signer(gpg, ring.private("first", tmp_path))
        second = Signer(gpg, ring.private("second", tmp_path))
        signature, path = signed(second, tmp_path, b"x")
        second.verify(signature, path)
        with pytest.raises(GuardError, match=first.fingerprint):
            first.verify(signature, path)


def test_passphrases_go_by_a_pipe_only(ring: KeyRing, tmp_path: Path) -> None:
    key, watched = ring.private("locked", tmp_path), WatchedProgram("gpg", tmp_path)
    with Gpg(watched.path) as gpg:
        signed(Signer(gpg, key, b"open sesame"), tmp_path, b"x")
    # In a home of its own: an agent may remember a passphrase that was right once.
    with Gpg() as gpg, pytest.raises(KeyProviderError, match="passphrase"):
        Signer(gpg, key, b"wrong").sign(b"x")
    assert b"sesame" not in watched.seen()
    assert b"--detach-sign" in watched.seen()


@pytest.mark.parametrize("what", ["public", "text", "two", "none"])
def test_files_that_are_no_secret_key(ring: KeyRing, tmp_path: Path, what: str) -> None:
    path = tmp_path / "key"
    if what == "public":
        path = Path(ring.public("first", tmp_path))
    elif what == "two":
        path.write_bytes(Path(ring.private("first", tmp_path)).read_bytes())
        with open(path, "ab") as output:
            output.write(Path(ring.private("second", tmp_path)).read_bytes())
    elif what == "text":
        path.write_text("no key")
    with Gpg() as gpg, pytest.raises(KeyProviderError, match="secret key"):
        Signer(gpg, str(path))


def test_a_key_that_expired_cannot_sign(ring: KeyRing, tmp_path: Path) -> None:
    with Gpg() as gpg, pytest.raises(KeyProviderError, match="sign today"):
        Signer(gpg, ring.private("expired", tmp_path)).sign(b"x")


@pytest.mark.parametrize(("content", "mode"), [(b"", 0o600), (b"\n", 0o600), (b"a\0b\n", 0o600), (b"word\n", 0o644)])
def test_passphrase_files_that_will_not_do(tmp_path: Path, content: bytes, mode: int) -> None:
    path = tmp_path / "word"
    path.write_bytes(content)
    path.chmod(mode)
    with pytest.raises(KeyProviderError):
        read_passphrase(str(path))
    with pytest.raises(KeyProviderError):
        read_passphrase(str(tmp_path / "none"))


def test_arguments_hold_no_secret() -> None:
    arguments = sign_arguments("gpg", "/home", "ABCD")
    assert arguments[:3] == ["gpg", "--homedir", "/home"]
    assert arguments[arguments.index("--passphrase-fd") + 1] == "{secret_fd}"
    assert arguments[-1] == "--detach-sign"
