# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A look at many directories that does not list all that they ever held."""

from __future__ import annotations

import pathlib

import pytest

from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import StoreError
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services import rclone
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.store import DirectoryStore

NAMES = ("a/logs/1/part", "a/logs/2/part", "a/records/day/1.gpg", "a/patrol.json", "a/.x.tmp", "b/model/1/part", "c")


@pytest.fixture
def store(tmp_path: pathlib.Path) -> DirectoryStore:
    for name in NAMES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return DirectoryStore(str(tmp_path))


def test_only_what_is_named_is_entered(store: DirectoryStore) -> None:
    found = store.walk("", [None, {"logs", "model", "patrol.json"}, None])
    assert sorted(found) == [
        "a/", "a/logs/", "a/logs/1/", "a/logs/2/", "a/patrol.json", "b/", "b/model/", "b/model/1/", "c",
    ]  # fmt: skip
    assert sorted(store.walk("a", [{"logs"}, None])) == ["logs/", "logs/1/", "logs/2/"]
    assert store.walk("nobody", [None]) == []


def test_a_repository_that_is_not_there_is_no_empty_one(tmp_path: pathlib.Path) -> None:
    with pytest.raises(StoreError, match="Is it mounted"):
        DirectoryStore(str(tmp_path / "gone")).walk("", [None])


def test_rclone_is_told_what_to_enter() -> None:
    arguments = rclone.walk_arguments(rclone.Options(), "oss:x", [None, {"b", "a"}, None])
    given = [value for flag, value in zip(arguments, arguments[1:]) if flag == "--filter"]
    assert given == ["+ /*", "+ /*/{a,b}", "+ /*/{a,b}/*", "+ /*/{a,b}/*/**", "- *"]
    assert arguments[arguments.index("--max-depth") + 1] == "3"
    assert arguments[-2:] == ["--", "oss:x"]
