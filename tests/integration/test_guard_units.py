# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The units that role guard writes where no test host can run them: vLLM on a GPU, and Docker."""

from __future__ import annotations

import json
import os
import pathlib
import shlex
import subprocess
import sys
import typing as t

import pytest

from support.checkout import ROOT, find_tool

DIGEST = "docker.io/vllm/vllm-openai@sha256:" + "1f" * 32
SECRETS = {"api-key": {"value": "never", "env": "VLLM_API_KEY"}, "tls": {"value": "never", "file": "/run/secrets/tls"}}


def docker_info(*cdi: str, version: str = "26.1.5+dfsg1") -> dict[str, t.Any]:
    """What the role keeps of `docker info`; with the directories of CDI where it is on."""
    return {"__guard_docker": {"stdout": json.dumps({"ServerVersion": version, "CDISpecDirs": list(cdi)})}}


def render(backend: str, place: pathlib.Path, family: str = "Debian", **settings: t.Any) -> str:
    """The unit, from the role's own defaults, variables and template."""
    role = ROOT / "roles" / "guard"
    template = {"podman": "qwen3guard.container", "docker": "qwen3guard.service"}[backend]
    play = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "vars": {"ansible_python_interpreter": sys.executable},
        "vars_files": [str(role / path) for path in ("defaults/main.yml", "vars/main.yml", f"vars/{family}.yml")],
        "tasks": [
            {
                "ansible.builtin.template": {
                    "src": str(role / "templates" / f"{template}.j2"),
                    "dest": str(place / template),
                    "mode": "0600",
                }
            }
        ],
    }
    playbook = place / "play.json"
    playbook.write_text(json.dumps([play]), encoding="utf-8")
    values = json.dumps({"guard_backend": backend, "guard_image": DIGEST, **settings})
    ran = subprocess.run(
        [find_tool("ansible-playbook"), "--inventory=localhost,", f"--extra-vars={values}", str(playbook)],
        env={**os.environ, "ANSIBLE_HOME": str(place), "ANSIBLE_LOCALHOST_WARNING": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return (place / template).read_text(encoding="utf-8")


def values_of(unit: str, key: str) -> list[str]:
    return [line.partition("=")[2] for line in unit.splitlines() if line.startswith(f"{key}=")]


def start_of(unit: str) -> list[str]:
    """The words of the command that starts Docker's container."""
    return shlex.split(unit.partition("\nExecStart=")[2].partition("\n\n")[0].replace("\\\n", " "))


def unexpanded(word: str) -> str:
    """What systemd makes of a word."""
    return word.replace("%%", "%").replace("$$", "$")


def test_quadlet_of_vllm_on_a_gpu(tmp_path: pathlib.Path) -> None:
    odd = '--chat-template={{ "100% $HOME \\ a" }}'
    unit = render(
        "podman",
        tmp_path,
        guard_model="Qwen3Guard-Gen-8B-2025",
        guard_arguments=["--max-model-len=8192", "{% raw %}" + odd + "{% endraw %}"],
        guard_secrets=SECRETS,
        guard_api_key_secret="api-key",
        guard_memory="48g",
    )
    assert values_of(unit, "Image") == [DIGEST]
    assert values_of(unit, "AddDevice") == ["nvidia.com/gpu=all"]
    assert values_of(unit, "PublishPort") == ["127.0.0.1:8000:8000"]
    model = "/app/data/models/Qwen3Guard-Gen-8B"
    assert f"/data/qwen3guard-gen-web/models/Qwen3Guard-Gen-8B-2025:{model}:ro" in values_of(unit, "Volume")
    assert not [volume for volume in values_of(unit, "Volume") if not volume.endswith(":ro")]
    (command,) = values_of(unit, "Exec")
    assert [unexpanded(word) for word in shlex.split(command)] == [
        "serve",
        model,
        "--served-model-name=Qwen3Guard-Gen-8B",
        "--host=0.0.0.0",
        "--port=8000",
        "--max-model-len=8192",
        odd,
    ]
    arguments = values_of(unit, "PodmanArgs")
    assert "--entrypoint=vllm" in arguments
    assert "--memory=48g" in arguments
    assert len([argument for argument in arguments if argument.startswith("--secret=qwen3guard-")]) == 2
    assert len([argument for argument in arguments if "--key-variable=VLLM_API_KEY" in argument]) == 2
    assert "never" not in unit.replace("--pull=never", "")


def test_quadlet_of_an_own_image(tmp_path: pathlib.Path) -> None:
    unit = render("podman", tmp_path, guard_engine="web", guard_inner_port=7860, guard_gpu="none")
    assert values_of(unit, "Volume")[:3] == [
        "/data/qwen3guard-gen-web:/app/data:rw",
        "/data/qwen3guard-gen-web/models:/app/data/models:ro",
        "/data/qwen3guard-gen-web/config/guard:/app/data/config/guard:ro",
    ]
    assert not values_of(unit, "AddDevice") + values_of(unit, "Exec")
    assert values_of(unit, "PublishPort") == ["127.0.0.1:8000:7860"]
    assert "--path=/health" in unit
    assert "--entrypoint" not in unit


@pytest.mark.parametrize("gpu", ["nvidia.com/gpu=all", "none"])
def test_docker_unit_is_one_that_systemd_reads(tmp_path: pathlib.Path, gpu: str) -> None:
    info = docker_info("/etc/cdi", "/var/run/cdi")
    start = start_of(render("docker", tmp_path, guard_gpu=gpu, guard_secrets=SECRETS, guard_model="m", **info))
    assert start[:2] == ["/usr/bin/docker", "run"]
    assert {"--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--user=10001:10001"} < set(start)
    assert ("--device=nvidia.com/gpu=all" in start) == (gpu != "none")
    assert start[start.index(DIGEST) + 1 :][:2] == ["serve", "/app/data/models/Qwen3Guard-Gen-8B"]
    assert not [word for word in start if word.startswith("--env=") and "KEY" in word]
    assert "--security-opt=label=disable" not in start


@pytest.mark.parametrize(
    ("gpu", "given"), [("nvidia.com/gpu=all", "--gpus=all"), ("nvidia.com/gpu=1", "--gpus=device=1")]
)
def test_docker_without_cdi_gets_the_gpu_by_the_runtime(tmp_path: pathlib.Path, gpu: str, given: str) -> None:
    """Debian 12 has Docker 20.10, which knows no CDI; with 25 to 28.1 somebody must have turned it on."""
    start = start_of(render("docker", tmp_path, guard_gpu=gpu, **docker_info()))
    assert given in start
    assert not [word for word in start if word.startswith("--device")]


def test_selinux_does_not_keep_the_gpu_from_the_container(tmp_path: pathlib.Path) -> None:
    """As the check of role gpu_host starts it. Without a GPU nothing is taken from its confinement."""
    option = "--security-opt=label=disable"
    assert option in values_of(render("podman", tmp_path, "RedHat"), "PodmanArgs")
    assert option not in render("podman", tmp_path, "RedHat", guard_gpu="none")
    assert option not in render("podman", tmp_path)
    assert option in start_of(render("docker", tmp_path, "RedHat", **docker_info("/etc/cdi")))
