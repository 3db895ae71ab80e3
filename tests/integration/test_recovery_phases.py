# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A recovery that does not go as planned: what was there is never replaced unasked, and another run comes to the end.

Repository, restores and checks are real. The roles are stand-ins, since they take a host: the Molecule scenario
`recovery` has them. A stand-in fails when a file of its name lies in the directory `fail`.
"""

from __future__ import annotations

import fcntl
import json
import os
import pathlib
import sys
import typing as t

import pytest
from sample_instance.chained import ChainedWriter

from support.checkout import ROOT
from support.modules import run_module
from support.playbooks import PlaybookRun, Playbooks
from support.trial import INSTANCE, Trial

ANSWER = {"status": 200, "json": {"verdict": "Safe", "trace_id": "qwg-20261128-8b-0123456789abcdef"}}
# role -> files of tasks -> what they do besides nothing
STAND_INS: dict[str, dict[str, list[dict[str, t.Any]]]] = {
    "gpu_host": {
        "main": [
            {"ansible.builtin.setup": {"gather_subset": ["min"]}},
        ]
    },
    "storage": {
        "main": [
            {"ansible.builtin.file": {"path": "{{ guardops_data_root }}", "state": "directory"}},
            # As a disk that is mounted only now.
            {
                "ansible.builtin.command": {"cmd": "cp -rT {{ disk }} {{ guardops_data_root }}"},
                "when": "disk is exists",
            },
        ],
        "verify": [],
    },
    "runtime": {"main": []},
    "guard": {"main": [], "preflight": [], "install": [], "image": []},
    "gateway": {
        "main": [],
        "preflight": [],
        "install": [],
        "verify": [
            {"ansible.builtin.debug": {"msg": "asked with {{ gateway_verify_key | default('', true) }}."}},
            {"ansible.builtin.set_fact": {"gateway_answer": ANSWER}},
        ],
    },
    "log_rotation": {"main": []},
    "backup": {"main": []},
    "patrol": {"main": []},
}


class Bed:
    """An instance in a repository, and a host that is to become it."""

    def __init__(self, place: pathlib.Path, **settings: t.Any):
        self.place = place
        self.data = place / "data"
        self.trial = Trial(place / "trial", place / "repository")
        self.gateway = {"listen": {"host": "127.0.0.1", "port": 8081}, **settings}
        self._make_instance()
        (place / "fail").mkdir()
        self.playbooks = Playbooks(place / "run", self._variables())
        self._stand_in(next((place / "run").glob("collections/ansible_collections/*/*")))

    def _make_instance(self) -> None:
        source = self.place / "source"
        self.trial.make_model()
        (source / "config" / "gateway").mkdir(parents=True)
        (source / "config" / "gateway" / "config.json").write_text(json.dumps(self.gateway))
        self.log = ChainedWriter(source / "logs" / "audit.log-2026112309")
        self.log.append(3)
        self.source = source
        self.back_up("model", "config", "logs")

    def back_up(self, *layers: str) -> None:
        paths = {"model": self.trial.model, "config": self.source / "config", "logs": self.source / "logs"}
        for layer in layers:
            self.trial.run("backup", layer=layer, path=str(paths[layer])).succeeded()

    def _variables(self) -> dict[str, t.Any]:
        return {
            "guardops_instance": INSTANCE,
            "guardops_data_root": str(self.data),
            "guardops_repository": self.trial.repository,
            "guardops_state_dir": str(self.place / "state"),
            "guardops_key": self.trial.options["key"],
            "guardops_gpg_path": self.gpg(),
            "guardops_python": sys.executable,
            "guardops_system_python": sys.executable,
            "disk": str(self.place / "disk"),
        }

    def gpg(self) -> str:
        """gpg, which while there is a file `hang` never ends with large messages: weights that take their time."""
        path = self.place / "slow-gpg"
        path.write_text(f"""#!/bin/sh
case "$*" in *--decrypt*)
    if test -e {self.place}/hang; then
        message=$(mktemp {self.place}/message.XXXXXX)
        cat >"$message"
        test "$(stat -c %s "$message")" -lt 500000 || exec sleep 600
        exec gpg "$@" <"$message"
    fi ;;
esac
exec gpg "$@"
""")
        path.chmod(0o700)
        return str(path)

    def _stand_in(self, collection: pathlib.Path) -> None:
        collection.unlink()
        collection.mkdir()
        for path in ROOT.iterdir():
            if path.name != "roles" and not path.name.startswith("."):
                (collection / path.name).symlink_to(path)
        for role, files in STAND_INS.items():
            (collection / "roles" / role / "tasks").mkdir(parents=True)
            for name, tasks in files.items():
                mark = str(self.place / "fail" / f"{role}-{name}")
                fail = {"ansible.builtin.fail": {"msg": f"{role} {name} fails"}, "when": f"'{mark}' is exists"}
                text = json.dumps([fail, *tasks])
                (collection / "roles" / role / "tasks" / f"{name}.yml").write_text(text)

    def recover(self, **extra: t.Any) -> PlaybookRun:
        mine = {"_guardops_gateway_state": str(self.place / "gateway-state"), "storage_user": "root"}
        return self.playbooks.run("recover", **{**mine, **extra})

    def failing(self, what: str) -> pathlib.Path:
        path = self.place / "fail" / what
        path.touch()
        return path

    @property
    def mark(self) -> pathlib.Path:
        return self.data / ".guardops-recovery"

    def record(self) -> dict[str, t.Any]:
        """The newest record in the repository."""
        options = {name: self.trial.options[name] for name in ("instance", "repository", "state_dir")}
        record: dict[str, t.Any] = run_module("snapshot_info", options).succeeded()["drills"][0]
        return record


@pytest.fixture(autouse=True)
def systemctl(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Stands in for systemd's program: it writes down what it was asked for, and this machine's units stay."""
    told = tmp_path / "systemctl.log"
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "systemctl").write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >> {told}\n')
    (programs / "systemctl").chmod(0o700)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return told


@pytest.fixture
def bed(tmp_path: pathlib.Path) -> Bed:
    return Bed(tmp_path)


def told(run: PlaybookRun) -> str:
    return " ".join(run.output.split())


def test_late_is_no_failure_of_a_recovery_and_what_came_back_is_safe(bed: Bed, systemctl: pathlib.Path) -> None:
    """The budget is a drill's. A mark that stayed would let a later run replace what lives."""
    run = bed.recover(guardops_budget_seconds=0.001)
    run.succeeded()
    record = bed.record()
    assert (record["ok"], record["failures"]) == (True, [])
    assert "0 s were allowed" in record["warnings"][0]
    assert not bed.mark.exists()
    assert [phase["name"] for phase in record["phases"]][-1] == "rotation and backups"
    stopped = next(line for line in systemctl.read_text().splitlines() if line.startswith("stop"))
    assert {"qwen3guard-backup*", "qwen3guard-gateway*", "qwen3guard.serv*"} <= set(stopped.split())

    # The host that was lost comes back with its timers, and does no harm.
    bed.trial.refused("backup", "took it over", layer="logs", path=str(bed.source / "logs"))

    (bed.data / "config" / "gateway" / "config.json").write_text("mine")
    again = bed.recover()
    assert again.rc != 0
    assert "expected no data, found" in told(again)
    assert (bed.data / "config" / "gateway" / "config.json").read_text() == "mine"


def test_data_on_a_disk_that_is_mounted_on_the_way_are_not_replaced(bed: Bed) -> None:
    (bed.place / "disk" / "config").mkdir(parents=True)
    (bed.place / "disk" / "config" / "newer").write_text("mine")
    for _run in range(2):  # the first leaves no mark with which a second one would replace them
        run = bed.recover()
        assert run.rc != 0
        assert f"expected no data, found {bed.data}/config/newer" in told(run)
        assert not bed.mark.exists()
        assert not (bed.data / "models").exists()


def test_a_second_run_goes_on_where_the_first_failed(bed: Bed) -> None:
    broken = bed.failing("gateway-main")
    run = bed.recover()
    assert run.rc != 0
    assert "gateway main fails" in told(run)
    assert bed.mark.exists()
    assert [phase["name"] for phase in bed.record()["phases"] if not phase["ok"]] == ["service"]
    broken.unlink()
    bed.recover().succeeded()
    assert bed.record()["ok"]
    assert (bed.data / "logs" / "audit.log-2026112309").read_bytes() == bed.log.path.read_bytes()


def test_weights_on_their_way_are_not_left_behind(bed: Bed) -> None:
    """Their restore would hold the lock of the layer, and write into what the next run makes."""
    hang = bed.place / "hang"
    hang.touch()
    broken = bed.failing("guard-image")
    run = bed.recover()
    assert run.rc != 0
    ended = run.output.rpartition("End a restore of the weights that goes on")[2]
    assert ended.splitlines()[1].startswith("changed"), run.output
    with open(bed.place / "state" / INSTANCE / "model.lock", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    hang.unlink()
    broken.unlink()
    bed.recover().succeeded()
    assert (bed.data / "models" / "a.safetensors").read_bytes() == (bed.trial.model / "a.safetensors").read_bytes()


def test_without_a_way_into_the_repository_the_failure_is_told_all_the_same(bed: Bed) -> None:
    bed.failing("runtime-main")
    run = bed.recover(guardops_python=str(bed.place / "no-such-python"))
    assert run.rc != 0
    last = told(run)[told(run).index("Fail where it was not good") :]
    assert "host: runtime main fails; the record could not be kept in the repository: " in last


def test_a_gateway_that_asks_for_keys(tmp_path: pathlib.Path) -> None:
    bed = Bed(tmp_path, keys_file="keys")
    run = bed.recover()
    assert run.rc != 0
    assert "guardops_audit_key: expected one of the keys that the gateway asks for" in told(run)
    assert [phase["name"] for phase in bed.record()["phases"] if not phase["ok"]] == ["configuration"]
    run = bed.recover(gateway_keys={"app": "one of the inventory"})
    run.succeeded()
    assert "asked with one of the inventory." in run.output


def test_files_that_no_layer_holds_are_asked_for_before_anything_runs(tmp_path: pathlib.Path) -> None:
    key = tmp_path / "upstream.key"
    bed = Bed(tmp_path, upstream={"kind": "openai", "url": "http://127.0.0.1:1", "key_file": str(key)})
    run = bed.recover()
    assert run.rc != 0
    assert f"found no {key}" in told(run)
    assert [phase["name"] for phase in bed.record()["phases"] if not phase["ok"]] == ["software"]


def test_a_damaged_newest_snapshot_is_passed_over_and_told_of(bed: Bed) -> None:
    """At three in the morning an older one at once is worth more than an error."""
    bed.log.append(2)
    bed.back_up("logs")
    newest = bed.trial.snapshots("logs")[-1]
    next(bed.trial.folder(newest, "logs").glob("part-*")).unlink()
    bed.recover().succeeded()
    record = bed.record()
    assert record["snapshots"]["logs"] == bed.trial.snapshots("logs")[-2]
    (warning,) = [text for text in record["warnings"] if text.startswith("logs: ")]
    assert newest in warning


def test_an_old_host_that_cannot_be_kept_out_does_not_keep_the_service_away(bed: Bed) -> None:
    fences = pathlib.Path(bed.trial.repository, INSTANCE, "fences")
    fences.symlink_to(bed.place / "nowhere")  # nothing to read, and no place to write
    bed.recover().succeeded()
    (warning,) = bed.record()["warnings"]
    assert warning.startswith("the old host is not kept out of the repository: ")
