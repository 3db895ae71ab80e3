# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The way back from a bundle to the Git repository of a directory.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import typing as t

from ..errors import GuardError, IntegrityError
from .git import Change, GitRepository, refs_of
from .git_command import opened_bundle, temporary_directory


def restore_from_bundle(
    bundle: str, worktree: str, branch: str | None = None, *, run_as: tuple[int, int] | None = None
) -> list[Change]:
    """Build ``.git`` in a restored directory from a bundle; what then still differs from the commit.

    The files of the directory are not touched. ``branch`` is the one to check out (it must be at the bundle's HEAD);
    without it, ``main`` or another branch that is there, or else a detached HEAD.
    """
    folder = os.path.join(os.path.abspath(worktree), ".git")
    if os.path.lexists(folder):
        raise GuardError(folder, "no repository yet", "one", "Move it away: two histories are not mixed.")
    with _ours_where_its_owner_cannot_go(worktree) as alone:
        return _restore(bundle, GitRepository(worktree, run_as=run_as, alone=alone), branch)


def _restore(bundle: str, repository: GitRepository, branch: str | None) -> list[Change]:
    folder = os.path.join(repository.path, ".git")
    with opened_bundle(bundle) as source, temporary_directory() as scratch:
        head, refs = source.text("rev-parse", "refs/guardops/HEAD"), refs_of(source)
        checked_out = _branch_at(refs, head, branch)
        pack = os.path.join(scratch, "all.pack")
        with open(pack, "wb") as output:
            source.stream("pack-objects", "--all", "--quiet", "--stdout", stdout=output.fileno())
        try:
            repository.ensure()
            git = repository.git()
            with open(pack, "rb") as data:
                git.stream("index-pack", "--stdin", stdin=data.fileno())
            if checked_out is None:
                git.run("update-ref", "--no-deref", "HEAD", head)
            else:
                git.run("symbolic-ref", "HEAD", f"refs/heads/{checked_out}")
            commands = b"".join(b"create %s\0%s\0" % (os.fsencode(n), s.encode()) for n, s in refs.items())
            git.run("update-ref", "--stdin", "-z", data=commands)
            git.run("reset", "--mixed", "--quiet", accept=(0, 1))
            git.run("fsck", "--connectivity-only", "--no-dangling", "--no-progress")
            if repository.head() != head:
                raise IntegrityError(bundle, f"HEAD {head} after the restore", str(repository.head()))
        except BaseException:
            # A half-built repository misleads. The first error is the one to tell.
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return [change for change in repository.changes() if change.status != "!!"]


def _branch_at(refs: dict[str, str], head: str, wanted: str | None) -> str | None:
    prefix = "refs/heads/"
    here = sorted(name[len(prefix) :] for name, at in refs.items() if name.startswith(prefix) and at == head)
    if wanted is not None:
        if wanted not in here:
            raise IntegrityError(f"branch {wanted}", f"in the bundle, at HEAD {head}", f"HEAD at {here or 'no branch'}")
        return wanted
    return "main" if "main" in here else (here[0] if here else None)


@contextlib.contextmanager
def _ours_where_its_owner_cannot_go(worktree: str) -> t.Iterator[bool]:
    """Let root build the repository where git, as the directory's owner, could not even reach it; whether it does.

    Such as a verification's place in the state directory. Nobody else can reach it either, and there is no repository
    yet whose configuration could give root orders. What was built belongs to the owner afterwards.
    """
    found = os.stat(worktree)
    if os.geteuid() != 0 or found.st_uid == 0 or not _is_shut(worktree):
        yield False
        return
    os.chown(worktree, 0, 0)
    try:
        yield True
    finally:
        for folder, _folders, files in os.walk(os.path.join(worktree, ".git")):
            for path in (folder, *(os.path.join(folder, name) for name in files)):
                os.lchown(path, found.st_uid, found.st_gid)
        os.chown(worktree, found.st_uid, found.st_gid)


def _is_shut(path: str) -> bool:
    """Whether a directory above is root's and open to nobody else; with an ACL the group's bits are its mask."""
    above = os.path.dirname(os.path.realpath(path))
    while above != "/":
        found = os.stat(above)
        if found.st_uid == 0 and not found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            return True
        above = os.path.dirname(above)
    return False
