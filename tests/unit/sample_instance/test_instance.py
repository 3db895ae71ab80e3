# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The sample instance has everything that a restore can get wrong."""

from __future__ import annotations

import argparse
import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from sample_instance import compare, config_tree, instance, logs, permissions

IS_ROOT = os.geteuid() == 0
SIZES = {"days": 2, "records_per_day": 20, "seed": 5}


@pytest.fixture(name="made", scope="module")
def fixture_made(tmp_path_factory: pytest.TempPathFactory) -> instance.Instance:
    return instance.make_instance(tmp_path_factory.mktemp("instance"), **SIZES)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def acl(path: Path, kind: str = permissions.ACCESS_ACL) -> str:
    return permissions.acl_text(os.getxattr(path, kind))


def test_three_layers(made: instance.Instance) -> None:
    assert {path.name for path in made.root.iterdir()} == {"models", "config", "logs"}
    assert made.left_out == ([] if IS_ROOT else ["capabilities", "owners"])


def test_same_seed_gives_the_same_tree(made: instance.Instance, tmp_path: Path) -> None:
    again = instance.make_instance(tmp_path, **SIZES)
    assert compare.compare_trees(made.root, again.root, ignore=["."]) == []


def test_modes_vary(made: instance.Instance) -> None:
    assert mode(made.config / config_tree.PRIVATE_FILE) == 0o600
    assert mode(made.config / "nginx.conf") == 0o640
    assert mode(made.config) == 0o750
    assert mode(made.config / "users") == 0o2750
    assert mode(made.logs) == 0o2750


def test_log_directory_gives_the_second_user_access_also_to_new_files(made: instance.Instance) -> None:
    assert acl(made.logs) == "user::rwx,user:65534:r-x,group::r-x,mask::r-x,other::---"
    assert acl(made.logs, permissions.DEFAULT_ACL) == acl(made.logs)
    for path in made.logs.iterdir():
        assert "user:65534:r-x" in acl(path)


def test_file_in_config_has_an_acl(made: instance.Instance) -> None:
    assert "user:65534:r--" in acl(made.config / "users/permissions.yml")


def test_xattrs(made: instance.Instance) -> None:
    assert os.getxattr(made.config / "routes/api_routes.json", "user.binary") == bytes(range(256))
    assert os.getxattr(made.config / "users", "user.empty") == b""
    assert os.getxattr(made.logs / logs.ACTIVE, "user.retention_days") == b"30"


@pytest.mark.root
@pytest.mark.skipif(not IS_ROOT, reason="only root may set capabilities and owners")
def test_root_gets_capability_and_owners(made: instance.Instance) -> None:
    assert os.getxattr(made.config / "hooks/reload.sh", permissions.CAPABILITY)
    assert {path.stat().st_uid for path in made.logs.iterdir()} == {instance.SERVICE_USER}


def test_links(made: instance.Instance) -> None:
    assert (made.models / "LICENSE").samefile(made.model / "LICENSE")
    assert (made.config / "sites/conf.d/limits.conf").stat().st_nlink == 2
    assert os.readlink(made.models / "current") == made.model.name
    assert os.readlink(made.config / "sites/default.conf") == "guard.conf"


def test_sparse_file_has_holes(made: instance.Instance) -> None:
    entry = compare.snapshot_tree(made.models).entries["cache/compile_cache.bin"]
    assert entry.size == 4 << 20
    assert entry.data_bytes < entry.size // 4


def test_times_have_nanoseconds(made: instance.Instance) -> None:
    entries = compare.snapshot_tree(made.root).entries
    assert [name for name, entry in entries.items() if name.startswith("models/") and entry.mtime_ns % 1000]
    assert [name for name, entry in entries.items() if name.startswith("config/") and entry.mtime_ns % 1000]
    assert [name for name, entry in entries.items() if name.startswith("logs/") and entry.mtime_ns % 1000]


def test_config_is_valid_and_has_a_chinese_name(made: instance.Instance) -> None:
    routes = json.loads((made.config / "routes/api_routes.json").read_text(encoding="utf-8"))
    assert "/api/audit" in [route["path"] for route in routes["routes"]]
    nginx = (made.config / "nginx.conf").read_text(encoding="utf-8")
    assert nginx.count("{") == nginx.count("}") > 0
    assert (made.config / "站点说明.md").is_file()


def test_grant_changes_the_permissions(tmp_path: Path) -> None:
    config_tree.write_config(tmp_path)
    before = compare.snapshot_tree(tmp_path)
    config_tree.grant(tmp_path, "new-service")
    changed = {line.partition(":")[0] for line in compare.compare_trees(before, tmp_path)}
    assert changed == {"users/permissions.yml"}
    assert "name: new-service, role: auditor" in (tmp_path / "users/permissions.yml").read_text(encoding="utf-8")


def test_records_are_those_of_the_history(made: instance.Instance) -> None:
    found = sorted(logs.iter_records(made.logs, torn=[]), key=lambda record: record["seq"])
    assert found == made.history.records


@pytest.mark.parametrize("kind", ["acls", "xattrs"])
def test_file_system_without_support_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    real = os.setxattr
    refused = {"acls": "system.posix_acl", "xattrs": "user."}[kind]

    def setxattr(path: Path, name: str, value: bytes) -> None:
        if name.startswith(refused):
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        real(path, name, value)

    monkeypatch.setattr(os, "setxattr", setxattr)
    with pytest.raises(instance.Unsupported, match=f"holds {kind}, found 'Operation not supported'.*--leave-out"):
        instance.make_instance(tmp_path, **SIZES)
    assert list(tmp_path.iterdir()) == []
    made = instance.make_instance(tmp_path, **SIZES, leave_out=[kind])
    assert kind in made.left_out
    entries = compare.snapshot_tree(tmp_path).entries.values()
    assert not [name for entry in entries for name in entry.xattrs if name.startswith(refused)]


def test_root_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    with pytest.raises(FileExistsError, match="found precious in it"):
        instance.make_instance(tmp_path)


def test_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="found colours"):
        instance.make_instance(tmp_path, leave_out=["colours"])


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("17", 17), ("3k", 3 << 10), ("500M", 500 << 20), ("2G", 2 << 30)]
)
def test_size_is_read_with_its_unit(text: str, size: int) -> None:
    assert instance.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "1.5G", "2T", "-1"])
def test_bad_size_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="such as 500M or 2G"):
        instance.parse_size(text)


def test_scripts_run_by_their_path(tmp_path: Path) -> None:
    folder = Path(instance.__file__).parent
    root = str(tmp_path / "root")

    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, *argv], capture_output=True, text=True, check=False)

    made = run(str(folder / "instance.py"), root, "--size", "2M", "--days", "1", "--records-per-day", "8")
    assert (made.returncode, made.stderr) == (0, "")
    assert "8 records" in made.stdout
    again = run(str(folder / "instance.py"), root)
    assert again.returncode == 1
    assert "expected an empty directory" in again.stderr
    equal = run(str(folder / "compare.py"), root, root)
    assert (equal.returncode, equal.stdout) == (0, "equal\n")
    different = run(str(folder / "compare.py"), root, f"{root}/logs")
    assert different.returncode == 1
