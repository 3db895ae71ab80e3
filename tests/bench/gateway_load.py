# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Asks the gateway for audits, in a process of its own; prints one JSON line.

usage: python gateway_load.py PORT open RATE SECONDS     so many a second, at random moments, answered or not
       python gateway_load.py PORT closed CONNECTIONS REQUESTS     the next one when an answer came

With ``open`` the time of an answer counts from the moment at which it was due: a server that stalls cannot hide it.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
import typing as t
from collections import deque

import uvloop

_BODY = json.dumps(
    {"text": "How do I reset the password of my account? " * 5, "response": "Open the settings. " * 5}
).encode()
_CONNECTIONS = 100
_LENGTH = b"content-length:"


class Caller(asyncio.Protocol):
    """One connection; tells its ``done`` when an answer is there."""

    def __init__(self, request: bytes, done: t.Callable[[Caller, bool], None], lost: t.Callable[[float], None]):
        self._request, self._done, self._lost = request, done, lost
        self._pending = b""
        self.due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = t.cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def ask(self, due: float) -> None:
        self.due = due
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._pending += data
        head, mark, body = self._pending.partition(b"\r\n\r\n")
        if not mark:
            return
        at = head.lower().find(_LENGTH)
        if len(body) < int(head[at + len(_LENGTH) :].split(b"\r\n", 1)[0]):
            return
        self._pending = b""
        self._done(self, head.startswith(b"HTTP/1.1 200") and b'"verdict":"safe"' in body)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost(self.due)


class Load:
    """Counts answers and how long they took."""

    def __init__(self, port: int):
        self.port = port
        self.times: list[float] = []
        self.good = self.bad = self.again = 0
        self._wanted = -1
        self._complete = asyncio.Event()
        self._tasks: set[asyncio.Future[None]] = set()
        self.idle: deque[Caller] = deque()
        self.late: deque[float] = deque()  # due, and no connection is free
        head = f"POST /api/audit HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        self._request = f"{head}Content-Length: {len(_BODY)}\r\n\r\n".encode() + _BODY
        self.after: t.Callable[[Caller], None] = self._next_late

    async def connect(self, count: int) -> None:
        loop = asyncio.get_running_loop()
        for _number in range(count):
            _transport, caller = await loop.create_connection(
                lambda: Caller(self._request, self._done, self._replace), "127.0.0.1", self.port
            )
            self._next_late(caller)

    def _replace(self, due: float) -> None:
        """The server closes connections that were idle for some seconds: a client opens another one, and asks again
        what it had just sent into the closed one."""
        if due:
            self.again += 1
            self.late.append(due)
        task = asyncio.ensure_future(self.connect(1))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _done(self, caller: Caller, good: bool) -> None:
        self.times.append(time.perf_counter() - caller.due)
        caller.due = 0.0
        self.good += good
        self.bad += not good
        if len(self.times) == self._wanted:
            self._complete.set()
        self.after(caller)

    def _next_late(self, caller: Caller) -> None:
        if self.late:
            caller.ask(self.late.popleft())
        else:
            self.idle.append(caller)

    async def answered(self, count: int) -> None:
        """Until so many answers have come."""
        self._wanted = count
        if len(self.times) < count:
            await self._complete.wait()

    def ask(self, due: float) -> None:
        while self.idle:
            caller = self.idle.pop()
            if not caller.transport.is_closing():
                caller.ask(due)
                return
        self.late.append(due)

    def result(self, seconds: float) -> dict[str, t.Any]:
        times = sorted(self.times)

        def at(share: float) -> float:
            return round(times[min(len(times) - 1, int(len(times) * share))] * 1000, 3)

        return {
            "good": self.good, "bad": self.bad, "again": self.again,
            "seconds": round(seconds, 3), "rate": round(self.good / seconds, 1),
            "p50": at(0.5), "p99": at(0.99), "p999": at(0.999), "max": at(1.0),
        }  # fmt: skip


async def open_loop(port: int, rate: float, seconds: float) -> dict[str, t.Any]:
    """Poisson arrivals."""
    load = Load(port)
    await load.connect(_CONNECTIONS)
    started = time.perf_counter()
    due, count = started, 0
    while due < started + seconds:
        now = time.perf_counter()
        while due <= now:
            load.ask(due)
            count += 1
            due += random.expovariate(rate)
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
    await load.answered(count)
    return load.result(time.perf_counter() - started)


async def closed_loop(port: int, connections: int, requests: int) -> dict[str, t.Any]:
    """As fast as answers come."""
    load = Load(port)
    await load.connect(connections)
    left = requests - connections

    def after(caller: Caller) -> None:
        nonlocal left
        if left > 0:
            left -= 1
            caller.ask(time.perf_counter())

    load.after = after
    started = time.perf_counter()
    for caller in list(load.idle):
        caller.ask(time.perf_counter())
    await load.answered(requests)
    return load.result(time.perf_counter() - started)


async def main() -> None:
    port, kind, first, second = int(sys.argv[1]), sys.argv[2], float(sys.argv[3]), float(sys.argv[4])
    if kind == "open":
        print(json.dumps(await open_loop(port, first, second)))
    else:
        print(json.dumps(await closed_loop(port, int(first), int(second))))


if __name__ == "__main__":
    uvloop.install()
    asyncio.run(main())
