#!/usr/bin/python
# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: takeover
short_description: Move an old installation's data below the data root, and tell its start script
version_added: 0.2.0
author: guardops contributors (@guardops)
description:
  - Moves everything from old directories into new ones, and changes settings in the start script so that it uses
    them. Or undoes that.
  - A file that exists on both sides with another content is never overwritten. Then the task fails before anything is
    moved.
  - The installation must be stopped. The task fails as long as a process runs the script, or has one of the files open
    or mapped.
  - What is about to be done is written to O(record) first, so the next run goes on with one that was interrupted.
  - Between file systems, a file is copied, synced and compared before the old one is removed.
options:
  script:
    description:
      - The start script. A setting in it is a line such as C(LOG_DIR="/root/logs/audit"), with or without C(export).
      - Before its first change a copy is made beside it.
      - Required with O(state=taken_over).
    type: path
  settings:
    description:
      - Names and values. A line that sets one of these is changed, one that is not there is added behind the others.
    type: dict
    default: {}
  directories:
    description: What is moved where. The old directories themselves stay, empty.
    type: list
    elements: dict
    default: []
    suboptions:
      from:
        description: The old directory. When there is none, nothing is moved.
        type: path
        required: true
      to:
        description: The new one.
        type: path
        required: true
  state:
    description:
      - V(taken_over) does what is described above, as far as it is not done yet.
      - V(undone) puts the script's lines back, and moves all files back that were not in the new directories before the
        takeover, also those written since. Those that were moved get their owner, group, mode and access lists back.
        Without a record there is nothing to undo.
    type: str
    choices: [taken_over, undone]
    default: taken_over
  record:
    description: The file that remembers what was done, until it is undone. Lose it, and the way back is by hand.
    type: path
    default: /var/lib/guardops-qwen3guard/takeover.json
  check_mounts:
    description:
      - Whether a container that the script starts (C(docker run), C(podman run)) must mount the new directories. If it
        does not, the task fails before anything is moved, since the container would write to its own layer again.
      - What the script alone does not tell, such as a container that a compose file describes, is returned in
        RV(not_checked).
    type: bool
    default: true
    version_added: 0.5.0
  owner:
    description: Who gets what is moved, as a numeric id. Without it, owners stay.
    type: int
  group:
    description: Which group gets what is moved, as a numeric id. Without it, groups stay.
    type: int
attributes:
  check_mode:
    support: full
    description: Tells what would be moved and rewritten. A process that uses the installation is a warning only.
  diff_mode:
    support: full
    description: Shows the script's lines before and after, and where each file goes.
notes:
  - Hard links between moved files stay within one file system. Between two they become files of their own.
  - Sockets, pipes and devices are left where they are, and returned in RV(left).
"""

EXAMPLES = r"""
- name: Take over
  guardops.qwen3guard.takeover:
    script: /root/1键推理.sh
    settings:
      LOG_DIR: /data/qwen3guard-gen-web/logs
      MODEL_PATH: /data/qwen3guard-gen-web/models
    directories:
      - {from: /root/logs/audit, to: /data/qwen3guard-gen-web/logs}
      - {from: /root/Qwen3Guard-Gen-8B, to: /data/qwen3guard-gen-web/models}
  diff: true

- name: Go back
  guardops.qwen3guard.takeover:
    state: undone
"""

RETURN = r"""
moved:
  description: How many files and symbolic links were moved.
  returned: success
  type: int
moves:
  description: The first 1000 of them.
  returned: success
  type: list
  elements: dict
  sample: [{"from": "/root/logs/audit/audit.log", "to": "/data/qwen3guard-gen-web/logs/audit.log"}]
lines:
  description: The lines of the script that were changed. V(before) is null for one that was added.
  returned: success
  type: list
  elements: dict
  sample: [{"before": "LOG_DIR=\"/root/logs/audit\"", "after": "LOG_DIR=\"/data/qwen3guard-gen-web/logs\""}]
left:
  description: What was not moved since it is no file, link or directory.
  returned: success
  type: list
  elements: str
not_checked:
  description:
    - What the result says nothing about, which is processes that could not be looked into, and mounts of a container
      that the script does not tell.
  returned: success
  type: list
  elements: str
backup_file:
  description: The copy of the script as it was, or an empty text.
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

from ansible.module_utils.basic import AnsibleModule

# Not by way of module_utils/module.py: that loads all key providers, which nobody here needs.
from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import GuardError
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import takeover

RETURNED_MOVES = 1000


def run(module):
    """The plan that was carried out, or would be, and the record."""
    params = module.params
    record = takeover.Record(params["record"])
    if params["state"] == "undone":
        if not record.exists:
            return None, record
        plan = takeover.plan_undo(record)
        if not module.check_mode:
            takeover.undo(plan, record)
        return plan, record
    options = takeover.Options(
        script=params["script"],
        settings={name: str(value) for name, value in params["settings"].items()},
        directories=[(item["from"], item["to"]) for item in params["directories"]],
        record=params["record"],
        uid=params["owner"],
        gid=params["group"],
        check_mounts=params["check_mounts"],
    )
    plan = takeover.plan_takeover(options)
    if plan.changed and not module.check_mode:
        takeover.take_over(options, plan, record, module.backup_local)
    return plan, record


def result_of(plan, record, state):
    if plan is None:
        return {
            "changed": False,
            "moved": 0,
            "moves": [],
            "lines": [],
            "left": [],
            "not_checked": [],
            "backup_file": "",
        }
    files = [move for move in plan.moves if move.kind != "directory"]
    texts = [{"before": line.before, "after": line.after} for line in plan.lines]
    if state == "undone":
        texts = [{"before": line["after"], "after": line["before"]} for line in texts]
    return {
        "changed": plan.changed or state == "undone",
        "moved": len(files),
        "moves": [{"from": move.source, "to": move.target} for move in files[:RETURNED_MOVES]],
        "lines": [{name: text and text.decode("utf-8", "replace") for name, text in line.items()} for line in texts],
        "left": plan.left,
        "not_checked": [f"whether process {name} uses the installation" for name in plan.not_seen] + [*plan.not_told],
        "backup_file": record.backup_file,
    }


def diff_of(plan, script):
    files = [move for move in plan.moves if move.kind != "directory"]
    diff = [
        {
            "before_header": script,
            "after_header": script,
            "before": plan.script.decode("utf-8", "replace"),
            "after": plan.new_script.decode("utf-8", "replace"),
        }
    ]
    if files:
        diff.append(
            {
                "before_header": "files",
                "after_header": "files",
                "before": "".join(f"{move.source}\n" for move in files),
                "after": "".join(f"{move.target}\n" for move in files),
            }
        )
    return diff


def main():
    module = AnsibleModule(
        argument_spec={
            "script": {"type": "path"},
            "settings": {"type": "dict", "default": {}},
            "directories": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {"from": {"type": "path", "required": True}, "to": {"type": "path", "required": True}},
            },
            "state": {"type": "str", "choices": ["taken_over", "undone"], "default": "taken_over"},
            "record": {"type": "path", "default": "/var/lib/guardops-qwen3guard/takeover.json"},
            "check_mounts": {"type": "bool", "default": True},
            "owner": {"type": "int"},
            "group": {"type": "int"},
        },
        required_if=[("state", "taken_over", ["script"])],
        supports_check_mode=True,
    )
    try:
        plan, record = run(module)
    except GuardError as error:
        fields = {name: getattr(error, name) for name in ("thing", "expected", "found", "hint")}
        module.fail_json(msg=str(error), **fields)
    if plan and plan.used_by and module.check_mode:
        module.warn(f"It must be stopped first: it is in use by process {', '.join(plan.used_by[:10])}")
    if plan and module.params["state"] == "taken_over":
        for text in takeover.still_named(plan.new_script, [item["from"] for item in module.params["directories"]]):
            module.warn(f"The script still names an old directory, in line {text}")
    result = result_of(plan, record, module.params["state"])
    if module._diff and plan:
        result["diff"] = diff_of(plan, record.script or module.params["script"])
    module.exit_json(**result)


if __name__ == "__main__":
    main()
