# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Detached OpenPGP signatures, made with a secret key that is in a throw-away home only.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import os
import re

from ..errors import GuardError, KeyProviderError
from ..system.process import Result, run
from .gpg import BAD_PASSPHRASE, Gpg, error_code, human_lines, status_lines

_TIMEOUT = 120.0
_LARGEST_KEY_FILE = 10 << 20
_COMMON = (
    "--batch", "--no-options", "--no-tty", "--quiet", "--no-secmem-warning", "--pinentry-mode", "loopback",
    "--status-fd", "2",
)  # fmt: skip
_EXPORT_HINT = "Export it with: gpg --armor --export-secret-keys FINGERPRINT"


def sign_arguments(program: str, home: str, fingerprint: str) -> list[str]:
    """Sign stdin, the signature to stdout; the key's passphrase on ``{secret_fd}``."""
    return [
        program, "--homedir", home, *_COMMON, "--passphrase-fd", "{secret_fd}", "--digest-algo", "SHA512", "--armor",
        "--local-user", fingerprint, "--output", "-", "--detach-sign",
    ]  # fmt: skip


def verify_arguments(program: str, home: str, signature: str, path: str) -> list[str]:
    """Verify a detached signature of a file."""
    return [program, "--homedir", home, *_COMMON, "--verify", signature, path]


class Signer:
    """Signs with the key in a file. Its home is that of ``gpg``, and gone with it."""

    def __init__(self, gpg: Gpg, key_file: str, passphrase: bytes = b""):
        self._gpg = gpg
        self._key_file = key_file
        self._passphrase = passphrase
        self.fingerprint = self._import()

    def _run(self, *arguments: str, data: bytes | None = None) -> Result:
        return run([self._gpg.program, "--homedir", self._gpg.home, *_COMMON, *arguments], data=data, timeout=_TIMEOUT)

    def _import(self) -> str:
        try:
            with open(self._key_file, "rb") as handle:
                data = handle.read(_LARGEST_KEY_FILE)
        except OSError as error:
            raise KeyProviderError(
                self._key_file, "a file with an OpenPGP secret key", error.strerror or str(error)
            ) from error
        result = self._run("--import", data=data)
        # IMPORT_OK <reason> <fingerprint>; the reason's bit 16 says that secret parts came with it.
        keys = {
            line[2] for line in status_lines(result.stderr)
            if line[0] == "IMPORT_OK" and len(line) > 2 and line[1].isdigit() and int(line[1]) & 16
        }  # fmt: skip
        if len(keys) != 1:
            found = f"{len(keys)} secret keys" if keys else human_lines(result.stderr) or "none"
            raise KeyProviderError(self._key_file, "one OpenPGP secret key", found, _EXPORT_HINT)
        return keys.pop()

    def sign(self, data: bytes) -> bytes:
        """An armored detached signature."""
        arguments = sign_arguments(self._gpg.program, self._gpg.home, self.fingerprint)
        result = run(arguments, data=data, secret=self._passphrase + b"\n", timeout=_TIMEOUT)
        status = status_lines(result.stderr)
        if result.rc == 0 and any(line[0] == "SIG_CREATED" for line in status):
            return result.stdout
        if any(error_code(line) == BAD_PASSPHRASE for line in status) or "BAD_PASSPHRASE" in {x[0] for x in status}:
            raise KeyProviderError(
                self._key_file,
                "a key that the passphrase opens",
                "one that it does not",
                "Set signing_passphrase_file.",
            )
        raise KeyProviderError(
            f"{self._key_file}, key {self.fingerprint}",
            "a key that can sign today",
            human_lines(result.stderr) or "none",
        )

    def public_key(self) -> bytes:
        """The armored public key."""
        result = self._run("--armor", "--export", self.fingerprint)
        if result.rc != 0 or not result.stdout:
            raise KeyProviderError(self._key_file, "a public key to export", human_lines(result.stderr))
        return result.stdout

    def verify(self, signature: str, path: str) -> None:
        """Raise unless the file's signature is good and of this key."""
        result = run(verify_arguments(self._gpg.program, self._gpg.home, signature, path), timeout=_TIMEOUT)
        # VALIDSIG <fingerprint> ... <fingerprint of the primary key>
        valid = [line for line in status_lines(result.stderr) if line[0] == "VALIDSIG"]
        if result.rc != 0 or len(valid) != 1 or self.fingerprint not in (valid[0][1], valid[0][-1]):
            raise GuardError(path, f"a good signature of {self.fingerprint}", human_lines(result.stderr) or "none")


def read_passphrase(path: str) -> bytes:
    """The first line of a file that only its owner should be able to read."""
    try:
        with open(path, "rb") as handle:
            if os.fstat(handle.fileno()).st_mode & 0o077:
                raise KeyProviderError(path, "a file that only its owner can read", "one that others can read too")
            passphrase = handle.readline(4096).rstrip(b"\r\n")
    except OSError as error:
        raise KeyProviderError(path, "a file with a passphrase", error.strerror or str(error)) from error
    if not re.fullmatch(rb"[^\x00\r\n]{1,1024}", passphrase):
        raise KeyProviderError(path, "one line of text", f"{len(passphrase)} bytes that are not")
    return passphrase
