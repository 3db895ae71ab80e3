# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tar headers of entries: PAX, in the form that GNU tar's ``--acls --xattrs`` restores.

Private to the collection: use the modules, not this file.

They are made here and not by Python's tarfile, which takes five times as long (200,000 files are
common among logs) and refuses extended attributes whose names are not UTF-8.
"""

from __future__ import annotations

import os
import struct
import tarfile

from ..services.acl import ACL_ACCESS, ACL_DEFAULT, decode_acl
from .tree import DIRECTORY, FILE, HARDLINK, SYMLINK, Entry

BLOCK = tarfile.BLOCKSIZE
END_OF_ARCHIVE_LENGTH = 2 * BLOCK  # zeros

_TYPE_FLAGS = {FILE: b"0", HARDLINK: b"1", SYMLINK: b"2", DIRECTORY: b"5"}
_EXTENDED = b"x"
# name, mode, uid, gid, size, mtime, checksum, type, link name, magic, user, group, device numbers, prefix
_USTAR = struct.Struct("100s8s8s8s12s12s8s1s100s8s32s32s8s8s155s12x")
_CHECKSUM_AT, _CHECKSUM_LENGTH = 148, 8
_LONGEST_NAME, _LONGEST_OWNER = 100, 31
_MOST_ID, _MOST_SIZE = 8**7, 8**11


def padding_length(length: int) -> int:
    """How many zeros fill the last block after ``length`` bytes of content."""
    return -length % BLOCK


def header(entry: Entry) -> bytes:
    """All bytes that precede the content of ``entry``; for a sparse file with the map of its data."""
    name, target = os.fsencode(entry.path), os.fsencode(entry.target)
    owner, group = entry.owner.encode(), entry.group.encode()
    seconds, fraction = divmod(entry.mtime_ns, 1_000_000_000)
    size = content_length(entry) if entry.type == FILE else 0
    records: list[tuple[bytes, bytes]] = []
    sparse: list[tuple[bytes, bytes]] = []
    sparse_map = b""
    if entry.data is not None:
        # GNU's sparse format 1.0: the map stands before the data, the true name and size in PAX records.
        sparse_map = _sparse_map(entry.data, entry.size)
        size += len(sparse_map)
        sparse = [
            (b"GNU.sparse.major", b"1"),
            (b"GNU.sparse.minor", b"0"),
            (b"GNU.sparse.name", name),
            (b"GNU.sparse.realsize", b"%d" % entry.size),
        ]
        name = os.path.join(os.path.dirname(name), b"GNUSparseFile.0", os.path.basename(name))
    elif entry.type == DIRECTORY:
        name += b"/"
    for keyword, text, longest in (
        (b"path", name, _LONGEST_NAME),
        (b"linkpath", target, _LONGEST_NAME),
        (b"uname", owner, _LONGEST_OWNER),
        (b"gname", group, _LONGEST_OWNER),
    ):
        if len(text) > longest or not text.isascii():
            records.append((keyword, text))
    records += sparse  # after the path: of two names, Python's tarfile takes the last
    for keyword, number, limit in (
        (b"uid", entry.uid, _MOST_ID),
        (b"gid", entry.gid, _MOST_ID),
        (b"size", size, _MOST_SIZE),
    ):
        if number >= limit:
            records.append((keyword, b"%d" % number))
    if fraction or not 0 <= seconds < _MOST_SIZE:
        records.append((b"mtime", _decimal_seconds(entry.mtime_ns)))
    for xattr, value in sorted(entry.xattrs.items()):
        records.append(_xattr_record(xattr, value))
    main = _ustar(name, _TYPE_FLAGS[entry.type], size, seconds, entry.mode, entry.uid, entry.gid, target, owner, group)
    return _extended_header(records) + main + sparse_map


def content_length(entry: Entry) -> int:
    """How many bytes of the file's own content stand in the stream (holes do not)."""
    return sum(length for _offset, length in entry.ranges())


def _xattr_record(name: str, value: bytes) -> tuple[bytes, bytes]:
    if name == ACL_ACCESS:
        return b"SCHILY.acl.access", decode_acl(value).encode()
    if name == ACL_DEFAULT:
        return b"SCHILY.acl.default", decode_acl(value).encode()
    # A keyword ends at the first "=", so GNU tar writes and expects these two in this form.
    return b"SCHILY.xattr." + os.fsencode(name).replace(b"%", b"%25").replace(b"=", b"%3D"), value


def _extended_header(records: list[tuple[bytes, bytes]]) -> bytes:
    if not records:
        return b""
    if not all(_is_utf8(keyword) and _is_utf8(value) for keyword, value in records):
        # Readers that would convert, or refuse, what is no text leave these bytes alone.
        records = [(b"hdrcharset", b"BINARY"), *records]
    body = b"".join(_record(keyword, value) for keyword, value in records)
    return _ustar(b"././@PaxHeader", _EXTENDED, len(body), 0) + body + bytes(padding_length(len(body)))


def _record(keyword: bytes, value: bytes) -> bytes:
    """``LENGTH KEYWORD=VALUE``, where the length counts its own digits."""
    rest = len(keyword) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, keyword, value)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _ustar(
    name: bytes, flag: bytes, size: int, seconds: int, mode: int = 0o644, uid: int = 0, gid: int = 0,
    target: bytes = b"", owner: bytes = b"", group: bytes = b"",
) -> bytes:  # fmt: skip
    """One block. What does not fit is cut or 0 here, and stands whole in a PAX record before it."""
    block = _USTAR.pack(
        name, b"%07o" % mode, _octal(uid, 7), _octal(gid, 7), _octal(size, 11), _octal(seconds, 11),
        b" " * _CHECKSUM_LENGTH, flag, target, b"ustar\x0000", owner[:_LONGEST_OWNER], group[:_LONGEST_OWNER],
        b"%07o" % 0, b"%07o" % 0, b"",
    )  # fmt: skip
    checksum = b"%06o\0 " % sum(block)
    return block[:_CHECKSUM_AT] + checksum + block[_CHECKSUM_AT + _CHECKSUM_LENGTH :]


def _octal(number: int, digits: int) -> bytes:
    return b"%0*o" % (digits, number if 0 <= number < 8**digits else 0)


def _sparse_map(data: list[tuple[int, int]], size: int) -> bytes:
    end = max((offset + length for offset, length in data), default=0)
    # tar makes the file as long as the last entry says: a hole at the end needs one of no bytes.
    pairs = data if end == size else [*data, (size, 0)]
    numbers = [len(pairs)] + [number for pair in pairs for number in pair]
    text = b"".join(b"%d\n" % number for number in numbers)
    return text + bytes(padding_length(len(text)))


def _decimal_seconds(nanoseconds: int) -> bytes:
    sign = b"-" if nanoseconds < 0 else b""
    seconds, fraction = divmod(abs(nanoseconds), 1_000_000_000)
    return b"%b%d.%09d" % (sign, seconds, fraction)
