# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The gateway of a new host answers while the history of the old one's logs comes back: no record is lost, and all of
them are found, backed up and verified afterwards."""

from __future__ import annotations

import json
import secrets
import threading
import typing as t
from pathlib import Path

from support.fake_upstream import FakeUpstream
from support.gateway import GatewayProcess
from support.gateway_logs import chains_of
from support.trial import Trial

ASIDE = "audit.log-restored-000002"


def audits(gateway: GatewayProcess, count: int) -> list[str]:
    """The trace_ids of so many audits that were answered."""
    answers = [gateway.audit(f"text {number}") for number in range(count)]
    assert {answer.status for answer in answers} == {200}
    return [str(answer.json["trace_id"]) for answer in answers]


def back_up(trial: Trial, gateway: GatewayProcess, kind: str) -> dict[str, t.Any]:
    result = trial.run("backup", layer="logs", path=str(gateway.logs)).succeeded()
    assert result["type"] == kind
    return result


def test_history_comes_back_while_the_gateway_writes(tmp_path: Path) -> None:
    with FakeUpstream() as upstream:
        old_host = Trial(tmp_path, tmp_path / "repository")
        with GatewayProcess(tmp_path / "old", upstream.url) as gateway:
            archived = audits(gateway, 5)
            assert gateway.get("/health").status == 200
            assert back_up(old_host, gateway, "full")["files"] == 1  # what the gateway keeps there for itself is no log
            archived += audits(gateway, 5)
            assert gateway.get("/health").status == 200
            back_up(old_host, gateway, "increment")
            lost = audits(gateway, 3)
            [old_chain] = list(chains_of(gateway.logs).values())
        anchor = old_chain[len(archived)].record  # the chain's first record is the gateway's own
        new_host = old_host.elsewhere("state-of-the-new-host")
        recover(new_host, tmp_path, upstream, archived, lost, (anchor.chain, anchor.seq, anchor.hash))


def recover(
    trial: Trial,
    place: Path,
    upstream: FakeUpstream,
    archived: list[str],
    lost: list[str],
    anchor: tuple[str, int, str],
) -> None:
    gateway = GatewayProcess(place / "new", upstream.url)
    chain, last, head = anchor
    # What playbooks/tasks/recovery/chain.yml writes.
    event = {"event": "chain", "reason": "restored or moved", "continues": {"chain": chain, "seq": last, "hash": head}}
    state = {"format": 1, "chain": secrets.token_hex(8), "seq": 0, "hash": head, "machine": "", "event": event}
    (gateway.state / "chain.json").write_text(json.dumps(state))
    new: list[str] = []
    with gateway:
        clients = threading.Thread(target=lambda: new.extend(audits(gateway, 60)))
        clients.start()
        restore = {"layer": "logs", "path": str(gateway.logs), "keep_existing": True}
        restored = trial.run("restore", **restore).succeeded()
        clients.join()
        assert restored["beside"] == [{"path": "audit.log", "restored_as": ASIDE}]
        assert len(new) == 60
        assert not trial.run("restore", **restore).succeeded()["changed"]

        # Old and new records: the gateway itself finds them, and none of those that are lost.
        for trace_id in (archived[0], archived[-1], new[0], new[-1]):
            found = gateway.get(f"/api/audit/{trace_id}")
            assert (found.status, found.json["intact"]) == (200, True)
        assert gateway.get(f"/api/audit/{lost[0]}").status == 404

        # The next backup takes the new records, and not the old ones again.
        increment = back_up(trial, gateway, "increment")
        assert increment["files"] == 2
        manifest = json.loads((trial.folder(increment["snapshot"], "logs") / "manifest.json").read_text())
        assert manifest["records"]["count"] == len(new) + 1
        assert [item["first"] for item in manifest["records"]["chains"]] == [1]

    # After a restart the chain goes on, whatever lies beside it.
    with gateway:
        new += audits(gateway, 1)
        assert gateway.stop() == 0
    chains = chains_of(gateway.logs)
    assert sorted(len(entries) for entries in chains.values()) == [len(archived) + 1, len(new) + 1]
    assert chains[state["chain"]][0].content["continues"] == event["continues"]
    assert chains[chain][-1].record.hash == head

    for trace_id, where in ((archived[-1], ASIDE), (new[5], "audit.log")):
        traced = trial.run("audit_trace", layer=None, trace_id=trace_id, logs_path=str(gateway.logs)).succeeded()
        assert traced["archived"]
        assert [record["check"]["ok"] for record in traced["records"]] == [True]
        assert str(traced["records"][0]["path"]).startswith(where.partition("-")[0])
    assert not trial.run("audit_trace", layer=None, trace_id=lost[0], logs_path=str(gateway.logs)).succeeded()["found"]
    back_up(trial, gateway, "increment")
    verified = trial.run("verify", layer="logs", level="loaded").succeeded()
    assert verified["ok"], verified
