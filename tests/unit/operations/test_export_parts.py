# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an export is made of, piece by piece: sets of numbers, the choice of sources, the window, what is held back."""

from __future__ import annotations

import datetime
import typing as t

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_instance.chained import START, record_line

from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import GuardError, IntegrityError
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.records import Run, Scanned, scan_block
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import export_stream
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.export import window_of
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.export_findings import set_aside
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.export_plan import Window, span_of
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.export_sources import (
    Holding,
    Intervals,
    LiveFile,
    _split,
)
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.export_stream import ChainStream

CHAIN = "0123456789abcdef"
SECOND = datetime.timedelta(seconds=1)


def written(times: t.Sequence[int]) -> list[bytes]:
    """Records 1, 2, 3, … at so many seconds after START."""
    prev, lines = "0" * 64, []
    for number, seconds in enumerate(times, 1):
        made = record_line(CHAIN, number, prev, START + seconds * SECOND, event="audit")
        prev = made.hash
        lines.append(made.line)
    return lines


class Place:
    """Files in memory, read as snapshots and live logs are."""

    def __init__(self) -> None:
        self.content: dict[int, bytes] = {}
        self.broken: set[int] = set()
        self.read: list[int] = []

    def holdings(self, lines: t.Sequence[bytes]) -> list[Holding]:
        file = LiveFile(f"log-{len(self.content)}", len(self.content))
        self.content[file.fd] = b"".join(lines)
        found = Scanned()
        scan_block(self.content[file.fd], 0, found)
        return [Holding(run, file.path, live=file) for run in found.runs]

    def prefetch(self, holding: Holding) -> None:
        assert not holding.failed

    def lines(self, holding: Holding) -> t.Iterator[bytes]:
        assert holding.live is not None
        self.read.append(holding.live.fd)
        data = self.content[holding.live.fd][holding.run.offset : holding.run.offset + holding.run.length]
        for number, line in enumerate(data.splitlines(keepends=True)):
            if holding.live.fd in self.broken and number == 2:
                raise IntegrityError("a part", "what was stored", "other bytes")
            yield line


def stream(place: Place, holdings: list[Holding], start: int, end: int) -> ChainStream:
    window = window_of((START + start * SECOND).isoformat(), (START + end * SECOND).isoformat())
    span = span_of(holdings, window)
    assert span is not None
    return ChainStream(CHAIN, holdings, span, window, t.cast(t.Any, place))


@settings(max_examples=50, deadline=None)
@given(ranges=st.lists(st.tuples(st.integers(1, 60), st.integers(0, 9)), max_size=12), low=st.integers(1, 60))
def test_intervals_are_sets(ranges: list[tuple[int, int]], low: int) -> None:
    intervals, wanted = Intervals(), set()
    for first, length in ranges:
        intervals.add(first, first + length)
        wanted.update(range(first, first + length + 1))
    assert {number for number in range(80) if number in intervals} == wanted
    assert intervals.count(low, 70) == len(wanted & set(range(low, 71)))
    holes = {number for first, last in intervals.holes(low, 70) for number in range(first, last + 1)}
    assert holes == set(range(low, 71)) - wanted
    pairs = list(intervals)
    assert all(before[1] + 1 < after[0] for before, after in zip(pairs, pairs[1:]))


@pytest.mark.parametrize("held_in_memory", [1, 1 << 20])
def test_what_lies_between_belongs_to_the_window(held_in_memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_stream, "_HELD_IN_MEMORY", held_in_memory)
    place = Place()
    times = [0, 1, 10, 11, -3600, -3599, 12, 13, 90, 91, 14, 95, 96]
    lines = written(times)
    chain = stream(place, place.holdings(lines), 10, 20)
    found = [item.line for item in chain]
    assert found == lines[2:11]
    assert (chain.first, chain.last, chain.count, chain.off_clock) == (3, 11, 9, 4)
    assert chain.before is not None
    assert chain.after is not None
    assert (chain.before.seq, chain.after.seq, chain.after.prev) == (2, 12, chain.head)


def test_a_source_that_breaks_off_is_replaced_from_there_on() -> None:
    place = Place()
    lines = written(range(10))
    holdings = place.holdings(lines) + place.holdings(lines[1:6]) + place.holdings(lines[5:])
    place.broken.add(0)
    chain = stream(place, holdings, 0, 100)
    assert [item.line for item in chain] == lines
    assert place.read == [0, 1, 2]
    assert [(holding.path, number) for holding, _why, number in chain.failures] == [("log-0", 3)]
    assert not chain.strange


def test_a_copy_that_ends_otherwise_is_strange() -> None:
    place = Place()
    lines, others = written(range(10)), written([0, 1, 2, 7, 8])
    same, other = place.holdings(lines[:4]), place.holdings(others)
    chain = stream(place, place.holdings(lines) + same + other, 0, 100)
    assert len(list(chain)) == 10
    assert chain.strange == other


def test_sources_without_reading() -> None:
    place = Place()
    lines = written(range(10))
    first, second, third = place.holdings(lines[:3]), place.holdings(lines[2:5]), place.holdings(lines[7:])
    assert list(stream(place, first + second + third, 0, 100).sources()) == first + second + third
    assert not place.read


def test_a_number_far_off_is_set_aside() -> None:
    place = Place()
    lines = written(range(10))
    false = record_line(CHAIN, 10**9, "a" * 64, START, event="audit").line
    holdings = place.holdings([*lines[:4], false, *lines[4:]])
    aside = set_aside(holdings)
    assert [holding.run.first for holding in aside] == [10**9]
    assert [(holding.run.first, holding.run.last) for holding in holdings] == [(1, 4), (5, 10)]
    reordered = place.holdings([*lines[:4], lines[6], *lines[4:6], *lines[7:]])
    assert not set_aside(reordered)


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("2026-11-23T09:00:00", "2026-11-23T10:00:00Z"),
        ("2026-11-23T09:00:00Z", "yesterday"),
        ("2026-11-23T10:00:00+08:00", "2026-11-23T02:00:00Z"),
        ("0001-01-01T00:00:00+08:00", "2026-11-23T02:00:00Z"),
    ],
)
def test_windows_that_are_none(start: str, end: str) -> None:
    with pytest.raises(GuardError):
        window_of(start, end)


def test_a_window_is_told_in_utc() -> None:
    assert window_of("2026-11-23T17:00:00+08:00", "2026-11-23T10:00:00.5z") == Window(
        "2026-11-23T09:00:00.000000Z", "2026-11-23T10:00:00.500000Z"
    )


@settings(max_examples=50, deadline=None)
@given(data=st.binary(max_size=60), size=st.integers(1, 9))
def test_lines_end_at_newlines_only(data: bytes, size: int) -> None:
    data = data.replace(b"a", b"\n").replace(b"b", b"\r")
    chunks = [data[place : place + size] for place in range(0, len(data), size)]
    assert list(_split(chunks)) == [line + b"\n" for line in data.split(b"\n")[:-1]]


def test_runs_are_what_is_planned_with() -> None:
    run = Run(CHAIN, 0, 1, 1, 5, 5, "", "", "2026", "2026")
    assert span_of([Holding(run, "x")], Window("2025", "2027")) == (5, 5)
    assert span_of([Holding(run, "x")], Window("2025", "2026")) is None
