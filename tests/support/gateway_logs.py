# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the gateway's log writer, and reads what it wrote with the collection's own eyes (format/records.py)."""

from __future__ import annotations

import gzip
import json
import typing as t
from pathlib import Path

from ansible_collections.guardops.qwen3guard.plugins.module_utils.format import records
from qwen3guard_gateway.chain_writer import ChainWriter, Written
from qwen3guard_gateway.record import encode_fields


class Entry(t.NamedTuple):
    """One record and where it lies."""

    file: str
    record: records.Record
    content: dict[str, t.Any]


def read_entries(directory: Path) -> list[Entry]:
    """All records of the logs in a directory. Every line has to be one, whole and undamaged."""
    found = []
    for path in sorted(directory.glob("audit*")):
        if ".torn-" in path.name:
            continue
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        for line in data.splitlines(keepends=True):
            record = records.parse_line(line)
            assert record is not None, (path.name, line)
            if record.chain:
                assert records.is_intact(line), (path.name, line)
            found.append(Entry(path.name, record, json.loads(line)))
    return found


def chains_of(directory: Path) -> dict[str, list[Entry]]:
    """The records by chain, by number; each chain has to be without gap, fork or break, and say where it comes from."""
    chains: dict[str, list[Entry]] = {}
    for entry in read_entries(directory):
        if entry.record.chain:
            chains.setdefault(entry.record.chain, []).append(entry)
    for entries in chains.values():
        entries.sort(key=lambda entry: entry.record.seq)
        assert [entry.record.seq for entry in entries] == list(range(1, len(entries) + 1))
        first = entries[0]
        assert first.content["event"] == "chain"
        continues = first.content.get("continues")
        assert first.record.prev == (continues["hash"] if continues else records.NO_HASH)
        for before, after in zip(entries, entries[1:]):
            assert after.record.prev == before.record.hash
    return chains


def events(directory: Path, name: str) -> list[dict[str, t.Any]]:
    """The contents of all records with this event, in the order of their numbers."""
    found = [entry for entries in chains_of(directory).values() for entry in entries if entry.content["event"] == name]
    return [entry.content for entry in found]


class Place:
    """Where a writer works."""

    def __init__(self, root: Path):
        self.logs = root / "logs"
        self.state = root / "state"
        self.active = self.logs / "audit.log"
        self.logs.mkdir()
        self.state.mkdir()
        self._open: list[ChainWriter] = []

    def writer(self, **options: t.Any) -> ChainWriter:
        """A started writer."""
        writer = ChainWriter(self.logs, self.state, "8b", **options)
        writer.start()
        self._open.append(writer)
        return writer

    def crash(self, writer: ChainWriter) -> None:
        """What kill -9 leaves: files are closed by the kernel, nothing is said or saved."""
        writer._let_go()

    def close(self) -> None:
        """Whatever is still open."""
        for writer in self._open:
            writer.close()


def audits(writer: ChainWriter, count: int = 1, text: str = "a text") -> list[Written]:
    """Some records in one batch."""
    return writer.commit([encode_fields({"text": f"{text} {number}"}) for number in range(count)])
