# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbook info: what it tells of each snapshot."""

from __future__ import annotations

from pathlib import Path

from support.made_up import MadeUp
from support.playbooks import Playbooks


def test_tells_what_a_verdict_is_worth(tmp_path: Path) -> None:
    made = MadeUp(tmp_path / "repository", "model")
    proven, sampled, failed, never = (made.add(days) for days in (4, 3, 2, 1))
    made.verdict(proven, stored=True, loaded=True)
    made.verdict(sampled, sample=1000, restored=True)
    made.verdict(failed, restored=False, stored=True)
    variables = {"guardops_instance": "guard-01", "guardops_repository": str(tmp_path / "repository")}
    run = Playbooks(tmp_path / "run", variables).run("info")
    assert run.rc == 0, run.output
    lines = {
        name: line for line in run.output.splitlines() for name in (proven, sampled, failed, never) if name in line
    }
    told = {name: line.rstrip('",').rpartition(" Bytes, ")[2] for name, line in lines.items()}
    assert told == {
        proven: "verified: stored, loaded", sampled: "verified: restored (a sample)",
        failed: "verified: restored FAILED, stored", never: "not verified",
    }  # fmt: skip
