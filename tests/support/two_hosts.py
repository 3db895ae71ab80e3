# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The engine on several hosts that share a repository in a directory: each has its own state and its own name."""

from __future__ import annotations

import contextlib
import dataclasses
import typing as t
from pathlib import Path
from unittest import mock

from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import StoreError
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.repository import Repository
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import backup, fence, prune, snapshots
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.prune_plan import Policy
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.session import Session
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.store import DirectoryStore

from .engine import INSTANCE, Engine
from .log_chain import LogDirectory

LAYERS = ("model", "config", "logs")


class Watched(DirectoryStore):
    """Does something once, just before or after a small object of that name is stored."""

    def __init__(self, location: str, moment: str = "", act: t.Callable[[], object] | None = None):
        super().__init__(location)
        self.moment, self.act = moment, act
        self.keeps = False  # whether removing is not allowed

    def _now(self, moment: str) -> None:
        if moment == self.moment and self.act is not None:
            act, self.act = self.act, None
            act()

    def put(self, name: str, data: bytes) -> None:
        base = "fence" if "/fences/" in name else name.rpartition("/")[2]
        self._now(f"before {base}")
        super().put(name, data)
        self._now(f"after {base}")

    def remove_several(self, names: t.Collection[str]) -> None:
        self._now("before removing")
        if self.keeps:
            raise StoreError(self.location, "the right to delete", "none")
        super().remove_several(names)


class Host:
    """One of them. ``data`` holds what it backs up, a directory for each layer."""

    def __init__(self, engine: Engine, name: str):
        self.engine = engine
        self.name = name
        self.data = engine.base / name
        self.state = engine.base / f"{name}-state"
        self.store = Watched(str(engine.store_path))
        self.warnings: list[str] = []
        (self.data / "model").mkdir(parents=True)
        (self.data / "model" / "config.json").write_text('{"model_type": "qwen3"}\n')
        (self.data / "config").mkdir()
        (self.data / "config" / "web.json").write_text("{}\n")
        self.logs = LogDirectory(self.data / "logs")
        self.logs.append("audit.log")

    @contextlib.contextmanager
    def session(self, layer: str, dry: bool = False) -> t.Iterator[Session]:
        with self.engine.session(dry=dry) as session, mock.patch("socket.gethostname", return_value=self.name):
            repository = Repository(self.store, INSTANCE)
            yield dataclasses.replace(
                session, repository=repository, layer=layer, state_directory=str(self.state), warnings=self.warnings
            )

    def change(self) -> None:
        """Something to back up in each layer, which no other host has."""
        self.logs.append("audit.log", padding=sum(self.name.encode()) % 32)
        for path in (self.data / "model" / "config.json", self.data / "config" / "web.json"):
            with path.open("a", encoding="utf-8") as file:
                file.write(f"{self.name}\n")

    def backup(self, layer: str = "model", dry: bool = False, **options: t.Any) -> backup.Outcome:
        with self.session(layer, dry) as session:
            return backup.backup(session, backup.Options(str(self.data / layer), **{"part_size": 8192, **options}))

    def backup_and_change(self, layer: str) -> None:
        """A snapshot, and something for the next one."""
        self.backup(layer)
        self.change()

    def fence(self, reason: str = "", dry: bool = False) -> fence.Outcome:
        with self.session("fence", dry) as session:
            return fence.take_over(session, reason)

    def prune(self, layer: str, apply: bool = True, dry: bool = False, only_prunes: bool = False) -> prune.Outcome:
        with self.session(layer, dry) as session:
            policy = Policy(keep_last=1, min_age=0.0)
            return prune.prune(session, prune.Options(policy, apply=apply, only_prunes=only_prunes))

    def choose(self, wanted: str = "latest", layer: str = "model") -> str:
        with self.session(layer) as session:
            return snapshots.choose(session, wanted).snapshot

    def listed(self, layer: str = "model") -> list[str]:
        """The snapshots that the store lists, seen without the collection."""
        return sorted(path.parent.name for path in (self.place / layer).glob("*/manifest.json"))

    @property
    def place(self) -> Path:
        return self.engine.store_path / INSTANCE

    def objects(self) -> set[str]:
        """Names of all objects below the instance."""
        return {str(path.relative_to(self.place)) for path in self.place.rglob("*") if path.is_file()}
