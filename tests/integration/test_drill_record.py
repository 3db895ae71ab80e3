# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module drill_record: a record in an object store, which snapshot_info shows; nothing in check mode."""

from __future__ import annotations

import typing as t
from pathlib import Path

from conftest import Store

from support.checkout import find_tool
from support.modules import run_module


def test_a_record_is_kept_and_shown(store: Store, tmp_path: Path) -> None:
    place = {
        "instance": "guard-01", "repository": store.remote, "rclone_config": store.config,
        "rclone_path": find_tool("rclone"), "state_dir": str(tmp_path / "state"),
    }  # fmt: skip
    told: dict[str, t.Any] = {
        **place, "kind": "drill", "started": "2026-11-23T09:00:00Z", "host": "spare-01",
        "phases": [{"name": "weights", "seconds": 250.5, "ok": True, "detail": "16 GB"}],
        "recovery_time_seconds": 310, "warnings_found": ["look at this"],
    }  # fmt: skip

    def shown() -> list[dict[str, t.Any]]:
        drills: list[dict[str, t.Any]] = run_module("snapshot_info", place).succeeded()["drills"]
        return drills

    predicted = run_module("drill_record", told, check=True).succeeded()
    assert shown() == []
    kept = run_module("drill_record", told).succeeded()
    assert (predicted["record"], predicted["object"]) == (kept["record"], "")
    assert (kept["ok"], kept["object"]) == (False, f"{store.remote}/guard-01/drills/20261123T090000Z.json")
    assert "weights took 250.5 s of it" in kept["failures"][0]
    (record,) = shown()
    assert record == {"name": kept["object"], "damaged": "", **kept["record"]}
    assert (record["host"], record["warnings"], record["recovery_point"]) == ("spare-01", ["look at this"], None)


def test_what_it_refuses(tmp_path: Path) -> None:
    (tmp_path / "repository").mkdir()
    told = {
        "instance": "guard-01", "repository": str(tmp_path / "repository"), "state_dir": str(tmp_path / "state"),
        "kind": "drill", "started": "yesterday", "phases": [],
    }  # fmt: skip
    assert "option started: expected a time such as" in run_module("drill_record", told).result["msg"]
    told.update(started="2026-11-23T09:00:00Z", phases=[{"name": "x", "seconds": -1, "ok": True}])
    assert "option phases: expected seconds, from 0 on" in run_module("drill_record", told).result["msg"]
    assert not list((tmp_path / "repository").iterdir())
