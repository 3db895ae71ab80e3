# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every key provider has in common: data keys, and the context that binds one to its snapshot.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import abc
import base64
import re
import secrets
import typing as t
import urllib.parse

from ...errors import IntegrityError, KeyProviderError

# Where a person finds the passphrase again with sed, whether manifest.json is on one line or on many.
# `name` must stand only once in the manifest, and its value must hold no quotes: base64 and armor do.
_FROM_MANIFEST = r"""sed -n 's/.*"{name}": *"\([^"]*\)".*/\1/p' manifest.json"""

WRONG_SNAPSHOT_HINT = "The manifest was moved or changed: a data key opens only the snapshot it was made for."


class DataKey(t.NamedTuple):
    """The random passphrase of one snapshot, and the same wrapped, fit for the public manifest."""

    passphrase: bytes
    wrapped: dict[str, t.Any]

    def __repr__(self) -> str:
        """Never the passphrase: it would reach logs and tracebacks."""
        return f"DataKey(passphrase=<hidden>, wrapped={self.wrapped!r})"


class KeyProvider(abc.ABC):
    """Makes data keys and unwraps them. ``context`` names the instance, the layer and the snapshot."""

    name: t.ClassVar[str]

    @property
    @abc.abstractmethod
    def can_unwrap(self) -> bool:
        """False where this host can add snapshots but not read them."""

    @abc.abstractmethod
    def new_key(self, context: dict[str, str]) -> DataKey:
        """A new data key for one snapshot."""

    @abc.abstractmethod
    def unwrap(self, wrapped: dict[str, t.Any], context: dict[str, str]) -> bytes:
        """The passphrase of a wrapped data key; raises when it belongs to another snapshot."""

    @abc.abstractmethod
    def by_hand(self, context: dict[str, str]) -> str:
        """Shell lines that print the passphrase on stdout without this collection.

        They run in the directory that holds the snapshot's ``manifest.json``. For a page that serves
        all snapshots of an instance, pass placeholders as the values of ``context``.
        """

    def _field(self, wrapped: dict[str, t.Any], field: str) -> str:
        """A text out of a manifest, which anybody who can write to the repository could have written."""
        provider = wrapped.get("provider")
        if provider != self.name:
            raise KeyProviderError(
                "data key",
                f"one that the key provider {self.name} wrapped",
                f"one of {provider!r}",
                f"Set provider to {provider} to read this snapshot.",
            )
        value = wrapped.get(field)
        if not isinstance(value, str) or not value:
            raise IntegrityError("data key", f"the field {field} in the manifest", f"{value!r}")
        return value


def new_passphrase() -> bytes:
    """256 random bits in characters that every program and every person can pass on."""
    return base64.b64encode(secrets.token_bytes(32))


def from_manifest(name: str) -> str:
    """A shell command that prints one field of the wrapped key."""
    return _FROM_MANIFEST.format(name=name)


def context_line(context: dict[str, str]) -> str:
    """``context: instance=… layer=… snapshot=…``, the same for the same context; readable, and one line."""
    if not context or not all(name and value for name, value in context.items()):
        raise KeyProviderError("context of a data key", "a name and a value in each entry", f"{context!r}")
    entries = (f"{_quoted(name)}={_quoted(context[name])}" for name in sorted(context))
    return "context: " + " ".join(entries)


def bound(passphrase: bytes, context: dict[str, str]) -> bytes:
    """What providers without a context of their own encrypt: the passphrase, and below it whose it is."""
    return passphrase + b"\n" + context_line(context).encode("ascii") + b"\n"


def unbound(plain: bytes, context: dict[str, str]) -> bytes:
    """The passphrase out of ``bound``; raises when it belongs to another snapshot."""
    match = re.fullmatch(rb"([\x21-\x7e]{1,255})\n(context: [\x20-\x7e]+)\n", plain)
    if not match:
        # What it is instead must not be shown: it may be a passphrase.
        raise IntegrityError("data key", "a passphrase and its context", "something else")
    passphrase, found = match.groups()
    expected = context_line(context)
    if found.decode("ascii") != expected:
        raise IntegrityError("data key", f"the one of {expected}", found.decode("ascii"), WRONG_SNAPSHOT_HINT)
    return passphrase


def _quoted(text: str) -> str:
    return urllib.parse.quote(text, safe="-._~/:@+")
