# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module patrol on real repositories: what backup and verify made, and a fleet in a real S3."""

from __future__ import annotations

import datetime
import json
import pathlib
import subprocess
import typing as t

import pytest
from sample_instance.chained import ChainedWriter

from support.checkout import find_tool
from support.fleet import make_instance
from support.forked_modules import run_forked
from support.modules import ModuleRun
from support.trial import INSTANCE, Trial


def patrol(trial: Trial, *, check: bool = False, **more: t.Any) -> ModuleRun:
    """A patrol of the trial's instance, or of what is asked for."""
    arguments = {name: value for name, value in trial.options.items() if name != "key"}
    arguments.update(more)
    given = {name: value for name, value in arguments.items() if value is not None}
    return run_forked("patrol", given, trial.environment(), check=check)


def failed(done: ModuleRun) -> set[tuple[str, str]]:
    return {(item["check"], item["thing"]) for item in done.result["verdict"]["failures"]}


class Guard:
    """A trial with all three layers backed up and verified, and records that are minutes old."""

    def __init__(self, trial: Trial):
        self.trial = trial
        self.root = trial.place / "data"
        (self.root / "config").mkdir(parents=True)
        (self.root / "config" / "web.json").write_text("{}\n")
        (self.root / "models").mkdir()
        (self.root / "models" / "config.json").write_text('{"model_type": "qwen3"}\n')
        start = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(minutes=50)
        self.writer = ChainedWriter(self.root / "logs" / "audit.log", start=start)
        self.writer.append(100, step=6)
        for layer, name in (("model", "models"), ("config", "config"), ("logs", "logs")):
            trial.run("backup", layer=layer, path=str(self.root / name)).succeeded()
            trial.run("verify", layer=layer, level="restored").succeeded()

    @property
    def host(self) -> dict[str, t.Any]:
        return {"data_root": str(self.root), "places": [], "cdi_directories": []}


@pytest.mark.parametrize("kind", ["directory", "s3"])
def test_patrol_of_a_guard_that_is_well(tmp_path: pathlib.Path, request: pytest.FixtureRequest, kind: str) -> None:
    store = request.getfixturevalue("store") if kind == "s3" else None
    trial = Trial(tmp_path, f"{store.remote}/prod" if store else tmp_path / "repository", store)
    guard = Guard(trial)
    before = set(trial.objects())
    metrics = trial.place / "metrics.prom"
    guard.writer.append(30, step=6)  # written since the backup
    done = patrol(trial, host=guard.host, metrics_file=str(metrics), verdict_file=str(trial.place / "verdict.json"))
    verdict = done.succeeded()["verdict"]
    assert verdict["ok"]
    assert verdict["facts"][INSTANCE]["not_archived"] == 30
    assert set(verdict["facts"][INSTANCE]["layers"]) == {"model", "config", "logs"}
    # The canary is gone again, and the sign of life is there.
    assert set(trial.objects()) - before == {f"{INSTANCE}/patrol.json"}
    assert metrics.stat().st_mode & 0o777 == 0o644
    assert f'guardops_qwen3guard_records_not_archived{{guard="{INSTANCE}"}} 30\n' in metrics.read_text()
    assert json.loads((trial.place / "verdict.json").read_text()) == verdict
    # What patrols leave is in nobody's way.
    trial.run("snapshot_info").succeeded()
    trial.run("backup", layer="logs", path=str(guard.root / "logs")).succeeded()
    assert patrol(trial).succeeded()["verdict"]["facts"][INSTANCE]["layers"]["logs"]["increments"] == 1


def test_check_mode_leaves_nothing(tmp_path: pathlib.Path) -> None:
    guard = Guard(Trial(tmp_path, tmp_path / "repository"))
    trial = guard.trial
    before, files = trial.objects(), sorted(trial.place.rglob("*"))
    done = patrol(trial, check=True, host=guard.host, metrics_file=str(trial.place / "metrics.prom"))
    assert done.succeeded()["verdict"]["ok"]
    assert "canary" in {item["check"] for item in done.result["verdict"]["not_checked"]}
    assert trial.objects() == before
    assert sorted(trial.place.rglob("*")) == files


def test_missing_part_of_the_newest_snapshot_is_found(tmp_path: pathlib.Path) -> None:
    trial = Trial(tmp_path, tmp_path / "repository")
    trial.make_model()
    trial.run("backup").succeeded()
    assert not failed(patrol(trial, layers=["model"]))
    next(trial.folder(trial.snapshots()[0]).glob("part-*")).unlink()
    assert failed(patrol(trial, layers=["model"])) == {("stored", "model")}


def test_repository_that_is_gone_clears_nothing(tmp_path: pathlib.Path) -> None:
    trial = Trial(tmp_path, tmp_path / "repository")
    (tmp_path / "repository").rmdir()
    done = patrol(trial)
    assert failed(done) == {("repository", "store")}
    assert "everything" in {item["check"] for item in done.result["verdict"]["not_checked"]}


def test_store_that_takes_nothing_is_found_by_the_canary(tmp_path: pathlib.Path, store: t.Any) -> None:
    trial = Trial(tmp_path, f"{store.remote}/prod", store)
    store.seaweed.client.put_object(Bucket=store.bucket, Key=f"prod/{INSTANCE}/RECOVERY.md", Body=b"x")
    assert ("canary", "store") not in failed(patrol(trial, canary=True))
    reader = store.seaweed.rclone_config(tmp_path / "reader.conf", credentials=store.seaweed.reader)
    assert ("canary", "store") in failed(patrol(trial, canary=True, rclone_config=reader))


def test_fleet_in_an_s3(tmp_path: pathlib.Path, store: t.Any) -> None:
    now = datetime.datetime.now(datetime.timezone.utc)
    for name, fault in (("guard-01", ""), ("guard-02", "old logs"), ("guard-03", "")):
        make_instance(tmp_path / "fleet", name, now, days=2, fault=fault)
    copy = [find_tool("rclone"), "--config", store.config, "copy", "--transfers", "8"]
    subprocess.run([*copy, str(tmp_path / "fleet"), f"{store.remote}/prod"], check=True)
    trial = Trial(tmp_path, f"{store.remote}/prod", store)
    done = patrol(trial, instance=None, instances=["all"], metrics_file=str(tmp_path / "fleet.prom"))
    assert done.failed
    assert done.result["verdict"]["instances"] == ["guard-01", "guard-02", "guard-03"]
    assert {(item["instance"], item["check"]) for item in done.result["verdict"]["failures"]} == {
        ("guard-02", "snapshot")
    }
    assert done.result["msg"].startswith("1 to mend, first of all guard-02 snapshot logs, age: expected one younger")
    assert (tmp_path / "fleet.prom").read_text().count("snapshot_timestamp_seconds{") == 9
    same = patrol(Trial(tmp_path, tmp_path / "fleet", state="other"), instance=None, instances=["all"])
    for name in ("failures", "warnings"):
        assert same.result["verdict"][name] == done.result["verdict"][name]


@pytest.mark.parametrize(("more", "words"), [
    ({"instances": ["all"]}, "mutually exclusive"),
    ({"instance": None}, "one of the following is required"),
    ({"host": {"timers": {"a.timer": "soon"}}}, "option host.timers: expected hours for each timer"),
    ({"instance": "../etc"}, "instance '../etc'"),
])  # fmt: skip
def test_options_that_make_no_sense(tmp_path: pathlib.Path, more: dict[str, t.Any], words: str) -> None:
    done = patrol(Trial(tmp_path, tmp_path / "repository"), **more)
    assert done.failed
    assert words in done.result["msg"]
