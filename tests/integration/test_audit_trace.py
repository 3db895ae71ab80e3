# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""audit_trace: a record is found wherever it lies, and what was done to it or to its object is told."""

from __future__ import annotations

import datetime
import gzip
import hashlib
import json
import secrets
import shutil
import typing as t
from pathlib import Path

import pytest
from conftest import Store
from sample_instance.chained import ChainedWriter, Written, record_line

from support.playbooks import Playbooks
from support.seaweed import Seaweed
from support.trial import INSTANCE, Trial, flipped, replaced

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


@pytest.fixture(scope="module", params=["directory", "s3"])
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Filled:
    place = tmp_path_factory.mktemp("trace")
    if request.param == "directory":
        return fill(World(place / "trial", place / "repository"))
    seaweed: Seaweed = request.getfixturevalue("seaweed")
    bucket = seaweed.make_bucket("trace-" + secrets.token_hex(4))
    store = Store(seaweed, bucket, seaweed.rclone_config(place / "rclone.conf"), f"store:{bucket}")
    return fill(World(place / "trial", f"{store.remote}/prod", store))


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Filled:
    place = tmp_path_factory.mktemp("sound")
    return fill(World(place / "trial", place / "repository"))


@pytest.fixture
def world(sound: Filled, tmp_path: Path) -> World:
    """A copy, to be damaged."""
    shutil.copytree(sound.world.trial.repository, tmp_path / "repository")
    copy = World(tmp_path / "trial", tmp_path / "repository")
    shutil.copy2(sound.world.trial.key_file, copy.trial.key_file)
    shutil.copytree(sound.world.logs, copy.logs)
    copy.snapshots = sound.world.snapshots
    return copy


# -- where it is found


def test_archived_records_are_found(filled: Filled) -> None:
    for name, number in filled.snapshots.items():
        wanted = filled.records[name]
        result = filled.world.trace(wanted)
        assert (result["found"], result["archived"]) == (True, True), name
        assert result["backup_status"].startswith(f"archived_to_{'store' if filled.world.trial.store else 'local'}_20")
        [record] = result["records"]
        assert record["snapshot"] == filled.world.snapshots[number], name
        assert record["line"].encode() + b"\n" == wanted.line
        assert record["record"] == json.loads(wanted.line)
        assert record["line_sha256"] == hashlib.sha256(wanted.line).hexdigest()
        assert record["check"]["ok"]
        assert not record["check"]["failures"]
        assert record["check"]["hash"] == record["check"]["before"] == "ok", record["check"]
        assert result["not_searched"] == result["warnings_found"] == []
        assert result["parts_fetched"] == 1
        if filled.world.trial.store:
            assert filled.world.downloads() == 1
        filled.world.stored_line(record)


def test_neighbours_in_other_snapshots_are_checked(filled: Filled) -> None:
    """The next snapshot of the day is read anyhow, so that nothing is left unchecked but the last of all."""
    for name in ("first of snapshot", "last of snapshot", "before rotation", "after rotation"):
        [record] = filled.world.trace(filled.records[name])["records"]
        told = record["check"]
        assert told["before"] == told["numbers"] == told["after"] == "ok", (name, told)


def test_offsets_lead_to_the_line(filled: Filled) -> None:
    for name, file in (("increment", "audit.log.1"), ("after rotation", "audit.log")):
        wanted = filled.records[name]
        [record] = filled.world.trace(wanted)["records"]
        content = (filled.world.logs / file).read_bytes()
        assert content[record["offset"] : record["offset"] + record["bytes"]] == wanted.line


def test_old_records_without_a_chain(filled: Filled) -> None:
    for line, day in ((OLD, "20240520"), (UNDATED, "undated")):
        result = filled.world.trace(json.loads(line)["trace_id"])
        assert result["searched"]["day"] == day
        [record] = result["records"]
        assert (record["chain"], record["seq"], record["line"].encode() + b"\n") == ("", 0, line)
        assert record["check"]["hash"] == "not_checked"
        assert record["check"]["not_checked"]


def test_live_records(filled: Filled) -> None:
    for name in ("live", "next to archived"):
        result = filled.world.trace(filled.records[name], live=True)
        assert (result["found"], result["archived"], result["backup_status"]) == (True, False, "pending")
        [record] = result["records"]
        assert record["check"]["hash"] == record["check"]["numbers"] == "ok"
        assert result["searched"]["live_files"] == 4
        assert result["parts_fetched"] == 0
    result = filled.world.trace(filled.records["increment"], live=True)
    assert [Path(place["path"]).name for place in result["records"][0]["live"]] == ["audit.log.1"]


def test_not_found_says_what_was_searched(filled: Filled) -> None:
    result = filled.world.trace(filled.records["live"])  # the live log is not looked into
    assert (result["found"], result["records"], result["backup_status"]) == (False, [], "")
    assert result["searched"]["snapshots"] == 5
    assert result["searched"]["tables"] == 5
    assert result["not_searched"] == []
    assert result["parts_fetched"] == 0


def test_texts_and_secrets_stay_where_they_belong(filled: Filled) -> None:
    result = filled.world.trace(filled.records["full"], include_record=False)
    told = json.dumps(result)
    assert result["found"]
    assert TEXT not in told
    assert "line" not in result["records"][0]
    assert Path(filled.world.trial.key_file).read_text().strip() not in told


def test_check_mode_makes_nothing(filled: Filled, tmp_path: Path) -> None:
    state = tmp_path / "state"
    before = filled.world.trial.objects()
    assert filled.world.trace(filled.records["packed"], state_dir=str(state))["found"]
    assert not state.exists()
    assert filled.world.trial.objects() == before


# -- what was done to the archive


def part_of(world: World, number: int) -> Path:
    [part] = sorted(world.trial.folder(world.snapshots[number], "logs").glob("part-*"))[:1]
    return part


def table_of(world: World, number: int) -> Path:
    [table] = Path(world.trial.repository, INSTANCE, "records", "20261123").glob(f"{world.snapshots[number]}*")
    return table


def forge(world: World, number: int, change: t.Callable[[dict[str, t.Any]], object]) -> None:
    path = world.trial.folder(world.snapshots[number], "logs") / "manifest.json"
    raw = json.loads(path.read_text())
    change(raw)
    path.write_text(json.dumps(raw))


@pytest.mark.parametrize(
    "damage", ["part missing", "part changed", "index changed", "table changed", "forged manifest"]
)
def test_another_snapshot_has_it(world: World, sound: Filled, damage: str) -> None:
    """The full at the end holds the same record; what could not be read is told."""
    if damage == "part missing":
        part_of(world, 1).unlink()
    elif damage == "part changed":
        replaced(part_of(world, 1), flipped(0.5))
    elif damage == "index changed":
        replaced(part_of(world, 1).with_name("index.gpg"), flipped(0.5))
    elif damage == "table changed":
        replaced(table_of(world, 1), flipped(0.5))
    else:
        forge(world, 1, lambda raw: raw["records"]["chains"][0].update(head="0" * 64))
    result = world.trace(sound.records["increment"])
    assert result["records"][0]["snapshot"] == world.snapshots[4]
    assert result["records"][0]["check"]["hash"] == "ok"
    assert any(world.snapshots[1] in text for text in result["not_searched"])


def test_nowhere_else(world: World, sound: Filled) -> None:
    """Each thing that may hide a record is named where none is found."""
    part_of(world, 1).unlink()
    part_of(world, 4).unlink()
    table_of(world, 2).unlink()
    (world.trial.folder(world.snapshots[0], "logs") / "manifest.json").write_text("{}")
    result = world.trace(sound.records["increment"])
    assert not result["found"]
    assert result["searched"]["snapshots"] == 1
    for number in (0, 1, 2, 4):
        assert any(world.snapshots[number] in text for text in result["not_searched"]), result["not_searched"]
    replaced(table_of(world, 3), flipped(0.2))  # now there is nothing left that could be searched
    told = world.trial.run("audit_trace", layer=None, trace_id=sound.records["increment"].trace_id)
    assert told.failed
    Trial.is_told(told.result, "none that can be read")


def test_a_table_that_its_manifest_does_not_name_does_not_count(world: World, sound: Filled) -> None:
    def hide(raw: dict[str, t.Any]) -> None:
        raw["records"].update(tables=[], count=0, unchained=0, hours={}, chains=[])

    forge(world, 1, hide)
    forge(world, 4, hide)
    result = world.trace(sound.records["increment"])
    assert not result["found"]
    assert all(any(world.snapshots[n] in text for text in result["not_searched"]) for n in (1, 4))


def test_another_key_is_no_not_found(world: World, sound: Filled, tmp_path: Path) -> None:
    other = Trial(tmp_path / "other", tmp_path / "elsewhere")
    told = world.trial.run(
        "audit_trace", layer=None, trace_id=sound.records["increment"].trace_id, key=other.options["key"]
    )
    assert told.failed
    Trial.is_told(told.result, "passphrase|fit")
    live = world.trace(sound.records["live"], live=True, key=other.options["key"])
    assert live["found"]
    assert live["not_searched"]


def test_nothing_there_is_a_failure(world: World) -> None:
    for more in ({"instance": "another"}, {"repository": "/nonexistent/place"}, {"trace_id": "no good id"}):
        told = world.trial.run("audit_trace", layer=None, **{"trace_id": "qwg-20261123-8b-00", **more})
        assert told.failed
        Trial.is_told(told.result)


def test_a_log_directory_that_is_gone_is_told(world: World, sound: Filled) -> None:
    shutil.rmtree(world.logs)
    result = world.trace(sound.records["increment"], live=True)
    assert result["archived"]
    assert any(str(world.logs) in text for text in result["not_searched"])


# -- what was done to records


def test_altered_live_record(world: World, sound: Filled) -> None:
    wanted = sound.records["live"]
    replaced(
        world.logs / "audit.log", lambda data: data.replace(wanted.line, wanted.line.replace(b'"safe"', b'"unsafe"'))
    )
    result = world.trace(wanted, live=True)
    [record] = result["records"]
    assert record["check"]["hash"] == "failed"
    assert not record["check"]["ok"]
    assert result["warnings_found"]


def test_live_record_that_differs_from_the_archived_one(world: World, sound: Filled) -> None:
    wanted = sound.records["increment"]
    replaced(
        world.logs / "audit.log.1", lambda data: data.replace(wanted.line, wanted.line.replace(b'"safe"', b'"mild"'))
    )
    result = world.trace(wanted, live=True)
    archived, live = result["records"]
    assert archived["archived"]
    assert archived["check"]["ok"]
    assert not archived["live"]
    assert not live["archived"]
    assert live["check"]["hash"] == "failed"
    assert any("not the archived one" in text for text in result["warnings_found"])


def test_removed_neighbour_and_changed_neighbour(world: World) -> None:
    writer = ChainedWriter(world.logs / "second.log")
    records = writer.append(6)
    replaced(writer.path, lambda data: data.replace(records[2].line, b""))
    for place, field in ((1, "after"), (3, "before")):
        [record] = world.trace(records[place], live=True)["records"]
        assert record["check"][field] == record["check"]["numbers"] == "failed", record["check"]
        assert f"record {records[2].seq + 1}" in str(record["check"]["failures"]) or place == 3
    replaced(writer.path, lambda data: data.replace(records[4].line, records[4].line.replace(b'"safe"', b'"mild"')))
    [record] = world.trace(records[5], live=True)["records"]
    assert record["check"]["before"] == "failed"


def test_several_records_of_one_id(world: World) -> None:
    writer = ChainedWriter(world.logs / "second.log")
    [first] = writer.append(1)
    forged = record_line("f" * 16, 1, "0" * 64, writer.clock, first.trace_id, event="audit", text="forged")
    with (world.logs / "third.log").open("ab") as output:
        output.write(forged.line)
    assert len(world.trace(first, live=True)["records"]) == 2
    world.back_up()
    result = world.trace(first)
    assert {record["line"] + "\n" for record in result["records"]} == {first.line.decode(), forged.line.decode()}
    assert any("2 records" in text for text in result["warnings_found"])


def test_new_chain_after_a_restore(world: World) -> None:
    writer = ChainedWriter(world.logs / "second.log")
    writer.append(3)
    world.back_up()
    first = writer.new_chain("restored or moved")
    writer.append(3)
    world.back_up()
    [record] = world.trace(first)["records"]
    assert record["check"]["before"] == record["check"]["after"] == "ok", record["check"]


def test_line_longer_than_a_part_may_be_cut(world: World) -> None:
    writer = ChainedWriter(world.logs / "second.log")
    writer.append(5)
    [long] = writer.append(1, text=secrets.token_hex(1 << 20))
    writer.append(5)
    world.back_up(part_size="1M")
    result = world.trace(long)
    [record] = result["records"]
    assert record["line"].encode() + b"\n" == long.line
    assert record["check"]["numbers"] == "ok"
    assert result["parts_fetched"] > 1


def test_the_playbook_tells_where_and_not_what(world: World, sound: Filled, tmp_path: Path) -> None:
    shutil.copytree(world.logs, tmp_path / "data" / "logs")
    variables = {
        "guardops_instance": INSTANCE,
        "guardops_data_root": str(tmp_path / "data"),
        "guardops_repository": world.trial.repository,
        "guardops_state_dir": str(tmp_path / "state"),
        "guardops_key": world.trial.options["key"],
    }
    playbooks = Playbooks(tmp_path / "ansible-run", variables)
    wanted = sound.records["full"]
    run = playbooks.run("trace", "--check", guardops_trace_id=wanted.trace_id)
    result = run.succeeded()[""]
    assert (result["archived"], result["changed"]) == (True, False)
    assert result["records"][0]["object"] in run.output
    assert TEXT not in run.output
    assert TEXT not in json.dumps(result)
    run = playbooks.run("trace", guardops_trace_id=wanted.trace_id, guardops_include_record=True)
    assert run.succeeded()[""]["records"][0]["record"] == json.loads(wanted.line)
