# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Audit records as they lie in a log: one JSON line each, numbered and chained by the gateway.

Private to the collection: use the modules, not this file.

A chained record is ``{"chain":…,"seq":…,"prev":…,"time":…,"trace_id":…, … ,"hash":…}`` and its hash is the SHA-256
of the line's bytes up to ``,"hash":``: nothing has to be parsed and written again to check it. Other lines with a
``trace_id`` (older installations) are records too, without a chain. docs/audit-trail.md describes both.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime
import hashlib
import json
import re
import typing as t

HASH_HEX = 64
NO_HASH = "0" * HASH_HEX  # what the very first record of all names as the one before it
SUFFIX_BYTES = len(b',"hash":""}') + HASH_HEX

_CHAINED = re.compile(
    rb'^\{"chain":"([0-9a-f]{16})","seq":([1-9][0-9]{0,17}),"prev":"([0-9a-f]{64})",'
    rb'"time":"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z)","trace_id":"([A-Za-z0-9._-]{1,64})"'
    rb'.*,"hash":"([0-9a-f]{64})"\}\n',
    re.MULTILINE,
)
# Within a JSON text a quote is escaped, so that no text of a user's can look like these.
_TRACE_ID = re.compile(rb'"trace_id"\s*:\s*"([A-Za-z0-9._-]{1,64})"')
_TIME = re.compile(rb'"time"\s*:\s*"([^"\\]{10,40})"')
_DAY = re.compile(r"\A[A-Za-z]{1,16}-([0-9]{4}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01]))-")
# The same as _CHAINED in half the time, once `_are_well_formed` has looked at what was found.
_ROWS = re.compile(
    rb'^\{"chain":"(.{16})","seq":([1-9][0-9]{0,17}),"prev":"(.{64})","time":"(.{27})"'
    rb',"trace_id":"([A-Za-z0-9._-]{1,64})".*,"hash":"(.{64})"\}\n',
    re.MULTILINE,
)
_HEX_DIGITS = b"0123456789abcdef"
_AS_ZEROS = bytes.maketrans(b"123456789", b"000000000")
_ZERO_TIME = b"0000-00-00T00:00:00.000000Z"
# What unchained records are found by, to the ends of their lines, so that no line has two; only plain times.
_LINE_TRACE_ID = re.compile(_TRACE_ID.pattern + rb".*\n")
_LINE_TIME = re.compile(
    rb'"time"\s*:\s*"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-5][0-9]:[0-5][0-9]\.[0-9]{6}(?:Z|[+-][0-9]{2}:00))".*\n'
)
UNDATED = "undated"
ID_BYTES = 6  # of 30 million ids two share these once in 10,000 lookups


class Record(t.NamedTuple):
    """What of a line the collection looks at. ``chain`` is empty where a record has none."""

    chain: str
    seq: int
    prev: str
    time: str  # RFC 3339, UTC, microseconds; of an unchained record as near to that as could be made; may be empty
    trace_id: str
    hash: str

    @property
    def hour(self) -> str:
        """The hour that a record belongs to, by its own time: ``2026-11-23T09`` (UTC); empty if unknown."""
        return self.time[:13]


def parse_line(line: bytes) -> Record | None:
    """The record in one whole line (its end included); None where it is none."""
    match = _CHAINED.match(line)
    if match and match.end() == len(line):
        chain, seq, prev, time, trace_id, digest = match.groups()
        return Record(chain.decode(), int(seq), prev.decode(), time.decode(), trace_id.decode(), digest.decode())
    found = _TRACE_ID.search(line)
    if not found or not line.lstrip().startswith(b"{") or not line.endswith(b"\n"):
        return None
    when = _TIME.search(line)
    time = utc_time(when.group(1).decode("utf-8", "replace")) if when else ""
    return Record("", 0, "", time, found.group(1).decode(), "")


def is_intact(line: bytes) -> bool:
    """Whether a chained record's hash is that of its bytes, and the line is JSON."""
    if hashlib.sha256(line[: -SUFFIX_BYTES - 1]).hexdigest().encode() != line[-HASH_HEX - 3 : -3]:
        return False
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def utc_time(text: str) -> str:
    """A time with a zone as UTC with microseconds; without a zone it is taken for UTC; empty if it is no time."""
    try:
        when = datetime.datetime.fromisoformat(re.sub(r"[Zz]\Z", "+00:00", text))
    except ValueError:
        return ""
    if when.tzinfo is not None:
        try:
            when = when.astimezone(datetime.timezone.utc)
        except OverflowError:
            return ""
    return when.strftime("%Y-%m-%dT%H:%M:%S.%fZ") if when.year >= 1000 else ""


def day_of(trace_id: str) -> str:
    """The date in a watermark (``20261123``), or `UNDATED`. It only ever says where to look."""
    match = _DAY.match(trace_id)
    return match.group(1) if match else UNDATED


def id_hash(trace_id: str) -> bytes:
    """What a record table holds of a ``trace_id``."""
    return hashlib.sha256(trace_id.encode()).digest()[:ID_BYTES]


@dataclasses.dataclass
class Run:
    """Records that lie one after the other in one file: of one chain and without a gap, or all without a chain.

    ``offset`` and ``length`` are bytes of the file's plain content; ``since`` and ``until`` the lowest and the
    highest time; ``first``, ``last``, ``prev`` (what the first record names) and ``head`` (the last record's hash)
    are empty without a chain.
    """

    chain: str
    offset: int
    length: int
    count: int
    first: int
    last: int
    prev: str
    head: str
    since: str
    until: str


@dataclasses.dataclass
class Scanned:
    """What a range of a log holds."""

    runs: list[Run] = dataclasses.field(default_factory=list)
    hours: dict[str, int] = dataclasses.field(default_factory=dict)  # records by hour
    ids: dict[str, list[bytes]] = dataclasses.field(default_factory=dict)  # day -> hashes of trace_ids, many in each
    odd: int = 0  # lines that are no records


def scan_block(block: bytes, offset: int, found: Scanned) -> None:
    """Add what a block of whole lines holds, that begins at ``offset`` of the file. In the order of the file."""
    lines = block.count(b"\n")
    rows = _ROWS.findall(block) if b'{"chain":"' in block else []
    if rows and len(rows) == lines and _are_well_formed(rows):  # the gateway's own lines and nothing else
        _add_chained(found, block, offset, rows)
    elif rows or not _add_unchained(found, block, offset, lines):
        _scan_lines(block, offset, found)


def _scan_lines(block: bytes, offset: int, found: Scanned) -> None:
    """Any lines, one by one."""
    records: list[Record] = []
    for line in block.split(b"\n")[:-1]:
        line += b"\n"
        record = parse_line(line)
        if record is None:
            found.odd += 1
        else:
            records.append(record)
            _add_run(found, Run(record.chain, offset, len(line), 1, record.seq, record.seq, record.prev, record.hash,
                                record.time, record.time))  # fmt: skip
        offset += len(line)
    hours = collections.Counter([record.hour for record in records])
    _count(found, hours, [record.trace_id.encode() for record in records])


def _are_well_formed(rows: list[tuple[bytes, ...]]) -> bool:
    """Whether hashes are hexadecimal and times are times, all at once."""
    chains, _seqs, before, times, _traces, hashes = zip(*rows)
    if b"".join([*set(chains), *before, *hashes]).translate(None, _HEX_DIGITS):
        return False
    return b"".join(times).translate(_AS_ZEROS) == _ZERO_TIME * len(rows)


def _add_chained(found: Scanned, block: bytes, offset: int, rows: list[tuple[bytes, ...]]) -> None:
    """Records that lie one after the other, cut into runs where the chain does not go on."""
    chains, numbers, before, times, traces, hashes = zip(*rows)
    seqs = list(map(int, numbers))
    raw_hours = collections.Counter([time[:13] for time in times])
    _count(found, {hour.decode(): n for hour, n in raw_hours.items()}, traces)
    cuts = [
        place
        for place, (chain, last_chain, seq, last, prev, head) in enumerate(
            zip(chains[1:], chains, seqs[1:], seqs, before[1:], hashes), start=1
        )
        if prev != head or seq != last + 1 or chain != last_chain
    ]
    starts = {0: 0}
    if cuts:
        ends = [match.end() for match in re.finditer(rb"\n", block)]
        starts.update((cut, ends[cut - 1]) for cut in cuts)
    for low, high in zip([0, *cuts], [*cuts, len(rows)]):
        begin, end = starts[low], starts.get(high, len(block))
        _add_run(
            found,
            Run(
                chains[low].decode(), offset + begin, end - begin, high - low, seqs[low], seqs[high - 1],
                before[low].decode(), hashes[high - 1].decode(),
                min(times[low:high]).decode(), max(times[low:high]).decode(),
            ),
        )  # fmt: skip


def _add_unchained(found: Scanned, block: bytes, offset: int, lines: int) -> bool:
    """Whether all lines are records of an older installation, each with a time of one form; they are added then."""
    traces = _LINE_TRACE_ID.findall(block)
    times = _LINE_TIME.findall(block)
    if not lines or not len(traces) == len(times) == lines == block.count(b"\n{") + block.startswith(b"{"):
        return False
    zone = times[0][26:]
    if any(time[26:] != zone for time in times):
        return False
    # Of one zone, and it lies whole hours from UTC: their order is that of their texts, and hours stay hours.
    raw_hours = collections.Counter([time[:13] for time in times])
    hours = {utc_time(f"{hour.decode()}:00:00.000000{zone.decode()}")[:13]: n for hour, n in raw_hours.items()}
    since, until = (utc_time(time.decode()) for time in (min(times), max(times)))
    if "" in hours:
        return False
    _count(found, hours, traces)
    _add_run(found, Run("", offset, len(block), lines, 0, 0, "", "", since, until))
    return True


def _count(found: Scanned, hours: t.Mapping[str, int], traces: t.Sequence[bytes]) -> None:
    """Count records by hour, and keep what a table holds of them."""
    for hour, count in hours.items():
        found.hours[hour] = found.hours.get(hour, 0) + count
    if not traces:
        return
    sha256 = hashlib.sha256
    low, high = min(traces), max(traces)
    match = _DAY.match(low.decode())
    if match and high.startswith(low[: match.end()]):  # so does all that sorts between them
        found.ids.setdefault(match.group(1), []).append(
            b"".join([sha256(trace).digest()[:ID_BYTES] for trace in traces])
        )
        return
    for trace in traces:
        text = trace.decode()
        found.ids.setdefault(day_of(text), []).append(id_hash(text))


def _add_run(found: Scanned, new: Run) -> None:
    """Append a run, to the one before it where that goes on."""
    run = found.runs[-1] if found.runs else None
    if (
        run is None
        or run.chain != new.chain
        or run.offset + run.length != new.offset
        or (new.chain and (new.first, new.prev) != (run.last + 1, run.head))
    ):
        found.runs.append(new)
        return
    run.length += new.length
    run.count += new.count
    run.last, run.head = new.last, new.head
    # A record without a time says nothing about when the others were written.
    run.since = min(filter(None, (run.since, new.since)), default="")
    run.until = max(run.until, new.until)
