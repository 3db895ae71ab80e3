# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Until when real certificates and real OpenPGP keys are valid, as openssl and gpg tell it."""

from __future__ import annotations

import contextlib
import datetime
import pathlib
import shutil
import socket
import ssl
import subprocess
import threading
import typing as t

import pytest

from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import GuardError
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services import expiry
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.gpg import Gpg
from ansible_collections.guardops.qwen3guard.plugins.module_utils.system.process import run

DAY = datetime.timedelta(days=1)


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


def make_certificate(directory: pathlib.Path, name: str, days: int) -> pathlib.Path:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not there")
    certificate = directory / f"{name}.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-days", str(days),
               "-keyout", str(directory / f"{name}.key"), "-out", str(certificate)]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    return certificate


def test_every_certificate_of_a_chain(tmp_path: pathlib.Path) -> None:
    chain = tmp_path / "chain.pem"
    chain.write_bytes(b"".join(make_certificate(tmp_path, *it).read_bytes() for it in (("leaf", 10), ("above", 300))))
    first, second = expiry.certificates(str(chain))
    assert "leaf" in first.name
    assert first.until is not None
    assert second.until is not None
    assert abs(first.until - now() - 10 * DAY) < DAY
    assert abs(second.until - now() - 300 * DAY) < DAY


@pytest.mark.parametrize("content", [b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_what_is_no_certificate(tmp_path: pathlib.Path, content: bytes) -> None:
    path = tmp_path / "x.pem"
    path.write_bytes(content)
    with pytest.raises(GuardError, match="a certificate in PEM"):
        expiry.certificates(str(path))
    with pytest.raises(GuardError, match="No such file"):
        expiry.certificates(str(tmp_path / "nowhere.pem"))


@contextlib.contextmanager
def tls_server(certificate: pathlib.Path) -> t.Iterator[str]:
    """A server that shows a certificate to one who asks, and nothing else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _address = listener.accept()
            with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True):
                pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join(20)


def test_what_a_server_shows_counts_and_not_the_file(tmp_path: pathlib.Path) -> None:
    with tls_server(make_certificate(tmp_path, "served", 20)) as address:
        (found,) = expiry.certificates(address)
    assert "served" in found.name
    with pytest.raises(GuardError, match="a server that shows a certificate"):
        expiry.certificates(address)


# -- keys ----------------------------------------------------------------------------------------------------------


def make_key(home: str, name: str, expire: str, subkey_expire: str = "") -> bytes:
    gpg = ["gpg", "--homedir", home, "--batch", "--passphrase", "", "--pinentry-mode", "loopback"]
    run([*gpg, "--quick-generate-key", name, "rsa2048" if not subkey_expire else "ed25519", "default", expire])
    listed = run([*gpg, "--with-colons", "--list-keys", name]).stdout.decode()
    fingerprint = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr"))
    if subkey_expire:
        run([*gpg, "--quick-add-key", fingerprint, "cv25519", "encr", subkey_expire])
    return run([*gpg, "--armor", "--export", fingerprint]).stdout


@pytest.mark.parametrize(("key", "subkey", "days"), [
    ("never", "", None), ("90d", "", 90), ("never", "30d", 30), ("20d", "never", 20), ("90d", "40d", 40),
])  # fmt: skip
def test_a_key_is_good_for_as_long_as_it_can_be_encrypted_to(
    tmp_path: pathlib.Path, key: str, subkey: str, days: int | None
) -> None:
    path = tmp_path / "key.asc"
    with Gpg() as maker:
        path.write_bytes(make_key(maker.home, "owner@example.org", key, subkey))
        run(["gpgconf", "--homedir", maker.home, "--kill", "gpg-agent"])
    with Gpg() as gpg:
        (found,) = expiry.openpgp_keys(gpg, str(path))
    assert len(found.name) == 40
    if days is None:
        assert found.until is None
    else:
        assert found.until is not None
        assert abs(found.until - now() - days * DAY) < DAY


def test_what_is_no_key(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "key.asc"
    path.write_bytes(b"nothing")
    with Gpg() as gpg, pytest.raises(GuardError, match="a file with OpenPGP keys"):
        expiry.openpgp_keys(gpg, str(path))
