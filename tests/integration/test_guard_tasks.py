# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Paths of role guard that its Molecule scenarios do not take: what is said, and what is never said."""

from __future__ import annotations

import pathlib
import typing as t

import pytest

from support.fake_upstream import UNSAFE, FakeUpstream, completion
from support.role_tasks import run_tasks

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
