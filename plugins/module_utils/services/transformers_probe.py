# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Load a model with transformers and ask it: the program that runs in the interpreter that has torch.

Its source is handed to that interpreter, so it stands alone: no import from the collection. It reads a request
(JSON) from stdin and writes an answer (JSON) to stdout. What it does not catch ends on stderr.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import typing as t

NEEDED = ("torch", "transformers")


def load(path: str) -> tuple[t.Any, t.Any, dict[str, t.Any]]:
    """The tokenizer, the model, and what did not fit. No pickle, no code from the model, no network."""
    transformers: t.Any = importlib.import_module("transformers")
    safe: dict[str, t.Any] = {"local_files_only": True, "trust_remote_code": False}
    version = tuple(int(part) for part in transformers.__version__.split(".")[:2])
    dtype = "dtype" if version >= (4, 56) else "torch_dtype"
    tokenizer = transformers.AutoTokenizer.from_pretrained(path, **safe)
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        path, use_safetensors=True, output_loading_info=True, **{dtype: "auto"}, **safe
    )
    problems = {key: sorted(map(str, info[key])) for key in ("missing_keys", "mismatched_keys") if info.get(key)}
    model.eval()
    return tokenizer, model, problems


def ask(tokenizer: t.Any, model: t.Any, text: str, new_tokens: int) -> str:
    """The model's most likely answer to one question, as the service would put it."""
    torch: t.Any = importlib.import_module("torch")
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
    )
    inputs = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
    with torch.inference_mode():
        output = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            do_sample=False,
            max_new_tokens=new_tokens,
        )
    return str(tokenizer.decode(output[0][inputs["input_ids"].shape[1] :], skip_special_tokens=True))


def answer(request: dict[str, t.Any]) -> dict[str, t.Any]:
    """Do what was asked."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        return {"missing": missing}
    tokenizer, model, problems = load(request["path"])
    return {
        "problems": problems,
        "parameters": sum(one.numel() for one in model.parameters()),
        "answers": [ask(tokenizer, model, text, request["new_tokens"]) for text in request["texts"]],
    }


def main() -> None:
    """Answer the request on stdin. What libraries print goes to stderr, so that stdout holds the answer alone."""
    result = os.dup(1)
    os.dup2(2, 1)
    reply = json.dumps(answer(json.load(sys.stdin)))
    with os.fdopen(result, "w") as output:
        output.write(reply)


if __name__ == "__main__":
    main()
