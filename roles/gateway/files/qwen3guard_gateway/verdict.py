# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the guard model says, read strictly: whatever is not exactly a verdict is an error, and never "safe"."""

from __future__ import annotations

import re
import typing as t

SAFE, CONTROVERSIAL, UNSAFE = "safe", "controversial", "unsafe"
SEVERITIES = {SAFE: 0, CONTROVERSIAL: 1, UNSAFE: 2}
LABELS = {
    "en": {SAFE: "Safe", CONTROVERSIAL: "Controversial", UNSAFE: "Unsafe"},
    "zh": {SAFE: "安全", CONTROVERSIAL: "有争议", UNSAFE: "不安全"},
}
JAILBREAK = "Jailbreak"  # of prompts only
CATEGORIES = frozenset(
    (
        "Violent",
        "Non-violent Illegal Acts",
        "Sexual Content or Sexual Acts",
        "PII",
        "Suicide & Self-Harm",
        "Unethical Acts",
        "Politically Sensitive Topics",
        "Copyright Violation",
        JAILBREAK,
    )
)
# The model's words. Case counts: nothing is guessed from what only resembles them.
_VERDICTS = {"Safe": SAFE, "Controversial": CONTROVERSIAL, "Unsafe": UNSAFE}
_REFUSALS = {"Yes": True, "No": False}

# What an engine may leave of the chat template: turn tokens, the role's name, an empty thought.
_TEMPLATE = re.compile(r"\A(?:\s|<\|[a-z_]{1,20}\|>|assistant\s*\n|<think>\s*</think>)*")
_TURN_END = re.compile(r"(?:\s|<\|[a-z_]{1,20}\|>)*\Z")


class Verdict(t.NamedTuple):
    """One audit's outcome. ``consistent`` is false where verdict and categories contradict each other."""

    verdict: str
    categories: tuple[str, ...]
    refusal: bool | None
    confidence: float | None = None

    @property
    def severity(self) -> int:
        return SEVERITIES[self.verdict]

    @property
    def consistent(self) -> bool:
        return (self.verdict == SAFE) == (not self.categories)


class Garbled(Exception):
    """The upstream's answer is not a verdict. The text says what is wrong without repeating users' words."""


def parse(answer: str, *, of_response: bool) -> Verdict:
    """Read the guard model's answer: two lines about a prompt, three about a response, in their order.

    A contradiction between verdict and categories is the model's own: it is passed on as said.
    """
    if not answer.strip():
        raise Garbled("the answer is empty")
    start = _TEMPLATE.match(answer)
    end = _TURN_END.search(answer)
    body = answer[start.end() if start else 0 : end.start() if end else len(answer)]
    lines = [line.rstrip("\r \t") for line in body.split("\n")]
    expected = ("Safety", "Categories", "Refusal") if of_response else ("Safety", "Categories")
    if len(lines) != len(expected):
        raise Garbled(f"the answer has {len(lines)} lines instead of the {len(expected)}: {', '.join(expected)}")
    values = []
    for line, name in zip(lines, expected):
        found, separator, value = line.partition(": ")
        if found != name or not separator:
            raise Garbled(f"the answer has another line where '{name}: …' should be")
        values.append(value)
    if values[0] not in _VERDICTS:
        raise Garbled("the answer's 'Safety' is none of Safe, Controversial, Unsafe")
    if of_response and values[2] not in _REFUSALS:
        raise Garbled("the answer's 'Refusal' is neither Yes nor No")
    return Verdict(
        verdict=_VERDICTS[values[0]],
        categories=_parse_categories(values[1], of_response),
        refusal=_REFUSALS[values[2]] if of_response else None,
    )


def _parse_categories(value: str, of_response: bool) -> tuple[str, ...]:
    if value == "None":
        return ()
    return check_categories(value.split(", "), of_response)


def check_categories(names: t.Sequence[t.Any], of_response: bool) -> tuple[str, ...]:
    """Known ones, each once, in the order given."""
    for name in names:
        if not isinstance(name, str) or name not in CATEGORIES:
            raise Garbled("the answer has a category that is none of the model's")
        if of_response and name == JAILBREAK:
            raise Garbled(f"the answer puts a response into {JAILBREAK}, which is for prompts")
    return tuple(dict.fromkeys(names))


def from_words(word: t.Any, categories: t.Any, refusal: t.Any, confidence: t.Any, *, of_response: bool) -> Verdict:
    """The verdict of a service that has parsed the model's answer already; its words in any case, nothing else."""
    verdict = word.lower() if isinstance(word, str) else ""
    if verdict not in SEVERITIES:
        raise Garbled("the verdict is none of safe, controversial, unsafe")
    if categories is None or categories == "None":
        categories = []
    if isinstance(categories, str):
        categories = categories.split(", ")
    if not isinstance(categories, list):
        raise Garbled("the categories are neither a list nor a text")
    known = check_categories([name for name in categories if name != "None"], of_response)
    if isinstance(refusal, str):
        refusal = _REFUSALS.get(refusal, refusal)
    if refusal is not None and not isinstance(refusal, bool):
        raise Garbled("the refusal is neither true, false, Yes nor No")
    return Verdict(verdict, known, refusal if of_response else None, check_confidence(confidence))


def check_confidence(value: t.Any) -> float | None:
    """A probability, or nothing."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise Garbled("the confidence is no number from 0 to 1")
    return round(float(value), 6)
