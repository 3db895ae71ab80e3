# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tar headers of entries: PAX, in the form that GNU tar's ``--acls --xattrs`` restores.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import tarfile

from ..services.acl import ACL_ACCESS, ACL_DEFAULT, decode_acl
from .tree import DIRECTORY, FILE, HARDLINK, SYMLINK, Entry

BLOCK = tarfile.BLOCKSIZE
END_OF_ARCHIVE = bytes(2 * BLOCK)

_TYPE_FLAGS = {
    FILE: tarfile.REGTYPE,
    DIRECTORY: tarfile.DIRTYPE,
    SYMLINK: tarfile.SYMTYPE,
    HARDLINK: tarfile.LNKTYPE,
}


def padding(length: int) -> bytes:
    """What fills the last block after ``length`` bytes of content."""
    return bytes(-length % BLOCK)


def header(entry: Entry) -> bytes:
    """All bytes that precede the content of ``entry``; for a sparse file with the map of its data."""
    info = tarfile.TarInfo(entry.path)
    info.type = _TYPE_FLAGS[entry.type]
    info.mode, info.uid, info.gid = entry.mode, entry.uid, entry.gid
    info.uname, info.gname = entry.owner, entry.group
    info.mtime = entry.mtime_ns // 1_000_000_000
    info.linkname = entry.target
    pax = {}
    if entry.mtime_ns % 1_000_000_000 or entry.mtime_ns < 0:
        pax["mtime"] = _decimal_seconds(entry.mtime_ns)
    for name, value in sorted(entry.xattrs.items()):
        if name == ACL_ACCESS:
            pax["SCHILY.acl.access"] = decode_acl(value)
        elif name == ACL_DEFAULT:
            pax["SCHILY.acl.default"] = decode_acl(value)
        else:
            pax[f"SCHILY.xattr.{name}"] = value.decode("utf-8", "surrogateescape")
    sparse_map = b""
    if entry.data is not None:
        # GNU's sparse format 1.0: the map stands before the data, the true name and size in PAX records.
        sparse_map = _sparse_map(entry.data)
        directory, _slash, name = entry.path.rpartition("/")
        info.name = f"{directory}/GNUSparseFile.0/{name}" if directory else f"GNUSparseFile.0/{name}"
        pax["GNU.sparse.major"], pax["GNU.sparse.minor"] = "1", "0"
        pax["GNU.sparse.name"], pax["GNU.sparse.realsize"] = entry.path, str(entry.size)
    if entry.type == FILE:
        info.size = content_length(entry) + len(sparse_map)
    info.pax_headers = pax
    return info.tobuf(tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape") + sparse_map


def content_length(entry: Entry) -> int:
    """How many bytes of the file's own content stand in the stream (holes do not)."""
    return sum(length for _offset, length in entry.ranges())


def _sparse_map(data: list[tuple[int, int]]) -> bytes:
    numbers = [len(data)] + [number for pair in data for number in pair]
    text = "".join(f"{number}\n" for number in numbers).encode()
    return text + padding(len(text))


def _decimal_seconds(nanoseconds: int) -> str:
    sign = "-" if nanoseconds < 0 else ""
    return f"{sign}{abs(nanoseconds) // 1_000_000_000}.{abs(nanoseconds) % 1_000_000_000:09d}"
