#!/usr/bin/python
# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: gpu_info
short_description: Tell whether a host's NVIDIA GPUs work, and why not
version_added: 0.3.0
author: guardops contributors (@guardops)
description:
  - Compares the GPUs on the PCI bus with what the driver lists, and the driver with the specification (CDI) by which
    container engines hand GPUs to containers.
  - Where something does not work, names the likely causes, and says whether a reboot would help.
options:
  driver_minimum:
    description: The oldest driver that is acceptable, such as V(535) or V(550.54). Empty for any.
    type: str
    default: ""
  driver_branch:
    description: The only branch of the driver that is acceptable, such as V(580). Empty for any.
    type: str
    default: ""
  sysfs:
    description: Where the kernel shows devices and modules. Another place is good for trials only.
    type: path
    default: /sys
attributes:
  check_mode:
    support: full
    description: Never changes anything.
  diff_mode:
    support: none
    description: Never changes anything.
"""

EXAMPLES = r"""
- name: Look at the GPUs
  guardops.qwen3guard.gpu_info:
    driver_minimum: "550"
  register: gpus

- name: Expect that containers can use them
  ansible.builtin.assert:
    that: gpus.ready
    fail_msg: "{{ gpus.problems | join('; ') }}"
"""

RETURN = r"""
ready:
  description: Whether there are GPUs, the driver lists them all, and the specification fits.
  returned: success
  type: bool
problems:
  description: What is not so.
  returned: success
  type: list
  elements: str
  sample: ["nvidia-smi: ended with 9: NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."]
causes:
  description: What may keep the driver from working, and what to do about it. A reboot is not among it.
  returned: success
  type: list
  elements: str
reboot:
  description: Why a reboot would help. Empty where it would not, or nothing needs help.
  returned: success
  type: list
  elements: str
gpus:
  description: The PCI addresses of all NVIDIA GPUs.
  returned: success
  type: list
  elements: str
  sample: ["0000:01:00.0"]
other_displays:
  description: The PCI addresses of display devices of other makers, with the vendor's number.
  returned: success
  type: list
  elements: str
  sample: ["0000:00:02.0 (vendor 0x8086)"]
driver:
  description: What nvidia-smi says.
  returned: success
  type: dict
  contains:
    version:
      description: The driver's version.
      type: str
    gpus:
      description: How many GPUs it lists.
      type: int
    persistence:
      description: Whether persistence mode is on for all of them.
      type: bool
    problem:
      description: Why it is not acceptable, or an empty text.
      type: str
kernel:
  description: The running kernel, and the driver's module in it.
  returned: success
  type: dict
  contains:
    release:
      description: The kernel.
      type: str
    loaded:
      description: The version of the module that is loaded.
      type: str
    installed:
      description: The version of the module that would be loaded.
      type: str
    elsewhere:
      description: Other kernels that have the module.
      type: list
      elements: str
    headers:
      description: Whether modules can be built for the running kernel.
      type: bool
    nouveau:
      description: Whether the driver nouveau is loaded.
      type: bool
    secure_boot:
      description: Whether Secure Boot is on; null where the host does not say.
      type: bool
specification:
  description: The specification for containers that counts, which is the last one in C(/etc/cdi) and C(/var/run/cdi).
  returned: success
  type: dict
  contains:
    path:
      description: The file.
      type: str
    driver:
      description: The driver it was made for.
      type: str
    problem:
      description: Why it does not fit, or an empty text.
      type: str
programs:
  description: Where programs are, or an empty text.
  returned: success
  type: dict
  sample: {"podman": "/usr/bin/podman", "docker": "", "nvidia-ctk": "/usr/bin/nvidia-ctk"}
"""

import shutil

from ansible.module_utils.basic import AnsibleModule

# Not by way of module_utils/module.py: that loads all key providers, which nobody here needs.
from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import GuardError
from ansible_collections.guardops.qwen3guard.plugins.module_utils.system import gpu

PROGRAMS = ("podman", "docker", "nvidia-ctk")


def result_of(host):
    problems = [host.driver.problem, host.specification.problem] if host.gpus else ["no NVIDIA GPU on the PCI bus"]
    return {
        "changed": False,
        "ready": host.ready,
        "problems": [problem for problem in problems if problem],
        "causes": gpu.other_causes(host) if host.gpus and host.driver.problem else [],
        "reboot": gpu.reasons_to_reboot(host),
        "gpus": host.gpus,
        "other_displays": host.other_displays,
        "driver": host.driver._asdict(),
        "kernel": host.kernel._asdict(),
        "specification": host.specification._asdict(),
        "programs": {name: shutil.which(name) or "" for name in PROGRAMS},
    }


def main():
    module = AnsibleModule(
        argument_spec={
            "driver_minimum": {"type": "str", "default": ""},
            "driver_branch": {"type": "str", "default": ""},
            "sysfs": {"type": "path", "default": "/sys"},
        },
        supports_check_mode=True,
    )
    wanted = gpu.Wanted(module.params["driver_minimum"], module.params["driver_branch"])
    try:
        host = gpu.look(gpu.Places(sysfs=module.params["sysfs"]), wanted)
    except GuardError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result_of(host))


if __name__ == "__main__":
    main()
