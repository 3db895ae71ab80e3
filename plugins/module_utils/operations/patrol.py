# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A patrol: look at one instance or at a fleet, and say what is wrong, what is odd, and what nobody looked at.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import itertools
import json
import os
import secrets
import socket
import time
import typing as t

from ..errors import GuardError, StoreError
from ..format.repository import Listed, Repository
from ..services.gpg import Gpg
from ..services.store import Store
from . import patrol_logs, patrol_system, snapshots
from .patrol_fence import check_fence
from .patrol_files import load_state, save_state
from .patrol_findings import (
    EVERYTHING,
    HOST,
    UTC,
    Finding,
    Findings,
    Limits,
    hours_between,
    parse_time,
    told_age,
    written_time,
)
from .patrol_repository import check_instance
from .patrol_survey import HEARTBEAT, Survey, list_instances, read_surveys

ALL = "all"
_AT_ONCE = 250  # instances whose manifests are in memory at the same time
_MOST_CHECKS = 50  # of a host that the fleet's patrol names: what a sign of life says may be anybody's


@dataclasses.dataclass
class Host:
    """What to look at on the host itself."""

    data_root: str
    log: str
    health_url: str = ""
    places: list[str] = dataclasses.field(default_factory=list)
    units: list[str] = dataclasses.field(default_factory=list)
    timers: dict[str, float] = dataclasses.field(default_factory=dict)  # name -> hours in which it has to run
    cdi_directories: list[str] = dataclasses.field(default_factory=list)
    certificates: list[str] = dataclasses.field(default_factory=list)
    openpgp_keys: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Fleet:
    """Which instances to look at. Those that were there once are missed when they are gone, unless they are retired."""

    instances: list[str]
    retired: list[str]
    state_directory: str


@dataclasses.dataclass
class Verdict:
    """What a patrol says. ``ok`` is true where nothing is wrong; read it together with ``not_checked``."""

    ok: bool
    time: str
    host: str
    instances: list[str]
    scope: dict[str, t.Any]  # what it speaks of at all: what was found of anything else is not well again by it
    failures: list[dict[str, str]]
    warnings: list[dict[str, str]]
    not_checked: list[dict[str, str]]
    facts: dict[str, dict[str, t.Any]]  # by instance
    seconds: float


def patrol_fleet(stores: t.Sequence[Store], fleet: Fleet, limits: Limits, dry: bool) -> Verdict:
    """Instances of some repositories, by what lies in them and nothing else."""
    started, now = time.monotonic(), datetime.datetime.now(UTC)
    whole = Findings("")
    found: list[Findings] = []
    # Another fleet, in other repositories, has a memory of its own.
    token = hashlib.sha256("\n".join(store.location for store in stores).encode()).hexdigest()[:8]
    path = os.path.join(fleet.state_directory, f"fleet-{token}.json")
    state = load_state(path, whole)
    remembered = (state or {}).get("instances")
    expected: set[str] = set(remembered) if ALL in fleet.instances and isinstance(remembered, list) else set()
    expected |= set(fleet.instances) - {ALL}
    known = expected | set(fleet.retired)
    dead = False
    seen: set[str] = set()
    for store in stores:
        try:
            listed = list_instances(store)
            if ALL not in fleet.instances:
                listed = {name: names for name, names in listed.items() if name in expected}
            seen.update(listed)
            several = iter(name for name in listed if name not in fleet.retired)
            while some := list(itertools.islice(several, _AT_ONCE)):
                surveys = read_surveys(store, {name: listed[name] for name in some}, whole_chains=False)
                found += [_of_fleet(store, name, survey, limits, now) for name, survey in surveys.items()]
        except StoreError as error:
            _leave_store(error, store.location, whole)
            dead = True
    if dead:
        expected.clear()  # who is missing cannot be said
    for name in sorted(expected - seen - set(fleet.retired)):
        missing = Findings(name)
        hint = "Somebody removed it, or it never backed up. One that is gone for good belongs into the option retired."
        missing.fail("instance", "repository", f"instance {name}", "nothing of that name", hint)
        found.append(missing)
    if not found and not whole.failures:
        places = ", ".join(store.location for store in stores)
        whole.fail("instance", "repository", "instances", f"none in {places}", "Check the repository's name.")
    # A patrol of some instances knows nothing of who else there is.
    if ALL in fleet.instances and not dry and not whole.failures and state is not None:
        save_state(path, {**state, "instances": sorted((expected | seen) - set(fleet.retired))}, whole)
    whole.leave("host", "hosts", "services, logs, disks, units, clocks", "a patrol of a fleet reads repositories only")
    _leave_what_nobody_checks(whole)
    whole.leave("stored", "snapshots", "objects of every snapshot, in their sizes", "that is what verifications do")
    scope = {
        "instances": sorted(known | seen), "repositories": [store.location for store in stores],
        "layers": list(limits.layers), "host": False,
    }  # fmt: skip
    return _verdict([whole, *found], sorted(seen), scope, now, started)


def _of_fleet(store: Store, name: str, survey: Survey, limits: Limits, now: datetime.datetime) -> Findings:
    findings = Findings(name)
    findings.facts["repository"] = store.location
    check_instance(survey, limits, now, findings)
    _check_heartbeat(survey.heartbeat, limits, now, findings)
    return findings


def _check_heartbeat(told: dict[str, t.Any] | None, limits: Limits, now: datetime.datetime, findings: Findings) -> None:
    """What the host's own patrol left: a host that went dark is seen from here."""
    if not limits.patrol_hours:
        findings.leave_limited("patrol", ["host"], "the host's own patrol")
        return
    if told is None:
        findings.leave("patrol", "host", "the host's own patrol", "the host's patrol has left no sign of life yet")
        return
    when = parse_time(told.get("time"))
    age = hours_between(when, now) if when else None
    findings.facts["heartbeat"] = {"time": written_time(when) if when else "", "ok": told.get("ok") is True}
    if age is None or age > limits.patrol_hours:
        findings.fail(
            "patrol", "host", f"the host's own patrol in the last {told_age(limits.patrol_hours)}",
            f"the last one was {told_age(age)} ago" if age is not None else "a sign of life without a time",
            "Is the host up? Look at the timer of its patrol.",
        )  # fmt: skip
        findings.leave("patrol", "host", "what the host finds", "it tells nothing any more")
    elif told.get("ok") is not True:
        failed = told.get("failures")
        failed = failed if isinstance(failed, dict) and failed else {"something": 1}
        # Each is a finding of its own: what fails today is told though something else has failed for weeks.
        for check in sorted(failed)[:_MOST_CHECKS]:
            count = failed[check] if isinstance(failed[check], int) else 1
            findings.fail(
                "patrol", f"{check[:40]} on the host", "a patrol without failures",
                f"{count} failure{'' if count == 1 else 's'}", "Look at its own verdict.",
            )  # fmt: skip
        findings.leave("patrol", "what the host found", "each failure of the host", "it tells only how many there are")


def patrol_instance(
    repository: Repository, limits: Limits, host: Host | None, gpg: Gpg, state_directory: str, canary: bool, dry: bool
) -> Verdict:
    """One instance in depth; with ``host`` the host besides, which leaves a sign of life for the fleet's patrol."""
    started, now = time.monotonic(), datetime.datetime.now(UTC)
    store, name = repository.store, repository.instance
    findings = Findings(name)
    findings.facts["repository"] = store.location
    survey: Survey | None = None
    try:
        survey = read_surveys(store, list_instances(store, name), whole_chains=True)[name]
        check_instance(survey, limits, now, findings)
        _check_stored(repository, survey, findings)
        if host is not None:
            check_fence(repository, state_directory, findings)
    except StoreError as error:
        _leave_store(error, "store", findings)
    if not canary or dry:
        findings.leave(
            "canary", "store", "an object written, read and removed", "check mode" if canary else "not asked"
        )
    elif survey is not None:
        _check_canary(repository, findings)
    if host is None:
        findings.leave("host", name, "service, log, disks, units, clock", "no host was named")
    else:
        _check_host(host, repository, limits, now, gpg, state_directory, findings, dry)
    _leave_what_nobody_checks(findings)
    scope = {
        "instances": [name], "repositories": [store.location], "layers": list(limits.layers), "host": host is not None,
    }  # fmt: skip
    verdict = _verdict([findings], [name], scope, now, started)
    if host is not None and survey is not None and not dry:
        _leave_heartbeat(repository, verdict)
    return verdict


def _leave_store(error: StoreError, thing: str, findings: Findings) -> None:
    """A store that does not answer is a failure, and says nothing about what lies in it."""
    findings.fail("repository", thing, error.expected, f"{error.thing}: {error.found}", error.hint)
    findings.leave(EVERYTHING, "repository", "what lies in it", "the store did not answer")


def _check_stored(repository: Repository, survey: Survey, findings: Findings) -> None:
    """Whether the newest snapshots have all their objects, in their sizes."""
    for layer, of_layer in survey.layers.items():
        if of_layer.newest is None:
            continue
        newest = of_layer.newest
        sizes = repository.store.list(repository.name(layer, newest.snapshot))
        try:
            snapshots.check_listed(repository, newest, Listed(newest.snapshot, dict(sizes)))
        except GuardError as error:
            findings.fail("stored", layer, "every object of the newest snapshot, in its size", error.found, error.hint)


def _check_canary(repository: Repository, findings: Findings) -> None:
    """Write a small object, read it back, remove it: what the next backup needs."""
    # One name for each host: what a killed patrol left is replaced by the next.
    token = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
    name = repository.name(f"canary-{token}.txt")
    try:
        repository.store.write(name, f"{secrets.token_hex(16)}\n".encode())
    except GuardError as error:
        findings.fail("canary", "store", "an object that can be written and read back", error.found, error.hint)
        return
    try:
        repository.store.remove_several([name])
        left = bool(repository.store.read_several([name]))
    except GuardError as error:
        findings.warn("canary", "store", "an object that can be removed", error.found, "A store may be meant to keep.")
        return
    if left:
        findings.warn("canary", "store", "an object that can be removed", "it is still there")


def _check_host(
    host: Host, repository: Repository, limits: Limits, now: datetime.datetime, gpg: Gpg, state_directory: str,
    findings: Findings, dry: bool,
) -> None:  # fmt: skip
    path = os.path.join(state_directory, repository.instance, "patrol.json")
    # A repository that is a directory here fills a disk of this host: so nobody has to name it.
    always = [path for path in (state_directory, repository.store.location) if os.path.isabs(path)]
    places = [host.data_root, *host.places, *filter(os.path.isdir, always)]
    findings.where = HOST
    remembered = load_state(path, findings)
    state: dict[str, t.Any] = remembered or {}
    health = patrol_logs.check_service(host.health_url, findings)
    patrol_logs.check_logs(host.log, health, state, limits, now, findings)
    patrol_system.check_room(places, state, limits, now, findings)
    patrol_system.check_units(host.units, host.timers, now, findings)
    patrol_system.check_clock(findings)
    patrol_system.check_gpus(host.cdi_directories, findings)
    patrol_system.check_expiry(host.certificates, host.openpgp_keys, gpg, limits, now, findings)
    for name in ("certificates", "openpgp_keys", "timers", "units"):
        if not getattr(host, name):
            findings.leave(name, "this host", name.replace("_", " "), "none was named")
    if not dry and remembered is not None:
        save_state(path, state, findings)
    findings.where = ""


def _leave_heartbeat(repository: Repository, verdict: Verdict) -> None:
    """A sign of life in the repository: when, and which checks failed. Details stay on the host."""
    told = {
        "kind": "guardops.qwen3guard patrol", "format": 1, "instance": repository.instance, "host": verdict.host,
        "time": verdict.time, "ok": verdict.ok,
        **{name: _by_check(getattr(verdict, name)) for name in ("failures", "warnings", "not_checked")},
    }  # fmt: skip
    try:
        repository.store.write(repository.name(HEARTBEAT), (json.dumps(told, indent=1) + "\n").encode())
    except GuardError as error:
        finding = Finding("patrol", "store", "a sign of life that can be left", error.found, error.hint)
        verdict.failures.append(finding._replace(instance=repository.instance, where=HOST)._asdict())
        verdict.ok = False


def _by_check(found: list[dict[str, str]]) -> dict[str, int]:
    checks = [item["check"] for item in found]
    return {check: checks.count(check) for check in sorted(set(checks))}


def _leave_what_nobody_checks(findings: Findings) -> None:
    findings.leave(
        "object_lock", "store", "an attempt to delete what is locked, refused", "patrols do not attack their store yet",
        "Try it by hand with the host's credentials: a lock that is accepted may not be enforced.",
    )  # fmt: skip
    findings.leave("content", "snapshots", "content that comes back", "that is what verifications and drills do")


def _verdict(
    found: list[Findings], instances: list[str], scope: dict[str, t.Any], now: datetime.datetime, started: float
) -> Verdict:
    failures = [finding._asdict() for findings in found for finding in findings.failures]
    return Verdict(
        ok=not failures,
        time=written_time(now),
        host=socket.gethostname(),
        instances=instances,
        scope=scope,
        failures=failures,
        warnings=[finding._asdict() for findings in found for finding in findings.warnings],
        not_checked=[finding._asdict() for findings in found for finding in findings.not_checked],
        facts={findings.instance: findings.facts for findings in found if findings.instance},
        seconds=round(time.monotonic() - started, 3),
    )
