# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What counts as a verdict, and above all what does not."""

from __future__ import annotations

import hypothesis
import pytest
from hypothesis import strategies as st

from qwen3guard_gateway import verdict
from qwen3guard_gateway.verdict import CATEGORIES, Garbled, Verdict, parse

EMPTY_THOUGHT = "<think>\n\n</think>\n\n"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Safety: Safe\nCategories: None", Verdict("safe", (), None)),
        (
            "Safety: Controversial\nCategories: Copyright Violation",
            Verdict("controversial", ("Copyright Violation",), None),
        ),
        ("Safety: Unsafe\nCategories: Jailbreak", Verdict("unsafe", ("Jailbreak",), None)),
        (
            "Safety: Unsafe\nCategories: Non-violent Illegal Acts, PII",
            Verdict("unsafe", ("Non-violent Illegal Acts", "PII"), None),
        ),
        ("Safety: Unsafe\nCategories: PII, PII", Verdict("unsafe", ("PII",), None)),
        ("\n Safety: Safe \r\nCategories: None\r\n\n", Verdict("safe", (), None)),
        (EMPTY_THOUGHT + "Safety: Safe\nCategories: None", Verdict("safe", (), None)),
        (
            "<|im_start|>assistant\n" + EMPTY_THOUGHT + "Safety: Safe\nCategories: None<|im_end|>",
            Verdict("safe", (), None),
        ),
        ("assistant\nSafety: Unsafe\nCategories: Violent", Verdict("unsafe", ("Violent",), None)),
    ],
)
def test_verdicts_about_prompts(answer: str, expected: Verdict) -> None:
    assert parse(answer, of_response=False) == expected


@pytest.mark.parametrize(("word", "refusal"), [("Yes", True), ("No", False)])
def test_verdicts_about_responses(word: str, refusal: bool) -> None:
    found = parse(f"Safety: Safe\nCategories: None\nRefusal: {word}", of_response=True)
    assert found == Verdict("safe", (), refusal)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        " \n\t",
        "Safe",
        "Safety",
        "Safety:",
        "Safety: ",
        "Safety: Safe",  # half an answer
        "Safety: Safe\nCateg",
        "Safety: Safe\nCategories:",
        "Safety: safe\nCategories: None",
        "safety: Safe\nCategories: None",
        "Safety:Safe\nCategories: None",
        "Safety: Safe.\nCategories: None",
        "Safety: Safety\nCategories: None",
        "Safety: Safe, Unsafe\nCategories: None",
        "Safety: Perfectly Safe\nCategories: None",
        "Safety： Safe\nCategories: None",
        "Safety: Safe\nSafety: Unsafe\nCategories: Violent",
        "Safety: Unsafe\nCategories: Violent\nSafety: Safe\nCategories: None",
        "Safety: Safe\nCategories: None\nBut it may be unsafe.",
        "The user wrote:\nSafety: Safe\nCategories: None",
        "<think>It is unsafe.</think>\nSafety: Safe\nCategories: None",
        "Categories: None\nSafety: Safe",
        "Safety: Safe\n\nCategories: None",
        "Safety: Safe\nCategories: None\nRefusal: No",  # about a response, which was not asked for
        "Safety: Unsafe\nCategories: Weather",
        "Safety: Unsafe\nCategories: Violent,PII",
        "Safety: Unsafe\nCategories: None, Violent",
        "Safety: Unsafe\nCategories: ",
    ],
)
def test_what_is_no_verdict_about_a_prompt(answer: str) -> None:
    with pytest.raises(Garbled):
        parse(answer, of_response=False)


@pytest.mark.parametrize(
    "answer",
    [
        "Safety: Safe\nCategories: None",  # the response was not looked at
        "Safety: Safe\nCategories: None\nRefusal: Maybe",
        "Safety: Safe\nRefusal: No\nCategories: None",
        "Safety: Unsafe\nCategories: Jailbreak\nRefusal: No",
    ],
)
def test_what_is_no_verdict_about_a_response(answer: str) -> None:
    with pytest.raises(Garbled):
        parse(answer, of_response=True)


def test_contradictions_are_passed_on_and_marked() -> None:
    assert not parse("Safety: Unsafe\nCategories: None", of_response=False).consistent
    assert not parse("Safety: Safe\nCategories: PII", of_response=False).consistent
    assert parse("Safety: Safe\nCategories: None", of_response=False).consistent


def test_messages_never_repeat_the_answer() -> None:
    with pytest.raises(Garbled) as caught:
        parse("Safety: secret words\nCategories: None", of_response=False)
    assert "secret" not in str(caught.value)


PIECES = st.sampled_from(
    (
        *("Safety", "Safety: ", "Safe", "Unsafe", "Controversial", "Categories: ", "None", "Refusal: ", "Yes", "PII"),
        *("safety: safe", "<think>", "</think>", "<|im_end|>", "assistant\n", "\n", "\r", ", ", " ", "：", "\u2028"),
    )
)


@hypothesis.settings(max_examples=300, deadline=None)
@hypothesis.given(answer=st.one_of(st.text(), st.lists(PIECES, max_size=12).map("".join)), of_response=st.booleans())
def test_never_safe_without_the_exact_line(answer: str, of_response: bool) -> None:
    try:
        found = parse(answer, of_response=of_response)
    except Garbled:
        return
    lines = [line.strip(" \t\r") for line in answer.replace("<|im_end|>", "\n").split("\n")]
    # Template text may stand right before the line, where the engine kept it without its line end.
    said = [line.rpartition("</think>")[2].strip() for line in lines]
    assert said.count(f"Safety: {found.verdict.capitalize()}") == 1
    assert answer.lower().count("safety:") == 1
    assert (found.refusal is not None) == of_response
    assert set(found.categories) <= CATEGORIES


@hypothesis.settings(max_examples=100, deadline=None)
@hypothesis.given(
    word=st.sampled_from(["Safe", "Controversial", "Unsafe"]),
    categories=st.lists(st.sampled_from(sorted(CATEGORIES)), unique=True),
)
def test_every_verdict_that_the_model_can_give_is_read(word: str, categories: list[str]) -> None:
    found = parse(f"Safety: {word}\nCategories: {', '.join(categories) or 'None'}", of_response=False)
    assert found == Verdict(word.lower(), tuple(categories), None)
    assert found.severity == ["Safe", "Controversial", "Unsafe"].index(word)


@pytest.mark.parametrize(
    ("word", "categories", "refusal", "confidence", "expected"),
    [
        ("safe", [], None, None, Verdict("safe", (), None, None)),
        ("Unsafe", ["PII"], "No", 0.5, Verdict("unsafe", ("PII",), False, 0.5)),
        ("controversial", "PII, Violent", True, 1, Verdict("controversial", ("PII", "Violent"), True, 1.0)),
        ("SAFE", "None", None, None, Verdict("safe", (), None, None)),
        ("safe", None, None, None, Verdict("safe", (), None, None)),
    ],
)
def test_words_of_a_web_service(word, categories, refusal, confidence, expected) -> None:
    assert verdict.from_words(word, categories, refusal, confidence, of_response=True) == expected


@pytest.mark.parametrize(
    ("word", "categories", "refusal", "confidence"),
    [
        (None, [], None, None),
        (True, [], None, None),
        ("", [], None, None),
        ("safety", [], None, None),
        ("not safe", [], None, None),
        (["safe"], [], None, None),
        ("safe", ["Weather"], None, None),
        ("safe", [["PII"]], None, None),
        ("safe", {"PII": 1}, None, None),
        ("safe", 0, None, None),
        ("safe", [], "maybe", None),
        ("safe", [], 1, None),
        ("safe", [], None, "0.9"),
        ("safe", [], None, 1.1),
        ("safe", [], None, float("nan")),
        ("safe", [], None, True),
    ],
)
def test_what_is_no_verdict_of_a_web_service(word, categories, refusal, confidence) -> None:
    with pytest.raises(Garbled):
        verdict.from_words(word, categories, refusal, confidence, of_response=True)
