# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The remote of a Git repository: its address, its credentials, and a push that is believed only when read back.

Credentials and keys never meet the configuration of the repository that is backed up (``url.insteadOf`` or a
credential helper in it would send them elsewhere): a push starts from a throw-away copy that has none.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import typing as t
import urllib.parse

from ..errors import GuardError, StoreError
from ..system.process import Result
from .git_command import Git, Identity, opened_bundle, owner_of, plain

_HINT = "Use https://, ssh://, user@host:path, file:// or an absolute path."


class Remote(t.NamedTuple):
    """Where to push. ``address`` holds no secret."""

    address: str
    scheme: str
    username: str = ""
    password: str = ""
    local_path: str = ""

    def secrets(self) -> list[str]:
        """What must not be shown: as it is, and as a URL writes it."""
        both = [self.password, self.username if not self.password else ""]
        return [form for value in both if value for form in (value, urllib.parse.quote(value, safe=""))]


def parse_remote(url: str) -> Remote:
    """Take a remote's URL apart; what git would take for an option or a program to start is refused."""
    if not url or url.startswith("-") or any(not c.isprintable() for c in url):
        raise GuardError("the remote's URL", "an address", "an empty, garbled or option-like one", _HINT)
    match = re.match(r"([a-z][a-z0-9+.-]*)://", url)
    if not match:
        if re.match(r"[\w.-]+::", url):
            raise GuardError("the remote's URL", "an address", "the name of a transport program", _HINT)
        if re.match(r"[^/:]+:", url):
            return Remote(url, "ssh")
        if not os.path.isabs(url):
            raise GuardError("the remote's URL", "an address", "a relative path", _HINT)
        return Remote(url, "file", local_path=url)
    scheme = match.group(1)
    if scheme not in ("https", "http", "ssh", "file"):
        raise GuardError("the remote's URL", "https, http, ssh or file", f"the scheme {scheme}", _HINT)
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError as error:
        raise GuardError("the remote's URL", "an address", "one that cannot be read", _HINT) from error
    if scheme == "file":
        return Remote(url, scheme, local_path=urllib.parse.unquote(parts.path))
    userinfo, _at, host = parts.netloc.rpartition("@")
    name, _colon, password = userinfo.partition(":")
    if scheme == "ssh":
        if password:
            raise GuardError("the remote's URL", "no password for ssh", "one", "Give ssh_key_file instead.")
        return Remote(url, scheme)
    username, password = urllib.parse.unquote(name), urllib.parse.unquote(password)
    if any(not c.isprintable() for c in username + password):
        raise GuardError("the remote's URL", "printable credentials", "control characters in them")
    return Remote(urllib.parse.urlunsplit(parts._replace(netloc=host)), scheme, username, password)


@contextlib.contextmanager
def _credential_setting(remote: Remote) -> t.Iterator[list[str]]:
    """Settings that let git ask for the credentials, for this host only.

    They lie in memory that only our own user can open: not on disk, in an argument or in an environment.
    """
    if not remote.username and not remote.password:
        yield []
        return
    fd = os.memfd_create("guardops-credential")
    try:
        os.write(fd, f"username={remote.username}\npassword={remote.password}\n".encode())
        origin = "{0.scheme}://{0.netloc}".format(urllib.parse.urlsplit(remote.address))
        read = f'!f() {{ test "$1" = get && cat /proc/{os.getpid()}/fd/{fd}; }}; f'
        yield [f"credential.{origin}.helper={read}"]
    finally:
        os.close(fd)


def ssh_command(key_file: str | None) -> str:
    """How git starts ssh: no questions, known hosts only, and an end to a dead connection."""
    words = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15"]
    words += ["-o", "ServerAliveInterval=10", "-o", "ServerAliveCountMax=3"]
    if key_file:
        words += ["-o", "IdentitiesOnly=yes", "-i", key_file]
    return shlex.join(words)


def _give(tree: str, identity: Identity) -> None:
    """Hand a private tree over, its top last, so that nobody is inside while it changes hands."""
    for folder, _folders, files in os.walk(tree, topdown=False):
        for name in files:
            os.chown(os.path.join(folder, name), identity.uid, identity.gid, follow_symlinks=False)
        os.chown(folder, identity.uid, identity.gid)


def push_bundle(bundle: str, url: str, branch: str, ssh_key_file: str | None = None, timeout: float = 300.0) -> str:
    """Push a bundle's HEAD to ``branch`` of a remote, never by force; returns the commit that the remote then names.

    What counts is what the remote answers afterwards: a push that said nothing wrong is not believed,
    one whose answer was lost is.
    """
    remote = parse_remote(url)
    if ssh_key_file and not os.access(ssh_key_file, os.R_OK):
        raise GuardError(ssh_key_file, "a private key that can be read", "none")
    # A path on this host is written as its owner, as git demands: its hooks run there.
    identity = owner_of(remote.local_path) if os.path.isdir(remote.local_path) else None
    with opened_bundle(bundle) as scratch, _credential_setting(remote) as credential:
        settings = [*credential, "http.lowSpeedLimit=1000", "http.lowSpeedTime=30"]
        if identity is not None:
            _give(scratch.directory, identity)
        environment = {
            "GIT_ALLOW_PROTOCOL": remote.scheme,
            "GIT_SSH_COMMAND": ssh_command(ssh_key_file),
            "GIT_SSH_VARIANT": "ssh",
        }
        git = Git(scratch.directory, identity, environment)
        target = f"refs/heads/{branch}"
        git.run("check-ref-format", target)
        commit = git.text("rev-parse", "refs/guardops/HEAD")
        pushed = git.attempt(
            ("push", "--porcelain", "--", remote.address, f"{commit}:{target}"), settings=settings, timeout=timeout
        )
        listed = git.attempt(("ls-remote", "--", remote.address, target), settings=settings, timeout=min(timeout, 60.0))
    _judge(remote, branch, commit, pushed, listed)
    return commit


def _judge(remote: Remote, branch: str, commit: str, pushed: Result, listed: Result) -> None:
    """Decide from what the remote answered, first of all when it was asked what it has."""
    thing = f"branch {branch} of {remote.address}"
    there = listed.stdout.decode("ascii", "replace").split()
    if listed.rc == 0 and there and there[0] == commit:
        return
    now = f"the remote has {there[0] if there else 'no such branch'}" if listed.rc == 0 else "it could not be read back"
    if b"\t[rejected]" in pushed.stdout:
        raise GuardError(
            thing,
            f"a branch that commit {commit} continues",
            f"other commits; {now}",
            "Somebody else pushed there and nothing was overwritten. Merge their commits, or push to another branch.",
        )
    if pushed.timed_out:
        problem = f"no end within {pushed.seconds:.0f} s"
    else:
        words = (pushed.stdout.decode("utf-8", "replace") + " " + pushed.stderr) if pushed.rc else listed.stderr
        problem = f"exit code {pushed.rc}: {plain(words, remote.secrets()) or 'no message'}"
    raise StoreError(
        thing,
        f"commit {commit} after the push",
        f"{now}; {problem}",
        "Check the address, the network, the credentials and, for ssh, known_hosts. The commit is kept here.",
    )
