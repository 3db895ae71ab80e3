# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Remove rotated audit logs that are old, and of which every record is archived.

logrotate's own `maxage` would remove them while backups fail. So nothing counts here but the ledger, which the backup
of the logs writes (docs/audit-trail.md): the numbers of each chain that its snapshots hold. What is in doubt stays.

Exit code 0: nothing that is old enough has to stay, or only files that no ledger can speak of. 1: something is not
archived, though it is old. 2: the ledger cannot be used.
"""

from __future__ import annotations

import argparse
import datetime
import gzip
import hashlib
import json
import os
import re
import sys
import time
import typing as t
import zlib

_PREFIX = re.compile(
    rb'\{"chain":"([0-9a-f]{16})","seq":([1-9][0-9]{0,17}),"prev":"[0-9a-f]{64}","time":"([0-9TZ:.-]{27})"'
)
_SUFFIX = re.compile(rb',"hash":"([0-9a-f]{64})"\}\n\Z')
_STATUS = re.compile(r"archived_to_.+_([0-9]{8}_[0-9]{4})")
_MOST_LINE = 64 << 20

Range = tuple[int, int, str]  # first and last number, and the minute in which the snapshot was made


class Stays(Exception):
    """Why a file is not removed."""


class NoRecords(Stays):
    """It holds what no ledger speaks of."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Remove rotated audit logs that are old and archived.")
    parser.add_argument("--ledger", required=True, help="what the backup of the logs writes")
    parser.add_argument("--days", required=True, type=int, help="how long files stay in any case; 0: for ever")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    parser.add_argument("logs", nargs="+", metavar="LOG", help="a live log; its rotated files are beside it")
    options = parser.parse_args()
    old = [path for log in options.logs for path in rotated(log, options.days)] if options.days > 0 else []
    if not old:
        print("nothing is old enough")
        return 0
    try:
        ledger = read_ledger(options.ledger)
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"{options.ledger}: cannot be used, so {len(old)} old files stay: {error}", file=sys.stderr)
        return 2
    return clean_up(old, ledger, options.dry_run)


def clean_up(paths: t.Iterable[str], ledger: dict[str, list[Range]], dry_run: bool) -> int:
    code = 0
    for path in paths:
        try:
            records = remove(path, ledger, dry_run)
        except NoRecords as reason:
            print(f"{path}: stays, and has to be looked at by somebody: {reason}")
        except Stays as reason:
            print(f"{path}: stays: {reason}", file=sys.stderr)
            code = 1
        else:
            print(f"{path}: {'would be removed' if dry_run else 'removed'}, {records} records are archived")
    return code


def rotated(log: str, days: int) -> list[str]:
    """What rotation made of this log, and nobody wrote to for so many days. The date in a name says nothing.

    A recovery brings logs back under names of their own where the live ones were taken: those count as rotated too.
    """
    directory, name = os.path.split(log)
    rotation, restore = r"-[0-9]{8}-[0-9]{10}", r"-restored-[0-9]{6,}(-[0-9]+)?"
    pattern = re.compile(rf"{re.escape(name)}({rotation}|({rotation})?{restore})(\.gz)?")
    with os.scandir(directory) as entries:
        return sorted(
            entry.path
            for entry in entries
            if pattern.fullmatch(entry.name)
            and entry.is_file(follow_symlinks=False)
            and entry.stat(follow_symlinks=False).st_mtime < time.time() - days * 86400
        )


def read_ledger(path: str) -> dict[str, list[Range]]:
    """The archived numbers of each chain."""
    with open(path, encoding="utf-8") as file:
        raw = json.load(file)
    if raw["format"] != 1:
        raise ValueError(f"expected format 1, found {raw['format']!r}")
    chains: dict[str, list[Range]] = {}
    for entry in raw["archived"]:
        made = _STATUS.fullmatch(entry["status"])
        if made is None:
            raise ValueError(f"expected archived_to_REMOTE_TIME, found {entry['status']!r}")
        chains.setdefault(entry["chain"], []).append((int(entry["first"]), int(entry["last"]), made.group(1)))
    return chains


def remove(path: str, ledger: dict[str, list[Range]], dry_run: bool) -> int:
    """Remove a file, and say how many records it had; `Stays` if it must not be."""
    records = 0
    with open(path, "rb") as raw:
        before = os.fstat(raw.fileno())
        try:
            with gzip.open(raw) if path.endswith(".gz") else raw as lines:
                for line in iter(lambda: lines.readline(_MOST_LINE), b""):
                    records += 1
                    expect_archived(line, records, ledger)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise Stays(f"it cannot be read to its end: {error}") from error
    now = os.stat(path, follow_symlinks=False)
    if (now.st_ino, now.st_size, now.st_mtime_ns) != (before.st_ino, before.st_size, before.st_mtime_ns):
        raise Stays("it changed while it was read")
    if not dry_run:
        os.unlink(path)
    return records


def expect_archived(line: bytes, number: int, ledger: dict[str, list[Range]]) -> None:
    """`Stays` unless this very record is in a snapshot."""
    prefix, suffix = _PREFIX.match(line), _SUFFIX.search(line)
    if prefix is None or suffix is None:
        raise NoRecords(f"line {number} is no numbered record, so nothing says whether it is archived")
    chain, seq, when = prefix.group(1).decode(), int(prefix.group(2)), prefix.group(3).decode()
    if hashlib.sha256(line[: suffix.start()]).hexdigest().encode() != suffix.group(1):
        raise Stays(f"line {number} was changed after it was written")
    minutes = [made for first, last, made in ledger.get(chain, ()) if first <= seq <= last]
    if not minutes:
        raise Stays(f"record {seq} of chain {chain} is not archived, though it is old: do backups of the logs work?")
    # A host that was set back to an older state gives numbers a second time: those are newer than that snapshot.
    if minute_of(when) > max(minutes):
        raise Stays(f"record {seq} of chain {chain} is newer than the snapshot that has its number")


def minute_of(when: str) -> str:
    """As the ledger writes it; times of records are UTC as well."""
    return f"{datetime.datetime.fromisoformat(when[:19]):%Y%m%d_%H%M}"


if __name__ == "__main__":
    sys.exit(main())
