# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a check of chained records can find, and how it tells of it.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import dataclasses

# What a finding can be. Those of the second group are innocent: they have a cause in everyday operation.
ALTERED, MISSING, INSERTED, REORDERED = "altered", "missing", "inserted", "reordered"
FORK, CUT_TAIL, BROKEN_LINK, NOT_A_RECORD = "fork", "cut_tail", "broken_link", "not_a_record"
HEAD_DIFFERS, LOST_CHAIN, NOT_CHECKED = "head_differs", "lost_chain", "not_checked"
DUPLICATE, CLOCK_STEP, NEW_CHAIN = "duplicate", "clock_step", "new_chain"
TWO_WRITERS, UNFINISHED, REPAIR = "two_writers", "unfinished", "repair"


@dataclasses.dataclass
class Finding:
    """Something about the records that an inspector should know. ``first`` to ``last`` are numbers (0: none)."""

    kind: str
    chain: str
    first: int
    last: int
    since: str  # the time of the first record, or of the one before it
    until: str
    where: str
    innocent: bool
    why: str

    @property
    def count(self) -> int:
        """How many numbers it is about."""
        return self.last - self.first + 1 if self.first else 0

    def __str__(self) -> str:
        numbers = f" {self.first}" if self.first == self.last else f" {self.first} to {self.last}"
        when = self.since if self.since == self.until else f"{self.since or '?'} to {self.until or '?'}"
        place = f", {self.where}" if self.where else ""
        named = f" in chain {self.chain}{f', number{numbers}' if self.first else ''}" if self.chain else ""
        return f"{self.kind}{named}{f' ({when})' if when else ''}{place}: {self.why}"


@dataclasses.dataclass
class Anchor:
    """A hash that somebody else knows of a record, and whether the records agree with it."""

    chain: str
    seq: int
    hash: str
    source: str
    state: str = ""  # equal, differs, beyond (the records end before it), absent, before (they begin after it)


@dataclasses.dataclass
class ChainSummary:
    """One chain as it was found. ``gaps`` are the numbers that are missing between the first and the last."""

    chain: str
    first: int
    last: int
    count: int
    prev: str
    head: str
    since: str
    until: str
    gaps: list[tuple[int, int]]


@dataclasses.dataclass
class Report:
    """What a check found."""

    chains: list[ChainSummary] = dataclasses.field(default_factory=list)
    findings: list[Finding] = dataclasses.field(default_factory=list)
    anchors: list[Anchor] = dataclasses.field(default_factory=list)
    records: int = 0  # chained ones
    unchained: int = 0
    odd: int = 0  # lines that are no records

    @property
    def ok(self) -> bool:
        """Nothing was found that everyday operation does not explain."""
        return all(finding.innocent for finding in self.findings)
