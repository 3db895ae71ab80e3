# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbook prune: it tells, and removes only when it is asked to."""

from __future__ import annotations

import time
from pathlib import Path

from support.made_up import DAY, NOW, MadeUp
from support.playbooks import Playbooks

RETENTION = {"logs": {"keep_days": 30}, "model": {"keep_last": 1}}


def test_tells_and_then_removes(tmp_path: Path) -> None:
    ago = (time.time() - NOW) / DAY  # the playbook goes by the real clock
    logs, model, config = (MadeUp(tmp_path / "repository", layer) for layer in ("logs", "model", "config"))
    old = logs.chain(60 - ago, 1, records=4)
    kept = logs.add(3 - ago)
    models = [model.add(days - ago) for days in (90, 60)]
    configs = [config.add(days - ago) for days in (90, 60)]
    variables = {
        "guardops_instance": "guard-01", "guardops_repository": str(tmp_path / "repository"),
        "guardops_state_dir": str(tmp_path / "state"), "guardops_retention": RETENTION,
    }  # fmt: skip
    playbooks = Playbooks(tmp_path / "run", variables)
    told = playbooks.run("prune")
    assert told.succeeded()["logs"]["changed"] is False
    assert logs.listed() == [*old, kept]
    for name in (*old, models[0]):
        assert f"{name} goes" in told.output
    assert "the last copies of 8 records go" in told.output
    assert "config: 2 snapshots stay" in told.output
    checked = playbooks.run("prune", "--check", "--diff", guardops_prune_apply=True)
    assert checked.changed() == {"model": True, "config": False, "logs": True}
    assert f"-{old[0]} full of" in checked.output
    assert logs.listed() == [*old, kept]
    done = playbooks.run("prune", guardops_prune_apply=True)
    assert done.changed() == {"model": True, "config": False, "logs": True}
    assert (logs.listed(), model.listed(), config.listed()) == ([kept], models[1:], configs)
    assert playbooks.run("prune", guardops_prune_apply=True).changed() == dict.fromkeys(
        ("model", "config", "logs"), False
    )
