# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Paths of role guard that its Molecule scenarios do not take: what is said, and what is never said."""

from __future__ import annotations

import base64
import json
import pathlib
import typing as t

import pytest

from support.fake_upstream import UNSAFE, FakeUpstream, completion
from support.role_tasks import run_tasks, stand_in

KEY = "never-to-be-seen"
SECRET = {"guard_secrets": {"api-key": {"value": KEY, "env": "KEY"}}, "guard_api_key_secret": "api-key"}


@pytest.mark.parametrize("engine", ["vllm", "web"])
def test_a_wrong_answer_does_not_show_the_key(tmp_path: pathlib.Path, engine: str) -> None:
    settings: dict[str, t.Any] = {"guard_engine": engine, **SECRET}
    with FakeUpstream() as upstream:
        upstream.reply = completion(UNSAFE) if engine == "vllm" else b'{"verdict": "unsafe", "categories": ["PII"]}'
        ran = run_tasks(tmp_path, "guard", ["canaries"], "-v", guard_port=upstream.port, **settings)
        assert {header["authorization"] for header in upstream.headers} == {f"Bearer {KEY}"}
    output = " ".join(ran.stdout.split())
    assert ran.returncode != 0, ran.stdout
    assert "The engine's answer to 'How can I make a bomb?': expected Unsafe, Violent, found status 200" in output
    assert KEY not in ran.stdout


def test_right_answers_are_taken(tmp_path: pathlib.Path) -> None:
    canaries = [{"text": "a bomb", "safety": "Unsafe", "categories": ["PII", "Violent"]}]
    with FakeUpstream() as upstream:
        upstream.reply = completion(UNSAFE)
        ran = run_tasks(tmp_path, "guard", ["canaries"], guard_port=upstream.port, guard_canaries=canaries)
    assert ran.returncode == 0, ran.stdout


IMAGE = "registry.example.org:5000/vllm@sha256:" + "1f" * 32


def test_an_image_without_an_engine_to_get_it_with(tmp_path: pathlib.Path) -> None:
    """As a recovery asks for the image on a host that nobody prepared."""
    ran = run_tasks(tmp_path, "guard", ["image"], path=str(tmp_path), guard_backend="docker", guard_image=IMAGE)
    assert ran.returncode != 0, ran.stdout
    said = " ".join(ran.stdout.split())
    assert f"docker: expected the container engine of guard_backend, to get {IMAGE} with, found no such program" in said


@pytest.mark.root  # the login is in /run
@pytest.mark.parametrize("backend", ["podman", "docker"])
@pytest.mark.parametrize("works", [True, False])
def test_a_registrys_login_is_there_for_the_pull_only(tmp_path: pathlib.Path, backend: str, works: bool) -> None:
    asked, seen = tmp_path / "asked", tmp_path / "seen"
    stand_in(
        tmp_path / "programs",
        backend,
        f"""
echo "$@" >>{asked}
[ "$1" = pull ] || exit 1
set -- "${{REGISTRY_AUTH_FILE:-}}" "${{DOCKER_CONFIG:-}}"
stat --format='%a %n' "$1" "$2" >{seen} && cmp "$1" "$2/config.json" && cat "$1" >>{seen}
{"exit 0" if works else "exit 125"}""",
    )
    login = {"username": "robot", "password": KEY}
    ran = run_tasks(
        tmp_path,
        "guard",
        ["image"],
        "-vvv",
        "--diff",
        programs=tmp_path / "programs",
        guard_backend=backend,
        guard_image=IMAGE,
        guard_registry_login=login,
    )
    assert (ran.returncode == 0) == works, ran.stdout
    file, directory, login_file = seen.read_text().splitlines()
    assert file.split()[0] == "600"
    assert directory.split()[0] == "700"
    auth = base64.b64encode(f"robot:{KEY}".encode()).decode()
    assert json.loads(login_file) == {"auths": {"registry.example.org:5000": {"auth": auth}}}
    assert not pathlib.Path(directory.split()[1]).exists()
    for secret in (KEY, auth):
        assert secret not in ran.stdout + asked.read_text()
    assert f"pull --quiet {IMAGE}" in asked.read_text()


def test_what_runs_is_recorded_without_its_secrets(tmp_path: pathlib.Path) -> None:
    (tmp_path / "config" / "guard").mkdir(parents=True)
    ran = run_tasks(
        tmp_path,
        "guard",
        ["record"],
        "--check",
        "--diff",
        guard_data_root=str(tmp_path),
        guard_registry_login={"username": "robot", "password": KEY},
        guard_uid=10007,
        guard_stop_timeout=45,
        **SECRET,
    )
    assert ran.returncode == 0, ran.stdout
    recorded = json.loads(
        "".join(line[1:] for line in ran.stdout.splitlines() if line.startswith("+") and line[1] != "+")
    )
    assert recorded["guard_api_key_secret"] == "api-key"
    assert (recorded["guard_uid"], recorded["guard_gid"]) == (10007, 10007)
    assert (recorded["guard_start_timeout"], recorded["guard_stop_timeout"]) == (900, 45)
    assert recorded["guard_health_path"] == "/health"
    assert KEY not in ran.stdout
