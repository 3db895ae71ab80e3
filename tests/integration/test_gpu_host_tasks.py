# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which container role gpu_host starts to see that it gets the GPUs, and what it tells Docker.

The engines are stand-ins that write down what they were asked.
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import typing as t

import pytest

from support.role_tasks import run_tasks, stand_in

IMAGE = "registry.example.org/vllm@sha256:" + "1f" * 32
READY = {
    "gpus": ["0000:01:00.0"],
    "ready": True,
    "problems": [],
    "driver": {"version": "580.1.1", "persistence": True},
    "specification": {"path": "/etc/cdi/nvidia.yaml"},
}


class Engines:
    """podman and docker: ``has`` is the one image that they have, each container lists one GPU."""

    def __init__(self, place: pathlib.Path, has: str = IMAGE):
        self.place = place
        self.asked = place / "asked"
        script = f"""
echo "$0" "$@" >>{self.asked}
case $1 in
    image) for last; do :; done; [ "$last" = "{has}" ] ;;
    run) echo "GPU 0: a stand-in" ;;
    *) exit 2 ;;
esac"""
        for name in ("podman", "docker"):
            stand_in(place / "programs", name, script)

    def verify(self, **variables: t.Any) -> subprocess.CompletedProcess[str]:
        return run_tasks(self.place, "gpu_host", ["verify"], programs=self.place / "programs", **variables)

    def runs(self) -> list[list[str]]:
        """The arguments of each container that was started."""
        lines = self.asked.read_text().splitlines() if self.asked.exists() else []
        return [line.split()[1:] for line in lines if line.split()[1] == "run"]


def test_a_cpu_host_starts_nothing_by_itself(tmp_path: pathlib.Path) -> None:
    engines = Engines(tmp_path)
    ran = engines.verify(gpu_host_mode="cpu", guard_image=IMAGE, __gpu_host=READY)
    assert ran.returncode == 0, ran.stdout
    assert not engines.asked.exists()


def test_the_guards_own_image_is_used_where_it_is(tmp_path: pathlib.Path) -> None:
    engines = Engines(tmp_path)
    ran = engines.verify(guard_image=IMAGE, __gpu_host=READY)
    assert ran.returncode == 0, ran.stdout
    (arguments,) = engines.runs()
    assert arguments[-3:] == ["--entrypoint=nvidia-smi", IMAGE, "--list-gpus"]
    assert {"--security-opt=label=disable", "--device=nvidia.com/gpu=all"} < set(arguments)


@pytest.mark.parametrize("image", ["registry.example.org/other:1", ""])
def test_nothing_is_pulled_for_the_check(tmp_path: pathlib.Path, image: str) -> None:
    engines = Engines(tmp_path)
    ran = engines.verify(guard_image=image, __gpu_host=READY)
    assert ran.returncode == 0, ran.stdout
    assert engines.runs() == []
    assert "the image of the role guard is not here yet" in ran.stdout


@pytest.mark.parametrize(
    ("directories", "given"), [([], "--gpus=all"), (["/etc/cdi"], "--device=nvidia.com/gpu=all")], ids=["legacy", "cdi"]
)
def test_docker_gets_the_gpus_as_it_can(tmp_path: pathlib.Path, directories: list[str], given: str) -> None:
    engines = Engines(tmp_path)
    info = {"stdout": json.dumps({"ServerVersion": "26.1.5+dfsg1", "CDISpecDirs": directories})}
    ran = engines.verify(
        gpu_host_engine="docker", gpu_host_check_image="some:image", __gpu_host=READY, __gpu_host_docker_info=info
    )
    assert ran.returncode == 0, ran.stdout
    ((*options, _entrypoint, image, _list),) = engines.runs()
    assert image == "some:image"
    assert [option for option in options if option.startswith(("--gpus", "--device"))] == [given]


@pytest.mark.parametrize(
    ("info", "settings", "changed"),
    [
        ({"ServerVersion": "20.10.24+dfsg1"}, {}, False),
        ({"ServerVersion": "26.1.5+dfsg1", "CDISpecDirs": []}, {}, True),
        ({"ServerVersion": "26.1.5+dfsg1", "CDISpecDirs": []}, {"features": {"cdi": False}}, False),
        ({"ServerVersion": "28.2.0", "CDISpecDirs": ["/etc/cdi"]}, {}, False),
    ],
)
def test_cdi_is_turned_on_where_docker_has_it(
    tmp_path: pathlib.Path, info: dict[str, t.Any], settings: dict[str, t.Any], changed: bool
) -> None:
    answers = {"docker": info, "cat": settings}
    for name, answer in answers.items():
        stand_in(tmp_path / "programs", name, f"echo '{json.dumps(answer)}'")
    ran = run_tasks(tmp_path, "gpu_host", ["docker"], "--check", "--diff", programs=tmp_path / "programs")
    assert ran.returncode == 0, ran.stdout
    assert ('+        "cdi": true' in ran.stdout) == changed, ran.stdout
