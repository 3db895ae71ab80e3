# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run git on a directory that somebody else may own, without letting that directory give the orders.

A repository's own configuration can name programs: hooks, filters, fsmonitor, ssh commands. So git runs as the
owner of the directory, who could run them anyway, and never as root on their behalf. Git's own check of ownership
(``safe.directory``) stays in force for that reason: it holds when git runs as the owner.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
import subprocess
import tempfile
import typing as t

from ..errors import GuardError
from ..system.process import Child, Result, clean_environment, find_program, run

LOCAL_TIMEOUT = 600.0
_NOBODY = 65534
_SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.untrackedCache=false",
    "core.safecrlf=false",
    "core.fsync=committed",
    "commit.gpgSign=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "submodule.recurse=false",
    "advice.detachedHead=false",
)


class Identity(t.NamedTuple):
    """Whom a program runs as."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


def identity_for(path: str, uid: int, gid: int) -> Identity | None:
    """Whom git runs as in a directory of that owner; None means as we are.

    An owner with an account gets the groups that a login would give, not the directory's group, which may be root's.
    """
    if uid == os.geteuid():
        return None
    if os.geteuid() != 0:
        raise GuardError(
            path,
            f"a directory of user {os.geteuid()}, who runs this",
            f"one of user {uid}",
            "Run as root or as the directory's owner: a repository's configuration can start programs.",
        )
    try:
        account = pwd.getpwuid(uid)
    except KeyError:
        return Identity(uid, gid or _NOBODY)
    return Identity(uid, account.pw_gid, tuple(os.getgrouplist(account.pw_name, account.pw_gid)))


def owner_of(path: str) -> Identity | None:
    """Whom git runs as in ``path``; None means as we are."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise GuardError(path, "a directory", error.strerror or str(error)) from error
    if not stat.S_ISDIR(found.st_mode):
        raise GuardError(path, "a directory", "something else")
    return identity_for(path, found.st_uid, found.st_gid)


def plain(text: str, secrets: t.Iterable[str] = ()) -> str:
    """What a program wrote, fit for an error message: without secrets and without control characters."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    return "".join(c if c.isprintable() else " " for c in text).strip()


class Git(t.NamedTuple):
    """A directory in which git commands run, and as whom."""

    directory: str
    identity: Identity | None = None
    environment: t.Mapping[str, str] = {}

    def argv(self, words: t.Sequence[str], settings: t.Sequence[str] = ()) -> list[str]:
        """The arguments of one command; ``settings`` are ``name=value``."""
        options = [word for setting in (*_SETTINGS, *settings) for word in ("-c", setting)]
        return [find_program("git", "Install the package git."), "--no-pager", *options, *words]

    def env(self) -> dict[str, str]:
        """Nothing of our home or of the system's configuration, no questions, no transport unless it was asked for."""
        return clean_environment(
            {
                "HOME": "/nonexistent",
                "XDG_CONFIG_HOME": "/nonexistent",
                "GIT_CONFIG_NOSYSTEM": "1",
                "GIT_CONFIG_GLOBAL": "/dev/null",
                "GIT_ATTR_NOSYSTEM": "1",
                "GIT_TERMINAL_PROMPT": "0",
                "GIT_OPTIONAL_LOCKS": "0",
                "GIT_NO_LAZY_FETCH": "1",
                "GIT_ALLOW_PROTOCOL": "none",
                "GIT_CEILING_DIRECTORIES": os.path.dirname(self.directory),
                **self.environment,
            }
        )

    def _who(self) -> dict[str, t.Any]:
        if self.identity is None:
            return {}
        return {"user": self.identity.uid, "group": self.identity.gid, "extra_groups": self.identity.groups}

    def attempt(
        self,
        words: t.Sequence[str],
        *,
        data: bytes | None = None,
        settings: t.Sequence[str] = (),
        timeout: float = LOCAL_TIMEOUT,
    ) -> Result:
        """Run one git command to its end and leave the judgement to the caller."""
        return run(
            self.argv(words, settings), data=data, env=self.env(), timeout=timeout, cwd=self.directory, **self._who()
        )

    def run(self, *words: str, data: bytes | None = None, accept: t.Container[int] = (0,)) -> Result:
        """Run one git command to its end; an exit code that is not in ``accept`` is an error."""
        result = self.attempt(words, data=data)
        if result.timed_out or result.rc not in accept:
            raise self._failed(words, result.rc, result.stderr, result.timed_out)
        return result

    def text(self, *words: str, accept: t.Container[int] = (0,)) -> str:
        """The one line that a command answers."""
        return os.fsdecode(self.run(*words, accept=accept).stdout).strip("\n")

    def stream(self, *words: str, stdin: int = subprocess.DEVNULL, stdout: int = subprocess.DEVNULL) -> None:
        """Run a command between open files: the program needs no right to their names."""
        with Child(
            self.argv(words),
            stdin=stdin,
            stdout=stdout,
            env=self.env(),
            timeout=LOCAL_TIMEOUT,
            cwd=self.directory,
            **self._who(),
        ) as child:
            rc = child.wait()
            if rc != 0:
                raise self._failed(words, rc, child.errors(), child.timed_out)

    def first_bytes(self, *words: str, limit: int) -> tuple[bytes, bool]:
        """At most ``limit`` bytes of what a command writes, and whether there was more."""
        with Child(
            self.argv(words),
            stdout=subprocess.PIPE,
            env=self.env(),
            timeout=LOCAL_TIMEOUT,
            cwd=self.directory,
            **self._who(),
        ) as child:
            found = t.cast("t.IO[bytes]", child.process.stdout).read(limit + 1)
            if len(found) > limit:
                return found[:limit], True
            rc = child.wait()
            if rc != 0:
                raise self._failed(words, rc, child.errors(), child.timed_out)
            return found, False

    def _failed(self, words: t.Sequence[str], rc: int, stderr: str, timed_out: bool) -> GuardError:
        found = f"no end within {LOCAL_TIMEOUT:.0f} s" if timed_out else f"exit code {rc}"
        return GuardError(self.directory, f"git {words[0]} to succeed", f"{found}: {plain(stderr) or 'no message'}")


@contextlib.contextmanager
def temporary_directory(identity: Identity | None = None) -> t.Iterator[str]:
    """A private directory for ``identity``, gone at the end."""
    with tempfile.TemporaryDirectory(prefix="guardops-git-") as path:
        if identity is not None:
            os.chown(path, identity.uid, identity.gid)
        yield path


@contextlib.contextmanager
def opened_bundle(path: str) -> t.Iterator[Git]:
    """A throw-away repository with all that a bundle holds, its HEAD as refs/guardops/HEAD.

    ``git bundle verify`` reads the first lines only. Fetching reads, unpacks and hashes every object.
    """
    with temporary_directory() as scratch:
        git = Git(scratch, environment={"GIT_ALLOW_PROTOCOL": "file"})
        git.run("init", "--quiet", "--bare", "--template=", "--initial-branch=main", ".")
        git.run("bundle", "verify", "--quiet", os.path.abspath(path))
        git.run("fetch", "--quiet", "--no-tags", os.path.abspath(path), "+refs/*:refs/*", "+HEAD:refs/guardops/HEAD")
        yield git
