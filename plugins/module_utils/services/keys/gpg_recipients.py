# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Data keys wrapped for the holders of OpenPGP keys: the host can encrypt, and need not be able to decrypt.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import typing as t

from ...errors import GuardError, KeyProviderError
from ...system.process import clean_environment, find_program, run
from ..gpg import BAD_PASSPHRASE, Gpg, check_decryption, error_code, human_lines, status_lines
from .base import DataKey, KeyProvider, bound, context_line, from_manifest, new_passphrase, unbound

try:
    import gnupg
except ImportError:
    HAS_GNUPG = False
else:
    # Another library has the same name to import, and this one changed its arguments with 0.5.
    HAS_GNUPG = tuple(int(n) for n in getattr(gnupg, "__version__", "0.0").split(".")[:2]) >= (0, 5)

_LARGEST_KEY_FILE = 10 << 20
_EXPORT_HINT = "Export it with: gpg --armor --export FINGERPRINT"
# Loopback: gpg must fail, not ask on a terminal that nobody watches.
_OPTIONS = ["--no-options", "--pinentry-mode", "loopback", "--no-secmem-warning"]
_TRUST_PROBLEMS = {
    "e": "it expired",
    "r": "it revoked",
    "d": "it disabled",
    "i": "it invalid (no valid signature of its own)",
}


class GpgRecipients(KeyProvider):
    """Wraps for the public keys in some files; unwraps only where a private key is given."""

    name = "gpg_recipients"

    def __init__(
        self,
        public_key_files: list[str],
        gpg: Gpg,
        *,
        private_key_file: str | None = None,
        private_key_passphrase: str | None = None,
        gpg_home: str | None = None,
    ):
        if not HAS_GNUPG:
            raise KeyProviderError(
                "python-gnupg",
                "version 0.5 or newer",
                "it not installed, or another version",
                "Install python-gnupg for the Python that runs the module.",
            )
        if gpg_home is not None and not os.path.isdir(gpg_home):
            raise KeyProviderError(gpg_home, "a GnuPG home", "no such directory", "Check gpg_home.")
        self._gpg = gpg
        self._private_key_file = private_key_file
        self._private_key_passphrase = private_key_passphrase or None
        self._gpg_home = gpg_home
        self._private_key_imported = False
        self._unwrapping = threading.Lock()  # one agent serves all, and it is ended when the first is done with it
        self._keys = _open_home(gpg, gpg.home)
        self.fingerprints = [f for path in public_key_files for f in self._import_public(path)]

    @property
    def can_unwrap(self) -> bool:
        return self._private_key_file is not None or self._gpg_home is not None

    def new_key(self, context: dict[str, str]) -> DataKey:
        if not self.fingerprints:
            raise KeyProviderError(
                "public_key_files", "at least one public key", "none", "A backup needs a key to wrap its data key for."
            )
        passphrase = new_passphrase()
        # Trust is not asked for: whoever named the file said whose key it is. The full fingerprints
        # keep gpg from choosing another key by a similar name.
        result = self._keys.encrypt(
            bound(passphrase, context),
            self.fingerprints,
            always_trust=True,
            armor=True,
            extra_args=["--cipher-algo", "AES256", "--compress-algo", "none", "--no-encrypt-to"],
        )
        names = [line[0] for line in status_lines(result.stderr)]
        # One unusable recipient fails the whole: a data key is wrapped for all of them or not at all.
        if result.returncode != 0 or "END_ENCRYPTION" not in names:
            raise KeyProviderError(
                f"recipients {', '.join(self.fingerprints)}",
                "gpg to encrypt for all of them",
                human_lines(result.stderr),
                "Check that none has expired meanwhile.",
            )
        message = bytes(result.data).decode("ascii")
        return DataKey(passphrase, {"provider": self.name, "key_ids": list(self.fingerprints), "pgp_message": message})

    def unwrap(self, wrapped: dict[str, t.Any], context: dict[str, str]) -> bytes:
        message = self._field(wrapped, "pgp_message")
        ids = wrapped.get("key_ids")
        names = ", ".join(str(i) for i in ids) if isinstance(ids, list) else "unknown keys"
        if not self.can_unwrap:
            raise KeyProviderError(
                "data key",
                f"a private key of {names}",
                "none on this host",
                "Set private_key_file or gpg_home, or restore on a host that has the key.",
            )
        with self._unwrapping:
            if self._gpg_home is not None:
                with _agent_as_before(self._gpg_home):
                    result = self._decrypt(_open_home(self._gpg, self._gpg_home), message)
            else:
                self._import_private()
                result = self._decrypt(self._keys, message)
        self._check_private_key(result, names)
        check_decryption(result.returncode, result.stderr, "data key")
        return unbound(bytes(result.data), context)

    def by_hand(self, context: dict[str, str]) -> str:
        keys = "".join(f"#   {fingerprint}\n" for fingerprint in self.fingerprints)
        return (
            "# With the private key of any one of these in your GnuPG home (gpg --import private-key.asc).\n"
            f"{keys}"
            f"# gpg's second line of output, left out here, must be: {context_line(context)}\n"
            f"{from_manifest('pgp_message')} | sed 's/\\\\n/\\n/g' | gpg --quiet --decrypt | head -n 1\n"
        )

    def _decrypt(self, keys: t.Any, message: str) -> t.Any:
        try:
            return keys.decrypt(message.encode("utf-8"), passphrase=self._private_key_passphrase)
        except ValueError as error:
            raise KeyProviderError("private_key_passphrase", "one line of text", "line breaks or null bytes") from error

    def _check_private_key(self, result: t.Any, names: str) -> None:
        """Say what is wrong with the private key, where that is what went wrong."""
        status = status_lines(result.stderr)
        tags = [line[0] for line in status]
        if "DECRYPTION_INFO" in tags:
            return
        where = self._private_key_file or self._gpg_home
        # First, as gpg 2.4 calls a key that it could not unlock absent as well.
        asked = "NEED_PASSPHRASE" in tags or "MISSING_PASSPHRASE" in tags
        if asked or any(error_code(line) == BAD_PASSPHRASE for line in status):
            found = "none" if self._private_key_passphrase is None else "one that does not fit"
            raise KeyProviderError(
                f"{where}", "the passphrase of its private key", found, "Set private_key_passphrase."
            )
        if "NO_SECKEY" in tags:
            raise KeyProviderError(
                f"{where}",
                f"a private key of {names}",
                "none of them",
                "Give the private key that belongs to one of the recipients.",
            )

    def _import_public(self, path: str) -> list[str]:
        result = self._keys.import_keys(_read(path))
        if result.sec_read:
            raise KeyProviderError(
                path,
                "a public key",
                "a private key",
                f"The private key must not be on hosts that only back up. {_EXPORT_HINT}",
            )
        fingerprints = list(dict.fromkeys(f for f in result.fingerprints if f))
        if not fingerprints:
            raise KeyProviderError(path, "an OpenPGP public key", human_lines(result.stderr) or "none", _EXPORT_HINT)
        listed = {key["fingerprint"]: key for key in self._keys.list_keys()}
        for fingerprint in fingerprints:
            _check_recipient(path, fingerprint, listed.get(fingerprint))
        return fingerprints

    def _import_private(self) -> None:
        if self._private_key_imported or self._private_key_file is None:
            return
        try:
            result = self._keys.import_keys(_read(self._private_key_file), passphrase=self._private_key_passphrase)
        except ValueError as error:
            raise KeyProviderError("private_key_passphrase", "one line of text", "line breaks or null bytes") from error
        if not result.sec_read:
            raise KeyProviderError(
                self._private_key_file,
                "an OpenPGP private key",
                human_lines(result.stderr) or "a public key only",
                "Export it with: gpg --armor --export-secret-keys FINGERPRINT",
            )
        self._private_key_imported = True


def _open_home(gpg: Gpg, home: str) -> t.Any:
    """python-gnupg on a home; it gives plain text and passphrases to gpg by pipes and uses no shell."""
    try:
        keys = gnupg.GPG(gpgbinary=gpg.program, gnupghome=home, options=list(_OPTIONS), env=clean_environment())
    except (OSError, ValueError) as error:
        raise GuardError(home, "a GnuPG home that gpg can use", str(error)) from error
    keys.encoding = "utf-8"  # it starts with latin-1, in which many a passphrase cannot be written
    return keys


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as handle:
            return handle.read(_LARGEST_KEY_FILE)
    except OSError as error:
        raise KeyProviderError(path, "a file with an OpenPGP key", error.strerror or str(error)) from error


def _check_recipient(path: str, fingerprint: str, key: dict[str, t.Any] | None) -> None:
    """Find out now, not in the hour of need, that a data key cannot be wrapped for this key."""
    thing = f"{path}, key {fingerprint}"
    if key is None:
        raise KeyProviderError(thing, "a key that gpg lists", "none")
    if key["trust"] in _TRUST_PROBLEMS:
        when = ""
        if key["trust"] == "e" and key["expires"].isdigit():
            when = time.strftime(" on %Y-%m-%d", time.gmtime(int(key["expires"])))
        raise KeyProviderError(
            thing,
            "a key that is valid today",
            _TRUST_PROBLEMS[key["trust"]] + when,
            "Extend it, or use another one, and export it again.",
        )
    # A capital E: some part of the key can encrypt, and is neither expired nor revoked.
    if "E" not in key["cap"]:
        raise KeyProviderError(
            thing,
            "a key that can encrypt",
            "none of its subkeys can, today",
            "Add an encryption subkey (gpg --quick-add-key), and export it again.",
        )


@contextlib.contextmanager
def _agent_as_before(home: str) -> t.Iterator[None]:
    """gpg starts an agent in the user's own home where none runs; end it again, but never the user's."""
    gpgconf = find_program("gpgconf")
    answer = run([gpgconf, "--homedir", home, "--list-dirs", "agent-socket"], timeout=30)
    was_running = _answers(answer.stdout.strip())
    try:
        yield
    finally:
        if not was_running:
            run([gpgconf, "--homedir", home, "--kill", "gpg-agent"], timeout=30)


def _answers(path: bytes) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True
