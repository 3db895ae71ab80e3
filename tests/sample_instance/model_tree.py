# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A model directory of any size: the tiny trained model itself, or valid shards of random weights.

Random weights have the right names, shapes and headers, and load; what such a model says is noise.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

TINY_MODEL = Path(__file__).resolve().parent / "tiny_model"
CANARIES = TINY_MODEL / "canaries.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")
MODEL_FILES = ("config.json", "model.safetensors", *TOKENIZER_FILES)
DEFAULT_SEED = 20240520
SMALLEST_RANDOM_MODEL = 1 << 20

_BLOCK = 1 << 20
_BYTES_A_VALUE = 2  # BF16
_HEAD_DIM = 32
_HEADS_A_KEY_VALUE_HEAD = 4
_TYPICAL_LAYERS = 28
_ALIGNMENT = 8
_FINITE = int.from_bytes(b"\xff\xbf" * (_BLOCK // _BYTES_A_VALUE), "little")

Shape = tuple[int, ...]


def canaries() -> list[dict[str, Any]]:
    """The labelled questions that the tiny model answers: ``text``, ``safety``, ``categories``."""
    questions: list[dict[str, Any]] = json.loads(CANARIES.read_text(encoding="utf-8"))
    return questions


def write_model(
    directory: Path, size_bytes: int = 0, seed: int = DEFAULT_SEED, shards: int = 4, tie: bool = False
) -> None:
    """Write a model directory: the tiny model (0), or random weights of ``size_bytes``, within a hundredth.

    ``tie``: the output layer is the embedding, and no tensor of its own.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if size_bytes == 0:
        for name in MODEL_FILES:
            shutil.copyfile(TINY_MODEL / name, directory / name)
        return
    if size_bytes < SMALLEST_RANDOM_MODEL:
        raise ValueError(f"size of the model: expected 0 or {SMALLEST_RANDOM_MODEL} bytes and more, found {size_bytes}")
    for name in TOKENIZER_FILES:
        shutil.copyfile(TINY_MODEL / name, directory / name)
    config = random_model_config(size_bytes, tie)
    _write_json(directory / "config.json", config)
    _write_shards(directory, tensor_shapes(config), seed, shards)


def random_model_config(size_bytes: int, tie: bool) -> dict[str, Any]:
    """A Qwen3 configuration whose weights have about this size, in bf16."""
    config: dict[str, Any] = json.loads((TINY_MODEL / "config.json").read_text(encoding="utf-8"))
    values = size_bytes // _BYTES_A_VALUE
    # With an MLP three times as wide as the model, a layer has about 11.5 values for each square of the width.
    step = _HEAD_DIM * _HEADS_A_KEY_VALUE_HEAD
    width = max(step, round(math.sqrt(values / _TYPICAL_LAYERS / 11.5) / step) * step)
    layers = max(1, round(values / (11.5 * width * width)))
    config.update(
        dtype="bfloat16",
        hidden_size=width,
        head_dim=_HEAD_DIM,
        num_attention_heads=width // _HEAD_DIM,
        num_key_value_heads=width // _HEAD_DIM // _HEADS_A_KEY_VALUE_HEAD,
        num_hidden_layers=layers,
        max_window_layers=layers,
        layer_types=["full_attention"] * layers,
        tie_word_embeddings=tie,
        intermediate_size=0,
    )
    # What is missing now is the MLP: three matrices of width x intermediate_size in each layer.
    without_mlp = sum(math.prod(shape) for shape in tensor_shapes(config).values())
    config["intermediate_size"] = max(1, round((values - without_mlp) / (3 * width * layers)))
    return config


def tensor_shapes(config: dict[str, Any]) -> dict[str, Shape]:
    """Each tensor of a Qwen3 model with its shape, in the order of use."""
    width, middle = config["hidden_size"], config["intermediate_size"]
    head = config["head_dim"]
    query, key = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    shapes: dict[str, Shape] = {"model.embed_tokens.weight": (config["vocab_size"], width)}
    for number in range(config["num_hidden_layers"]):
        layer = f"model.layers.{number}"
        shapes[f"{layer}.input_layernorm.weight"] = (width,)
        shapes[f"{layer}.self_attn.q_proj.weight"] = (query, width)
        shapes[f"{layer}.self_attn.k_proj.weight"] = (key, width)
        shapes[f"{layer}.self_attn.v_proj.weight"] = (key, width)
        shapes[f"{layer}.self_attn.o_proj.weight"] = (width, query)
        shapes[f"{layer}.self_attn.q_norm.weight"] = (head,)
        shapes[f"{layer}.self_attn.k_norm.weight"] = (head,)
        shapes[f"{layer}.post_attention_layernorm.weight"] = (width,)
        shapes[f"{layer}.mlp.gate_proj.weight"] = (middle, width)
        shapes[f"{layer}.mlp.up_proj.weight"] = (middle, width)
        shapes[f"{layer}.mlp.down_proj.weight"] = (width, middle)
    shapes["model.norm.weight"] = (width,)
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], width)
    return shapes


def plain_weights(directory: Path, total_bytes: int, files: int = 4, seed: int = DEFAULT_SEED) -> None:
    """Files of random bytes and nothing else, for benchmarks that never look inside."""
    directory.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        size = total_bytes * (number + 1) // files - total_bytes * number // files
        name = _shard_name(number, files)
        with open(directory / name, "wb") as output:
            _write_random(output, size, f"plain {seed} {number}")


def _shard_name(number: int, shards: int) -> str:
    return f"model-{number + 1:05d}-of-{shards:05d}.safetensors"


def _size(shape: Shape) -> int:
    return math.prod(shape) * _BYTES_A_VALUE


def _write_shards(directory: Path, shapes: dict[str, Shape], seed: int, shards: int) -> None:
    total = sum(_size(shape) for shape in shapes.values())
    names: list[list[str]] = [[] for _shard in range(shards)]
    before = 0
    for name, shape in shapes.items():
        names[min(shards - 1, before * shards // total)].append(name)
        before += _size(shape)
    filled = [group for group in names if group]  # a small model may have no tensor for each shard
    weight_map = {}
    for number, group in enumerate(filled):
        file_name = _shard_name(number, len(filled))
        _write_safetensors(directory / file_name, {name: shapes[name] for name in group}, f"{seed} {number}")
        weight_map.update(dict.fromkeys(group, file_name))
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    _write_json(directory / "model.safetensors.index.json", index)


def _write_safetensors(path: Path, shapes: dict[str, Shape], stream: str) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in shapes.items():
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, offset + _size(shape)]}
        offset += _size(shape)
    encoded = json.dumps(header, separators=(",", ":")).encode("utf-8")
    encoded += b" " * (-len(encoded) % _ALIGNMENT)
    with open(path, "wb") as output:
        output.write(struct.pack("<Q", len(encoded)) + encoded)
        for block in _random_blocks(offset, stream):
            output.write(_finite(block))


def _write_random(output: BinaryIO, size: int, stream: str) -> None:
    for block in _random_blocks(size, stream):
        output.write(block)


def _random_blocks(size: int, stream: str) -> Iterator[bytes]:
    """Random bytes that a seed repeats. SHAKE is twice as fast as the random module, and never repeats itself,
    so that no store can save by finding equal blocks."""
    for number in range(math.ceil(size / _BLOCK)):
        block = hashlib.shake_128(f"{stream} {number}".encode("ascii")).digest(_BLOCK)
        yield block[: size - number * _BLOCK]


def _finite(block: bytes) -> bytes:
    """The same as BF16 values below 2: random bits would make one in 256 infinite, or no number at all.

    That is what the highest bit of the exponent decides, in the second of a value's two bytes. One operation on one
    huge integer is faster than any loop, and needs no numpy.
    """
    mask = _FINITE if len(block) == _BLOCK else _FINITE & ((1 << 8 * len(block)) - 1)
    return (int.from_bytes(block, "little") & mask).to_bytes(len(block), "little")


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
