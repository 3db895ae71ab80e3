#!/usr/bin/python
# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: key_check
short_description: Check that a host reaches its repository and its key provider
version_added: 0.3.0
author: guardops contributors (@guardops)
description:
  - Lists the instance in the repository, lets the key provider wrap a data key, and unwrap it again where the provider
    can. Nothing is stored, and the data key is forgotten.
  - So a wrong credential, a key that was disabled, or a store that does not answer is found when a host is set up, and
    not by the first backup at night.
extends_documentation_fragment:
  - guardops.qwen3guard.repository
  - guardops.qwen3guard.key
attributes:
  check_mode:
    support: full
    description: Does the same, since nothing is changed.
  diff_mode:
    support: none
    description: Nothing is changed.
seealso:
  - module: guardops.qwen3guard.snapshot_info
  - module: guardops.qwen3guard.verify
"""

EXAMPLES = r"""
- name: See whether the host can back up
  guardops.qwen3guard.key_check:
    instance: guard-01
    repository: "oss:guard-backups/prod"
    rclone_config: /etc/guardops-qwen3guard/rclone.conf
    key:
      provider: aws_kms
      kms_key_id: alias/guard-backups
      kms_region: eu-central-1
"""

RETURN = r"""
provider:
  description: The key provider.
  returned: success
  type: str
  sample: aws_kms
unwrapped:
  description: Whether the data key was unwrapped again, and was the same. V(false) where the host cannot unwrap.
  returned: success
  type: bool
complete:
  description: The number of complete snapshots that the repository lists, by layer.
  returned: success
  type: dict
  sample: {"model": 1, "config": 4, "logs": 31}
not_checked:
  description: What this result does not prove.
  returned: success
  type: list
  elements: str
"""

import hmac

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import KeyProviderError
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.manifest import LAYERS
from ansible_collections.guardops.qwen3guard.plugins.module_utils.module import (
    REPOSITORY_ARGUMENT_SPEC,
    failures_told,
    printable,
    session_of,
)
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.keys.options import KEY_ARGUMENT_SPEC


def wrap_and_unwrap(keys, context):
    """Whether a data key came back; False where this host cannot unwrap."""
    made = keys.new_key(context)
    if not keys.can_unwrap:
        return False
    if not hmac.compare_digest(keys.unwrap(made.wrapped, context), made.passphrase):
        raise KeyProviderError(keys.name, "the data key that it wrapped", "another one", "Snapshots would be lost.")
    return True


def main():
    module = AnsibleModule(
        argument_spec=dict(**REPOSITORY_ARGUMENT_SPEC, **KEY_ARGUMENT_SPEC), supports_check_mode=True
    )
    with failures_told(module), session_of(module, layer="config") as session:
        keys = session.require_keys()
        unwrapped = wrap_and_unwrap(keys, session.data_key_context("key-check"))
        complete = {layer: sum(item.complete for item in session.repository.listed(layer)) for layer in LAYERS}
    not_checked = ["whether this host may write to the repository: nothing was stored"]
    if not unwrapped:
        not_checked.append("whether anybody can unwrap the data keys: this host has public keys only")
    result = {"provider": keys.name, "unwrapped": unwrapped, "complete": complete, "not_checked": not_checked}
    module.exit_json(changed=False, **printable(result))


if __name__ == "__main__":
    main()
