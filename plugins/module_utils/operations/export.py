# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Export the audit records of a window as evidence: each once, in order, with a statement of what that proves.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import pkgutil
import re
import sqlite3
import time
import typing as t

from ..errors import GuardError
from ..evidence import check as _checker  # so that Ansible brings its source along, which goes into the bundle
from ..format.chain import ChainChecker
from ..services.signature import Signer, read_passphrase
from . import export_bundle, export_plan, export_statement, export_summary
from .export_bundle import Bundle
from .export_findings import LIVE, Judgement, judge, set_aside
from .export_plan import Archive, Live, Window, span_of
from .export_sources import Holding, Reader
from .export_statement import Account
from .export_stream import ChainStream, Unchained, merged
from .session import Session

_TOLD_EVERY = 5000  # records


@dataclasses.dataclass
class Options:
    """What an export may be told."""

    start: str
    end: str
    path: str
    logs_path: str = ""  # empty: archives only
    signing_key_file: str = ""
    signing_passphrase_file: str = ""
    unsigned: bool = False


@dataclasses.dataclass
class Outcome:
    """What was exported, and what that proves."""

    path: str
    start: str
    end: str
    ok: bool = True
    records: int = 0
    chains: list[dict[str, t.Any]] = dataclasses.field(default_factory=list)
    findings: list[dict[str, t.Any]] = dataclasses.field(default_factory=list)
    conservation: dict[str, int] = dataclasses.field(default_factory=dict)
    proven: list[str] = dataclasses.field(default_factory=list)
    not_proven: list[str] = dataclasses.field(default_factory=list)
    snapshots: list[str] = dataclasses.field(default_factory=list)
    parts: int = 0
    stored_bytes: int = 0
    bytes: int = 0
    signed_by: str = ""
    records_expected: int = 0
    seconds: float = 0.0


@dataclasses.dataclass
class _Work:
    """What one export has at hand."""

    session: Session
    options: Options
    window: Window
    archive: Archive
    live: Live
    reader: Reader
    unchained: Unchained
    streams: list[ChainStream]
    aside: list[Holding]

    @property
    def unchained_holdings(self) -> list[Holding]:
        return [*self.archive.holdings.get("", []), *self.live.holdings.get("", [])]


def export(session: Session, options: Options) -> Outcome:
    """Write the bundle; in check mode only say what it would be made of."""
    started = time.monotonic()
    window = window_of(options.start, options.end)
    outcome = Outcome(options.path, window.start, window.end)
    bundle, signer = Bundle(options.path), _signer(session, options)
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(session.scratch("export"))
        session.progress.begin("reading indexes")
        archive = export_plan.find_archived(session, window)
        session.progress.begin("reading live logs")
        live = stack.enter_context(export_plan.find_live(session, options.logs_path, window, archive, scratch))
        reader = stack.enter_context(Reader(session, scratch))
        unchained = stack.enter_context(contextlib.closing(Unchained(scratch)))
        work = _Work(session, options, window, archive, live, reader, unchained, [], [])
        _plan(work, outcome)
        if not session.dry:
            stack.enter_context(bundle)
            try:
                _write(work, bundle, signer, scratch, outcome)
                bundle.commit()
            except (OSError, sqlite3.Error) as error:
                where = f"{options.path} and {session.state_directory}"
                raise GuardError(where, "disks that take what an export writes", str(error)) from error
    outcome.seconds = round(time.monotonic() - started, 3)
    return outcome


def window_of(start: str, end: str) -> Window:
    """The window as records have their times: UTC, microseconds."""
    low, high = _moment("start", start), _moment("end", end)
    if low >= high:
        raise GuardError("option end", f"a time after {start}", end)
    return Window(low, high)


def _moment(name: str, text: str) -> str:
    expected = "a time with its zone (2026-11-23T09:00:00+08:00)"
    try:
        when = datetime.datetime.fromisoformat(re.sub(r"[Zz]\Z", "+00:00", text))
        if when.tzinfo is None:
            raise GuardError(f"option {name}", expected, f"{text!r}, which has none", "Append Z or +08:00.")
        return when.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    except (ValueError, OverflowError) as error:
        raise GuardError(f"option {name}", expected, repr(text)) from error


def _signer(session: Session, options: Options) -> Signer | None:
    """Before any work: an export of an hour must not fail for its key."""
    if options.unsigned:
        if options.signing_key_file:
            raise GuardError("option unsigned", "it or signing_key_file", "both")
        return None
    if not options.signing_key_file:
        raise GuardError(
            "option signing_key_file", "a key to sign the statement with", "none",
            "Anybody could have written an unsigned statement; unsigned: true makes one all the same.",
        )  # fmt: skip
    passphrase = read_passphrase(options.signing_passphrase_file) if options.signing_passphrase_file else b""
    signer = Signer(session.gpg, options.signing_key_file, passphrase)
    signer.sign(b"")
    return signer


def _plan(work: _Work, outcome: Outcome) -> None:
    """A stream for each chain; what they would read, for check mode."""
    names = sorted({*work.archive.holdings, *work.live.holdings} - {""})
    for name in names:
        holdings = [*work.archive.holdings.get(name, []), *work.live.holdings.get(name, [])]
        work.aside.extend(set_aside(holdings))
        span = span_of(holdings, work.window)
        if span is not None:
            work.streams.append(ChainStream(name, holdings, span, work.window, work.reader))
            outcome.records_expected += span[1] - span[0] + 1
    touched = [h for h in work.unchained_holdings if work.window.touches(h.run.since, h.run.until)]
    outcome.records_expected += sum(h.run.count for h in touched)
    used = [h for stream in work.streams for h in stream.sources()] + touched
    outcome.snapshots = sorted({h.opened.manifest.snapshot for h in used if h.opened is not None})
    objects = {
        f"{h.opened.manifest.snapshot} {part.name}": part for h in used if h.opened for part in work.reader.parts(h)
    }
    outcome.parts, outcome.stored_bytes = len(objects), sum(part.size for part in objects.values())


def _write(work: _Work, bundle: Bundle, signer: Signer | None, scratch: str, outcome: Outcome) -> None:
    work.session.progress.begin("reading records without a chain")
    work.unchained.collect(work.unchained_holdings, work.window, work.reader)
    account, checker = Account(work.archive.claims, work.live.covers), ChainChecker(scratch)
    work.session.progress.begin("exporting records")
    waiting = 0
    for line, record, holding, flags in merged(work.streams, work.unchained):
        bundle.add_line(line)
        if holding is not None:
            checker.feed(line, holding.where, record)
            account.add(record, holding)
        else:
            account.add_unchained(record, flags)
        waiting += len(line)
        if account.exported % _TOLD_EVERY == 0:
            work.session.progress.advance(waiting)
            waiting = 0
    bundle.end_records()
    judgement = judge(
        checker, work.streams, work.aside, work.archive, work.live, work.unchained, work.window, work.reader
    )
    for finding in judgement.missing():
        account.miss(finding)
    _state(work, bundle, signer, judgement, account, outcome)


def _state(
    work: _Work, bundle: Bundle, signer: Signer | None, judgement: Judgement, account: Account, outcome: Outcome
) -> None:
    facts = export_statement.Facts(
        instance=work.session.repository.instance, repository=work.session.repository.where(work.session.layer),
        window=work.window, streams=work.streams, archive=work.archive, live=work.live, unchained=work.unchained,
        judgement=judgement, account=account, fetched=work.reader.fetched,
        signed_by=signer.fingerprint if signer else "",
        live_logs=bool(work.options.logs_path),
    )  # fmt: skip
    statement = export_statement.statement_of(facts)
    bundle.add(export_bundle.README, export_summary.readme(statement).encode())
    bundle.add(export_bundle.SUMMARY, export_summary.page(statement).encode())
    bundle.add(export_bundle.CHECKER, checker_source())
    if signer is not None:
        bundle.add(export_bundle.SIGNER, signer.public_key())
    statement["files"] = dict(sorted(bundle.files.items()))
    bundle.state(export_statement.to_bytes(statement), signer)
    outcome.ok = judgement.ok
    outcome.records = account.exported
    outcome.chains = statement["chains"]
    outcome.findings = statement["findings"]
    outcome.conservation = statement["conservation"]["total"]
    outcome.proven, outcome.not_proven = statement["proven"], statement["not_proven"]
    outcome.snapshots = [item["snapshot"] for item in statement["sources"]["snapshots"]]
    outcome.parts, outcome.stored_bytes = len(work.reader.fetched), work.reader.bytes
    outcome.bytes = sum(file["bytes"] for file in bundle.files.values())
    outcome.signed_by = facts.signed_by
    for finding in judgement.live:
        if not finding.innocent:
            work.session.warn(f"{LIVE}: {finding}")


def checker_source() -> bytes:
    """The checker that goes into each bundle, as it is; it may lie in a zip file here."""
    package, _dot, name = _checker.__name__.rpartition(".")
    source = pkgutil.get_data(package, f"{name}.py")
    if not source:
        raise GuardError(_checker.__name__, "its source", "none")
    return source
