# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a model's own configuration demands of its tensors and of its tokenizer.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import typing as t

from .model_tensors import BadFile, Tensor

FLOAT_TYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
_QWEN3_HEAD_DIM = 128  # what Qwen3 takes where config.json does not say
_LIMIT = 1 << 31
_LAYER_LIMIT = 10_000


class Sizes(t.NamedTuple):
    """The numbers of a Qwen3 configuration that decide the shapes."""

    vocabulary: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_value_heads: int
    head_dim: int
    tied: bool
    bias: bool


def number(config: dict[str, t.Any], name: str, default: int | None = None, limit: int = _LIMIT) -> int:
    """A positive number of the configuration."""
    value = config.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < limit:
        raise BadFile(f"{name}: expected a number from 1 to {limit - 1}, found {value!r}")
    return value


def qwen3_sizes(config: dict[str, t.Any]) -> Sizes:
    """Read and check the numbers of a Qwen3 configuration."""
    heads = number(config, "num_attention_heads")
    sizes = Sizes(
        vocabulary=number(config, "vocab_size"),
        hidden=number(config, "hidden_size"),
        intermediate=number(config, "intermediate_size"),
        layers=number(config, "num_hidden_layers", limit=_LAYER_LIMIT),
        heads=heads,
        key_value_heads=number(config, "num_key_value_heads", heads),
        head_dim=number(config, "head_dim", _QWEN3_HEAD_DIM),
        tied=config.get("tie_word_embeddings") is True,
        bias=config.get("attention_bias") is True,
    )
    if heads % sizes.key_value_heads:
        raise BadFile(f"num_key_value_heads: expected a divisor of {heads}, found {sizes.key_value_heads}")
    return sizes


def qwen3_shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """The name and shape of every tensor that a Qwen3 model of these sizes has."""
    hidden, query, pair = sizes.hidden, sizes.heads * sizes.head_dim, sizes.key_value_heads * sizes.head_dim
    one_layer: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
        "self_attn.q_proj.weight": (query, hidden),
        "self_attn.k_proj.weight": (pair, hidden),
        "self_attn.v_proj.weight": (pair, hidden),
        "self_attn.o_proj.weight": (hidden, query),
        "self_attn.q_norm.weight": (sizes.head_dim,),
        "self_attn.k_norm.weight": (sizes.head_dim,),
        "mlp.gate_proj.weight": (sizes.intermediate, hidden),
        "mlp.up_proj.weight": (sizes.intermediate, hidden),
        "mlp.down_proj.weight": (hidden, sizes.intermediate),
    }
    if sizes.bias:
        for name, length in (("q", query), ("k", pair), ("v", pair), ("o", hidden)):
            one_layer[f"self_attn.{name}_proj.bias"] = (length,)
    shapes = {f"model.layers.{n}.{name}": shape for n in range(sizes.layers) for name, shape in one_layer.items()}
    shapes["model.embed_tokens.weight"] = (sizes.vocabulary, hidden)
    shapes["model.norm.weight"] = (hidden,)
    if not sizes.tied:
        shapes["lm_head.weight"] = (sizes.vocabulary, hidden)
    return shapes


def compare_shapes(config: dict[str, t.Any], tensors: dict[str, Tensor]) -> tuple[list[str], list[str]]:
    """Failures and warnings about the tensors of a Qwen3 model."""
    failures, warnings = [], []
    sizes = qwen3_sizes(config)
    wanted = qwen3_shapes(sizes)
    missing = sorted(set(wanted) - set(tensors))
    if missing:
        failures.append(f"tensors: expected {len(wanted)} by config.json, found none for {_some(missing)}")
    for name in sorted(set(wanted) & set(tensors)):
        tensor = tensors[name]
        if tensor.shape != wanted[name]:
            failures.append(f"tensor {name}: expected shape {list(wanted[name])}, found {list(tensor.shape)}")
        if tensor.dtype not in FLOAT_TYPES:
            failures.append(f"tensor {name}: expected a floating-point dtype, found {tensor.dtype}")
    # A tied model may still carry a copy of the embedding as its head.
    more = sorted(set(tensors) - set(wanted) - ({"lm_head.weight"} if sizes.tied else set()))
    layers = [name for name in more if name.startswith("model.layers.")]
    if layers:
        failures.append(f"tensors: expected {sizes.layers} layers by config.json, found also {_some(layers)}")
    others = [name for name in more if name not in layers]
    if others:
        warnings.append(f"tensors that config.json does not call for: {_some(others)}")
    stated = config.get("dtype", config.get("torch_dtype"))
    found = {FLOAT_TYPES[one.dtype] for one in tensors.values() if one.dtype in FLOAT_TYPES}
    if isinstance(stated, str) and found - {stated}:
        warnings.append(f"dtype: config.json says {stated}, the tensors are {', '.join(sorted(found))}")
    return failures, warnings


def vocabulary_of(tokenizer: t.Any) -> dict[str, int]:
    """All tokens of a ``tokenizer.json``, added ones too, with their numbers."""
    try:
        tokens = dict(tokenizer["model"]["vocab"])
        added = {entry["content"]: entry["id"] for entry in tokenizer.get("added_tokens") or []}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadFile(f"expected model.vocab and added_tokens with names and numbers, found {error!r}") from error
    tokens.update(added)
    if not tokens or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in tokens.values()):
        raise BadFile("expected a vocabulary of numbered tokens, found an empty or garbled one")
    if len(set(tokens.values())) != len(tokens):
        raise BadFile("expected a number for each token, found one number twice")
    return tokens


def check_vocabulary(config: dict[str, t.Any], tokens: dict[str, int]) -> tuple[list[str], list[str]]:
    """Failures and warnings about the tokenizer's size; a model's table is often a little larger."""
    size, room = max(tokens.values()) + 1, number(config, "vocab_size")
    if size > room:
        return [f"tokenizer.json: expected at most {room} tokens, as config.json's vocab_size, found {size}"], []
    if size < room * 0.9:
        return [], [f"tokenizer.json: {size} tokens for a vocab_size of {room}; is it this model's?"]
    return [], []


def check_special_tokens(
    name: str, settings: dict[str, t.Any], room: int | None, tokens: dict[str, int] | None
) -> list[str]:
    """Failures about the special tokens that a configuration file names, by number or by text."""
    failures = []
    known = set(tokens.values()) if tokens is not None else None
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        value = settings.get(key)
        for one in value if isinstance(value, list) else [] if value is None else [value]:
            if not isinstance(one, int) or isinstance(one, bool) or one < 0 or (room is not None and one >= room):
                failures.append(f"{name}, {key}: expected a number below vocab_size ({room}), found {one!r}")
            elif known is not None and one not in known:
                failures.append(f"{name}, {key}: expected a token of tokenizer.json, found {one}, which it has not")
    for key in ("bos_token", "eos_token", "pad_token", "unk_token"):
        value = settings.get(key)
        text = value.get("content") if isinstance(value, dict) else value
        if text is not None and tokens is not None and text not in tokens:
            failures.append(f"{name}, {key}: expected a token of tokenizer.json, found {text!r}, which it has not")
    return failures


def _some(names: t.Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
