# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What manifests of the logs say of the records: do they come, without gaps, and as many as usual?

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import collections
import datetime
import statistics
import typing as t

from ..format.manifest import FULL, Manifest
from .patrol_findings import UTC, Findings, Limits, hours_between, parse_time, told_age
from .patrol_survey import LayerSurvey

_WINDOW = 6  # hours that are compared with the same hours of days before
_DAYS = 14
_FEWEST_DAYS = 3
_FEWEST_RECORDS = 60  # in the window: less says nothing
_TIMES = 4  # so many times more or less than usual is unusual


def check_records(survey: LayerSurvey, limits: Limits, now: datetime.datetime, findings: Findings) -> None:
    """Growth, rate and gaps, as far as the manifests that were read tell."""
    newest = survey.newest
    if newest is None:
        return
    if newest.records is None:
        findings.leave("records", "logs", "records counted in the manifest", "a snapshot of an older release")
        return
    counted = [manifest for manifest in survey.chain if manifest.records]
    last = _last_record(counted)
    archived = _heads(counted)
    findings.facts["records"] = {
        "in_newest": newest.records["count"],
        "last": last.strftime("%Y-%m-%dT%H:%M:%SZ") if last else "",
        "archived": {chain: number for chain, (number, _until) in archived.items()},
    }
    if limits.silence_hours:
        _check_silence(newest, last, limits, now, findings)
    else:
        findings.leave_limited("log_growth", ["archived records"], "new records")
    _check_rate(survey, counted, findings)
    _check_gaps(counted, survey.whole_chain, findings)


def _last_record(counted: t.Sequence[Manifest]) -> datetime.datetime | None:
    """The time of the newest record, by its own clock; to the hour where it has no chain."""
    times = []
    for manifest in counted:
        records = manifest.records or {}
        times += [parse_time(chain["until"]) for chain in records["chains"]]
        if records["unchained"]:
            times += [parse_time(f"{hour}:59:59Z") for hour in records["hours"] if hour]
    return max((when for when in times if when), default=None)


def _heads(counted: t.Sequence[Manifest]) -> dict[str, tuple[int, str]]:
    """The highest number of each chain, and its time."""
    heads: dict[str, tuple[int, str]] = {}
    for manifest in counted:
        for chain in (manifest.records or {})["chains"]:
            heads[chain["chain"]] = max(heads.get(chain["chain"], (0, "")), (chain["last"], chain["until"]))
    return heads


def _check_silence(
    newest: Manifest, last: datetime.datetime | None, limits: Limits, now: datetime.datetime, findings: Findings
) -> None:
    made = parse_time(newest.created) or now
    if hours_between(made, now) > limits.silence_hours:
        return  # no backup since: told elsewhere, and it says nothing about the service
    silent = hours_between(last, now) if last else None
    if silent is None or silent > limits.silence_hours:
        findings.fail(
            "log_growth", "archived records", f"new records in the last {told_age(limits.silence_hours)}",
            f"the last one is {told_age(silent)} old" if silent is not None else "none at all",
            "Does the service answer, and can it write its log? Who is asked nothing for days may set the limit to 0.",
        )  # fmt: skip


def _check_rate(survey: LayerSurvey, counted: t.Sequence[Manifest], findings: Findings) -> None:
    """The last hours that are wholly archived, against the same hours of the days before."""
    until = survey.newest if survey.whole_chain else next((m for m in counted if m.type == FULL), None)
    hours: collections.Counter[str] = collections.Counter()
    for manifest in counted if survey.whole_chain else [m for m in counted if m is until]:
        hours.update((manifest.records or {})["hours"])
    if until is None:
        return
    told = unusual(hours, parse_time(until.created) or datetime.datetime.now(UTC))
    if told:
        findings.warn(
            "log_rate", "archived records", f"about {told[1]} records in {_WINDOW} hours, as on other days",
            f"{told[0]} until {until.created[:13]}:00Z",
            "Look at who asks the service: a client that is gone, a new one, or one that repeats itself.",
        )  # fmt: skip


def unusual(hours: t.Mapping[str, int], until: datetime.datetime) -> tuple[int, int] | None:
    """(records in the window, as many as usual) where these differ much; None where not, or where nobody can say."""
    end = until.replace(minute=0, second=0, microsecond=0)
    first = min(filter(None, hours), default="")
    if not first:
        return None

    def count(days: int) -> int | None:
        start = end - datetime.timedelta(days=days, hours=_WINDOW)
        names = [f"{start + datetime.timedelta(hours=n):%Y-%m-%dT%H}" for n in range(_WINDOW)]
        return sum(hours.get(name, 0) for name in names) if names[0] >= first else None

    before = [found for found in (count(days) for days in range(1, _DAYS + 1)) if found is not None]
    today = count(0)
    if len(before) < _FEWEST_DAYS or today is None:
        return None
    usual = int(statistics.median(before))
    if max(usual, today) < _FEWEST_RECORDS or usual / _TIMES <= today <= usual * _TIMES:
        return None
    return today, usual


def _check_gaps(counted: t.Sequence[Manifest], whole_chain: bool, findings: Findings) -> None:
    """Numbers that no snapshot of the chain has, and what could not be counted."""
    hint = "Export the hours around it (playbook export): the statement says what is missing and where."
    heads: dict[str, int] = {}
    for manifest in counted:
        records = manifest.records or {}
        for chain in records["chains"]:
            name, thing = chain["chain"], f"chain {chain['chain']}"
            if chain["breaks"]:
                findings.fail(
                    "records", thing, "numbers without a gap",
                    f"{chain['breaks']} breaks from {chain['first']} to {chain['last']} in {manifest.snapshot}", hint,
                )  # fmt: skip
            if whole_chain and name in heads and chain["first"] > heads[name] + 1:
                findings.fail(
                    "records", thing, f"number {heads[name] + 1} in {manifest.snapshot} or before",
                    f"its first is {chain['first']}", hint,
                )  # fmt: skip
            heads[name] = max(heads.get(name, 0), chain["last"])
        if records["not_scanned"]:
            findings.warn(
                "records", f"files in {manifest.layer}", "records that can be counted",
                f"{len(records['not_scanned'])} files that could not be read, such as {records['not_scanned'][0]}",
                "They are archived; a torn compressed file is counted by none.",
            )  # fmt: skip
    if not whole_chain:
        findings.leave(
            "records", "chain of the logs", "numbers without a gap from snapshot to snapshot",
            "only its full and its newest increment were read", "A patrol of the one instance reads all of them.",
        )  # fmt: skip
