# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a manifest of the logs says of the records in its snapshot.

Private to the collection: use the modules, not this file.

Each chain with the hash of its last record: the anchor that nobody can move who has not the key, for the index
repeats it. The rest is what accounting needs: how many records there are of every hour, and of which numbers.
"""

from __future__ import annotations

import re
import typing as t

from . import fields
from .record_table import parse_name
from .records import Run

_HOUR = re.compile(r"\A([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2})?\Z")  # empty: records without a time
_MOMENT = re.compile(r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z\Z")
_CHAIN = re.compile(r"\A[0-9a-f]{16}\Z")


def chains_of(runs: t.Iterable[Run]) -> list[dict[str, t.Any]]:
    """One entry for each chain: its runs put in the order of their numbers, wherever they lie.

    ``breaks`` counts the places where the next record is not the one that follows: a gap, a record that names
    another before it, or a number that is there twice.
    """
    by_chain: dict[str, list[Run]] = {}
    for run in runs:
        if run.chain:
            by_chain.setdefault(run.chain, []).append(run)
    found = []
    for chain, mine in by_chain.items():
        mine.sort(key=lambda run: (run.first, run.last))
        breaks = 0
        last = mine[0]
        for run in mine[1:]:
            if (run.first, run.prev) != (last.last + 1, last.head):
                breaks += 1
            last = max(last, run, key=lambda item: item.last)
        found.append(
            {
                "chain": chain, "first": mine[0].first, "last": last.last, "count": sum(run.count for run in mine),
                "prev": mine[0].prev, "head": last.head, "breaks": breaks,
                "since": min(run.since for run in mine), "until": max(run.until for run in mine),
            }
        )  # fmt: skip
    return sorted(found, key=lambda item: (item["since"], item["chain"]))


def parse(raw: t.Any, snapshot: str, full: bool) -> dict[str, t.Any] | None:
    """The field ``records`` of a manifest that anybody may have written; ValueError, KeyError or TypeError
    where it is not what a backup writes."""
    if raw is None:
        return None
    tables = [_table(item, snapshot, full) for item in fields.of_type(raw["tables"], list)]
    if len({table["name"] for table in tables}) != len(tables):
        raise ValueError("a record table twice")
    found: dict[str, t.Any] = {
        "count": fields.count(raw["count"]),
        "unchained": fields.count(raw["unchained"]),
        "odd": fields.count(raw["odd"]),
        "hours": {
            fields.matching(hour, _HOUR): fields.count(n) for hour, n in fields.of_type(raw["hours"], dict).items()
        },
        "chains": [_chain(item) for item in fields.of_type(raw["chains"], list)],
        "tables": tables,
        "not_scanned": [str(fields.of_type(path, str)) for path in fields.of_type(raw["not_scanned"], list)],
    }
    chained = sum(chain["count"] for chain in found["chains"])
    told = {chained + found["unchained"], sum(found["hours"].values()), sum(table["count"] for table in tables)}
    if told != {found["count"]}:
        raise ValueError(f"numbers of records that do not agree: {sorted({*told, found['count']})}")
    if len({chain["chain"] for chain in found["chains"]}) != len(found["chains"]):
        raise ValueError("a chain twice")
    return found


def _table(raw: t.Any, snapshot: str, full: bool) -> dict[str, t.Any]:
    name = parse_name(fields.of_type(raw["name"], str))
    if name is None or (name.snapshot, name.full, name.day) != (snapshot, full, raw["day"]):
        raise ValueError(f"{raw['name']!r:.80} is no record table of this snapshot")
    return {
        "name": raw["name"], "day": name.day, "size": fields.count(raw["size"]),
        "sha256": fields.matching(raw["sha256"], fields.SHA256), "count": fields.count(raw["count"]),
    }  # fmt: skip


def _chain(raw: t.Any) -> dict[str, t.Any]:
    found: dict[str, t.Any] = {
        "chain": fields.matching(raw["chain"], _CHAIN),
        "first": fields.count(raw["first"]), "last": fields.count(raw["last"]), "count": fields.count(raw["count"]),
        "prev": fields.matching(raw["prev"], fields.SHA256), "head": fields.matching(raw["head"], fields.SHA256),
        "breaks": fields.count(raw["breaks"]),
        "since": fields.matching(raw["since"], _MOMENT), "until": fields.matching(raw["until"], _MOMENT),
    }  # fmt: skip
    if not 1 <= found["first"] <= found["last"] or not found["count"]:
        raise ValueError(f"a chain of records {found['first']} to {found['last']}")
    whole = found["count"] == found["last"] - found["first"] + 1
    if not whole and not found["breaks"]:
        raise ValueError(f"{found['count']} records from {found['first']} to {found['last']} without a break")
    return found
