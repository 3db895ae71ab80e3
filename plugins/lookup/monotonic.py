# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: monotonic
short_description: Seconds by a clock of the controller that never steps
version_added: 0.3.0
author: guardops contributors (@guardops)
description:
  - For durations. The difference of two of its values is the time that passed between them, also when the controller's
    clock was set meanwhile. One value alone means nothing.
options: {}
"""

EXAMPLES = r"""
- name: Remember when it began
  ansible.builtin.set_fact:
    began: "{{ lookup('guardops.qwen3guard.monotonic') }}"

- name: Tell how long it took
  ansible.builtin.debug:
    msg: "{{ lookup('guardops.qwen3guard.monotonic') | float - began | float }} s"
"""

RETURN = r"""
_raw:
  description: Seconds since some moment before the controller's start, the same one in all its processes.
  type: list
  elements: float
"""

import time

from ansible.plugins.lookup import LookupBase


class LookupModule(LookupBase):
    """One value, whatever is asked."""

    def run(self, terms, variables=None, **kwargs):  # noqa: ARG002 - what Ansible calls all of them with
        return [round(time.monotonic(), 3)]
