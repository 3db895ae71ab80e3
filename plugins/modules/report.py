#!/usr/bin/python
# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: report
short_description: Write a page that shows how the backups of a guard or a fleet are, without a key
version_added: 0.3.0
author: guardops contributors (@guardops)
description:
  - Writes one HTML page that needs nothing from elsewhere and no scripts, from what lies in the repositories.
  - First what is open, that is failed verifications, damaged and incomplete snapshots, layers that are too old, drills
    that failed or were too slow. Then by instance and layer a calendar of snapshots and verifications, recovery points,
    the phases of drills against their budget, and sizes by month.
  - It finds what M(guardops.qwen3guard.patrol) finds in a repository, and all that the manifests of an instance tell.
    It is a page to look at; what is wrong does not make the module fail.
options:
  instance:
    description:
      - The one instance to show. 1 to 63 letters, digits, dots, underscores and hyphens.
      - Mutually exclusive with O(instances); one of them is required.
    type: str
    required: false
  instances:
    description: Instances of a fleet, or V(all) for all that the repositories have.
    type: list
    elements: str
  repositories:
    description: Further repositories of the fleet beside O(repository), reached with the same O(rclone_config).
    type: list
    elements: str
    default: []
  layers:
    description: The layers that are backed up.
    type: list
    elements: str
    choices: [model, config, logs]
    default: [model, config, logs]
  limits:
    description: How old, how many, as for M(guardops.qwen3guard.patrol). V(0) leaves a check out.
    type: dict
    suboptions:
      logs_hours:
        description: Age of the newest snapshot of the logs.
        type: float
        default: 24
      quick_hours:
        description: Time since something stored was last read, by a verification from the level V(stored) on.
        type: float
        default: 48
      proven_days:
        description: Time since a snapshot of the layer was really restored, all of it and no sample.
        type: float
        default: 8
      drill_days:
        description: Time since the newest drill, or recovery in earnest.
        type: float
        default: 35
      increments:
        description: Increments of the logs that stand on one full.
        type: int
        default: 72
      silence_hours:
        description: Time since the newest record.
        type: float
        default: 24
  days:
    description: Days that the calendars show, 1 to 366.
    type: int
    default: 90
  details:
    description:
      - Of how many instances the page has calendars, drills and sizes, those with failures before the others. All
        manifests of these are read.
      - Of all others it has a row in a table, and what is open. The page says how many were left out.
    type: int
    default: 25
  path:
    description:
      - The page. It is replaced as a whole; its directory must exist.
    type: path
    required: true
  mode:
    description:
      - The page's permissions, such as V(0644) for one that a web server shows. Octal digits in quotes, or a number as
        YAML makes one of V(0644) without quotes.
      - The page names instances and hosts and tells what is wrong with them. Nothing on it was written by users of the
        guard.
    type: raw
    default: "0600"
    version_added: 0.5.0
extends_documentation_fragment:
  - guardops.qwen3guard.repository
attributes:
  check_mode:
    support: full
    description: Reads, and does not write the page.
  diff_mode:
    support: full
    description: Compares the pages where neither is larger than 1 MiB.
notes:
  - The page says when it was made, and tells ages. So a run always changes it.
seealso:
  - module: guardops.qwen3guard.patrol
  - module: guardops.qwen3guard.snapshot_info
"""

EXAMPLES = r"""
- name: A page of one guard
  guardops.qwen3guard.report:
    instance: guard-01
    repository: "oss:guard-backups/prod"
    rclone_config: /etc/guardops-qwen3guard/rclone.conf
    path: /var/lib/guardops-qwen3guard/report.html

- name: A page of a fleet
  guardops.qwen3guard.report:
    instances: [all]
    repository: "oss:guard-backups/prod"
    rclone_config: /etc/guardops-qwen3guard/rclone.conf
    details: 50
    path: /srv/reports/guards.html
"""

RETURN = r"""
path:
  description: The page.
  returned: success
  type: str
bytes:
  description: How large the page is.
  returned: success
  type: int
ok:
  description: True when nothing is wrong, as far as the repositories tell.
  returned: success
  type: bool
counts:
  description: What the page shows.
  returned: success
  type: dict
  contains:
    instances:
      description: Instances in all.
      type: int
    failing:
      description: Those with failures.
      type: int
    detailed:
      description: Those whose manifests were all read.
      type: int
    failures:
      description: Failures in all.
      type: int
    warnings:
      description: Warnings in all.
      type: int
failures:
  description: The first 200 failures, each as in the verdict of M(guardops.qwen3guard.patrol).
  returned: success
  type: list
  elements: dict
  contains:
    check:
      description: Which check it is, such as V(snapshot) or V(damaged).
      type: str
    instance:
      description: The instance; empty where it is about none.
      type: str
    thing:
      description: What it is about.
      type: str
    expected:
      description: What should be.
      type: str
    found:
      description: What is.
      type: str
    hint:
      description: What to do next. May be empty.
      type: str
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

import datetime
import os
import re
import stat

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import GuardError
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.manifest import LAYERS
from ansible_collections.guardops.qwen3guard.plugins.module_utils.module import (
    REPOSITORY_ARGUMENT_SPEC,
    failures_told,
    printable,
    stores_of,
)
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import report, report_page
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.patrol_findings import Limits
from ansible_collections.guardops.qwen3guard.plugins.module_utils.system.files import write_atomically

LIMITS = {
    "logs_hours": 24,
    "quick_hours": 48,
    "proven_days": 8,
    "drill_days": 35,
    "increments": 72,
    "silence_hours": 24,
}
LARGEST_DIFF = 1 << 20
MOST_FAILURES = 200


def make(module: AnsibleModule) -> report.Report:
    """Look at what is asked for."""
    params = module.params
    options = report.Options(
        instance=params["instance"] or "",
        instances=params["instances"],
        limits=Limits(**params["limits"], layers=params["layers"]),
        days=params["days"],
        details=params["details"],
    )
    stores = stores_of(module, [params["repository"], *params["repositories"]])
    return report.collect(stores, options, datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0))


def result_of(found: report.Report):
    """What the task returns of it; the first failures only."""
    failures = [*found.whole.failures, *(item for guard in found.guards for item in guard.findings.failures)]
    counts = {
        "instances": len(found.guards),
        "failing": sum(bool(guard.findings.failures) for guard in found.guards),
        "detailed": sum(guard.details is not None for guard in found.guards),
        "failures": len(failures),
        "warnings": len(found.whole.warnings) + sum(len(guard.findings.warnings) for guard in found.guards),
    }
    return {"ok": found.ok, "counts": counts, "failures": [item._asdict() for item in failures[:MOST_FAILURES]]}


def mode_of(told):
    """Permissions as a number: told as such, which is what YAML makes of 0644, or in octal digits."""
    if isinstance(told, int) and 0 <= told <= 0o777:
        return told
    if not isinstance(told, str) or not re.fullmatch(r"0?[0-7]{3}", told):
        raise GuardError("option mode", "permissions such as 0644", repr(told))
    return int(told, 8)


def read_old(path, check):
    """(page that is there, its permissions); empty for none. In check mode a task before would make the directory."""
    if os.path.isdir(path) or not (check or os.path.isdir(os.path.dirname(path) or ".")):
        raise GuardError("option path", "a file in a directory that exists", path)
    try:
        with open(path, "rb") as handle:
            return handle.read(), stat.S_IMODE(os.fstat(handle.fileno()).st_mode)
    except FileNotFoundError:
        return b"", None
    except OSError as error:
        raise GuardError(path, "a page that can be read", error.strerror or str(error)) from error


def shown(data):
    """A page as a diff shows it."""
    return data.decode("utf-8", "replace") if len(data) <= LARGEST_DIFF else f"{len(data)} bytes\n"


def main():
    limits = {name: {"type": "int" if name == "increments" else "float", "default": n} for name, n in LIMITS.items()}
    module = AnsibleModule(
        argument_spec=dict(
            REPOSITORY_ARGUMENT_SPEC,
            instance={"type": "str"},
            instances={"type": "list", "elements": "str"},
            repositories={"type": "list", "elements": "str", "default": []},
            layers={"type": "list", "elements": "str", "choices": list(LAYERS), "default": list(LAYERS)},
            limits={"type": "dict", "apply_defaults": True, "options": limits},
            days={"type": "int", "default": 90},
            details={"type": "int", "default": 25},
            path={"type": "path", "required": True},
            mode={"type": "raw", "default": "0600"},
        ),
        mutually_exclusive=[("instance", "instances")],
        required_one_of=[("instance", "instances")],
        supports_check_mode=True,
    )
    path = module.params["path"]
    with failures_told(module):
        mode = mode_of(module.params["mode"])
        before, mode_before = read_old(path, module.check_mode)
        found = make(module)
        after = report_page.page(found).encode()
        changed = before != after or mode_before != mode
        if changed and not module.check_mode:
            write_atomically(path, after, mode)
    result = {"changed": changed, "path": path, "bytes": len(after), **result_of(found)}
    if module._diff:
        result["diff"] = {"before": shown(before), "after": shown(after), "before_header": path, "after_header": path}
    module.exit_json(**printable(result))


if __name__ == "__main__":
    main()
