# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Safetensors files: headers that are refused, and numbers that nobody trained."""

from __future__ import annotations

import json
import math
import random
import struct

import pytest

from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import model_tensors
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.model_check import check_model
from support.model_files import DOWN, change_tensor, copy_model, failures


@pytest.fixture
def model(tmp_path):
    return copy_model(tmp_path)


def header_of(**changes):
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}
    return {"a": {key: value for key, value in entry.items() if value is not None}}


def raw_file(header, data=b"\1" * 8, length=None):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected a header, found a file of 0 bytes"),
        (b"\1\0\0", "expected a header, found a file of 3 bytes"),
        (raw_file({}, b"", 1 << 63), "found one of 9223372036854775808"),
        (raw_file(header_of(), length=10_000), "expected a header of at most"),
        (raw_file(b"[]", b""), "expected a header that begins with {"),
        (raw_file(b"{\xff", b""), "expected JSON"),
        (raw_file(b'{"a":' * 100_000, b""), "expected JSON"),
        (raw_file(b'{"a":1,"a":2}', b""), "expected each name once"),
        (raw_file({"__metadata__": {"a": 1}}, b""), "expected __metadata__ with texts"),
        (raw_file({"a": 1}), "expected dtype, shape and data_offsets"),
        (raw_file(header_of(dtype=None)), "expected dtype, shape and data_offsets"),
        (raw_file(header_of(more=1)), "expected dtype, shape and data_offsets"),
        (raw_file(header_of(dtype="F31")), "expected a known dtype, found 'F31'"),
        (raw_file(header_of(dtype=[])), "expected a known dtype"),
        (raw_file(header_of(dtype="BF16")), "expected 4 bytes for BF16"),
        (raw_file(header_of(shape=[-2])), "expected a list of sizes"),
        (raw_file(header_of(shape=[True, 2])), "expected a list of sizes"),
        (raw_file(header_of(shape=[1 << 61, 1 << 61])), "by its offsets"),
        (raw_file(header_of(data_offsets=[0])), "expected two data_offsets"),
        (raw_file(header_of(data_offsets=[8, 0])), "found -8 by its offsets"),
        (raw_file(header_of(data_offsets=[4, 12]), b"\1" * 12), "expected to begin at byte"),
        (raw_file({**header_of(), "b": header_of()["a"]}), "tensor b: expected to begin at byte"),
        (raw_file(header_of(), b"\1" * 9), "as its header says"),
    ],
)
def test_headers_that_are_refused(tmp_path, content, message):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(model_tensors.BadFile) as caught, model_tensors.open_regular(str(tmp_path / "x")) as handle:
        model_tensors.read_header(handle)
    assert message in str(caught.value)


def test_a_huge_header_length_in_a_model(model):
    raw = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(b"\xff" * 8 + raw[8:])
    assert any("found one of 18446744073709551615" in text for text in failures(model))


def bits(dtype, value):
    return {
        "F32": struct.pack("<f", value),
        "F16": struct.pack("<e", value),
        "BF16": struct.pack("<f", value)[2:],
        "F64": struct.pack("<d", value),
    }[dtype]


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16", "F64"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_in_one_number(model, dtype, value):
    def poison(old):
        one = bits(dtype, 0.5)
        numbers = [bits(dtype, random.uniform(-1, 1)) for _place in range(len(old) // 4)]
        assert len(one) == len(numbers[0])
        numbers[random.randrange(len(numbers))] = bits(dtype, value)
        return b"".join(numbers)

    change_tensor(model, DOWN, dtype=dtype, data=poison)
    assert failures(model) == [f"tensor {DOWN}: expected finite numbers, found NaN or infinity"]


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16", "F64"])
def test_the_largest_finite_number_is_fine(model, dtype):
    top = {"F32": b"\xff\xff\x7f\x7f", "F16": b"\xff\x7b", "BF16": b"\x7f\x7f", "F64": b"\xff" * 6 + b"\xef\xff"}
    change_tensor(model, DOWN, dtype=dtype, data=lambda old: top[dtype] * (len(old) // 4))
    assert failures(model) == []


@pytest.mark.parametrize("filling", [b"\0\0\0\0", b"\0\0\0\x80"], ids=["zero", "minus zero"])
def test_all_zero_tensor(model, filling):
    change_tensor(model, DOWN, data=lambda old: filling * (len(old) // 4))
    assert failures(model) == [f"tensor {DOWN}: expected trained numbers, found zeros only"]


def test_a_hole_in_a_tensor_is_a_warning(model, monkeypatch):
    monkeypatch.setattr(model_tensors, "CHUNK", 4096)
    change_tensor(model, DOWN, data=lambda old: old[:8192] + bytes(4096) + old[12288:])
    verdict = check_model(str(model), use_transformers=False)
    assert verdict["ok"]
    assert verdict["warnings"] == [f"tensor {DOWN}: 8 MiB or more of zeros in a row"]
