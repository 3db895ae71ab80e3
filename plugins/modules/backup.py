#!/usr/bin/python
# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: backup
short_description: Back up one layer of a Qwen3Guard-Gen-WEB instance
version_added: 0.1.0
author: guardops contributors (@guardops)
description:
  - Takes one snapshot of one layer and stores it, encrypted on this host, in a repository that rclone reaches.
  - The snapshot is a tar stream cut into parts. Each part is compressed where that helps, encrypted with gpg
    (AES-256) and uploaded on its own, several at once. The manifest goes last, after the store was read back;
    only then does the snapshot exist. An interrupted run leaves none, and the next run goes on with its parts.
  - A layer that did not change is not stored again. In the model and the configuration, contents and attributes count,
    and a new modification time alone is no change. In the logs only new lines count.
  - V(model) and V(config) are always whole. V(logs) can be a full or an increment, which holds the whole lines
    that were written since the last snapshot, found by inode, offset and content whatever the files' names and times
    are.
  - For V(config), what changed in the directory is first committed to its Git repository, which is made where there
    is none. The snapshot holds the files and the whole history as a Git bundle.
  - Owners, modes, access and default ACLs, extended attributes, file capabilities, hard links and holes are saved.
    Named pipes, sockets, devices and what is mounted below O(path) are not; they are listed in RV(left_out).
    Inode flags (C(chattr)) and the labels of security modules (SELinux, IMA, EVM) are not saved either.
  - Fails on a host when another one took the instance over by M(guardops.qwen3guard.fence), in check mode too. What
    was stored in that moment is taken back.
  - A file of the model that changes while it is read fails the task, and no snapshot is made. The other layers are
    read again, up to three times in all.
options:
  path:
    description:
      - The layer's directory. It must exist and hold something. An empty directory is an error, not a backup,
        because a missing mount looks just like it.
    type: path
    required: true
  type:
    description:
      - V(auto) takes an increment of the logs where there is a full to stand on, and a full otherwise. The model and
        the configuration are taken whole if they changed.
      - V(increment) does the same; the result's RV(type) and RV(reason) say what was taken and why.
      - V(full) takes a full even if nothing changed.
      - An increment needs to know what the snapshot before it holds, from O(state_dir) or from that snapshot's index. A
        host that cannot decrypt (O(key.provider=gpg_recipients) without a private key) and has lost its O(state_dir)
        therefore takes a full. So does one that finds a log which begins like a saved one and goes on otherwise.
    type: str
    choices: [auto, full, increment]
    default: auto
  part_size:
    description:
      - Bytes of tar stream in one part, with a unit (V(64M)), from V(1M) to V(4G). Units are powers of 1024. Parts that
        are compressed hold an eighth of it, and at least 1 MiB.
      - Smaller parts mean more requests, larger ones more to repeat when a transfer fails.
    type: str
    default: 256M
  git_remote:
    description:
      - For O(layer=config) only. URL of the private Git repository to which the configuration's history is pushed.
      - An absolute path, or C(https), C(http), C(ssh) or C(file). The push is read back from the remote and is never
        forced.
      - Pushed before the snapshot is stored. When the push fails, the task fails and no snapshot is made; the commit
        is kept in the directory's repository.
    type: str
  git_branch:
    description: The branch of O(git_remote).
    type: str
    default: main
  git_ssh_key_file:
    description: File on the managed host with a private SSH key for O(git_remote).
    type: path
  archive_ledger:
    description:
      - For O(layer=logs) only. Absolute path of a small file on the managed host that says which records of which
        chains are archived, since when and in which snapshot. The gateway reads it to answer C(GET /api/audit).
      - Its directory must exist. It is replaced as a whole after the snapshot exists, readable for everybody, and
        made anew from the repository's manifests when it is missing, damaged or behind.
      - If it cannot be written the task warns and does not fail.
    type: path
    version_added: 0.2.0
extends_documentation_fragment:
  - guardops.qwen3guard.repository
  - guardops.qwen3guard.repository.layer
  - guardops.qwen3guard.repository.workers
  - guardops.qwen3guard.key
attributes:
  check_mode:
    support: full
    description: Looks at the layer and the repository and says what would be stored. Stores and commits nothing.
  diff_mode:
    support: full
    description: Shows what changed since the newest snapshot. For the configuration that is Git's diff.
seealso:
  - module: guardops.qwen3guard.fence
  - module: guardops.qwen3guard.restore
  - module: guardops.qwen3guard.verify
"""

EXAMPLES = r"""
- name: Back up the model after an upgrade
  guardops.qwen3guard.backup:
    instance: guard-01
    layer: model
    path: /data/qwen3guard-gen-web/models
    repository: "oss:guard-backups/prod"
    rclone_config: /etc/guardops-qwen3guard/rclone.conf
    key:
      provider: aws_kms
      kms_key_id: alias/guard-backups
      kms_region: eu-central-1

- name: Store what was logged since the last run
  guardops.qwen3guard.backup:
    instance: guard-01
    layer: logs
    path: /data/qwen3guard-gen-web/logs
    repository: "oss:guard-backups/prod"
    rclone_config: /etc/guardops-qwen3guard/rclone.conf
    key:
      provider: gpg_recipients
      public_key_files: [/etc/guardops-qwen3guard/backup.asc]
"""

RETURN = r"""
snapshot:
  description: Id of the snapshot that now holds the layer. Empty in check mode when a new one would be taken.
  returned: success
  type: str
  sample: 000012-3f9a2c1d
type:
  description: V(full) or V(increment). Empty when nothing was stored.
  returned: success
  type: str
reason:
  description: Why a snapshot was taken, or why none was.
  returned: success
  type: str
  sample: new lines
files:
  description: Files that the snapshot describes. Increments describe all logs, also those without a new line.
  returned: success
  type: int
bytes:
  description: Bytes of content in the snapshot, before compression. For an increment, of the new lines.
  returned: success
  type: int
parts:
  description: Parts of the snapshot.
  returned: success
  type: int
stored_bytes:
  description: Bytes that were uploaded by this run.
  returned: success
  type: int
reused_parts:
  description: Parts that an interrupted run had stored already.
  returned: success
  type: int
seconds:
  description: Duration in seconds.
  returned: success
  type: float
left_out:
  description: Names that are not in the snapshot, each with the reason.
  returned: success
  type: list
  elements: dict
  sample: [{"path": "run/guard.sock", "reason": "socket"}]
unfinished:
  description:
    - Logs only. Files with bytes after the last whole line. An increment leaves these for the next one.
    - A file that is being compressed right now is listed with 0 bytes.
  returned: success
  type: list
  elements: dict
  sample: [{"path": "audit.log", "bytes": 160}]
commit:
  description: Configuration only. The Git commit that this run made, if it made one.
  returned: success
  type: str
pushed:
  description: Whether the history was pushed to O(git_remote) and seen there.
  returned: success
  type: bool
not_checked:
  description: What this result does not prove.
  returned: success
  type: list
  elements: str
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
    WORKERS_ARGUMENT_SPEC,
    failures_told,
    printable,
    session_of,
    size_option,
)
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import backup
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.keys.options import KEY_ARGUMENT_SPEC


def main():
    module = AnsibleModule(
        argument_spec=dict(
            path={"type": "path", "required": True},
            type={"type": "str", "choices": ["auto", "full", "increment"], "default": "auto"},
            part_size={"type": "str", "default": "256M"},
            git_remote={"type": "str"},
            git_branch={"type": "str", "default": "main"},
            git_ssh_key_file={"type": "path", "no_log": False},
            archive_ledger={"type": "path"},
            **REPOSITORY_ARGUMENT_SPEC,
            **LAYER_ARGUMENT_SPEC,
            **WORKERS_ARGUMENT_SPEC,
            **KEY_ARGUMENT_SPEC,
        ),
        supports_check_mode=True,
    )
    with failures_told(module):
        if module.params["git_remote"] and module.params["layer"] != "config":
            raise GuardError("option git_remote", "layer config", f"layer {module.params['layer']}")
        if module.params["archive_ledger"] and module.params["layer"] != "logs":
            raise GuardError("option archive_ledger", "layer logs", f"layer {module.params['layer']}")
        options = backup.Options(
            path=module.params["path"],
            type=module.params["type"],
            part_size=size_option(module, "part_size", 1 << 20, 4 << 30),
            git_remote=module.params["git_remote"] or "",
            git_branch=module.params["git_branch"],
            git_ssh_key_file=module.params["git_ssh_key_file"] or "",
            archive_ledger=module.params["archive_ledger"] or "",
        )
        with session_of(module) as session:
            outcome = dataclasses.asdict(backup.backup(session, options))
            for warning in session.warnings:
                module.warn(printable(warning))
    diff = outcome.pop("diff")
    module.exit_json(diff={"prepared": printable(diff)}, **printable(outcome))


if __name__ == "__main__":
    main()
