# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is measured: the collection, and what people use today, each backing up and restoring one tree.

Every contender gets the same tree (weights and log lines), works with warm caches, and is judged
as a whole process: Python's start is in our figures as the shells' is in theirs.
"""

from __future__ import annotations

import json
import os
import pathlib
import shlex
import subprocess
import typing as t

from support.checkout import find_tool
from support.modules import module_command, module_environment, module_input


class Command(t.NamedTuple):
    """A program to time."""

    argv: list[str]
    stdin: bytes = b""
    env: dict[str, str] | None = None
    check: t.Callable[[bytes], None] = lambda _output: None


class Place(t.NamedTuple):
    """Where one run of a contender works. ``remote`` is an rclone remote and path, or a directory."""

    source: pathlib.Path
    work: pathlib.Path  # empty, removed afterwards
    remote: str
    rclone_config: str
    s3_url: str = ""
    s3_keys: tuple[str, str] = ("", "")


class Contender:
    """Backs up ``place.source`` and restores it to ``place.work / "restored"``."""

    name = ""
    restores = True

    def prepare(self, place: Place) -> None:
        """What is not timed."""

    def backup(self, place: Place) -> Command:
        """The timed backup."""
        raise NotImplementedError

    def restore(self, place: Place) -> Command:
        """The timed restore."""
        raise NotImplementedError


def _rclone(place: Place, *arguments: str) -> list[str]:
    return [find_tool("rclone"), "--config", place.rclone_config, *arguments]


def _shell(script: str) -> Command:
    return Command(["bash", "-euo", "pipefail", "-c", script])


class Collection(Contender):
    """The modules backup and restore of this collection, run as Ansible runs them on a host."""

    name = "this collection"

    def _options(self, place: Place) -> dict[str, t.Any]:
        key = place.work / "key"
        return {
            "instance": "bench",
            "layer": "model",
            "repository": place.remote,
            "rclone_config": place.rclone_config,
            "state_dir": str(place.work / "state"),
            "key": {"provider": "file", "key_file": str(key)},
        }

    def prepare(self, place: Place) -> None:
        key = place.work / "key"
        key.write_bytes(os.urandom(24).hex().encode())
        key.chmod(0o600)

    def _module(self, name: str, options: dict[str, t.Any]) -> Command:
        return Command(module_command(name), module_input(options), module_environment(), _changed)

    def backup(self, place: Place) -> Command:
        return self._module("backup", {**self._options(place), "path": str(place.source)})

    def restore(self, place: Place) -> Command:
        return self._module("restore", {**self._options(place), "path": str(place.work / "restored")})


def _changed(output: bytes) -> None:
    result = json.loads(output.splitlines()[-1])
    assert result.get("changed"), result


class UsualRecipe(Contender):
    """tar -czf, gpg -c, rclone copy: what most hosts run from cron."""

    name = "tar -czf, gpg -c, rclone copy"
    restores = False

    def backup(self, place: Place) -> Command:
        home = shlex.quote(str(place.work / "gnupg"))
        archive = shlex.quote(str(place.work / "backup.tar.gz"))
        upload = shlex.join(_rclone(place, "copy", f"{place.work}/backup.tar.gz.gpg", place.remote))
        return _shell(
            f"mkdir -m 700 {home}; tar -czf {archive} -C {shlex.quote(str(place.source))} .; "
            f"gpg --homedir {home} --batch --pinentry-mode loopback --passphrase bench -c {archive}; "
            f"gpgconf --homedir {home} --kill all; {upload}"
        )


class RcloneCopy(Contender):
    """The transport alone: no encryption, no archive, no hashes of its own."""

    name = "rclone copy"

    def backup(self, place: Place) -> Command:
        return Command(_rclone(place, "copy", str(place.source), place.remote))

    def restore(self, place: Place) -> Command:
        return Command(_rclone(place, "copy", place.remote, str(place.work / "restored")))


class Cp(Contender):
    """cp -r, there and back: what the disk and the page cache give."""

    name = "cp -r"

    def backup(self, place: Place) -> Command:
        return Command(["cp", "-r", str(place.source), f"{place.remote}/copy"])

    def restore(self, place: Place) -> Command:
        return Command(["cp", "-r", f"{place.remote}/copy", str(place.work / "restored")])


class Restic(Contender):
    """restic with its defaults, as installed."""

    name = "restic"

    def __init__(self) -> None:
        told = subprocess.run([find_tool("restic"), "version"], capture_output=True, check=True).stdout.decode()
        self.name = " ".join(told.split()[:2])

    def _environment(self, place: Place) -> dict[str, str]:
        repository = f"s3:{place.s3_url}/{place.remote.partition(':')[2]}" if place.s3_url else place.remote
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
            "RESTIC_REPOSITORY": repository,
            "RESTIC_PASSWORD": "bench",
            "RESTIC_CACHE_DIR": str(place.work / "cache"),
            "AWS_ACCESS_KEY_ID": place.s3_keys[0],
            "AWS_SECRET_ACCESS_KEY": place.s3_keys[1],
        }

    def prepare(self, place: Place) -> None:
        subprocess.run([find_tool("restic"), "init", "-q"], env=self._environment(place), check=True)

    def backup(self, place: Place) -> Command:
        return Command([find_tool("restic"), "backup", "-q", str(place.source)], env=self._environment(place))

    def restore(self, place: Place) -> Command:
        argv = [find_tool("restic"), "restore", "-q", "latest", "--target", str(place.work / "restored")]
        return Command(argv, env=self._environment(place))
