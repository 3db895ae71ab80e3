# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Chained audit records as the gateway writes them, by a clock and a chain that the caller controls.

Not the gateway's own code: it is the second opinion on how a record's line looks.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import secrets
import typing as t
from pathlib import Path

NO_HASH = "0" * 64
START = datetime.datetime(2026, 11, 23, 9, 0, 0, tzinfo=datetime.timezone.utc)
ACTIVE = "audit.log"
_TEXTS = ("Wie geht es dir?", "请问今天天气怎么样？", 'a "quoted" text with \\ and }', "long " * 40)


class Written(t.NamedTuple):
    """One record that was written."""

    chain: str
    seq: int
    hash: str
    time: str
    trace_id: str
    line: bytes  # its end included


def record_line(chain: str, seq: int, prev: str, time: datetime.datetime, trace_id: str = "", **rest: t.Any) -> Written:
    """The line of one record; ``rest`` is what follows the trace_id."""
    told = time.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    trace_id = trace_id or f"qwg-{told[:10].replace('-', '')}-8b-{secrets.token_hex(8)}"
    raw = {"chain": chain, "seq": seq, "prev": prev, "time": told, "trace_id": trace_id, **rest}
    body = json.dumps(raw, ensure_ascii=False, separators=(",", ":"))[:-1].encode()
    digest = hashlib.sha256(body).hexdigest()
    return Written(chain, seq, digest, told, trace_id, body + f',"hash":"{digest}"}}\n'.encode())


class ChainedWriter:
    """Writes chained records to one file; ``written`` holds all of them, in order.

    ``clock`` is the time of the next record and may be set at will. Each new chain begins with a record that says so.
    """

    def __init__(self, path: str | Path, chain: str | None = None, start: datetime.datetime = START):
        self.path = Path(path)
        self.clock = start
        self.written: list[Written] = []
        self.chain, self.seq, self.prev = "", 0, NO_HASH
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch()
        self.new_chain("first start", chain)

    @property
    def head(self) -> Written:
        """The last record."""
        return self.written[-1]

    def append(self, count: int = 1, step: float = 1.0, **rest: t.Any) -> list[Written]:
        """``count`` audits, ``step`` seconds apart (less than 0: the clock runs back)."""
        made = []
        for _number in range(count):
            fields: dict[str, t.Any] = {
                "event": "audit", "model": "Qwen3Guard-Gen-8B", "source_ip": "192.0.2.7",
                "text": _TEXTS[self.seq % len(_TEXTS)], "verdict": "safe", "severity": "Safe", "categories": ["None"],
                "refusal": None, "confidence": None, "status": 200, "error": None, "upstream_ms": 12, "client": None,
            }  # fmt: skip
            made.append(self._next({**fields, **rest}))
            self.clock += datetime.timedelta(seconds=step)
        with open(self.path, "ab") as output:
            output.write(b"".join(record.line for record in made))
        return made

    def new_chain(self, reason: str = "restored or moved", chain: str | None = None, continues: bool = True) -> Written:
        """A new chain; it names the last record of the one before, unless ``continues`` is False."""
        before = self.written[-1] if self.written and continues else None
        self.chain, self.seq = chain or secrets.token_hex(8), 0
        self.prev = before.hash if before else NO_HASH
        rest: dict[str, t.Any] = {"event": "chain", "reason": reason}
        if before:
            rest["continues"] = {"chain": before.chain, "seq": before.seq, "hash": before.hash}
        made = self._next(rest)
        with open(self.path, "ab") as output:
            output.write(made.line)
        return made

    def rotate(self, name: str) -> Path:
        """Rename the file as logrotate does, and go on in a new one: with the same chain."""
        target = self.path.with_name(name)
        self.path.rename(target)
        self.path.touch()
        return target

    def step_clock(self, step: datetime.timedelta) -> None:
        """Somebody sets the clock."""
        self.clock += step

    def _next(self, rest: dict[str, t.Any]) -> Written:
        made = record_line(self.chain, self.seq + 1, self.prev, self.clock, **rest)
        self.seq, self.prev = made.seq, made.hash
        self.written.append(made)
        return made
