# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ACLs, extended attributes and file capabilities, written straight as the kernel's xattrs.

setfacl and setcap may be absent, and this code must share nothing with the collection that it tests.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path

ACCESS_ACL = "system.posix_acl_access"
DEFAULT_ACL = "system.posix_acl_default"
CAPABILITY = "security.capability"

_ACL_VERSION = 2
_NO_ID = 0xFFFFFFFF
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_TAG_NAMES = {_USER_OBJ: "user", _USER: "user", _GROUP_OBJ: "group", _GROUP: "group", _MASK: "mask", _OTHER: "other"}

_CAP_REVISION_2 = 0x02000000
_CAP_EFFECTIVE = 0x000001
_CAP_NET_BIND_SERVICE = 10


def acl_for_user(mode: int, uid: int, may: int) -> bytes:
    """The ACL that gives what ``mode`` gives, and ``may`` (0 to 7) to one user more."""
    owner, group, other = mode >> 6 & 7, mode >> 3 & 7, mode & 7
    entries = [
        (_USER_OBJ, owner, _NO_ID),
        (_USER, may, uid),
        (_GROUP_OBJ, group, _NO_ID),
        (_MASK, group | may, _NO_ID),
        (_OTHER, other, _NO_ID),
    ]
    return struct.pack("<I", _ACL_VERSION) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def acl_text(value: bytes) -> str:
    """An ACL's bytes in getfacl's short form, with numeric ids."""
    words = []
    for tag, may, identity in struct.iter_unpack("<HHI", value[4:]):
        letters = "".join(letter if may & bit else "-" for letter, bit in (("r", 4), ("w", 2), ("x", 1)))
        name = _TAG_NAMES.get(tag, f"tag {tag}")
        words.append(f"{name}:{identity if identity != _NO_ID else ''}:{letters}")
    return ",".join(words)


def allow_user(path: Path, uid: int, may: int) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    os.setxattr(path, ACCESS_ACL, acl_for_user(mode, uid, may))


def allow_user_by_default(directory: Path, uid: int, may: int) -> None:
    """What is made in the directory from now on has this ACL."""
    mode = stat.S_IMODE(directory.stat().st_mode)
    os.setxattr(directory, DEFAULT_ACL, acl_for_user(mode, uid, may))


def let_bind_low_ports(path: Path) -> None:
    """``setcap cap_net_bind_service=ep``: only root may."""
    value = struct.pack("<IIIII", _CAP_REVISION_2 | _CAP_EFFECTIVE, 1 << _CAP_NET_BIND_SERVICE, 0, 0, 0)
    os.setxattr(path, CAPABILITY, value)


def why_unsupported(probe: Path, uid: int) -> dict[str, str | None]:
    """Try each kind on a file of ours: ``acls``, ``xattrs`` and ``capabilities``, and why not."""
    attempts: dict[str, Callable[[], None]] = {
        "acls": lambda: os.setxattr(probe, ACCESS_ACL, acl_for_user(0o640, uid, 4)),
        "xattrs": lambda: os.setxattr(probe, "user.probe", b"1"),
        "capabilities": lambda: let_bind_low_ports(probe),
    }
    reasons: dict[str, str | None] = {}
    for kind, attempt in attempts.items():
        try:
            attempt()
        except OSError as error:
            reasons[kind] = error.strerror
        else:
            reasons[kind] = None
    return reasons
