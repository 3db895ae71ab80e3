#!/usr/bin/python
# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: fence
short_description: Make this host the one that writes into an instance
version_added: 0.5.0
author: guardops contributors (@guardops)
description:
  - Takes an instance over for the host on which it runs, after a recovery. From then on M(guardops.qwen3guard.backup),
    and M(guardops.qwen3guard.prune) with its option O(guardops.qwen3guard.prune#module:apply), fail on every other
    host, in check mode too. So the lost host does no harm when it comes back.
  - Stores a small object, the fence, in the repository, and remembers in O(state_dir) that it is this host's. Fences
    are never replaced or removed; the one with the highest number counts. Where there is none, any host may write.
  - A host that was just storing a snapshot takes it back. If it is killed before it can, the snapshot stays, and is not
    believed, neither as C(latest) nor by the next backup. M(guardops.qwen3guard.snapshot_info) tells it as damaged.
  - Fences keep out hosts that have this collection, and mean no harm. Whoever has the credentials of the store can
    write what they want. Of a host that may be in the wrong hands, take the credentials.
  - Needs no key.
options:
  reason:
    description: Why, for people. It is in the clear in the repository.
    type: str
    default: ""
extends_documentation_fragment:
  - guardops.qwen3guard.repository
attributes:
  check_mode:
    support: full
    description: Says whether this host would take the instance over. Stores nothing.
  diff_mode:
    support: full
    description: Shows which host wrote before, and which one does from here on.
notes:
  - Not changed where this host holds the newest fence.
  - A host that has lost its O(state_dir) does not know any more that it holds the fence. Run the module there again.
  - A copy of a host with its O(state_dir) (a cloned disk) holds the same fence. Nothing tells the two apart.
seealso:
  - module: guardops.qwen3guard.snapshot_info
  - module: guardops.qwen3guard.backup
  - module: guardops.qwen3guard.prune
"""

EXAMPLES = r"""
- name: From here on this host backs the guard up, and the lost one does not
  guardops.qwen3guard.fence:
    instance: guard-01
    reason: the disk of guard-01 was lost
    repository: "oss:guard-backups/prod"
    rclone_config: /etc/guardops-qwen3guard/rclone.conf
"""

RETURN = r"""
fence:
  description: The fence that this host holds. Null in check mode where it would be a new one.
  returned: success
  type: dict
  contains:
    id:
      description: Its id.
      type: str
      sample: 000002-3f9a2c1d
    host:
      description: The host that writes from here on. Empty where the fence cannot be read.
      type: str
    created:
      description: When it took the instance over (RFC 3339, UTC).
      type: str
    reason:
      description: Why, as it was told.
      type: str
    newest:
      description: By layer, the newest snapshot that there was then, or an empty text.
      type: dict
    ours:
      description: Whether it is this host's.
      type: bool
    damaged:
      description: Empty, or why the fence cannot be read.
      type: str
previous:
  description: The newest fence when the module began, in the same form. Null where there was none.
  returned: success
  type: dict
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

from ansible_collections.guardops.qwen3guard.plugins.module_utils.module import (
    REPOSITORY_ARGUMENT_SPEC,
    failures_told,
    printable,
    session_of,
)
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import fence


def main():
    module = AnsibleModule(
        argument_spec=dict(reason={"type": "str", "default": ""}, **REPOSITORY_ARGUMENT_SPEC),
        supports_check_mode=True,
    )
    with failures_told(module), session_of(module, layer="fence") as session:
        outcome = fence.take_over(session, module.params["reason"])
    for warning in session.warnings:
        module.warn(printable(warning))
    result = {"changed": outcome.changed, "fence": outcome.fence, "previous": outcome.previous}
    if module._diff:
        result["diff"] = {"before": outcome.before, "after": outcome.after}
    module.exit_json(**printable(result))


if __name__ == "__main__":
    main()
