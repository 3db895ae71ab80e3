# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One record among many lines: found wherever the pieces end, and held against its neighbours."""

from __future__ import annotations

import pathlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_instance.chained import START, ChainedWriter, Written, record_line

from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.record_search import (
    Check,
    Hit,
    Known,
    LineFinder,
    check_record,
)


def nothing(_chain: str, _seq: int) -> list[Known]:
    return []


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[Written]:
    writer = ChainedWriter(tmp_path_factory.mktemp("log") / "audit.log")
    writer.append(8)
    return writer.written


def find(data: bytes, trace_id: str, sizes: list[int] | None = None) -> list[Hit]:
    finder = LineFinder(trace_id, 1000)
    position = 0
    for size in sizes or []:
        finder.take(data[position : position + size])
        position += size
    finder.take(memoryview(data)[position:])
    return finder.hits


@settings(deadline=None, max_examples=40)
@given(number=st.integers(0, 8), sizes=st.lists(st.integers(0, 900), max_size=12))
def test_found_wherever_pieces_end(written: list[Written], number: int, sizes: list[int]) -> None:
    lines = [record.line for record in written]
    [hit] = find(b"".join(lines), written[number].trace_id, sizes)
    assert (hit.offset, hit.line) == (1000 + sum(map(len, lines[:number])), lines[number])
    assert hit.before == (lines[number - 1] if number else b"")
    assert hit.after == (lines[number + 1] if number < 8 else b"")


def test_an_id_in_a_text_is_no_record(written: list[Written]) -> None:
    wanted = written[0].trace_id
    asked = record_line("a" * 16, 1, "0" * 64, START, event="audit", text=f'{wanted} and "trace_id":"{wanted}"')
    assert find(asked.line, wanted) == []
    assert len(find(asked.line + written[0].line, wanted)) == 1


def test_a_line_without_its_end_is_cut(written: list[Written]) -> None:
    finder = LineFinder(written[3].trace_id)
    finder.take(written[2].line + written[3].line[:-20])
    assert (finder.hits, finder.is_cut) == ([], True)
    finder.take(written[3].line[-20:])
    assert (len(finder.hits), finder.is_cut) == (1, False)


def check(lines: list[bytes], wanted: Written, **known: list[Known]) -> Check:
    [hit] = find(b"".join(lines), wanted.trace_id)
    return check_record(hit, lambda *_at: known.get("last", []), lambda *_at: known.get("first", []))


def test_everything_right(written: list[Written]) -> None:
    told = check([record.line for record in written], written[4])
    assert (told.hash, told.before, told.after, told.numbers) == ("ok",) * 4
    assert (told.failures, told.not_checked) == ([], [])


def test_the_first_of_all_needs_none_before(written: list[Written]) -> None:
    assert check([record.line for record in written], written[0]).before == "ok"


def test_alone_it_is_not_checked(written: list[Written]) -> None:
    told = check([written[4].line], written[4])
    assert (told.hash, told.before, told.after, told.numbers) == ("ok", *["not_checked"] * 3)
    assert len(told.not_checked) == 2


def test_what_is_known_from_elsewhere(written: list[Written]) -> None:
    right = {"last": [Known(written[3].hash, "there")], "first": [Known(written[4].hash, "there")]}
    assert check([written[4].line], written[4], **right).numbers == "ok"
    wrong = {name: [Known("0" * 64, "there")] for name in right}
    told = check([written[4].line], written[4], **wrong)
    assert (told.before, told.after) == ("failed", "failed")
    assert all("there" in text for text in told.failures)


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        pytest.param(lambda w: [w[3].line, w[4].line.replace(b"safe", b"sAfe"), w[5].line], {"hash"}, id="altered"),
        pytest.param(lambda w: [w[2].line, w[4].line, w[5].line], {"before", "numbers"}, id="one before is missing"),
        pytest.param(lambda w: [w[3].line, w[4].line, w[6].line], {"after", "numbers"}, id="one after is missing"),
        pytest.param(lambda w: [w[5].line, w[4].line], {"before", "numbers"}, id="reordered"),
        pytest.param(
            lambda w: [w[3].line.replace(b"safe", b"sAfe"), w[4].line], {"before"}, id="the one before was altered"
        ),
        pytest.param(
            lambda w: [record_line(w[0].chain, 4, "0" * 64, START).line, w[4].line], {"before"}, id="another one before"
        ),
        pytest.param(
            lambda w: [w[4].line, record_line(w[0].chain, 6, "0" * 64, START).line], {"after"}, id="another one after"
        ),
        pytest.param(lambda w: [w[4].line.replace(b'"seq":5', b'"seq":05')], {"hash"}, id="no chained record any more"),
    ],
)
def test_what_is_wrong_is_told(written: list[Written], change: object, fields: set[str]) -> None:
    told = check(change(written), written[4])  # type: ignore[operator]
    assert {name for name in ("hash", "before", "after", "numbers") if getattr(told, name) == "failed"} == fields
    assert told.failures


def test_a_new_chain_names_the_end_of_the_one_before(written: list[Written], tmp_path: pathlib.Path) -> None:
    writer = ChainedWriter(tmp_path / "audit.log")
    end = writer.append(3)[-1]
    first = writer.new_chain("records missing")
    assert check([end.line, first.line], first).before == "ok"
    assert check([end.line, first.line], end).after == "ok"
    asked: list[tuple[str, int]] = []

    def last(chain: str, seq: int) -> list[Known]:
        asked.append((chain, seq))
        return [Known(end.hash, "there")]

    [hit] = find(first.line, first.trace_id)
    assert check_record(hit, last, nothing).before == "ok"
    assert asked == [(end.chain, end.seq)]


def test_a_record_of_an_older_installation() -> None:
    [hit] = find(b'{"trace_id":"old-1","verdict":"safe"}\n', "old-1")
    told = check_record(hit, nothing, nothing)
    assert (told.hash, told.failures, len(told.not_checked)) == ("not_checked", [], 1)
