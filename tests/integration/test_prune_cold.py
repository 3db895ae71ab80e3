# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Old logs in a cold storage class, with a store that has classes and lifecycle rules: moto's S3."""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import typing as t
from pathlib import Path

import boto3
import pytest

from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import GuardError, StoreError
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.repository import Repository
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import prune, verify
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.overview import overview
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.prune_plan import Cold, Policy
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.session import Session
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.rclone import Options as RcloneOptions
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.s3 import Lifecycle
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.store import RcloneStore
from support.checkout import find_tool
from support.engine import INSTANCE, Engine
from support.kms import Kms
from support.made_up import DAY, NOW, MadeUp

OTHERS = [
    {"ID": "theirs", "Filter": {"Prefix": "tmp/"}, "Status": "Enabled", "Expiration": {"Days": 7}},
    {"ID": "a neighbour", "Filter": {"Prefix": "prod/guard-02/logs/"}, "Status": "Disabled",
     "Transitions": [{"Days": 9, "StorageClass": "GLACIER"}]},
]  # fmt: skip


class Bucket:
    """A bucket that has storage classes, with made-up snapshots in it."""

    def __init__(self, place: Path, server: Kms):
        self.engine = Engine(place, "logs")
        self.made = MadeUp(place / "made-up")
        self.client = boto3.client(
            "s3", endpoint_url=server.endpoint_url, region_name=server.region,
            aws_access_key_id=server.access_key, aws_secret_access_key=server.secret_key,
        )  # fmt: skip
        self.name = "test-" + secrets.token_hex(6)
        self.client.create_bucket(Bucket=self.name)
        config = place / "rclone.conf"
        config.write_text(
            "[cold]\ntype = s3\nprovider = Alibaba\nenv_auth = false\nforce_path_style = true\n"
            f"region = {server.region}\nendpoint = {server.endpoint_url}\n"
            f"access_key_id = {server.access_key}\nsecret_access_key = {server.secret_key}\n"
        )
        self.store = RcloneStore(
            f"cold:{self.name}/prod", RcloneOptions(find_tool("rclone"), str(config), retries=1, idle_timeout=10)
        )

    def fill(self) -> None:
        for name in self.made.objects():
            body = (self.made.place / name).read_bytes()
            self.client.put_object(Bucket=self.name, Key=f"prod/{INSTANCE}/{name}", Body=body)

    @contextlib.contextmanager
    def session(self, dry: bool = False) -> t.Iterator[Session]:
        with self.engine.session(dry=dry) as session:
            yield dataclasses.replace(session, repository=Repository(self.store, INSTANCE))

    def run(self, cold: Cold, *, apply: bool = True, dry: bool = False) -> prune.Outcome:
        """A hundred days from now: what was stored just now is old, and kept for ever."""
        with self.session(dry) as session:
            options = prune.Options(Policy(), apply=apply, cold=cold, now=NOW + 100 * DAY)
            return prune.prune(session, options)

    def classes(self) -> dict[str, str]:
        """Storage classes that are not the usual one, by name below the layer."""
        found = self.client.list_objects_v2(Bucket=self.name).get("Contents", [])
        start = len(f"prod/{INSTANCE}/logs/")
        return {item["Key"][start:]: item["StorageClass"] for item in found if item["StorageClass"] != "STANDARD"}

    def rules(self) -> list[dict[str, t.Any]]:
        rules: list[dict[str, t.Any]] = self.client.get_bucket_lifecycle_configuration(Bucket=self.name)["Rules"]
        return rules


@pytest.fixture(name="bucket")
def fixture_bucket(tmp_path: Path, kms: Kms) -> t.Iterator[Bucket]:
    bucket = Bucket(tmp_path, kms)
    yield bucket
    for item in bucket.client.list_objects_v2(Bucket=bucket.name).get("Contents", []):
        bucket.client.delete_object(Bucket=bucket.name, Key=item["Key"])
    bucket.client.delete_bucket(Bucket=bucket.name)


def test_parts_of_whole_old_chains_go_cold(bucket: Bucket) -> None:
    made = bucket.made
    old = made.chain(60, 2, size=200)
    verified = made.chain(50, 1, size=200)
    mixed = [made.add(40, size=200)]
    mixed.append(made.add(-95, mixed[0], size=200))  # of five days ago, as seen in a hundred days
    made.chain(-98, 1, size=200)
    made.verdict(verified[0], restored=True)
    made.add(-60, size=20)
    made.add(-99)
    bucket.fill()
    cold = Cold("GLACIER", after_days=30, method="copy", min_size=100)
    told = bucket.run(cold, apply=False)
    assert told.cold == bucket.run(cold, dry=True).cold
    assert bucket.classes() == {}
    done = bucket.run(cold)
    assert (done.changed, done.failures) == (True, [])
    assert bucket.classes() == {f"{name}/part-00000.gpg": "GLACIER" for name in old}
    assert done.cold["snapshots"] == old
    assert done.cold["bytes"] == 600
    assert [item for item in done.left_out if "1 parts of less than 100 bytes" in item["reason"]]
    assert "in GLACIER: 3 parts, 600 bytes" in done.after
    assert bucket.run(cold).changed is False

    # All that tells of them is still at hand; the parts are not, and that is said so that one can act.
    with bucket.session() as session:
        assert [item["damaged"] for item in overview(session.repository, "logs")["snapshots"]["logs"]].count("") == 11
        assert verify.verify(session, verify.Options("listed", old[2])).ok
        with pytest.raises(StoreError, match=r"archive class.*bring it back"):
            verify.verify(session, verify.Options("stored", old[2]))
    other = bucket.run(dataclasses.replace(cold, storage_class="DEEP_ARCHIVE"))
    assert not other.changed
    assert [item for item in other.left_out if "3 parts in another archive class" in item["reason"]]


def test_what_does_not_move_is_a_failure(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    old = bucket.made.chain(60, 1, size=200)
    bucket.made.add(-99)
    bucket.fill()
    monkeypatch.setattr(RcloneStore, "set_tier", lambda self, names, tier: None)
    done = bucket.run(Cold("GLACIER", method="copy", min_size=0))
    where = f"cold:{bucket.name}/prod/{INSTANCE}/logs"
    told = "it was moved to GLACIER, and is in STANDARD"
    assert sorted(done.failures) == [f"{where}/{name}/part-00000.gpg: {told}" for name in old]


def test_a_rule_beside_the_rules_of_others(bucket: Bucket) -> None:
    bucket.made.add(60)
    bucket.fill()
    bucket.client.put_bucket_lifecycle_configuration(Bucket=bucket.name, LifecycleConfiguration={"Rules": OTHERS})
    cold = Cold("STANDARD_IA", after_days=30)
    told = bucket.run(cold, apply=False)
    assert "STANDARD_IA after 30 days" in told.after
    assert told.changed is False
    assert len(bucket.rules()) == 2
    done = bucket.run(cold)
    assert done.changed
    rules = {rule.pop("ID"): rule for rule in bucket.rules()}
    ours = rules.pop(f"guardops-prod-{INSTANCE}-logs-cold")
    assert ours == {
        "Filter": {"Prefix": f"prod/{INSTANCE}/logs/"}, "Status": "Enabled",
        "Transitions": [{"Days": 30, "StorageClass": "STANDARD_IA"}],
    }  # fmt: skip
    assert rules == {rule["ID"]: {k: v for k, v in rule.items() if k != "ID"} for rule in OTHERS}
    assert bucket.run(cold).changed is False
    assert bucket.run(dataclasses.replace(cold, after_days=60)).changed is True
    assert len(bucket.rules()) == 3
    assert bucket.run(dataclasses.replace(cold, present=False)).changed is True
    assert sorted(rule["ID"] for rule in bucket.rules()) == ["a neighbour", "theirs"]
    assert bucket.run(dataclasses.replace(cold, present=False)).changed is False


def test_the_last_rule_goes_too(bucket: Bucket) -> None:
    bucket.made.add(60)
    bucket.fill()
    cold = Cold("STANDARD_IA")
    assert bucket.run(cold).changed
    assert bucket.run(dataclasses.replace(cold, present=False)).changed
    with pytest.raises(bucket.client.exceptions.ClientError, match="NoSuchLifecycleConfiguration"):
        bucket.rules()


def test_a_rule_that_is_not_kept_is_an_error(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.made.add(60)
    bucket.fill()
    real = Lifecycle.rules
    monkeypatch.setattr(Lifecycle, "rules", lambda self: [{**rule, "Transitions": []} for rule in real(self)])
    with pytest.raises(StoreError, match="does not keep such rules"):
        bucket.run(Cold("STANDARD_IA"))


def test_a_rule_must_not_take_manifests_out_of_reach(bucket: Bucket) -> None:
    bucket.made.add(60)
    bucket.fill()
    with pytest.raises(GuardError, match="nobody could list the snapshots"):
        bucket.run(Cold("DEEP_ARCHIVE"))


def test_secrets_stay_where_they_are(bucket: Bucket, kms: Kms) -> None:
    bucket.made.add(60)
    bucket.fill()
    bucket.store.location = f"cold:{bucket.name}x/prod"
    with pytest.raises(GuardError) as caught:
        Lifecycle(bucket.store).rules()
    assert kms.secret_key not in str(caught.value)
    assert "NoSuchBucket" in str(caught.value)


def test_a_directory_has_no_classes(tmp_path: Path) -> None:
    engine = Engine(tmp_path, "logs")
    MadeUp(engine.store_path).add(60)
    for method in ("copy", "lifecycle"):
        with engine.session() as session, pytest.raises(GuardError, match=r"a store that rclone can|an S3, which"):
            prune.prune(session, prune.Options(cold=Cold("STANDARD_IA", method=method), now=NOW))
