# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The proxy that other tests rely on really does what it says, byte for byte."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
import typing as t

import pytest

from support.faulty_proxy import Fault, FaultyProxy

DATA = os.urandom(300_000)
NO_ANSWER = b""
QUICK = 0.3  # how long a read is waited for that must not come
SURE = 10.0  # and one that must


class Echo:
    """A server that sends back all it got, once the client has finished; it keeps what it got."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.errors: list[OSError] = []
        self.done = threading.Semaphore(0)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Echo:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        while True:
            try:
                connection, _address = self._listener.accept()
            except OSError:
                return  # shut down
            with connection:
                self._answer(connection)
            self.done.release()

    def _answer(self, connection: socket.socket) -> None:
        got = b""
        try:
            while chunk := connection.recv(65536):
                got += chunk
            connection.sendall(got)
        except OSError as error:
            self.errors.append(error)
        self.received.append(got)

    def wait(self) -> bytes:
        """What the next connection to end had sent."""
        assert self.done.acquire(timeout=SURE)
        return self.received[-1]


@pytest.fixture
def echo() -> t.Iterator[Echo]:
    with Echo() as server:
        yield server


@pytest.fixture
def line(echo: Echo) -> t.Iterator[FaultyProxy]:
    with FaultyProxy(echo.port) as proxy:
        yield proxy


def connect(proxy: FaultyProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=SURE)


def read_all(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65536), b""))


def talk(proxy: FaultyProxy, data: bytes = DATA) -> bytes:
    """Send, finish, and read the answer to its end."""
    with connect(proxy) as connection:
        connection.sendall(data)
        try:
            connection.shutdown(socket.SHUT_WR)
        except OSError as error:  # a reset came first; that is no ConnectionError of Python's
            if error.errno == errno.ENOTCONN:
                raise ConnectionResetError(errno.ECONNRESET, "reset before the end was sent") from error
            raise
        return read_all(connection)


def differences(left: bytes, right: bytes) -> list[tuple[int, int]]:
    """Offsets at which two strings of equal length differ, and the bits that do."""
    assert len(left) == len(right)
    return [(at, a ^ b) for at, (a, b) in enumerate(zip(left, right)) if a != b]


def test_passes_everything_and_counts(line: FaultyProxy) -> None:
    assert talk(line) == DATA
    assert talk(line, b"x") == b"x"
    assert (line.connections, line.hit) == (2, 0)
    assert (line.bytes_up, line.bytes_down) == (len(DATA) + 1, len(DATA) + 1)
    line.reset_counts()
    assert (line.connections, line.bytes_up, line.bytes_down) == (0, 0, 0)


def test_refuses_without_asking_the_target(line: FaultyProxy, echo: Echo) -> None:
    line.fault = Fault("refuse")
    with pytest.raises(ConnectionError):
        talk(line)
    assert echo.received == []
    assert line.hit == 1


@pytest.mark.parametrize("after", [0, 1, 65536, 200_001])
def test_flips_one_bit_on_the_way_up(line: FaultyProxy, echo: Echo, after: int) -> None:
    line.fault = Fault("flip", after=after, direction="up")
    answer = talk(line)
    assert differences(echo.wait(), DATA) == [(after, 1)]
    assert answer == echo.received[-1]


def test_flips_one_bit_on_the_way_down(line: FaultyProxy, echo: Echo) -> None:
    line.fault = Fault("flip", after=123_456, direction="down")
    answer = talk(line)
    assert echo.wait() == DATA
    assert differences(answer, DATA) == [(123_456, 1)]


def test_a_fault_beyond_the_end_hits_nothing(line: FaultyProxy) -> None:
    line.fault = Fault("flip", after=len(DATA))
    assert talk(line) == DATA
    assert line.hit == 0


@pytest.mark.parametrize("after", [0, 70_000])
def test_cut_resets_both_sides(line: FaultyProxy, echo: Echo, after: int) -> None:
    line.fault = Fault("cut", after=after)
    with pytest.raises(ConnectionError):
        talk(line)
    got = echo.wait()
    assert DATA.startswith(got)
    assert len(got) <= after
    assert [type(error) for error in echo.errors] == [ConnectionResetError]
    assert line.bytes_up == after


def test_cut_on_the_way_down(line: FaultyProxy, echo: Echo) -> None:
    line.fault = Fault("cut", after=1000, direction="down")
    with pytest.raises(ConnectionError):
        talk(line)
    assert line.bytes_down == 1000
    assert echo.wait() == DATA


def test_truncate_looks_like_a_regular_end_to_the_receiver(line: FaultyProxy, echo: Echo) -> None:
    line.fault = Fault("truncate", after=100_000)
    answer = talk(line)
    assert echo.wait() == DATA[:100_000]
    assert answer == DATA[:100_000]
    assert echo.errors == []


def test_truncate_on_the_way_down(line: FaultyProxy, echo: Echo) -> None:
    line.fault = Fault("truncate", after=5, direction="down")
    assert talk(line) == DATA[:5]
    assert echo.wait() == DATA


def test_stall_keeps_the_connection_open_and_silent(line: FaultyProxy, echo: Echo) -> None:
    line.fault = Fault("stall", after=10)
    with connect(line) as connection:
        connection.sendall(b"0123456789more")
        connection.shutdown(socket.SHUT_WR)
        line.wait_until_hit()
        connection.settimeout(QUICK)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        assert echo.received == []
        assert (line.bytes_up, line.hit) == (10, 1)
        # A change of the fault ends what was stalled, and new connections pass.
        line.fault = Fault()
        connection.settimeout(SURE)
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == NO_ANSWER
    assert talk(line) == DATA


def test_waiting_for_a_hit_that_never_comes_ends(line: FaultyProxy) -> None:
    with pytest.raises(TimeoutError, match="0 of 1"):
        line.wait_until_hit(timeout=0.01)


def test_leaving_ends_stalled_connections(echo: Echo) -> None:
    with FaultyProxy(echo.port) as proxy:
        proxy.fault = Fault("stall")
        connection = connect(proxy)
        connection.sendall(b"x")
        proxy.wait_until_hit()
    with connection, contextlib.suppress(ConnectionResetError):
        assert connection.recv(1) == NO_ANSWER
    assert echo.wait() == b""
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)


@pytest.mark.parametrize("mode", ["refuse", "cut"])
def test_only_the_first_connections_are_hit(line: FaultyProxy, mode: str) -> None:
    line.fault = Fault(mode, connections=2)
    for _try in range(2):
        with pytest.raises(ConnectionError):
            talk(line)
    assert talk(line) == DATA
    assert (line.connections, line.hit) == (3, 2)
    line.fault = Fault(mode, connections=1)  # a new fault counts anew
    with pytest.raises(ConnectionError):
        talk(line)
    assert talk(line) == DATA


def test_a_target_that_is_down_looks_down() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with FaultyProxy(port) as proxy, pytest.raises(ConnectionError):
        talk(proxy)


@pytest.mark.parametrize(
    "wrong", [{"mode": "explode"}, {"mode": "cut", "after": -1}, {"mode": "cut", "direction": "sideways"}]
)
def test_nonsense_is_refused(wrong: dict[str, t.Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Fault(**wrong)
