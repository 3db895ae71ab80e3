#!/usr/bin/python
# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: alert
short_description: Tell people what changed in a verdict
version_added: 0.3.0
author: guardops contributors (@guardops)
description:
  - Takes the verdict of M(guardops.qwen3guard.patrol), or one of that form, and sends what changed to bots, mail and
    webhooks. What is wrong now, what still is after a day, and what is well again; nothing when nothing changed.
  - What each URL was told is remembered for it alone, so that one that could not be reached is told the next time.
  - A finding counts as well again only where the verdict says nothing of its not having been looked at.
  - What one message has no room for comes in further ones, ten at most. Of what has no room in those either the
    instances are named, and it is told in full the next time.
  - A delivery that fails, and a URL that is none, make the module fail when all others were told. So does a directory
    O(memory_dir) that cannot be written; what was told is told again then.
requirements:
  - Linux with Python 3.9 or newer on the managed host
  - The Python library C(apprise), for other URLs than those of WeCom and DingTalk
options:
  verdict:
    description:
      - The verdict. C(ok), and the lists C(failures), C(warnings) and C(not_checked) of objects with C(check),
        C(thing), C(expected), C(found), C(hint) and C(instance); what is missing counts as empty.
      - With an entry in C(not_checked) whose C(check) is V(everything), nothing counts as well again.
      - With a list C(checked) of objects with C(check), C(thing) and C(instance) it speaks of these alone. Nothing else
        counts as well again then, and no message only tries the way.
    type: dict
    required: true
  source:
    description:
      - What the verdict is of, such as V(fleet) or the name of an instance. It stands in the title, and what was told
        is remembered by it. 1 to 63 letters, digits and C(._@-).
    type: str
    required: true
  urls:
    description:
      - Where to send it.
      - V(wecombot://KEY) for a WeCom group bot, or the address that WeCom shows; with V(?endpoint=https://host) the bot
        of a private deployment. V(dingtalk://TOKEN) or V(dingtalk://SECRET@TOKEN) for DingTalk.
      - Everything else is a URL of Apprise, such as V(mailtos://user:password@example.org?to=ops@example.org),
        V(slack://…) or V(json://host/path).
    type: list
    elements: str
    default: []
  warnings:
    description: Tell warnings too, once each.
    type: bool
    default: true
  repeat_hours:
    description: Tell a failure again when it is still there after so many hours; V(0) for never.
    type: float
    default: 24
  test_days:
    description:
      - Try the way with a message that says so where nothing was sent to a URL for so many days, the first time
        included; V(0) for never but the first time.
    type: float
    default: 7
  heartbeat_url:
    description:
      - A URL that is asked (GET) after each verdict, whatever it says, when all messages that there were have been
        delivered. Let a service elsewhere tell you when it is not asked any more (a dead man's switch).
      - It is not asked after a verdict with a list C(checked).
    type: str
    default: ""
  memory_dir:
    description: Directory for what was told to whom. An ordinary user has to name one of his own.
    type: path
    default: /var/lib/guardops-qwen3guard/alerts
attributes:
  check_mode:
    support: full
    description: Can run in check_mode and return changed status prediction without modifying target.
  diff_mode:
    support: none
    description: There is nothing to compare.
seealso:
  - module: guardops.qwen3guard.patrol
"""

EXAMPLES = r"""
- name: Tell what the patrol found
  guardops.qwen3guard.alert:
    source: guard-01
    verdict: "{{ patrol.verdict }}"
    urls:
      - "wecombot://{{ vault_wecom_key }}"
      - "mailtos://patrol:{{ vault_mail_password }}@mail.example.org?from=patrol@example.org&to=ops@example.org"
    heartbeat_url: "{{ vault_heartbeat_url }}"

- name: Tell that a backup failed
  guardops.qwen3guard.alert:
    source: backup-logs
    verdict:
      failures:
        - check: backup
          thing: logs
          expected: a run that ends well
          found: "{{ backup.msg }}"
          instance: guard-01
    urls: "{{ vault_alert_urls }}"
"""

RETURN = r"""
sent:
  description: The URLs that something was sent to, by place and scheme; in check mode, that it would be sent to.
  returned: success
  type: list
  elements: str
raised:
  description: Findings that are new to one of them at least.
  returned: success
  type: int
still:
  description: Failures that are told again.
  returned: success
  type: int
cleared:
  description: Findings that are well again.
  returned: success
  type: int
left:
  description: What there was no room for. It is told the next time.
  returned: success
  type: int
  version_added: 0.5.0
tested:
  description: The URLs that got a message only to try the way.
  returned: success
  type: list
  elements: str
heartbeat:
  description: Whether O(heartbeat_url) was asked.
  returned: success
  type: bool
text:
  description: The messages to the last of them, before they were cut to what the service takes.
  returned: success
  type: str
thing:
  description: What the failure is about, such as a path or a URL's place and scheme.
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
import os
import re

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import GuardError
from ansible_collections.guardops.qwen3guard.plugins.module_utils.module import failures_told, printable
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import alerts

SOURCE = re.compile(r"\A[A-Za-z0-9][A-Za-z0-9._@-]{0,62}\Z")


def checked_verdict(verdict):
    """A verdict that was written by hand may be anything."""
    for name in ("failures", "warnings", "not_checked", "checked"):
        items = verdict.get(name) or []
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise GuardError(f"option verdict, {name}", "a list of objects", "something else")
    if not isinstance(verdict.get("scope") or {}, dict):
        raise GuardError("option verdict, scope", "an object", "something else")
    return verdict


def main():
    module = AnsibleModule(
        argument_spec={
            "verdict": {"type": "dict", "required": True},
            "source": {"type": "str", "required": True},
            "urls": {"type": "list", "elements": "str", "default": [], "no_log": True},
            "warnings": {"type": "bool", "default": True},
            "repeat_hours": {"type": "float", "default": 24},
            "test_days": {"type": "float", "default": 7},
            "heartbeat_url": {"type": "str", "default": "", "no_log": True},
            "memory_dir": {"type": "path", "default": "/var/lib/guardops-qwen3guard/alerts"},
        },
        supports_check_mode=True,
    )
    params = module.params
    with failures_told(module):
        if not SOURCE.match(params["source"]):
            raise GuardError("option source", "1 to 63 letters, digits and ._@-", repr(params["source"]))
        options = alerts.Options(
            source=params["source"],
            state_path=os.path.join(params["memory_dir"], f"{params['source']}.json"),
            with_warnings=params["warnings"],
            repeat_hours=params["repeat_hours"],
            test_days=params["test_days"],
            heartbeat_url=params["heartbeat_url"],
            dry=module.check_mode,
        )
        outcome = alerts.alert(printable(checked_verdict(params["verdict"])), params["urls"], options)
    module.exit_json(changed=bool(outcome.sent), **printable(dataclasses.asdict(outcome)))


if __name__ == "__main__":
    main()
