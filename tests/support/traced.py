# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A guard's logs with a history, and their archive: for the tests of audit_trace."""

from __future__ import annotations

import datetime
import gzip
import hashlib
import typing as t
from pathlib import Path

from conftest import Store
from sample_instance.chained import ChainedWriter, Written

from support.trial import INSTANCE, Trial

OLD = (
    b'{"time":"2024-05-20T14:23:00+08:00","trace_id":"qwg-20240520-8b-7f3a9c21","text":"an old one","verdict":"safe"}\n'
)
UNDATED = b'{"time":"2024-05-20T14:24:00+08:00","trace_id":"no.date_in-it","verdict":"safe"}\n'
TEXT = "what only the user may know"


class World:
    """A guard's logs with a history, and its archive."""

    def __init__(self, place: Path, repository: str | Path, store: Store | None = None):
        self.trial = Trial(place, repository, store)
        self.logs = place / "logs"
        self.snapshots: list[str] = []
        self.calls = place / "rclone-calls"
        if store is not None:  # a stand-in that writes down what rclone is asked for
            real, watched = self.trial.options["rclone_path"], place / "watched-rclone"
            watched.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >> "{self.calls}"\nexec "{real}" "$@"\n')
            watched.chmod(0o700)
            self.trial.options["rclone_path"] = str(watched)

    def back_up(self, **more: t.Any) -> str:
        result = self.trial.run("backup", layer="logs", path=str(self.logs), **more).succeeded()
        self.snapshots.append(result["snapshot"])
        return str(result["snapshot"])

    def trace(self, wanted: Written | str, live: bool = False, **more: t.Any) -> dict[str, t.Any]:
        """What the module returns; it must not fail, and leave nothing behind."""
        trace_id = wanted if isinstance(wanted, str) else wanted.trace_id
        self.calls.unlink(missing_ok=True)
        options = {"trace_id": trace_id, "logs_path": str(self.logs) if live else None, **more}
        result = self.trial.run("audit_trace", layer=None, **options).succeeded()
        assert result["changed"] is False
        self.trial.nothing_left()
        return result

    def downloads(self) -> int:
        """Parts that rclone was asked for in the last trace."""
        return sum(" cat " in line and "/part-" in line for line in self.calls.read_text().splitlines())

    def stored_line(self, record: dict[str, t.Any]) -> None:
        """What the result says of the object is so: seen without the collection."""
        name = record["object"].split(f"{INSTANCE}/")[1]
        assert self.trial.objects()[f"{INSTANCE}/{name}"] == record["object_bytes"]
        if self.trial.store is None:
            path = Path(self.trial.repository, INSTANCE, name)
            assert hashlib.sha256(path.read_bytes()).hexdigest() == record["object_sha256"]


class Filled(t.NamedTuple):
    """A world, and records in it by the place where they are."""

    world: World
    records: dict[str, Written]
    snapshots: dict[str, int]  # which snapshot holds each: its place in ``world.snapshots``


def fill(world: World) -> Filled:
    """Rotation, a clock that steps back, old and compressed logs, a full at both ends, and some that are live only."""
    logs = world.logs
    writer = ChainedWriter(logs / "audit.log")
    packed = ChainedWriter(logs / "packed", start=writer.clock - datetime.timedelta(hours=5))
    packed.append(20)
    (logs / "audit.log.7.gz").write_bytes(gzip.compress((logs / "packed").read_bytes()))
    (logs / "packed").unlink()
    (logs / "old.log").write_bytes(OLD + UNDATED)
    found = {"full": writer.append(30, text=TEXT)[10], "packed": packed.written[7]}
    world.back_up()
    second = writer.append(20)
    found["increment"], found["last of snapshot"] = second[5], second[-1]
    world.back_up()
    before_rotation = writer.append(10)
    writer.rotate("audit.log.1")
    after_rotation = writer.append(10)
    found["before rotation"], found["after rotation"] = before_rotation[-1], after_rotation[0]
    world.back_up()
    writer.step_clock(datetime.timedelta(hours=-1, minutes=-5))
    stepped = writer.append(10)
    found["clock step"], found["first of snapshot"] = stepped[4], stepped[0]
    world.back_up()
    writer.append(5)
    world.back_up(type="full")
    live = writer.append(5)
    found["live"], found["next to archived"] = live[2], live[0]
    where = {
        "full": 0, "packed": 0, "increment": 1, "before rotation": 2, "after rotation": 2, "clock step": 3,
        "first of snapshot": 3, "last of snapshot": 1,
    }  # fmt: skip
    return Filled(world, found, where)
