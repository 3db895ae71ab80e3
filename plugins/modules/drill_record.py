#!/usr/bin/python
# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: drill_record
short_description: Judge a drill or a recovery, and keep its record in the repository
version_added: 0.3.0
author: guardops contributors (@guardops)
description:
  - Takes the phases of a drill or of a recovery with their durations, gives the verdict, works out the recovery point,
    and stores all of it beside the snapshots, where it is read back.
  - Needs no key. The record is in the clear, and holds no content of the instance.
  - A verdict that is not good does not fail the task. See RV(ok), RV(failures).
options:
  kind:
    description: V(drill) for practice on a spare host, V(recovery) for one in earnest.
    type: str
    choices: [drill, recovery]
    required: true
  started:
    description: When it began, in UTC (V(2026-11-23T09:00:00Z)). The record is named after it.
    type: str
    required: true
  phases:
    description: What was done, in the order of time.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: What it is called.
        type: str
        required: true
      seconds:
        description: Its duration, by a clock that does not step.
        type: float
        required: true
      ok:
        description: Whether it went well.
        type: bool
        required: true
      detail:
        description: More about it, and of a failure why.
        type: str
        default: ""
  snapshots:
    description: The id of the snapshot that came back, by layer.
    type: dict
    default: {}
  recovery_time_seconds:
    description:
      - From the start to the first real audit that the service answered. Without it the service never did, which is a
        failure.
    type: float
  total_seconds:
    description: From the start to the end. By default the sum of the phases.
    type: float
  budget_seconds:
    description: What O(recovery_time_seconds) may be. The history of the logs comes back after it, and does not count.
    type: float
    default: 300
  lost_at:
    description:
      - When the disaster was, in UTC, where that is known. By default O(started).
      - The recovery point is the newest record that came back. What was logged between it and this time is lost.
    type: str
  failures:
    description: What else was wrong.
    type: list
    elements: str
    default: []
  warnings_found:
    description: What somebody should look at.
    type: list
    elements: str
    default: []
  not_checked:
    description: What this record does not prove.
    type: list
    elements: str
    default: []
  versions:
    description: Versions of what was used, by name.
    type: dict
    default: {}
  host:
    description: The host that was recovered. By default the name of the one on which the module runs.
    type: str
extends_documentation_fragment:
  - guardops.qwen3guard.repository
attributes:
  check_mode:
    support: full
    description: Gives the verdict, and stores nothing.
  diff_mode:
    support: none
    description: A record is always a new object.
seealso:
  - module: guardops.qwen3guard.snapshot_info
"""

EXAMPLES = r"""
- name: Keep the record of a drill
  guardops.qwen3guard.drill_record:
    kind: drill
    started: "2026-11-23T09:00:00Z"
    phases:
      - {name: restore the weights, seconds: 141.2, ok: true}
      - {name: start the service, seconds: 48.0, ok: true}
    recovery_time_seconds: 201.7
    snapshots: {logs: 000412-3f9a2c1d, model: 000003-7b1e55aa}
    instance: guard-01
    repository: "oss:guard-backups/prod"
    rclone_config: /etc/guardops-qwen3guard/rclone.conf
  register: kept

- name: It was good
  ansible.builtin.assert:
    that: kept.ok
    fail_msg: "{{ kept.failures }}"
"""

RETURN = r"""
record:
  description: The record as it is stored (docs/repository-format.md).
  returned: success
  type: dict
  contains:
    recovery_point:
      description: Up to where the logs came back. Null where none did.
      type: dict
    recovery_time_seconds:
      description: From the start to the first audit that was answered.
      type: float
    ended:
      description: When it ended.
      type: str
ok:
  description: Whether every phase went well, and the service answered within the budget.
  returned: success
  type: bool
failures:
  description: Why not. Where the budget was exceeded, which phase took most of it.
  returned: success
  type: list
  elements: str
object:
  description: Full name of the object. Empty in check mode.
  returned: success
  type: str
thing:
  description: What the failure is about, such as a path, an object or an option.
  returned: failure that a user can act on
  type: str
expected:
  description: What should have been there.
  returned: failure that a user can act on
  type: str
found:
  description: What was there instead.
  returned: failure that a user can act on
  type: str
hint:
  description: What to do next. May be empty.
  returned: failure that a user can act on
  type: str
"""

import socket

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import GuardError
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format import drill, fields
from ansible_collections.guardops.qwen3guard.plugins.module_utils.module import (
    REPOSITORY_ARGUMENT_SPEC,
    failures_told,
    printable,
    session_of,
)
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import drills

PHASE_SPEC = {
    "name": {"type": "str", "required": True},
    "seconds": {"type": "float", "required": True},
    "ok": {"type": "bool", "required": True},
    "detail": {"type": "str", "default": ""},
}


def main():
    module = AnsibleModule(
        argument_spec=dict(
            kind={"type": "str", "choices": ["drill", "recovery"], "required": True},
            started={"type": "str", "required": True},
            phases={"type": "list", "elements": "dict", "required": True, "options": PHASE_SPEC},
            snapshots={"type": "dict", "default": {}},
            recovery_time_seconds={"type": "float"},
            total_seconds={"type": "float"},
            budget_seconds={"type": "float", "default": 300},
            lost_at={"type": "str"},
            failures={"type": "list", "elements": "str", "default": []},
            warnings_found={"type": "list", "elements": "str", "default": []},
            not_checked={"type": "list", "elements": "str", "default": []},
            versions={"type": "dict", "default": {}},
            host={"type": "str"},
            **REPOSITORY_ARGUMENT_SPEC,
        ),
        supports_check_mode=True,
    )
    with failures_told(module), session_of(module, layer="logs") as session:
        record = drills.judge(session.repository, _told(module.params))
        name = "" if module.check_mode else drills.keep(session.repository, record)
    module.exit_json(
        changed=True, record=printable(record.to_json()), ok=record.ok, failures=printable(record.failures), object=name
    )


def _told(params):
    return drills.Told(
        kind=params["kind"],
        host=params["host"] or socket.gethostname(),
        started=_checked(params, "started", fields.time),
        lost_at=_checked(params, "lost_at", fields.time) if params["lost_at"] else "",
        phases=_checked(params, "phases", lambda phases: [drill.phase_of(phase) for phase in phases]),
        snapshots={layer: str(snapshot) for layer, snapshot in params["snapshots"].items() if snapshot},
        budget_seconds=_checked(params, "budget_seconds", fields.seconds),
        recovery_time_seconds=_seconds(params, "recovery_time_seconds"),
        total_seconds=_seconds(params, "total_seconds"),
        failures=drill.texts_of(params["failures"]),
        warnings=drill.texts_of(params["warnings_found"]),
        not_checked=drill.texts_of(params["not_checked"]),
        versions={str(name): str(version) for name, version in params["versions"].items()},
    )


def _seconds(params, name):
    return None if params[name] is None else _checked(params, name, fields.seconds)


def _checked(params, name, check):
    try:
        return check(params[name])
    except ValueError as error:
        expected = "a time such as 2026-11-23T09:00:00Z" if check is fields.time else "seconds, from 0 on"
        raise GuardError(f"option {name}", expected, str(error)) from error


if __name__ == "__main__":
    main()
