# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The line that the gateway writes is the line that the collection reads."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.guardops.qwen3guard.plugins.module_utils.format import records
from qwen3guard_gateway.record import NO_HASH, Head, encode_fields, is_chained, is_model, make_line, read_head

NOW = 1_795_424_583_123_456_789  # 2026-11-23T09:03:03.123456Z
texts = st.text(st.characters(exclude_categories=()), max_size=60)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(texts.filter(lambda name: name not in ("chain", "seq", "prev", "time", "trace_id", "hash")), values)
)
def test_the_collection_reads_every_record_back(fields: dict[str, object]) -> None:
    line = make_line("0123456789abcdef", 7, NO_HASH, NOW, "8b", encode_fields(fields))
    parsed = records.parse_line(line.data)
    assert parsed is not None
    assert parsed == ("0123456789abcdef", 7, NO_HASH, "2026-11-23T09:03:03.123456Z", line.trace_id, line.hash)
    assert records.is_intact(line.data)
    content = json.loads(line.data)
    assert list(content)[:6] == ["chain", "seq", "prev", "time", "trace_id", "event"]
    assert list(content)[-1] == "hash"
    assert {name: content[name] for name in fields} == fields
    assert read_head(line.data) == (Head(parsed.chain, 7, line.hash), parsed.time)


def test_the_hash_is_of_the_bytes_before_it() -> None:
    line = make_line("0" * 16, 1, NO_HASH, NOW, "8b", encode_fields({"text": "你好"}))
    assert hashlib.sha256(line.data[: line.data.index(b',"hash":')]).hexdigest() == line.hash
    assert "你好".encode() in line.data


def test_watermark_names_day_and_model() -> None:
    lines = [make_line("0" * 16, 1, NO_HASH, NOW, "0.6b", encode_fields({})) for _number in range(2)]
    assert all(line.trace_id.startswith("qwg-20261123-0.6b-") for line in lines)
    assert len({line.trace_id for line in lines}) == 2
    assert records.day_of(lines[0].trace_id) == "20261123"


@pytest.mark.parametrize("fields", [{"seq": 1}, {"hash": ""}, {"n": float("nan")}, {"n": float("inf")}])
def test_fields_that_cannot_be_written(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        encode_fields(fields)


@pytest.mark.parametrize(("name", "fits"), [("8b", True), ("0.6b", True), ("", False), ("8-b", False), ("8b\n", False)])
def test_models_short_name(name: str, fits: bool) -> None:
    assert is_model(name) is fits


def test_every_changed_byte_is_seen() -> None:
    line = make_line("0123456789abcdef", 1, NO_HASH, NOW, "8b", encode_fields({"text": "abc"})).data
    for position in range(len(line)):
        changed = line[:position] + bytes([line[position] ^ 1]) + line[position + 1 :]
        found = read_head(changed)
        assert found is None, (position, changed)
    assert all(is_chained(line[:length]) for length in range(1, len(line)))
    assert not is_chained(b"")
    assert not is_chained(b'{"time":')
