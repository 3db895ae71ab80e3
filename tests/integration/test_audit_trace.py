# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""audit_trace: a record is found wherever it lies."""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from pathlib import Path

import pytest
from conftest import Store
from sample_instance.chained import ChainedWriter

from support.playbooks import Playbooks
from support.seaweed import Seaweed
from support.traced import OLD, TEXT, UNDATED, Filled, World, fill
from support.trial import INSTANCE


@pytest.fixture(scope="module", params=["directory", "s3"])
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Filled:
    place = tmp_path_factory.mktemp("trace")
    if request.param == "directory":
        return fill(World(place / "trial", place / "repository"))
    seaweed: Seaweed = request.getfixturevalue("seaweed")
    bucket = seaweed.make_bucket("trace-" + secrets.token_hex(4))
    store = Store(seaweed, bucket, seaweed.rclone_config(place / "rclone.conf"), f"store:{bucket}")
    return fill(World(place / "trial", f"{store.remote}/prod", store))


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


def test_the_playbook_tells_where_and_not_what(tmp_path: Path) -> None:
    world = World(tmp_path / "trial", tmp_path / "repository")
    wanted = ChainedWriter(world.logs / "audit.log").append(5, text=TEXT)[3]
    world.back_up()
    shutil.copytree(world.logs, tmp_path / "data" / "logs")
    variables = {
        "guardops_instance": INSTANCE,
        "guardops_data_root": str(tmp_path / "data"),
        "guardops_repository": world.trial.repository,
        "guardops_state_dir": str(tmp_path / "state"),
        "guardops_key": world.trial.options["key"],
    }
    playbooks = Playbooks(tmp_path / "ansible-run", variables)
    run = playbooks.run("trace", "--check", guardops_trace_id=wanted.trace_id)
    result = run.succeeded()[""]
    assert (result["archived"], result["changed"]) == (True, False)
    assert result["records"][0]["object"] in run.output
    assert TEXT not in run.output
    assert TEXT not in json.dumps(result)
    run = playbooks.run("trace", guardops_trace_id=wanted.trace_id, guardops_include_record=True)
    assert run.succeeded()[""]["records"][0]["record"] == json.loads(wanted.line)
