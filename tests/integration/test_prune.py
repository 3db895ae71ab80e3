# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""prune on a real object store: what stays restores, what goes is gone, and what the store refuses is told."""

from __future__ import annotations

import json
import secrets
import typing as t
from pathlib import Path

import pytest
from conftest import Store
from sample_instance.chained import ChainedWriter

from support.made_up import MadeUp
from support.modules import ModuleRun, run_module
from support.seaweed import Seaweed
from support.trial import INSTANCE, Trial


class Logs:
    """Snapshots of a guard's logs in a store: real ones, or such as were never taken."""

    def __init__(self, place: Path, repository: str, store: Store):
        self.trial = Trial(place, repository, store)
        self.place = place
        self.store = store
        self.made = MadeUp(place / "made-up")

    def make_up(self, chains: int) -> list[str]:
        """So many fulls, each with an increment, put into the store."""
        for _number in range(chains):
            self.made.chain(5, 1)
        prefix = self.trial.repository.partition("/")[2]
        for name in self.made.objects():
            key = f"{prefix}/{INSTANCE}/{name}"
            body = (self.made.place / name).read_bytes()
            self.store.seaweed.client.put_object(Bucket=self.store.bucket, Key=key, Body=body)
        return list(self.made.manifests)

    def prune(self, **more: t.Any) -> ModuleRun:
        options = {"key": None, "keep_last": 1, "min_age": 0, "apply": True, "layer": "logs", **more}
        return self.trial.run("prune", **options)

    def refused(self, *words: str, **more: t.Any) -> dict[str, t.Any]:
        done = self.prune(**more)
        assert done.failed, done.result
        assert not [word for word in words if word not in done.result["msg"]], done.result["msg"]
        return done.result

    def listed(self) -> list[str]:
        return self.trial.snapshots("logs")


@pytest.fixture(name="logs")
def fixture_logs(store: Store, tmp_path: Path) -> Logs:
    return Logs(tmp_path, f"{store.remote}/prod", store)


def test_what_stays_restores_and_what_goes_is_gone(logs: Logs) -> None:
    trial, place = logs.trial, logs.place
    writer, ledger = ChainedWriter(place / "logs" / "audit.log"), place / "ledger.json"
    snapshots, records = [], []
    for kind in ("full", "increment") * 3:
        if kind == "full":
            writer.path.write_bytes(b"")  # older lines go from the disk, as rotation does it
        writer.append(3)
        records.append(writer.head)
        done = trial.run("backup", layer="logs", path=str(writer.path.parent), type=kind, archive_ledger=str(ledger))
        snapshots.append(done.succeeded()["snapshot"])
    trial.run("verify", layer="logs", level="restored", snapshot=snapshots[1]).succeeded()
    told = logs.prune(apply=False).succeeded()
    assert (told["changed"], logs.listed()) == (False, snapshots)
    assert {item["snapshot"] for item in json.loads(ledger.read_text())["archived"]} == set(snapshots)

    result = logs.prune(archive_ledger=str(ledger)).succeeded()
    assert result["changed"]
    assert sorted(result["removed"]) == snapshots[2:4], "not the newest chain, and not what was verified"
    assert result["remove"] == told["remove"]
    assert logs.listed() == [*snapshots[:2], *snapshots[4:]]
    assert not [name for name in trial.objects() if snapshots[2] in name or snapshots[3] in name]
    assert result["removed_bytes"] == result["remove_bytes"]
    assert logs.prune().succeeded()["changed"] is False

    for wanted, record in (("latest", records[5]), ("latest_verified", records[1])):
        target = place / wanted
        trial.run("restore", layer="logs", path=str(target), snapshot=wanted).succeeded()
        assert record.line in (target / "audit.log").read_bytes()

    trial.run("verify", layer="logs", level="loaded").succeeded()  # the records before it need not be anywhere

    # The records, by the count, the trace and the ledger.
    assert result["records_gone"]["count"] == 6
    assert (result["records_gone"]["since"], result["records_gone"]["until"]) > ("2026", "2026")
    for record, expected in ((records[1], True), (records[3], False)):
        traced = trial.run("audit_trace", layer=None, trace_id=record.trace_id).succeeded()
        assert (traced["found"], traced["not_searched"]) == (expected, [])
    assert {item["snapshot"] for item in json.loads(ledger.read_text())["archived"]} == {*snapshots[:2], *snapshots[4:]}


def test_check_mode_and_diff(logs: Logs) -> None:
    snapshots = logs.make_up(2)
    before = logs.trial.objects()
    arguments = logs.trial.arguments("prune", layer="logs", key=None, keep_last=1, min_age=0, apply=True)
    checked = run_module("prune", arguments, check=True, diff=True).succeeded()
    assert (checked["changed"], checked["applied"], checked["removed"]) == (True, False, [])
    assert logs.trial.objects() == before
    gone = [line for line in checked["diff"]["before"].splitlines() if line not in checked["diff"]["after"]]
    assert [line.split()[0] for line in gone] == snapshots[:2]


def test_another_host_without_the_right_to_delete(logs: Logs, seaweed: Seaweed) -> None:
    snapshots = logs.make_up(2)
    before = logs.trial.objects()
    config = seaweed.rclone_config(logs.place / "reader.conf", credentials=seaweed.reader)
    result = logs.refused("failures", rclone_config=config)
    assert any(snapshots[1] in text and "still there" in text for text in result["failures"])
    assert any("Permission denied" in text for text in result["failures"])
    assert result["removed"] == []
    assert logs.trial.objects() == before


def test_a_bucket_that_keeps_versions_is_told(seaweed: Seaweed, tmp_path: Path) -> None:
    bucket = "test-" + secrets.token_hex(6)
    seaweed.client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    store = Store(seaweed, bucket, seaweed.rclone_config(tmp_path / "rclone.conf"), f"store:{bucket}")
    logs = Logs(tmp_path, f"{store.remote}/prod", store)
    snapshots = logs.make_up(2)
    done = logs.prune().succeeded()
    assert logs.listed() == snapshots[2:]
    assert [text for text in done["not_checked"] if "older versions: the bucket keeps them" in text]
    versions = seaweed.client.list_object_versions(Bucket=bucket, Prefix=f"prod/{INSTANCE}/logs/{snapshots[0]}")
    assert len(versions["Versions"]) == 3
    for kind in ("Versions", "DeleteMarkers"):
        for item in seaweed.client.list_object_versions(Bucket=bucket).get(kind, []):
            seaweed.client.delete_object(Bucket=bucket, Key=item["Key"], VersionId=item["VersionId"])
    seaweed.client.delete_bucket(Bucket=bucket)


def test_a_store_without_classes_is_told_and_keeps_its_rules(logs: Logs, store: Store) -> None:
    logs.make_up(1)
    rule = {"ID": "others", "Filter": {"Prefix": "tmp/"}, "Status": "Enabled", "Expiration": {"Days": 7}}
    client = store.seaweed.client
    client.put_bucket_lifecycle_configuration(Bucket=store.bucket, LifecycleConfiguration={"Rules": [rule]})
    logs.refused("NotImplemented", "method copy", cold={"storage_class": "STANDARD_IA"})
    assert [item["ID"] for item in client.get_bucket_lifecycle_configuration(Bucket=store.bucket)["Rules"]] == [
        "others"
    ]
    logs.refused("storage classes", "another kind", cold={"storage_class": "STANDARD_IA", "method": "copy"})
    logs.refused("can be read at once", cold={"storage_class": "DEEP_ARCHIVE"})


def test_without_a_store_nothing_looks_like_an_empty_one(logs: Logs) -> None:
    logs.refused("a bucket or directory that exists", repository="store:no-such-bucket-" + secrets.token_hex(4))


def test_options_that_make_no_sense(logs: Logs) -> None:
    logs.refused("keep_days", keep_days=-1)
    logs.refused("orphan_age", "at least 1", orphan_age=0)
    logs.refused("for this layer", layer="model", cold={"storage_class": "STANDARD_IA"})
