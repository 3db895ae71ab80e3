# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a directory holds a model that loads: what the verification level ``loaded`` asks.

Three depths, each adding to the one before: everything that the files themselves say, without any library; the
libraries ``safetensors`` and ``tokenizers``; and ``transformers`` with torch, which loads the model and asks it
labelled questions (canaries). The verdict names what could not be checked.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import os
import re
import typing as t

from ..errors import GuardError
from ..services.transformers_run import load_and_ask
from .model_shapes import check_special_tokens, check_vocabulary, compare_shapes, number, vocabulary_of
from .model_tensors import HAS_NUMPY, BadFile, Tensor, open_regular, parse_json, read_contents, read_header

SAFETIES = ("Safe", "Unsafe", "Controversial")
CATEGORIES = (
    "Violent",
    "Non-violent Illegal Acts",
    "Sexual Content or Sexual Acts",
    "PII",
    "Suicide & Self-Harm",
    "Unethical Acts",
    "Politically Sensitive Topics",
    "Copyright Violation",
    "Jailbreak",
)
_VERDICT = re.compile(r"Safety: (Safe|Unsafe|Controversial)\nCategories: ([^\n]+)\s*")
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
_SAMPLE = "Is this text safe? 这段文字安全吗？ 1 + 1 = 2\n"
_TEXT_FILE_LIMIT = 256 << 20
_INDEX = "model.safetensors.index.json"


@dataclasses.dataclass
class _Check:
    """One check while it goes on."""

    path: str
    failures: list[str] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)
    not_checked: list[str] = dataclasses.field(default_factory=list)
    tensors: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    shards: dict[str, list[Tensor]] = dataclasses.field(default_factory=dict)
    tokens: dict[str, int] | None = None
    room: int | None = None
    parameters: int = 0
    method: str = "headers"
    canaries: list[dict[str, t.Any]] = dataclasses.field(default_factory=list)

    def verdict(self) -> dict[str, t.Any]:
        """The machine form."""
        return {
            "ok": not self.failures,
            "failures": self.failures,
            "warnings": self.warnings,
            "not_checked": self.not_checked,
            "tensors": len(self.tensors),
            "bytes": sum(one.end - one.begin for one in self.tensors.values()),
            "parameters": self.parameters,
            "method": self.method,
            "canaries": self.canaries,
        }

    def json(self, name: str, needed: bool = True) -> dict[str, t.Any] | None:
        """The object that a JSON file holds; None where it is absent or broken, which is then a failure."""
        try:
            with open_regular(os.path.join(self.path, name)) as handle:
                if os.fstat(handle.fileno()).st_size > _TEXT_FILE_LIMIT:
                    raise BadFile(f"expected at most {_TEXT_FILE_LIMIT} bytes, found more")
                found = parse_json(handle.read())
            if not isinstance(found, dict):
                raise BadFile("expected an object, found something else")
            return found
        except FileNotFoundError:
            if needed:
                self.failures.append(f"{name}: expected a file, found none")
        except BadFile as error:
            self.failures.append(f"{name}: {error}")
        except OSError as error:
            self.failures.append(f"{name}: expected a file that can be read, found {error.strerror}")
        return None


def check_model(
    path: str,
    canaries: t.Sequence[dict[str, t.Any]] | None = None,
    use_transformers: str | bool = "auto",
    python: str | None = None,
    timeout: float = 900.0,
) -> dict[str, t.Any]:
    """Check the model in ``path``; never changes anything.

    ``canaries`` are questions with the verdict that the model must give: ``text``, ``safety``, ``categories``.
    ``use_transformers`` is ``auto`` (when at hand), True (a failure when not) or False. ``python`` is the interpreter
    that has torch and transformers; without it, the one that runs this.
    """
    questions = [_canary(one) for one in canaries or []]
    check = _Check(path)
    try:
        names = sorted(os.listdir(path))
    except OSError as error:
        check.failures.append(f"{path}: expected a directory with a model, found {error.strerror}")
        check.not_checked.append("the model: its directory could not be read")
        return check.verdict()
    _check_files(check, names)
    _check_configuration(check, names)
    _check_contents(check)
    _check_with_libraries(check)
    _check_with_transformers(check, questions, use_transformers, python, timeout)
    return check.verdict()


def parse_verdict(text: str) -> tuple[str, list[str]] | None:
    """Qwen3Guard's answer about a prompt, as safety and sorted categories; None for anything else."""
    match = _VERDICT.fullmatch(text.strip())
    if not match:
        return None
    named = match.group(2).strip()
    categories = [] if named == "None" else named.split(", ")
    if len(set(categories)) != len(categories) or not set(categories) <= set(CATEGORIES):
        return None
    return match.group(1), sorted(categories)


def _canary(one: dict[str, t.Any]) -> tuple[str, str, list[str]]:
    text, safety, categories = one.get("text"), one.get("safety"), one.get("categories", [])
    if not isinstance(text, str) or not text:
        raise GuardError("canaries", "a text in each", repr(one)[:200])
    if safety not in SAFETIES:
        raise GuardError(f"canary {text[:40]!r}", f"safety as one of {', '.join(SAFETIES)}", repr(safety))
    if not isinstance(categories, list) or not all(name in CATEGORIES for name in categories):
        raise GuardError(f"canary {text[:40]!r}", f"categories of {', '.join(CATEGORIES)}", repr(categories))
    return text, safety, sorted(categories)


# -- the files


def _check_files(check: _Check, names: list[str]) -> None:
    """Headers of all safetensors files, and the index against them, both ways."""
    pickles = [name for name in names if name.endswith(_PICKLES)]
    if pickles:
        check.warnings.append(f"pickle files, which can run code and are never opened: {', '.join(pickles)}")
    present = [name for name in names if name.endswith(".safetensors")]
    if not present:
        check.failures.append(f"{check.path}: expected safetensors files, found none")
    weight_map: dict[str, str] | None = None
    metadata: t.Any = None
    if _INDEX in names:
        index = check.json(_INDEX) or {}
        weight_map, metadata = _weight_map(check, index), index.get("metadata")
        used = sorted(set(weight_map.values())) if weight_map else present
    else:
        used = ["model.safetensors"]
        if present and used[0] not in present:
            check.failures.append(f"{_INDEX}: expected it, or model.safetensors, found only {', '.join(present[:3])}")
    for name in sorted(set(present) - set(used)):
        check.warnings.append(f"{name}: neither model.safetensors nor in {_INDEX}, so it is not part of the model")
    for name in used:
        if name in present:
            _read_shard(check, name)
        elif weight_map:
            check.failures.append(f"{name}: expected a file, as {_INDEX} lists it, found none")
    check.parameters = sum(math.prod(one.shape) for one in check.tensors.values())
    if weight_map:
        _check_index(check, weight_map, metadata)


def _read_shard(check: _Check, name: str) -> None:
    try:
        with open_regular(os.path.join(check.path, name)) as handle:
            check.shards[name] = read_header(handle)
    except (BadFile, OSError) as error:
        check.failures.append(f"{name}: {error}")
        return
    for tensor in check.shards[name]:
        if tensor.name in check.tensors:
            check.failures.append(f"tensor {tensor.name}: expected in one file, found again in {name}")
        check.tensors[tensor.name] = tensor


def _weight_map(check: _Check, index: dict[str, t.Any]) -> dict[str, str] | None:
    found = index.get("weight_map")
    names = found.values() if isinstance(found, dict) else []
    if not names or not all(isinstance(n, str) and n.endswith(".safetensors") and "/" not in n for n in names):
        check.failures.append(f"{_INDEX}: expected a weight_map to safetensors files, found something else")
        return None
    return t.cast("dict[str, str]", found)


def _check_index(check: _Check, weight_map: dict[str, str], metadata: t.Any) -> None:
    """The index against the files, both ways, and its sum."""
    for name, tensors in check.shards.items():
        held = {tensor.name for tensor in tensors}
        listed = {tensor for tensor, file in weight_map.items() if file == name}
        for tensor in sorted(listed - held):
            check.failures.append(f"tensor {tensor}: expected in {name}, as {_INDEX} says, found no such tensor there")
        for tensor in sorted(held - listed):
            check.failures.append(f"tensor {tensor}: found in {name}, expected it in {_INDEX} too")
    stated = metadata.get("total_size") if isinstance(metadata, dict) else None
    found = sum(one.end - one.begin for tensors in check.shards.values() for one in tensors)
    if stated is None:
        check.warnings.append(f"{_INDEX}: no total_size")
    elif stated != found and set(check.shards) == set(weight_map.values()):
        check.failures.append(f"{_INDEX}: expected total_size {found}, the sum of the tensors, found {stated!r}")


def _check_configuration(check: _Check, names: list[str]) -> None:
    """config.json against the tensors; tokenizer, special tokens, chat template and generation settings."""
    config = check.json("config.json")
    if config is not None:
        try:
            check.room = number(config, "vocab_size")
            _check_shapes(check, config)
        except BadFile as error:
            check.failures.append(f"config.json, {error}")
        if "auto_map" in config:
            check.warnings.append("config.json: names code of its own (auto_map), which is never run")
    else:
        check.not_checked.append("the shapes of the tensors: config.json could not be used")
    tokenizer = check.json("tokenizer.json")
    if tokenizer is not None:
        try:
            check.tokens = vocabulary_of(tokenizer)
            if config is not None and check.room is not None:
                failures, warnings = check_vocabulary(config, check.tokens)
                check.failures += failures
                check.warnings += warnings
        except BadFile as error:
            check.failures.append(f"tokenizer.json: {error}")
    settings = check.json("tokenizer_config.json")
    generation = check.json("generation_config.json", needed=False)
    if "generation_config.json" not in names:
        check.warnings.append("generation_config.json: none; the defaults of the engine apply")
    named = (("config.json", config), ("tokenizer_config.json", settings), ("generation_config.json", generation))
    for name, found in named:
        if found is not None:
            check.failures += check_special_tokens(name, found, check.room, check.tokens)
    _check_chat_template(check, settings, names)


def _check_shapes(check: _Check, config: dict[str, t.Any]) -> None:
    if config.get("model_type") != "qwen3":
        check.not_checked.append(f"the shapes of the tensors: model_type is {config.get('model_type')!r}, not qwen3")
    elif "quantization_config" in config:
        check.not_checked.append("the shapes of the tensors: the model is quantized")
    else:
        failures, warnings = compare_shapes(config, check.tensors)
        check.failures += failures
        check.warnings += warnings


def _check_chat_template(check: _Check, settings: dict[str, t.Any] | None, names: list[str]) -> None:
    if settings is not None and settings.get("chat_template"):
        return
    if "chat_template.jinja" in names and os.path.getsize(os.path.join(check.path, "chat_template.jinja")) > 0:
        return
    check.failures.append("chat template: expected in tokenizer_config.json or chat_template.jinja, found none")


# -- the bytes


def _check_contents(check: _Check) -> None:
    """Read every byte of every tensor; what is zero throughout or not a number was not trained so."""
    unlooked: set[str] = set()
    for name, tensors in check.shards.items():
        try:
            with open_regular(os.path.join(check.path, name)) as handle:
                for tensor in tensors:
                    _check_tensor(check, tensor, handle, unlooked)
        except (BadFile, OSError) as error:
            check.failures.append(f"{name}: {error}")
    if unlooked:
        why = "numpy cannot look into them" if HAS_NUMPY else "numpy is not installed"
        check.not_checked.append(f"NaN and infinity in tensors of {', '.join(sorted(unlooked))}: {why}")


def _check_tensor(check: _Check, tensor: Tensor, handle: t.BinaryIO, unlooked: set[str]) -> None:
    contents = read_contents(handle, tensor)
    if contents.zero:
        # Biases may well begin, and stay, at zero.
        target = check.warnings if tensor.name.endswith(".bias") else check.failures
        target.append(f"tensor {tensor.name}: expected trained numbers, found zeros only")
    if contents.zero_stretch:
        check.warnings.append(f"tensor {tensor.name}: 8 MiB or more of zeros in a row")
    if contents.finite is False:
        check.failures.append(f"tensor {tensor.name}: expected finite numbers, found NaN or infinity")
    if contents.finite is None and tensor.dtype.startswith(("F", "BF", "C")):
        unlooked.add(tensor.dtype)


# -- the libraries


def _check_with_libraries(check: _Check) -> None:
    if importlib.util.find_spec("safetensors") is not None and HAS_NUMPY:
        check.method = "safetensors"
        _open_with_safetensors(check)
    else:
        check.not_checked.append("opening with the safetensors library: it or numpy is not installed")
    if importlib.util.find_spec("tokenizers") is None:
        check.not_checked.append("encoding a text: tokenizers is not installed")
    elif check.tokens is not None:
        _encode_sample(check)


def _open_with_safetensors(check: _Check) -> None:
    import safetensors

    for name, tensors in check.shards.items():
        try:
            with safetensors.safe_open(os.path.join(check.path, name), framework="numpy") as opened:
                shapes = {key: tuple(opened.get_slice(key).get_shape()) for key in opened.keys()}  # noqa: SIM118
        except (safetensors.SafetensorError, OSError) as error:
            check.failures.append(f"{name}: expected a file that safetensors opens, found {error}")
            continue
        if shapes != {tensor.name: tensor.shape for tensor in tensors}:
            check.failures.append(f"{name}: expected the tensors that its header lists, found others by safetensors")


def _encode_sample(check: _Check) -> None:
    import tokenizers

    try:
        tokenizer = tokenizers.Tokenizer.from_file(os.path.join(check.path, "tokenizer.json"))
        numbers = tokenizer.encode(_SAMPLE, add_special_tokens=False).ids
        back = tokenizer.decode(numbers, skip_special_tokens=False)
    except Exception as error:  # noqa: BLE001 - the library raises Exception itself, no class of its own
        check.failures.append(f"tokenizer.json: expected a tokenizer that loads, found {error}")
        return
    if back != _SAMPLE:
        check.failures.append(f"tokenizer.json: expected {_SAMPLE!r} encoded and decoded, found {back!r}")
    if check.room is not None and any(n >= check.room for n in numbers):
        check.failures.append(f"tokenizer.json: expected numbers below vocab_size {check.room}, found {max(numbers)}")


def _check_with_transformers(
    check: _Check, questions: list[tuple[str, str, list[str]]], use: str | bool, python: str | None, timeout: float
) -> None:
    if use is False:
        check.not_checked.append("the model was not run: transformers was not to be used")
        return
    if check.failures:
        check.not_checked.append("the model was not run: its files are wrong already")
        return
    outcome = load_and_ask(check.path, [text for text, _safety, _categories in questions], python, timeout)
    if outcome.missing:
        reason = f"{outcome.missing[0]} is not installed: the model was not run"
        (check.not_checked if use == "auto" else check.failures).append(reason)
        return
    check.method = "transformers"
    if outcome.error:
        check.failures.append(f"transformers: expected a model that loads and answers, found {outcome.error}")
        return
    for kind, names in outcome.problems.items():
        check.failures.append(f"transformers: expected every weight in its place, found {kind}: {', '.join(names[:5])}")
    check.parameters = outcome.parameters
    if not questions:
        check.not_checked.append("the model's answers: no canaries were given")
    for (text, safety, categories), answer in zip(questions, outcome.answers):
        right = parse_verdict(answer) == (safety, categories)
        expected = {"safety": safety, "categories": categories}
        check.canaries.append({"text": text, "expected": expected, "answer": answer, "ok": right})
        if not right:
            wanted = f"Safety: {safety}, Categories: {', '.join(categories) or 'None'}"
            check.failures.append(f"canary {text[:60]!r}: expected {wanted}, found {answer[:200]!r}")
    if len(outcome.answers) != len(questions):
        check.failures.append(f"canaries: expected {len(questions)} answers, found {len(outcome.answers)}")
