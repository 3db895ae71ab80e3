# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ACLs between the kernel's bytes and the text of getfacl and tar."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import GuardError
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services import acl

TEXT = "user::rw-,user:1001:r--,group::r--,mask::r--,other::---"
# Written down by hand from the kernel's definition, so that it shares nothing with the code.
RAW = bytes.fromhex("02000000 01000600ffffffff 02000400e9030000 04000400ffffffff 10000400ffffffff 20000000ffffffff")
PLAIN = "user::rw-,group::r--,other::---"

permissions = st.builds("".join, st.tuples(*(st.sampled_from([letter, "-"]) for letter in "rwx")))
ids = st.dictionaries(st.integers(0, 0xFFFFFFFE), permissions, max_size=5)


@st.composite
def acl_texts(draw: st.DrawFn) -> str:
    """A valid ACL in the order of getfacl."""
    users, groups = draw(ids), draw(ids)
    lines = [f"user::{draw(permissions)}", *(f"user:{number}:{users[number]}" for number in sorted(users))]
    lines += [f"group::{draw(permissions)}", *(f"group:{number}:{groups[number]}" for number in sorted(groups))]
    if users or groups or draw(st.booleans()):
        lines.append(f"mask::{draw(permissions)}")
    return ",".join([*lines, f"other::{draw(permissions)}"])


def test_text_and_bytes_are_those_of_the_kernel() -> None:
    assert acl.decode_acl(RAW) == TEXT
    assert acl.encode_acl(TEXT) == RAW


@given(acl_texts())
def test_round_trip(text: str) -> None:
    assert acl.decode_acl(acl.encode_acl(text)) == text


@given(acl_texts(), st.randoms())
def test_order_of_entries_does_not_matter(text: str, shuffler: object) -> None:
    parts = text.split(",")
    shuffler.shuffle(parts)  # type: ignore[attr-defined]
    assert acl.encode_acl(",".join(parts)) == acl.encode_acl(text)


@given(st.binary(max_size=60))
def test_any_bytes_are_an_acl_or_a_clear_error(raw: bytes) -> None:
    with contextlib.suppress(GuardError):
        text = acl.decode_acl(raw)
        assert acl.decode_acl(acl.encode_acl(text)) == text


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "''"),
        ("user::rw-", "no group:: entry"),
        ("group::r--,other::---", "no user:: entry"),
        ("user::rw-,group::r--", "no other:: entry"),
        (PLAIN + ",", "''"),
        (PLAIN + ",user:1:r--", "named entries without a mask"),
        (PLAIN + ",mask::rw-,user:1:r--,user:1:rwx", "an entry twice"),
        (PLAIN + ",other::---", "an entry twice"),
        (PLAIN + ",other:5:---", "'other:5:---'"),
        (PLAIN + ",mask::rw-,user:alice:r--", "'user:alice:r--'"),
        (PLAIN + ",mask::rw-,user:01:r--", "'user:01:r--'"),
        (PLAIN + ",mask::rw-,user:4294967295:r--", "'user:4294967295:r--'"),
        (PLAIN + ",mask::rw-,user:٣:r--", "'user:٣:r--'"),
        ("user::wr-,group::r--,other::---", "'user::wr-'"),
        ("user::rw-,group::r--, other::---", "' other::---'"),
        ("default:user::rw-,group::r--,other::---", "'default:user::rw-'"),
    ],
)
def test_nonsense_text(text: str, found: str) -> None:
    with pytest.raises(GuardError) as caught:
        acl.encode_acl(text)
    assert caught.value.found == found


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        RAW[:-1],
        b"\x01" + RAW[1:],
        RAW[:4],
        RAW + struct.pack("<HHI", 0x40, 4, 7),
        RAW + struct.pack("<HHI", 0x02, 8, 7),
        RAW + struct.pack("<HHI", 0x02, 4, 0xFFFFFFFF),
        RAW + RAW[4:12],
    ],
    ids=["empty", "short", "version", "no entries", "tag", "permission", "unmapped id", "twice"],
)
def test_nonsense_bytes(raw: bytes) -> None:
    with pytest.raises(GuardError):
        acl.decode_acl(raw)


class TestReadXattrs:
    def test_acls_and_others_by_path_and_by_descriptor(self, tmp_path: pathlib.Path) -> None:
        path = tmp_path / "file"
        path.touch()
        os.setxattr(path, acl.ACL_ACCESS, RAW)
        os.setxattr(path, "user.note", b"\x00\xff")
        expected = {acl.ACL_ACCESS: RAW, "user.note": b"\x00\xff"}
        fd = os.open(path, os.O_RDONLY)
        try:
            assert acl.read_xattrs(fd) == expected
        finally:
            os.close(fd)
        assert acl.read_xattrs(str(path)) == acl.read_xattrs(os.fsencode(path)) == expected

    def test_symlink_is_followed_only_on_demand(self, tmp_path: pathlib.Path) -> None:
        path, link = tmp_path / "file", tmp_path / "link"
        path.touch()
        link.symlink_to(path)
        os.setxattr(path, "user.note", b"x")
        assert acl.read_xattrs(str(link)) == {}
        assert acl.read_xattrs(str(link), follow_symlinks=True) == {"user.note": b"x"}

    def test_no_support_is_none_but_other_errors_are_told(
        self, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(FileNotFoundError):
            acl.read_xattrs(str(tmp_path / "absent"))

        def refuse(number: int) -> None:
            def listxattr(*_args: object, **_options: object) -> list[str]:
                raise OSError(number, os.strerror(number))

            monkeypatch.setattr(os, "listxattr", listxattr)

        refuse(errno.EOPNOTSUPP)
        assert acl.read_xattrs(str(tmp_path)) == {}
        refuse(errno.EIO)
        with pytest.raises(OSError, match="Input/output"):
            acl.read_xattrs(str(tmp_path))

    def test_attribute_gone_between_list_and_read(self, tmp_path: pathlib.Path) -> None:
        (tmp_path / "file").touch()
        os.setxattr(tmp_path / "file", "user.there", b"x")
        assert acl.read_values(str(tmp_path / "file"), ["user.gone", "user.there"]) == {"user.there": b"x"}
