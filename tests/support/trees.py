# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Directory trees with all that a file system allows, for hypothesis, and one that has everything.

A tree is described first and built then, so that hypothesis can shrink the description. What an
ordinary user may not make (owners, capabilities, devices) is left out where the tests do not run as root.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import stat
import typing as t
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import strategies as st
from sample_instance import permissions

ROOT = os.geteuid() == 0
SPECIAL = ("fifo", "socket", "device")

_NAMES = (
    b"plain.json", b" leading and trailing ", b"-rf", b"--checkpoint=1", b"new\nline", b"tab\tstop", b"quo'te\"s",
    b"back\\slash", b"$(id)", b"*", b"\xff\xfe", b"caf\xe9", "审计.log".encode(), b"%3D=%", b"\x01\x7f", b"..x", b"#",
    b"y" * 255, "语".encode() * 85, b"GNUSparseFile.0", b"x.gpg",
)  # fmt: skip
_XATTR_NAMES = ("user.note", "user.a=b", "user.100%", "user.line\nbreak", "user.caf\udce9", "user.标签")
_XATTR_VALUES = (
    b"", b"text", b"\x00", b"a\x00b\nc=d\n", b"\xff\xfe\x00", "值".encode(), b"17 fake=record\n", b"z" * 700,
)  # fmt: skip
_TIMES = (
    0, 1, -1, -1_500_000_000, 999_999_999, 1_700_000_000_123_456_789, -2_000_000_000_000_000_001,
    4_294_967_296_000_000_007, 9_000_000_000_500_000_000,
)  # fmt: skip
_BLOCK = 4096


@dataclass
class Node:
    """One name to be made."""

    directory: int  # which of the directories before it (0: the root) holds it
    name: bytes
    kind: str  # file, sparse, directory, symlink, hardlink, fifo, socket, device
    mode: int = 0o644
    mtime_ns: int = 0
    content: bytes = b""
    runs: tuple[tuple[int, int], ...] = ()  # of a sparse file: (block, blocks) of data
    blocks: int = 0  # its size
    target: bytes = b""  # of a symlink
    link_to: int = 0  # of a hard link: which of the files before it
    owner: tuple[int, int] = (0, 0)
    acl: tuple[int, int] | None = None  # (uid, permissions)
    default_acl: tuple[int, int] | None = None
    xattrs: dict[str, bytes] = field(default_factory=dict)
    capability: bool = False


def names() -> st.SearchStrategy[bytes]:
    """One component: nasty ones, and any bytes."""
    any_bytes = st.binary(min_size=1, max_size=24).map(lambda b: b.replace(b"/", b"_").replace(b"\0", b"_"))
    return st.one_of(st.sampled_from(_NAMES), any_bytes).filter(lambda name: name not in (b".", b".."))


def _noise(size: int) -> bytes:
    """The same for the same size, so that hypothesis can repeat what it found."""
    return random.Random(size).randbytes(size)


def _acls() -> st.SearchStrategy[tuple[int, int] | None]:
    return st.none() | st.tuples(st.sampled_from((1000, 2**31)), st.integers(0, 7))


def _attributes(kind: str) -> dict[str, st.SearchStrategy[t.Any]]:
    """What every kind of name may have beside its content."""
    directory = kind == "directory"
    # Who is not root must be able to read what is backed up.
    mode = st.integers(0, 0o7777) | st.sampled_from((0, 0o500, 0o4755, 0o2755, 0o1777))
    least = 0 if ROOT else 0o700 if directory else 0o400
    ids = st.sampled_from((0, 1000, 65534, 2_097_152, 4_000_000_000)) if ROOT else st.just(os.geteuid())
    return {
        "directory": st.integers(0, 5),
        "name": names(),
        "kind": st.just(kind),
        "mode": mode.map(lambda bits: bits | least),
        "mtime_ns": st.sampled_from(_TIMES) | st.integers(-(2**31) * 10**9, 2**33 * 10**9),
        "owner": st.tuples(ids, ids if ROOT else st.just(os.getegid())),
        "xattrs": st.dictionaries(st.sampled_from(_XATTR_NAMES), st.sampled_from(_XATTR_VALUES), max_size=2),
        "acl": _acls(),
        "default_acl": _acls() if directory else st.none(),
        "capability": st.booleans() if ROOT and kind == "file" else st.just(False),
    }


def nodes() -> st.SearchStrategy[Node]:
    """One name of any kind."""
    content = st.binary(max_size=300) | st.integers(0, 40_000).map(lambda size: bytes(i % 251 for i in range(size)))
    noise = st.integers(4096, 40_000).map(_noise)  # what zstd cannot make smaller goes into parts of another kind
    runs = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 3)), max_size=3).map(tuple)
    targets = st.one_of(
        names(), st.sampled_from((b"/etc/passwd", b"../../outside", b".", b"dangling", b"t" * 3000, b"/", b"a\nb"))
    )
    plain = {"directory": st.integers(0, 5), "name": names()}
    return st.one_of(
        st.builds(Node, **_attributes("file"), content=content | noise),
        st.builds(Node, **_attributes("sparse"), runs=runs, blocks=st.integers(1, 64)),
        st.builds(Node, **_attributes("directory")),
        st.builds(Node, **{**_attributes("symlink"), "xattrs": st.just({}), "acl": st.none()}, target=targets),
        st.builds(Node, **plain, kind=st.just("hardlink"), link_to=st.integers(0, 5)),
        st.builds(Node, **plain, kind=st.sampled_from(SPECIAL if ROOT else SPECIAL[:2])),
    )


def trees() -> st.SearchStrategy[list[Node]]:
    """A tree with at least one file that has a byte: an empty one is not backed up."""
    first = Node(0, b"first", "file", 0o644, 1, b"a byte")
    deep = st.booleans().map(lambda yes: deep_nodes() if yes else [])
    return st.tuples(st.lists(nodes(), max_size=12), deep).map(lambda parts: [first, *parts[0], *parts[1]])


def deep_nodes() -> list[Node]:
    """A file with a name of near 4,000 bytes."""
    chain = [Node(-1, b"d%d" % level + b"-" * 248, "directory", 0o755, level) for level in range(15)]
    return [*chain, Node(-1, b"deep" + b"e" * 120, "file", 0o600, 1, b"at the bottom")]


def everything() -> list[Node]:
    """A tree in which nothing is left to chance: each nasty name, and each attribute."""
    made = [Node(0, b"d", "directory", 0o2775, 5, default_acl=(1000, 7))]
    made += [Node(0, name, "file", 0o640, when, name) for name, when in zip(_NAMES, _TIMES * 3)]
    made += [Node(1, b"s" + name, "symlink", 0o777, 7, target=name) for name in _NAMES if len(name) < 200]
    made += [
        Node(0, b"attributes", "file", 0o4755, 1, b"#!", xattrs=dict(zip(_XATTR_NAMES, _XATTR_VALUES)), acl=(1000, 6)),
        Node(0, b"more values", "file", 0o600, 1, xattrs=dict(zip(_XATTR_NAMES, reversed(_XATTR_VALUES)))),
        Node(0, b"capable", "file", 0o755, 1, b"\x7fELF", capability=ROOT),
        Node(0, b"locked", "directory", 0o500 if not ROOT else 0, 2, xattrs={"user.note": b"\0"}),
        Node(2, b"inside", "file", 0o400, 3, b"x" * 10_000),
        Node(2, b"empty", "directory", 0o1777, 4, default_acl=(1000, 5)),
        Node(0, b"empty file", "file", 0o644, 4),
        Node(0, b"leading hole", "sparse", 0o644, 4, runs=((30, 2),), blocks=32),
        Node(0, b"trailing hole", "sparse", 0o644, 4, runs=((0, 1), (8, 1)), blocks=40),
        Node(1, b"only a hole", "sparse", 0o644, 4, blocks=40),
        Node(0, b"noise", "file", 0o644, 4, _noise(50_000)),
        Node(0, b"hard", "hardlink", link_to=0),
        Node(1, b"hard in another directory", "hardlink", link_to=0),
        Node(1, b"hole again", "hardlink", link_to=-1),
        *(Node(1, kind.encode(), kind) for kind in (SPECIAL if ROOT else SPECIAL[:2])),
        *deep_nodes(),
    ]  # fmt: skip
    return made


def build(root: Path, tree: t.Sequence[Node]) -> list[str]:
    """Make the tree at ``root``; the names, as ``os.fsdecode`` gives them, that no backup holds."""
    root.mkdir()
    reasons = permissions.why_unsupported(_probe(root), 1000)
    directories: list[bytes] = [os.fsencode(root)]
    files: list[bytes] = []
    made: list[tuple[bytes, Node]] = []
    skipped = []
    for node in tree:
        directory = directories[node.directory if node.directory < 0 else node.directory % len(directories)]
        path = os.path.join(directory, node.name)
        if os.path.lexists(path) or len(path) > 4050 or (node.kind == "hardlink" and not files):
            continue
        if not _make(path, node, files):
            continue
        if node.kind == "directory":
            directories.append(path)
        elif node.kind in ("file", "sparse"):
            files.append(path)
        elif node.kind in SPECIAL:
            skipped.append(os.fsdecode(os.path.relpath(path, os.fsencode(root))))
        if node.kind not in ("hardlink", *SPECIAL):
            made.append((path, node))
    # From the leaves to the root, as a new name changes its directory's time.
    for path, node in reversed(made):
        _set_attributes(path, node, reasons)
    os.utime(root, ns=(7, 1_600_000_000_000_000_001))
    return sorted(skipped)


def _probe(root: Path) -> Path:
    probe = root.with_name(root.name + ".probe")
    probe.touch()
    return probe


def _make(path: bytes, node: Node, files: list[bytes]) -> bool:
    """Make one name; false where the file system does not take it."""
    if node.kind == "file":
        Path(os.fsdecode(path)).write_bytes(node.content)
    elif node.kind == "sparse":
        with open(path, "wb") as handle:
            for block, count in node.runs:
                handle.seek(block * _BLOCK)
                handle.write(_noise(count * _BLOCK))
            handle.truncate(max([node.blocks, *(block + count for block, count in node.runs)]) * _BLOCK + 100)
            os.fsync(handle.fileno())  # until then the file system does not know its holes
    elif node.kind == "directory":
        os.mkdir(path)
    elif node.kind == "symlink":
        os.symlink(node.target, path)
    elif node.kind == "hardlink":
        os.link(files[node.link_to if node.link_to < 0 else node.link_to % len(files)], path)
    elif node.kind == "fifo":
        os.mkfifo(path)
    elif node.kind == "device":
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    else:
        return _make_socket(path)
    return True


def _make_socket(path: bytes) -> bool:
    """A socket's own address must be short, so it is made from within its directory."""
    here = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.chdir(os.path.dirname(path))
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as server:
            name = os.path.basename(path)
            if len(name) > 100:
                return False
            server.bind(b"./" + name)
    finally:
        os.fchdir(here)
        os.close(here)
    return True


def _set_attributes(path: bytes, node: Node, reasons: dict[str, str | None]) -> None:
    name = os.fsdecode(path)
    if ROOT:
        os.chown(path, *node.owner, follow_symlinks=False)
    if node.kind != "symlink":
        os.chmod(path, node.mode | 0o700)
        if reasons["xattrs"] is None:
            for xattr, value in node.xattrs.items():
                with contextlib.suppress(OSError):  # ext4 has room for one block of them
                    os.setxattr(path, xattr, value)
        if node.capability and reasons["capabilities"] is None:
            permissions.let_bind_low_ports(Path(name))
        os.chmod(path, node.mode)
        if node.acl and reasons["acls"] is None:
            permissions.allow_user(Path(name), *node.acl)
        if node.default_acl and reasons["acls"] is None:
            permissions.allow_user_by_default(Path(name), *node.default_acl)
    os.utime(path, ns=(0, node.mtime_ns), follow_symlinks=False)
