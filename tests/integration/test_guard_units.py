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


def render(backend: str, place: pathlib.Path, **settings: t.Any) -> str:
    """The unit, from the role's own defaults, variables and template."""
    role = ROOT / "roles" / "guard"
    template = {"podman": "qwen3guard.container", "docker": "qwen3guard.service"}[backend]
    play = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "vars": {"ansible_python_interpreter": sys.executable},
        "vars_files": [str(role / path) for path in ("defaults/main.yml", "vars/main.yml", "vars/Debian.yml")],
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
        "/data/qwen3guard-gen-web/models:/app/data/models:ro",
        "/data/qwen3guard-gen-web/config:/app/data/config:ro",
        "/data/qwen3guard-gen-web/logs:/app/data/logs:rw",
    ]
    assert not values_of(unit, "AddDevice") + values_of(unit, "Exec")
    assert values_of(unit, "PublishPort") == ["127.0.0.1:8000:7860"]
    assert "--path=/health" in unit
    assert "--entrypoint" not in unit


@pytest.mark.parametrize("gpu", ["nvidia.com/gpu=all", "none"])
def test_docker_unit_is_one_that_systemd_reads(tmp_path: pathlib.Path, gpu: str) -> None:
    unit = render("docker", tmp_path, guard_gpu=gpu, guard_secrets=SECRETS, guard_model="m")
    start = shlex.split(unit.partition("\nExecStart=")[2].partition("\n\n")[0].replace("\\\n", " "))
    assert start[:2] == ["/usr/bin/docker", "run"]
    assert {"--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--user=10001:10001"} < set(start)
    assert ("--device=nvidia.com/gpu=all" in start) == (gpu != "none")
    assert start[start.index(DIGEST) + 1 :][:2] == ["serve", "/app/data/models/Qwen3Guard-Gen-8B"]
    assert not [word for word in start if word.startswith("--env=") and "KEY" in word]
