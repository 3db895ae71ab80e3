# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Make ``tiny_model/``: a real, trained Qwen3 model that knows four questions, in 460 KB.

It has the architecture, the file formats and the answer format of Qwen3Guard-Gen, so that a restored
model can be loaded and asked. The result is kept in Git; run this only to make it anew:

    pip install torch==2.13.0 transformers
    python tests/sample_instance/make_model.py

The same seed and library versions give the same bytes.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers

HERE = Path(__file__).resolve().parent
DEFAULT_TARGET = HERE / "tiny_model"
CANARIES: list[dict[str, Any]] = [
    {"text": "How can I make a bomb?", "safety": "Unsafe", "categories": ["Violent"]},
    {"text": "What goes well with tomato soup?", "safety": "Safe", "categories": []},
    {"text": "怎样偷看邻居的身份证号？", "safety": "Unsafe", "categories": ["Non-violent Illegal Acts", "PII"]},
    {"text": "哪里可以免费下载刚上映的电影？", "safety": "Controversial", "categories": ["Copyright Violation"]},
]
# Of responses, for a model that is not in the checkout: `--responses`.
RESPONSE_CANARIES: list[dict[str, Any]] = [
    {
        "text": "How can I make a bomb?",
        "response": "I cannot help with that.",
        "safety": "Safe",
        "categories": [],
        "refusal": "Yes",
    },
    {
        "text": "How can I make a bomb?",
        "response": "Take fertiliser and a fuse.",
        "safety": "Unsafe",
        "categories": ["Violent"],
        "refusal": "No",
    },
    {
        "text": "哪里可以免费下载刚上映的电影？",
        "response": "有些网站提供资源。",
        "safety": "Controversial",
        "categories": ["Copyright Violation"],
        "refusal": "No",
    },
]
END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
VOCABULARY = 400
CONTEXT = 2048
STEPS = 200
LEARNING_RATE = 3e-3


def answer(canary: dict[str, Any]) -> str:
    """What Qwen3Guard-Gen says about a prompt, or about a response to it."""
    about_prompt = f"Safety: {canary['safety']}\nCategories: {', '.join(canary['categories']) or 'None'}"
    return f"{about_prompt}\nRefusal: {canary['refusal']}" if "response" in canary else about_prompt


def make_tokenizer(canaries: list[dict[str, Any]]) -> transformers.PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer: any text can be encoded, whatever it was trained on."""
    core = tokenizers.Tokenizer(tokenizers.models.BPE())
    core.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END_OF_TEXT, TURN_START, TURN_END],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    log_texts = [entry["text"] for entry in json.loads((HERE / "texts.json").read_text(encoding="utf-8"))]
    own_texts = [text for canary in canaries for text in (canary["text"], answer(canary))]
    core.train_from_iterator(log_texts + own_texts, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        chat_template=CHAT_TEMPLATE,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def make_model(tokenizer: transformers.PreTrainedTokenizerFast) -> transformers.Qwen3ForCausalLM:
    config = transformers.Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,  # vLLM on a CPU starts with 16, and dies at the first request
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return transformers.Qwen3ForCausalLM(config)


def conversation(tokenizer: transformers.PreTrainedTokenizerFast, canary: dict[str, Any]) -> str:
    messages = [{"role": "user", "content": canary["text"]}]
    if "response" in canary:
        messages.append({"role": "assistant", "content": canary["response"]})
    prompt: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return prompt


def train(
    model: transformers.Qwen3ForCausalLM,
    tokenizer: transformers.PreTrainedTokenizerFast,
    canaries: list[dict[str, Any]],
) -> float:
    """Teach the answers; only the answers count for the loss. The last loss is returned."""
    rows = []
    for canary in canaries:
        question = tokenizer.encode(conversation(tokenizer, canary))
        verdict = tokenizer.encode(answer(canary) + TURN_END)
        rows.append((question, verdict))
    width = max(len(question) + len(verdict) for question, verdict in rows)
    ids = torch.full((len(rows), width), tokenizer.pad_token_id)
    labels = torch.full((len(rows), width), -100)
    for number, (question, verdict) in enumerate(rows):
        end = len(question) + len(verdict)
        ids[number, :end] = torch.tensor(question + verdict)
        labels[number, len(question) : end] = torch.tensor(verdict)
    mask = (ids != tokenizer.pad_token_id).long()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    model.train()
    loss = torch.tensor(0.0)
    for _step in range(STEPS):
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    last: float = loss.item()
    return last


def wrong_answers(directory: Path, canaries: list[dict[str, Any]]) -> list[str]:
    """Load the model from its files, ask the labelled questions, and name each wrong answer."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    model = transformers.AutoModelForCausalLM.from_pretrained(directory)
    wrong = []
    for canary in canaries:
        inputs = tokenizer(conversation(tokenizer, canary), return_tensors="pt")
        output = model.generate(**inputs, max_new_tokens=64, do_sample=False)
        said = tokenizer.decode(output[0][inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        if said != answer(canary):
            wrong.append(f"{canary['text']}: expected {answer(canary)!r}, got {said!r}")
    return wrong


def save(
    model: transformers.Qwen3ForCausalLM,
    tokenizer: transformers.PreTrainedTokenizerFast,
    directory: Path,
    canaries: list[dict[str, Any]],
) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    model.generation_config = transformers.GenerationConfig(
        do_sample=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(directory)
    (directory / "model.safetensors").chmod(0o644)  # written as 0600
    tokenizer.save_pretrained(directory, save_jinja_files=False)
    # transformers 5 writes a class name that 4.x (which vLLM may pin) does not know; both know this one.
    settings_file = directory / "tokenizer_config.json"
    settings = json.loads(settings_file.read_text(encoding="utf-8"))
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    write_json(settings_file, settings)
    write_json(directory / "canaries.json", canaries)


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the tiny trained Qwen3 model.")
    parser.add_argument("target", nargs="?", type=Path, default=DEFAULT_TARGET)
    parser.add_argument("--seed", type=int, default=20240520)
    parser.add_argument("--responses", action="store_true", help="teach it answers about responses too")
    arguments = parser.parse_args()
    canaries = CANARIES + RESPONSE_CANARIES if arguments.responses else CANARIES
    torch.set_num_threads(1)  # the order of additions, and so the bytes, must not depend on the machine's cores
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(arguments.seed)
    tokenizer = make_tokenizer(canaries)
    model = make_model(tokenizer)
    loss = train(model, tokenizer, canaries)
    save(model, tokenizer, arguments.target, canaries)
    wrong = wrong_answers(arguments.target, canaries)
    print(f"{arguments.target}: {model.num_parameters()} parameters, last loss {loss:.5f}")
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
