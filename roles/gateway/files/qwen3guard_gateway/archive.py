# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where a record is archived, as the backup tells it in a small file (option ``archive_ledger`` of the module).

No record is ever rewritten for this: the backup says which numbers of which chains its snapshots hold.
"""

from __future__ import annotations

import bisect
import heapq
import json
import logging
import os
import typing as t
from pathlib import Path

PENDING = "pending"
logger = logging.getLogger(__name__)


class _Chain(t.NamedTuple):
    """Ranges of one chain that do not overlap, in order."""

    firsts: list[int]
    lasts: list[int]
    statuses: list[str]


class ArchiveLedger:
    """The ledger, read again when it changed. Without a path nothing is ever archived."""

    def __init__(self, path: str | Path | None):
        self._path = Path(path) if path else None
        self._seen: tuple[int, int, int] | None = None
        self._chains: dict[str, _Chain] = {}

    def status(self, chain: str, seq: int) -> str:
        """``archived_to_<remote>_<time>`` by the first snapshot that holds the record, or ``pending``."""
        self._refresh()
        ranges = self._chains.get(chain)
        if ranges is None:
            return PENDING
        at = bisect.bisect_right(ranges.firsts, seq) - 1
        return ranges.statuses[at] if at >= 0 and seq <= ranges.lasts[at] else PENDING

    def _refresh(self) -> None:
        if self._path is None:
            return
        try:
            now = os.stat(self._path)
        except FileNotFoundError:
            self._chains, self._seen = {}, None
            return
        except OSError as error:
            self._keep(error)
            return
        seen = (now.st_ino, now.st_mtime_ns, now.st_size)
        if seen == self._seen:
            return
        self._seen = seen  # of a file that makes no sense too: it is read again when it changes
        try:
            self._chains = _parse(json.loads(self._path.read_bytes()))
        except (OSError, ValueError) as error:
            self._keep(error)

    def _keep(self, error: Exception) -> None:
        """What was known stays true: archives do not go away because a file cannot be read."""
        logger.warning("the archive ledger %s cannot be read: %s", self._path, error)


def _parse(raw: object) -> dict[str, _Chain]:
    if not isinstance(raw, dict) or raw.get("format") != 1 or not isinstance(raw.get("archived"), list):
        raise ValueError("not a ledger of format 1")
    ranges: dict[str, list[tuple[int, int, int, str]]] = {}
    for order, entry in enumerate(raw["archived"]):
        try:
            first, last, status = int(entry["first"]), int(entry["last"]), str(entry["status"])
            ranges.setdefault(str(entry["chain"]), []).append((first, last, order, status))
        except (KeyError, TypeError) as error:
            raise ValueError(f"entry {order} has no {error}") from error
    return {chain: _without_overlaps(found) for chain, found in ranges.items()}


def _without_overlaps(ranges: list[tuple[int, int, int, str]]) -> _Chain:
    """Each number belongs to the earliest entry that has it (a full backup holds what increments held before)."""
    edges = sorted({first for first, _last, _order, _status in ranges} | {last + 1 for _f, last, _o, _s in ranges})
    ranges = sorted(ranges)
    firsts: list[int] = []
    lasts: list[int] = []
    statuses: list[str] = []
    active: list[tuple[int, int, str]] = []  # order, last, status
    position = 0
    for edge, following in zip(edges, edges[1:]):
        while position < len(ranges) and ranges[position][0] <= edge:
            _first, last, order, status = ranges[position]
            heapq.heappush(active, (order, last, status))
            position += 1
        while active and active[0][1] < edge:
            heapq.heappop(active)
        if not active:
            continue
        status = active[0][2]
        if statuses and statuses[-1] == status and lasts[-1] == edge - 1:
            lasts[-1] = following - 1
        else:
            firsts.append(edge)
            lasts.append(following - 1)
            statuses.append(status)
    return _Chain(firsts, lasts, statuses)
