# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a directory holds a model that loads: a real tiny model, whole and damaged in every way."""

from __future__ import annotations

import os
import shutil

import pytest

from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import model_check, model_tensors
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.model_check import check_model
from support.model_files import DOWN, INDEX, change_tensor, copy_model, edit, failures, split_model


@pytest.fixture
def model(tmp_path):
    return copy_model(tmp_path)


@pytest.fixture
def sharded(model):
    return split_model(model)


def test_the_right_model_passes(model):
    verdict = check_model(str(model), use_transformers=False)
    assert verdict == {
        "ok": True,
        "failures": [],
        "warnings": [],
        "tensors": 24,
        "bytes": 448_256,
        "parameters": 112_064,
        "not_checked": ["the model was not run: transformers was not to be used"],
        "method": "safetensors",
        "canaries": [],
    }


def test_the_right_model_in_two_files_passes(sharded):
    verdict = check_model(str(sharded), use_transformers=False)
    assert (verdict["failures"], verdict["warnings"]) == ([], [])
    assert (verdict["tensors"], verdict["bytes"], verdict["parameters"]) == (24, 448_256, 112_064)


@pytest.fixture
def without_libraries(monkeypatch):
    monkeypatch.setattr(model_tensors, "HAS_NUMPY", False)
    monkeypatch.setattr(model_check, "HAS_NUMPY", False)
    monkeypatch.setattr(model_check.importlib.util, "find_spec", lambda name: None)


def test_without_libraries_it_says_what_it_could_not_do(model, without_libraries):
    verdict = check_model(str(model), use_transformers=False)
    assert verdict["ok"]
    assert verdict["method"] == "headers"
    assert verdict["not_checked"] == [
        "NaN and infinity in tensors of F32: numpy is not installed",
        "opening with the safetensors library: it or numpy is not installed",
        "encoding a text: tokenizers is not installed",
        "the model was not run: transformers was not to be used",
    ]


def test_zeros_are_found_without_libraries(model, without_libraries):
    change_tensor(model, DOWN, data=lambda old: bytes(len(old)))
    assert failures(model) == [f"tensor {DOWN}: expected trained numbers, found zeros only"]


def test_directory_absent_or_empty(tmp_path):
    assert failures(tmp_path / "none") == [
        f"{tmp_path}/none: expected a directory with a model, found No such file or directory"
    ]
    found = failures(tmp_path)
    assert f"{tmp_path}: expected safetensors files, found none" in found
    assert "config.json: expected a file, found none" in found
    assert "tokenizer.json: expected a file, found none" in found


# -- files and index


def test_missing_shard(sharded):
    (sharded / "model-00002-of-00002.safetensors").unlink()
    assert f"model-00002-of-00002.safetensors: expected a file, as {INDEX} lists it, found none" in failures(sharded)


def test_missing_index(sharded):
    (sharded / INDEX).unlink()
    assert any(text.startswith(f"{INDEX}: expected it, or model.safetensors") for text in failures(sharded))


def test_truncated_shard(sharded):
    path = sharded / "model-00001-of-00002.safetensors"
    size = path.stat().st_size
    os.truncate(path, size - 1)
    assert f"{path.name}: expected a file of {size} bytes, as its header says, found {size - 1}" in failures(sharded)


def test_extra_bytes(model):
    with open(model / "model.safetensors", "ab") as handle:
        handle.write(b"\0")
    assert any("as its header says, found" in text for text in failures(model))


def test_index_names_a_missing_tensor(sharded):
    edit(sharded / INDEX, lambda index: index["weight_map"].update(ghost="model-00001-of-00002.safetensors"))
    assert failures(sharded) == [
        f"tensor ghost: expected in model-00001-of-00002.safetensors, as {INDEX} says, found no such tensor there"
    ]


def test_index_lacks_a_tensor(sharded):
    edit(sharded / INDEX, lambda index: index["weight_map"].pop(DOWN))
    assert failures(sharded) == [
        f"tensor {DOWN}: found in model-00002-of-00002.safetensors, expected it in {INDEX} too"
    ]


def test_index_with_a_wrong_sum(sharded):
    edit(sharded / INDEX, lambda index: index["metadata"].update(total_size=1))
    assert failures(sharded) == [f"{INDEX}: expected total_size 448256, the sum of the tensors, found 1"]


@pytest.mark.parametrize("weight_map", [None, {}, [], {"a": 1}, {"a": "../../etc/x.safetensors"}, {"a": "b.bin"}])
def test_index_garbled(sharded, weight_map):
    edit(sharded / INDEX, {"weight_map": weight_map})
    assert any(text.startswith(f"{INDEX}: expected a weight_map") for text in failures(sharded))


def test_shards_swapped(sharded):
    first, second = (sharded / f"model-0000{n}-of-00002.safetensors" for n in (1, 2))
    first.rename(sharded / "x")
    second.rename(first)
    (sharded / "x").rename(second)
    assert sum("found no such tensor there" in text for text in failures(sharded)) == 24


def test_a_file_beside_the_model_is_named(model):
    shutil.copy(model / "model.safetensors", model / "old.safetensors")
    (model / "pytorch_model.bin").write_bytes(b"not even a pickle")
    verdict = check_model(str(model), use_transformers=False)
    assert verdict["ok"]
    assert verdict["warnings"] == [
        "pickle files, which can run code and are never opened: pytorch_model.bin",
        f"old.safetensors: neither model.safetensors nor in {INDEX}, so it is not part of the model",
    ]


def test_only_pickle_files(model):
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    assert f"{model}: expected safetensors files, found none" in failures(model)


def test_a_pipe_in_the_place_of_a_file(model):
    (model / "model.safetensors").unlink()
    os.mkfifo(model / "model.safetensors")
    assert "model.safetensors: expected a regular file, found something else" in failures(model)


# -- configuration


def test_config_absent(model):
    (model / "config.json").unlink()
    verdict = check_model(str(model), use_transformers=False)
    assert verdict["failures"] == ["config.json: expected a file, found none"]
    assert "the shapes of the tensors: config.json could not be used" in verdict["not_checked"]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("hidden_size", 128, "tensor model.norm.weight: expected shape [128], found [64]"),
        ("vocab_size", 401, "tensor model.embed_tokens.weight: expected shape [401, 64], found [400, 64]"),
        ("head_dim", 16, "tensor model.layers.0.self_attn.q_norm.weight: expected shape [16], found [32]"),
        ("head_dim", None, "tensor model.layers.0.self_attn.q_norm.weight: expected shape [128], found [32]"),
        ("num_key_value_heads", 4, "tensor model.layers.1.self_attn.k_proj.weight: expected shape [128, 64], found"),
        ("intermediate_size", 97, f"tensor {DOWN}: expected shape [64, 97], found [64, 96]"),
        ("num_key_value_heads", 3, "config.json, num_key_value_heads: expected a divisor of 4, found 3"),
        ("hidden_size", "64", "config.json, hidden_size: expected a number from 1 to 2147483647, found '64'"),
        (
            "num_hidden_layers",
            10**9,
            "config.json, num_hidden_layers: expected a number from 1 to 9999, found 1000000000",
        ),
        ("tie_word_embeddings", False, "tensors: expected 25 by config.json, found none for lm_head.weight"),
        ("attention_bias", True, "tensors: expected 32 by config.json, found none for model.layers.0.self_attn.k_proj"),
        ("eos_token_id", [2, 400], "config.json, eos_token_id: expected a number below vocab_size (400), found 400"),
    ],
)
def test_config_that_does_not_fit(model, key, value, message):
    edit(model / "config.json", lambda config: config.update({key: value}))
    assert any(text.startswith(message) for text in failures(model))


def test_wrong_number_of_layers(model):
    edit(model / "config.json", lambda config: config.update(num_hidden_layers=3))
    assert any("expected 35 by config.json, found none for model.layers.2." in text for text in failures(model))
    edit(model / "config.json", lambda config: config.update(num_hidden_layers=1))
    assert any("expected 1 layers by config.json, found also model.layers.1." in text for text in failures(model))


def test_wrong_shape_of_the_same_size(model):
    change_tensor(model, DOWN, shape=[96, 64])
    assert failures(model) == [f"tensor {DOWN}: expected shape [64, 96], found [96, 64]"]


def test_wrong_dtype(model):
    change_tensor(model, DOWN, dtype="I32")
    assert failures(model) == [f"tensor {DOWN}: expected a floating-point dtype, found I32"]


def test_another_float_type_is_a_warning(model):
    edit(model / "config.json", lambda config: config.update(dtype="bfloat16"))
    verdict = check_model(str(model), use_transformers=False)
    assert verdict["ok"]
    assert verdict["warnings"] == ["dtype: config.json says bfloat16, the tensors are float32"]


def test_another_architecture_is_not_checked(model):
    edit(model / "config.json", lambda config: config.update(model_type="llama"))
    verdict = check_model(str(model), use_transformers=False)
    assert "the shapes of the tensors: model_type is 'llama', not qwen3" in verdict["not_checked"]


def test_generation_config(model):
    (model / "generation_config.json").write_text("{")
    assert [text[:40] for text in failures(model)] == ["generation_config.json: expected JSON, fo"[:40]]
    (model / "generation_config.json").unlink()
    verdict = check_model(str(model), use_transformers=False)
    assert verdict["ok"]
    assert verdict["warnings"] == ["generation_config.json: none; the defaults of the engine apply"]


def test_chat_template(model):
    edit(model / "tokenizer_config.json", lambda settings: settings.pop("chat_template"))
    none = "chat template: expected in tokenizer_config.json or chat_template.jinja, found none"
    assert failures(model) == [none]
    (model / "chat_template.jinja").touch()
    assert failures(model) == [none]
    (model / "chat_template.jinja").write_text("{{ messages }}")
    assert failures(model) == []


# -- tokenizer


def test_tokenizer_corrupt(model):
    path = model / "tokenizer.json"
    os.truncate(path, path.stat().st_size // 2)
    assert any(text.startswith("tokenizer.json: expected JSON") for text in failures(model))


def test_tokenizer_that_only_its_library_finds_wrong(model):
    edit(model / "tokenizer.json", lambda tokenizer: tokenizer["model"]["merges"].append(["no such", "tokens"]))
    assert any(text.startswith("tokenizer.json: expected a tokenizer that loads") for text in failures(model))


def test_tokenizer_that_does_not_give_the_text_back(model):
    edit(model / "tokenizer.json", lambda tokenizer: tokenizer.update(decoder=None))
    assert [text[:66] for text in failures(model)] == [
        "tokenizer.json: expected 'Is this text safe? 这段文字安全吗？ 1 + 1 = 2\\n' encoded"[:66]
    ]


def test_tokenizer_too_large(model):
    edit(model / "tokenizer.json", lambda tokenizer: tokenizer["model"]["vocab"].update(one_more=400))
    assert "tokenizer.json: expected at most 400 tokens, as config.json's vocab_size, found 401" in failures(model)


def test_tokenizer_with_a_number_twice(model):
    edit(model / "tokenizer.json", lambda tokenizer: tokenizer["model"]["vocab"].update(one_more=5))
    assert "tokenizer.json: expected a number for each token, found one number twice" in failures(model)


def test_tokenizer_config_that_names_a_token_it_has_not(model):
    edit(model / "tokenizer_config.json", lambda settings: settings.update(eos_token={"content": "<|ghost|>"}))
    assert failures(model) == [
        "tokenizer_config.json, eos_token: expected a token of tokenizer.json, found '<|ghost|>', which it has not"
    ]
