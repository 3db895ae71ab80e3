# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A model's own answers: parsed strictly, asked through transformers where torch is at hand."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import GuardError
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.model_check import (
    check_model,
    parse_verdict,
)
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services import transformers_run
from support.model_files import DOWN, TINY, change_tensor, copy_model, edit, failures

TORCH_PYTHON = os.environ.get("GUARDOPS_TORCH_PYTHON", "")
needs_torch = pytest.mark.skipif(
    not TORCH_PYTHON, reason="GUARDOPS_TORCH_PYTHON names no interpreter with torch and transformers"
)


@pytest.fixture
def model(tmp_path):
    return copy_model(tmp_path)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Safety: Safe\nCategories: None", ("Safe", [])),
        (
            "Safety: Unsafe\nCategories: PII, Non-violent Illegal Acts\n",
            ("Unsafe", ["Non-violent Illegal Acts", "PII"]),
        ),
        ("Safety: Controversial\nCategories: Jailbreak", ("Controversial", ["Jailbreak"])),
        ("", None),
        ("Safe", None),
        ("Safety: Safe", None),
        ("Safety: safe\nCategories: None", None),
        ("Safety: Safe\nCategories: ", None),
        ("Safety: Safe\nCategories: Nonsense", None),
        ("Safety: Unsafe\nCategories: PII, PII", None),
        ("Safety: Unsafe\nCategories: None, PII", None),
        ("Safety: Safe\nCategories: None\nSafety: Unsafe", None),
        ("I think Safety: Safe\nCategories: None", None),
    ],
)
def test_verdicts_are_parsed_strictly(text, found):
    assert parse_verdict(text) == found


@pytest.mark.parametrize(
    "canary",
    [
        {},
        {"text": "", "safety": "Safe"},
        {"text": "x", "safety": "safe"},
        {"text": "x", "safety": "Safe", "categories": "PII"},
        {"text": "x", "safety": "Unsafe", "categories": ["Rude"]},
    ],
)
def test_canaries_are_checked_before_anything_runs(model, canary):
    with pytest.raises(GuardError, match="canar"):
        check_model(str(model), [canary], use_transformers=False)


def canaries():
    return json.loads((TINY / "canaries.json").read_text(encoding="utf-8"))


def bare_python(tmp_path):
    """This interpreter without any library."""
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nexec "{Path(sys.executable).resolve()}" -S "$@"\n')
    script.chmod(0o755)
    return str(script)


def test_without_transformers_the_verdict_says_so(model, tmp_path):
    python = bare_python(tmp_path)
    verdict = check_model(str(model), canaries(), python=python)
    assert verdict["ok"]
    assert verdict["not_checked"] == ["torch is not installed: the model was not run"]
    verdict = check_model(str(model), canaries(), use_transformers=True, python=python)
    assert verdict["failures"] == ["torch is not installed: the model was not run"]


def test_a_model_that_is_wrong_already_is_not_run(model):
    (model / "config.json").unlink()
    verdict = check_model(str(model), python="/none")
    assert "the model was not run: its files are wrong already" in verdict["not_checked"]


def fake_python(tmp_path, body):
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(0o755)
    return str(script)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("echo boom >&2; exit 3", "exit code 3: boom"),
        ("echo nonsense", "an answer that is not JSON"),
        ("sleep 60", "no end within 1 s"),
        ("kill -9 $$", "exit code -9"),
    ],
)
def test_an_interpreter_that_fails(model, tmp_path, body, message):
    verdict = check_model(str(model), python=fake_python(tmp_path, body), timeout=1 if "sleep" in body else 60)
    assert not verdict["ok"]
    assert message in verdict["failures"][0]


@pytest.mark.parametrize("answers", [["Safety: Safe\nCategories: None"], [""], ["Safety: Unsafe\nCategories: PII"], []])
def test_wrong_and_empty_answers_are_failures(model, tmp_path, answers):
    reply = json.dumps({"problems": {}, "parameters": 1, "answers": answers})
    question = [{"text": "bomb?", "safety": "Unsafe", "categories": ["Violent"]}]
    verdict = check_model(str(model), question, python=fake_python(tmp_path, f"cat <<'E'\n{reply}\nE"))
    assert not verdict["ok"]
    assert verdict["failures"]
    assert not any(canary["ok"] for canary in verdict["canaries"])


def test_weights_that_found_no_place_are_failures(model, tmp_path):
    reply = json.dumps({"problems": {"missing_keys": ["lm_head.weight"]}, "parameters": 1, "answers": []})
    verdict = check_model(str(model), python=fake_python(tmp_path, f"cat <<'E'\n{reply}\nE"))
    assert verdict["failures"] == [
        "transformers: expected every weight in its place, found missing_keys: lm_head.weight"
    ]


def test_the_probe_stands_alone():
    source = transformers_run.probe_argv("python")[-1]
    assert "from ." not in source
    compile(source, "probe", "exec")


@needs_torch
@pytest.mark.slow
def test_with_transformers_the_canaries_are_answered(model):
    verdict = check_model(str(model), canaries(), use_transformers=True, python=TORCH_PYTHON)
    assert (verdict["ok"], verdict["failures"], verdict["not_checked"]) == (True, [], [])
    assert verdict["method"] == "transformers"
    assert verdict["parameters"] == 112_064
    assert [canary["ok"] for canary in verdict["canaries"]] == [True] * 4


@needs_torch
@pytest.mark.slow
def test_with_transformers_a_model_that_forgot_is_found(model):
    """Weights of the right shape, finite, not zero, and wrong: only asking shows it."""
    change_tensor(model, DOWN, data=lambda old: old[len(old) // 2 :] + old[: len(old) // 2])
    change_tensor(model, "model.embed_tokens.weight", data=lambda old: old[256:] + old[:256])
    assert failures(model) == []
    verdict = check_model(str(model), canaries(), use_transformers=True, python=TORCH_PYTHON)
    assert not verdict["ok"]
    assert all(text.startswith("canary ") for text in verdict["failures"])


@needs_torch
@pytest.mark.slow
def test_with_transformers_a_pickle_is_not_loaded(model, tmp_path):
    """The model's configuration may ask for a file or code that runs; neither does."""
    witness = tmp_path / "ran"
    (model / "evil.py").write_text(f"open({str(witness)!r}, 'w')\n")
    (model / "pytorch_model.bin").write_bytes(b"cposix\nsystem\n(S'touch " + str(witness).encode() + b"'\ntR.")
    edit(model / "config.json", lambda config: config.update(auto_map={"AutoModelForCausalLM": "evil.Model"}))
    verdict = check_model(str(model), canaries(), use_transformers=True, python=TORCH_PYTHON)
    assert verdict["failures"] == []
    assert not witness.exists()
