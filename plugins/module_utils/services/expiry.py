# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Until when certificates and OpenPGP keys are valid.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import datetime
import re
import socket
import ssl
import typing as t

from ..errors import GuardError
from ..system.process import find_program, run
from .gpg import Gpg

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_ADDRESS = re.compile(r"\A(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})\Z")
_LARGEST = 1 << 20
_PATIENCE = 10.0


class Expiry(t.NamedTuple):
    """One certificate or key, and its last moment; None: it has none."""

    name: str
    until: datetime.datetime | None


def certificates(place: str) -> list[Expiry]:
    """Those in a PEM file, or the one that a server shows at ``host:port``."""
    blocks = [_shown_at(place)] if _ADDRESS.match(place) else _PEM.findall(_read(place))
    if not blocks:
        raise GuardError(place, "a certificate in PEM", "none")
    program = find_program("openssl", "Install openssl, or leave out certificates.")
    found = []
    for block in blocks:
        result = run([program, "x509", "-noout", "-subject", "-enddate"], data=block + b"\n", timeout=30)
        told = dict(line.partition("=")[::2] for line in result.stdout.decode("utf-8", "replace").splitlines())
        if result.rc != 0 or "notAfter" not in told:
            raise GuardError(place, "a certificate in PEM", "one that openssl cannot read")
        found.append(Expiry(told.get("subject", "").strip()[:200], _moment(ssl.cert_time_to_seconds(told["notAfter"]))))
    return found


def openpgp_keys(gpg: Gpg, path: str) -> list[Expiry]:
    """The keys in a file: until when each of them can be encrypted to."""
    arguments = [gpg.program, "--homedir", gpg.home, "--batch", "--no-tty", "--with-colons", "--show-keys"]
    result = run(arguments, data=_read(path), timeout=60)
    keys = parse_keys(result.stdout.decode("utf-8", "replace"))
    if result.rc != 0 or not keys:
        raise GuardError(path, "a file with OpenPGP keys", "none that gpg can read")
    return keys


def parse_keys(colons: str) -> list[Expiry]:
    """Keys from gpg's listing. A key is good for as long as it is, and one of those in it that encrypt."""
    found: list[Expiry] = []
    encrypting: list[float | None] = []
    primary: float | None = None
    name = ""

    def finish() -> None:
        if name:
            latest = None if None in encrypting else max(filter(None, encrypting), default=None)
            ends = [end for end in (primary, latest) if end is not None]
            found.append(Expiry(name, _moment(min(ends)) if ends else None))

    for fields in (line.split(":") for line in colons.splitlines()):
        if fields[0] in ("pub", "sec"):
            finish()
            name, encrypting, primary = "", [], float(fields[6]) if fields[6] else None
        if fields[0] in ("pub", "sec", "sub", "ssb") and "e" in fields[11] and fields[1] != "r":
            encrypting.append(float(fields[6]) if fields[6] else None)
        if fields[0] == "fpr" and not name:
            name = fields[9]
    finish()
    return found


def _moment(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)


def _shown_at(address: str) -> bytes:
    """The certificate of a server, whoever signed it: what it reads at its start may be older than the file."""
    host, _colon, port = address.rpartition(":")
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        plain = socket.create_connection((host.strip("[]"), int(port)), _PATIENCE)
        with plain, context.wrap_socket(plain, server_hostname=host.strip("[]")) as server:
            shown = server.getpeercert(binary_form=True)
    except (OSError, ValueError) as error:
        raise GuardError(address, "a server that shows a certificate", str(error)) from error
    return ssl.DER_cert_to_PEM_cert(shown or b"").encode()


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as handle:
            return handle.read(_LARGEST)
    except OSError as error:
        raise GuardError(path, "a file that can be read", error.strerror or str(error)) from error
