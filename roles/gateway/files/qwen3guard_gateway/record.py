# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One audit record as a line of the log.

``{"chain":…,"seq":…,"prev":…,"time":…,"trace_id":…, … ,"hash":…}``, where the hash is the SHA-256 of the line's bytes
before ``,"hash":``. docs/audit-trail.md describes it; the collection's plugins read it.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import time
import typing as t

HASH_HEX = 64
NO_HASH = "0" * HASH_HEX  # what the very first record of all names as the one before it
RESERVED = frozenset(("chain", "seq", "prev", "time", "trace_id", "hash"))

_SUFFIX = re.compile(rb',"hash":"([0-9a-f]{64})"\}\n\Z')
_SUFFIX_BYTES = len(b',"hash":""}\n') + HASH_HEX
_PREFIX = re.compile(
    rb'\{"chain":"([0-9a-f]{16})","seq":([1-9][0-9]{0,17}),"prev":"[0-9a-f]{64}",'
    rb'"time":"([0-9TZ:.-]{27})","trace_id":"([A-Za-z0-9._-]{1,64})"'
)
_MODEL = re.compile(r"[A-Za-z0-9.]{1,16}")
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_encode_ascii = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


class Head(t.NamedTuple):
    """A record's place in its chain."""

    chain: str
    seq: int
    hash: str

    def as_json(self) -> dict[str, t.Any]:
        """As records and the state file name it."""
        return self._asdict()


class Line(t.NamedTuple):
    """A record ready to be written."""

    data: bytes
    time: str
    trace_id: str
    hash: str


def is_model(name: str) -> bool:
    """Whether a name can stand in a trace_id, where dashes part the fields."""
    return _MODEL.fullmatch(name) is not None


def make_chain() -> str:
    """A name for a new chain."""
    return secrets.token_hex(8)


def time_text(nanoseconds: int) -> str:
    """Time since the epoch as RFC 3339, UTC, with microseconds."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest // 1000:06d}Z"


def encode_fields(fields: t.Mapping[str, t.Any]) -> bytes:
    """The part of a record that its writer's caller decides, ``event`` first; ValueError where it cannot be written."""
    taken = RESERVED.intersection(fields)
    if taken:
        raise ValueError(f"these are the journal's own: {', '.join(sorted(taken))}")
    whole = fields if next(iter(fields), "") == "event" else {"event": fields.get("event", "audit"), **fields}
    try:
        return _encode(whole)[1:-1].encode()
    except UnicodeEncodeError:  # half of a surrogate pair, as JSON allows: it has no UTF-8, but an escape
        return _encode_ascii(whole)[1:-1].encode()


def make_line(chain: str, seq: int, prev: str, nanoseconds: int, model: str, fields: bytes) -> Line:
    """The whole line. ``fields`` come from `encode_fields`."""
    when = time_text(nanoseconds)
    # With 8 hex digits a million records a day would share one a hundred times a day.
    trace_id = f"qwg-{when[:4]}{when[5:7]}{when[8:10]}-{model}-{secrets.token_hex(8)}"
    body = f'{{"chain":"{chain}","seq":{seq},"prev":"{prev}","time":"{when}","trace_id":"{trace_id}",'.encode() + fields
    digest = hashlib.sha256(body).hexdigest()
    return Line(b'%b,"hash":"%b"}\n' % (body, digest.encode()), when, trace_id, digest)


def is_chained(line: bytes) -> bool:
    """Whether a line begins as ours do, whole or not."""
    start = b'{"chain":"'
    return line.startswith(start) or (bool(line) and start.startswith(line))


def read_head(line: bytes) -> tuple[Head, str] | None:
    """Place and time of a whole and undamaged record of a chain; None for anything else."""
    prefix, suffix = _PREFIX.match(line), _SUFFIX.search(line, max(0, len(line) - _SUFFIX_BYTES))
    if prefix is None or suffix is None:
        return None
    if hashlib.sha256(line[:-_SUFFIX_BYTES]).hexdigest().encode() != suffix.group(1):
        return None
    chain, seq, when, _trace_id = prefix.groups()
    return Head(chain.decode(), int(seq), suffix.group(1).decode()), when.decode()
