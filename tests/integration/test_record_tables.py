# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Records and their tables in a real S3 store: what is listed, read, and removed again."""

from __future__ import annotations

import json
import os
import typing as t
from pathlib import Path

import pytest
from sample_instance.chained import ChainedWriter

from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import GuardError, StoreError
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.record_table import RecordTable
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.repository import Repository
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import snapshot as taking
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import snapshots, verify
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.overview import overview
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.rclone import Options
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.store import Store, open_store
from support.checkout import find_tool
from support.engine import INSTANCE, Engine
from support.trial import Trial


class FarEngine(Engine):
    """The engine with its repository in a bucket."""

    def __init__(self, base: Path, far: Store):
        super().__init__(base, "logs")
        self.far = far

    @property
    def repository(self) -> Repository:
        return Repository(self.far, INSTANCE)


@pytest.fixture(name="far")
def fixture_far(store) -> Store:
    return open_store(f"{store.remote}/prod", Options(program=find_tool("rclone"), config=store.config))


def test_several_objects(far: Store, store) -> None:
    names = [f"guard-01/records/2026112{day}/000001-0123abcd.gpg" for day in range(5)]
    assert far.read_several(names) == {}
    far.remove_several(names)
    wanted = {name: os.urandom(1000) for name in names[:4]}
    for name, data in wanted.items():
        far.put(name, data)
    far.put(names[0] + "x", b"another")
    assert far.read_several(names) == wanted
    assert far.read_several([]) == {}
    far.remove_several([names[1], names[4]])
    assert sorted(far.read_several(names)) == [names[0], names[2], names[3]]
    assert set(far.list("guard-01/records")) == {
        name.split("/", 2)[2] for name in (names[0], names[0] + "x", *names[2:4])
    }
    for bad in ("a\nb", "../x", "/etc/passwd", "a//b", "", "# x", "a\0"):
        for work in (far.read_several, far.remove_several):
            with pytest.raises(StoreError, match="a name that a repository has"):
                work([names[0], bad])
    nobody = open_store(
        f"store:not-{store.bucket}", Options(program=find_tool("rclone"), config=store.config, retries=1)
    )
    with pytest.raises(GuardError):
        nobody.list("x")
    broken = open_store(f"nowhere:{store.bucket}", Options(program=find_tool("rclone"), config=store.config, retries=1))
    with pytest.raises(StoreError):
        broken.read_several(names)


def test_tables_go_with_their_snapshots(far: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FarEngine(tmp_path, far)
    writer = ChainedWriter(tmp_path / "logs" / "audit.log")
    writer.append(50, step=3600)

    def refuse(*_arguments: t.Any) -> t.NoReturn:
        raise StoreError("store", "a store", "none")

    with monkeypatch.context() as patch:
        patch.setattr(taking, "_store_index", refuse)
        with pytest.raises(StoreError):
            engine.backup(tmp_path / "logs")
    assert len(far.list(f"{INSTANCE}/records")) == 3, "a day each"
    writer.append(1)
    ledger = tmp_path / "ledger.json"
    engine.backup(tmp_path / "logs", archive_ledger=str(ledger))
    writer.append(5)
    engine.backup(tmp_path / "logs", archive_ledger=str(ledger))
    with engine.session() as session:
        listed = session.repository.listed("logs")
        opened = [snapshots.open_snapshot(session, item) for item in listed]
        tables = [table for item in opened for table in item.manifest.tables]
        sizes = far.list(f"{INSTANCE}/records")
        assert {table.name: table.size for table in tables} == {f"records/{name}": size for name, size in sizes.items()}
        found = []
        data = far.read_several([session.repository.name(table.name) for table in tables])
        for item in opened:
            for table in item.manifest.tables:
                name = session.repository.name(table.name)
                plain = session.gpg.decrypt_bytes(data[name], item.passphrase)
                decoded = RecordTable.decode(plain, name, table.name)
                found += [r.trace_id for r in writer.written if decoded.parts_with(r.trace_id)]
        assert sorted(found) == sorted(record.trace_id for record in writer.written)
        for level in verify.LEVELS:
            verdict = verify.verify(session, verify.Options(level, ownership=False))
            assert verdict.ok, verdict.failures
        told = overview(session.repository, "logs")
        assert not any(item["damaged"] for item in told["snapshots"]["logs"])
        far.remove_several([session.repository.name(tables[0].name)])
        verdict = verify.verify(session, verify.Options("listed"))
        assert not verdict.ok
        assert tables[0].name in verdict.failures[0]
    raw = json.loads(ledger.read_bytes())
    assert (raw["remote"], [(e["first"], e["last"]) for e in raw["archived"]]) == ("store", [(1, 52), (53, 57)])
    assert raw["archived"][0]["status"].startswith("archived_to_store_")


def test_the_modules(tmp_path: Path) -> None:
    """The option of the module `backup`, and what `snapshot_info` tells."""
    trial = Trial(tmp_path / "trial", tmp_path / "repository")
    writer = ChainedWriter(tmp_path / "logs" / "audit.log")
    writer.append(9)
    ledger = tmp_path / "ledger.json"
    options = {"layer": "logs", "path": str(tmp_path / "logs"), "archive_ledger": str(ledger)}
    trial.run("backup", **options).succeeded()
    assert json.loads(ledger.read_bytes())["archived"][0]["last"] == 10
    told = trial.run("snapshot_info").succeeded()["snapshots"]["logs"][0]
    assert told["records"]["count"] == 10
    assert told["records"]["chains"][0]["head"] == writer.head.hash
    writer.append(1)
    done = trial.run("backup", **{**options, "archive_ledger": str(tmp_path / "nowhere" / "x")}).succeeded()
    assert done["changed"]
    assert any("nowhere" in str(warning) for warning in done["warnings"]), done
    trial.make_model()
    trial.refused("backup", "archive_ledger", layer="model", archive_ledger=str(ledger))
    trial.nothing_left()
