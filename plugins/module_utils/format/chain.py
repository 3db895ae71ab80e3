# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Check numbered, chained audit records as they stream by: what is wrong, where, and what is harmless.

Private to the collection: use the modules, not this file.

Records are fed in the order of their files, or merged; the files themselves may come in any order. Memory does not
grow with the records: what is kept of each is 16 bytes of its hash, in a temporary file, and one number per thousand.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import tempfile
import typing as t

from . import chain_findings as kinds
from .chain_findings import Anchor, ChainSummary, Finding, Report
from .chain_segments import Line, Segment, Spool, follow
from .records import NO_HASH, SUFFIX_BYTES, Record, parse_line

_MOST_SEGMENTS = 50_000  # a log in more pieces than that is beyond telling what happened to each
_MOST_FINDINGS = 200  # of one kind; the rest is counted
_CLOCK_SLACK = datetime.timedelta(seconds=1)  # records of one moment may be numbered in another order
_REPAIR = b'"event":"repair"'
_BEGIN = b'{"chain":'


class _Chain:
    """What is known of one chain while records come."""

    def __init__(self, name: str):
        self.name = name
        self.segments: list[Segment] = []
        self.where = ""
        self.start: dict[str, t.Any] = {}  # the content of record 1


class ChainChecker:
    """Feed it all lines, then call `finish` once. ``scratch`` is a directory for its temporary file."""

    def __init__(self, scratch: str | None = None):
        self._spool = Spool(tempfile.SpooledTemporaryFile(max_size=4 << 20, dir=scratch))  # noqa: SIM115 - see finish
        self._chains: dict[str, _Chain] = {}
        self._report = Report()
        self._told: dict[str, int] = {}
        self._known: dict[str, int] = {}
        self._segments = 0

    def know(self, chain: str, last: int) -> None:
        """Numbers up to ``last`` of this chain exist elsewhere, and are not fed."""
        self._known[chain] = max(last, self._known.get(chain, 0))

    def anchor(self, chain: str, seq: int, digest: str, source: str) -> None:
        """The hash that ``source`` knows of a record; at any time before `finish`."""
        self._report.anchors.append(Anchor(chain, seq, digest, source))

    def feed(self, line: bytes, where: str, record: Record | None = None) -> Record | None:
        """The next line, its end included, of the file or source ``where``; ``record`` where it was parsed before."""
        record = record or parse_line(line)
        if record is None:
            self._no_record(line, where)
            return None
        if not record.chain:
            self._report.unchained += 1
            return record
        self._report.records += 1
        chain = self._chains.get(record.chain)
        if chain is None:
            chain = self._chains[record.chain] = _Chain(record.chain)
        # That it is JSON as well is not looked at, which would take most of the time: its writer made the hash of it.
        if hashlib.sha256(line[: -SUFFIX_BYTES - 1]).hexdigest() != record.hash:
            self._tell(
                kinds.ALTERED, record.chain, record.seq, record.seq, record.time, record.time, where, False,
                "its content is not the one that its own hash was made of",
            )  # fmt: skip
        elif record.seq == 1:
            chain.start = _fields(line)
        if _REPAIR in line:
            self._tell(
                kinds.REPAIR, record.chain, record.seq, record.seq, record.time, record.time, where, True,
                "the writer died within a line; it cut the torn line off when it started again, and says so here",
            )  # fmt: skip
        self._place(chain, record, where)
        return record

    def _place(self, chain: _Chain, record: Record, where: str) -> None:
        segment = chain.segments[-1] if chain.segments else None
        if segment is not None and segment.last + 1 == record.seq and segment.head == record.prev:
            if record.time < segment.end:
                self._clock(record.chain, record.seq, segment.end, record.time, where)
            segment.add(record, self._spool)
        elif self._segments < _MOST_SEGMENTS:
            if segment is not None:
                segment.close(self._spool)
            after = segment.last if segment is not None and chain.where == where else 0
            chain.segments.append(Segment(record, where, after, self._segments))
            chain.segments[-1].add(record, self._spool)
            self._segments += 1
        else:
            self._tell(
                kinds.NOT_CHECKED, record.chain, record.seq, record.seq, record.time, record.time, where, False,
                f"the records are in more than {_MOST_SEGMENTS} pieces: what was fed after that was not put in order",
            )  # fmt: skip
        chain.where = where

    def _no_record(self, line: bytes, where: str) -> None:
        self._report.odd += 1
        if line.startswith(_BEGIN) and line.endswith(b"\n"):
            why = f"a line that begins as a record and is none: it was changed ({_shown(line)})"
            self._tell(kinds.NOT_A_RECORD, "", 0, 0, "", "", where, False, why)
        elif line.endswith(b"\n"):
            # Other programs may log beside the gateway. A record that was made into this is missed by its number.
            self._tell(kinds.NOT_A_RECORD, "", 0, 0, "", "", where, True, f"a line that is no record: {_shown(line)}")
        else:
            self._tell(
                kinds.UNFINISHED, "", 0, 0, "", "", where, True,
                "a last line without its end: it is being written, or its writer died; nobody was answered for it",
            )  # fmt: skip

    def _clock(self, chain: str, seq: int, before: str, now: str, where: str) -> None:
        back = _moment(before) - _moment(now)
        if back > _CLOCK_SLACK:
            self._tell(
                kinds.CLOCK_STEP, chain, seq, seq, now, now, where, True,
                f"the clock went back by {back}: the record before it is of {before}. The numbers go on",
            )  # fmt: skip

    def _tell(
        self, kind: str, chain: str, first: int, last: int, since: str, until: str, where: str, innocent: bool, why: str
    ) -> None:
        self._told[kind] = self._told.get(kind, 0) + 1
        if self._told[kind] <= _MOST_FINDINGS:
            self._report.findings.append(Finding(kind, chain, first, last, since, until, where, innocent, why))

    # -- all lines were seen

    def finish(self) -> Report:
        """Put the pieces in order, and say what that shows."""
        lines: dict[str, list[Line]] = {}
        for name, chain in self._chains.items():
            if chain.segments:
                chain.segments[-1].close(self._spool)
                lines[name] = self._in_order(chain)
        self._beginnings(lines)
        self._anchors(lines)
        self._writers()
        for kind, count in self._told.items():
            if count > _MOST_FINDINGS:
                alike = next(finding for finding in self._report.findings if finding.kind == kind)
                why = f"{count - _MOST_FINDINGS} more of this kind, not listed one by one"
                self._report.findings.append(Finding(kind, "", 0, 0, "", "", "", alike.innocent, why))
        self._spool.close()
        self._report.chains.sort(key=lambda item: (item.since, item.chain))
        return self._report

    def _in_order(self, chain: _Chain) -> list[Line]:
        """The chain's own line first, then what branches off or fits nowhere."""
        name = chain.name
        lines: list[Line] = []
        gaps: list[tuple[int, int]] = []
        strange = set()  # pieces that do not belong; what follows one is not out of order for it
        late = []
        for segment, kind in follow(chain.segments, lines, self._spool):
            main = lines[0]
            if kind == "missing":
                gaps.append((main.last + 1, segment.first - 1))
                self._tell(
                    kinds.MISSING, name, main.last + 1, segment.first - 1, main.end, segment.begin, segment.where,
                    False, "these numbers were given out, and no record has them",
                )  # fmt: skip
            elif kind == "broken":
                self._tell(
                    kinds.BROKEN_LINK, name, main.last, segment.first, main.end, segment.begin, segment.where, False,
                    f"record {segment.first} was made after another record {main.last} than the one that is here: "
                    "one of the two was exchanged and its hash made anew",
                )  # fmt: skip
            elif kind == "duplicate":
                last = min(main.last, segment.last)
                until = segment.end if last == segment.last else main.end
                self._tell(
                    kinds.DUPLICATE, name, segment.first, last, segment.begin, until, segment.where, True,
                    "there twice, the same in every byte",
                )  # fmt: skip
            if kind in ("missing", "broken", "next") and segment.begin < main.end:
                self._clock(name, segment.first, main.end, segment.begin, segment.where)
            if kind == "aside":
                strange.add(segment.order)
            elif segment.after > segment.last and kind in ("next", "missing"):
                late.append(segment)
        before = {segment.order: before.order for before, segment in zip(chain.segments, chain.segments[1:])}
        for segment in late:
            if before[segment.order] not in strange:
                self._tell(
                    kinds.REORDERED, name, segment.first, segment.last, segment.begin, segment.end, segment.where,
                    False, f"stands after record {segment.after} in the same file",
                )  # fmt: skip
        for line in lines[1:]:
            self._aside(name, line)
        main = lines[0]
        low = min(segment.low for segment in chain.segments)
        high = max(segment.high for segment in chain.segments)
        count = main.last - main.first + 1 - sum(last - first + 1 for first, last in gaps)
        self._report.chains.append(
            ChainSummary(name, main.first, main.last, count, main.prev, main.head, low, high, gaps)
        )
        return lines

    def _aside(self, name: str, line: Line) -> None:
        if line.forked:
            kind, why = (
                kinds.FORK,
                (
                    f"a second record of this number, made after the same record {line.first - 1}: two writers went on "
                    "with one chain, or somebody wrote another history"
                ),
            )
        else:
            kind, why = (
                kinds.INSERTED,
                ("its number or what it says of the record before it fits nothing here: it was put in from outside"),
            )
        self._tell(kind, name, line.first, line.last, line.begin, line.end, line.where, False, why)

    def _beginnings(self, lines: dict[str, list[Line]]) -> None:
        for name, chain in self._chains.items():
            if not chain.start:
                continue
            time, where = str(chain.start.get("time", "")), chain.segments[0].where
            reason = chain.start.get("reason")
            told = f"the writer says: {reason}" if isinstance(reason, str) else "the writer gives no reason"
            before = _point(chain.start.get("continues"))
            if before is None:
                odd = chain.start.get("prev") != NO_HASH
                why = "it names a record before it, and not which" if odd else f"a writer's first record ({told})"
                self._tell(kinds.NEW_CHAIN, name, 1, 1, time, time, where, not odd, why)
                continue
            found = lines.get(before.chain, [])
            named = f"record {before.seq} of chain {before.chain}"
            if any(self._spool.is_at(line, before.seq, before.hash) for line in found):
                more = found[0].last - before.seq
                went_on = f"; the chain before has {more} further record(s), of its own writer" if more > 0 else ""
                self._tell(
                    kinds.NEW_CHAIN, name, 1, 1, time, time, where, True, f"it goes on after {named} ({told}){went_on}"
                )
            elif self._known.get(before.chain, 0) >= before.seq:
                self._tell(
                    kinds.NEW_CHAIN, name, 1, 1, time, time, where, True,
                    f"it goes on after {named} ({told}), which lies outside of what was looked at",
                )  # fmt: skip
            else:
                why = f"it goes on after {named} ({told}), and there is no such record"
                self._tell(kinds.NEW_CHAIN, name, 1, 1, time, time, where, False, why)
            lost = _point(chain.start.get("expected"))
            if lost is not None and (lost.chain in lines or lost.chain in self._known):
                self.anchor(lost.chain, lost.seq, lost.hash, f"the first record of chain {name}")

    def _anchors(self, lines: dict[str, list[Line]]) -> None:
        beyond: dict[str, Anchor] = {}
        for anchor in self._report.anchors:
            found = lines.get(anchor.chain)
            if not found:
                anchor.state = "beyond"
            elif anchor.seq < found[0].first:
                anchor.state = "before"
            elif anchor.seq > max(line.last for line in found):
                anchor.state = "beyond"
            elif not any(self._spool.has(line, anchor.seq) for line in found):
                anchor.state = "absent"
            elif not anchor.hash or any(self._spool.is_at(line, anchor.seq, anchor.hash) for line in found):
                anchor.state = "equal"
            else:
                anchor.state = "differs"
                self._tell(
                    kinds.HEAD_DIFFERS, anchor.chain, anchor.seq, anchor.seq, "", "", anchor.source, False,
                    f"{anchor.source} knows another hash of this record: it or one before it was changed",
                )  # fmt: skip
            if anchor.state == "beyond" and (found or anchor.seq > self._known.get(anchor.chain, 0)):
                known = beyond.get(anchor.chain)
                if known is None or known.seq < anchor.seq:
                    beyond[anchor.chain] = anchor
        for name, anchor in beyond.items():
            found = lines.get(name)
            if not found:
                why = f"{anchor.source} knows this chain up to here, and no record of it was found"
                self._tell(kinds.LOST_CHAIN, name, anchor.seq, anchor.seq, "", "", anchor.source, False, why)
                continue
            self._tell(
                kinds.CUT_TAIL, name, found[0].last + 1, anchor.seq, found[0].end, "", found[0].where, False,
                f"the end of the chain is missing: {anchor.source} knows it up to number {anchor.seq}",
            )  # fmt: skip

    def _writers(self) -> None:
        spans = sorted(self._report.chains, key=lambda item: (item.since, item.chain))
        latest: ChainSummary | None = None
        for item in spans:
            if latest is not None and item.since < latest.until:
                self._tell(
                    kinds.TWO_WRITERS, item.chain, item.first, item.last, item.since, min(item.until, latest.until), "",
                    True, f"chain {latest.chain} was written at the same time: two writers, each with its own numbers",
                )  # fmt: skip
            if latest is None or item.until > latest.until:
                latest = item


class _Point(t.NamedTuple):
    chain: str
    seq: int
    hash: str


def _point(raw: t.Any) -> _Point | None:
    """What a chain's first record says of another one; it comes from a log, so nothing about it is sure."""
    if not isinstance(raw, dict):
        return None
    chain, seq, digest = raw.get("chain"), raw.get("seq"), raw.get("hash", "")
    if not isinstance(chain, str) or not isinstance(seq, int) or not isinstance(digest, str):
        return None
    return _Point(chain, seq, digest)


def _fields(line: bytes) -> dict[str, t.Any]:
    try:
        raw = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return raw if isinstance(raw, dict) else {}


def _moment(time: str) -> datetime.datetime:
    try:
        return datetime.datetime.strptime(time, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=datetime.timezone.utc)
    except ValueError:  # the digits of a date that does not exist
        return datetime.datetime.min.replace(tzinfo=datetime.timezone.utc)


def _shown(line: bytes) -> str:
    """The beginning of a line, for people; what is in it may be anything."""
    return ascii(line[:60].decode("utf-8", "replace").rstrip("\n"))
