# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What AWX takes as a survey, as answers to one, as a recurrence rule, and as a credential type's injectors.

The rules are AWX's own (api/serializers.py, models/mixins.py, fields.py of version 24), as far as role awx could break
them; for the stand-in in fake_awx.py.
"""

from __future__ import annotations

import re
import typing as t

import jinja2
import jinja2.sandbox
from dateutil import rrule

Object = dict[str, t.Any]


class Refused(Exception):
    """Answered with this status and body."""

    def __init__(self, status: int, body: Object):
        super().__init__(status, body)
        self.status, self.body = status, body


def check_survey(survey: Object) -> None:
    def refuse(text: str) -> t.NoReturn:
        raise Refused(400, {"error": text})

    for field in ("name", "description", "spec"):
        if field not in survey:
            refuse(f"Field '{field}' is missing from survey spec.")
    if not survey["spec"]:
        refuse("'spec' doesn't contain any items.")
    variables = [question.get("variable") for question in survey["spec"]]
    if len(set(variables)) != len(variables):
        refuse("A variable is there twice.")
    for question in survey["spec"]:
        kinds = {"integer": int, "float": float}
        if not isinstance(question.get("required"), bool) or not isinstance(question.get("question_name"), str):
            refuse(f"'required' or 'question_name' missing from {question}")
        if question["type"] not in ("text", "textarea", "password", "multiplechoice", "multiselect", *kinds):
            refuse(f"{question['type']} is not one of the allowed question types.")
        default = question.get("default", "")
        if default != "" and not isinstance(default, kinds.get(question["type"], str)):
            refuse(f"Default value {default} expected to be {question['type']}.")
        choices = question.get("choices", [])
        if question["type"].startswith("multi") and not set(str(default).splitlines()) <= set(choices):
            refuse("Default choice must be answered from the choices listed.")


def check_answers(questions: list[Object], answers: Object) -> None:
    """What a schedule or a workflow's node would say on launch."""
    errors = [f"'{q['variable']}' value missing" for q in questions if q["required"] and q["variable"] not in answers]
    known = {question["variable"]: question for question in questions}
    for name, value in answers.items():
        if name not in known:
            errors.append(f"Variables {name} are not allowed on launch.")
            continue
        kind = known[name]["type"]
        if not isinstance(value, {"integer": int, "float": float, "multiselect": list}.get(kind, str)):
            errors.append(f"Value {value} for '{name}' expected to be of type {kind}.")
        elif kind.startswith("multi"):
            given = value if isinstance(value, list) else [value]
            errors += [f"Value {v} for '{name}' expected to be one of the choices." for v in given
                       if v not in known[name]["choices"]]  # fmt: skip
    if errors:
        raise Refused(400, {"variables_needed_to_start": errors})


def check_rule(rule: str) -> None:
    if not re.match(r"DTSTART(:\d{8}T\d{6}Z|;TZID=[^:;]+:\d{8}T\d{6}) RRULE:\S+$", rule):
        raise Refused(400, {"rrule": [f"Valid DTSTART required in rrule, and one rule: {rule}"]})
    if "INTERVAL=" not in rule or "SECONDLY" in rule or re.search(r"BYDAY=\d", rule):
        raise Refused(400, {"rrule": [f"INTERVAL required; SECONDLY and BYDAY with a number not supported: {rule}"]})
    try:
        first = rrule.rrulestr(rule)[0]
    except ValueError as error:
        raise Refused(400, {"rrule": [f"rrule parsing failed validation: {error}"]}) from None
    if first.tzinfo is None:  # dateutil's answer to a zone that it does not know
        raise Refused(400, {"rrule": ["A valid TZID must be provided (e.g., America/New_York)"]})


def check_injectors(wanted: Object) -> None:
    fields = wanted["inputs"]["fields"]
    files = {name.partition(".")[2]: "EXAMPLE" for name in wanted["injectors"].get("file", {})}
    known = {**{field["id"]: "EXAMPLE" for field in fields}, "tower": {"filename": files}}
    sandbox = jinja2.sandbox.ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined)
    for injector in wanted["injectors"].values():
        for key, template in injector.items():
            try:
                sandbox.from_string(template).render(known)
            except jinja2.UndefinedError as error:
                raise Refused(400, {"injectors": [f"{key} uses an undefined field ({error})"]}) from None
