# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""POSIX ACLs as the kernel keeps them and as people and tar write them; reading extended attributes.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import errno
import os
import re
import struct
import typing as t

from ..errors import GuardError

ACL_ACCESS = "system.posix_acl_access"
ACL_DEFAULT = "system.posix_acl_default"
CAPABILITY = "security.capability"

_VERSION = 2
_HEADER = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")
_NO_ID = 0xFFFFFFFF

# The numbers that the kernel gives to the kinds of entries, in the order in which it demands them.
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_WORDS = {_USER_OBJ: "user", _USER: "user", _GROUP_OBJ: "group", _GROUP: "group", _MASK: "mask", _OTHER: "other"}
_UNNAMED = {"user": _USER_OBJ, "group": _GROUP_OBJ, "mask": _MASK, "other": _OTHER}
_NAMED = {"user": _USER, "group": _GROUP}
_PERMISSIONS = ("---", "--x", "-w-", "-wx", "r--", "r-x", "rw-", "rwx")
_TEXT_ENTRY = re.compile(r"(user|group|mask|other):((?:0|[1-9][0-9]{0,9})?):([r-][w-][x-])")


class Entry(t.NamedTuple):
    """One line of an ACL. ``qualifier`` is the numeric id of a named user or group, else -1."""

    tag: int
    qualifier: int
    permission: int

    def __str__(self) -> str:
        name = "" if self.qualifier < 0 else str(self.qualifier)
        return f"{_WORDS[self.tag]}:{name}:{_PERMISSIONS[self.permission]}"


def decode_acl(raw: bytes) -> str:
    """The value of an ACL's xattr as short text with numeric ids, in the order of getfacl."""
    return ",".join(map(str, parse_raw(raw)))


def encode_acl(text: str) -> bytes:
    """The value of an ACL's xattr from its short text with numeric ids; the reverse of ``decode_acl``."""
    parsed = []
    for part in text.split(","):
        match = _TEXT_ENTRY.fullmatch(part)
        if not match:
            raise _nonsense(text, f"{part!r}")
        word, qualifier, permission = match.groups()
        tag = (_NAMED if qualifier else _UNNAMED).get(word)
        if tag is None or (qualifier and int(qualifier) >= _NO_ID):
            raise _nonsense(text, f"{part!r}")
        parsed.append(Entry(tag, int(qualifier) if qualifier else -1, _PERMISSIONS.index(permission)))
    return _HEADER.pack(_VERSION) + b"".join(
        _ENTRY.pack(entry.tag, entry.permission, _NO_ID if entry.qualifier < 0 else entry.qualifier)
        for entry in _checked(parsed, text)
    )


def parse_raw(raw: bytes) -> list[Entry]:
    """The entries in an ACL's xattr, sorted like getfacl's."""
    size = len(raw) - _HEADER.size
    if size < 0 or size % _ENTRY.size or _HEADER.unpack_from(raw)[0] != _VERSION:
        raise _nonsense(raw.hex(), "another length or version")
    parsed = []
    body = raw[-size:] if size else b""
    for tag, permission, qualifier in _ENTRY.iter_unpack(body):
        named = tag in (_USER, _GROUP)
        if tag not in _WORDS or permission > 7 or (named and qualifier == _NO_ID):
            raise _nonsense(raw.hex(), f"an entry with tag {tag}, permission {permission}, id {qualifier}")
        parsed.append(Entry(tag, qualifier if named else -1, permission))
    return _checked(parsed, raw.hex())


def read_xattrs(target: str | bytes | int, follow_symlinks: bool = False) -> dict[str, bytes]:
    """All extended attributes of a path or an open file, ACLs included; none where the file system has none.

    What cannot be read is an error: a missing attribute would pass for one that was never there.
    """
    if isinstance(target, int):
        follow_symlinks = True  # Python refuses the other for a descriptor, which has nothing to follow
    try:
        names = os.listxattr(target, follow_symlinks=follow_symlinks)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return {}
        raise
    return read_values(target, names, follow_symlinks)


def read_values(target: str | bytes | int, names: t.Iterable[str], follow_symlinks: bool = False) -> dict[str, bytes]:
    """The values of these extended attributes, less those that are gone since they were listed."""
    found = {}
    for name in names:
        try:
            found[name] = os.getxattr(target, name, follow_symlinks=follow_symlinks)
        except OSError as error:
            if error.errno != errno.ENODATA:
                raise
    return found


def read_acls(path: str) -> dict[str, bytes]:
    """The ACLs of a file or directory, as the kernel keeps them, by the names of their extended attributes."""
    return {name: raw for name, raw in read_xattrs(path).items() if name in (ACL_ACCESS, ACL_DEFAULT)}


def replace_acls(path: str, wanted: t.Mapping[str, bytes]) -> None:
    """Give a file or directory these ACLs, and take others from it."""
    there = read_acls(path)
    for name, raw in wanted.items():
        os.setxattr(path, name, raw)
    for name in there.keys() - wanted.keys():
        os.removexattr(path, name)


def _checked(parsed: list[Entry], shown: str) -> list[Entry]:
    """The entries in order, if together they are an ACL that the kernel takes."""
    tags = [entry.tag for entry in parsed]
    for required in (_USER_OBJ, _GROUP_OBJ, _OTHER):
        if required not in tags:
            raise _nonsense(shown, f"no {_WORDS[required]}:: entry")
    if _MASK not in tags and (_USER in tags or _GROUP in tags):
        raise _nonsense(shown, "named entries without a mask")
    if len({(entry.tag, entry.qualifier) for entry in parsed}) != len(parsed):
        raise _nonsense(shown, "an entry twice")
    return sorted(parsed)


def _nonsense(shown: str, found: str) -> GuardError:
    return GuardError(f"ACL {shown[:200]}", "a valid POSIX ACL with numeric ids", found)
