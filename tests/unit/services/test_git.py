# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Git repository of a directory, with a real git."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess

import pytest

from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import GuardError
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.git import (
    Change,
    GitRepository,
)
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.git_restore import restore_from_bundle
from support.git_trees import committed, new_tree, open_place, plain_git

ODD_NAMES = [
    "with\nnewline",
    "tab\there",
    " lead and trail ",
    '"quoted"',
    "-dash",
    ":(top)magic",
    "*",
    "Ünïcode-配置",
    "a\\b",
]


@pytest.fixture
def place():
    with open_place() as path:
        yield path


@pytest.fixture
def tree(place):
    return new_tree(place)


def test_first_commit_and_nothing_changed(tree):
    repository = GitRepository(str(tree))
    assert repository.head() is None
    assert repository.changes() == [Change("??", "nginx.conf")]
    assert not (tree / ".git").exists()  # looking makes nothing
    assert repository.ensure() is True
    assert repository.ensure() is False
    sha = repository.commit("first\n\nwith a body")
    assert sha == repository.head() == plain_git(tree, "rev-parse", "main")
    assert plain_git(tree, "log", "-1", "--format=%an <%ae>|%B").startswith(
        "guardops backup <guardops-backup@localhost>|first\n\nwith a body"
    )
    assert repository.commit("again") is None
    assert repository.changes() == []


def test_author_is_an_option(tree):
    repository = GitRepository(str(tree), author=("Äda", "ada@example.org"))
    repository.ensure()
    repository.commit("x")
    assert plain_git(tree, "log", "-1", "--format=%an %ae %cn %ce") == "Äda ada@example.org Äda ada@example.org"


def test_odd_names_survive_commit_bundle_and_restore(place, tree):
    names = [*ODD_NAMES, os.fsdecode(b"not-utf8-\xff\xfe"), "d/" * 40 + "deep"]
    for name in names:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(name, errors="surrogateescape")
    repository = GitRepository(str(tree))
    assert {change.path for change in repository.changes()} == {*names, "nginx.conf"}
    repository.ensure()
    repository.commit("odd")
    assert repository.changes() == []
    repository.bundle(str(place / "b"))
    shutil.copytree(tree, place / "copy", ignore=shutil.ignore_patterns(".git"))
    assert restore_from_bundle(str(place / "b"), str(place / "copy")) == []


def test_ignored_files_and_nested_repositories_are_named(tree):
    (tree / ".gitignore").write_text("secret.key\ncache/\n")
    (tree / "secret.key").write_text("k")
    (tree / "cache").mkdir()
    (tree / "cache" / "x").write_text("x")
    (tree / "inner").mkdir()
    plain_git(tree / "inner", "init", "--quiet")
    (tree / "inner" / "file").write_text("not in the outer repository")
    repository, sha = committed(tree)
    assert sha
    assert plain_git(tree, "ls-files").split() == [".gitignore", "nginx.conf"]
    assert repository.left_out() == [
        ("cache/", "ignored by .gitignore"),
        ("inner", "a repository of its own"),
        ("secret.key", "ignored by .gitignore"),
    ]
    assert Change("!!", "secret.key") in repository.changes()


def test_a_file_that_the_index_hides_is_named(tree):
    repository, _sha = committed(tree)
    plain_git(tree, "update-index", "--assume-unchanged", "nginx.conf")
    (tree / "nginx.conf").write_text("changed behind Git's back")
    assert repository.changes() == []
    assert repository.left_out() == [("nginx.conf", "marked in Git's index to be passed over")]


def test_changes_of_every_kind_are_committed(tree):
    for name in ("gone", "becomes-folder", "mode"):
        (tree / name).write_text(name)
    repository, first = committed(tree)
    (tree / "gone").unlink()
    (tree / "becomes-folder").unlink()
    (tree / "becomes-folder").mkdir()
    (tree / "becomes-folder" / "inside").write_text("x")
    (tree / "mode").chmod(0o755)
    (tree / "link").symlink_to("/etc/passwd")
    assert [(c.status, c.path) for c in repository.changes()] == [
        (".D", "becomes-folder"),
        ("??", "becomes-folder/inside"),
        (".D", "gone"),
        ("??", "link"),
        (".M", "mode"),
    ]
    second = repository.commit("second")
    assert second not in (None, first)
    assert repository.changes() == []
    assert plain_git(tree, "ls-tree", "HEAD", "link").startswith("120000")


def test_diff_shows_new_files_and_writes_nothing(tree):
    repository = GitRepository(str(tree))
    assert "+worker_processes 2;" in repository.diff()
    assert not (tree / ".git").exists()
    repository.ensure()
    repository.commit("first")
    (tree / "nginx.conf").write_text("worker_processes 4;\n")
    (tree / "new").write_text("new file\n")

    def state():
        return sorted((str(p), p.stat().st_mtime_ns) for p in (tree / ".git").rglob("*"))

    before = state()
    patch = repository.diff()
    assert "-worker_processes 2;\n+worker_processes 4;" in patch
    assert "+new file" in patch
    assert repository.changes()
    assert state() == before


def test_diff_is_bounded(tree):
    (tree / "large").write_text("0123456789abcde\n" * 200_000)
    patch = GitRepository(str(tree)).diff()
    assert len(patch) < 1_100_000
    assert patch.endswith("[the rest of the difference is not shown]\n")


def test_detached_head_is_committed_and_restored(place, tree):
    repository, _first = committed(tree)
    plain_git(tree, "checkout", "--quiet", "--detach")
    (tree / "nginx.conf").write_text("on no branch\n")
    sha = repository.commit("detached")
    assert repository.branch() is None
    made = repository.bundle(str(place / "b"))
    assert (made.head, made.branch) == (sha, None)
    (place / "copy").mkdir()
    shutil.copy(tree / "nginx.conf", place / "copy")
    assert restore_from_bundle(str(place / "b"), str(place / "copy")) == []
    assert GitRepository(str(place / "copy")).head() == sha
    assert GitRepository(str(place / "copy")).branch() is None


def test_conflicts_are_refused(tree):
    repository, _first = committed(tree)
    plain_git(tree, "checkout", "--quiet", "-b", "other")
    (tree / "nginx.conf").write_text("theirs\n")
    repository.commit("theirs")
    plain_git(tree, "checkout", "--quiet", "main")
    (tree / "nginx.conf").write_text("ours\n")
    ours = repository.commit("ours")
    with pytest.raises(subprocess.CalledProcessError):
        plain_git(tree, "merge", "other")
    with pytest.raises(GuardError, match=r"conflicts in 'nginx.conf'"):
        repository.commit("no")
    assert repository.head() == ours


def test_locks_of_a_killed_git(tree, monkeypatch):
    repository, _sha = committed(tree)
    (tree / "new").write_text("x")
    for name in ("index.lock", "HEAD.lock", "refs/heads/main.lock"):
        (tree / ".git" / name).touch()
    module = "ansible_collections.guardops.qwen3guard.plugins.module_utils.services.git._git_is_running"
    monkeypatch.setattr(module, lambda: True)
    with pytest.raises(GuardError, match=r"index\.lock: expected no other git at work"):
        repository.commit("x")
    monkeypatch.setattr(module, lambda: False)
    for name in ("index.lock", "HEAD.lock", "refs/heads/main.lock"):
        os.utime(tree / ".git" / name, (1, 1))
    assert repository.commit("x") == repository.head()


# -- bundles


def test_bundle_and_restore_keep_branches_tags_and_head(place, tree):
    repository, first = committed(tree)
    plain_git(tree, "tag", "-a", "v1", "-m", "v1")
    plain_git(tree, "branch", "old")
    (tree / "nginx.conf").write_text("second\n")
    second = repository.commit("second")
    made = repository.bundle(str(place / "config.bundle"))
    assert (made.head, made.branch, made.refs) == (second, "main", 3)
    assert made.bytes == (place / "config.bundle").stat().st_size
    assert sorted(os.listdir(place)) == ["config", "config.bundle"]

    copy = place / "elsewhere"
    shutil.copytree(tree, copy, ignore=shutil.ignore_patterns(".git"))
    assert restore_from_bundle(str(place / "config.bundle"), str(copy), "main") == []
    assert plain_git(copy, "status", "--porcelain") == ""
    assert plain_git(copy, "symbolic-ref", "HEAD") == "refs/heads/main"
    assert plain_git(copy, "for-each-ref") == plain_git(tree, "for-each-ref")
    assert plain_git(copy, "rev-parse", "old") == first
    plain_git(copy, "fsck", "--full", "--strict")
    with pytest.raises(GuardError, match="no repository yet"):
        restore_from_bundle(str(place / "config.bundle"), str(copy))


def test_nothing_is_written_to_our_own_output(place, tree, capfd):
    """A module's output is its result: a line of git's in it would break that."""
    repository, _sha = committed(tree)
    repository.bundle(str(place / "b"))
    shutil.copytree(tree, place / "copy", ignore=shutil.ignore_patterns(".git"))
    restore_from_bundle(str(place / "b"), str(place / "copy"))
    assert capfd.readouterr() == ("", "")


def test_restore_names_files_that_differ_and_leaves_them(place, tree):
    repository, _sha = committed(tree)
    repository.bundle(str(place / "b"))
    (place / "copy").mkdir()
    (place / "copy" / "nginx.conf").write_text("other content\n")
    (place / "copy" / "more").write_text("more\n")
    found = restore_from_bundle(str(place / "b"), str(place / "copy"))
    assert [(c.status, c.path) for c in found] == [("??", "more"), (".M", "nginx.conf")]
    assert (place / "copy" / "nginx.conf").read_text() == "other content\n"


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_bundle_is_refused_and_leaves_no_repository(place, tree, damage):
    (tree / "noise").write_bytes(secrets.token_bytes(20_000))
    repository, _sha = committed(tree)
    repository.bundle(str(place / "b"))
    data = bytearray((place / "b").read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    (place / "b").write_bytes({"flip": data, "cut": data[:-500], "empty": b""}[damage])
    (place / "copy").mkdir()
    with pytest.raises(GuardError, match=r"git (fetch|bundle) to succeed"):
        restore_from_bundle(str(place / "b"), str(place / "copy"))
    assert os.listdir(place / "copy") == []


def test_bundle_of_a_corrupt_repository_fails_and_leaves_no_file(place, tree):
    (tree / "noise").write_bytes(secrets.token_bytes(20_000))
    repository, _sha = committed(tree)
    blob = plain_git(tree, "rev-parse", "HEAD:noise")
    (tree / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(GuardError, match="git bundle to succeed"):
        repository.bundle(str(place / "b"))
    assert os.listdir(place) == ["config"]


def test_bundle_before_the_first_commit(place, tree):
    repository = GitRepository(str(tree))
    repository.ensure()
    with pytest.raises(GuardError, match="expected a repository with a commit, found none yet"):
        repository.bundle(str(place / "b"))
