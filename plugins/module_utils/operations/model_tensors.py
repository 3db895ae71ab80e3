# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Safetensors files, read strictly and by hand: their headers, and every byte of their tensors.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import json
import math
import os
import stat
import typing as t

try:
    import numpy as np
except ImportError:
    HAS_NUMPY = False
else:
    HAS_NUMPY = True

HEADER_LIMIT = 100_000_000  # the reference implementation's own
CHUNK = 8 << 20
DTYPE_BYTES = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E5M2": 1,
    "F8_E4M3": 1,
    "F8_E8M0": 1,
    "U16": 2,
    "I16": 2,
    "F16": 2,
    "BF16": 2,
    "U32": 4,
    "I32": 4,
    "F32": 4,
    "U64": 8,
    "I64": 8,
    "F64": 8,
    "C64": 8,
}
# The type to look at the bits with, the bits without the sign, and the exponent that means NaN or infinity.
_FLOATS = {
    "F16": ("<u2", 0x7FFF, 0x7C00),
    "BF16": ("<u2", 0x7FFF, 0x7F80),
    "F32": ("<u4", 0x7FFFFFFF, 0x7F800000),
    "F64": ("<u8", 0x7FFFFFFFFFFFFFFF, 0x7FF0000000000000),
}


class BadFile(Exception):
    """A file that is not what its format demands; the text says what was expected and found."""


class Tensor(t.NamedTuple):
    """One tensor of a file; ``begin`` and ``end`` count from the file's beginning."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class Contents(t.NamedTuple):
    """What reading a tensor's bytes showed. ``finite`` is None where nobody looked."""

    zero: bool
    zero_stretch: bool
    finite: bool | None


def open_regular(path: str) -> t.BinaryIO:
    """Open a file to read; a pipe or a device in its place is refused, not waited for."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise BadFile("expected a regular file, found something else")
    return os.fdopen(fd, "rb", buffering=0)


def parse_json(data: bytes) -> t.Any:
    """Strict JSON: UTF-8, and no name twice in an object."""

    def once(pairs: list[tuple[str, t.Any]]) -> dict[str, t.Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise BadFile("expected each name once, found one twice")
        return found

    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise BadFile(f"expected JSON, found {error}") from error


def read_header(handle: t.BinaryIO) -> list[Tensor]:
    """The tensors of an open file, in the order of their bytes, which they must cover exactly."""
    size = os.fstat(handle.fileno()).st_size
    if size < 8:
        raise BadFile(f"expected a header, found a file of {size} bytes")
    length = int.from_bytes(_read_exactly(handle, 8), "little")
    if length > min(HEADER_LIMIT, size - 8):
        raise BadFile(f"expected a header of at most {min(HEADER_LIMIT, size - 8)} bytes, found one of {length}")
    raw = _read_exactly(handle, length)
    if not raw.startswith(b"{"):
        raise BadFile("expected a header that begins with {, found another beginning")
    header = parse_json(raw)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise BadFile("expected __metadata__ with texts, found something else")
    data_start = 8 + length
    tensors = sorted(
        (_tensor(name, entry, data_start) for name, entry in header.items()), key=lambda one: (one.begin, one.end)
    )
    position = data_start
    for one in tensors:
        if one.begin != position:
            raise BadFile(f"tensor {one.name}: expected to begin at byte {position}, found {one.begin}")
        position = one.end
    if position != size:
        raise BadFile(f"expected a file of {position} bytes, as its header says, found {size}")
    return tensors


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62


def _tensor(name: str, entry: object, data_start: int) -> Tensor:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise BadFile(f"tensor {name}: expected dtype, shape and data_offsets, found something else")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise BadFile(f"tensor {name}: expected a known dtype, found {dtype!r}")
    if not isinstance(shape, list) or not all(map(_is_size, shape)):
        raise BadFile(f"tensor {name}: expected a list of sizes as shape, found {str(shape)[:80]}")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_size, offsets)):
        raise BadFile(f"tensor {name}: expected two data_offsets, found {str(offsets)[:80]}")
    expected, length = math.prod(shape) * DTYPE_BYTES[dtype], offsets[1] - offsets[0]
    if length != expected:
        raise BadFile(f"tensor {name}: expected {expected} bytes for {dtype} {shape}, found {length} by its offsets")
    return Tensor(name, dtype, tuple(shape), data_start + offsets[0], data_start + offsets[1])


def read_contents(handle: t.BinaryIO, tensor: Tensor) -> Contents:
    """Read every byte of a tensor, in bounded memory."""
    handle.seek(tensor.begin)
    left = tensor.end - tensor.begin
    all_zero, stretch, finite = True, False, _FLOATS.get(tensor.dtype) is not None and HAS_NUMPY
    looked = finite
    buffer = memoryview(bytearray(min(CHUNK, left)))
    while left:
        chunk = buffer[: min(CHUNK, left)]
        _fill(handle, chunk)
        left -= len(chunk)
        if looked:
            bits, without_sign, exponent = _FLOATS[tensor.dtype]
            largest = int((np.frombuffer(chunk, dtype=bits) & np.dtype(bits).type(without_sign)).max())
            zero = largest == 0
            finite = finite and largest < exponent
        else:
            zero = bytes(chunk).count(0) == len(chunk)
        all_zero = all_zero and zero
        stretch = stretch or (zero and len(chunk) == CHUNK)
    return Contents(all_zero and tensor.end > tensor.begin, stretch and not all_zero, finite if looked else None)


def _read_exactly(handle: t.BinaryIO, count: int) -> bytes:
    data = bytearray(count)
    _fill(handle, memoryview(data))
    return bytes(data)


def _fill(handle: t.BinaryIO, into: memoryview) -> None:
    position = 0
    while position < len(into):
        got = t.cast("t.Any", handle).readinto(into[position:])
        if not got:
            raise BadFile("expected more bytes, found the end of a file that became shorter while it was read")
        position += got
