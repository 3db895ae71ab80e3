# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Attributes of a tree: read, compared, restored."""

from __future__ import annotations

import json
import os
import pathlib
import random
import stat
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import GuardError, IntegrityError
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format import attribute_snapshot, getfacl
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import attributes, attributes_state
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.attributes import (
    Difference,
    Selection,
    capture,
    compare,
)
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.attributes_restore import restore
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services import acl
from ansible_collections.guardops.qwen3guard.plugins.module_utils.system.forked import run_forked
from ansible_collections.guardops.qwen3guard.plugins.module_utils.system.tree import Directories

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: owners and capabilities")
HOSTILE = ["a\nb", "a\tb", " lead", "\tlead", "back\\slash", "\\012", "cr\r", "bad\udcff", "-R", "#x", "名", "trail "]
MASKED = acl.encode_acl("user::rw-,user:1001:rwx,group::rw-,mask::r--,other::---")
DEFAULT = acl.encode_acl("user::rwx,user:1001:rwx,group::r-x,mask::rwx,other::---")
CAP = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)


@pytest.fixture
def tree(tmp_path: pathlib.Path) -> pathlib.Path:
    """A tree with one of everything that matters."""
    root = tmp_path / "tree"
    (root / "sub" / "deep").mkdir(parents=True)
    for name in ("file", "sub/file", "sub/deep/file", *HOSTILE):
        (root / name).touch()
        (root / name).chmod(0o640)
    (root / "link").symlink_to("/etc/hosts")
    (root / "sub" / "dir-link").symlink_to("/etc")
    os.mkfifo(root / "fifo")
    os.setxattr(root / "sub" / "file", acl.ACL_ACCESS, MASKED)
    os.setxattr(root / "sub", acl.ACL_DEFAULT, DEFAULT)
    os.setxattr(root / "file", "user.note", "ü".encode())
    return root


def block_of(root: pathlib.Path, path: str) -> getfacl.Attributes:
    return getfacl.parse_block(capture(str(root)).snapshot.blocks()[path])


class TestCapture:
    def test_every_entry_once_and_symlinks_as_themselves(self, tree: pathlib.Path) -> None:
        found = capture(str(tree))
        walked = {"."}
        for directory, directories, files in os.walk(tree):
            walked |= {os.path.relpath(os.path.join(directory, name), tree) for name in [*directories, *files]}
        assert set(found.snapshot.blocks()) == walked
        assert found.entries == len(walked)
        assert block_of(tree, "sub/dir-link").symlink
        assert not found.snapshot.unread

    def test_workers_make_no_difference(self, tree: pathlib.Path) -> None:
        for number in range(200):
            (tree / "sub" / f"many-{number}").touch(mode=0o600 + number % 8)
        alone = capture(str(tree), workers=1)
        for workers in (2, 3, 7):
            assert capture(str(tree), workers=workers) == alone

    def test_working_directory_is_left_alone(self, tree: pathlib.Path) -> None:
        before = os.getcwd()
        capture(str(tree))
        assert os.getcwd() == before

    def test_attributes(self, tree: pathlib.Path) -> None:
        (tree / "file").chmod(0o4711)
        assert block_of(tree, "file").mode == 0o4711
        assert block_of(tree, "sub/file") == getfacl.Attributes(
            False, os.geteuid(), os.getegid(), 0o640, "user::rw-,user:1001:rwx,group::rw-,mask::r--,other::---"
        )
        assert block_of(tree, "sub").default_acl == acl.decode_acl(DEFAULT)
        assert capture(str(tree)).snapshot.xattrs("file") == {"user.note": "ü".encode()}

    def test_exclude(self, tree: pathlib.Path) -> None:
        found = capture(str(tree), Selection(("deep", "sub/f*"), frozenset(["file"])))
        assert found.excluded == ["file", "sub/deep", "sub/file"]
        assert not {"file", "sub/deep", "sub/deep/file", "sub/file"} & set(found.snapshot.blocks())
        assert "sub/dir-link" in found.snapshot.blocks()

    def test_very_deep_and_long_paths(self, tmp_path: pathlib.Path) -> None:
        root = os.open(tmp_path, os.O_RDONLY)
        fd = root
        for _level in range(300):  # more than the descriptors that are kept open, and 6,300 bytes
            os.mkdir("x" * 20, dir_fd=fd)
            below = os.open("x" * 20, os.O_RDONLY, dir_fd=fd)
            if fd != root:
                os.close(fd)
            fd = below
        os.close(os.open("last", os.O_CREAT | os.O_WRONLY, 0o640, dir_fd=fd))
        os.close(fd)
        os.close(root)
        saved = capture(str(tmp_path)).snapshot
        path = "/".join(["x" * 20] * 300) + "/last"
        assert len(saved.blocks()) == 302
        assert saved.extras[path].block, "no path that is too long for setfacl may be in the text"
        assert path not in getfacl.parse_text(saved.text)
        with Directories(str(tmp_path)) as directories:
            os.chmod("last", 0o600, dir_fd=directories.open(os.path.dirname(path)))
        assert restore(str(tmp_path), saved).failures == {}
        assert capture(str(tmp_path)).snapshot == saved

    def test_back_up_from_a_deep_directory(self, tmp_path: pathlib.Path) -> None:
        deep = "/".join(["d"] * 100)  # the first of these are closed again on the way down
        (tmp_path / deep).mkdir(parents=True)
        with Directories(str(tmp_path)) as directories:
            directories.open(deep)
            for path in ("d/d", deep, "d", ""):
                assert os.path.samestat(os.fstat(directories.open(path)), (tmp_path / path).stat())

    @pytest.mark.root
    @needs_root
    def test_directory_that_cannot_be_read_is_told(self, tree: pathlib.Path) -> None:
        (tree / "sub" / "deep").chmod(0o700)

        def as_user(_number: int) -> attribute_snapshot.Snapshot:
            os.chdir(tree)  # while root: pytest's folders are closed to others
            os.setgroups([])
            os.setresgid(12345, 12345, 12345)
            os.setresuid(12345, 12345, 12345)
            return capture(".").snapshot

        saved = run_forked(as_user, 1)[0]
        assert saved.unread == {
            "sub/deep/": "Permission denied",
            "file": "Permission denied",  # of an attribute in the namespace user: it is as private as the content
        }
        assert {"sub/deep", "sub/file"} <= set(saved.blocks())
        assert compare(saved, capture(str(tree)).snapshot) == []

    @pytest.mark.parametrize("kind", ["absent", "file"])
    def test_no_directory(self, tmp_path: pathlib.Path, kind: str) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(GuardError, match="expected a directory"):
            capture(str(tmp_path / kind))


class TestText:
    @given(st.text(st.characters(exclude_characters="\0/"), min_size=1, max_size=20))
    def test_names_round_trip(self, name: str) -> None:
        try:
            os.fsencode(name)
        except UnicodeEncodeError:  # half a surrogate pair that stands for no byte: no file has such a name
            return
        block = "# owner: 0\n# group: 0\nuser::rw-\ngroup::r--\nother::---\n"
        text = os.fsencode(getfacl.render_text("", {name: block}) + getfacl.render_text("d/", {name: block}))
        assert getfacl.parse_text(text) == {name: block, f"d/{name}": block}

    def test_printable(self) -> None:
        assert getfacl.printable("a\nb\\\udcff名 c") == "a\\012b\\\\\\377名 c"

    @pytest.mark.parametrize(
        "block",
        [
            "",
            "# owner: 0\n# group: 0\n",
            "# owner: x\n# group: 0\nuser::rw-\ngroup::r--\nother::---\n",
            "# owner: 0\n# group: 0\nuser::rw-\ngroup::r--\n",
            "# owner: 0\n# group: 0\nuser::rw-\nuser:1:r--\ngroup::r--\nother::---\n",
            "# owner: 0\n# group: 0\n# flags: sss\nuser::rw-\ngroup::r--\nother::---\n",
        ],
    )
    def test_nonsense(self, block: str) -> None:
        with pytest.raises(GuardError):
            getfacl.parse_block(block)

    @given(st.integers(0, 0o7777), st.integers(0, 2**32 - 2), st.integers(0, 2**32 - 2))
    def test_blocks_round_trip(self, mode: int, owner: int, group: int) -> None:
        block = getfacl.file_block(mode, owner, group, None, None)
        assert getfacl.parse_block(block) == getfacl.Attributes(False, owner, group, mode)


class TestFiles:
    def test_round_trip_and_private(self, tree: pathlib.Path, tmp_path: pathlib.Path) -> None:
        saved = capture(str(tree)).snapshot
        saved.unread["bad\udcff/"] = "why"
        saved.write(str(tmp_path / "s"))
        assert attribute_snapshot.load(str(tmp_path / "s")) == saved
        assert {stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in ("s", "s.json")} == {0o600}

    def test_two_halves_of_different_snapshots(self, tree: pathlib.Path, tmp_path: pathlib.Path) -> None:
        capture(str(tree)).snapshot.write(str(tmp_path / "s"))
        old = (tmp_path / "s").read_bytes()
        (tree / "file").chmod(0o600)
        capture(str(tree)).snapshot.write(str(tmp_path / "s"))
        (tmp_path / "s").write_bytes(old)
        with pytest.raises(IntegrityError, match="another text"):
            attribute_snapshot.load(str(tmp_path / "s"))

    @pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "x", "version": 1}'])
    def test_damaged(self, tree: pathlib.Path, tmp_path: pathlib.Path, content: str) -> None:
        capture(str(tree)).snapshot.write(str(tmp_path / "s"))
        (tmp_path / "s.json").write_text(content)
        with pytest.raises(IntegrityError):
            attribute_snapshot.load(str(tmp_path / "s"))


class TestCompare:
    def test_unchanged(self, tree: pathlib.Path) -> None:
        assert compare(capture(str(tree)).snapshot, capture(str(tree)).snapshot) == []

    def test_names_what_changed_and_nothing_else(self, tree: pathlib.Path) -> None:
        before = capture(str(tree)).snapshot
        (tree / "file").chmod(0o600)
        os.setxattr(tree / "file", "user.note", b"\xff")
        os.removexattr(tree / "sub", acl.ACL_DEFAULT)
        (tree / "fifo").unlink()
        (tree / "new").touch()
        (tree / "-R").unlink()
        (tree / "-R").symlink_to("file")
        assert compare(before, capture(str(tree)).snapshot) == [
            Difference("-R", "type", "not a symlink", "symlink"),
            Difference("fifo", "entry", "present", "absent"),
            Difference("file", "mode", "0640", "0600"),
            Difference("file", "xattr user.note", "ü", "base64:/w=="),
            Difference("new", "entry", "absent", "present"),
            Difference("sub", "default_acl", acl.decode_acl(DEFAULT), None),
        ]

    def test_what_could_not_be_read_did_not_change(self, tree: pathlib.Path) -> None:
        before, after = capture(str(tree)).snapshot, capture(str(tree), Selection(("deep",))).snapshot
        assert {change.path for change in compare(before, after)} == {"sub/deep", "sub/deep/file"}
        after.unread["sub/"] = "Permission denied"
        assert compare(before, after) == []
        assert any(text == "sub/: Permission denied" for text in attributes.not_checked(after))


class TestRestore:
    def test_all_is_as_before(self, tree: pathlib.Path) -> None:
        saved = capture(str(tree)).snapshot
        chance = random.Random(7)
        for path in tree.rglob("*"):
            if not path.is_symlink():
                path.chmod(0o700 + chance.randrange(8))
        os.removexattr(tree / "sub", acl.ACL_DEFAULT)
        os.setxattr(tree / "sub/deep", acl.ACL_DEFAULT, DEFAULT)
        os.setxattr(tree / "file", acl.ACL_ACCESS, MASKED)
        os.setxattr(tree / "file", "user.note", b"other")
        os.setxattr(tree / "file", "user.more", b"gone afterwards")
        dry = restore(str(tree), saved, dry=True)
        assert capture(str(tree)).snapshot != saved
        real = restore(str(tree), saved)
        assert (real.differences, real.failures, real.changed) == (dry.differences, {}, True)
        assert capture(str(tree)).snapshot == saved
        again = restore(str(tree), saved)
        assert (again.differences, again.changed) == ([], False)

    def test_missing_and_extra_are_told(self, tree: pathlib.Path) -> None:
        saved = capture(str(tree)).snapshot
        (tree / "fifo").unlink()
        (tree / "new").touch(mode=0o600)
        outcome = restore(str(tree), saved)
        assert (outcome.missing, outcome.extra, outcome.changed) == (["fifo"], ["new"], False)
        assert stat.S_IMODE((tree / "new").stat().st_mode) == 0o600

    def test_symlink_in_place_of_a_file_is_not_followed(self, tree: pathlib.Path, tmp_path: pathlib.Path) -> None:
        outside = tmp_path / "outside"
        outside.touch(mode=0o600)
        saved = capture(str(tree)).snapshot
        (tree / "file").unlink()
        (tree / "file").symlink_to(outside)
        outcome = restore(str(tree), saved)
        assert list(outcome.failures) == ["file"]
        assert stat.S_IMODE(outside.stat().st_mode) == 0o600

    def test_directory_swapped_for_a_symlink_leads_nowhere(
        self, tree: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "file").touch(mode=0o600)
        saved = capture(str(tree)).snapshot
        (tree / "sub/deep/file").chmod(0o644)
        original = Directories.open

        def swap_first(self: Directories, path: str) -> int:
            """What an attacker does between the look at the tree and its change."""
            if path == "sub/deep" and not (tree / "sub/deep").is_symlink():
                (tree / "sub/deep").rename(tree / "sub/moved")
                (tree / "sub/deep").symlink_to(outside)
            return original(self, path)

        found = capture(str(tree))
        monkeypatch.setattr(Directories, "open", swap_first)
        monkeypatch.setattr(
            "ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.attributes_restore.capture",
            lambda *_args: found,
        )
        outcome = restore(str(tree), saved)
        assert (tree / "sub/deep").is_symlink(), "the swap must have happened"
        assert "sub/deep/file" in outcome.failures
        assert stat.S_IMODE((outside / "file").stat().st_mode) == 0o600

    def test_paths_in_a_forged_snapshot_stay_inside(self, tree: pathlib.Path, tmp_path: pathlib.Path) -> None:
        for path in ("../outside", "/etc", "sub/../../x", "sub//file"):
            with Directories(str(tree)) as directories, pytest.raises(IntegrityError):
                directories.open(path)

    @pytest.mark.root
    @needs_root
    def test_owner_first_then_setuid_and_capability(self, tree: pathlib.Path) -> None:
        os.chown(tree / "file", 4242, 4243)  # nobody has these ids
        (tree / "file").chmod(0o6755)
        os.chown(tree / "link", 77, 78, follow_symlinks=False)
        os.setxattr(tree / "sub/deep/file", acl.CAPABILITY, CAP)
        saved = capture(str(tree)).snapshot
        before = pathlib.Path("/etc/hosts").stat()
        for path in ("file", "link", "sub/deep/file"):
            os.chown(tree / path, 0, 0, follow_symlinks=False)
        assert acl.CAPABILITY not in os.listxattr(tree / "sub/deep/file"), "chown clears it: that is the trap"
        os.chown(tree / "sub/deep/file", 5, 5)
        outcome = restore(str(tree), saved)
        assert outcome.failures == {}
        assert capture(str(tree)).snapshot == saved
        assert stat.S_IMODE((tree / "file").stat().st_mode) == 0o6755
        assert os.getxattr(tree / "sub/deep/file", acl.CAPABILITY) == CAP
        assert (pathlib.Path("/etc/hosts").stat().st_uid, pathlib.Path("/etc/hosts").stat().st_gid) == (
            before.st_uid,
            before.st_gid,
        )

    @pytest.mark.root
    @needs_root
    def test_without_the_right_to_give_files_away(self, tree: pathlib.Path) -> None:
        (tree / "sub/deep/file").chmod(0o4755)
        os.chown(tree / "sub/deep/file", 0, 0)
        (tree / "sub/deep/file").chmod(0o4755)
        saved = capture(str(tree)).snapshot
        os.chown(tree / "sub/deep/file", 12345, 12345)
        (tree / "sub/deep/file").chmod(0o600)

        def as_user(_number: int) -> dict[str, str]:
            os.chdir(tree)  # while root: pytest's folders are closed to others
            os.setgroups([])
            os.setresgid(12345, 12345, 12345)
            os.setresuid(12345, 12345, 12345)
            return restore(".", saved).failures

        failures = run_forked(as_user, 1)[0]
        assert "only root" in failures["sub/deep/file"]
        assert stat.S_IMODE((tree / "sub/deep/file").stat().st_mode) == 0o600, "no setuid bit for the wrong owner"


class TestState:
    def test_saved_is_idempotent_also_inside_the_tree(self, tree: pathlib.Path) -> None:
        options = attributes_state.Options(str(tree), str(tree / "sub" / "snap"))
        assert [attributes_state.reach(options).result["changed"] for _time in range(3)] == [True, False, False]
        assert sorted(name for name in os.listdir(tree / "sub") if name.startswith("snap")) == ["snap", "snap.json"]

    def test_saved_replaces_a_damaged_snapshot_and_says_so(self, tree: pathlib.Path, tmp_path: pathlib.Path) -> None:
        options = attributes_state.Options(str(tree), str(tmp_path / "s"))
        attributes_state.reach(options)
        (tmp_path / "s.json").write_text("{")
        report = attributes_state.reach(options)
        assert report.result["changed"]
        assert "could not be read and is replaced" in report.warnings[0]
        assert attributes_state.reach(options).result["changed"] is False

    def test_limit_cuts_lists_but_not_counts(self, tree: pathlib.Path, tmp_path: pathlib.Path) -> None:
        options = attributes_state.Options(str(tree), str(tmp_path / "s"))
        attributes_state.reach(options)
        for name in HOSTILE:
            (tree / name).chmod(0o600)
        options.state, options.limit = "compared", 2
        result = attributes_state.reach(options).result
        assert (len(result["differences"]), result["difference_count"]) == (2, len(HOSTILE))
        json.dumps(result).encode("utf-8")

    @pytest.mark.parametrize("bad", [{"limit": -1}, {"fail_on_difference": True}, {"file": "/nowhere/at/all"}])
    def test_bad_options(self, tree: pathlib.Path, tmp_path: pathlib.Path, bad: dict[str, object]) -> None:
        with pytest.raises(GuardError):
            attributes_state.reach(attributes_state.Options(**{"path": str(tree), "file": str(tmp_path / "s"), **bad}))
