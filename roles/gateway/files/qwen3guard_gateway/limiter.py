# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""At most so many questions at the upstream at once, and at most so many waiting."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import typing as t


class Overloaded(Exception):
    """No place to wait, or none came free in time."""


class Limiter:
    """Places given in the order of asking. Taking a free one costs no task and no timer."""

    def __init__(self, places: int, queue: int, patience: float):
        self._free = places
        self._queue = queue
        self._patience = patience
        self._waiting: collections.deque[asyncio.Future[None]] = collections.deque()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @contextlib.asynccontextmanager
    async def place(self) -> t.AsyncIterator[None]:
        await self._take()
        try:
            yield
        finally:
            self._give()

    async def _take(self) -> None:
        if self._free:
            self._free -= 1
            return
        if len(self._waiting) >= self._queue:
            raise Overloaded
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await asyncio.wait((turn,), timeout=self._patience)
        except BaseException:  # cancelled: a place that came at the same moment goes on to the next one
            self._leave(turn)
            raise
        if not turn.done():
            self._leave(turn)
            raise Overloaded

    def _leave(self, turn: asyncio.Future[None]) -> None:
        if turn.done():
            self._give()
        else:
            self._waiting.remove(turn)

    def _give(self) -> None:
        if self._waiting:  # straight to the next one: nobody overtakes
            self._waiting.popleft().set_result(None)
        else:
            self._free += 1
