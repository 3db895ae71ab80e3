# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Alerts when the host is in the state that they are for: full or read-only disks, and settings with a mistake."""

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest

from support.alerts import BAD, FAILURE, GOOD, Alerts
from support.disks import fill, mounted, needs_root, remount
from support.forked_modules import run_forked
from support.receivers import WECOM_KEY, Receiver, receiver
from support.trial import Trial

WORSE = {**BAD, "failures": [FAILURE, {**FAILURE, "check": "drill"}]}


@pytest.fixture
def http() -> t.Iterator[Receiver]:
    with receiver() as running:
        yield running


def not_remembered(
    alerts: Alerts, http: Receiver, place: pathlib.Path, verdict: dict[str, t.Any] | None = None
) -> str:  # fmt: skip
    """The message that is sent though ``place`` takes nothing; the module fails, and says so."""
    before = len(http.texts)
    done = alerts.run(verdict or BAD, http.wecom, heartbeat_url=f"{http.url}/beat")
    assert done.failed
    assert str(place) in done.result["msg"]
    assert "is not remembered, and is told again the next time" in done.result["msg"]
    assert http.taken[-1][0] == "/beat"
    (text,) = http.texts[before:]
    return text


@needs_root
def test_full_disk_keeps_nobody_from_being_told(tmp_path: pathlib.Path, http: Receiver) -> None:
    with mounted(tmp_path / "disk", "size=64k") as disk:
        alerts = Alerts(disk / "alerts")
        alerts.run(BAD, http.wecom).succeeded()
        fill(disk)
        for _time in range(2):  # it is better to be told twice than not at all
            text = not_remembered(alerts, http, disk, WORSE)
            assert "guard-01 drill" in text
            assert "guard-01 snapshot" not in text
        assert "guard-01 snapshot" in not_remembered(Alerts(disk / "new"), http, disk)
        (disk / "filled").unlink()
        assert alerts.run(WORSE, http.wecom).succeeded()["raised"] == 1
        assert alerts.run(WORSE, http.wecom).succeeded()["sent"] == []


@needs_root
def test_read_only_disk_keeps_nobody_from_being_told(tmp_path: pathlib.Path, http: Receiver) -> None:
    with mounted(tmp_path / "disk", "size=64k") as disk:
        alerts = Alerts(disk / "alerts")
        alerts.run(BAD, http.wecom).succeeded()
        remount(disk, "ro")
        text = not_remembered(alerts, http, disk, WORSE)
        assert "guard-01 drill" in text
        assert "guard-01 snapshot" not in text
        assert "guard-01 snapshot" in not_remembered(Alerts(disk / "new"), http, disk)


def test_memory_that_cannot_be_had_keeps_nobody_from_being_told(tmp_path: pathlib.Path, http: Receiver) -> None:
    (tmp_path / "file").touch()
    assert "guard-01 snapshot" in not_remembered(Alerts(tmp_path / "file"), http, tmp_path / "file")
    (tmp_path / "state" / "guard-01.json").mkdir(parents=True)
    assert "guard-01 snapshot" in not_remembered(Alerts(tmp_path / "state"), http, tmp_path / "state")
    # But a message that only tries the way is not sent again and again.
    assert Alerts(tmp_path / "file").run(GOOD, http.wecom).failed
    assert len(http.texts) == 2


@pytest.mark.parametrize("bad", ["s3cret", "wecombot://?endpoint=http://s3cret", "wecombot://[s3cret", "dingtalk://",
                                 "wecombot://key?endpoint=http://[s3cret", "nosuchservice://s3cret"])  # fmt: skip
def test_url_that_is_none_keeps_the_others_from_nothing(tmp_path: pathlib.Path, http: Receiver, bad: str) -> None:
    alerts = Alerts(tmp_path / "state")
    alerts.secrets = ["s3cret", WECOM_KEY]
    done = alerts.run(BAD, bad, http.wecom, bad)
    assert done.failed
    assert done.result["thing"].startswith("URL 1")
    assert "Nor was reached: URL 3" in done.result["msg"]
    assert len(http.texts) == 1
    done = alerts.run(BAD, bad, http.wecom, check=True)
    assert done.failed
    assert done.result["thing"].startswith("URL 1")
    assert len(http.texts) == 1


# -- the verdict that they tell


def patrol(trial: Trial, **more: t.Any) -> dict[str, t.Any]:
    options = {name: value for name, value in trial.options.items() if name != "key" and value is not None}
    return run_forked("patrol", {**options, **more}, trial.environment()).result


def unwritten(verdict: dict[str, t.Any]) -> set[str]:
    return {item["thing"] for item in verdict["failures"] if item["check"] == "files"}


def test_files_that_cannot_be_written_are_findings(tmp_path: pathlib.Path) -> None:
    trial = Trial(tmp_path / "trial", tmp_path / "repository")
    (tmp_path / "file").touch()
    metrics, told = tmp_path / "file" / "metrics.prom", tmp_path / "verdict.json"
    trial.options["state_dir"] = str(tmp_path / "file")
    host = {"data_root": str(tmp_path), "places": []}
    verdict = patrol(trial, host=host, metrics_file=str(metrics), verdict_file=str(told))["verdict"]
    assert unwritten(verdict) == {str(tmp_path / "file" / "guard-01" / "patrol.json"), str(metrics)}
    assert not verdict["ok"]
    assert ("snapshot", "logs") in {(item["check"], item["thing"]) for item in verdict["failures"]}
    assert json.loads(told.read_text()) == verdict
    # The host's own sign of life tells the fleet.
    beat = json.loads((tmp_path / "repository" / "guard-01" / "patrol.json").read_text())
    assert beat["failures"]["files"] == 1
    verdict = patrol(trial, verdict_file=str(tmp_path / "file" / "verdict.json"))["verdict"]
    assert unwritten(verdict) == {str(tmp_path / "file" / "verdict.json")}


@needs_root
def test_read_only_state_is_a_finding(tmp_path: pathlib.Path) -> None:
    trial = Trial(tmp_path / "trial", tmp_path / "repository")
    with mounted(tmp_path / "state", "size=64k") as disk:
        trial.options["state_dir"] = str(disk)
        host = {"data_root": str(tmp_path), "places": []}
        (disk / "guard-01").mkdir()
        remount(disk, "ro")
        assert unwritten(patrol(trial, host=host)["verdict"]) == {str(disk / "guard-01" / "patrol.json")}
        remount(disk, "rw")
        assert unwritten(patrol(trial, host=host)["verdict"]) == set()
        fill(disk)
        assert unwritten(patrol(trial, host=host)["verdict"]) == {str(disk / "guard-01" / "patrol.json")}


def test_fleet_whose_memory_cannot_be_read_is_looked_at(tmp_path: pathlib.Path) -> None:
    trial = Trial(tmp_path / "trial", tmp_path / "repository")
    trial.make_model()
    trial.run("backup").succeeded()
    (tmp_path / "file").touch()
    trial.options.update(state_dir=str(tmp_path / "file"), instance=None)
    result = patrol(trial, instances=["all"], layers=["model"])
    assert result["verdict"]["instances"] == ["guard-01"]
    (path,) = unwritten(result["verdict"])
    assert path.startswith(f"{tmp_path / 'file'}/fleet-")
