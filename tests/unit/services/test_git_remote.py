# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pushes: to real bare repositories, to nowhere, and to a server that asks for a password."""

from __future__ import annotations

import base64
import os
import secrets
import socket
import threading
from pathlib import Path

import pytest

from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import GuardError, StoreError
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services import git_remote
from support.git_trees import bare, committed, new_tree, open_place, plain_git


@pytest.fixture
def place():
    with open_place() as path:
        yield path


@pytest.fixture
def tree(place):
    return new_tree(place)


def test_push_to_a_bare_remote(place, tree):
    remote = bare(place)
    repository, sha = committed(tree)
    assert repository.push(str(remote), "main") == sha == plain_git(remote, "rev-parse", "main")
    assert repository.push(f"file://{remote}", "main") == sha  # nothing new is fine
    (tree / "nginx.conf").write_text("2\n")
    second = repository.commit("2")
    assert repository.push(str(remote), "main") == second == plain_git(remote, "rev-parse", "main")


def test_a_remote_that_went_another_way_is_left_alone(place, tree):
    remote = bare(place)
    repository, _sha = committed(tree)
    repository.push(str(remote))
    plain_git(place, "clone", "--quiet", str(remote), "clone")
    (place / "clone" / "theirs").write_text("x")
    plain_git(place / "clone", "add", "theirs")
    plain_git(place / "clone", "commit", "--quiet", "-m", "theirs")
    plain_git(place / "clone", "push", "--quiet")
    theirs = plain_git(remote, "rev-parse", "main")
    (tree / "ours").write_text("x")
    ours = repository.commit("ours")
    with pytest.raises(GuardError, match=f"commit {ours} continues, found other commits; the remote has {theirs}"):
        repository.push(str(remote))
    assert plain_git(remote, "rev-parse", "main") == theirs


def test_a_remote_hook_that_refuses(place, tree):
    remote = bare(place)
    hook = remote / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho no pushes on Friday >&2\nexit 1\n")
    hook.chmod(0o755)
    # Our own settings switch hooks off here; the remote must decide for itself.
    repository, _sha = committed(tree)
    with pytest.raises(StoreError, match="no pushes on Friday"):
        repository.push(str(remote))


def test_success_is_what_the_remote_says_afterwards(place, tree, monkeypatch):
    remote = bare(place)
    repository, sha = committed(tree)
    real = git_remote.Git.attempt

    def silent_push(self, words, **options):
        return real(self, ("--version",) if words[0] == "push" else words, **options)

    monkeypatch.setattr(git_remote.Git, "attempt", silent_push)
    with pytest.raises(StoreError, match=f"commit {sha} after the push, found the remote has no such branch"):
        repository.push(str(remote))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_an_unreachable_remote_and_no_secret_in_the_error(tree):
    repository, _sha = committed(tree)
    password = secrets.token_hex(12)
    with pytest.raises(StoreError, match="it could not be read back") as caught:
        repository.push(f"http://backup:{password}@127.0.0.1:{free_port()}/config.git", timeout=20)
    assert password not in str(caught.value)


def test_a_missing_local_remote(place, tree):
    repository, _sha = committed(tree)
    with pytest.raises(StoreError, match="does not appear to be a git repository"):
        repository.push(str(place / "none.git"))


class _Asker(threading.Thread):
    """A web server that wants a password, keeps what it is told, and says no."""

    def __init__(self):
        super().__init__(daemon=True)
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.authorizations = []
        self.seen = []

    def run(self):
        while True:
            try:
                connection, _address = self.socket.accept()
            except OSError:
                return
            with connection:
                request = b""
                while b"\r\n\r\n" not in request:
                    more = connection.recv(65536)
                    if not more:
                        break
                    request += more
                self.seen.append(_everything_visible())
                self.authorizations += [
                    line.split(b": ", 1)[1] for line in request.split(b"\r\n") if line.startswith(b"Authorization")
                ]
                connection.sendall(
                    b"HTTP/1.1 401 no\r\nWWW-Authenticate: Basic realm=x\r\n"
                    b"Content-Length: 0\r\nConnection: close\r\n\r\n"
                )

    def stop(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.join()


def _everything_visible():
    """Arguments and environments of all processes that there are now."""
    found = b""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        for name in ("cmdline", "environ"):
            try:
                found += Path(f"/proc/{pid}/{name}").read_bytes()
            except OSError:
                continue  # it ended, or it is another user's
    return found


def test_credentials_reach_the_server_and_nobody_else(tree):
    repository, _sha = committed(tree)
    server = _Asker()
    server.start()
    password = "p%40ss/" + secrets.token_hex(8)
    encoded = password.replace("%", "%25").replace("/", "%2F")
    try:
        with pytest.raises(StoreError) as caught:
            repository.push(f"http://backup:{encoded}@127.0.0.1:{server.port}/config.git", timeout=30)
    finally:
        server.stop()
    assert base64.b64encode(f"backup:{password}".encode()) in b" ".join(server.authorizations)
    assert any(b"credential.http" in seen for seen in server.seen)  # we did look at the right processes
    assert not any(form.encode() in seen for seen in server.seen for form in (password, encoded))
    assert not any(form in str(caught.value) for form in (password, encoded))


def test_set_remote_keeps_no_credentials(tree):
    repository, _sha = committed(tree)
    assert repository.set_remote("https://me:hunter2@git.example.org/c.git") is True
    assert repository.set_remote("https://me:other@git.example.org/c.git") is False
    assert "hunter2" not in (tree / ".git" / "config").read_text()
    assert plain_git(tree, "remote", "get-url", "origin") == "https://git.example.org/c.git"


@pytest.mark.parametrize(
    "url",
    ["", "--upload-pack=x", "ext::sh -c id", "relative/path", "ftp://h/x", "ssh://u:p@h/x", "https://u:a%0Ab@h/x"],
)
def test_urls_that_are_refused(url):
    with pytest.raises(GuardError, match="the remote's URL"):
        git_remote.parse_remote(url)


def test_ssh_key_must_be_there(place, tree):
    repository, _sha = committed(tree)
    with pytest.raises(GuardError, match="a private key that can be read"):
        repository.push("git@127.0.0.1:config.git", ssh_key_file=str(place / "none"))
    assert git_remote.ssh_command("/a b/k'ey").endswith("-i '/a b/k'\"'\"'ey'")
