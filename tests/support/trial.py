# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One instance, one repository, and module runs of which nothing may be left behind.

trial = Trial(tmp_path, tmp_path / "repository")
trial.make_model()
trial.refused("backup", "data key", key=other_key)     # fails, names it, leaves nothing
trial.run("backup").succeeded()
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import subprocess
import time
import typing as t
from pathlib import Path

import psutil
from sample_instance.compare import ASPECTS, compare_trees

from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.keys.key_file import make_key_file

from .checkout import find_tool
from .forked_modules import run_forked
from .modules import ModuleRun, module_command, module_environment, module_input

PART = 1 << 20  # the smallest that the modules take
INSTANCE = "guard-01"
_STATE_NAME = re.compile(r"(model|config|logs)\.(lock|state|journal)|fence\.(lock|json)")
_PATIENCE = 10.0  # seconds until the kernel has reaped what was killed


class Trial:
    """``place`` holds everything that belongs to it; ``repository`` is a directory, or a place in ``store``."""

    def __init__(self, place: Path, repository: str | Path, store: t.Any = None, state: str = "state"):
        self.place = place
        self.store = store
        self.repository = str(repository)
        self.state = place / state
        self.temporary = place / f"{state}-tmp"
        self.model = place / "model"
        self.user: int | None = None
        self.key_file = str(place / "trial.key")
        self.temporary.mkdir(parents=True)
        self.options: dict[str, t.Any] = {
            "instance": INSTANCE, "repository": self.repository, "state_dir": str(self.state),
            "rclone_config": store and store.config,
            "rclone_path": find_tool("rclone"),
            "gpg_path": self._watched_gpg(),
            "retries": 2,
            "idle_timeout": 3,
            "key": {"provider": "file", "key_file": self.key_file},
        }  # fmt: skip
        if not os.path.exists(self.key_file):
            make_key_file(self.key_file)
        if self.repository.startswith("/"):
            Path(self.repository).mkdir(exist_ok=True)

    def elsewhere(self, state: str, config: str | None = None) -> Trial:
        """The same instance and repository from another host, or by another way."""
        other = Trial(self.place, self.repository, self.store, state)
        other.options["rclone_config"] = config or self.options["rclone_config"]
        return other

    def _watched_gpg(self) -> str:
        """gpg that writes down its home, which is not below ``place``: only so can one see whether it is gone."""
        path = self.place / "watched-gpg"
        path.write_text(
            f'#!/bin/sh\ntest "$1" = --homedir && printf "%s\\n" "$2" >> "{self.place}/gpg-homes"\nexec gpg "$@"\n'
        )
        path.chmod(0o700)
        return str(path)

    # -- input

    def make_model(self, parts: int = 3) -> Path:
        """Random weights that fill so many parts, in two files, and a small text."""
        self.model.mkdir()
        half = parts * PART // 2 - 2048
        for name in ("a.safetensors", "b.safetensors"):
            (self.model / name).write_bytes(os.urandom(half))
        (self.model / "config.json").write_text('{"model_type": "qwen3"}\n')
        return self.model

    # -- runs

    def arguments(self, module: str, **more: t.Any) -> dict[str, t.Any]:
        """The module's options; ``more`` replaces some, and None leaves one out."""
        arguments = {**self.options, "layer": "model"}
        if module == "backup":
            arguments.update(path=str(self.model), part_size=str(PART))
        elif module in ("snapshot_info", "fence"):
            for name in ("key", "layer", "workers"):
                arguments.pop(name, None)
        arguments.update(more)
        return {name: value for name, value in arguments.items() if value is not None}

    def environment(self) -> dict[str, str]:
        """Temporary files of this trial's runs, and of no other, go below ``place``; it also marks its processes."""
        return {"TMPDIR": str(self.temporary)}

    def run(self, module: str, **more: t.Any) -> ModuleRun:
        """Run a module to its end."""
        arguments = self.arguments(module, **more)
        return run_forked(module, arguments, self.environment(), user=self.user)

    def give_to(self, user: int) -> None:
        """Let an ordinary user own everything, and run the modules. Needs root."""
        self.user = user
        for top in (self.place, *([Path(self.repository)] if self.repository.startswith("/") else [])):
            for path in (top, *top.rglob("*")):
                os.chown(path, user, user, follow_symlinks=False)

    @contextlib.contextmanager
    def started(self, module: str, **more: t.Any) -> t.Iterator[subprocess.Popen[bytes]]:
        """A module that runs; it is killed in the end if it still does."""
        process = subprocess.Popen(
            module_command(module), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=module_environment(self.environment()), start_new_session=True,
        )  # fmt: skip
        with process:
            try:
                assert process.stdin is not None
                process.stdin.write(module_input(self.arguments(module, **more)))
                process.stdin.close()
                process.stdin = None  # communicate() would flush it
                yield process
            finally:
                kill(process)

    def refused(self, module: str, *words: str, **more: t.Any) -> dict[str, t.Any]:
        """The run fails with an error that names thing, expected and found, and ``words``; no trace is left."""
        before = self.snapshots()
        done = self.run(module, **more)
        assert done.failed, done.result
        self.is_told(done.result, *words)
        self.nothing_left()
        assert self.snapshots() == before, "a run that failed changed what snapshots there are"
        return done.result

    @staticmethod
    def is_told(result: dict[str, t.Any], *words: str) -> None:
        """An error for people, not a traceback."""
        for field in ("thing", "expected", "found"):
            assert result.get(field), f"no {field} in {result.get('msg')}\n{result.get('exception', '')}"
        for word in words:
            assert re.search(word, result["msg"]), f"no {word!r} in {result['msg']!r}"

    def restores_equal(self, **more: t.Any) -> dict[str, t.Any]:
        """A restore into a new directory succeeds, and gives the model back."""
        target = self.place / f"restored-{secrets.token_hex(4)}"
        result = self.run("restore", path=str(target), **more).succeeded()
        assert not compare_trees(self.model, target, aspects=[a for a in ASPECTS if a != "holes"])
        self.nothing_left(target)
        return result

    # -- what is there

    def snapshots(self, layer: str = "model") -> list[str]:
        """Ids of the snapshots that exist, seen without the collection."""
        found = [name.split("/") for name in self.objects()]
        return sorted(n[2] for n in found if n[1:2] == [layer] and n[3:] == ["manifest.json"])

    def objects(self) -> dict[str, int]:
        """Sizes of all that is in the repository, by name."""
        if self.store is None:
            root = Path(self.repository)
            return {str(p.relative_to(root)): p.stat().st_size for p in root.rglob("*") if p.is_file()}
        prefix = self.repository.partition("/")[2] + "/"
        pages = self.store.seaweed.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.store.bucket, Prefix=prefix
        )
        return {item["Key"][len(prefix) :]: item["Size"] for page in pages for item in page.get("Contents", [])}

    def folder(self, snapshot: str, layer: str = "model") -> Path:
        """Where a snapshot lies in a repository that is a directory."""
        return Path(self.repository, INSTANCE, layer, snapshot)

    def nothing_left(self, target: Path | None = None) -> None:
        """No process, no temporary file of this trial's runs, wherever one could be."""
        assert not self.processes(), "processes are left"
        assert not list(self.temporary.iterdir()), "temporary files are left"
        state = self.state / INSTANCE
        names = [p.name for p in state.iterdir()] if state.exists() else []
        assert all(_STATE_NAME.fullmatch(name) for name in names), f"left in the state directory: {names}"
        work = self.state / "verify"
        assert not work.exists() or not list(work.iterdir()), "a verification's files are left"
        homes = self.place / "gpg-homes"
        if homes.exists():
            left = [home for home in set(homes.read_text().split()) if os.path.exists(home)]
            assert not left, f"gpg's homes are left: {left}"
        if self.repository.startswith("/"):
            assert not list(Path(self.repository).rglob(".*")), "temporary files are left in the repository"
        if target is not None and target.exists():
            assert not list(target.rglob(".guardops*")), "unfinished files are left in the target"

    def processes(self, patience: float = _PATIENCE) -> list[str]:
        """Command lines of processes that runs of this trial started and that do not end within ``patience``."""
        deadline = time.monotonic() + patience
        while (left := list(self._living())) and time.monotonic() < deadline:
            time.sleep(0.05)
        return left

    def _living(self) -> t.Iterator[str]:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                ours = process.environ().get("TMPDIR") == str(self.temporary)
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    yield " ".join(process.cmdline())


def kill(process: subprocess.Popen[bytes], sign: int = signal.SIGKILL) -> None:
    """Send a signal to the module's process group, as Ansible does; its children lead groups of their own."""
    if process.poll() is None:
        os.killpg(process.pid, sign)


def replaced(path: Path, change: t.Callable[[bytes], bytes]) -> None:
    """Damage a file: ``change`` gets its content and gives the new one."""
    path.write_bytes(change(path.read_bytes()))


def flipped(at: float) -> t.Callable[[bytes], bytes]:
    """One bit changed, at this fraction of the content."""

    def change(data: bytes) -> bytes:
        place = min(len(data) - 1, int(len(data) * at))
        return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]

    return change


def wait_until(happened: t.Callable[[], object], what: str, seconds: float = 60.0) -> None:
    """Wait for something to happen, with an end."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.02)
