# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Git repository of a directory: what changed, a commit of it, and a bundle.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
import time
import typing as t

from ..errors import GuardError, IntegrityError
from .git_command import Git, identity_for, opened_bundle, owner_of, temporary_directory
from .git_remote import parse_remote, push_bundle

DIFF_LIMIT = 1 << 20
# The empty tree, which git knows without having it: what a first commit is compared with.
_EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
# A younger lock may belong to a program that is not called git and is about to end.
_LOCK_AGE = 2.0


class Change(t.NamedTuple):
    """A path and git's two letters for it: staged, not staged; ``??`` not in git yet, ``!!`` ignored."""

    status: str
    path: str


class Bundle(t.NamedTuple):
    """What a bundle was seen to hold."""

    head: str
    branch: str | None
    refs: int
    bytes: int


class GitRepository:
    """The repository of the directory ``path``.

    Commands run as the directory's owner (or ``run_as``, a numeric user and group), never as root for somebody else.
    """

    def __init__(
        self,
        path: str,
        *,
        run_as: tuple[int, int] | None = None,
        author: tuple[str, str] = ("guardops backup", "guardops-backup@localhost"),
        alone: bool = False,
    ):
        self.path = os.path.abspath(path)
        self.author = author
        owner = owner_of(self.path)
        if run_as is not None and run_as[0] == 0 and owner is not None:
            raise GuardError(self.path, "git to run as its owner", "run_as root", "A repository can start programs.")
        identity = owner if run_as is None else identity_for(self.path, *run_as)
        self.git_identity = identity  # None: as we are
        self._alone = alone  # nobody but root can reach this directory, whatever its modes say
        self._git = Git(self.path, identity)
        self._uid = os.geteuid() if identity is None else identity.uid

    # -- the repository itself

    def exists(self) -> bool:
        """Whether ``.git`` is there. One that could point elsewhere or be another user's orders is refused."""
        folder = os.path.join(self.path, ".git")
        try:
            found = os.lstat(folder)
        except FileNotFoundError:
            return False
        if not stat.S_ISDIR(found.st_mode):
            kind = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "a file"
            raise GuardError(
                folder,
                "a directory",
                kind,
                "A repository that lies elsewhere (a work tree, a submodule) is not backed up from here.",
            )
        for name in ("commondir", "objects", "refs", "config", "HEAD"):
            part = os.path.join(folder, name)
            with contextlib.suppress(FileNotFoundError):
                mode = os.lstat(part).st_mode
                if stat.S_ISLNK(mode) or name == "commondir":
                    raise GuardError(part, "a repository that is whole in itself", "a pointer to another place")
        for part in (folder, os.path.join(folder, "config"), os.path.join(folder, "config.worktree")):
            with contextlib.suppress(FileNotFoundError):
                self._check_owner(part)
        return True

    def _check_owner(self, part: str) -> None:
        found = os.lstat(part)
        if found.st_uid != self._uid:
            raise GuardError(
                part,
                f"owned by user {self._uid}, as git runs",
                f"owned by user {found.st_uid}",
                f"Give the directory and its .git to one owner: chown -R {self._uid} {self.path}/.git",
            )
        # With an ACL the group's bits are its mask, so this sees writers by ACL too.
        if self._uid == 0 and not self._alone and found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise GuardError(
                part,
                "writable by root alone, as git runs as root",
                f"mode {stat.S_IMODE(found.st_mode):o}",
                f"Whoever writes there could make root start programs: chmod -R go-w {self.path}/.git",
            )

    def ensure(self) -> bool:
        """Make the repository, with the branch ``main``, where there is none; whether one was made."""
        if self.exists():
            return False
        self._git.run("init", "--quiet", "--template=", "--initial-branch=main", ".")
        return True

    @contextlib.contextmanager
    def _reader(self) -> t.Iterator[Git]:
        """Git on this directory that changes nothing in it, also where there is no repository yet."""
        if self.exists():
            yield self._git._replace(environment={"GIT_WORK_TREE": self.path})
            return
        with temporary_directory(self._git.identity) as scratch:
            environment = {"GIT_DIR": os.path.join(scratch, "git"), "GIT_WORK_TREE": self.path}
            Git(self.path, self._git.identity).run(
                "init", "--quiet", "--bare", "--template=", "--initial-branch=main", environment["GIT_DIR"]
            )
            yield self._git._replace(environment=environment)

    def git(self) -> Git:
        """Git on this repository, which must be there."""
        if not self.exists():
            raise GuardError(self.path, "a Git repository", "none")
        return self._git._replace(environment={"GIT_WORK_TREE": self.path})

    # -- what changed

    def changes(self) -> list[Change]:
        """What differs from the last commit, by path; ignored files and nested repositories too."""
        with self._reader() as git:
            return _status(git)

    def left_out(self) -> list[tuple[str, str]]:
        """The paths that a commit leaves out, with the reason. Empty directories and special files are not listed."""
        with self._reader() as git:
            found = [(c.path, "ignored by .gitignore") for c in _status(git) if c.status == "!!"]
            found += [(path, "a repository of its own") for path in _nested(git)]
            found += [(path, "marked in Git's index to be passed over") for path in _hidden(git)]
        return sorted(found)

    def head(self) -> str | None:
        """The commit that is checked out; None before the first one."""
        with self._reader() as git:
            return git.text("rev-parse", "--verify", "--quiet", "HEAD^{commit}", accept=(0, 1)) or None

    def branch(self) -> str | None:
        """The branch that is checked out; None for a detached HEAD."""
        with self._reader() as git:
            return git.text("symbolic-ref", "--quiet", "--short", "HEAD", accept=(0, 1)) or None

    def diff(self) -> str:
        """What the next commit would change, new files included, as a patch of at most 1 MiB. Nothing is written."""
        with self._reader() as git, temporary_directory(git.identity) as scratch:
            base = git.text("rev-parse", "--verify", "--quiet", "HEAD^{tree}", accept=(0, 1)) or _EMPTY_TREE
            folder = git.environment.get("GIT_DIR", os.path.join(self.path, ".git"))
            exclude = _excluded(git)
            # New objects go to the scratch directory; what is there already is read where it is.
            git = git._replace(
                environment={
                    **git.environment,
                    "GIT_INDEX_FILE": os.path.join(scratch, "index"),
                    "GIT_OBJECT_DIRECTORY": scratch,
                    "GIT_ALTERNATE_OBJECT_DIRECTORIES": os.path.join(folder, "objects"),
                }
            )
            git.run("read-tree", base if base != _EMPTY_TREE else "--empty")
            _add(git, exclude)
            patch, more = git.first_bytes(
                "diff",
                "--cached",
                "--no-color",
                "--no-ext-diff",
                "--no-textconv",
                "--no-renames",
                base,
                limit=DIFF_LIMIT,
            )
        return patch.decode("utf-8", "replace") + ("\n[the rest of the difference is not shown]\n" if more else "")

    # -- commit

    def commit(self, message: str) -> str | None:
        """Commit all that changed; the new commit, or None when there was nothing to commit.

        A file that its owner cannot read is left out: ``changes()`` still names it afterwards.
        """
        git = self.git()
        conflicts = [c.path for c in _status(git) if "U" in c.status or c.status in ("AA", "DD")]
        if conflicts:
            raise GuardError(
                self.path,
                "no merge under way",
                f"conflicts in {', '.join(map(repr, conflicts[:5]))}",
                "Resolve them and commit, or give the merge up: git merge --abort",
            )
        self._remove_stale_locks()
        _add(git, _excluded(git))
        merging = os.path.lexists(os.path.join(self.path, ".git", "MERGE_HEAD"))
        if git.run("diff", "--cached", "--quiet", "--no-ext-diff", accept=(0, 1)).rc == 0 and not merging:
            return None
        name, email = self.author
        author = git._replace(
            environment={
                **git.environment,
                "GIT_AUTHOR_NAME": name,
                "GIT_AUTHOR_EMAIL": email,
                "GIT_COMMITTER_NAME": name,
                "GIT_COMMITTER_EMAIL": email,
            }
        )
        author.run(
            "commit",
            "--quiet",
            "--no-verify",
            "--no-gpg-sign",
            "--cleanup=whitespace",
            "--file=-",
            data=message.encode("utf-8", "surrogateescape"),
        )
        return self.head()

    def _remove_stale_locks(self) -> None:
        """Remove the locks of a git that was killed; while any git runs on this host they stay."""
        names = ["index.lock", "HEAD.lock"]
        branch = self.branch()
        if branch is not None:
            names.append(f"refs/heads/{branch}.lock")
        folder = os.open(os.path.join(self.path, ".git"), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    age = time.time() - os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime
                    if age < _LOCK_AGE or _git_is_running():
                        raise GuardError(
                            f"{self.path}/.git/{name}",
                            "no other git at work",
                            f"a lock that is {age:.0f} s old",
                            "Wait for the git that runs to end. If none works there, remove the lock.",
                        )
                    os.unlink(name, dir_fd=folder)
        finally:
            os.close(folder)

    # -- remote

    def set_remote(self, url: str, name: str = "origin") -> bool:
        """Write the remote's address, without credentials, into the repository; whether that changed anything."""
        git, address = self.git(), parse_remote(url).address
        if git.text("config", "--local", "--get", f"remote.{name}.url", accept=(0, 1)) == address:
            return False
        git.run("config", "--local", "--replace-all", f"remote.{name}.url", address)
        git.run("config", "--local", "--replace-all", f"remote.{name}.fetch", f"+refs/heads/*:refs/remotes/{name}/*")
        return True

    def push(
        self, remote_url: str, branch: str = "main", ssh_key_file: str | None = None, timeout: float = 300.0
    ) -> str:
        """Push the checked-out commit to ``branch`` of the remote; it is read back there. Never by force."""
        with temporary_directory() as scratch:
            bundle = os.path.join(scratch, "push.bundle")
            self._write_bundle(bundle, "HEAD")
            return push_bundle(bundle, remote_url, branch, ssh_key_file, timeout)

    # -- bundle

    def bundle(self, output_path: str) -> Bundle:
        """Write all branches, tags and HEAD into one file, unpack it again as proof, and say what it holds."""
        temporary = f"{output_path}.{secrets.token_hex(4)}.tmp"
        try:
            branch = self.branch()
            self._write_bundle(temporary, "--all")
            with opened_bundle(temporary) as copy:
                head, refs = copy.text("rev-parse", "refs/guardops/HEAD"), refs_of(copy)
                copy.run("fsck", "--connectivity-only", "--no-dangling", "--no-progress")
            if branch is not None and refs.get(f"refs/heads/{branch}") != head:
                raise IntegrityError(
                    self.path,
                    f"a bundle whose HEAD is branch {branch}",
                    f"{head}, which that branch is not at",
                    "Somebody else commits there now; try again.",
                )
            os.rename(temporary, output_path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
        return Bundle(head, branch, len(refs), os.path.getsize(output_path))

    def _write_bundle(self, path: str, *what: str) -> None:
        git = self.git()
        if self.head() is None:
            raise GuardError(self.path, "a repository with a commit", "none yet")
        # The owner writes to an open file: our directories need not be open to them.
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as output:
            git.stream("bundle", "create", "--quiet", "-", *what, stdout=output.fileno())
            os.fsync(output.fileno())


def refs_of(git: Git) -> dict[str, str]:
    """All references of an opened bundle but the one that stands for its HEAD."""
    lines = git.run("for-each-ref", "--format=%(objectname) %(refname)").stdout.splitlines()
    pairs = (line.split(b" ", 1) for line in lines)
    return {os.fsdecode(name): sha.decode("ascii") for sha, name in pairs if name != b"refs/guardops/HEAD"}


def _status(git: Git) -> list[Change]:
    out = git.run(
        "status",
        "--porcelain=v2",
        "-z",
        "--untracked-files=all",
        "--ignored=matching",
        "--no-renames",
        "--ignore-submodules=dirty",
    ).stdout
    return sorted(map(_change, filter(None, out.split(b"\0"))), key=lambda change: change.path)


def _change(record: bytes) -> Change:
    """One record of ``git status --porcelain=v2 -z --no-renames``."""
    kind = record[:1]
    if kind in (b"?", b"!"):
        return Change(kind.decode() * 2, os.fsdecode(record[2:]))
    fields = record.split(b" ", 10 if kind == b"u" else 8)
    return Change(fields[1].decode("ascii"), os.fsdecode(fields[-1]))


def _nested(git: Git) -> list[str]:
    """Repositories inside this one: Git would keep their commit's number only, and none of their files."""
    tracked = git.run("ls-files", "--stage", "-z").stdout.split(b"\0")
    links = {os.fsdecode(entry.split(b"\t", 1)[1]) for entry in tracked if entry.startswith(b"160000 ")}
    fresh = {change.path.rstrip("/") for change in _status(git) if change.status == "??" and change.path.endswith("/")}
    return sorted(links | fresh)


def _hidden(git: Git) -> list[str]:
    """Files that the index says to take as unchanged, whatever they hold."""
    entries = git.run("ls-files", "-v", "-z").stdout.split(b"\0")
    return [os.fsdecode(entry[2:]) for entry in entries if re.match(rb"[a-z] |S ", entry)]


def _excluded(git: Git) -> list[str]:
    return sorted({*_nested(git), *_hidden(git)})


def _add(git: Git, exclude: t.Sequence[str]) -> None:
    """Put all that changed into the index. A file that cannot be read (exit code 1) does not keep back the rest."""
    patterns = [b".", *(b":(exclude,top,literal)" + os.fsencode(path) for path in exclude)]
    git.run(
        "add",
        "--all",
        "--ignore-errors",
        "--pathspec-from-file=-",
        "--pathspec-file-nul",
        data=b"\0".join(patterns) + b"\0",
        accept=(0, 1),
    )


def _git_is_running() -> bool:
    """Whether any process called git is there; one that ends while we look does not count."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{pid}/comm", "rb") as name:
            if name.read().strip() == b"git":
                return True
    return False
