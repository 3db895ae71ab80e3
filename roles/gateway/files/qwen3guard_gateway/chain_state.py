# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the writer remembers outside of the log, and what it does when the log disagrees.

A log alone cannot show that its last records are missing, or that it was brought back from a backup on another host
while the first one went on. So the writer keeps the head of its chain in a small file elsewhere ("at least so far"),
and goes on with a chain only when both agree. Otherwise it begins a new chain whose first record says why.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import typing as t
from pathlib import Path

from .log_ends import End, sync_directory
from .record import NO_HASH, Head, make_chain

FIRST = "first start"
MOVED = "restored or moved"
MISSING = "records missing"
WRITE_ERROR = "write error"

_FILE = "chain.json"
_CHAIN = re.compile(r"[0-9a-f]{16}")
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True)
class State:
    """``head``: at least this was written. With number 0 the chain was only about to begin, with ``event``."""

    head: Head
    event: dict[str, t.Any] | None
    machine: str


class Start(t.NamedTuple):
    """Where to go on. ``event`` holds the fields of the record that begins a new chain; None: the same chain."""

    head: Head
    event: dict[str, t.Any] | None


def machine_name() -> str:
    """Something that differs between hosts, where the system has it; of containers it is often empty."""
    try:
        text = Path("/etc/machine-id").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
    # systemd asks not to give the id itself away.
    return hashlib.sha256(b"qwen3guard-gateway " + text.encode()).hexdigest()[:16] if text else ""


class StateFile:
    """The small file, replaced as a whole."""

    def __init__(self, directory: Path):
        self.path = directory / _FILE

    def load(self) -> State | None:
        """What was saved; None if there is nothing. ValueError if it cannot be understood."""
        try:
            raw = json.loads(self.path.read_bytes())
        except FileNotFoundError:
            return None
        if not isinstance(raw, dict) or raw.get("format") != 1:
            raise ValueError("not a state of format 1")
        head, event = _head(raw), raw.get("event")
        if head.seq == 0 and not isinstance(event, dict):
            raise ValueError("a chain without a beginning")
        return State(head, event, str(raw.get("machine", "")))

    def save(self, state: State) -> None:
        """Replace it, durably: after a power failure there is the old or the new one."""
        raw: dict[str, t.Any] = {"format": 1, **state.head.as_json(), "machine": state.machine}
        raw["event"] = state.event
        beside = self.path.with_suffix(".new")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as output:
            output.write(json.dumps(raw).encode() + b"\n")
            output.flush()
            os.fsync(output.fileno())
        os.replace(beside, self.path)
        sync_directory(self.path.parent)


def _head(raw: object) -> Head:
    if not isinstance(raw, dict):
        raise ValueError("no head of a chain")
    chain, seq, digest = raw.get("chain"), raw.get("seq"), raw.get("hash")
    if not (isinstance(chain, str) and _CHAIN.fullmatch(chain) and isinstance(digest, str) and _HASH.fullmatch(digest)):
        raise ValueError("no head of a chain")
    if not isinstance(seq, int) or isinstance(seq, bool) or seq < 0:
        raise ValueError("no number of a record")
    return Head(chain, seq, digest)


def new_chain(reason: str, continues: Head | None, expected: Head | None = None) -> Start:
    """A chain that begins after ``continues``; ``expected`` is what should have been there."""
    event: dict[str, t.Any] = {"event": "chain", "reason": reason}
    if continues is not None:
        event["continues"] = continues.as_json()
    if expected is not None and expected != continues:
        event["expected"] = expected.as_json()
    return Start(Head(make_chain(), 0, continues.hash if continues else NO_HASH), event)


def decide(state: State | None, unreadable: bool, ends: t.Sequence[End], machine: str) -> Start:
    """Go on with the chain if log and state agree on it; otherwise a new chain, and why."""
    newest = max(ends, key=lambda end: (end.time, end.head.seq)).head if ends else None
    if state is None:
        return new_chain(MOVED, newest) if newest or unreadable else new_chain(FIRST, None)
    expected = state.head
    own = max((end.head for end in ends if end.head.chain == expected.chain), key=lambda head: head.seq, default=None)
    if own is None:
        if expected.seq == 0:  # stopped before the first record of a new chain: what it was to say still holds
            return Start(expected, state.event)
        return new_chain(MOVED if newest else MISSING, newest, expected)
    if own.seq < expected.seq or (own.seq == expected.seq and own.hash != expected.hash):
        return new_chain(MISSING, own, expected)
    if state.machine != machine:
        return new_chain(MOVED, own)
    return Start(own, None)
