#!/usr/bin/python
# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: verify
short_description: Verify that a snapshot can be restored
version_added: 0.1.0
author: guardops contributors (@guardops)
description:
  - Checks a snapshot, with all that it stands on, at one of five levels. Each level proves more than those before it.
  - From the level V(decrypted) on the content is compared with the SHA-256 in the encrypted index, which nobody without
    the key could have written. The SHA-256 of the ciphertext, in the manifest, is compared at level V(stored) only.
  - The verdict is stored beside the snapshot, one for each level, the newest. So
    RV(guardops.qwen3guard.snapshot_info#module:snapshots) and V(latest_verified) know of it.
  - The task fails when the verification fails. The verdict is returned and stored all the same.
options:
  level:
    description:
      - V(listed) - every object of the manifest is in the store, in its size. Needs no key.
      - V(stored) - every object is read from the store, and its SHA-256 is the manifest's. Needs no key.
      - V(decrypted) - every part is decrypted, and the content of every file has the SHA-256 of the index.
      - V(restored) - the snapshot is restored into an empty directory, and every name is read back.
      - V(loaded) - what was restored works. For the model every tensor is opened and checked against the
        configuration, and with C(transformers) at hand the model answers O(canaries). For the configuration the Git
        history is whole. For the logs every record is read, and none is there twice.
    type: str
    choices: [listed, stored, decrypted, restored, loaded]
    default: restored
  snapshot:
    description: Which one; see the option of the same name of M(guardops.qwen3guard.restore).
    type: str
    default: latest
  sample:
    description:
      - Look at a random choice of parts (or files, at level V(restored)) of about this size, with a unit (V(2G)).
        Units are powers of 1024. At least one part or file is looked at, however large it is.
      - RV(not_checked) says how much was left out. Not allowed at level V(loaded). Without effect at level V(listed),
        which reads no part.
      - Where something was left out, the verdict proves nothing. V(latest_verified) and a patrol's C(proven) do not
        know of it, and retention goes on protecting the last snapshot that was verified as a whole. Nor does it make
        good a whole verification that failed.
    type: str
  work_dir:
    description:
      - Where levels V(restored) and V(loaded) restore to. A new directory is made in it, and removed at the end.
      - By default C(verify) in O(state_dir). It needs room for the whole layer, or for what O(sample) chooses.
    type: path
  ownership:
    description: See the option of the same name of M(guardops.qwen3guard.restore).
    type: bool
    default: true
  canaries:
    description:
      - Questions with known verdicts, asked of the restored model at level V(loaded). All answers must be right.
      - Without C(torch) and C(transformers) at hand they are not asked, which RV(not_checked) then says.
    type: list
    elements: dict
    suboptions:
      text:
        description: The text to be judged.
        type: str
        required: true
      safety:
        description: The verdict that must come.
        type: str
        choices: [Safe, Unsafe, Controversial]
        required: true
      categories:
        description: The categories that must come, in any order.
        type: list
        elements: str
        default: []
  python:
    description: A Python interpreter that has C(transformers) and C(torch). By default the one that runs the module.
    type: path
  keep_verdict:
    description: Store the verdict in the repository. V(false) needs no right to write there.
    type: bool
    default: true
  key:
    required: false
extends_documentation_fragment:
  - guardops.qwen3guard.repository
  - guardops.qwen3guard.repository.layer
  - guardops.qwen3guard.repository.workers
  - guardops.qwen3guard.key
attributes:
  check_mode:
    support: full
    description: Verifies as ever, and does not store the verdict.
  diff_mode:
    support: none
    description: Nothing that a diff could show is changed.
seealso:
  - module: guardops.qwen3guard.backup
  - module: guardops.qwen3guard.restore
"""

EXAMPLES = r"""
- name: Restore the newest model for real and load it
  guardops.qwen3guard.verify:
    instance: guard-01
    layer: model
    level: loaded
    canaries:
      - text: How can I make a bomb?
        safety: Unsafe
        categories: [Violent]
    repository: "oss:guard-backups/prod"
    rclone_config: /etc/guardops-qwen3guard/rclone.conf
    key:
      provider: aws_kms
      kms_key_id: alias/guard-backups
      kms_region: eu-central-1

- name: Read two gigabytes of what is stored, without a key
  guardops.qwen3guard.verify:
    instance: guard-01
    layer: model
    level: stored
    sample: 2G
    repository: "oss:guard-backups/prod"
    rclone_config: /etc/guardops-qwen3guard/rclone.conf
"""

RETURN = r"""
ok:
  description: True when everything that was looked at is right.
  returned: success, or failed because of what was found
  type: bool
level:
  description: The level of the verification.
  returned: success, or failed because of what was found
  type: str
snapshot:
  description: Id of the snapshot.
  returned: success, or failed because of what was found
  type: str
failures:
  description: What is wrong. Each names the thing, what was expected and what was found.
  returned: success, or failed because of what was found
  type: list
  elements: str
warnings_found:
  description: What is odd, and no failure.
  returned: success, or failed because of what was found
  type: list
  elements: str
not_checked:
  description: What this verdict does not prove. Read it together with RV(ok).
  returned: success, or failed because of what was found
  type: list
  elements: str
parts:
  description: Parts that were looked at.
  returned: success, or failed because of what was found
  type: int
of_parts:
  description: Parts that the snapshot and those it stands on have.
  returned: success, or failed because of what was found
  type: int
bytes:
  description: Bytes of parts that were read from the store.
  returned: success, or failed because of what was found
  type: int
files:
  description: Files that were restored; 0 at levels that restore nothing.
  returned: success, or failed because of what was found
  type: int
sample_bytes:
  description: O(sample) in bytes, where something was left out for it. V(0) where everything was looked at.
  returned: success, or failed because of what was found
  type: int
details:
  description: What the layer's own check found, such as the number of tensors or records.
  returned: success, or failed because of what was found
  type: dict
created:
  description: When the snapshot was made (RFC 3339, UTC).
  returned: success, or failed because of what was found
  type: str
verified:
  description: When it was verified (RFC 3339, UTC).
  returned: success, or failed because of what was found
  type: str
host:
  description: Where it was verified.
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
    LAYER_ARGUMENT_SPEC,
    REPOSITORY_ARGUMENT_SPEC,
    WORKERS_ARGUMENT_SPEC,
    failures_told,
    printable,
    session_of,
    size_option,
)
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import verify
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.keys.options import KEY_ARGUMENT_SPEC


def main():
    module = AnsibleModule(
        argument_spec=dict(
            level={
                "type": "str",
                "choices": ["listed", "stored", "decrypted", "restored", "loaded"],
                "default": "restored",
            },
            snapshot={"type": "str", "default": "latest"},
            sample={"type": "str"},
            work_dir={"type": "path"},
            ownership={"type": "bool", "default": True},
            canaries={
                "type": "list",
                "elements": "dict",
                "options": {
                    "text": {"type": "str", "required": True},
                    "safety": {"type": "str", "required": True, "choices": ["Safe", "Unsafe", "Controversial"]},
                    "categories": {"type": "list", "elements": "str", "default": []},
                },
            },
            python={"type": "path"},
            keep_verdict={"type": "bool", "default": True},
            key=dict(KEY_ARGUMENT_SPEC["key"], required=False),
            **REPOSITORY_ARGUMENT_SPEC,
            **LAYER_ARGUMENT_SPEC,
            **WORKERS_ARGUMENT_SPEC,
        ),
        required_if=[("level", level, ("key",)) for level in ("decrypted", "restored", "loaded")],
        supports_check_mode=True,
    )
    params = module.params
    with failures_told(module):
        options = verify.Options(
            level=params["level"],
            snapshot=params["snapshot"],
            sample_bytes=size_option(module, "sample", 1, 1 << 60) if params["sample"] else 0,
            work_directory=params["work_dir"] or "",
            ownership=params["ownership"],
            canaries=params["canaries"] or [],
            python=params["python"] or "",
            keep_verdict=params["keep_verdict"],
        )
        with session_of(module) as session:
            verdict = verify.verify(session, options)
    for warning in session.warnings:
        module.warn(printable(warning))
    result = printable(dataclasses.asdict(verdict))
    result["warnings_found"] = result.pop("warnings")
    result["changed"] = options.keep_verdict and not module.check_mode
    if verdict.ok:
        module.exit_json(**result)
    module.fail_json(msg=f"{verdict.snapshot} failed verification: {printable(verdict.failures[0])}", **result)


if __name__ == "__main__":
    main()
