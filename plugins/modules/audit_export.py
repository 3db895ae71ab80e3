#!/usr/bin/python
# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: audit_export
short_description: Export the audit records of a window of time as signed evidence
version_added: 0.2.0
author: guardops contributors (@guardops)
description:
  - Writes a directory with all audit records of a window, from the snapshots of the logs and from live logs together,
    each exactly once and in order, with a signed statement of what that proves and what it does not.
  - The bundle has the records as the gateway wrote them, C(statement.json) with its signature, the public key,
    a page for people (C(summary.html)) and C(check.py), which checks all of it with Python's standard library alone.
  - Records are numbered and chained by hash when they are written. What belongs to the window is, for each chain,
    everything from the first to the last number whose time lies in it, whatever a wrong clock says of those between.
  - Increments are read before fulls. Where a part is damaged or missing, another snapshot that holds the same records
    is read instead, and RV(findings) says so.
  - The task fails when something was found that everyday operation does not explain, such as a missing or an altered
    record. The bundle is written and the result is returned all the same.
  - Memory does not grow with the window. In O(state_dir) there is room needed for a few parts, for 16 bytes of each
    record, and for all records that have no chain.
options:
  start:
    description:
      - The beginning of the window, a time with its zone, such as V(2026-11-20T00:00:00+08:00).
      - Records of this very moment belong to it.
    type: str
    required: true
  end:
    description: The end of the window, a time with its zone. Records of this very moment do not belong to it.
    type: str
    required: true
  path:
    description:
      - The directory to write, which must be new or empty. The one that it is in must exist.
      - It has another name until it is complete.
    type: path
    required: true
  logs_path:
    description:
      - A directory of live logs, for what is not archived yet, rotated and compressed files included.
      - Every record in it is checked, and compared with what the snapshots know. Files that were last written to more
        than a day before the window are not read.
    type: path
  signing_key_file:
    description:
      - A file with one armored OpenPGP secret key to sign the statement with, exported for this purpose. It is used in
        a throw-away home.
      - Required, unless O(unsigned=true).
    type: path
  signing_passphrase_file:
    description: A file with the passphrase of that key, which only its owner can read.
    type: path
  unsigned:
    description: Write a statement without a signature. Anybody could have written such a one.
    type: bool
    default: false
extends_documentation_fragment:
  - guardops.qwen3guard.repository
  - guardops.qwen3guard.repository.workers
  - guardops.qwen3guard.key
attributes:
  check_mode:
    support: full
    description: Tells which snapshots and parts would be read, and how many records there can be at most.
  diff_mode:
    support: none
    description: Nothing that a diff could show is changed.
notes:
  - The bundle holds what users wrote. It is readable for its owner only.
seealso:
  - module: guardops.qwen3guard.audit_trace
  - module: guardops.qwen3guard.backup
  - module: guardops.qwen3guard.verify
"""

EXAMPLES = r"""
- name: Evidence for an inspection, 72 hours
  guardops.qwen3guard.audit_export:
    instance: guard-01
    start: "2026-11-20T00:00:00+08:00"
    end: "2026-11-23T00:00:00+08:00"
    path: /srv/evidence/2026-11-20
    logs_path: /data/qwen3guard-gen-web/logs
    signing_key_file: /etc/guardops-qwen3guard/evidence.sec.asc
    signing_passphrase_file: /etc/guardops-qwen3guard/evidence.pass
    repository: "oss:guard-backups/prod"
    rclone_config: /etc/guardops-qwen3guard/rclone.conf
    key:
      provider: aws_kms
      kms_key_id: alias/guard-backups
      kms_region: eu-central-1
"""

RETURN = r"""
path:
  description: The directory that was written.
  returned: success, or failed because of what was found
  type: str
ok:
  description: True when nothing was found to be missing, changed or out of order. Read RV(not_proven) together with it.
  returned: success, or failed because of what was found
  type: bool
start:
  description: The beginning of the window (RFC 3339, UTC).
  returned: success, or failed because of what was found
  type: str
end:
  description: The end of the window (RFC 3339, UTC), which does not belong to it.
  returned: success, or failed because of what was found
  type: str
records:
  description: Records that were exported; 0 in check mode.
  returned: success, or failed because of what was found
  type: int
records_expected:
  description:
    - How many there can be at most, by the indexes and the live logs. What they tell is not cut at the window's ends,
      and records without a chain may be counted in each place that holds them.
  returned: success, or failed because of what was found
  type: int
chains:
  description: What was exported of each chain.
  returned: success, or failed because of what was found
  type: list
  elements: dict
  contains:
    chain:
      description: Its name.
      type: str
    first:
      description: The number of the first record.
      type: int
    last:
      description: The number of the last record.
      type: int
    count:
      description: Records between them, these two included.
      type: int
    gaps:
      description: Pairs of numbers, the first and the last of each run that is missing.
      type: list
      elements: list
findings:
  description: What was found, innocent things included.
  returned: success, or failed because of what was found
  type: list
  elements: dict
  contains:
    kind:
      description:
        - What it is, such as V(altered), V(missing), V(inserted), V(reordered), V(fork), V(cut_tail), V(broken_link),
          V(head_differs), V(unreadable), V(duplicate), V(clock_step), V(new_chain) or V(two_writers).
      type: str
    scope:
      description: V(exported records), or V(live logs) where only the copy in the live logs is concerned.
      type: str
    chain:
      description: The chain; empty where it is about none.
      type: str
    first:
      description: The first number that it is about, 0 where it is about none.
      type: int
    last:
      description: The last number.
      type: int
    since:
      description: The time of the first record, or of the one before it where it is missing.
      type: str
    until:
      description: The time of the last record, or of the one after it.
      type: str
    where:
      description: The snapshot or live log, and the file in it.
      type: str
    innocent:
      description: Whether everyday operation explains it.
      type: bool
    why:
      description: The same in words.
      type: str
conservation:
  description:
    - Records in all that were C(written) (by the numbers), are C(live), C(archived) (by the indexes), C(restorable)
      (fetched and proven in this run), C(exported) and C(missing). The statement has them for each hour.
  returned: success, or failed because of what was found
  type: dict
proven:
  description: What the bundle proves, in words.
  returned: success, or failed because of what was found
  type: list
  elements: str
not_proven:
  description: What it does not prove.
  returned: success, or failed because of what was found
  type: list
  elements: str
snapshots:
  description: Snapshots that were read, or would be.
  returned: success, or failed because of what was found
  type: list
  elements: str
parts:
  description: Parts that were fetched, or would be.
  returned: success, or failed because of what was found
  type: int
stored_bytes:
  description: Bytes of these parts.
  returned: success, or failed because of what was found
  type: int
bytes:
  description: Bytes of the bundle, the statement and its signature aside.
  returned: success, or failed because of what was found
  type: int
signed_by:
  description: Fingerprint of the key that signed the statement; empty if none did.
  returned: success, or failed because of what was found
  type: str
seconds:
  description: Duration in seconds.
  returned: success, or failed because of what was found
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

from ansible_collections.guardops.qwen3guard.plugins.module_utils.module import (
    REPOSITORY_ARGUMENT_SPEC,
    WORKERS_ARGUMENT_SPEC,
    failures_told,
    printable,
    session_of,
)
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import export
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.keys.options import KEY_ARGUMENT_SPEC


def main():
    module = AnsibleModule(
        argument_spec=dict(
            start={"type": "str", "required": True},
            end={"type": "str", "required": True},
            path={"type": "path", "required": True},
            logs_path={"type": "path"},
            signing_key_file={"type": "path", "no_log": False},
            signing_passphrase_file={"type": "path", "no_log": False},
            unsigned={"type": "bool", "default": False},
            **REPOSITORY_ARGUMENT_SPEC,
            **WORKERS_ARGUMENT_SPEC,
            **KEY_ARGUMENT_SPEC,
        ),
        supports_check_mode=True,
    )
    params = module.params
    with failures_told(module):
        options = export.Options(
            start=params["start"],
            end=params["end"],
            path=params["path"],
            logs_path=params["logs_path"] or "",
            signing_key_file=params["signing_key_file"] or "",
            signing_passphrase_file=params["signing_passphrase_file"] or "",
            unsigned=params["unsigned"],
        )
        with session_of(module, "logs") as session:
            outcome = export.export(session, options)
        for text in session.warnings:
            module.warn(printable(text))
    result = printable(dataclasses.asdict(outcome))
    result["changed"] = True
    if outcome.ok:
        module.exit_json(**result)
    wrong = [finding for finding in result["findings"] if not finding["innocent"]]
    told = "{kind}, chain {chain}, {first} to {last} ({since} to {until}): {why}".format(**wrong[0])
    module.fail_json(msg=f"{outcome.path} is written, and not all is right: {told}", **result)


if __name__ == "__main__":
    main()
