#!/usr/bin/python
# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: patrol
short_description: Look after a guard or a fleet of guards, and tell before it hurts
version_added: 0.3.0
author: guardops contributors (@guardops)
description:
  - With O(instance) looks at one instance in depth, without a key. Age of the newest snapshot of each layer, of its
    verifications and of the newest drill; failed verdicts; gaps in the numbers of the records, silence, and unusual
    rates; whether every object of the newest snapshots is there; whether the store takes, gives back and removes an
    object.
  - With O(host) looks at the host that it runs on, too. Records that are not archived, growth of the log while the
    service answers, free space and its trend, failed units and timers, the clock, the GPUs' specification,
    certificates and keys. It leaves a sign of life in the repository then (C(patrol.json)).
  - With O(instances) looks at many instances by what lies in their repositories, and at nothing else. It needs
    neither keys nor hosts, and a thousand instances take less than a minute.
  - What it finds is one verdict. Hand it to M(guardops.qwen3guard.alert).
  - A file that it cannot read or write (its state, O(metrics_file), O(verdict_file)) is a failure in the verdict.
options:
  instance:
    description:
      - The one instance to look at in depth. 1 to 63 letters, digits, dots, underscores and hyphens.
      - Mutually exclusive with O(instances); one of them is required.
    type: str
    required: false
  instances:
    description:
      - Instances of a fleet, or V(all) for all that the repositories have.
      - One that is named and not there is a failure.
    type: list
    elements: str
  repositories:
    description: Further repositories of the fleet beside O(repository), reached with the same O(rclone_config).
    type: list
    elements: str
    default: []
  retired:
    description:
      - Instances that are gone for good. With V(all), one that was there at an earlier patrol and is not there any more
        is a failure otherwise.
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
    description:
      - How old, how little, how many.
      - V(0) leaves a check out. RV(verdict.not_checked) says so, and what the check had found before does not count as
        well again.
    type: dict
    suboptions:
      logs_hours:
        description: Age of the newest snapshot of the logs. The other layers change seldom, and need only have one.
        type: float
        default: 24
      quick_hours:
        description: Time since something stored was last read, by a verification from the level V(stored) on.
        type: float
        default: 48
      proven_days:
        description:
          - Time since a snapshot of the layer was really restored, by a verification from the level V(restored) on.
            One of a sample does not count.
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
        description: Time since the newest record. Zero growth means that writing stopped, or that nobody asks.
        type: float
        default: 24
      archive_hours:
        description: Time until a record has to be in the repository.
        type: float
        default: 24
      patrol_hours:
        description: Time since the sign of life that the host's own patrol left; of a fleet.
        type: float
        default: 26
      free_percent:
        description: Room that has to be free. Three times as much is the limit for a warning.
        type: float
        default: 5
      full_days:
        description: Days until a disk is full, by its trend. Three times as many are the limit for a warning.
        type: float
        default: 3
      expiry_days:
        description: Days until a certificate or key ends. Three times as many are the limit for a warning.
        type: float
        default: 14
  host:
    description: What to look at on this host. Without it only the repository is looked at.
    type: dict
    suboptions:
      data_root:
        description: The data root.
        type: path
        default: /data/qwen3guard-gen-web
      log:
        description: The active audit log. By default C(logs/audit.log) in the data root.
        type: path
      health_url:
        description:
          - Where the service says how it is, such as V(http://127.0.0.1:8080/health). Proxies are not used.
          - A certificate is not verified, since it speaks of the name that clients use. O(host.certificates) are looked
            at by themselves.
        type: str
        default: ""
      places:
        description:
          - Directories beside the data root whose file systems must have room.
          - Those of the state directory, and of a repository that is a directory, are always looked at.
        type: list
        elements: path
        default: [/tmp]
      units:
        description: Patterns of units that must not have failed.
        type: list
        elements: str
        default: [qwen3guard*]
      timers:
        description:
          - Timers by name, with the hours in which each has to run; V(0) where it only has to wait for its time.
        type: dict
        default: {}
      cdi_directories:
        description: Where the specifications lie by which containers get GPUs.
        type: list
        elements: path
        default: [/etc/cdi, /var/run/cdi]
      certificates:
        description:
          - PEM files, or V(host:port) of servers, whose certificates must not end soon.
          - A server shows what it read at its start, which may be older than the file.
          - Needs the program C(openssl).
        type: list
        elements: str
        default: []
      openpgp_keys:
        description:
          - Files with OpenPGP keys that must not end soon, such as those of the key provider V(gpg_recipients).
        type: list
        elements: path
        default: []
  canary:
    description:
      - Write an object C(canary-….txt) into the instance's part of the repository, read it back and remove it.
      - By default where O(host) is given. Not in check mode.
    type: bool
  metrics_file:
    description:
      - A file for the textfile collector of Prometheus' node_exporter, such as
        V(/var/lib/prometheus/node-exporter/guardops_qwen3guard.prom). It is replaced as a whole, mode 0644.
    type: path
  verdict_file:
    description: A file for the verdict as JSON. It is replaced as a whole, mode 0600.
    type: path
extends_documentation_fragment:
  - guardops.qwen3guard.repository
attributes:
  check_mode:
    support: full
    description: Looks, and writes no file and no object. The canary is not tried then, and the verdict says so.
  diff_mode:
    support: none
    description: There is nothing to compare.
seealso:
  - module: guardops.qwen3guard.alert
  - module: guardops.qwen3guard.verify
  - module: guardops.qwen3guard.snapshot_info
"""

EXAMPLES = r"""
- name: Look after this host and its backups
  guardops.qwen3guard.patrol:
    instance: guard-01
    repository: "oss:guard-backups/prod"
    rclone_config: /etc/guardops-qwen3guard/rclone.conf
    host:
      health_url: http://127.0.0.1:8080/health
      timers:
        qwen3guard-backup@logs.timer: 3
        qwen3guard-backup-full@logs.timer: 26
    metrics_file: /var/lib/prometheus/node-exporter/guardops_qwen3guard.prom
  register: patrol
  failed_when: patrol.verdict is not defined

- name: Look after all of a fleet from one place
  guardops.qwen3guard.patrol:
    instances: [all]
    repository: "oss:guard-backups/prod"
    rclone_config: /etc/guardops-qwen3guard/rclone.conf
"""

RETURN = r"""
ok:
  description: True when nothing is wrong. Read it together with RV(verdict.not_checked).
  returned: success, or failed because of what was found
  type: bool
verdict:
  description: What was found.
  returned: success, or failed because of what was found
  type: dict
  contains:
    ok:
      description: The same as RV(ok).
      type: bool
    time:
      description: When the patrol began (RFC 3339, UTC).
      type: str
    host:
      description: Where it ran.
      type: str
    instances:
      description: What was looked at.
      type: list
      elements: str
    scope:
      description: What this verdict speaks of. What was found of anything else is neither worse nor well again by it.
      type: dict
      contains:
        instances:
          description: Instances, with those that are missing or retired.
          type: list
          elements: str
        repositories:
          description: Repositories that were asked.
          type: list
          elements: str
        layers:
          description: Layers that were looked at.
          type: list
          elements: str
        host:
          description: Whether the host was looked at.
          type: bool
    failures:
      description:
        - What is wrong; somebody has to act.
        - RV(verdict.warnings) and RV(verdict.not_checked) have the same form.
      type: list
      elements: dict
      contains:
        check:
          description: Which check it is, such as V(snapshot) or V(free_space).
          type: str
        instance:
          description: The instance; empty where it is about the whole fleet.
          type: str
        thing:
          description: What it is about; together with check and instance the same every day.
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
        where:
          description: V(host) for what only a patrol with O(host) sees; empty otherwise.
          type: str
    warnings:
      description: What is odd; somebody should look.
      type: list
      elements: dict
    not_checked:
      description: What this verdict does not speak of, and why.
      type: list
      elements: dict
    facts:
      description: Times and numbers by instance, from which the metrics are made.
      type: dict
    seconds:
      description: Duration in seconds.
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

from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import GuardError
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.manifest import LAYERS
from ansible_collections.guardops.qwen3guard.plugins.module_utils.module import (
    REPOSITORY_ARGUMENT_SPEC,
    failures_told,
    printable,
    session_of,
    stores_of,
)
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import patrol
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.patrol_files import leave_results
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.patrol_findings import Limits

LIMITS = {
    "logs_hours": 24,
    "quick_hours": 48,
    "proven_days": 8,
    "drill_days": 35,
    "increments": 72,
    "silence_hours": 24,
    "archive_hours": 24,
    "patrol_hours": 26,
    "free_percent": 5,
    "full_days": 3,
    "expiry_days": 14,
}
HOST = {
    "data_root": {"type": "path", "default": "/data/qwen3guard-gen-web"},
    "log": {"type": "path"},
    "health_url": {"type": "str", "default": ""},
    "places": {"type": "list", "elements": "path", "default": ["/tmp"]},  # noqa: S108 - looked at for room only
    "units": {"type": "list", "elements": "str", "default": ["qwen3guard*"]},
    "timers": {"type": "dict", "default": {}},
    "cdi_directories": {"type": "list", "elements": "path", "default": ["/etc/cdi", "/var/run/cdi"]},
    "certificates": {"type": "list", "elements": "str", "default": []},
    "openpgp_keys": {"type": "list", "elements": "path", "default": [], "no_log": False},
}


def look(module: AnsibleModule) -> patrol.Verdict:
    """One instance, or many."""
    params = module.params
    limits = Limits(**params["limits"], layers=params["layers"])
    if params["instances"] is not None:
        stores = stores_of(module, [params["repository"], *params["repositories"]])
        fleet = patrol.Fleet(params["instances"], params["retired"], params["state_dir"])
        return patrol.patrol_fleet(stores, fleet, limits, module.check_mode)
    with session_of(module, layer="logs") as session:
        return patrol.patrol_instance(
            session.repository, limits, host_of(params), session.gpg, params["state_dir"],
            canary=params["host"] is not None if params["canary"] is None else params["canary"],
            dry=module.check_mode,
        )  # fmt: skip


def host_of(params):
    """What to look at on the host; None for nothing."""
    if params["host"] is None:
        return None
    told = dict(params["host"])
    try:
        told["timers"] = {name: float(hours) for name, hours in told["timers"].items()}
    except (TypeError, ValueError) as error:
        raise GuardError("option host.timers", "hours for each timer", str(error)) from error
    told["log"] = told["log"] or f"{told['data_root']}/logs/audit.log"
    return patrol.Host(**told)


def main():
    limits = {name: {"type": "int" if name == "increments" else "float", "default": n} for name, n in LIMITS.items()}
    module = AnsibleModule(
        argument_spec=dict(
            REPOSITORY_ARGUMENT_SPEC,
            instance={"type": "str"},
            instances={"type": "list", "elements": "str"},
            repositories={"type": "list", "elements": "str", "default": []},
            retired={"type": "list", "elements": "str", "default": []},
            layers={"type": "list", "elements": "str", "choices": list(LAYERS), "default": list(LAYERS)},
            limits={"type": "dict", "apply_defaults": True, "options": limits},
            host={"type": "dict", "options": HOST},
            canary={"type": "bool"},
            metrics_file={"type": "path"},
            verdict_file={"type": "path"},
        ),
        mutually_exclusive=[("instance", "instances"), ("instances", "host"), ("instances", "canary")],
        required_one_of=[("instance", "instances")],
        supports_check_mode=True,
    )
    params = module.params
    with failures_told(module):
        verdict = printable(dataclasses.asdict(look(module)))
        if not module.check_mode:
            leave_results(verdict, params["instance"] or "", params["metrics_file"], params["verdict_file"])
    result = {"ok": verdict["ok"], "verdict": verdict, "changed": False}
    if verdict["ok"]:
        module.exit_json(**result)
    first = verdict["failures"][0]
    found = " ".join(filter(None, (first["instance"], first["check"], first["thing"])))
    told = f"{found}: expected {first['expected']}, found {first['found']}"
    module.fail_json(msg=f"{len(verdict['failures'])} to mend, first of all {told}", **result)


if __name__ == "__main__":
    main()
