# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writes the chain: numbers the records, links them, makes a batch durable, and copes when that fails.

Everything here blocks. One thread at a time calls `ChainWriter.commit`; `probe` and `save_state` may run beside it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import typing as t
from pathlib import Path

from .chain_state import WRITE_ERROR, Start, State, StateFile, decide, machine_name, new_chain
from .errors import JournalError, JournalUnavailable
from .log_ends import Cut, End, cut_damaged_end, is_compressed, log_files, read_end, read_end_gzip
from .log_file import FOREIGN, DirectoryLock, LogFile, Suspect, Vanished, why
from .record import Head, Line, encode_fields, is_model, make_line, time_text

PROBE = ".gateway.probe"
_MOST_REPORTS = 1000
_RETRY_SECONDS = 1.0  # between attempts to begin again on a disk with errors
_FOREIGN_SECONDS = 60.0  # between records that others write to the log: there could be one for each of their lines
logger = logging.getLogger(__name__)


class Written(t.NamedTuple):
    """Where a record went."""

    head: Head
    line: Line


class ChainWriter:
    """The one writer of a log directory."""

    def __init__(
        self,
        directory: Path,
        state_directory: Path,
        model: str,
        clock: t.Callable[[], int] = time.time_ns,
        min_free_bytes: int = 0,
    ):
        if not is_model(model):
            raise ValueError(f"a model's short name has only letters, digits and dots, not {model!r}")
        self.reports: list[str] = []
        self.failure = ""  # why the last batch was not written
        self._directory = directory
        self._state_directory = state_directory
        self._model = model
        self._clock = clock
        self._min_free_bytes = min_free_bytes
        self._lock = DirectoryLock(directory)
        self._log: LogFile | None = None
        self._head = Head("", 0, "")
        self._beginning: dict[str, t.Any] | None = None  # the record that begins the chain, until it is written
        self._events: list[dict[str, t.Any]] = []  # what has to be recorded before the next audit
        self._refused = 0
        self._refused_since = ""
        self._suspect = ""  # why the file has to be set aside first
        self._retry_at = 0.0
        self._foreign_noted_at = -_FOREIGN_SECONDS
        self._state_file = StateFile(state_directory)
        self._state_lock = threading.Lock()
        self._state_failure = ""
        self._saved: Head | None = None
        self._machine = machine_name()

    @property
    def head(self) -> Head:
        """The last durable record; number 0 before the first."""
        return self._head

    # -- start ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Repair what a crash left, decide how the chain goes on, open the log."""
        self._lock.acquire()
        try:
            self._start()
        except BaseException as error:
            self._let_go()
            if isinstance(error, OSError):
                raise JournalError(why(error, str(error.filename or self._directory))) from error
            if isinstance(error, JournalUnavailable):
                raise JournalError(str(error)) from error
            raise

    def _start(self) -> None:
        self._check_state_directory()
        try:
            state, unreadable = self._state_file.load(), False
        except ValueError as error:
            state, unreadable = None, True
            self._report(f"{self._state_file.path} cannot be understood ({error}): taken for missing")
        self._repair()
        start = decide(state, unreadable, self._ends(state), self._machine)
        self._head, self._beginning = start
        self._log = LogFile(self._directory, self._lock.directory_descriptor)
        self._suspect = ""  # of an earlier attempt, whose batch was dropped
        if start.event is not None:
            self._announce(start)
        self.save_state()
        if self._state_failure:
            raise JournalError(self._state_failure)
        self._log.open()
        self.commit([])

    def _check_state_directory(self) -> None:
        if not self._state_directory.is_dir():
            raise JournalError(f"the state directory {self._state_directory} is not there")
        logs, state = self._directory.resolve(), self._state_directory.resolve()
        if state == logs or logs in state.parents:
            raise JournalError(
                f"the state directory {state} lies in the log directory: whoever brings back old logs would bring "
                "back the state that shows it"
            )

    def _repair(self) -> None:
        """A crash can have torn the file that was written last; right after a rotation that is not the active one."""
        plain = [path for path in log_files(self._directory) if not is_compressed(path)]
        for path in plain[:2]:
            cut = cut_damaged_end(path, self._now())
            if cut:
                self._note_cut(cut)

    def _note_cut(self, cut: Cut) -> None:
        self._report(f"{cut.file} ended in {cut.bytes} bytes of a damaged record; they are kept in {cut.kept_as}")
        self._events.append({"event": "repair", "reason": "torn line", **cut._asdict()})

    def _ends(self, state: State | None) -> list[End]:
        paths = log_files(self._directory)
        ends = [end for path in paths if not is_compressed(path) for end in (read_end(path),) if end]
        wanted = state.head if state else None
        if wanted and wanted.seq and not any(e.head.chain == wanted.chain and e.head.seq >= wanted.seq for e in ends):
            # Rotation compressed the last file at once, and nothing was written since.
            newest = next((path for path in paths if path.suffix == ".gz"), None)
            end = read_end_gzip(newest) if newest else None
            ends += [end] if end else []
        return ends

    def _announce(self, start: Start) -> None:
        event = start.event or {}
        text = f"chain {start.head.chain} begins: {event.get('reason')}"
        for name in ("continues", "expected"):
            if name in event:
                text += f"; {name} {event[name]['chain']} up to {event[name]['seq']}"
        self._report(text)

    # -- writing -------------------------------------------------------------------------------------------------

    def commit(self, batch: t.Sequence[bytes]) -> list[Written]:
        """Make the records of these fields (see `encode_fields`) durable, all or none.

        JournalUnavailable: none of them was acknowledged, and the next call tries to put things right first.
        """
        try:
            written = self._commit(batch)
        except OSError as error:
            return self._fail(why(error, str(self._directory)), len(batch), error)
        except JournalUnavailable as error:
            return self._fail(str(error), len(batch), error)
        self.failure = ""
        return written

    def _fail(self, reason: str, refused: int, error: Exception) -> t.NoReturn:
        if not self.failure:
            self._report(f"no record can be written: {reason}")
        self.failure = reason
        if refused:
            self._refused_since = self._refused_since or self._now()
            self._refused += refused
        raise JournalUnavailable(reason) from error

    def _commit(self, batch: t.Sequence[bytes]) -> list[Written]:
        log = self._log
        if log is None:
            raise JournalUnavailable("the log is not open")
        self._lock.check()
        if self._suspect:
            if time.monotonic() < self._retry_at:
                raise JournalUnavailable(self._suspect)
            self._retry_at = time.monotonic() + _RETRY_SECONDS
            self._begin_after_error(log)
        for event in log.follow():
            self._note(event)
        written = self._number([*self._own_records(), *batch])
        if not written:
            return []
        data = b"".join(record.line.data for record in written)
        try:
            try:
                log.append(data)
            except Vanished as error:
                self._report(str(error))
                later = log.follow()
                log.append(data)  # the very same lines: whoever kept the first ones sees that they are copies
                self._events, self._beginning = [], None
                for event in later:
                    self._note(event)
            else:
                self._events, self._beginning = [], None
        except (Suspect, Vanished) as error:
            self._suspect = str(error)
            raise JournalUnavailable(self._suspect) from error
        self._refused, self._refused_since = 0, ""
        self._head = written[-1].head
        return written[len(written) - len(batch) :]

    def _own_records(self) -> list[bytes]:
        """What the journal itself has to say first."""
        own = [] if self._beginning is None else [self._beginning]
        own += self._events
        if self._refused:
            own.append(
                {
                    "event": "repair", "reason": "writing failed", "since": self._refused_since,
                    "refused": self._refused, "error": self.failure,
                }
            )  # fmt: skip
        return [encode_fields(event) for event in own]

    def _number(self, batch: t.Sequence[bytes]) -> list[Written]:
        chain, seq, digest = self._head
        written = []
        for fields in batch:
            seq += 1
            line = make_line(chain, seq, digest, self._clock(), self._model, fields)
            digest = line.hash
            written.append(Written(Head(chain, seq, digest), line))
        return written

    def _begin_after_error(self, log: LogFile) -> None:
        """The old file may hold records that nobody was told of: a new file, and a new chain that says so."""
        aside = log.set_aside(self._now())
        if self._head.seq:  # otherwise this chain has no record yet, and its file is gone: nothing to tell
            head, event = new_chain(WRITE_ERROR, self._head)
            event = {**(event or {}), "error": self._suspect, **({"kept_as": aside} if aside else {})}
            with self._state_lock:
                self._head, self._beginning = head, event
            self._announce(Start(head, event))
            self.save_state()
        self._suspect = ""

    def _note(self, event: dict[str, t.Any]) -> None:
        if event["reason"] == FOREIGN:
            if time.monotonic() - self._foreign_noted_at < _FOREIGN_SECONDS:
                return
            self._foreign_noted_at = time.monotonic()
        self._report(f"{event['file']}: {event['reason']} ({event['bytes']} bytes, at record {self._head.seq})")
        self._events.append(event)

    # -- state and health ----------------------------------------------------------------------------------------

    def save_state(self) -> None:
        """Remember the head outside of the log. A failure makes `probe` fail; records are written nevertheless."""
        with self._state_lock:
            head = self._head
            if head == self._saved:
                return
            try:
                self._state_file.save(State(head, None if head.seq else self._beginning, self._machine))
            except OSError as error:
                self._state_failure = why(error, f"the state in {self._state_directory} cannot be saved")
                return
            self._saved, self._state_failure = head, ""

    def probe(self) -> None:
        """Whether a record could be written now; JournalUnavailable says why not. Writes no record."""
        self._lock.check()
        try:
            descriptor = os.open(
                self._directory / PROBE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
            try:
                os.write(descriptor, f"{self._now()}\n".encode())
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if self._log is not None and self._log.path.exists():
                os.close(os.open(self._log.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW))
            space = os.statvfs(self._directory)
        except OSError as error:
            raise JournalUnavailable(why(error, str(self._directory))) from error
        free = space.f_bavail * space.f_frsize
        if free < self._min_free_bytes:
            raise JournalUnavailable(
                f"{self._directory}: the disk is nearly full, {free >> 20} MiB are left of the "
                f"{self._min_free_bytes >> 20} MiB that are to be kept free"
            )
        if self._state_failure:
            raise JournalUnavailable(self._state_failure)

    def close(self) -> None:
        """Save the state, let others write."""
        if self._log is None:
            return
        self.save_state()
        self._let_go()

    def _let_go(self) -> None:
        if self._log is not None:
            self._log.close()
        self._log = None
        self._lock.release()

    def _now(self) -> str:
        return time_text(self._clock())

    def _report(self, text: str) -> None:
        logger.warning("%s", text)
        if len(self.reports) < _MOST_REPORTS:
            self.reports.append(text)
