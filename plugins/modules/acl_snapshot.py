#!/usr/bin/python
# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: acl_snapshot
short_description: Save, compare and restore owners, modes, ACLs and extended attributes of a tree
version_added: 0.1.0
author: guardops contributors (@guardops)
description:
  - Saves the attributes of every entry of a directory tree, tells what changed since, and restores them.
  - Attributes are the owner and group by numeric id, the mode with its setuid, setgid and sticky bits, access and
    default ACLs, file capabilities and other extended attributes. The files' contents are not touched or read.
  - The snapshot is the text of C(getfacl -R -n .), sorted, which C(setfacl --restore) reads when it is run in the
    tree's root. Beside it lies O(file) with C(.json) at its end, with all that this text cannot say, which is
    capabilities, extended attributes, owners of symbolic links, and paths of more than 4095 bytes.
  - Symbolic links are never followed, except for O(path) itself. Mount points below O(path) are crossed.
  - Neither C(getfacl) nor C(setfacl) needs to be installed.
options:
  path:
    description:
      - The root of the tree. It must be a directory.
    type: path
    required: true
  file:
    description:
      - Where the snapshot is saved or read. Its directory must exist.
      - Where it lies in the tree, the snapshot's two files are left out of the snapshot.
    type: path
    required: true
  state:
    description:
      - V(saved) writes the snapshot when it differs from what O(file) holds, atomically and for its owner alone
        (mode 0600).
      - V(compared) changes nothing and returns what is different from the snapshot.
      - V(restored) gives the entries their attributes back, then reads them again. An entry that cannot be made
        as it was fails the task, after all others were restored. Entries that are missing in the tree are not
        made, and entries that the snapshot does not have are left as they are; both are returned.
      - Only root can give files to other users. For another user an entry with the wrong owner is a failure, and
        is not changed at all.
      - Restore only trees whose directories no one you do not trust can write to. Whoever can replace a file by
        another one would get the old one's owner and setuid bit for it.
    type: str
    choices: [saved, compared, restored]
    default: saved
  exclude:
    description:
      - Shell patterns (C(*), C(?), C([...])) of entries to leave out, with everything below them.
      - A pattern is compared with the name and with the path relative to the root; C(*) also matches a slash.
      - Applied to the tree and to the snapshot.
    type: list
    elements: str
    default: []
  fail_on_difference:
    description:
      - With O(state=compared), fail when anything is different.
      - With O(state=restored), fail when entries are missing in the tree or were added to it.
      - Not allowed with O(state=saved).
    type: bool
    default: false
  max_differences:
    description:
      - The most differences, and the most paths in any other list, that are returned. The counts always tell all.
    type: int
    default: 1000
attributes:
  check_mode:
    support: full
    description: Reads the tree and tells what would be written or restored. Changes nothing.
  diff_mode:
    support: full
    description: Shows each attribute that differs, before and after, within O(max_differences).
notes:
  - Inode flags (C(chattr)) and the labels of security modules (SELinux, Smack, IMA, EVM) are neither saved nor
    restored. They belong to the host's policy.
  - Needs C(/proc) for O(state=restored).
seealso:
  - module: ansible.posix.acl
"""

EXAMPLES = r"""
- name: Remember who may do what
  guardops.qwen3guard.acl_snapshot:
    path: /data/qwen3guard-gen-web
    file: /var/lib/guardops-qwen3guard/data.facl

- name: Fail when permissions are not what they were
  guardops.qwen3guard.acl_snapshot:
    path: /data/qwen3guard-gen-web
    file: /var/lib/guardops-qwen3guard/data.facl
    state: compared
    exclude: ["*.tmp"]
    fail_on_difference: true

- name: Put the permissions back, and show which
  guardops.qwen3guard.acl_snapshot:
    path: /data/qwen3guard-gen-web
    file: /var/lib/guardops-qwen3guard/data.facl
    state: restored
  become: true
  diff: true
"""

RETURN = r"""
differences:
  description:
    - What changed, sorted by path. V(before) and V(after) are null where there is none.
    - With O(state=saved) from the old snapshot to the tree, with O(state=compared) from the snapshot to the tree,
      with O(state=restored) from the tree to the snapshot.
  returned: success, or failed because of differences
  type: list
  elements: dict
  contains:
    path:
      description:
        - The path relative to the root. A backslash is doubled, and what is not printable or not UTF-8 is written
          as octal numbers, such as C(\012) for a newline.
      type: str
    attribute:
      description:
        - One of V(owner), V(group), V(mode), V(acl), V(default_acl), V(capability), V(xattr) with its name,
          V(type) for a symbolic link in place of something else, and V(entry) for a path that came or went.
      type: str
    before:
      description: The value before. What is not text is written in base64 after V(base64:).
      type: str
    after:
      description: The value after.
      type: str
  sample: [{"path": "logs/audit.log", "attribute": "mode", "before": "0640", "after": "0600"}]
difference_count:
  description: How many differences there are, also when RV(differences) was cut.
  returned: success, or failed because of differences
  type: int
missing:
  description: With O(state=restored), paths that the snapshot has and the tree does not.
  returned: state is restored
  type: list
  elements: str
extra:
  description: With O(state=restored), paths that the tree has and the snapshot does not.
  returned: state is restored
  type: list
  elements: str
failures:
  description: With O(state=restored), the entries that are not as in the snapshot, with the reason.
  returned: state is restored
  type: list
  elements: dict
  sample: [{"path": "models", "reason": "Operation not permitted: only root may do this. Run it as root (become)."}]
entries:
  description: How many entries of the tree were read.
  returned: success, or failed because of differences
  type: int
excluded:
  description: Paths of the tree that were left out, without what is below them.
  returned: success, or failed because of differences
  type: list
  elements: str
seconds:
  description: Duration in seconds.
  returned: success, or failed because of differences
  type: float
not_checked:
  description: What the result says nothing about, such as directories that could not be read.
  returned: success, or failed because of differences
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

import time

from ansible.module_utils.basic import AnsibleModule

# Not by way of module_utils/module.py: that loads all key providers, a third of a second that nobody here needs.
from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import GuardError
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import attributes_state


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "file": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["saved", "compared", "restored"], "default": "saved"},
            "exclude": {"type": "list", "elements": "str", "default": []},
            "fail_on_difference": {"type": "bool", "default": False},
            "max_differences": {"type": "int", "default": 1000},
        },
        supports_check_mode=True,
    )
    params = module.params
    started = time.monotonic()
    try:
        report = attributes_state.reach(
            attributes_state.Options(
                path=params["path"],
                file=params["file"],
                state=params["state"],
                exclude=tuple(params["exclude"]),
                fail_on_difference=params["fail_on_difference"],
                limit=params["max_differences"],
                dry=module.check_mode,
            )
        )
    except GuardError as error:
        names = ("thing", "expected", "found", "hint")
        module.fail_json(
            msg=attributes_state.readable(str(error)),
            **{name: attributes_state.readable(getattr(error, name)) for name in names},
        )
    for text in report.warnings:
        module.warn(text)
    result = dict(report.result, seconds=round(time.monotonic() - started, 3))
    if module._diff:
        result["diff"] = report.diff
    if report.failure:
        module.fail_json(msg=report.failure, **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
