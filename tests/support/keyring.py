# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What tests of gpg and of key providers share: a watched gpg, and OpenPGP keys made for the tests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import typing as t
from pathlib import Path

import psutil

from .checkout import find_tool


class WatchedProgram:
    """A stand-in for a program that writes down the arguments and environment it was given, then becomes it.

    Looking at /proc from outside would miss processes that end quickly; this misses none.
    """

    def __init__(self, name: str, directory: Path):
        self.path = str(directory / name)
        self._log = directory / f"{name}.seen"
        real = find_tool(name)
        Path(self.path).write_text(
            f"#!/bin/sh\ncat /proc/$$/cmdline /proc/$$/environ >> '{self._log}'\nexec {real} \"$@\"\n"
        )
        os.chmod(self.path, 0o700)

    def seen(self) -> bytes:
        return self._log.read_bytes() if self._log.exists() else b""


def living(text: str) -> list[int]:
    """Processes with ``text`` in their arguments, less those that ended and wait to be reaped."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and text in " ".join(process.cmdline()):
                found.append(process.pid)
        except psutil.NoSuchProcess:
            continue
    return found


class KeyRing:
    """A GnuPG home with keys; its path is short, as the agent's socket lies in it."""

    def __init__(self) -> None:
        self.home = tempfile.mkdtemp(prefix="guardops-test-")
        self.passphrases: dict[str, str] = {}

    def gpg(self, *arguments: str, data: bytes | None = None) -> bytes:
        command = ["gpg", "--homedir", self.home, "--batch", "--quiet", "--pinentry-mode", "loopback", *arguments]
        return subprocess.run(command, input=data, check=True, capture_output=True, timeout=60).stdout

    def make(
        self, name: str, passphrase: str = "", usage: str = "default", *options: str, expires: str = "never"
    ) -> str:
        """A new key; returns its fingerprint."""
        algorithm = "future-default" if usage == "default" else "ed25519"
        self.gpg(
            *options,
            "--passphrase",
            passphrase,
            "--quick-gen-key",
            f"{name} <{name}@example.org>",
            algorithm,
            usage,
            expires,
        )
        self.passphrases[name] = passphrase
        listing = self.gpg("--with-colons", "--list-keys", f"{name}@example.org").decode()
        return next(line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr:"))

    def public(self, name: str, directory: Path) -> str:
        path = directory / f"{name}.pub.asc"
        path.write_bytes(self.gpg("--armor", "--export", f"{name}@example.org"))
        return str(path)

    def private(self, name: str, directory: Path) -> str:
        path = directory / f"{name}.sec.asc"
        path.write_bytes(
            self.gpg("--passphrase", self.passphrases[name], "--armor", "--export-secret-keys", f"{name}@example.org")
        )
        return str(path)

    def stop_agent(self) -> None:
        subprocess.run(["gpgconf", "--homedir", self.home, "--kill", "all"], check=True, timeout=60)

    def remove(self) -> None:
        self.stop_agent()
        shutil.rmtree(self.home)


def tree_bytes(directory: str) -> bytes:
    """The contents of all regular files below ``directory``."""
    files = [path for path in Path(directory).rglob("*") if path.is_file()]
    return b"\0".join(path.read_bytes() for path in files)


def run_by_hand(text: str, directory: Path, env: t.Mapping[str, str] | None = None) -> bytes:
    """Run what a person would paste into a shell."""
    result = subprocess.run(
        ["sh", "-e", "-c", text],
        cwd=directory,
        check=True,
        capture_output=True,
        timeout=60,
        env={"PATH": os.environ["PATH"], **(env or {})},
    )
    return result.stdout


def write_manifest(directory: Path, wrapped: dict[str, t.Any], indent: int | None) -> None:
    """A manifest as far as a person needs it by hand: the wrapped key somewhere in it."""
    manifest = {"before": {"a": 1}, "key": wrapped, "after": [1]}
    (directory / "manifest.json").write_text(json.dumps(manifest, indent=indent))
