# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The two kinds of upstream: an OpenAI-compatible engine that runs Qwen3Guard-Gen, and the web image's own API."""

from __future__ import annotations

import math
import re
import typing as t

from . import verdict
from .config import Upstream
from .upstream import Protocol
from .verdict import Garbled, Verdict

_SAFETY_WORD = re.compile(r"Safety: ([A-Za-z]+)")


class OpenAi:
    """``/v1/chat/completions`` of vLLM, SGLang, ``transformers serve``..."""

    path = "/v1/chat/completions"

    def __init__(self, settings: Upstream):
        self._fixed: dict[str, t.Any] = {
            "model": settings.model,
            "temperature": 0,
            "max_tokens": settings.max_tokens,
            "stream": False,
        }
        if settings.logprobs:
            self._fixed["logprobs"] = True

    def request(self, text: str, response: str | None) -> dict[str, t.Any]:
        messages = [{"role": "user", "content": without_tokens(text)}]
        if response is not None:
            messages.append({"role": "assistant", "content": without_tokens(response)})
        return {**self._fixed, "messages": messages}

    def verdict(self, answer: t.Any, *, of_response: bool) -> Verdict:
        try:
            (choice,) = answer["choices"]
            content = choice["message"]["content"]
            finished = choice.get("finish_reason")
            logprobs = choice.get("logprobs")
        except (TypeError, KeyError, ValueError, AttributeError):
            raise Garbled("the answer is not one chat completion") from None
        if content is None:
            content = ""
        if not isinstance(content, str):
            raise Garbled("the answer's content is no text")
        if finished not in ("stop", None):
            raise Garbled("the answer was cut off before its end")
        return verdict.parse(content, of_response=of_response)._replace(confidence=_confidence(logprobs))


def without_tokens(text: str) -> str:
    """A text that cannot pose as a turn of the conversation.

    Engines read ``<|im_end|>`` in a message as the real token: a text could end its turn and write a verdict itself.
    """
    return text.replace("<|", "< |")


def _confidence(logprobs: t.Any) -> float | None:
    """The probability of the verdict's word: the product over its tokens. None where the engine gave none."""
    try:
        tokens = [(entry["token"], float(entry["logprob"])) for entry in logprobs["content"]]
        match = _SAFETY_WORD.search("".join(token for token, _logprob in tokens))
    except (TypeError, KeyError, ValueError):
        return None
    if match is None:
        return None
    start, total = 0, 0.0
    for token, logprob in tokens:
        if start < match.end(1) and start + len(token) > match.start(1):
            total += logprob
        start += len(token)
    return round(math.exp(total), 6) if -1000 < total <= 0 else None


class Web:
    """``/api/audit`` of a qwen3guard-gen-web image: its verdict is kept as it is."""

    path = "/api/audit"

    def __init__(self, settings: Upstream):
        self._fields = settings.fields

    def request(self, text: str, response: str | None) -> dict[str, t.Any]:
        body = {self._fields["text"]: text}
        if response is not None:
            body[self._fields["response"]] = response
        return body

    def verdict(self, answer: t.Any, *, of_response: bool) -> Verdict:
        if not isinstance(answer, dict):
            raise Garbled("the answer is no JSON object")
        word, categories, refusal, confidence = (
            answer.get(self._fields[name]) for name in ("verdict", "categories", "refusal", "confidence")
        )
        return verdict.from_words(word, categories, refusal, confidence, of_response=of_response)


def make_protocol(settings: Upstream) -> Protocol:
    """By ``upstream.kind``."""
    return Web(settings) if settings.kind == "web" else OpenAi(settings)
