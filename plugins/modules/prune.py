#!/usr/bin/python
# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: prune
short_description: Remove old snapshots, never the last verified one
version_added: 0.3.0
author: guardops contributors (@guardops)
description:
  - Tells which snapshots of a layer the policy keeps and which it removes, with bytes and a reason for each. With
    O(apply=true) it removes them. Without a rule everything is kept for ever.
  - Whatever the policy says, these are never removed. The newest snapshot, and the newest that is whole. For each level
    of M(guardops.qwen3guard.verify) the newest snapshot that passed it as a whole; a sample takes no protection away
    from it. A full or an increment that a kept increment stands on. A snapshot whose manifest or verdicts cannot be
    read, or whose format is newer, with all that it may stand on. A chain of snapshots that was added to within
    O(min_age). What came while this ran.
  - A run that breaks off anywhere leaves every snapshot that is still listed restorable. What is left over the next run
    removes.
  - Also removes what interrupted backups left, when it is older than O(orphan_age).
  - Can keep old logs in a storage class that costs less, with O(cold).
options:
  keep_last:
    description:
      - Keep so many of the newest snapshots that are whole. V(0) is for ever.
      - A snapshot stays when either O(keep_last) or O(keep_days) wants it. With neither, all of them stay.
    type: int
  keep_days:
    description:
      - Keep snapshots that are younger. V(0) is for ever.
      - The age counts from what the host's clock said when the snapshot was made, or from when the store got it,
        whichever is later.
    type: int
  apply:
    description: Really remove. V(false) only tells what would be removed.
    type: bool
    default: false
  min_age:
    description:
      - Hours. Nothing is removed of a chain that has a younger snapshot, as a backup that runs now may stand on it.
      - V(0) only where nothing else writes to the repository.
    type: int
    default: 24
  orphan_age:
    description:
      - Hours, at least 1. Objects that belong to no snapshot are removed when all those of the same run are older. The
        younger ones may be of a backup that runs, or that was interrupted and goes on.
    type: int
    default: 24
  only_prunes:
    description:
      - This host never backs the instance up, and prunes for whichever host does. Needed with O(apply) when a host has
        taken the instance over by M(guardops.qwen3guard.fence), which keeps all others out.
      - Never for a host that has backed up, as it would be let in when it comes back.
    type: bool
    default: false
    version_added: 0.5.0
  archive_ledger:
    description:
      - Of the logs, the file that O(guardops.qwen3guard.backup#module:archive_ledger) names. It is told that what was
        removed is not archived any more. Only on the host that has it; elsewhere the next backup there does not notice.
    type: path
  cold:
    description:
      - Of the logs, where old ones go. Without this option nothing is changed about it.
      - In a class from which objects must be brought back first, restores have to wait for hours.
    type: dict
    suboptions:
      storage_class:
        description: The store's name for it, such as V(STANDARD_IA), V(GLACIER_IR) or V(DEEP_ARCHIVE).
        type: str
        required: true
      after_days:
        description: Days after which objects go there.
        type: int
        default: 30
      method:
        description:
          - V(lifecycle) sets a rule on the bucket of an S3, for the prefix of this instance's logs. Rules of others are
            kept. It needs the Python library C(boto3), and the right to read and set the bucket's lifecycle rules with
            the credentials of the rclone remote. Classes that cannot be read at once are refused, as the rule takes
            manifests along.
          - V(copy) lets the store copy parts, wherever rclone can change the storage class of an object. Manifests,
            indexes and record tables stay where they are. Chains go as a whole, and never that of the newest or of the
            last verified snapshot.
        type: str
        choices: [lifecycle, copy]
        default: lifecycle
      min_size:
        description: With O(cold.method=copy), smaller parts stay, as most stores charge for at least so much.
        type: str
        default: 128K
      state:
        description: V(absent) removes the rule. What is in the cold class stays there.
        type: str
        choices: [present, absent]
        default: present
extends_documentation_fragment:
  - guardops.qwen3guard.repository
  - guardops.qwen3guard.repository.layer
attributes:
  check_mode:
    support: full
    description: Removes nothing, whatever O(apply) says.
  diff_mode:
    support: full
    description: Shows the list of snapshots before and after, also without O(apply).
notes:
  - Needs no key. Run it where the right to delete is, which need not be the host that backs up.
  - Without O(apply) the task is never changed. The list is in RV(remove).
  - With O(apply) it fails on a host that was fenced off, in check mode too.
seealso:
  - module: guardops.qwen3guard.fence
  - module: guardops.qwen3guard.snapshot_info
  - module: guardops.qwen3guard.verify
"""

EXAMPLES = r"""
- name: What would be removed if logs were kept for three years?
  guardops.qwen3guard.prune:
    instance: guard-01
    layer: logs
    keep_days: 1095
    repository: "oss:guard-backups/prod"
    rclone_config: /etc/guardops-qwen3guard/rclone.conf
  register: planned

- name: Remove it, and let the store move logs of more than 30 days to a cheaper class
  guardops.qwen3guard.prune:
    instance: guard-01
    layer: logs
    keep_days: 1095
    apply: true
    cold:
      storage_class: STANDARD_IA
    repository: "oss:guard-backups/prod"
    rclone_config: /etc/guardops-qwen3guard/rclone.conf
"""

RETURN = r"""
applied:
  description: Whether anything was to be removed for real.
  returned: always
  type: bool
keep:
  description: The snapshots that stay, in order of their numbers.
  returned: always
  type: list
  elements: dict
  contains:
    snapshot:
      description: Its id.
      type: str
    number:
      description: Its place in the order of the layer.
      type: int
    type:
      description: V(full) or V(increment); empty where the manifest cannot be read.
      type: str
    created:
      description: When it was made, by the clock of the host that made it.
      type: str
    bytes:
      description: What it takes in the store.
      type: int
    reason:
      description: Why it stays, or goes.
      type: str
remove:
  description: The snapshots that the policy removes, in the same form.
  returned: always
  type: list
  elements: dict
keep_bytes:
  description: What those that stay take in the store.
  returned: always
  type: int
remove_bytes:
  description: What those to be removed take.
  returned: always
  type: int
removed:
  description: Ids of the snapshots that are gone now. Less than RV(remove) where something failed or came in between.
  returned: always
  type: list
  elements: str
removed_bytes:
  description: What was freed, as read back, with what belonged to no snapshot.
  returned: always
  type: int
removed_objects:
  description: How many objects that were.
  returned: always
  type: int
leftovers:
  description: What belongs to no snapshot and is old enough to be removed.
  returned: always
  type: dict
  contains:
    count:
      description: Interrupted runs and removals that left something.
      type: int
    objects:
      description: The objects.
      type: int
    bytes:
      description: What they take.
      type: int
records_gone:
  description: Of the logs, audit records that no snapshot holds any more when the list is removed. Else empty.
  returned: always
  type: dict
  contains:
    count:
      description: Numbered records whose last copy goes, by what the manifests say.
      type: int
    since:
      description: The earliest time in the snapshots that lose some of them.
      type: str
    until:
      description: The latest.
      type: str
    unchained:
      description: Records without a number in the snapshots that go. Others may hold them too; nobody can tell.
      type: int
cold:
  description: What is to be moved, or was, with O(cold). Else empty.
  returned: always
  type: dict
  contains:
    method:
      description: As in the option.
      type: str
    storage_class:
      description: As in the option.
      type: str
    changed:
      description: Whether there is anything to do.
      type: bool
    snapshots:
      description: Those whose parts are moved, with V(copy).
      type: list
      elements: str
    objects:
      description: Parts to be moved, with V(copy).
      type: int
    bytes:
      description: Their bytes.
      type: int
left_out:
  description: What was not touched and does not belong to a snapshot that is kept.
  returned: always
  type: list
  elements: dict
  contains:
    path:
      description: Name below the instance.
      type: str
    reason:
      description: Why.
      type: str
not_checked:
  description: What this run says nothing about.
  returned: always
  type: list
  elements: str
failures:
  description: What should have been removed or moved and was not, read back from the store. The task then fails.
  returned: always
  type: list
  elements: str
seconds:
  description: How long it took.
  returned: always
  type: float
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

import dataclasses

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import GuardError
from ansible_collections.guardops.qwen3guard.plugins.module_utils.module import (
    LAYER_ARGUMENT_SPEC,
    REPOSITORY_ARGUMENT_SPEC,
    failures_told,
    parse_size,
    printable,
    session_of,
)
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import prune
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.prune_plan import Cold, Policy

HOUR = 3600.0


def options_of(params):
    """The module's options as the engine takes them."""
    for name, least in (("min_age", 0), ("orphan_age", 1)):
        if params[name] < least:
            raise GuardError(f"option {name}", f"at least {least}", str(params[name]))
    cold = None
    if params["cold"]:
        told = params["cold"]
        if told["after_days"] < 1:
            raise GuardError("option cold.after_days", "at least 1", str(told["after_days"]))
        cold = Cold(
            storage_class=told["storage_class"],
            after_days=told["after_days"],
            method=told["method"],
            present=told["state"] == "present",
            min_size=parse_size("cold.min_size", told["min_size"], 0, 1 << 40),
        )
    policy = Policy(
        params["keep_last"],
        params["keep_days"],
        min_age=params["min_age"] * HOUR,
        orphan_age=params["orphan_age"] * HOUR,
    )
    ledger = params["archive_ledger"] or ""
    return prune.Options(policy, params["apply"], cold, ledger, only_prunes=params["only_prunes"])


def main():
    cold = {
        "storage_class": {"type": "str", "required": True},
        "after_days": {"type": "int", "default": 30},
        "method": {"type": "str", "choices": ["lifecycle", "copy"], "default": "lifecycle"},
        "min_size": {"type": "str", "default": "128K"},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    }
    module = AnsibleModule(
        argument_spec=dict(
            keep_last={"type": "int"},
            keep_days={"type": "int"},
            apply={"type": "bool", "default": False},
            min_age={"type": "int", "default": 24},
            orphan_age={"type": "int", "default": 24},
            only_prunes={"type": "bool", "default": False},
            archive_ledger={"type": "path"},
            cold={"type": "dict", "options": cold},
            **LAYER_ARGUMENT_SPEC,
            **REPOSITORY_ARGUMENT_SPEC,
        ),
        supports_check_mode=True,
    )
    with failures_told(module), session_of(module) as session:
        outcome = prune.prune(session, options_of(module.params))
    for text in session.warnings:
        module.warn(printable(text))
    result = dataclasses.asdict(outcome)
    before, after = result.pop("before"), result.pop("after")
    if module._diff:
        result["diff"] = {"before": before, "after": after, "before_header": "snapshots", "after_header": "snapshots"}
    if outcome.failures:
        module.fail_json(msg=printable(f"{len(outcome.failures)} failures: {outcome.failures[0]}"), **printable(result))
    module.exit_json(**printable(result))


if __name__ == "__main__":
    main()
