#!/usr/bin/python
# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: restore
short_description: Restore one layer of a Qwen3Guard-Gen-WEB instance
version_added: 0.1.0
author: guardops contributors (@guardops)
description:
  - Brings a snapshot back into a directory at any path, by parts, several at once.
  - What the directory holds already is compared by content, and only what differs is fetched.
  - Each file is written beside its place and takes it when gpg has vouched for all its bytes and their SHA-256 agrees
    with the index. Symbolic links in the target are never followed.
  - Owners, modes, ACLs, extended attributes and file capabilities are restored, then read back; a file system that
    does not take them is an error.
  - What an interrupted or failed restore left unfinished is removed by the next one; files that were complete stay.
  - A snapshot of the logs that is an increment is restored with the full and the increments it stands on. Each log
    comes back under the name that it had at that snapshot; one that was compressed since comes back plain.
  - A configuration comes back with its Git history, unless a Git repository is there already, which is left alone.
options:
  path:
    description:
      - The directory to restore into. It is made where it does not exist.
      - The task fails before anything is fetched where it is not empty and O(overwrite) is not set, or where the file
        system has less room than the files to be fetched need.
    type: path
    required: true
  snapshot:
    description:
      - V(latest); V(latest_verified), which is the newest that was verified as a whole at level restored or loaded and
        has no failed verification (one of a sample proves nothing); a number or a whole id; or a time with its zone
        (V(2026-05-20T14:23:00+08:00)), which means the last one made by then.
      - What a host stored that M(guardops.qwen3guard.fence) had fenced off is only taken where its number or id names
        it. Otherwise it is passed over with a warning.
    type: str
    default: latest
  overwrite:
    description:
      - Allow a directory that is not empty. What differs is replaced; what the snapshot does not have is kept.
      - A directory with content where the snapshot has a file is never replaced; it fails the task.
    type: bool
    default: false
  keep_existing:
    description:
      - Of the logs only. Allow a directory that is not empty, and touch no file in it. For logs that come back while
        the service writes new ones, as after a recovery in which it answers before its history is back.
      - A file that holds all that the snapshot has of it, and maybe more, is left as it is. One of another content
        keeps its name too, and the snapshot's comes back beside it as C(NAME-restored-NUMBER), such as
        C(audit.log-restored-000012), with the snapshot's number. The gateway, M(guardops.qwen3guard.audit_trace) and
        backups take it for a rotated log.
      - Owners, modes and access lists of directories are restored, their times are not.
      - Excludes O(overwrite) and O(remove_extra).
    type: bool
    default: false
  remove_extra:
    description: With O(overwrite=true), remove what the snapshot does not have.
    type: bool
    default: false
  ownership:
    description:
      - Restore owners, setuid and setgid bits of files, and attributes that only root may set. V(false) is for an
        ordinary user who wants the content; the result then says in RV(not_checked) what it did without.
      - With V(true), a user who is not root gets an error when a file of the snapshot belongs to somebody else.
    type: bool
    default: true
extends_documentation_fragment:
  - guardops.qwen3guard.repository
  - guardops.qwen3guard.repository.layer
  - guardops.qwen3guard.repository.workers
  - guardops.qwen3guard.key
attributes:
  check_mode:
    support: full
    description: Reads the index and compares, and says what would be fetched and changed. Writes nothing.
  diff_mode:
    support: full
    description: Names every file that differs, and each attribute with both values.
seealso:
  - module: guardops.qwen3guard.backup
  - module: guardops.qwen3guard.verify
"""

EXAMPLES = r"""
- name: Bring the model back on a new disk
  guardops.qwen3guard.restore:
    instance: guard-01
    layer: model
    path: /data/qwen3guard-gen-web/models
    snapshot: latest_verified
    repository: "oss:guard-backups/prod"
    rclone_config: /etc/guardops-qwen3guard/rclone.conf
    key:
      provider: aws_kms
      kms_key_id: alias/guard-backups
      kms_region: eu-central-1

- name: Bring the history of the logs back while the service writes new ones
  guardops.qwen3guard.restore:
    instance: guard-01
    layer: logs
    path: /data/qwen3guard-gen-web/logs
    keep_existing: true
    repository: "oss:guard-backups/prod"
    rclone_config: /etc/guardops-qwen3guard/rclone.conf
    key:
      provider: aws_kms
      kms_key_id: alias/guard-backups
      kms_region: eu-central-1

- name: Look at the logs as they were at two in the afternoon, elsewhere
  guardops.qwen3guard.restore:
    instance: guard-01
    layer: logs
    path: /srv/inspection/logs
    snapshot: "2026-05-20T14:00:00+08:00"
    ownership: false
    repository: "oss:guard-backups/prod"
    key:
      provider: file
      key_file: /root/trial.key
"""

RETURN = r"""
snapshot:
  description: Id of the snapshot that was restored.
  returned: success
  type: str
created:
  description: When it was made (RFC 3339, UTC).
  returned: success
  type: str
chain:
  description: The snapshots that were read, the full first.
  returned: success
  type: list
  elements: str
files:
  description: Files in the snapshot.
  returned: success
  type: int
bytes:
  description: Bytes of content in the snapshot.
  returned: success
  type: int
fetched_bytes:
  description: Bytes of parts that were downloaded; 0 when nothing differed. In check mode what would be downloaded.
  returned: success
  type: int
fetched_parts:
  description: Parts that were downloaded; 0 when nothing differed. In check mode what would be downloaded.
  returned: success
  type: int
extra:
  description: Names in the directory that the snapshot does not have.
  returned: success
  type: list
  elements: str
kept:
  description: With O(keep_existing=true), names that held all that the snapshot has of them, and were not touched.
  returned: success
  type: list
  elements: str
beside:
  description: With O(keep_existing=true), files that came back, or were already, beside another one of their name.
  returned: success
  type: list
  elements: dict
  contains:
    path:
      description: Name in the snapshot.
      type: str
    restored_as:
      description: Name in the directory.
      type: str
seconds:
  description: Duration in seconds.
  returned: success
  type: float
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
)
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import restore
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.keys.options import KEY_ARGUMENT_SPEC


def main():
    module = AnsibleModule(
        argument_spec=dict(
            path={"type": "path", "required": True},
            snapshot={"type": "str", "default": "latest"},
            overwrite={"type": "bool", "default": False},
            keep_existing={"type": "bool", "default": False},
            remove_extra={"type": "bool", "default": False},
            ownership={"type": "bool", "default": True},
            **REPOSITORY_ARGUMENT_SPEC,
            **LAYER_ARGUMENT_SPEC,
            **WORKERS_ARGUMENT_SPEC,
            **KEY_ARGUMENT_SPEC,
        ),
        supports_check_mode=True,
    )
    names = ("path", "snapshot", "overwrite", "keep_existing", "remove_extra", "ownership")
    with failures_told(module):
        if module.params["remove_extra"] and not module.params["overwrite"]:
            raise GuardError("option remove_extra", "overwrite: true beside it", "overwrite: false")
        if module.params["keep_existing"]:
            _check_keep_existing(module)
        options = restore.Options(**{name: module.params[name] for name in names})
        with session_of(module) as session:
            outcome = dataclasses.asdict(restore.restore(session, options))
    for warning in session.warnings:
        module.warn(printable(warning))
    diff = outcome.pop("diff")
    del outcome["files_left_out"]  # there is no sample here
    module.exit_json(diff={"prepared": printable(diff)}, **printable(outcome))


def _check_keep_existing(module):
    if module.params["layer"] != "logs":
        raise GuardError("option keep_existing", "layer logs", f"layer {module.params['layer']}")
    if module.params["overwrite"]:
        raise GuardError("option keep_existing", "overwrite: false beside it", "overwrite: true", "Choose one.")


if __name__ == "__main__":
    main()
