# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What of an export a check of the exported records cannot see: their places, their copies, and what lies around them.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ..format import chain_findings as chains
from ..format.chain import ChainChecker
from ..format.chain_findings import Finding, Report
from .export_plan import Archive, Live, Window
from .export_sources import UNREADABLE, Holding, Intervals, Reader
from .export_stream import ChainStream, Edge, Unchained

_MOST_COPIES_READ = 200
EXPORTED, LIVE = "exported records", "live logs"


def set_aside(holdings: list[Holding]) -> list[Holding]:
    """Take out runs that stand before lower numbers in the same file and fit to no other run: they were put in.

    Their numbers must not stretch the chain: everything up to such a number would count as missing.
    """
    ends = {(h.run.last, h.run.head) for h in holdings}
    beginnings = {(h.run.first, h.run.prev) for h in holdings}
    strange = []
    for here, following in _neighbours(holdings):
        fits = (here.run.first - 1, here.run.prev) in ends or (here.run.last + 1, here.run.head) in beginnings
        if following.run.first <= here.run.last and not fits and here.run.first > 1:
            strange.append(here)
    for holding in strange:
        holdings.remove(holding)
    return strange


def _neighbours(holdings: t.Iterable[Holding]) -> t.Iterator[tuple[Holding, Holding]]:
    """Runs of one chain that follow one another in a file."""
    for runs in _by_file(holdings):
        yield from zip(runs, runs[1:])


def _by_file(holdings: t.Iterable[Holding]) -> t.Iterator[list[Holding]]:
    files: dict[tuple[int, str], list[Holding]] = {}
    for holding in holdings:
        if not holding.failed:
            files.setdefault((id(holding.opened or holding.live), holding.path), []).append(holding)
    for runs in files.values():
        yield sorted(runs, key=lambda h: h.run.offset)


@dataclasses.dataclass
class Judgement:
    """All findings, and the check of the exported records that they are based on."""

    report: Report
    exported: list[Finding]
    live: list[Finding]

    @property
    def ok(self) -> bool:
        """The exported records are all there, and what they were."""
        return all(finding.innocent for finding in self.exported)

    def missing(self) -> t.Iterator[Finding]:
        """What is known to have been written and is not in the export."""
        return (f for f in self.exported if f.kind in (chains.MISSING, chains.CUT_TAIL))


def judge(
    checker: ChainChecker, streams: t.Sequence[ChainStream], aside: t.Sequence[Holding], archive: Archive, live: Live,
    unchained: Unchained, window: Window, reader: Reader,
) -> Judgement:  # fmt: skip
    """Everything that can be said once all records were read."""
    outside: list[Finding] = []
    for stream in streams:
        _read_copies(checker, stream, reader)
        _look_around(stream, archive)
        outside += _around(stream)
        outside += _order(stream, archive.claims.get(stream.chain, Intervals()))
        for manifest, told in archive.ranges(stream.chain):
            if stream.first <= told["last"] <= stream.last:
                checker.anchor(stream.chain, told["last"], told["head"], f"snapshot {manifest.snapshot}")
    for manifest in archive.manifests.values():
        for told in manifest.records["chains"] if manifest.records else []:
            checker.know(told["chain"], told["last"])
    for holding in aside:
        run = holding.run
        if window.touches(run.since, run.until):
            outside.append(Finding(
                chains.INSERTED, run.chain, run.first, run.last, run.since, run.until, holding.where, False,
                "it stands between records of other numbers and fits to none of them: it was put in from outside. "
                "It is not part of the export",
            ))  # fmt: skip
    report = checker.finish()
    found = [*report.findings, *outside]
    for stream in streams:
        found += _lost(stream, found)
    for holding, failure in unchained.failures:
        found.append(Finding(
            "unreadable", "", 0, 0, holding.run.since, holding.run.until, holding.where, False,
            f"{holding.run.count} records without a chain cannot be read: {failure}",
        ))  # fmt: skip
    inside = [f for f in live.report.findings if not f.since or window.touches(f.since, f.until or f.since)]
    return Judgement(report, _each_once(found), _each_once(inside))


def _each_once(findings: t.Sequence[Finding]) -> list[Finding]:
    found = {(f.kind, f.chain, f.first, f.last, f.why if not f.first else ""): f for f in reversed(findings)}
    return sorted(found.values(), key=lambda f: (f.innocent, f.since, f.chain, f.first))


def _read_copies(checker: ChainChecker, stream: ChainStream, reader: Reader) -> None:
    """Copies that do not end with the hash of what was exported: the check is to say what they are."""
    for holding in stream.strange[:_MOST_COPIES_READ]:
        try:
            for line in reader.lines(holding):
                checker.feed(line, holding.where)
        except UNREADABLE as error:
            stream.failures.append((holding, str(error), holding.run.first))


def _look_around(stream: ChainStream, archive: Archive) -> None:
    """The nearest record on each side: where none was read, the one that an index or a manifest tells of."""
    told = [(h.run.first, h.run.prev, h.run.since, h.run.last, h.run.head, h.run.until) for h in stream.holdings]
    told += [
        (c["first"], c["prev"], c["since"], c["last"], c["head"], c["until"])
        for _manifest, c in archive.ranges(stream.chain)
    ]
    if not stream.last:
        return
    if stream.before is None:
        below = max((x for x in told if x[3] < stream.first), key=lambda x: x[3], default=None)
        if below is not None:
            stream.before = Edge(below[3], below[4], "", below[5])
    if stream.after is None:
        above = min((x for x in told if x[0] > stream.last), key=lambda x: x[0], default=None)
        if above is not None:
            stream.after = Edge(above[0], "", above[1], above[2])


def _around(stream: ChainStream) -> t.Iterator[Finding]:
    """What is missing, or does not fit, between the window and the records just outside of it."""
    if not stream.last:
        return
    if stream.before is not None and stream.before.seq + 1 < stream.first:
        yield Finding(
            chains.MISSING, stream.chain, stream.before.seq + 1, stream.first - 1, stream.before.time, stream.since, "",
            False, "at the beginning of the window these numbers were given out, and no record has them",
        )  # fmt: skip
    elif stream.before is not None and stream.before.hash != stream.prev:
        yield Finding(
            chains.BROKEN_LINK, stream.chain, stream.before.seq, stream.first, stream.before.time, stream.since, "",
            False, f"record {stream.first}, the first of the window, was made after another than the one before it",
        )  # fmt: skip
    if stream.after is not None and stream.after.seq > stream.last + 1:
        yield Finding(
            chains.MISSING, stream.chain, stream.last + 1, stream.after.seq - 1, stream.until, stream.after.time, "",
            False, "at the end of the window these numbers were given out, and no record has them",
        )  # fmt: skip
    elif stream.after is not None and stream.after.prev != stream.head:
        yield Finding(
            chains.BROKEN_LINK, stream.chain, stream.last, stream.after.seq, stream.until, stream.after.time, "", False,
            f"record {stream.after.seq}, the first after the window, was made after another record {stream.last}",
        )  # fmt: skip


def _order(stream: ChainStream, archived: Intervals) -> t.Iterator[Finding]:
    """Records that stand in a file after higher numbers: in a snapshot, or in a live log that alone has them."""
    strange = {id(holding) for holding in stream.strange}
    for runs in _by_file(h for h in stream.holdings if id(h) not in strange):
        seen, highest = Intervals(), 0
        for holding in runs:
            run = holding.run
            if not stream.first <= run.first <= stream.last or (holding.live is not None and run.first in archived):
                pass  # not what was exported
            elif run.first in seen:
                yield Finding(
                    chains.DUPLICATE, stream.chain, run.first, run.last, run.since, run.until, holding.where, True,
                    "there twice in one file, the same in every byte; exported once",
                )  # fmt: skip
            elif run.first <= highest:
                yield Finding(
                    chains.REORDERED, stream.chain, run.first, run.last, run.since, run.until, holding.where, False,
                    f"stands after record {highest} in the same file; exported in its place",
                )  # fmt: skip
            seen.add(run.first, run.last)
            highest = max(highest, run.last)


def _lost(stream: ChainStream, found: t.Sequence[Finding]) -> t.Iterator[Finding]:
    """What could not be read: whether another place had the same records."""
    low, high = stream.span
    have = Intervals()
    if stream.last:
        have.add(stream.first, stream.last)
        low, high = (stream.seen_first, stream.seen_last)
    gone = [f for f in found if f.kind == chains.MISSING and f.chain == stream.chain]
    edges = [pair for pair in ((stream.span[0], low - 1), (high + 1, stream.span[1])) if pair[0] <= pair[1]]
    if not stream.last and not stream.seen_last:
        edges = [stream.span]
    for first, last in edges:
        lost = next((h for h, _why, _n in stream.failures if h.run.first <= last and first <= h.run.last), None)
        yield Finding(
            chains.CUT_TAIL if stream.last and first > stream.last else chains.MISSING, stream.chain, first, last,
            lost.run.since if lost else stream.until, lost.run.until if lost else "", lost.where if lost else "", False,
            "these numbers were given out, and no place that holds them can be read",
        )  # fmt: skip
    for holding, failure, number in stream.failures:
        run = holding.run
        missed = any(f.first <= run.last and run.first <= f.last for f in gone)
        missed = missed or any(first <= run.last and run.first <= last for first, last in edges)
        told = "the records from here on are lost" if missed else "another place holds the same records"
        yield Finding(
            "unreadable", stream.chain, number, run.last, run.since, run.until, holding.where, not missed,
            f"{told}: {failure}",
        )  # fmt: skip
