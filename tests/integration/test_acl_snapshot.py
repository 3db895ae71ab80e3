# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""acl_snapshot as Ansible runs it, against the real getfacl, setfacl and setcap."""

from __future__ import annotations

import json
import os
import pathlib
import stat
import subprocess
import sys
import typing as t

import pytest

from support.checkout import ROOT, find_tool, link_collection

pytestmark = pytest.mark.root
HOSTILE = [b"a\nb", b"a\tb", b"back\\slash", b"\\012", b"cr\r", b"bad\xff\xfe", b"-R", b"#x", "名".encode(), b"trail "]


def run(*argv: str | bytes, cwd: pathlib.Path | None = None) -> bytes:
    return subprocess.run(argv, cwd=cwd, check=True, capture_output=True, stdin=subprocess.DEVNULL).stdout


def getfacl(tree: pathlib.Path) -> bytes:
    return run(find_tool("getfacl"), "-R", "-n", ".", cwd=tree)


def by_file(text: bytes) -> list[bytes]:
    """The text's blocks, sorted: getfacl lists in the order of the disk."""
    return sorted(text.split(b"\n\n"))


def module(check: bool = False, diff: bool = False, rc: int = 0, **options: t.Any) -> dict[str, t.Any]:
    """Run the module's file like Ansible does, by another Python and with its options on stdin."""
    arguments = {**options, "_ansible_check_mode": check, "_ansible_diff": diff}
    done = subprocess.run(
        [sys.executable, str(ROOT / "plugins" / "modules" / "acl_snapshot.py")],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
        env=dict(os.environ, PYTHONPATH=str(link_collection())),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == rc, done.stdout + done.stderr
    assert not done.stderr
    return t.cast("dict[str, t.Any]", json.loads(done.stdout))


@pytest.fixture
def tree(tmp_path: pathlib.Path) -> pathlib.Path:
    """What a host may hold, made with the system's own tools."""
    if os.geteuid() != 0:
        pytest.skip("needs root: owners and capabilities")
    root = tmp_path / "tree"
    (root / "logs").mkdir(parents=True)
    (root / "bin").mkdir()
    for name in HOSTILE:
        pathlib.Path(os.fsdecode(bytes(root / "logs") + b"/" + name)).touch(mode=0o640)
    for name in ("guard", "su", "acl"):
        (root / "bin" / name).touch()
    os.chown(root / "bin" / "su", 4242, 4243)  # nobody has these ids
    (root / "bin" / "su").chmod(0o6755)
    (root / "logs").chmod(0o1777)
    setfacl = find_tool("setfacl")
    run(setfacl, "-m", "u:1001:rwx,g:77777:r-x,m::r", str(root / "bin" / "acl"))
    run(setfacl, "-d", "-m", "u:1001:rwx,m::r-x", str(root / "logs"))
    (root / "logs" / "inherits").touch()
    run(find_tool("setcap"), "cap_net_bind_service+ep", str(root / "bin" / "guard"))
    os.setxattr(root / "bin" / "acl", "user.note", b"\x00binary")
    (root / "outside").symlink_to("/etc/hosts")
    (root / "logs" / "outside-dir").symlink_to("/etc")
    os.mkfifo(root / "fifo")
    return root


@pytest.fixture
def file(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "data.facl"


def spoil(tree: pathlib.Path) -> None:
    """What a careless chown -R and chmod -R leave."""
    run("setfacl", "-R", "-b", "-k", ".", cwd=tree)
    run("chown", "-R", "-h", "0:0", ".", cwd=tree)
    run("chmod", "-R", "777", ".", cwd=tree)
    os.chown(tree / "bin" / "guard", 7, 7)  # and this cleared its capability
    os.removexattr(tree / "bin" / "acl", "user.note")


class TestAgainstTheRealTools:
    def test_text_is_getfacls_byte_for_byte(self, tree: pathlib.Path, file: pathlib.Path) -> None:
        module(path=str(tree), file=str(file))
        theirs = getfacl(tree)
        assert b"#effective" in theirs
        assert b"# flags: ss-" in theirs
        assert b"default:user:1001:rwx\t#effective:r-x" in theirs
        assert by_file(file.read_bytes()) == by_file(theirs)

    def test_setfacl_restores_from_it(self, tree: pathlib.Path, file: pathlib.Path) -> None:
        for name in (" lead", "\ttab"):  # getfacl's own text loses these; setfacl skips the white space
            (tree / name).touch(mode=0o604)
        before = getfacl(tree)
        module(path=str(tree), file=str(file))
        spoil(tree)
        assert by_file(getfacl(tree)) != by_file(before)
        run("setfacl", f"--restore={file}", cwd=tree)
        assert by_file(getfacl(tree)) == by_file(before)

    def test_module_restores_what_setfacl_cannot(self, tree: pathlib.Path, file: pathlib.Path) -> None:
        os.chown(tree / "outside", 5, 6, follow_symlinks=False)
        before, hosts = getfacl(tree), os.stat("/etc/hosts")
        module(path=str(tree), file=str(file))
        spoil(tree)
        module(path=str(tree), file=str(file), state="restored")
        assert getfacl(tree) == before
        assert b"cap_net_bind_service=ep" in run(find_tool("getcap"), str(tree / "bin" / "guard"))
        assert os.getxattr(tree / "bin" / "acl", "user.note") == b"\x00binary"
        assert stat.S_IMODE((tree / "bin" / "su").stat().st_mode) == 0o6755
        link = (tree / "outside").lstat()
        assert (link.st_uid, link.st_gid) == (5, 6)
        after = os.stat("/etc/hosts")
        assert (after.st_mode, after.st_uid, after.st_gid) == (hosts.st_mode, hosts.st_uid, hosts.st_gid)
        assert module(path=str(tree), file=str(file), state="compared")["difference_count"] == 0


class TestStates:
    def test_saved(self, tree: pathlib.Path, file: pathlib.Path) -> None:
        dry = module(check=True, diff=True, path=str(tree), file=str(file))
        assert dry["changed"]
        assert not list(file.parent.glob("data.facl*"))
        assert "a snapshot of" in dry["diff"]["after"]
        assert module(path=str(tree), file=str(file))["changed"]
        assert {stat.S_IMODE(path.stat().st_mode) for path in file.parent.glob("data.facl*")} == {0o600}
        for check in (True, False):
            assert not module(check=check, path=str(tree), file=str(file))["changed"]
        (tree / "bin" / "acl").chmod(0o600)
        dry = module(check=True, diff=True, path=str(tree), file=str(file))
        assert dry["changed"]
        real = module(path=str(tree), file=str(file))
        assert real["differences"] == dry["differences"]
        assert {item["path"] for item in real["differences"]} == {"bin/acl"}
        assert "bin/acl: mode: 0644" in dry["diff"]["before"]
        assert "bin/acl: mode: 0600" in dry["diff"]["after"]

    def test_compared(self, tree: pathlib.Path, file: pathlib.Path) -> None:
        module(path=str(tree), file=str(file))
        os.chown(tree / "bin" / "guard", 7, -1)
        bad = os.fsencode(tree / "logs") + b"/bad\xff\xfe"
        os.chmod(bad, 0o600)
        result = module(path=str(tree), file=str(file), state="compared")
        assert not result["changed"]
        assert "skipped" not in result, "Ansible would take the task for a skipped one"
        shown = [(item["path"], item["attribute"], item["before"], item["after"]) for item in result["differences"]]
        assert shown[0] == ("bin/guard", "owner", "0", "7")
        assert shown[1][:2] == ("bin/guard", "capability")
        assert shown[1][3] is None
        assert shown[2] == ("logs/bad\\377\\376", "mode", "0640", "0600")
        assert len(shown) == 3
        failed = module(path=str(tree), file=str(file), state="compared", fail_on_difference=True, rc=1)
        assert failed["failed"]
        assert "found 2 paths that differ" in failed["msg"]

    def test_restored(self, tree: pathlib.Path, file: pathlib.Path) -> None:
        module(path=str(tree), file=str(file))
        spoil(tree)
        (tree / "fifo").unlink()
        spoiled = getfacl(tree)
        dry = module(check=True, diff=True, path=str(tree), file=str(file), state="restored")
        assert dry["changed"]
        assert "bin/su: mode: 6755" in dry["diff"]["after"]
        assert getfacl(tree) == spoiled
        real = module(path=str(tree), file=str(file), state="restored")
        assert real["changed"]
        assert real["differences"] == dry["differences"]
        assert (real["missing"], real["extra"], real["failures"]) == (["fifo"], [], [])
        again = module(path=str(tree), file=str(file), state="restored")
        assert not again["changed"]
        failed = module(path=str(tree), file=str(file), state="restored", fail_on_difference=True, rc=1)
        assert "found 1 missing and 0 new ones" in failed["msg"]

    def test_what_cannot_be_restored_fails(self, tree: pathlib.Path, file: pathlib.Path) -> None:
        module(path=str(tree), file=str(file))
        (tree / "bin" / "acl").unlink()
        (tree / "bin" / "acl").symlink_to("/etc/hosts")
        (tree / "bin" / "su").chmod(0o600)
        failed = module(path=str(tree), file=str(file), state="restored", rc=1)
        assert [item["path"] for item in failed["failures"]] == ["bin/acl"]
        assert "1 entries that could not be restored" in failed["msg"]
        assert stat.S_IMODE((tree / "bin" / "su").stat().st_mode) == 0o6755, "the others are restored all the same"

    def test_errors_name_the_thing(self, tree: pathlib.Path, file: pathlib.Path) -> None:
        failed = module(path=str(tree), file=str(file), state="compared", rc=1)
        assert (failed["thing"], failed["found"]) == (str(file), "no such file")
        failed = module(path=str(tree / "absent"), file=str(file), rc=1)
        assert (failed["thing"], failed["expected"]) == (str(tree / "absent"), "a directory")


def test_by_ansible_itself(tree: pathlib.Path, file: pathlib.Path) -> None:
    """The module as it is packed and sent, in check mode too."""
    playbook = file.parent / "play.yml"
    playbook.write_text(
        json.dumps(
            [
                {
                    "hosts": "localhost",
                    "gather_facts": False,
                    "tasks": [
                        {
                            "guardops.qwen3guard.acl_snapshot": {"path": str(tree), "file": str(file)},
                            "register": "saved",
                        },
                        {"ansible.builtin.assert": {"that": ["saved is changed", "saved is not skipped"]}},
                    ],
                }
            ]
        )
    )
    environment = dict(
        os.environ,
        ANSIBLE_COLLECTIONS_PATH=str(link_collection()),
        ANSIBLE_LOCALHOST_WARNING="false",
        ANSIBLE_HOME=str(file.parent / "ansible"),
    )
    argv = [find_tool("ansible-playbook"), "-i", "localhost,", "-c", "local"]
    argv += ["-e", f"ansible_python_interpreter={sys.executable}", str(playbook)]
    for extra in (["--check"], []):
        done = subprocess.run([*argv, *extra], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert file.exists() is (not extra)
