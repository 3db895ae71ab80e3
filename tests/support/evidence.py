# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Logs with chained records, saved by the engine, and exports of them that are checked by the bundle's own checker."""

from __future__ import annotations

import datetime
import gzip
import json
import re
import shutil
import subprocess
import sys
import typing as t
from pathlib import Path

from sample_instance.chained import START, ChainedWriter, Written

from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import export as exports
from support.engine import Engine

EXPORTED = "exported records"


def altered(lines: list[bytes]) -> list[bytes]:
    """The same lines, with another verdict in the tenth."""
    return [*lines[:9], lines[9].replace(b'"verdict":"safe"', b'"verdict":"none"'), *lines[10:]]


class Checked(t.NamedTuple):
    """What check.py said."""

    rc: int
    output: str

    @property
    def failures(self) -> list[str]:
        return re.findall("^FAILED: (.*)$", self.output, re.MULTILINE)


def run_checker(bundle: Path, *arguments: str, script: Path | None = None) -> Checked:
    """Run it as an inspector does: no site packages, nothing of this checkout."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(script or bundle / "check.py"), str(bundle), *arguments],
        capture_output=True, timeout=600, check=False, cwd="/",
    )  # fmt: skip
    return Checked(done.returncode, done.stdout.decode() + done.stderr.decode())


class Bundle(t.NamedTuple):
    """A bundle that was written."""

    path: Path
    outcome: exports.Outcome

    @property
    def statement(self) -> dict[str, t.Any]:
        return t.cast("dict[str, t.Any]", json.loads((self.path / "statement.json").read_bytes()))

    @property
    def lines(self) -> list[bytes]:
        """All records, in order."""
        return [
            line for path in sorted((self.path / "records").iterdir())
            for line in gzip.decompress(path.read_bytes()).splitlines(keepends=True)
        ]  # fmt: skip

    def told(self, innocent: bool, scope: str = EXPORTED) -> list[tuple[str, int, int]]:
        """(kind, first, last) of the findings."""
        return [
            (finding["kind"], finding["first"], finding["last"])
            for finding in self.outcome.findings
            if finding["innocent"] is innocent and finding["scope"] == scope
        ]

    def finding(self, kind: str) -> dict[str, t.Any]:
        """The one of that kind, of the exported records."""
        (found,) = [f for f in self.outcome.findings if (f["kind"], f["scope"]) == (kind, EXPORTED)]
        return found

    def check(self) -> Checked:
        checked = run_checker(self.path)
        # They never disagree: what the one calls right the other does too.
        assert (checked.rc == 0) is self.outcome.ok, checked.output
        return checked


class Trail:
    """A log directory with a gateway's records, and what becomes of it."""

    def __init__(self, base: Path):
        self.base = base
        self.logs = base / "logs"
        self.writer = ChainedWriter(self.logs / "audit.log")
        self.engine = Engine(base, "logs")
        self.gpg_home = ""  # of the last export
        self._exports = 0

    @property
    def active(self) -> Path:
        return self.logs / "audit.log"

    @property
    def written(self) -> list[Written]:
        return self.writer.written

    def lines(self, first: int = 1, last: int | None = None) -> list[bytes]:
        """Lines of the writer's records by their place, from 1."""
        return [record.line for record in self.written[first - 1 : last]]

    def save(self, **options: t.Any) -> str:
        """A backup; returns the snapshot."""
        outcome = self.engine.backup(self.logs, **options)
        assert outcome.changed, outcome
        return str(outcome.snapshot)

    def put(self, lines: t.Sequence[bytes], name: str = "audit.log") -> None:
        """What somebody makes of a log file."""
        (self.logs / name).write_bytes(b"".join(lines))

    def export(
        self,
        start: datetime.datetime = START - datetime.timedelta(days=1),
        end: datetime.datetime = START + datetime.timedelta(days=1),
        *,
        live: bool = True,
        unsigned: bool = True,
        dry: bool = False,
        **options: t.Any,
    ) -> Bundle:
        self._exports += 1
        path = self.base / f"bundle-{self._exports}"
        wanted = exports.Options(
            start.isoformat(), end.isoformat(), str(path), str(self.logs) if live else "", unsigned=unsigned, **options
        )
        with self.engine.session(dry=dry) as session:
            self.gpg_home = session.gpg.home
            return Bundle(path, exports.export(session, wanted))

    def lose_live(self) -> None:
        """Only the archives are left."""
        shutil.rmtree(self.logs)
        self.logs.mkdir()
