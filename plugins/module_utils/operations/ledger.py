# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tell the gateway which of its records are archived: a small file that it reads, and nobody else needs.

Private to the collection: use the modules, not this file.

It says what the repository's manifests say, so that it can be made again from them at any time. Each number of a
chain is told with the first snapshot that holds it. docs/audit-trail.md describes the file.
"""

from __future__ import annotations

import bisect
import datetime
import json
import re
import typing as t

from ..errors import GuardError
from ..format import fields
from ..format.manifest import Manifest
from ..system.files import write_atomically
from .session import Session

FORMAT = 1
_MOST_ENTRIES = 20_000  # two years of hourly increments
_MOST_BYTES = 16 << 20
_CHAIN = re.compile(r"\A[0-9a-f]{16}\Z")

Range = tuple[str, int, int]  # chain, first and last number


def status_of(remote: str, created: str) -> str:
    """What the gateway shows of a record that a snapshot of this time archived: ``archived_to_oss_20261123_0923``."""
    when = datetime.datetime.fromisoformat(created[:-1])
    return f"archived_to_{remote}_{when:%Y%m%d_%H%M}"


def update(session: Session, path: str, before: str, taken: Manifest | None, ranges: list[Range]) -> None:
    """Let the file speak of all snapshots there are.

    ``before`` was the newest when the run began, ``taken`` and its ``ranges`` came to it; None: nothing was new.
    The snapshot exists whatever happens here: what goes wrong is a warning.
    """
    remote = remote_of(session)
    try:
        ledger = _Ledger.load(path, remote)
        if ledger is None or ledger.snapshot != before:
            ledger = _from_manifests(session, remote)
        elif taken is not None:
            ledger.add(taken, ranges)
        else:
            return
        write_atomically(path, ledger.to_bytes(), mode=0o644)
    except GuardError as error:
        session.warn(
            f"{path} does not say what is archived now, and the gateway shows less than there is: {error} "
            "The snapshot itself is complete. The next run writes the file anew."
        )


def forget(session: Session, path: str) -> None:
    """Let the file speak of what is left after snapshots were removed.

    A number whose first snapshot is gone is told with the next one that holds it.
    """
    remote = remote_of(session)
    try:
        after = _from_manifests(session, remote, _Ledger.load(path, remote))
        write_atomically(path, after.to_bytes(), mode=0o644)
    except GuardError as error:
        session.warn(f"{path} still names snapshots that were removed: {error} The next run writes the file anew.")


def remote_of(session: Session) -> str:
    """The remote's name for people."""
    location = session.repository.store.location
    return "local" if location.startswith("/") else location.partition(":")[0]


def ranges_of(runs: t.Iterable[dict[str, t.Any]]) -> list[Range]:
    """The numbers that an index's runs of records hold."""
    return [(run["chain"], run["first"], run["last"]) for run in runs if run["chain"]]


def _from_manifests(session: Session, remote: str, known: _Ledger | None = None) -> _Ledger:
    """All that the repository holds.

    Of a chain with gaps only what ``known`` tells of the same snapshot: its manifest does not say where they are.
    """
    ledger = _Ledger(remote)
    told: dict[str, list[Range]] = {}
    for entry in known.entries if known is not None else ():
        told.setdefault(entry["snapshot"], []).append((entry["chain"], entry["first"], entry["last"]))
    for manifest in session.repository.manifests("logs").values():
        if isinstance(manifest, Manifest):
            chains = manifest.records["chains"] if manifest.records else []
            whole = [chain for chain in chains if chain["count"] >= chain["last"] - chain["first"] + 1]
            ranges = [(chain["chain"], chain["first"], chain["last"]) for chain in whole]
            ledger.add(manifest, [*ranges, *told.get(manifest.snapshot, [])])
    return ledger


class _Ledger:
    """The file's content."""

    def __init__(self, remote: str):
        self.remote = remote
        self.snapshot = ""  # the newest that it speaks of
        self.entries: list[dict[str, t.Any]] = []  # in the order of the snapshots
        self._held: dict[str, list[tuple[int, int]]] = {}  # chain -> ranges, sorted and apart

    @classmethod
    def load(cls, path: str, remote: str) -> _Ledger | None:
        """What is there; None where it is missing, damaged, or of another repository: then it is made anew."""
        try:
            with open(path, "rb") as source:
                raw = json.loads(source.read(_MOST_BYTES))
            if (raw["format"], raw["remote"]) != (FORMAT, remote):
                return None
            ledger = cls(remote)
            ledger.snapshot = fields.of_type(raw["snapshot"], str)
            for item in fields.of_type(raw["archived"], list):
                chain = fields.matching(item["chain"], _CHAIN)
                first, last = fields.count(item["first"]), fields.count(item["last"])
                told = {name: fields.of_type(item[name], str) for name in ("snapshot", "status")}
                ledger.entries.append({"chain": chain, "first": first, "last": last, **told})
                ledger._hold(chain, first, last)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise GuardError(path, "a file that can be read", error.strerror or str(error)) from error
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        return ledger

    def add(self, manifest: Manifest, ranges: t.Iterable[Range]) -> None:
        """Add what no snapshot before this one holds."""
        status = status_of(self.remote, manifest.created)
        for chain, first, last in sorted(set(ranges)):
            for low, high in self._missing(chain, first, last):
                self._hold(chain, low, high)
                newest = self.entries[-1] if self.entries else {}
                if (newest.get("chain"), newest.get("snapshot"), newest.get("last")) == (
                    chain, manifest.snapshot, low - 1,
                ):  # fmt: skip
                    newest["last"] = high
                else:
                    told = {"snapshot": manifest.snapshot, "status": status}
                    self.entries.append({"chain": chain, "first": low, "last": high, **told})
        self.snapshot = manifest.snapshot

    def _missing(self, chain: str, first: int, last: int) -> list[tuple[int, int]]:
        """The numbers from ``first`` to ``last`` that are not told yet."""
        found = []
        for low, high in self._held.get(chain, []):
            if high >= first and low <= last:
                if low > first:
                    found.append((first, low - 1))
                first = high + 1
        return [*found, (first, last)] if first <= last else found

    def _hold(self, chain: str, first: int, last: int) -> None:
        """Remember a range; those that touch become one."""
        held = self._held.setdefault(chain, [])
        place = bisect.bisect_left(held, (first, last))
        held.insert(place, (first, last))
        joined: list[tuple[int, int]] = []
        for low, high in held[max(place - 1, 0) :]:
            if joined and low <= joined[-1][1] + 1:
                joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
            else:
                joined.append((low, high))
        held[max(place - 1, 0) :] = joined

    def to_bytes(self) -> bytes:
        """The newest entries, as JSON."""
        told = {
            "format": FORMAT, "remote": self.remote, "snapshot": self.snapshot,
            "archived": self.entries[-_MOST_ENTRIES:],
        }  # fmt: skip
        return (json.dumps(told, separators=(",", ":")) + "\n").encode()
