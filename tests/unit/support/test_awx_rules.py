# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The stand-in for AWX refuses what AWX refuses: otherwise the role's tests would say nothing."""

from __future__ import annotations

import typing as t

import pytest

from support.awx_rules import Refused, check_answers, check_injectors, check_rule, check_survey

QUESTION = {"question_name": "What?", "variable": "what", "type": "multiselect", "choices": ["a"], "required": True}


def survey(**changes: t.Any) -> dict[str, t.Any]:
    return {"name": "n", "description": "d", "spec": [{**QUESTION, **changes}]}


@pytest.mark.parametrize(
    "rule",
    [
        "RRULE:FREQ=DAILY;INTERVAL=1",
        "DTSTART:20260101T020000 RRULE:FREQ=DAILY;INTERVAL=1",
        "DTSTART;TZID=Nowhere/City:20260101T020000 RRULE:FREQ=DAILY;INTERVAL=1",
        "DTSTART;TZID=UTC:20260101T020000 RRULE:FREQ=DAILY",
        "DTSTART;TZID=UTC:20260101T020000 RRULE:FREQ=MONTHLY;INTERVAL=1;BYDAY=1WE",
        "DTSTART;TZID=UTC:20260101T020000 RRULE:FREQ=SOMETIMES;INTERVAL=1",
    ],
)
def test_rules(rule: str) -> None:
    check_rule("DTSTART;TZID=Asia/Shanghai:20260101T020000 RRULE:FREQ=DAILY;INTERVAL=1")
    with pytest.raises(Refused):
        check_rule(rule)


@pytest.mark.parametrize("answers", [{}, {"what": "a"}, {"what": ["b"]}, {"what": ["a"], "else": 1}])
def test_answers(answers: dict[str, t.Any]) -> None:
    check_answers([QUESTION], {"what": ["a"]})
    with pytest.raises(Refused):
        check_answers([QUESTION], answers)


@pytest.mark.parametrize("changes", [{"default": "b"}, {"default": ["a"]}, {"required": "yes"}, {"type": "list"}])
def test_surveys(changes: dict[str, t.Any]) -> None:
    check_survey(survey(default="a"))
    with pytest.raises(Refused):
        check_survey(survey(**changes))


def test_injectors() -> None:
    def credential_type(template: str) -> dict[str, t.Any]:
        injectors = {"file": {"template.conf": "{{ key }}"}, "extra_vars": {"name": template}}
        return {"inputs": {"fields": [{"id": "key"}]}, "injectors": injectors}

    check_injectors(credential_type("{{ key }} in {{ tower.filename.conf }}"))
    for template in ("{{ other }}", "{{ tower.filename.other }}"):
        with pytest.raises(Refused):
            check_injectors(credential_type(template))
