# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The argument lists of rclone, what its exit codes mean, and what of its messages must not be shown."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import GuardError, StoreError
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services import rclone
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.rclone import (
    EXIT_CODES,
    NoDirectory,
    Options,
    Rclone,
)
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.store import (
    DirectoryStore,
    NotStored,
    RcloneStore,
    open_store,
)

OPTIONS = Options(retries=4, idle_timeout=7, config="/etc/rclone.conf")


@pytest.mark.parametrize("arguments", [
    rclone.list_arguments(OPTIONS, "-r:x", True), rclone.rcat_arguments(OPTIONS, "-r:x"),
    rclone.cat_arguments(OPTIONS, "-r:x"), rclone.details_arguments(OPTIONS, "-r:x"),
])  # fmt: skip
def test_every_call_has_its_limits_as_flags(arguments: list[str]) -> None:
    """In rclone.conf they would be ignored."""
    pairs = dict(zip(arguments, arguments[1:]))
    assert (pairs["--retries"], pairs["--low-level-retries"]) == ("4", "4")
    assert (pairs["--timeout"], pairs["--contimeout"]) == ("7s", "7s")
    assert pairs["--config"] == "/etc/rclone.conf"
    assert "--ask-password=false" in arguments, "nobody is there to answer"
    assert arguments[-2:] == ["--", "-r:x"], "a location is never taken for an option"


def test_without_a_configuration_of_its_own() -> None:
    assert "--config" not in rclone.base_arguments(Options())
    assert dict(zip(*[iter(rclone.base_arguments(Options())[1:9])] * 2))["--contimeout"] == "15s"


def a_program(directory: Path, code: int, message: str) -> str:
    """Something that ends as rclone might."""
    path = directory / "rclone"
    path.write_text(f"#!{sys.executable}\nimport sys\nsys.stderr.write({message!r})\nsys.exit({code})\n")
    path.chmod(0o700)
    return str(path)


@pytest.mark.parametrize("code", [*EXIT_CODES, 77])
def test_exit_codes(tmp_path: Path, code: int) -> None:
    message = "2026/05/20 10:00:00 ERROR : first\n2026/05/20 10:00:01 ERROR : Access Denied: 403\n"
    program = Rclone(Options(program=a_program(tmp_path, code, message)))
    with pytest.raises(StoreError) as caught:
        program.listing("r:x")
    assert isinstance(caught.value, NoDirectory) == (code in (3, 4))
    assert EXIT_CODES.get(code, "exit code 77") in caught.value.found
    assert caught.value.found.endswith("(Access Denied: 403)")
    assert "Permission denied" in caught.value.hint


@pytest.mark.parametrize(("message", "hint"), [
    ("didn't find section in config file", "not in rclone.conf"), ("NoSuchBucket: x", "does not exist"),
    ("SignatureDoesNotMatch", "credentials"), ("no space left on device", "full"),
    ("dial tcp: connection refused", "does not answer"), ("something new", ""),
    ('Object in GLACIER, restore first: bucket="b", key="k"', "archive class"),
    ("InvalidObjectState: not valid for the object's storage class", "archive class"),
])  # fmt: skip
def test_hints(tmp_path: Path, message: str, hint: str) -> None:
    with pytest.raises(StoreError) as caught:
        Rclone(Options(program=a_program(tmp_path, 1, message))).purge("r:x")
    assert hint in caught.value.hint
    assert bool(hint) == bool(caught.value.hint)


@pytest.mark.parametrize("message", [
    "Get https://s3/x?X-Amz-Signature=SECRET&a=1: failed", "https://u:SECRET@host/x refused",
    'x-amz-credential=SECRET" and more', "PUT /x?X-Amz-Security-Token=SECRET", "sftp://u:SECRET@h and ftp://v:SECRET@h",
])  # fmt: skip
def test_secrets_are_masked(tmp_path: Path, message: str) -> None:
    with pytest.raises(StoreError) as caught:
        Rclone(Options(program=a_program(tmp_path, 1, message))).listing("r:x")
    assert "SECRET" not in str(caught.value)
    assert "***" in str(caught.value)


def test_an_answer_that_is_no_listing(tmp_path: Path) -> None:
    for answer in ("", "{", "[1]", '[{"Path": "x"}]'):
        path = tmp_path / "rclone"
        path.write_text(f"#!{sys.executable}\nprint({answer!r})\n")
        path.chmod(0o700)
        with pytest.raises(StoreError, match="a listing in JSON"):
            Rclone(Options(program=str(path))).listing("r:x")


def test_a_slow_transfer_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "rclone"
    path.write_text("#!/bin/sh\nexec sleep 60\n")
    path.chmod(0o700)
    with pytest.raises(StoreError, match="Raise transfer_timeout"):
        Rclone(Options(program=str(path), transfer_timeout=1)).listing("r:x")


@pytest.mark.parametrize(("end", "expected"), [
    ("exit 0", {"a": b"first"}),  # it knows that b is not there, and nothing is asked again
    ("exit 3", {"a": b"first", "b": b"second"}),  # what came is whole, since rclone removes what is not
    ("kill -9 $$", {"a": b"second", "b": b"second"}),  # and has no time for that when it is killed
])  # fmt: skip
def test_objects_of_which_some_are_missing(tmp_path: Path, end: str, expected: dict[str, bytes]) -> None:
    """The first call asks for all at once, and fails where one is missing; a second one asks for those only."""
    path = tmp_path / "rclone"
    path.write_text(f"""#!/bin/sh
for target; do :; done
mkdir -p "$target"
case "$*" in *--s3-no-head-object*) printf first >"$target/a"; {end} ;; esac
while read -r name; do printf second >"$target/$name"; done <"${{target%/found}}/names"
""")
    path.chmod(0o700)
    assert Rclone(Options(program=str(path))).read_several("r:x", ["a", "b"]) == expected


def test_a_missing_configuration(tmp_path: Path) -> None:
    with pytest.raises(GuardError, match="no such file"):
        Rclone(Options(program=a_program(tmp_path, 0, ""), config=str(tmp_path / "none")))


@pytest.mark.parametrize(
    ("location", "kind"), [("/srv/x", DirectoryStore), ("r:", RcloneStore), ("r:b/p/", RcloneStore)]
)
def test_locations(tmp_path: Path, location: str, kind: type) -> None:
    store = open_store(location, Options(program=a_program(tmp_path, 0, "")))
    assert isinstance(store, kind)
    assert store.full_name("i/x") == {"/srv/x": "/srv/x/i/x", "r:": "r:i/x", "r:b/p/": "r:b/p/i/x"}[location]


@pytest.mark.parametrize(
    "location", ["", "relative", "-r:x", "./x", ":s3,secret_access_key=hush:b", "r,secret_access_key=hush:b"]
)
def test_no_locations(location: str) -> None:
    with pytest.raises(GuardError, match="the name of a remote") as error:
        open_store(location, Options())
    assert "hush" not in str(error.value)


def test_a_directory_holds_whole_objects_only(tmp_path: Path) -> None:
    store = DirectoryStore(str(tmp_path))
    with store.upload("a/b/x") as upload:
        os.write(upload.fd, b"half")
        assert store.list("a") == {}
    assert list((tmp_path / "a" / "b").iterdir()) == [], "what was not committed is gone"
    store.write("a/b/x", b"")
    store.write("a/y", b"12")
    assert store.list("a") == {"b/x": 0, "y": 2}
    assert store.list("nothing") == {}
    assert store.read("a/b/x") == b""
    assert store.read_many("a", "x") == {"b/x": b""}
    with pytest.raises(StoreError, match="at most 1 bytes"):
        store.read("a/y", 1)
    with pytest.raises(NotStored):
        store.read("a/z")
    store.remove("a/b")
    store.remove("a/b")
    assert store.list("a") == {"y": 2}


def test_a_missing_object_of_a_remote_with_directories(tmp_path: Path) -> None:
    """SFTP, for one, says "directory not found" of an object, where an object store says nothing."""
    store = RcloneStore("r:x", Options(program=a_program(tmp_path, 3, "ERROR : directory not found")))
    with pytest.raises(NotStored):
        store.read("guard-01/RECOVERY.md")
    store = RcloneStore("r:x", Options(program=a_program(tmp_path, 5, "ERROR : connection lost")))
    with pytest.raises(StoreError, match="connection lost") as caught:
        store.read("guard-01/RECOVERY.md")
    assert not isinstance(caught.value, NotStored)


def test_a_directory_that_is_not_mounted(tmp_path: Path) -> None:
    """It is not made by itself: the backup would land on the wrong disk."""
    store = DirectoryStore(str(tmp_path / "mount"))
    for call in (lambda: store.list("a"), lambda: store.write("a/x", b"")):
        with pytest.raises(StoreError, match="Is it mounted"):
            call()
    assert not (tmp_path / "mount").exists()


def a_listing(directory: Path, text: str) -> Rclone:
    """An rclone that prints this."""
    path = directory / "rclone"
    path.write_text(f"#!{sys.executable}\nprint({text!r})\n")
    path.chmod(0o700)
    return Rclone(Options(program=str(path)))


@pytest.mark.parametrize(("told", "seconds"), [
    ("2026-11-23T13:25:36.000000000Z", 1795440336.0), ("2026-11-23T21:25:36.123456789+08:00", 1795440336.0),
    ("2026-11-23T13:25:36Z", 1795440336.0), ("", None), ("soon", None),
])  # fmt: skip
def test_times_and_classes_of_a_listing(tmp_path: Path, told: str, seconds: float | None) -> None:
    listing = a_listing(tmp_path, f'[{{"Path":"a/b","Size":5,"ModTime":"{told}","Tier":"GLACIER"}}]')
    assert listing.details("r:x") == {"a/b": (5, seconds, "GLACIER")}


def test_a_listing_that_makes_no_sense(tmp_path: Path) -> None:
    for text in ("{}x", '[{"Path":"a"}]', "[3]"):
        with pytest.raises(StoreError, match="a listing in JSON"):
            a_listing(tmp_path, text).details("r:x")


def test_settings_that_cannot_be_read_are_not_shown(tmp_path: Path) -> None:
    for text in ('{"other": {"secret_access_key": "sesame"}}', '{"r": sesame'):
        with pytest.raises(StoreError) as caught:
            a_listing(tmp_path, text).settings("r:x")
        assert "sesame" not in f"{caught.value!r}{caught.value.__cause__!r}"
    assert a_listing(tmp_path, '{"r": {"type": "s3"}}').settings("r:x/y") == {"type": "s3"}


def test_a_directory_tells_the_same(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"12345")
    os.utime(tmp_path / "a" / "b", (7, 7))
    (tmp_path / "a" / ".c.tmp").write_bytes(b"half")
    (tmp_path / "empty" / "inside").mkdir(parents=True)
    store = DirectoryStore(str(tmp_path))
    assert store.details("") == {"a/b": (5, 7.0, "")}
    assert store.list("a") == {"b": 5}
    assert store.present(["a/b", "a/c", "x/y"]) == {"a/b"}
    store.remove_empty("empty")
    store.remove_empty("a")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]
