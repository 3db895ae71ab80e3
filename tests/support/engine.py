# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The engine without Ansible: a repository in a directory, a key file, and one call for each operation."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import typing as t
from pathlib import Path

from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.repository import Repository
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import backup as backups
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import restore as restores
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.session import Progress, Session
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.gpg import Gpg
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.keys.base import KeyProvider
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.keys.key_file import KeyFile, make_key_file
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.store import DirectoryStore

INSTANCE = "guard-01"


class Engine:
    """One repository, one key, one state directory, all below ``base``."""

    def __init__(self, base: Path, layer: str = "model"):
        self.base = base
        self.layer = layer
        self.key_file = base / "trial.key"
        self.store_path = base / "repository"
        self.store_path.mkdir(parents=True)
        make_key_file(str(self.key_file))
        self.provider: t.Callable[[Gpg], KeyProvider] = lambda gpg: KeyFile(str(self.key_file), gpg)

    @property
    def repository(self) -> Repository:
        return Repository(DirectoryStore(str(self.store_path)), INSTANCE)

    @property
    def recovery_text(self) -> str:
        """What ``backup`` stored for people."""
        return (self.store_path / INSTANCE / "RECOVERY.md").read_text(encoding="utf-8")

    def objects(self, snapshot: str) -> Path:
        """Where the objects of a snapshot lie."""
        return self.store_path / INSTANCE / self.layer / snapshot

    @contextlib.contextmanager
    def session(self, *, dry: bool = False, workers: int = 2) -> t.Iterator[Session]:
        with Gpg() as gpg:
            yield Session(
                repository=self.repository,
                layer=self.layer,
                gpg=gpg,
                keys=self.provider(gpg),
                state_directory=str(self.base / "state"),
                workers=workers,
                attempts=1,
                part_timeout=120.0,
                progress=Progress(None),
                dry=dry,
            )

    def backup(self, path: Path, **options: t.Any) -> backups.Outcome:
        with self.session() as session:
            return backups.backup(session, backups.Options(str(path), **{"part_size": 8192, **options}))

    def restore(self, path: Path, *, dry: bool = False, **options: t.Any) -> restores.Outcome:
        with self.session(dry=dry) as session:
            return restores.restore(session, restores.Options(str(path), **options))


@contextlib.contextmanager
def short_place() -> t.Iterator[Path]:
    """A directory whose own path is short: the kernel takes no more than 4,095 bytes with what is in it."""
    path = Path(tempfile.mkdtemp(prefix="g-"))
    try:
        yield path
    finally:
        shutil.rmtree(path)
