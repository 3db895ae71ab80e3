#!/usr/bin/python
# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: snapshot_info
short_description: Tell what a repository holds of an instance, without a key
version_added: 0.1.0
author: guardops contributors (@guardops)
description:
  - Lists the snapshots of one instance with their sizes, chains and verdicts.
  - Reads manifests and verdicts only, which are public. They tell what somebody wrote into the store. Whether it is
    true, M(guardops.qwen3guard.verify) says.
options:
  layer:
    description: Only this layer. By default all three.
    type: str
    choices: [model, config, logs]
extends_documentation_fragment:
  - guardops.qwen3guard.repository
attributes:
  check_mode:
    support: full
    description: Never changes anything.
  diff_mode:
    support: none
    description: Never changes anything.
seealso:
  - module: guardops.qwen3guard.verify
"""

EXAMPLES = r"""
- name: What is there?
  guardops.qwen3guard.snapshot_info:
    instance: guard-01
    repository: "oss:guard-backups/prod"
    rclone_config: /etc/guardops-qwen3guard/rclone.conf
  register: found

- name: Is the newest snapshot of the logs younger than two hours?
  ansible.builtin.assert:
    that:
      - (now(utc=true) - (found.newest.logs.created | to_datetime('%Y-%m-%dT%H:%M:%SZ'))).total_seconds() < 7200
"""

RETURN = r"""
snapshots:
  description: All snapshots, by layer, in order of their numbers.
  returned: success
  type: dict
  contains:
    model:
      description:
        - One entry for each snapshot. C(complete) tells whether it exists; an interrupted run is listed with
          C(complete) false and the bytes it takes. C(damaged) holds the reason where a manifest cannot be believed or
          an object is missing. C(verified) holds the newest verdict of each level.
      type: list
      elements: dict
newest:
  description: The newest complete snapshot that is not damaged, by layer.
  returned: success
  type: dict
bytes:
  description: Bytes that all this takes in the store.
  returned: success
  type: int
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.guardops.qwen3guard.plugins.module_utils.module import (
    REPOSITORY_ARGUMENT_SPEC,
    failures_told,
    printable,
    session_of,
)
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import overview


def main():
    module = AnsibleModule(
        argument_spec=dict(
            layer={"type": "str", "choices": ["model", "config", "logs"]},
            **REPOSITORY_ARGUMENT_SPEC,
        ),
        supports_check_mode=True,
    )
    with failures_told(module), session_of(module, layer=module.params["layer"] or "model") as session:
        found = overview.overview(session.repository, module.params["layer"])
    module.exit_json(changed=False, **printable(found))


if __name__ == "__main__":
    main()
