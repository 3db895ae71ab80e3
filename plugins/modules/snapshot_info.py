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
  - module: guardops.qwen3guard.fence
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
  description:
    - All snapshots by layer, in order of their numbers. With O(layer), of that one only.
    - The other layers' lists have the same form as that of V(model).
  returned: success
  type: dict
  contains:
    model:
      description: One entry for each snapshot, complete or not.
      type: list
      elements: dict
      contains:
        snapshot:
          description: Its id.
          type: str
        number:
          description: Its place in the order of the layer.
          type: int
        complete:
          description:
            - Whether its manifest is there. Without one it is an interrupted run and no snapshot. What is told from the
              manifest is then missing here, as it is where the manifest is damaged.
          type: bool
        damaged:
          description:
            - Empty, or why the snapshot cannot be believed. A manifest that does not fit, an object that is missing or
              has another size, a second snapshot of the same number, which means that two hosts wrote at once, or a
              host that M(guardops.qwen3guard.fence) had fenced off when it wrote it.
          type: str
        stored_bytes:
          description: Bytes of all its objects in the store.
          type: int
        verified:
          description:
            - The newest verdict of each level of M(guardops.qwen3guard.verify), by level; empty when never.
            - One of a sample has C(sample_bytes), which is 0 where everything was looked at, and in C(whole) the last
              verdict of its level that looked at everything.
          type: dict
        type:
          description: V(full) or V(increment).
          type: str
        created:
          description: When it was made, by the clock of the host that made it (RFC 3339, UTC).
          type: str
        base:
          description: The full that it stands on; its own id for a full.
          type: str
        parent:
          description: The snapshot before it in its chain; empty for a full.
          type: str
        files:
          description: Files that it describes.
          type: int
        content_bytes:
          description: Bytes of content, before compression.
          type: int
        records:
          description: Of the logs, what the snapshot holds of audit records. Null for other layers and older snapshots.
          type: dict
          contains:
            count:
              description: Records, all in all.
              type: int
            unchained:
              description: Those of older installations, which are neither numbered nor chained.
              type: int
            odd:
              description: Lines that are no records.
              type: int
            hours:
              description: Records by the hour of their time, in UTC (V(2026-11-23T09)); without a time under V("").
              type: dict
            chains:
              description:
                - One entry for each chain, with its name (C(chain)), its C(first) and C(last)
                  number, the C(count) of records, the hash that the first names before it
                  (C(prev)), that of the last (C(head)), the lowest and highest time
                  (C(since), C(until)) and C(breaks), the number of places where the chain
                  does not go on.
              type: list
              elements: dict
            tables:
              description:
                - The objects by which a record is found, below the instance, with C(name), C(day),
                  C(size), C(sha256) and the C(count) of records.
              type: list
              elements: dict
            not_scanned:
              description: Files that are in the snapshot and whose records could not be read, for example a torn gzip.
              type: list
              elements: str
        host:
          description: Name of the host that made it.
          type: str
        fence:
          description: The fence that this host held. Empty where it held none.
          type: str
        parts:
          description: Number of parts, the index not counted.
          type: int
        key_provider:
          description: The key provider that wrapped its data key.
          type: str
newest:
  description:
    - The newest complete snapshot that is not damaged, by layer, as in RV(snapshots). Null where a layer has none.
  returned: success
  type: dict
fence:
  description:
    - Which host writes into the instance, by the newest fence (M(guardops.qwen3guard.fence)). Null where there is none;
      then any host may.
  returned: success
  type: dict
  contains:
    id:
      description: Its id.
      type: str
    host:
      description: The host that writes. Empty where the fence cannot be read.
      type: str
    created:
      description: When it took the instance over (RFC 3339, UTC).
      type: str
    reason:
      description: Why, as it was told.
      type: str
    newest:
      description: By layer, the newest snapshot that there was then. What came after it from another host is damaged.
      type: dict
    ours:
      description: Whether it is the host on which this module ran.
      type: bool
    damaged:
      description: Empty, or why the fence cannot be read. It counts all the same.
      type: str
drills:
  description:
    - The records of drills and recoveries, the newest first, at most 12.
    - In the place of one that cannot be read there are its C(name), and in C(damaged) why.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Full name of the object.
      type: str
    damaged:
      description: Empty, or why the record cannot be believed. Then all else is missing.
      type: str
    kind:
      description: V(drill) or V(recovery).
      type: str
    ok:
      description: Its verdict.
      type: bool
    started:
      description: When it began (RFC 3339, UTC). C(ended) says when it ended.
      type: str
    recovery_time_seconds:
      description: From the start to the first audit that was answered. Null for never.
      type: float
    budget_seconds:
      description: What that was allowed to be.
      type: float
    recovery_point:
      description: Up to where the logs came back. Null where none did.
      type: dict
    phases:
      description: What was done, each with C(name), C(seconds), C(ok) and C(detail).
      type: list
      elements: dict
    failures:
      description: What was wrong. C(warnings) and C(not_checked) have the same form.
      type: list
      elements: str
    snapshots:
      description: What came back, by layer.
      type: dict
    host:
      description: The host that was recovered.
      type: str
bytes:
  description: Bytes that all this takes in the store.
  returned: success
  type: int
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
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import fences, overview


def main():
    module = AnsibleModule(
        argument_spec=dict(
            layer={"type": "str", "choices": ["model", "config", "logs"]},
            **REPOSITORY_ARGUMENT_SPEC,
        ),
        supports_check_mode=True,
    )
    with failures_told(module), session_of(module, layer=module.params["layer"] or "model") as session:
        held = fences.held(session.repository, session.state_directory)
        found = overview.overview(session.repository, module.params["layer"], held)
    module.exit_json(changed=False, **printable(found))


if __name__ == "__main__":
    main()
