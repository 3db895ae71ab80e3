# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Find one record in a stream of log lines, and check it against its neighbours.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import dataclasses
import json
import typing as t

from .records import NO_HASH, Record, is_intact, parse_line

OK, FAILED, NOT_CHECKED = "ok", "failed", "not_checked"

# No record is longer; a file without line ends must not fill the memory.
_LONGEST_LINE = 64 << 20


@dataclasses.dataclass
class Hit:
    """A line that is a record with the trace_id looked for."""

    offset: int  # of its first byte in the file
    line: bytes  # its end included
    record: Record
    before: bytes = b""  # the line before it in the same file, where there is one
    after: bytes = b""


class LineFinder:
    """Takes a file's bytes in order, in pieces of any size; ``hits`` are the records of ``trace_id`` in it."""

    def __init__(self, trace_id: str, offset: int = 0):
        self.hits: list[Hit] = []
        self._trace_id = trace_id
        self._needle = trace_id.encode()
        self._offset = offset  # of ``_rest`` in the file
        self._rest = b""  # the beginning of a line
        self._last = b""  # the last whole line so far

    def take(self, data: bytes | memoryview) -> None:
        """The next bytes."""
        block = self._rest + data
        end = block.rfind(b"\n") + 1
        if end:
            self._search(block[:end])
            self._rest = block[end:]
            self._offset += end
        else:
            self._rest = block
        if len(self._rest) > _LONGEST_LINE:
            self._offset += len(self._rest)
            self._rest = b""

    @property
    def is_cut(self) -> bool:
        """Whether the bytes end within a line that may be the record."""
        return self._needle in self._rest

    def _search(self, lines: bytes) -> None:
        if self.hits and not self.hits[-1].after:
            self.hits[-1].after = _line_at(lines, 0)
        found = lines.find(self._needle)
        while found >= 0:
            start = lines.rfind(b"\n", 0, found) + 1
            line = _line_at(lines, start)
            end = start + len(line)
            record = parse_line(line)  # the id may also stand in a user's text
            if record is not None and record.trace_id == self._trace_id:
                before = _line_before(lines, start) if start else self._last
                self.hits.append(Hit(self._offset + start, line, record, before, _line_at(lines, end)))
            found = lines.find(self._needle, end)
        self._last = _line_before(lines, len(lines))


def _line_at(lines: bytes, start: int) -> bytes:
    return lines[start : lines.find(b"\n", start) + 1]


def _line_before(lines: bytes, end: int) -> bytes:
    return lines[lines.rfind(b"\n", 0, end - 1) + 1 : end]


class Known(t.NamedTuple):
    """What is known of the record before (``hash`` is its own) or after (``hash`` is what it names as its previous)."""

    hash: str
    where: str


# What is known of record ``seq`` of ``chain`` from elsewhere than the lines beside it.
Lookup = t.Callable[[str, int], list[Known]]


@dataclasses.dataclass
class Check:
    """What of a record was checked; each is ``ok``, ``failed`` or ``not_checked``."""

    hash: str = NOT_CHECKED  # its own
    before: str = NOT_CHECKED  # it names the hash of the record before
    after: str = NOT_CHECKED  # the record after names its hash
    numbers: str = NOT_CHECKED  # its number follows that before, and that after follows it
    failures: list[str] = dataclasses.field(default_factory=list)
    not_checked: list[str] = dataclasses.field(default_factory=list)

    def fail(self, field: str, text: str) -> None:
        """Note what is wrong."""
        setattr(self, field, FAILED)
        self.failures.append(text)


def check_record(hit: Hit, last: Lookup, first: Lookup) -> Check:
    """Check a record against its own hash and its neighbours.

    ``last(chain, seq)`` knows records that end what another place holds of a chain, with their hash;
    ``first(chain, seq)`` those that begin it, with the hash that they name.
    """
    check = Check()
    record = hit.record
    if not record.chain:
        if hit.line.startswith(b'{"chain":'):
            check.hash = FAILED
            check.failures.append("the record begins as a chained one does, and is none: its line was changed")
        check.not_checked.append("hash, neighbours and numbers: the record has no chain")
        return check
    check.hash = OK if is_intact(hit.line) else FAILED
    if check.hash == FAILED:
        check.failures.append(f"record {record.seq}: its bytes do not have the hash that it ends with")
    wrong_number = _check_before(check, record, hit, last)
    wrong_number = _check_after(check, record, hit.after, first) or wrong_number
    if wrong_number:
        check.numbers = FAILED
    elif NOT_CHECKED not in (check.before, check.after):
        check.numbers = OK
    return check


def _check_before(check: Check, record: Record, hit: Hit, last: Lookup) -> bool:
    """Whether a wrong number was found."""
    before = parse_line(hit.before)
    if record.seq == 1 and record.prev == NO_HASH:
        check.before = OK  # the first record of all has none before it
        return False
    if before is not None and before.chain == record.chain:
        if before.seq != record.seq - 1:
            check.fail("before", f"record {record.seq}: the line before it is record {before.seq} of the same chain")
            return True
        if not is_intact(hit.before):
            check.fail("before", f"record {before.seq}, in the line before, does not have the hash that it ends with")
            return False
    if before is not None and (before.chain == record.chain or (record.seq == 1 and before.hash == record.prev)):
        known = [Known(before.hash, f"record {before.seq} in the line before")]
    else:
        known = last(*(_continued(hit.line) if record.seq == 1 else (record.chain, record.seq - 1)))
    if not known:
        what = "the end of the chain before" if record.seq == 1 else f"record {record.seq - 1}"
        check.not_checked.append(f"the record before: {what} is in no place that was read")
    elif any(item.hash == record.prev for item in known):
        check.before = OK
    else:
        check.fail("before", f"record {record.seq}: it names another hash than that of {known[0].where}")
    return False


def _check_after(check: Check, record: Record, line: bytes, first: Lookup) -> bool:
    """Whether a wrong number was found."""
    after = parse_line(line)
    if after is not None and after.chain == record.chain:
        if after.seq != record.seq + 1:
            check.fail("after", f"record {record.seq}: the line after it is record {after.seq} of the same chain")
            return True
        known = [Known(after.prev, f"record {after.seq} in the line after")]
    elif after is not None and after.seq == 1 and after.prev == record.hash:
        known = [Known(after.prev, "the chain in the line after")]
    else:
        known = first(record.chain, record.seq + 1)
    if not known:
        check.not_checked.append(f"the record after: record {record.seq + 1} is in no place that was read")
    elif any(item.hash == record.hash for item in known):
        check.after = OK
    else:
        check.fail("after", f"record {record.seq}: {known[0].where} names another hash than this record's")
    return False


def _continued(line: bytes) -> tuple[str, int]:
    """The end of the chain that the first record of another one says it goes on from."""
    try:
        told = json.loads(line)["continues"]
        return str(told["chain"]), int(told["seq"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return "", 0
