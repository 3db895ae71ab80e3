# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Data keys wrapped with a secret in a file: for trials, as whoever has the host has the file.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
import typing as t

from ...errors import KeyProviderError
from ...system.files import write_atomically
from ..gpg import Gpg
from .base import DataKey, KeyProvider, bound, context_line, from_manifest, new_passphrase, unbound

_SHORTEST = 32
_LONGEST = 255  # what gpg takes as a passphrase
_MAKE_HINT = "Make one with: (umask 077; head -c 32 /dev/urandom | base64 > FILE)"


class KeyFile(KeyProvider):
    """Wraps with symmetric OpenPGP; the file's one line is the passphrase."""

    name = "file"

    def __init__(self, path: str, gpg: Gpg):
        self.path = path
        self._gpg = gpg
        read_key_file(path)  # a wrong file is found before the backup's work, not after

    @property
    def can_unwrap(self) -> bool:
        return True

    def new_key(self, context: dict[str, str]) -> DataKey:
        passphrase = new_passphrase()
        message = self._gpg.encrypt_text(bound(passphrase, context), read_key_file(self.path), "data key")
        return DataKey(passphrase, {"provider": self.name, "pgp_message": message})

    def unwrap(self, wrapped: dict[str, t.Any], context: dict[str, str]) -> bytes:
        message = self._field(wrapped, "pgp_message").encode("utf-8")
        what = f"data key, wrapped with {self.path}"
        return unbound(self._gpg.decrypt_bytes(message, read_key_file(self.path), what), context)

    def by_hand(self, context: dict[str, str]) -> str:
        return (
            f"# With the key file {self.path}, or a copy of it.\n"
            f"# gpg's second line of output, left out here, must be: {context_line(context)}\n"
            f"{from_manifest('pgp_message')} | sed 's/\\\\n/\\n/g' | \\\n"
            "  gpg --batch --quiet --pinentry-mode loopback --no-symkey-cache \\\n"
            f"    --passphrase-file {shlex.quote(self.path)} --decrypt | head -n 1\n"
        )


def make_key_file(path: str) -> None:
    """Write a new random key to ``path``, which must not exist: an overwritten key loses all its snapshots."""
    if os.path.lexists(path):
        raise KeyProviderError(path, "a name that is free", "a file", "Keep it, or choose another name.")
    write_atomically(path, new_passphrase() + b"\n", mode=0o600)


def read_key_file(path: str) -> bytes:
    """The key in the file; raises where others could read it or gpg would read something else."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise KeyProviderError(path, "a key file", error.strerror or str(error), _MAKE_HINT) from error
    try:
        # The descriptor is asked, not the name: the name could lead elsewhere a moment later.
        _check_private(path, os.fstat(fd))
        content = os.read(fd, 4096)
    finally:
        os.close(fd)
    key = content[:-1] if content.endswith(b"\n") else content
    if not re.fullmatch(rb"[\x21-\x7e]*", key):
        raise KeyProviderError(
            path,
            "one line of printable ASCII characters",
            "other bytes",
            f"gpg would stop reading in the middle. {_MAKE_HINT}",
        )
    if not _SHORTEST <= len(key) <= _LONGEST:
        raise KeyProviderError(path, f"{_SHORTEST} to {_LONGEST} characters", f"{len(key)}", _MAKE_HINT)
    return key


def _check_private(path: str, status: os.stat_result) -> None:
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISREG(status.st_mode):
        raise KeyProviderError(path, "a regular file", stat.filemode(status.st_mode), _MAKE_HINT)
    if status.st_uid not in (os.geteuid(), 0):
        raise KeyProviderError(
            path,
            "a key file of root or of the user who runs this",
            f"one of the user with id {status.st_uid}",
            f"Run: chown {os.geteuid()} {path}",
        )
    if mode & 0o077:
        raise KeyProviderError(
            path, "a key file that only its owner can read", f"mode {mode:04o}", f"Run: chmod 0600 {path}"
        )
