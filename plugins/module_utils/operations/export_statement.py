# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The statement of an evidence bundle: what was found, counted and proven, and what was not.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import socket
import typing as t

from ..format.chain_findings import CLOCK_STEP, Finding
from ..format.manifest import StoredPart
from ..format.records import Record
from .export_findings import EXPORTED, LIVE, Judgement
from .export_plan import Archive, Live, Window
from .export_sources import Holding, Intervals
from .export_stream import ChainStream, Unchained

KIND, FORMAT = "guardops.qwen3guard audit evidence", 1
COLUMNS = ("written", "live", "archived", "restorable", "exported", "missing")


class Account:
    """Records by hour: written, live, archived, restorable, exported.

    ``written`` is by the numbers: what was found and what is known to be missing. ``archived`` is what the indexes of
    the snapshots claim, ``restorable`` what this very run fetched from a snapshot and proved.
    """

    def __init__(self, claims: t.Mapping[str, Intervals], covers: t.Mapping[str, Intervals]):
        self.hours: dict[str, dict[str, int]] = {}
        self.exported = 0
        self.unchained = 0
        self._claims, self._covers = claims, covers
        self._none = Intervals()

    def _row(self, hour: str) -> dict[str, int]:
        row = self.hours.get(hour)
        if row is None:
            row = self.hours[hour] = dict.fromkeys(COLUMNS, 0)
        return row

    def add(self, record: Record, holding: Holding) -> None:
        """A chained record that was exported."""
        self.exported += 1
        row = self._row(record.time[:13])
        row["written"] += 1
        row["exported"] += 1
        if holding.opened is not None:
            row["archived"] += 1
            row["restorable"] += 1
            row["live"] += record.seq in self._covers.get(record.chain, self._none)
        else:
            row["live"] += 1
            row["archived"] += record.seq in self._claims.get(record.chain, self._none)

    def add_unchained(self, record: Record, flags: int) -> None:
        """A record without a chain: nothing says how many were written."""
        self.exported += 1
        self.unchained += 1
        row = self._row(record.time[:13])
        row["written"] += 1
        row["exported"] += 1
        archived = bool(flags & Unchained.ARCHIVED)
        row["archived"] += archived
        row["restorable"] += archived
        row["live"] += bool(flags & Unchained.LIVE)

    def miss(self, finding: Finding) -> None:
        """Numbers that no exported record has: counted in the hour of the record before them."""
        row = self._row((finding.since or finding.until)[:13])
        row["written"] += finding.count
        row["missing"] += finding.count
        row["archived"] += self._claims.get(finding.chain, self._none).count(finding.first, finding.last)

    def table(self) -> dict[str, t.Any]:
        """By hour, and in all."""
        hours = dict(sorted(self.hours.items()))
        return {"hours": hours, "total": {name: sum(row[name] for row in hours.values()) for name in COLUMNS}}


@dataclasses.dataclass
class Facts:
    """What a statement is made of."""

    instance: str
    repository: str
    window: Window
    streams: list[ChainStream]
    archive: Archive
    live: Live
    unchained: Unchained
    judgement: Judgement
    account: Account
    fetched: dict[str, StoredPart]
    signed_by: str
    live_logs: bool


def to_bytes(statement: dict[str, t.Any]) -> bytes:
    """The file's content."""
    return (json.dumps(statement, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "replace")


def statement_of(facts: Facts) -> dict[str, t.Any]:
    """All of it but the list of files."""
    now = datetime.datetime.now(datetime.timezone.utc)
    judgement = facts.judgement
    statement: dict[str, t.Any] = {
        "kind": KIND,
        "format": FORMAT,
        "created": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "host": socket.gethostname(),
        "instance": facts.instance,
        "repository": facts.repository,
        "window": {"start": facts.window.start, "end": facts.window.end, "half_open": True},
        "ok": judgement.ok,
        "signed_by": facts.signed_by,
        "records": {
            "count": facts.account.exported,
            "chained": facts.account.exported - facts.account.unchained,
            "unchained": facts.account.unchained,
            "unchained_copies_left_out": facts.unchained.copies,
            "without_a_time": facts.unchained.timeless,
        },
        "chains": [_chain(stream, judgement) for stream in facts.streams if stream.last],
        "anchors": [dataclasses.asdict(anchor) for anchor in judgement.report.anchors],
        "findings": [
            {"scope": scope, **dataclasses.asdict(finding), "count": finding.count}
            for scope, findings in ((EXPORTED, judgement.exported), (LIVE, judgement.live))
            for finding in findings
        ],
        "conservation": facts.account.table(),
        "sources": _sources(facts),
    }
    statement["proven"] = list(_proven(facts, statement))
    statement["not_proven"] = list(_not_proven(facts, statement))
    return statement


def _chain(stream: ChainStream, judgement: Judgement) -> dict[str, t.Any]:
    summary = next(item for item in judgement.report.chains if item.chain == stream.chain)
    told = {name: getattr(stream, name) for name in ("chain", "first", "last", "prev", "head", "since", "until")}
    return {
        **told,
        "count": stream.count,
        "gaps": [list(gap) for gap in summary.gaps],
        "off_clock": stream.off_clock,
        "before": dataclasses.asdict(stream.before) if stream.before else None,
        "after": dataclasses.asdict(stream.after) if stream.after else None,
    }


def _sources(facts: Facts) -> dict[str, t.Any]:
    used: dict[str, list[dict[str, t.Any]]] = {}
    for name, part in sorted(facts.fetched.items()):
        used.setdefault(name.split("/")[-2], []).append({"name": name, "size": part.size, "sha256": part.sha256})
    manifests = [facts.archive.manifests[snapshot] for snapshot in sorted(used)]
    return {
        "snapshots": [
            {
                "snapshot": m.snapshot, "type": m.type, "created": m.created, "index_sha256": m.index.sha256,
                "objects": used[m.snapshot],
            }
            for m in manifests
        ],
        "live_logs": sorted({file.path for file in facts.live.files}),
    }  # fmt: skip


def _proven(facts: Facts, statement: dict[str, t.Any]) -> t.Iterator[str]:
    wrong = {finding.chain for finding in facts.judgement.exported if not finding.innocent}
    for chain in statement["chains"]:
        name, span = chain["chain"], f"records {chain['first']} to {chain['last']}"
        if name in wrong:
            continue
        yield (
            f"Chain {name}: {span}, {chain['count']} in all, follow one another without a gap; each has the content "
            "that its own hash was made of, and names the hash of the one before it."
        )
        equal = [a for a in statement["anchors"] if a["chain"] == name and a["state"] == "equal"]
        if equal:
            best = max(equal, key=lambda anchor: int(anchor["seq"]))
            yield (
                f"Chain {name}: record {best['seq']} has the hash that {best['source']} keeps as its anchor, so that "
                f"nothing up to it was changed since; {len(equal)} anchor(s) agree, none disagrees."
            )
        if chain["after"]:
            yield (
                f"Chain {name}: no record was cut off at the end of the window: record {chain['after']['seq']}, of "
                f"{chain['after']['time']}, was made after the last one."
            )
        if chain["before"]:
            yield f"Chain {name}: record {chain['before']['seq']}, just before the window, leads to the first one."
        elif chain["first"] == 1:
            yield f"Chain {name}: its first record of all is in the window, so that nothing was left out before it."
    total = statement["conservation"]["total"]
    if total["restorable"]:
        yield (
            f"{total['restorable']} of {total['exported']} records were fetched from the repository, decrypted and "
            "compared with the encrypted index in this run: so many can be restored."
        )


def _not_proven(facts: Facts, statement: dict[str, t.Any]) -> t.Iterator[str]:
    if not facts.signed_by:
        yield "Who made this statement: it is not signed."
    yield (
        "That every question to the guard was recorded: that is for the gateway to do. What it numbered is accounted "
        "for here."
    )
    yield "That the clock was right: times are as the gateway wrote them. Numbers, not times, give the order."
    for finding in facts.judgement.exported:
        if finding.kind == CLOCK_STEP:
            yield f"Chain {finding.chain}: the time of the records around number {finding.first}: {finding.why}."
    for chain in statement["chains"]:
        name = chain["chain"]
        anchors = [a["seq"] for a in statement["anchors"] if a["chain"] == name and a["state"] == "equal"]
        if chain["off_clock"]:
            yield (
                f"Chain {name}: that {chain['off_clock']} records belong to the window: their times do not; they are "
                "here because they lie between others that do."
            )
        if not chain["after"]:
            known = f" after record {max(anchors)}" if anchors else ""
            if max(anchors, default=0) < chain["last"]:
                yield f"Chain {name}: that nothing was changed or cut off{known}: no later record or anchor is known."
        if not anchors:
            yield f"Chain {name}: that it was not written anew as a whole: no snapshot has an anchor of these records."
        if not chain["before"] and chain["first"] > 1:
            yield f"Chain {name}: that no record of the window came before number {chain['first']}: none was found."
    for finding in facts.judgement.exported:
        if not finding.innocent:
            yield f"See the finding: {finding}"
    records = statement["records"]
    if records["unchained"]:
        yield (
            f"{records['unchained']} records have no chain (an older installation wrote them): their completeness "
            "cannot be proven, nor that none was changed before it was archived."
        )
    if records["without_a_time"]:
        yield f"{records['without_a_time']} records without a chain have no time, and were left out."
    if not facts.live_logs:
        yield "What was not archived yet: no live logs were read."
    total = statement["conservation"]["total"]
    if total["archived"] < total["written"]:
        yield f"{total['written'] - total['archived']} records of the window are in no snapshot yet."
    if total["restorable"] < total["archived"]:
        yield f"{total['archived'] - total['restorable']} records that snapshots claim were not restored in this run."
    for text in (*facts.archive.problems, *facts.archive.not_known, *facts.live.not_read):
        yield f"Not read: {text}"
