# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A repository whose owner is hostile: nothing that its configuration names may run as root."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import GuardError
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.git import GitRepository
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.git_restore import restore_from_bundle
from ansible_collections.guardops.qwen3guard.plugins.module_utils.system.process import run

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: git runs as another user")
pytestmark = pytest.mark.root


@pytest.fixture
def place():
    path = Path(tempfile.mkdtemp(prefix="guardops-test-"))
    path.chmod(0o755)
    (path / "witness").mkdir()
    (path / "witness").chmod(0o777)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def user():
    return random.randrange(200_000, 300_000)


def give(tree, user):
    for folder, _folders, files in os.walk(tree):
        os.chown(folder, user, user)
        for name in files:
            os.chown(os.path.join(folder, name), user, user, follow_symlinks=False)


def trap(place, name):
    """A program that leaves its user's number behind, and copies its input to its output."""
    script = place / f"{name}.sh"
    script.write_text(f"#!/bin/sh\nid -u >> {place}/witness/{name}\nid -G >> {place}/witness/groups\ncat\n")
    script.chmod(0o755)
    return script


def hostile(place, user):
    """A repository of ``user`` with a trap wherever Git's configuration can name a program."""
    tree = place / "config"
    tree.mkdir()
    (tree / "nginx.conf").write_text("x\n")
    (tree / ".gitattributes").write_text("* filter=trap diff=trap\n")
    subprocess.run(["git", "init", "--quiet", "-b", "main", str(tree)], check=True)
    for key in (
        "filter.trap.clean",
        "filter.trap.smudge",
        "core.fsmonitor",
        "core.sshCommand",
        "diff.trap.textconv",
        "diff.external",
        "core.pager",
        "core.editor",
        "gpg.program",
        "credential.helper",
        "core.askPass",
        "uploadpack.packObjectsHook",
        "core.alternateRefsCommand",
        "alias.status",
    ):
        value = str(trap(place, key))
        subprocess.run(
            ["git", "-C", str(tree), "config", key, "!" + value if key.startswith("alias") else value], check=True
        )
    subprocess.run(["git", "-C", str(tree), "config", "commit.gpgSign", "true"], check=True)
    for hook in ("pre-commit", "commit-msg", "post-commit", "reference-transaction", "post-index-change", "pre-push"):
        (tree / ".git" / "hooks").mkdir(exist_ok=True)
        shutil.copy(trap(place, hook), tree / ".git" / "hooks" / hook)
    give(tree, user)
    return tree


def witnesses(place):
    return {path.name: set(path.read_text().split()) for path in (place / "witness").iterdir()}


@needs_root
def test_traps_never_run_as_root(place, user):
    tree = hostile(place, user)
    subprocess.run(["git", "init", "--quiet", "--bare", "-b", "main", str(place / "remote.git")], check=True)
    repository = GitRepository(str(tree))
    repository.changes()
    assert "+x" in repository.diff()
    sha = repository.commit("first")
    repository.left_out()
    repository.push(str(place / "remote.git"))
    repository.bundle(str(place / "b"))
    assert repository.head() == sha
    seen = witnesses(place)
    assert seen.pop("filter.trap.clean") == {str(user)}  # a clean filter has to run; it runs as its owner
    assert "0" not in seen.pop("groups")
    assert seen == {}
    assert {path.lstat().st_uid for path in [tree, *tree.rglob("*")]} == {user}
    assert (place / "b").stat().st_uid == 0


@needs_root
def test_the_bundle_may_lie_where_the_owner_cannot_enter(place, user):
    tree = hostile(place, user)
    (place / "private").mkdir(mode=0o700)
    GitRepository(str(tree)).commit("first")
    made = GitRepository(str(tree)).bundle(str(place / "private" / "b"))
    copy = place / "copy"
    shutil.copytree(tree, copy, ignore=shutil.ignore_patterns(".git"))
    give(copy, user)
    assert restore_from_bundle(str(place / "private" / "b"), str(copy)) == []
    assert GitRepository(str(copy)).head() == made.head
    assert {path.lstat().st_uid for path in copy.rglob("*")} == {user}


@needs_root
def test_a_repository_comes_back_where_its_owner_cannot_go(place, user):
    """As in a verification's place, which is root's alone."""
    tree = hostile(place, user)
    GitRepository(str(tree)).commit("first")
    made = GitRepository(str(tree)).bundle(str(place / "b"))
    (place / "private").mkdir(mode=0o700)
    copy = place / "private" / "copy"
    shutil.copytree(tree, copy, ignore=shutil.ignore_patterns(".git"))
    give(copy, user)
    subprocess.run(["setfacl", "--default", "--modify=g::rwx", str(copy)], check=True)  # as role storage has it
    assert restore_from_bundle(str(place / "b"), str(copy)) == []
    assert {path.lstat().st_uid for path in [copy, *copy.rglob("*")]} == {user}
    (place / "private").chmod(0o755)
    assert GitRepository(str(copy)).head() == made.head


@needs_root
def test_url_rewriting_in_the_repository_does_not_redirect_a_push(place, user):
    tree = hostile(place, user)
    for name in ("remote.git", "thief.git"):
        subprocess.run(["git", "init", "--quiet", "--bare", "-b", "main", str(place / name)], check=True)
    subprocess.run(
        ["git", "config", "-f", str(tree / ".git/config"), f"url.{place}/thief.git.insteadOf", f"{place}/remote.git"],
        check=True,
    )
    os.chown(tree / ".git/config", user, user)
    repository = GitRepository(str(tree))
    sha = repository.commit("first")
    assert repository.push(str(place / "remote.git")) == sha
    assert not list((place / "thief.git" / "refs" / "heads").iterdir())


@needs_root
def test_a_file_that_the_owner_cannot_read_does_not_stop_the_rest(place, user):
    tree = hostile(place, user)
    (tree / "root-only.key").write_text("key")
    (tree / "root-only.key").chmod(0o600)
    repository = GitRepository(str(tree))
    assert repository.commit("first")
    assert [(c.status, c.path) for c in repository.changes()] == [("??", "root-only.key")]


@needs_root
def test_a_local_remote_is_written_as_its_owner(place, user):
    tree = hostile(place, user)
    remote = place / "remote.git"
    subprocess.run(["git", "init", "--quiet", "--bare", "-b", "main", str(remote)], check=True)
    shutil.copy(trap(place, "post-receive"), remote / "hooks" / "post-receive")
    other = user + 1
    give(remote, other)
    repository = GitRepository(str(tree))
    repository.commit("first")
    repository.push(str(remote))
    assert witnesses(place)["post-receive"] == {str(other)}
    assert {path.lstat().st_uid for path in remote.rglob("*")} == {other}


@needs_root
def test_a_nested_repository_of_another_user_is_not_entered(place, user):
    tree = place / "config"
    tree.mkdir()
    (tree / "a").write_text("a")
    (tree / "witness").mkdir()
    inner = hostile(tree, user)  # below a directory of root's
    (tree / "witness").chmod(0o777)
    subprocess.run(
        [
            "git",
            "-C",
            str(inner),
            "-c",
            "safe.directory=*",
            "-c",
            "core.hooksPath=/dev/null",
            "-c",
            "core.fsmonitor=false",
            "-c",
            "user.name=t",
            "-c",
            "user.email=t",
            "commit",
            "--quiet",
            "--no-gpg-sign",
            "--allow-empty",
            "-m",
            "x",
        ],
        check=True,
    )
    subprocess.run(["git", "init", "--quiet", "-b", "main", str(tree)], check=True)
    subprocess.run(
        ["git", "-C", str(tree), "-c", "safe.directory=*", "-c", "advice.addEmbeddedRepo=false", "add", "config"],
        check=True,
    )
    for path in (tree / "witness").iterdir():
        path.unlink()
    repository = GitRepository(str(tree))
    assert ("config", "a repository of its own") in repository.left_out()
    repository.changes()
    repository.diff()
    assert repository.commit("first")
    assert not list((tree / "witness").iterdir())


@needs_root
def test_mixed_ownership_is_refused(place, user):
    tree = hostile(place, user)
    os.chown(tree, 0, 0)  # root's directory, another user's .git
    with pytest.raises(GuardError, match=f"owned by user 0, as git runs, found owned by user {user}"):
        GitRepository(str(tree)).changes()
    assert witnesses(place) == {}


@needs_root
@pytest.mark.parametrize("name", [".git", ".git/config"])
def test_roots_repository_that_others_can_write_is_refused(place, name):
    (place / "config").mkdir()
    repository = GitRepository(str(place / "config"))
    repository.ensure()
    (place / "config" / name).chmod(0o775)
    with pytest.raises(GuardError, match="writable by root alone"):
        repository.changes()


@needs_root
def test_run_as(place, user):
    (place / "config").mkdir()
    os.chown(place / "config", user, user)
    with pytest.raises(GuardError, match="found run_as root"):
        GitRepository(str(place / "config"), run_as=(0, 0))
    with pytest.raises(GuardError, match="Permission denied"):
        GitRepository(str(place / "config"), run_as=(user + 1, user + 1)).ensure()


@needs_root
def test_an_owner_without_account_does_not_get_roots_group(place, user):
    (place / "config").mkdir()
    os.chown(place / "config", user, 0)
    identity = GitRepository(str(place / "config")).git_identity
    ours = os.getgroups()
    os.setgroups([0, 54321])  # what a root login has beside its own group
    try:
        done = run(["id", "-G"], user=identity.uid, group=identity.gid, extra_groups=identity.groups)
    finally:
        os.setgroups(ours)
    assert done.stdout.split() == [b"65534"]


@pytest.mark.parametrize("kind", ["file", "symlink", "objects", "commondir"])
def test_a_repository_that_lies_elsewhere_is_refused(place, kind):
    tree = place / "config"
    tree.mkdir()
    (place / "elsewhere").mkdir()
    subprocess.run(["git", "init", "--quiet", str(place / "elsewhere")], check=True)
    target = place / "elsewhere" / ".git"
    if kind == "file":
        (tree / ".git").write_text(f"gitdir: {target}\n")
    elif kind == "symlink":
        (tree / ".git").symlink_to(target)
    else:
        shutil.copytree(target, tree / ".git")
        if kind == "commondir":
            (tree / ".git" / "commondir").write_text(f"{target}\n")
        else:
            shutil.rmtree(tree / ".git" / "objects")
            (tree / ".git" / "objects").symlink_to(target / "objects")
    for action in ("changes", "ensure", "head"):
        with pytest.raises(GuardError, match=r"a directory, found a|whole in itself"):
            getattr(GitRepository(str(tree)), action)()


def test_a_work_tree_set_in_the_configuration_is_not_followed(place):
    (place / "config").mkdir()
    (place / "config" / "mine").write_text("x")
    (place / "other").mkdir()
    (place / "other" / "theirs").write_text("x")
    repository = GitRepository(str(place / "config"))
    repository.ensure()
    subprocess.run(
        ["git", "config", "-f", str(place / "config/.git/config"), "core.worktree", str(place / "other")], check=True
    )
    repository.commit("first")
    assert repository.changes() == []
    listed = subprocess.run(
        ["git", f"--git-dir={place}/config/.git", "ls-tree", "--name-only", "HEAD"], capture_output=True, check=True
    )
    assert listed.stdout == b"mine\n"
