# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""After the recovery: every acknowledged record that a backup had is there, and the service goes on by itself."""

from __future__ import annotations

import json
import os
import pathlib

import pytest

LOGS = "/data/qwen3guard-gen-web/logs"
LISTS = pathlib.Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])


def acknowledged(name):
    """The trace_ids that the first host's gateway answered."""
    return (LISTS / name).read_text().split()


@pytest.fixture(scope="module")
def lines(host):
    """All records in the logs, by their trace_ids."""
    text = host.check_output(f"cd {LOGS} && cat audit.log*")
    records = [json.loads(line) for line in text.splitlines()]
    return {record["trace_id"]: record for record in records}


def test_every_record_that_a_backup_had_is_there(lines):
    archived = acknowledged("archived")
    assert len(archived) == 30
    assert set(archived) <= set(lines)
    assert not set(acknowledged("lost")) & set(lines)


def test_the_new_chain_names_the_end_of_the_old_one(lines):
    chains = [record for record in lines.values() if record["event"] == "chain" and "continues" in record]
    (begins,) = [record for record in chains if record["reason"] == "restored or moved"]
    last = lines[acknowledged("archived")[-1]]
    assert begins["continues"] == {name: last[name] for name in ("chain", "seq", "hash")}
    assert begins["prev"] == last["hash"]


def test_the_host_itself_finds_an_old_record(host):
    """By its own command, with what the role backup wrote."""
    trace_id = acknowledged("archived")[0]
    done = host.run(f"qwen3guard trace -e guardops_trace_id={trace_id}")
    assert done.rc == 0, done.stdout
    assert "nothing wrong" in done.stdout


def test_the_record_of_the_recovery_is_in_the_repository(host):
    done = host.run("qwen3guard info")
    assert done.rc == 0, done.stdout
    assert "recovery of " in done.stdout


@pytest.mark.parametrize(
    "unit",
    [
        "qwen3guard.service",
        "qwen3guard-gateway.service",
        "qwen3guard-backup@logs.timer",
        "qwen3guard-patrol.timer",
    ],
)
def test_it_goes_on(host, unit):
    assert host.service(unit).is_running


def test_it_answers_as_the_first_host_did(host):
    """The port that only the first host's inventory names, the key that came back with the configuration."""
    config = json.loads(host.file("/data/qwen3guard-gen-web/config/gateway/config.json").content_string)
    assert config["listen"]["port"] == 8081
    assert host.check_output("curl --silent --output /dev/null --write-out %{http_code} 127.0.0.1:8081/health") == "200"
    without_key = "curl --silent --output /dev/null --write-out %{http_code} 127.0.0.1:8081/api/audit/x"
    assert host.check_output(without_key) == "401"


def test_a_patrol_finds_it_well(host):
    """At the new host, with what the old one left in the repository."""
    done = host.run("systemctl start qwen3guard-patrol.service")
    assert done.rc == 0, host.check_output("journalctl --no-pager --lines=40 --unit=qwen3guard-patrol.service")
    verdict = json.loads(host.file("/var/lib/guardops-qwen3guard/verdict.json").content_string)
    assert verdict["ok"], verdict["failures"]


def test_the_next_backup_goes_on_with_the_old_ones(host):
    done = host.run("systemctl start qwen3guard-backup@logs.service")
    assert done.rc == 0, host.check_output("journalctl --no-pager --lines=40 --unit=qwen3guard-backup@logs.service")
