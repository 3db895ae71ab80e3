# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The files of an evidence bundle.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import secrets
import shutil
import typing as t

from ..errors import GuardError
from ..services.signature import Signer
from ..system.files import fsync_path

STATEMENT, SIGNATURE, SIGNER, SUMMARY, CHECKER, README = (
    "statement.json", "statement.json.asc", "signer.asc", "summary.html", "check.py", "README.txt"
)  # fmt: skip
_PLAIN_BYTES = 100_000_000  # of one file of records
_LEVEL = 1  # a higher one would take most of the time of an export
_BUFFER = 1 << 20


class Bundle:
    """A directory that gets its name when it is complete. Use as a context manager, and `commit` it."""

    def __init__(self, path: str):
        if not os.path.isabs(path):
            raise GuardError("option path", "an absolute path", path)
        self.path = path.rstrip("/")
        if os.path.lexists(self.path) and not (os.path.isdir(self.path) and not os.path.islink(self.path)):
            raise GuardError(path, "a new name, or an empty directory", "something else")
        if os.path.isdir(self.path) and os.listdir(self.path):
            raise GuardError(path, "a new name, or an empty directory", "one with content", "Choose another.")
        parent, name = os.path.split(self.path)
        if not os.path.isdir(parent):
            raise GuardError(parent, "a directory that exists", "none", "Make it first.")
        self.directory = os.path.join(parent, f".{name}.{secrets.token_hex(4)}.tmp")
        self.files: dict[str, dict[str, t.Any]] = {}
        self._records: _RecordFile | None = None
        self._name = ""
        self._number = 0

    def __enter__(self) -> Bundle:
        try:
            os.mkdir(self.directory, 0o700)
            os.mkdir(os.path.join(self.directory, "records"), 0o700)
        except OSError as error:
            raise GuardError(self.path, "a directory that can be made", error.strerror or str(error)) from error
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._records is not None:
            self._records.close()
        if os.path.isdir(self.directory):
            shutil.rmtree(self.directory)

    def add_line(self, line: bytes) -> None:
        """The next record."""
        if self._records is None:
            self._number += 1
            self._name = f"records/{self._number:05d}.jsonl.gz"
            self._records = _RecordFile(os.path.join(self.directory, self._name))
        self._records.write(line)
        if self._records.plain_bytes >= _PLAIN_BYTES:
            self.end_records()

    def end_records(self) -> None:
        """No more of them, or the next file."""
        if self._records is not None:
            self.files[self._name] = self._records.close()
            self._records = None

    def add(self, name: str, data: bytes) -> None:
        """A small file."""
        with open(os.path.join(self.directory, name), "xb") as output:
            output.write(data)
        self.files[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    def state(self, statement: bytes, signer: Signer | None) -> None:
        """The statement, last of all, and its signature, which is read back."""
        path = os.path.join(self.directory, STATEMENT)
        with open(path, "xb") as output:
            output.write(statement)
        if signer is not None:
            with open(f"{path}.asc", "xb") as output:
                output.write(signer.sign(statement))
            signer.verify(f"{path}.asc", path)

    def commit(self) -> None:
        """The bundle is complete: give it its name."""
        for directory, _names, files in os.walk(self.directory):
            for name in files:
                fsync_path(os.path.join(directory, name))
            fsync_path(directory)
        try:
            os.rename(self.directory, self.path)
        except OSError as error:
            raise GuardError(self.path, "a new name, or an empty directory", error.strerror or str(error)) from error
        fsync_path(os.path.dirname(self.path))


class _RecordFile:
    """A gzip file of lines, hashed as it is written."""

    def __init__(self, path: str):
        self._sink = _Sink(path)
        # Without a name and a time in its header the same records give the same bytes.
        self._gzip = gzip.GzipFile(filename="", mode="wb", compresslevel=_LEVEL, fileobj=self._sink, mtime=0)
        self._lines: list[bytes] = []
        self._waiting = 0
        self.plain_bytes = 0
        self.records = 0

    def write(self, line: bytes) -> None:
        self._lines.append(line)
        self._waiting += len(line)
        self.plain_bytes += len(line)
        self.records += 1
        if self._waiting > _BUFFER:
            self._flush()

    def _flush(self) -> None:
        self._gzip.write(b"".join(self._lines))
        self._lines.clear()
        self._waiting = 0

    def close(self) -> dict[str, t.Any]:
        self._flush()
        self._gzip.close()
        self._sink.close()
        return {
            "bytes": self._sink.size, "sha256": self._sink.hash.hexdigest(), "records": self.records,
            "plain_bytes": self.plain_bytes,
        }  # fmt: skip


class _Sink(io.RawIOBase):
    """A new file that hashes what is written to it."""

    def __init__(self, path: str):
        self._output = open(path, "xb", buffering=_BUFFER)  # noqa: SIM115 - see close
        self.hash = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: t.Any) -> int:
        self.hash.update(data)
        self.size += len(data)
        return self._output.write(data)

    def close(self) -> None:
        if not self.closed:
            self._output.close()
        super().close()
