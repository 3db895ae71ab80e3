# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""audit_trace: what was done to a record, to its object or to the archive is told."""

from __future__ import annotations

import json
import secrets
import shutil
import typing as t
from pathlib import Path

import pytest
from sample_instance.chained import ChainedWriter, record_line

from support.traced import Filled, World, fill
from support.trial import INSTANCE, Trial, flipped, replaced


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
