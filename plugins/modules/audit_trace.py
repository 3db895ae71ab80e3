#!/usr/bin/python
# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: audit_trace
short_description: Find an audit record, and the object that holds it, by its trace_id
version_added: 0.2.0
author: guardops contributors (@guardops)
description:
  - Looks for the audit record of a C(trace_id) in the snapshots of the logs, and in live logs where O(logs_path) is
    given. Tells the object, its version, the offset and the snapshot that hold the record, the record itself, and
    whether its hash and those of its neighbours are right.
  - It asks the record tables of the one day that the C(trace_id) names, so that its time does not grow with the number
    of days archived. Where it finds the record it fetches one part and no more; only a record in a log file that was
    saved compressed may need the parts over which that file spreads.
  - That a record is not found is a result and no failure. RV(searched) and RV(not_searched) then say what that is
    worth. To be able to say so, all manifests of the logs are read, which takes longer the more snapshots there are.
    The task fails only where nothing at all could be searched.
  - A snapshot whose object is missing or damaged is passed over and told of in RV(not_searched); another one may hold
    the same record, as every full does that was made while its log file was still there.
options:
  trace_id:
    description: What the gateway answered, 1 to 64 letters, digits, V(.), V(_) and V(-).
    type: str
    required: true
  logs_path:
    description:
      - A directory of live logs to look into as well, with all below it, rotated and compressed files included.
      - Every file in it is read, which takes as long as the disk does.
    type: path
  include_record:
    description:
      - Return the record itself, which holds what users wrote.
      - With V(false) only where it is, its number and its hashes are returned.
    type: bool
    default: true
extends_documentation_fragment:
  - guardops.qwen3guard.repository
  - guardops.qwen3guard.key
attributes:
  check_mode:
    support: full
    description: Never changes anything.
  diff_mode:
    support: none
    description: Never changes anything.
notes:
  - The result holds a user's text. Set C(no_log) on the task, or O(include_record=false), where that must not reach the
    output and the logs of Ansible.
seealso:
  - module: guardops.qwen3guard.backup
  - module: guardops.qwen3guard.verify
"""

EXAMPLES = r"""
- name: Which object holds the record of this answer?
  guardops.qwen3guard.audit_trace:
    trace_id: qwg-20261123-8b-7f3a9c210d4e5b6f
    instance: guard-01
    logs_path: /data/qwen3guard-gen-web/logs
    include_record: false
    repository: "oss:guard-backups/prod"
    rclone_config: /etc/guardops-qwen3guard/rclone.conf
    key:
      provider: aws_kms
      kms_key_id: alias/guard-backups
      kms_region: eu-central-1
  register: traced

- name: It is archived, and unchanged
  ansible.builtin.assert:
    that:
      - traced.archived
      - traced.records | map(attribute='check.ok') is all

- name: Bring the record back
  guardops.qwen3guard.audit_trace:
    trace_id: qwg-20261123-8b-7f3a9c210d4e5b6f
    instance: guard-01
    repository: /mnt/backups
    key:
      provider: file
      key_file: /root/guard.key
  register: traced
  no_log: true
"""

RETURN = r"""
found:
  description:
    - Whether there is a record of that O(trace_id).
    - Of a failure, what was there instead.
  returned: always
  type: raw
archived:
  description: Whether a snapshot holds it.
  returned: success
  type: bool
backup_status:
  description:
    - V(archived_to_REMOTE_YYYYMMDD_HHMM), with the remote of O(repository) (V(local) for a directory) and the time at
      which the snapshot was made (UTC).
    - V(pending) for a record that is in the live logs only. Empty where none was found.
  returned: success
  type: str
  sample: archived_to_oss_20261123_0923
records:
  description:
    - What was found. One, as a rule. Several records of one C(trace_id) in a snapshot are all listed, and so is one in
      the live logs that differs from the archived one; RV(warnings_found) then says so.
    - A record in the live logs that is the archived one, byte by byte, is not listed again. See RV(records[].live).
  returned: success
  type: list
  elements: dict
  contains:
    archived:
      description: Whether this is of a snapshot. What is told of snapshot and object is missing where it is not.
      type: bool
    snapshot:
      description: Id of the snapshot.
      type: str
    snapshot_type:
      description: V(full) or V(increment).
      type: str
    created:
      description: When the snapshot was made (RFC 3339, UTC).
      type: str
    object:
      description: Full name of the object that holds the record, with the remote.
      type: str
    object_bytes:
      description: Its size.
      type: int
    object_sha256:
      description: SHA-256 of the object as it is stored. Objects are written once, so that this is its version.
      type: str
    part:
      description: Number of the part in the snapshot, from 0 on.
      type: int
    part_offset:
      description:
        - Where the record begins in the object once that is decrypted, and decompressed where its name ends in
          C(.zst.gpg).
        - Null where the log file itself is compressed in the snapshot.
      type: int
    path:
      description: The log file, relative to the log directory of the snapshot, or the absolute path of a live log.
      type: str
    offset:
      description: Where the record begins in the log file's plain content.
      type: int
    bytes:
      description: Length of the record's line, with its end.
      type: int
    line_sha256:
      description: SHA-256 of the record's line, with its end.
      type: str
    time:
      description: Time of the record (RFC 3339, UTC). Empty where it has none.
      type: str
    chain:
      description: The chain that it is numbered in. Empty for records of older installations.
      type: str
    seq:
      description: Its number in the chain. 0 for records of older installations.
      type: int
    live:
      description: Where the same line is in the live logs. Each with C(path) and C(offset).
      type: list
      elements: dict
    record:
      description: The record. Null where its line is no JSON (any more). Not with O(include_record=false).
      type: dict
    line:
      description: The record's line as it is, without its end. Not with O(include_record=false).
      type: str
    check:
      description: What was checked of the record. The content of the part was held against the encrypted index before.
      type: dict
      contains:
        ok:
          description: False where something is wrong.
          type: bool
        hash:
          description: V(ok), V(failed) or V(not_checked). The record has the hash that it ends with.
          type: str
        before:
          description: The same. The record names the hash of the record before it.
          type: str
        after:
          description: The same. The record after it names its hash.
          type: str
        numbers:
          description: The same. Its number follows the one before, and the next one follows it.
          type: str
        failures:
          description: What is wrong.
          type: list
          elements: str
        not_checked:
          description: What could not be checked, and why.
          type: list
          elements: str
warnings_found:
  description: What an inspector should know, such as a record that was changed. Also shown as warnings of the task.
  returned: success
  type: list
  elements: str
searched:
  description: What was looked into.
  returned: success
  type: dict
  contains:
    day:
      description: The day whose record tables were read, as in the C(trace_id); V(undated) where that names none.
      type: str
    snapshots:
      description: Snapshots that were searched; of a record that was not found, those that do not have it.
      type: int
    tables:
      description: Record tables that were read.
      type: int
    live_files:
      description: Live log files that were read.
      type: int
    live_bytes:
      description: Bytes of their plain content.
      type: int
not_searched:
  description:
    - What could not be looked into, and why. A manifest, table, part or file that is missing or damaged, a key that
      does not fit, a snapshot of an older release that has no record tables.
    - Where RV(found) is false and this is not empty, the record may be there.
    - What is missing altogether is looked for only where no record was found.
  returned: success
  type: list
  elements: str
tables_read:
  description: Record tables that were read and decrypted.
  returned: success
  type: int
parts_fetched:
  description: Parts that were fetched from the store, each try counted.
  returned: success
  type: int
seconds:
  description: Duration in seconds.
  returned: success
  type: float
thing:
  description: What the failure is about, such as a path, an object or an option.
  returned: failure that a user can act on
  type: str
expected:
  description: What should have been there.
  returned: failure that a user can act on
  type: str
hint:
  description: What to do next. May be empty.
  returned: failure that a user can act on
  type: str
"""

import dataclasses

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.guardops.qwen3guard.plugins.module_utils.module import (
    REPOSITORY_ARGUMENT_SPEC,
    failures_told,
    printable,
    session_of,
)
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import trace
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.keys.options import KEY_ARGUMENT_SPEC


def main():
    module = AnsibleModule(
        argument_spec=dict(
            trace_id={"type": "str", "required": True},
            logs_path={"type": "path"},
            include_record={"type": "bool", "default": True},
            **REPOSITORY_ARGUMENT_SPEC,
            **KEY_ARGUMENT_SPEC,
        ),
        supports_check_mode=True,
    )
    params = module.params
    options = trace.Options(params["trace_id"], params["logs_path"] or "", params["include_record"])
    with failures_told(module), session_of(module, layer="logs") as session:
        outcome = trace.trace(session, options)
    result = printable(dataclasses.asdict(outcome))
    result["warnings_found"] = result.pop("warnings")
    for text in result["warnings_found"]:
        module.warn(text)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
