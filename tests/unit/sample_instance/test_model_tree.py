# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The model directories are valid: headers cover the files, shapes agree with the configuration."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import pytest
from sample_instance import model_tree

BYTES_A_VALUE = {"F32": 4, "BF16": 2}


def read_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file, after checking that its tensors cover the rest of the file exactly."""
    with path.open("rb") as content:
        (length,) = struct.unpack("<Q", content.read(8))
        tensors: dict[str, Any] = json.loads(content.read(length))
    tensors.pop("__metadata__", None)
    position = 0
    for tensor in sorted(tensors.values(), key=lambda tensor: tensor["data_offsets"][0]):
        start, end = tensor["data_offsets"]
        assert start == position
        assert end - start == math.prod(tensor["shape"]) * BYTES_A_VALUE[tensor["dtype"]]
        position = end
    assert path.stat().st_size == 8 + length + position
    return tensors


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def all_tensors(directory: Path) -> dict[str, Any]:
    """The tensors of all shards, after checking that the index names each in its own shard."""
    index = read_json(directory / "model.safetensors.index.json")
    found: dict[str, Any] = {}
    for shard in directory.glob("*.safetensors"):
        tensors = read_header(shard)
        assert {index["weight_map"][name] for name in tensors} == {shard.name}
        found.update(tensors)
    assert set(found) == set(index["weight_map"])
    data = sum(end - start for start, end in (tensor["data_offsets"] for tensor in found.values()))
    assert index["metadata"]["total_size"] == data
    return found


def test_tiny_model_agrees_with_its_configuration() -> None:
    config = read_json(model_tree.TINY_MODEL / "config.json")
    tensors = read_header(model_tree.TINY_MODEL / "model.safetensors")
    shapes = {name: tuple(tensor["shape"]) for name, tensor in tensors.items()}
    assert shapes == model_tree.tensor_shapes(config)
    assert config["architectures"] == ["Qwen3ForCausalLM"]
    assert config["head_dim"] == 32


def test_tiny_tokenizer_fits_the_model() -> None:
    config = read_json(model_tree.TINY_MODEL / "config.json")
    tokenizer = read_json(model_tree.TINY_MODEL / "tokenizer.json")
    vocabulary = tokenizer["model"]["vocab"]
    assert sorted(vocabulary.values()) == list(range(config["vocab_size"]))
    settings = read_json(model_tree.TINY_MODEL / "tokenizer_config.json")
    assert vocabulary[settings["eos_token"]] == config["eos_token_id"]
    assert "add_generation_prompt" in settings["chat_template"]


def test_canaries_are_labelled_in_two_languages() -> None:
    canaries = model_tree.canaries()
    assert len(canaries) == 4
    assert {canary["safety"] for canary in canaries} == {"Safe", "Unsafe", "Controversial"}
    assert {canary["text"].isascii() for canary in canaries} == {True, False}
    for canary in canaries:
        assert bool(canary["categories"]) == (canary["safety"] != "Safe")


def test_size_zero_is_the_tiny_model(tmp_path: Path) -> None:
    model_tree.write_model(tmp_path / "model")
    assert {path.name for path in (tmp_path / "model").iterdir()} == {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    for path in (tmp_path / "model").iterdir():
        assert path.read_bytes() == (model_tree.TINY_MODEL / path.name).read_bytes()


@pytest.mark.parametrize("tie", [False, True])
@pytest.mark.parametrize("size", [1 << 20, 12_345_678])
def test_random_model_is_valid_and_has_the_size(tmp_path: Path, size: int, tie: bool) -> None:
    model_tree.write_model(tmp_path, size, seed=3, shards=3, tie=tie)
    config = read_json(tmp_path / "config.json")
    tensors = all_tensors(tmp_path)
    assert {name: tuple(tensor["shape"]) for name, tensor in tensors.items()} == model_tree.tensor_shapes(config)
    assert {tensor["dtype"] for tensor in tensors.values()} == {"BF16"}
    assert config["dtype"] == "bfloat16"
    assert ("lm_head.weight" in tensors) == (not tie)
    assert config["tie_word_embeddings"] == tie
    assert tensors["model.embed_tokens.weight"]["shape"][0] == len(
        read_json(tmp_path / "tokenizer.json")["model"]["vocab"]
    )
    assert len(list(tmp_path.glob("*.safetensors"))) == 3
    written = sum(path.stat().st_size for path in tmp_path.glob("*.safetensors"))
    assert written == pytest.approx(size, rel=0.02)


def test_random_weights_are_finite_numbers(tmp_path: Path) -> None:
    """BF16 is infinite, or no number, where all eight bits of the exponent are set."""
    model_tree.write_model(tmp_path, 3_500_001, seed=3, shards=2)
    for path in tmp_path.glob("*.safetensors"):
        content = path.read_bytes()
        weights = content[8 + struct.unpack("<Q", content[:8])[0] :]
        values = [value for (value,) in struct.iter_unpack("<H", weights)]
        assert not any(value & 0x7F80 == 0x7F80 for value in values)
        assert len({value >> 7 for value in values}) == 256  # all signs, all exponents that are left


@pytest.mark.parametrize("size", [1 << 30, 16 << 30])
def test_configuration_for_large_weights_has_the_size(size: int) -> None:
    shapes = model_tree.tensor_shapes(model_tree.random_model_config(size, tie=False))
    assert sum(math.prod(shape) for shape in shapes.values()) * 2 == pytest.approx(size, rel=0.01)


def test_weights_follow_the_seed_and_never_repeat(tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("again", 1), ("two", 2)):
        model_tree.plain_weights(tmp_path / name, 5_000_001, files=2, seed=seed)
    one = [path.read_bytes() for path in sorted((tmp_path / "one").iterdir())]
    assert one == [path.read_bytes() for path in sorted((tmp_path / "again").iterdir())]
    assert one != [path.read_bytes() for path in sorted((tmp_path / "two").iterdir())]
    assert sum(map(len, one)) == 5_000_001
    blocks = [content[start : start + 4096] for content in one for start in range(0, len(content), 4096)]
    assert len(set(blocks)) == len(blocks)


def test_too_small_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected 0 or 1048576 bytes and more, found 1000"):
        model_tree.write_model(tmp_path, 1000)


def test_shapes_are_those_of_qwen3() -> None:
    """Qwen3Guard-Gen-8B's own numbers; in the tiny model several of them are equal."""
    config = {
        "vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 12288, "head_dim": 128,
        "num_attention_heads": 32, "num_key_value_heads": 8, "num_hidden_layers": 36, "tie_word_embeddings": False,
    }  # fmt: skip
    shapes = model_tree.tensor_shapes(config)
    layer = {name[len("model.layers.35.") :]: shape for name, shape in shapes.items() if ".35." in name}
    assert layer == {
        "input_layernorm.weight": (4096,),
        "self_attn.q_proj.weight": (4096, 4096),
        "self_attn.k_proj.weight": (1024, 4096),
        "self_attn.v_proj.weight": (1024, 4096),
        "self_attn.o_proj.weight": (4096, 4096),
        "self_attn.q_norm.weight": (128,),
        "self_attn.k_norm.weight": (128,),
        "post_attention_layernorm.weight": (4096,),
        "mlp.gate_proj.weight": (12288, 4096),
        "mlp.up_proj.weight": (12288, 4096),
        "mlp.down_proj.weight": (4096, 12288),
    }
    assert len(shapes) == 36 * len(layer) + 3
    assert sum(math.prod(shape) for shape in shapes.values()) == 8_190_735_360  # as published for Qwen3-8B
