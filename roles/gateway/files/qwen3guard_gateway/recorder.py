# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The log as the web application sees it: started again until it works, and what to say when it does not."""

from __future__ import annotations

import asyncio
import contextlib
import typing as t

from . import messages
from .archive import ArchiveLedger
from .config import Log
from .errors import JournalError, JournalUnavailable
from .journal import Journal
from .lookup import find_record

_START_AGAIN = 5.0


class Watch:
    """Tells operators when something begins to fail and when it works again, not each time."""

    def __init__(self, what: str):
        self._what = what
        self.problem = ""

    def failed(self, reason: str) -> None:
        if not self.problem:
            messages.warning(f"{self._what} fails", reason=reason)
        self.problem = reason

    def works(self) -> None:
        if self.problem:
            messages.info(f"{self._what} works again")
        self.problem = ""


class Recorder:
    """Makes records durable. With ``log.mode`` none there are no records at all (for benchmarks)."""

    def __init__(self, settings: Log, model: str):
        self._settings = settings
        self._journal: Journal | None = None
        if settings.mode == "journal":
            self._journal = Journal(
                settings.directory, settings.state_directory, model, min_free_bytes=settings.min_free_bytes
            )
        self._ledger = ArchiveLedger(settings.archive_ledger or None)
        self._starting: asyncio.Task[None] | None = None
        self._watch = Watch("the audit log")

    async def start(self) -> None:
        """A log that cannot be opened now (a full disk at boot) is tried again while the gateway runs."""
        if self._journal is not None and not await self._try(self._journal):
            self._starting = asyncio.get_running_loop().create_task(self._keep_trying(self._journal))

    async def _try(self, journal: Journal) -> bool:
        try:
            await journal.start()
        except JournalError as error:
            self._watch.failed(str(error))
            return False
        self._watch.works()
        return True

    async def _keep_trying(self, journal: Journal) -> None:
        started = False
        while not started:
            await asyncio.sleep(_START_AGAIN)
            started = await self._try(journal)

    async def close(self) -> None:
        if self._starting is not None:
            self._starting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._starting
        if self._journal is not None:
            await self._journal.close()

    async def append(self, fields: t.Mapping[str, t.Any]) -> dict[str, t.Any] | None:
        """What the journal returns (trace_id, time...) once the record is durable; None if there is no record."""
        if self._journal is None:
            return None
        try:
            written = await self._journal.append(fields)
        except JournalUnavailable as error:
            # If it is not even started, the reason for that is the better answer.
            self._watch.failed(self._reason(error))
            return None
        self._watch.works()
        return written

    async def probe(self) -> str:
        """Why no record could be written now; empty if one could."""
        if self._journal is None:
            return ""
        try:
            await self._journal.probe()
        except JournalUnavailable as error:
            return self._reason(error)
        return ""

    def _reason(self, error: JournalUnavailable) -> str:
        starting = self._starting is not None and not self._starting.done()
        return self._watch.problem if starting and self._watch.problem else str(error)

    @property
    def required(self) -> bool:
        """Whether an audit without a record must not be answered."""
        return self._journal is not None and self._settings.on_failure == "refuse"

    async def find(self, trace_id: str) -> dict[str, t.Any] | None:
        """A record of the live logs."""
        if self._journal is None:
            return None
        return await find_record(self._settings.directory, trace_id)

    def backup_status(self, chain: t.Any, seq: t.Any) -> str:
        """Where a record is archived; records without a chain (of older installations) are not in the ledger."""
        if not isinstance(chain, str) or not isinstance(seq, int):
            return "unknown"
        return self._ledger.status(chain, seq)
