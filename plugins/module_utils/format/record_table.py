# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Record tables: which part of a snapshot holds the record of a trace_id.

Private to the collection: use the modules, not this file.

One object for each snapshot and each day that its records' trace_ids name, below ``<instance>/records/<day>/``:
whoever looks for one record lists one day and reads its tables, however many days are archived.
A table is a line of JSON, and then the first bytes of the SHA-256 of every trace_id, part after part. Two ids may
share those bytes: a table says where to look, the record itself whether it is the one.
"""

from __future__ import annotations

import bisect
import itertools
import json
import re
import typing as t

from ..errors import IntegrityError
from .fields import count, of_type
from .records import ID_BYTES, UNDATED, id_hash

FORMAT = 1
PREFIX = "records"  # beside the layers of an instance

_NAME = re.compile(rf"\A{PREFIX}/([0-9]{{8}}|{UNDATED})/([0-9]{{6,12}}-[0-9a-f]{{8}})(\.full)?\.gpg\Z")
_LONGEST_HEADER = 16 << 20


class TableName(t.NamedTuple):
    """What the name of a table says."""

    day: str
    snapshot: str
    full: bool


def table_name(day: str, snapshot: str, full: bool) -> str:
    """The object's name below the instance."""
    return f"{PREFIX}/{day}/{snapshot}{'.full' if full else ''}.gpg"


def parse_name(name: str) -> TableName | None:
    """The reverse; None where it is no table's name."""
    match = _NAME.match(name)
    return TableName(match.group(1), match.group(2), bool(match.group(3))) if match else None


def encode(snapshot: str, day: str, blocks: t.Iterable[tuple[int, bytes]]) -> bytes:
    """A table's plain form. Each block is a part's number and hashes (`records.id_hash`) one after the other;
    blocks of one part may come one by one, in between those of others."""
    by_part: dict[int, list[bytes]] = {}
    for part, hashes in blocks:
        by_part.setdefault(part, []).append(hashes)
    parts = {part: b"".join(by_part[part]) for part in sorted(by_part)}
    header = {
        "format": FORMAT,
        "snapshot": snapshot,
        "day": day,
        "parts": [[part, len(hashes) // ID_BYTES] for part, hashes in parts.items()],
    }
    return b"".join([json.dumps(header, separators=(",", ":")).encode(), b"\n", *parts.values()])


class RecordTable:
    """A table that was read. It holds the hashes as the bytes they are: millions of objects would take far more."""

    def __init__(self, snapshot: str, day: str, parts: list[tuple[int, int]], hashes: bytes):
        self.snapshot = snapshot
        self.day = day
        self.parts = parts  # (number, count of its ids)
        self._hashes = hashes
        self._ends = list(itertools.accumulate(count for _part, count in parts))

    @classmethod
    def decode(cls, data: bytes, where: str, name: str = "") -> RecordTable:
        """The table in ``data``; `IntegrityError` where it is none, or not the one that belongs under ``name``."""
        end = data.find(b"\n", 0, _LONGEST_HEADER)
        if end < 0:
            raise IntegrityError(where, "a record table that begins with a line of JSON", "something else")
        hashes = data[end + 1 :]
        try:
            raw = of_type(json.loads(data[:end]), dict)
            if raw.get("format") != FORMAT:
                raise ValueError(f"format {raw.get('format')!r:.40}")
            parts = [(count(number), count(ids)) for number, ids in of_type(raw["parts"], list)]
            # A name says both in their right form, so this checks them as well.
            told = parse_name(table_name(of_type(raw["day"], str), of_type(raw["snapshot"], str), full=False))
            if told is None:
                raise ValueError("a snapshot or a day that none can have")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise IntegrityError(where, "a record table", f"one whose header does not fit ({error!r})") from error
        named = parse_name(name) if name else told
        if named is None or (named.day, named.snapshot) != (told.day, told.snapshot):
            raise IntegrityError(where, f"the record table {name}", f"that of {told.snapshot} for {told.day}")
        if len({number for number, _ids in parts}) != len(parts):
            raise IntegrityError(where, "a record table that names each part once", "a part twice")
        expected = sum(ids for _number, ids in parts) * ID_BYTES
        if len(hashes) != expected:
            raise IntegrityError(where, f"{expected} bytes of hashes", f"{len(hashes)}")
        return cls(told.snapshot, told.day, parts, hashes)

    @property
    def count(self) -> int:
        """How many records it speaks of."""
        return self._ends[-1] if self._ends else 0

    def parts_with(self, trace_id: str) -> list[int]:
        """The parts that may hold the record, most often one or none."""
        wanted = id_hash(trace_id)
        found: list[int] = []
        position = self._hashes.find(wanted)
        while position >= 0:
            place, between = divmod(position, ID_BYTES)
            if not between:  # else it is the end of one hash and the beginning of the next
                number = self.parts[bisect.bisect_right(self._ends, place)][0]
                if number not in found:
                    found.append(number)
            position = self._hashes.find(wanted, position + 1)
        return found
