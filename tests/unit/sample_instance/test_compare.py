# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The comparer notices each kind of difference, and only that."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from sample_instance import compare, permissions
from sample_instance.compare import compare_trees, snapshot_tree, tree_summary

SECOND_USER = 65534
WHEN_NS = 1_716_000_000_123_456_789
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may change owners and capabilities")


def make_tree(root: Path) -> None:
    (root / "deep/er").mkdir(parents=True)
    (root / "deep/file").write_bytes(b"content")
    (root / "deep/er/script").write_bytes(b"#!/bin/sh\n")
    (root / "文件").write_bytes(b"\x00" * 10)
    (root / "link").symlink_to("deep/file")
    os.link(root / "deep/file", root / "hard")
    os.mkfifo(root / "pipe")
    with (root / "sparse").open("wb") as output:
        output.write(b"x" * 4096)
        output.truncate(1 << 20)
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)  # whatever the umask
    permissions.allow_user(root / "deep/er/script", SECOND_USER, 5)
    permissions.allow_user_by_default(root / "deep", SECOND_USER, 5)
    os.setxattr(root / "文件", "user.note", b"one")
    for path in sorted([root, *root.rglob("*")], reverse=True):
        os.utime(path, ns=(WHEN_NS, WHEN_NS), follow_symlinks=False)


@pytest.fixture(name="trees")
def fixture_trees(tmp_path: Path) -> tuple[Path, Path]:
    make_tree(tmp_path / "one")
    make_tree(tmp_path / "two")
    return tmp_path / "one", tmp_path / "two"


def keeping_time(path: Path, change: Callable[[], object]) -> None:
    """Change a thing and nothing of its time, nor of its directory's."""
    times = [(place, place.lstat().st_mtime_ns) for place in (path, path.parent) if os.path.lexists(place)]
    change()
    for place, when in times:
        if os.path.lexists(place):
            os.utime(place, ns=(when, when), follow_symlinks=False)


def flip_byte(root: Path) -> None:
    keeping_time(root / "文件", lambda: (root / "文件").write_bytes(b"\x00" * 9 + b"\x01"))


def cut_byte(root: Path) -> None:
    keeping_time(root / "文件", lambda: os.truncate(root / "文件", 9))


def remove(root: Path) -> None:
    keeping_time(root / "文件", (root / "文件").unlink)


def add(root: Path) -> None:
    keeping_time(root / "new", (root / "new").touch)


def file_to_directory(root: Path) -> None:
    def change() -> None:
        (root / "文件").unlink()
        (root / "文件").mkdir()

    keeping_time(root / "文件", change)


def fifo_to_socket(root: Path) -> None:
    def change() -> None:
        (root / "pipe").unlink()
        # A relative name: the path of a socket has a hundred bytes at most.
        directory = os.open(root, os.O_RDONLY)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"/proc/self/fd/{directory}/pipe")
        os.close(directory)

    keeping_time(root / "pipe", change)


def retarget(root: Path) -> None:
    def change() -> None:
        (root / "link").unlink()
        (root / "link").symlink_to("deep/fil3")

    keeping_time(root / "link", change)


def break_hard_link(root: Path) -> None:
    def change() -> None:
        (root / "hard").unlink()
        shutil.copy2(root / "deep/file", root / "hard")

    keeping_time(root / "hard", change)


def fill_holes(root: Path) -> None:
    keeping_time(root / "sparse", lambda: (root / "sparse").write_bytes((root / "sparse").read_bytes()))


def one_nanosecond(root: Path) -> None:
    os.utime(root / "文件", ns=(WHEN_NS, WHEN_NS + 1))


def directory_time(root: Path) -> None:
    os.utime(root / "deep", ns=(WHEN_NS, WHEN_NS + 1))


def link_time(root: Path) -> None:
    os.utime(root / "link", ns=(WHEN_NS, WHEN_NS + 1), follow_symlinks=False)


CHANGES: list[tuple[Callable[[Path], None], list[str]]] = [
    (flip_byte, ["文件: content: expected "]),
    (cut_byte, ["文件: size: expected 10, found 9", "文件: content: expected "]),
    (remove, ["文件: missing"]),
    (add, ["new: not expected (file)"]),
    (file_to_directory, ["文件: type: expected file, found directory"]),
    (fifo_to_socket, ["pipe: type: expected FIFO, found socket"]),
    (lambda root: (root / "文件").chmod(0o4711), ["文件: mode: expected 0644, found 4711"]),
    (lambda root: (root / "deep").chmod(0o2755), ["deep: mode: expected 0755, found 2755"]),
    (lambda root: root.chmod(0o700), [".: mode: expected 0755, found 0700"]),
    (one_nanosecond, ["文件: mtime_ns: expected 1716000000123456789, found 1716000000123456790"]),
    (directory_time, ["deep: mtime_ns: expected "]),
    (link_time, ["link: mtime_ns: expected "]),
    (retarget, ["link: target: expected deep/file, found deep/fil3"]),
    (
        break_hard_link,
        ["deep/file: hard_links: expected deep/file = hard, found deep/file", "hard: hard_links: expected "],
    ),
    (fill_holes, ["sparse: holes: expected 4096 bytes of data, found 1048576"]),
    (
        lambda root: os.setxattr(root / "文件", "user.note", b"two"),
        ["文件: user.note: expected b'one', found b'two'"],
    ),
    (lambda root: os.removexattr(root / "文件", "user.note"), ["文件: user.note: expected b'one', found none"]),
    (
        lambda root: os.setxattr(root / "hard", "user.new", b""),
        [
            "deep/file: user.new: expected none, found b''",
            "hard: user.new: expected none, found b''",
        ],
    ),
    (
        lambda root: os.setxattr(
            root / "deep/er/script", permissions.ACCESS_ACL, permissions.acl_for_user(0o644, 65533, 5)
        ),
        [f"deep/er/script: {permissions.ACCESS_ACL}: expected user::rw-,user:65534:r-x,group::r--,mask::r-x,"],
    ),
    (
        lambda root: os.removexattr(root / "deep", permissions.DEFAULT_ACL),
        [f"deep: {permissions.DEFAULT_ACL}: expected user::rwx,user:65534:r-x,group::r-x,mask::r-x,other::r-x"],
    ),
    pytest.param(
        lambda root: os.lchown(root / "link", 12345, -1),
        ["link: uid: expected 0, found 12345"],
        marks=[pytest.mark.root, needs_root],
    ),
    pytest.param(
        lambda root: os.lchown(root / "deep", -1, 12345),
        ["deep: gid: expected 0, found 12345"],
        marks=[pytest.mark.root, needs_root],
    ),
    pytest.param(
        lambda root: permissions.let_bind_low_ports(root / "文件"),
        ["文件: security.capability: expected none, found b'"],
        marks=[pytest.mark.root, needs_root],
    ),
]


def test_equal_trees_have_no_difference(trees: tuple[Path, Path]) -> None:
    assert compare_trees(*trees) == []


@pytest.mark.parametrize(("change", "expected"), CHANGES)
def test_difference_is_named(trees: tuple[Path, Path], change: Callable[[Path], None], expected: list[str]) -> None:
    one, two = trees
    change(two)
    differences = compare_trees(one, two)
    assert len(differences) == len(expected)
    for difference, start in zip(differences, expected):
        assert difference.startswith(start)


def test_snapshot_outlives_its_tree(trees: tuple[Path, Path]) -> None:
    one, two = trees
    state = snapshot_tree(one)
    shutil.rmtree(one)
    assert compare_trees(state, two) == []
    flip_byte(two)
    assert [line.partition(": expected")[0] for line in compare_trees(state, two)] == ["文件: content"]


def test_ignored_names_and_aspects_are_not_compared(trees: tuple[Path, Path]) -> None:
    one, two = trees
    flip_byte(two)
    one_nanosecond(two)
    (two / "deep/er/script").chmod(0o600)
    assert compare_trees(one, two, ignore=["文*", "deep/er/*"]) == []
    assert compare_trees(one, two, ignore=["deep/er/*"], aspects=["mode", "uid", "size"]) == []


def test_unknown_aspect_is_refused(trees: tuple[Path, Path]) -> None:
    with pytest.raises(ValueError, match="found colour"):
        compare_trees(*trees, aspects=["colour"])


def test_more_holes_than_expected_are_no_difference(trees: tuple[Path, Path]) -> None:
    one, two = trees
    fill_holes(one)
    assert compare_trees(one, two) == []


def test_names_that_are_no_text_are_shown_on_one_line(trees: tuple[Path, Path]) -> None:
    one, _two = trees
    with open(os.path.join(os.fsencode(one), b"bad\xff\nname"), "wb"):
        pass
    lines = [line for line in compare_trees(*trees) if "name" in line]
    assert lines == [r"'bad\udcff\nname': missing"]


def test_summary_counts_a_hard_linked_file_once(trees: tuple[Path, Path]) -> None:
    # file = hard, script, 文件, sparse
    assert tree_summary(trees[0]) == compare.Summary(files=4, bytes=7 + 10 + 10 + (1 << 20))


def test_acl_text_reads_like_getfacl() -> None:
    text = permissions.acl_text(permissions.acl_for_user(0o640, SECOND_USER, 7))
    assert text == "user::rw-,user:65534:rwx,group::r--,mask::rwx,other::---"


def test_acl_is_what_the_kernel_enforces_as_mode(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch(0o640)
    path.chmod(0o640)
    permissions.allow_user(path, SECOND_USER, 6)
    # The kernel understood the mask: it shows it as the group's rights.
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
