# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Verify the record tables of snapshots of the logs. What is wrong with one does not end the verification.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import functools
import hashlib
import threading
import typing as t

from ..errors import IntegrityError, KeyProviderError
from ..format.manifest import Manifest, StoredPart
from ..format.record_table import RecordTable
from . import snapshots
from .part_io import with_retries
from .session import Session
from .snapshots import Opened

_MOST_BYTES = 64 << 20  # of tables in memory at once, but for one that is larger


def listed(session: Session, manifests: t.Sequence[Manifest], failures: list[str]) -> list[tuple[str, StoredPart]]:
    """(name, what is told of it) of all tables that are there in their sizes; one listing for all of them."""
    repository = session.repository
    sizes = repository.tables({day for manifest in manifests for day in manifest.table_days})
    found = []
    for table in [table for manifest in manifests for table in manifest.tables]:
        try:
            snapshots.check_table(repository, table, sizes)
        except IntegrityError as error:
            failures.append(str(error))
        else:
            found.append((repository.name(table.name), table))
    return found


def decrypted(session: Session, chain: t.Sequence[Opened], failures: list[str]) -> None:
    """Every table opens with its snapshot's key, and speaks of as many records as the manifest says."""
    there = {table.name for _name, table in listed(session, [opened.manifest for opened in chain], failures)}
    wanted: list[tuple[Opened, dict[str, t.Any]]] = [
        (opened, table)
        for opened in chain
        for table in (opened.manifest.records["tables"] if opened.manifest.records else [])
        if table["name"] in there
    ]
    repository = session.repository
    for batch in _batches(wanted):
        names = [repository.name(table["name"]) for _opened, table in batch]
        read = functools.partial(repository.store.read_several, names)
        data = with_retries(session.attempts, threading.Event().wait, read)
        for name, (opened, table) in zip(names, batch):
            try:
                _check(session, opened.passphrase, data.get(name, b""), table, repository.store.full_name(name))
            except (IntegrityError, KeyProviderError) as error:
                failures.append(str(error))


def _check(session: Session, passphrase: bytes, data: bytes, table: dict[str, t.Any], where: str) -> None:
    digest = hashlib.sha256(data).hexdigest()
    if digest != table["sha256"]:
        raise IntegrityError(where, f"SHA-256 {table['sha256']}", f"{len(data)} bytes with {digest}")
    plain = session.gpg.decrypt_bytes(data, passphrase, where)
    found = RecordTable.decode(plain, where, table["name"])
    if found.count != table["count"]:
        raise IntegrityError(where, f"{table['count']} records", f"{found.count}")


def _batches(tables: list[tuple[Opened, dict[str, t.Any]]]) -> t.Iterator[list[tuple[Opened, dict[str, t.Any]]]]:
    batch: list[tuple[Opened, dict[str, t.Any]]] = []
    size = 0
    for item in tables:
        if batch and size + item[1]["size"] > _MOST_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += item[1]["size"]
    if batch:
        yield batch
