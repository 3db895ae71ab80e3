# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A TCP proxy on loopback that does to a connection what bad networks do.

    with FaultyProxy(target_port) as proxy:
        proxy.fault = Fault("cut", after=1_000_000, connections=2)

The fault can be changed at any time: it counts for connections made from then on, except that ``stall`` ends, with
the connection, for those it holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
import struct
import threading
import typing as t

from .processes import LOOPBACK

MODES = ("pass", "refuse", "stall", "cut", "truncate", "flip")
DIRECTIONS = ("up", "down")
_CHUNK = 64 * 1024
_START_SECONDS = 10.0


@dataclasses.dataclass(frozen=True)
class Fault:
    """What happens to connections.

    mode         ``pass``      nothing
                 ``refuse``    closed with a reset at once, without asking the target
                 ``stall``     after ``after`` bytes nothing more comes, and the connection stays open
                 ``cut``       after ``after`` bytes both sides see a reset
                 ``truncate``  after ``after`` bytes the receiver sees a regular end; the sender notices nothing
                 ``flip``      the byte at offset ``after`` arrives with its lowest bit changed
    after        bytes that pass unharmed, counted for each connection, in ``direction``
    direction    ``up`` is client to server, ``down`` server to client
    connections  only so many connections are hit, the following ones pass; None: all
    """

    mode: str = "pass"
    after: int = 0
    direction: str = "up"
    connections: int | None = None

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode: expected one of {', '.join(MODES)}, found {self.mode!r}")
        if self.direction not in DIRECTIONS:
            raise ValueError(f"direction: expected up or down, found {self.direction!r}")
        if self.after < 0:
            raise ValueError(f"after: expected a number of bytes, found {self.after}")


class FaultyProxy:
    """Listens on a free port while its ``with`` block runs.

    port           where it listens; ``endpoint`` is the same as a URL
    connections    how many were made
    hit            how many of them the fault really reached: a cut after more bytes than came hits nothing
    bytes_up       what was passed on, client to server; bytes_down the other way
    """

    def __init__(self, target_port: int, target_host: str = LOOPBACK):
        self._target = (target_host, target_port)
        self._fault = Fault()
        self._chosen = 0  # connections that the present fault was given
        self._lock = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._released = asyncio.Event()  # set when the fault changes: stalled connections end
        self._links: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="faulty-proxy", daemon=True)
        self._listener = socket.create_server((LOOPBACK, 0))
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self.connections = 0
        self.hit = 0
        self.bytes_up = 0
        self.bytes_down = 0

    def __enter__(self) -> FaultyProxy:
        self._thread.start()
        self._in_loop(self._open())
        return self

    def __exit__(self, *_exc: object) -> None:
        self._in_loop(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def endpoint(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def fault(self) -> Fault:
        return self._fault

    @fault.setter
    def fault(self, fault: Fault) -> None:
        with self._lock:
            self._fault = fault
            self._chosen = 0
        self._in_loop(self._release())

    def reset_counts(self) -> None:
        """Start counting at zero again."""
        with self._lock:
            self.connections = self.hit = self.bytes_up = self.bytes_down = 0

    def wait_until_hit(self, count: int = 1, timeout: float = 60.0) -> None:
        """Come back when the fault has reached that many connections: the moment to kill something, say."""
        with self._lock:
            if not self._lock.wait_for(lambda: self.hit >= count, timeout):
                raise TimeoutError(f"the fault reached {self.hit} of {count} connections in {timeout:.0f} s")

    def _in_loop(self, work: t.Coroutine[t.Any, t.Any, t.Any]) -> t.Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_START_SECONDS)

    async def _release(self) -> None:
        self._released.set()
        self._released = asyncio.Event()

    async def _open(self) -> None:
        self._loop.add_reader(self._listener, self._take_connection)

    def _take_connection(self) -> None:
        """Accept by hand: asyncio's own ways lose a connection that comes while they are being closed."""
        try:
            accepted, _address = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):  # the client has gone already
            return
        task = self._loop.create_task(self._accept(accepted))
        self._links.add(task)
        task.add_done_callback(self._links.discard)

    async def _close(self) -> None:
        self._loop.remove_reader(self._listener)
        self._listener.close()
        await asyncio.sleep(0)  # a task cancelled before its first step would leave its socket open
        for task in self._links:
            task.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    def _take_fault(self) -> Fault:
        """Count a connection and say what shall happen to it."""
        with self._lock:
            self.connections += 1
            limit = self._fault.connections
            if limit is not None and self._chosen >= limit:
                return Fault()
            self._chosen += 1
            return self._fault

    async def _accept(self, accepted: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=accepted)
        try:
            await self._serve(reader, writer, self._take_fault())
        finally:
            writer.transport.abort()  # does nothing to what is closed already

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fault: Fault) -> None:
        if fault.mode == "refuse":
            self._count_hit()
            _reset(writer)
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:  # the target is down: the client shall see that
            _reset(writer)
            return
        link = _Link(writer, far_writer)
        ways = [
            asyncio.create_task(self._pump(reader, far_writer, "up", fault, link)),
            asyncio.create_task(self._pump(far_reader, writer, "down", fault, link)),
        ]
        try:
            await asyncio.gather(*ways)
        except OSError:  # one side went away (ENOTCONN is no ConnectionError): the other one shall see it
            link.reset()
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            await link.close()

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, direction: str, fault: Fault, link: _Link
    ) -> None:
        """Pass one direction on, with the fault if it is meant for this one."""
        armed = fault.mode != "pass" and fault.direction == direction
        released = self._released
        passed = 0
        dropping = False
        while chunk := await source.read(_CHUNK):
            if dropping:
                continue
            # A flip needs the byte itself, the others strike as soon as the bytes before have passed.
            if armed and passed + len(chunk) > fault.after:
                armed = False
                self._count_hit()
                at = fault.after - passed
                if fault.mode == "flip":
                    chunk = chunk[:at] + bytes([chunk[at] ^ 1]) + chunk[at + 1 :]
                else:
                    await self._send(sink, chunk[:at], direction)
                    dropping = await self._strike(fault, sink, link, released)
                    if not dropping:
                        return
                    continue
            await self._send(sink, chunk, direction)
            passed += len(chunk)
        if not dropping and sink.can_write_eof():
            sink.write_eof()

    async def _strike(self, fault: Fault, sink: asyncio.StreamWriter, link: _Link, released: asyncio.Event) -> bool:
        """Do it; True when the sender shall go on and be ignored."""
        if fault.mode == "truncate":
            await sink.drain()
            sink.write_eof()
            return True
        if fault.mode == "stall":
            await released.wait()
        link.reset()
        return False

    async def _send(self, sink: asyncio.StreamWriter, data: bytes, direction: str) -> None:
        if not data:
            return
        sink.write(data)
        await sink.drain()
        with self._lock:
            if direction == "up":
                self.bytes_up += len(data)
            else:
                self.bytes_down += len(data)

    def _count_hit(self) -> None:
        with self._lock:
            self.hit += 1
            self._lock.notify_all()


class _Link:
    """Both ends of one proxied connection."""

    def __init__(self, *writers: asyncio.StreamWriter):
        self._writers = writers

    def reset(self) -> None:
        for writer in self._writers:
            _reset(writer)

    async def close(self) -> None:
        for writer in self._writers:
            writer.close()
            with contextlib.suppress(ConnectionError, TimeoutError):
                await writer.wait_closed()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close so that the peer sees a reset, not a regular end: SO_LINGER with no time does that."""
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
