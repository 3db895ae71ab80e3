# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Health: whether the upstream answers and a record can be written, found out at most every two seconds."""

from __future__ import annotations

import asyncio
import time
import typing as t

from .recorder import Recorder, Watch
from .upstream import Client, UpstreamError

_KEEP = 2.0
_PATIENCE = 3.0  # for either part
_PROOF = 5.0  # how long a verdict counts as proof that the upstream works
_FAILURES = 5  # so many failed questions in a row are proof that it does not, whatever its health path says
_REMEMBER = 60.0


class UpstreamState:
    """What the audits themselves show of the upstream."""

    def __init__(self) -> None:
        self.watch = Watch("the upstream")
        self._worked_at = -_PROOF
        self._failed_at = 0.0
        self._failures = 0

    def works(self) -> None:
        self._worked_at = time.monotonic()
        self._failures = 0
        self.watch.works()

    def failed(self, error: UpstreamError) -> None:
        self._failed_at = time.monotonic()
        self._failures += 1
        self.watch.failed(f"{error.code}: {error}")

    @property
    def proven(self) -> bool:
        return not self._failures and time.monotonic() - self._worked_at < _PROOF

    @property
    def disproven(self) -> str:
        if self._failures >= _FAILURES and time.monotonic() - self._failed_at < _REMEMBER:
            return f"the last {self._failures} questions failed: {self.watch.problem}"
        return ""


class Health(t.NamedTuple):
    """Empty texts are good news."""

    upstream: str
    log: str

    @property
    def good(self) -> bool:
        return not self.upstream and not self.log


class Checker:
    """One check for all who ask meanwhile, and its result for two seconds more."""

    def __init__(self, client: Client, state: UpstreamState, recorder: Recorder, probe_text: str):
        self._client = client
        self._state = state
        self._recorder = recorder
        self._probe_text = probe_text
        self._task: asyncio.Task[Health] | None = None
        self._checked_at = 0.0

    async def check(self) -> Health:
        if self._task is None or (self._task.done() and time.monotonic() - self._checked_at > _KEEP):
            self._task = asyncio.get_running_loop().create_task(self._check())
        return await asyncio.shield(self._task)  # whoever goes away must not end it for the others

    async def _check(self) -> Health:
        upstream, log = await asyncio.gather(self._upstream(), self._log())
        self._checked_at = time.monotonic()
        return Health(upstream, log)

    async def _upstream(self) -> str:
        if self._state.proven:
            return ""
        disproven = "" if self._probe_text else self._state.disproven
        if disproven:
            return disproven
        try:
            await asyncio.wait_for(self._ask(), _PATIENCE)
        except UpstreamError as error:
            return f"{error.code}: {error}"
        except asyncio.TimeoutError:
            return f"upstream_slow: no answer within {_PATIENCE:g} s"
        return ""

    async def _ask(self) -> None:
        if self._probe_text:
            await self._client.audit(self._probe_text, None)
        else:
            await self._client.ping()

    async def _log(self) -> str:
        try:
            return await asyncio.wait_for(self._recorder.probe(), _PATIENCE)
        except asyncio.TimeoutError:
            return f"the disk has not answered for {_PATIENCE:g} s"
