# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who asks: the client's address behind trusted proxies, and API keys."""

from __future__ import annotations

import functools
import hashlib
import hmac
import ipaddress
import os
import re
import time
import typing as t

from .config import ConfigError, Network

Address = t.Union[ipaddress.IPv4Address, ipaddress.IPv6Address]

_KEY_LINE = re.compile(r"([A-Za-z0-9._-]{1,64}):([0-9a-fA-F]{64})")
_LOOK_AGAIN = 1.0  # seconds between two looks at the key file


@functools.lru_cache(maxsize=4096)  # the same proxies and clients, again and again
def parse_address(text: str) -> Address | None:
    """An address as proxies write it, with or without brackets and port; IPv4 within IPv6 as IPv4."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])  # without the zone of a link-local address
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return t.cast(Address, mapped or address)


def source_address(peer: str, forwarded: t.Sequence[str], trusted: t.Sequence[Network]) -> str:
    """The client's address: the right-most of X-Forwarded-For that is not a trusted proxy's.

    The header counts only if it comes from a trusted proxy; each proxy appends the address that it saw, so
    everything left of the right-most untrusted one is the client's own say.
    """
    current = parse_address(peer)
    if current is None:
        return peer
    hops = [hop for line in forwarded for hop in line.split(",")]
    while hops and _is_trusted(current, trusted):
        earlier = parse_address(hops.pop())
        if earlier is None:  # what a trusted proxy passed on as it is: no address
            break
        current = earlier
    return str(current)


def _is_trusted(address: Address, trusted: t.Sequence[Network]) -> bool:
    return any(address in network for network in trusted)  # of another version: not in it


class ApiKeys:
    """The key file: lines ``name:sha256hex``, comments with #. It is read again when it changes.

    A file that cannot be read any more leaves the keys as they were: neither locks everybody out, nor lets all in.
    """

    def __init__(self, path: str):
        self._path = path
        self._digests: list[tuple[str, bytes]] = []
        self._seen: tuple[int, ...] = ()
        self._next_look = 0.0
        self.problem = ""
        if path:
            self._read()

    @property
    def needed(self) -> bool:
        return bool(self._path)

    def name_of(self, secret: str) -> str | None:
        """Whose key this is; None if nobody's. Compares with every key, each in constant time."""
        self.look()
        digest = hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
        found = None
        for name, known in self._digests:
            if hmac.compare_digest(known, digest):
                found = name
        return found

    def look(self) -> None:
        """Read the file again if it changed."""
        now = time.monotonic()
        if not self._path or now < self._next_look:
            return
        self._next_look = now + _LOOK_AGAIN
        try:
            if self._identity() != self._seen:
                self._read()
        except (OSError, ConfigError) as error:
            self.problem = f"keys_file: {getattr(error, 'strerror', None) or error}; the keys stay as they were"
        else:
            self.problem = ""

    def _identity(self) -> tuple[int, ...]:
        status = os.stat(self._path)
        return status.st_ino, status.st_mtime_ns, status.st_size, status.st_ctime_ns

    def _read(self) -> None:
        try:
            seen = self._identity()
            with open(self._path, encoding="ascii") as file:
                lines = [line.strip() for line in file]
        except UnicodeDecodeError as error:
            raise ConfigError(f"keys_file: {self._path}: not ASCII") from error
        except OSError as error:
            raise ConfigError(f"keys_file: {self._path}: {error.strerror}") from error
        digests: dict[str, bytes] = {}
        for number, line in enumerate(lines, 1):
            if not line or line.startswith("#"):
                continue
            match = _KEY_LINE.fullmatch(line)
            if not match or match.group(1) in digests:  # the line itself stays out of messages: it may hold a key
                raise ConfigError(f"keys_file: {self._path}: line {number}: expected name:sha256hex, each name once")
            digests[match.group(1)] = bytes.fromhex(match.group(2))
        if not digests:
            raise ConfigError(f"keys_file: {self._path}: no key in it")
        self._digests, self._seen = list(digests.items()), seen


def secret_of(authorization: str, api_key: str) -> str:
    """The key in a request's headers; empty if there is none."""
    scheme, _space, token = authorization.partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return api_key.strip()


def read_secret(path: str, what: str) -> str:
    """A secret for the upstream, from its file: one line."""
    try:
        with open(path, encoding="ascii") as file:
            secret = file.read().strip()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{what}: {path}: not ASCII") from error
    except OSError as error:
        raise ConfigError(f"{what}: {path}: {error.strerror}") from error
    if not secret or not secret.isprintable():
        raise ConfigError(f"{what}: {path}: expected one line with a secret")
    return secret
