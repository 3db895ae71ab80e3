# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The text of ``getfacl -R -n``, which ``setfacl --restore`` reads: one block for each file of a tree.

A block is kept as the text below its ``# file:`` line. Most files of a tree share a few blocks, so that a tree
is compared by comparing strings; only blocks that differ are taken apart.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import os
import re
import typing as t

from ..errors import GuardError, IntegrityError
from ..services.acl import encode_acl, parse_raw

_FILE = "# file: "
_DEFAULT = "default:"
_FLAGS = ((0o4000, "s"), (0o2000, "s"), (0o1000, "t"))
_BITS = {"---": 0, "--x": 1, "-w-": 2, "-wx": 3, "r--": 4, "r-x": 5, "rw-": 6, "rwx": 7}
_WORDS = tuple(sorted(_BITS, key=lambda word: _BITS[word]))
_SYMLINK = "# symlink\n"

# getfacl escapes just these three. setfacl skips white space before a name, so there it is escaped here as well.
_ESCAPED = {"\\": "\\\\", "\n": "\\012", "\r": "\\015"}
_TO_ESCAPE = re.compile(r"[\\\n\r]|^[ \t]")
_ESCAPE = re.compile(r"\\(\\|[0-7]{3})")
_BLOCK = re.compile(
    r"# owner: (?P<owner>[0-9]+)\n# group: (?P<group>[0-9]+)\n(?:# flags: (?P<flags>[s-][s-][t-])\n)?"
    r"(?P<entries>(?:(?:default:)?(?:user|group|mask|other):[0-9]*:[r-][w-][x-](?:[ \t]*#effective:[r-][w-][x-])?\n)+)"
)


class Attributes(t.NamedTuple):
    """What a block says. An ACL is its short text, empty where the mode says all; a symlink has only its owner."""

    symlink: bool
    owner: int
    group: int
    mode: int = 0
    acl: str = ""
    default_acl: str = ""


def escape_name(name: str) -> str:
    """A path as it stands after ``# file:``."""
    if not _TO_ESCAPE.search(name):
        return name
    return _TO_ESCAPE.sub(lambda match: _ESCAPED.get(match[0], f"\\{ord(match[0]):03o}"), name)


def unescape_name(text: str) -> str:
    """The path that ``text`` after ``# file:`` stands for."""
    if "\\" not in text:
        return text
    return _ESCAPE.sub(lambda match: "\\" if match[1] == "\\" else chr(int(match[1], 8)), text)


def printable(name: str) -> str:
    """A path for people and JSON: as in the text, with octal numbers for what is not UTF-8 or not printable."""
    return "".join(
        char if char.isprintable() else "".join(f"\\{octet:03o}" for octet in os.fsencode(char))
        for char in name.replace("\\", "\\\\")
    )


def file_block(mode: int, owner: int, group: int, access: bytes | None, default: bytes | None) -> str:
    """The block of anything but a symlink, from its status and the raw values of its ACLs."""
    lines = [f"# owner: {owner}", f"# group: {group}"]
    if mode & 0o7000:
        lines.append("# flags: " + "".join(letter if mode & bit else "-" for bit, letter in _FLAGS))
    if access is None:
        lines += [f"{word}::{_WORDS[mode >> shift & 7]}" for word, shift in (("user", 6), ("group", 3), ("other", 0))]
    else:
        lines += _acl_lines(access)
    if default is not None:
        lines += [_DEFAULT + line for line in _acl_lines(default)]
    return "\n".join(lines) + "\n"


def symlink_block(owner: int, group: int) -> str:
    """The block of a symlink, which getfacl leaves out: it is kept beside the text."""
    return f"{_SYMLINK}# owner: {owner}\n# group: {group}\n"


def parse_block(block: str) -> Attributes:
    """What a block says; a block that nobody could have written here is an error."""
    symlink = block.startswith(_SYMLINK)
    # A symlink's block gets the entries that it lacks, so that one pattern reads both.
    match = _BLOCK.fullmatch(block[len(_SYMLINK) :] + "other::---\n" if symlink else block)
    if not match:
        raise _unreadable(block)
    owner, group = int(match["owner"]), int(match["group"])
    if symlink:
        return Attributes(True, owner, group)
    lines = [line.split("#")[0].rstrip() for line in match["entries"].splitlines()]
    access = [line for line in lines if not line.startswith(_DEFAULT)]
    bits = {line.rpartition(":")[0]: _BITS[line.rpartition(":")[2]] for line in access}
    if not {"user:", "group:", "other:"} <= set(bits):
        raise _unreadable(block)
    mode = bits["user:"] << 6 | bits.get("mask:", bits["group:"]) << 3 | bits["other:"]
    for (bit, letter), shown in zip(_FLAGS, match["flags"] or ""):
        mode |= bit if shown == letter else 0
    acl = ",".join(access) if len(access) > 3 else ""
    default_acl = ",".join(line[len(_DEFAULT) :] for line in lines if line.startswith(_DEFAULT))
    for text in filter(None, (acl, default_acl)):
        encode_acl(text)  # raises on nonsense, before anything is restored from it
    return Attributes(False, owner, group, mode, acl, default_acl)


def render_text(directory: str, blocks: t.Mapping[str, str]) -> str:
    """The text of some entries of one directory; ``directory`` is empty or ends with a slash."""
    head = _FILE + escape_name(directory)
    # One look at all names together spares a look at each: hardly any directory has such a name.
    if _TO_ESCAPE.search("\0".join(blocks)) or (not directory and any(name[0] in " \t" for name in blocks)):
        names = {name: escape_name(directory + name)[len(head) - len(_FILE) :] for name in blocks}
        return "".join([f"{head}{names[name]}\n{block}\n" for name, block in blocks.items()])
    return "".join([f"{head}{name}\n{block}\n" for name, block in blocks.items()])


def parse_text(text: bytes) -> dict[str, str]:
    """Each path in the text with its block."""
    found: dict[str, str] = {}
    for chunk in os.fsdecode(text).split("\n\n"):
        if not chunk.strip("\n"):
            continue
        first, newline, block = chunk.lstrip("\n").partition("\n")
        path = unescape_name(first[len(_FILE) :])
        if not first.startswith(_FILE) or not newline or path in found:
            raise _unreadable(chunk)
        found[path] = block.rstrip("\n") + "\n"
    return found


def _acl_lines(raw: bytes) -> list[str]:
    """An ACL with getfacl's remark where the mask takes something away from an entry."""
    entries = parse_raw(raw)
    mask = next((entry.permission for entry in entries if str(entry).startswith("mask:")), 7)
    lines = []
    for entry in entries:
        line = str(entry)
        masked = line.startswith("group:") or (line.startswith("user:") and entry.qualifier >= 0)
        if masked and entry.permission & ~mask:
            line += f"\t#effective:{_WORDS[entry.permission & mask]}"
        lines.append(line)
    return lines


def _unreadable(found: str) -> GuardError:
    return IntegrityError("ACL snapshot", "blocks as getfacl -R -n writes them", repr(found[:200]))
