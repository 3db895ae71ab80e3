# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Take over an old installation: its data go below the data root, its start script is told so. And the way back.

What will be done is found out first, so that check mode tells the truth, and written to a record before it is done,
so that a run that was interrupted is gone on with, and all of it can be undone.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import stat
import typing as t

from ..errors import GuardError
from ..format import shell_settings
from ..services import acl
from ..system.files import fsync_path, write_atomically
from ..system.usage import processes_using
from .takeover_mounts import check_mounts

SHOWN = 10  # so many names are in a message
FORMAT = 1


class Move(t.NamedTuple):
    """One entry. ``kind`` is file, link or directory; ``done``: an earlier run copied it and was stopped."""

    kind: str
    source: str
    target: str
    done: bool = False


class Attributes(t.NamedTuple):
    """What an entry gets when it has been moved; None: as it is."""

    uid: int | None = None
    gid: int | None = None
    mode: int | None = None
    acls: dict[str, str] | None = None  # in hexadecimal, by the name of their extended attribute


class Plan(t.NamedTuple):
    """What would be changed; nothing has been."""

    moves: list[Move]
    script: bytes  # as it is
    new_script: bytes
    lines: list[shell_settings.Change]
    left: list[str]  # entries that are no files, such as sockets
    used_by: list[str]
    not_seen: list[str]  # processes that nobody lets us look into
    not_told: t.Sequence[str] = ()  # what the script does not tell of its container

    @property
    def changed(self) -> bool:
        return bool(self.moves) or self.script != self.new_script


class Options(t.NamedTuple):
    script: str
    settings: dict[str, str]
    directories: list[tuple[str, str]]  # from, to
    record: str
    uid: int | None = None
    gid: int | None = None
    check_mounts: bool = True


class Record:
    """What was taken over, for the way back. The file is there from the first change until everything is undone."""

    def __init__(self, path: str):
        self.path = path
        self.backup_file = ""
        self.script = ""
        self.lines: list[shell_settings.Change] = []
        self.directories: list[tuple[str, str]] = []
        self.attributes: dict[str, Attributes] = {}  # target -> before the takeover
        self.there_before: set[str] = set()  # in the targets; they never move
        self.exists = os.path.exists(path)
        if self.exists:
            self._read()

    def _read(self) -> None:
        with open(self.path, encoding="ascii") as file:
            data = json.load(file)
        if data.get("format") != FORMAT:
            raise GuardError(self.path, f"a takeover's record of format {FORMAT}", f"format {data.get('format')}")
        self.backup_file, self.script = data["backup_file"], data["script"]
        self.lines = [
            shell_settings.Change(None if old is None else os.fsencode(old), os.fsencode(new))
            for old, new in data["lines"]
        ]
        self.directories = list(map(tuple, data["directories"]))
        # Those that 0.3 wrote have no ACLs.
        self.attributes = {name: Attributes(*values) for name, values in data["attributes"].items()}
        self.there_before = set(data["there_before"])

    def write(self) -> None:
        data = {
            "format": FORMAT,
            "script": self.script,
            "backup_file": self.backup_file,
            "lines": [(None if old is None else os.fsdecode(old), os.fsdecode(new)) for old, new in self.lines],
            "directories": self.directories,
            "attributes": self.attributes,
            "there_before": sorted(self.there_before),
        }
        os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        write_atomically(self.path, json.dumps(data, indent=1).encode("ascii"))
        self.exists = True

    def add(self, plan: Plan, options: Options) -> None:
        """What is about to be taken over. What an earlier run found stays: that is the state to go back to."""
        for source, target in options.directories:
            if (source, target) not in self.directories:
                self.directories.append((source, target))
                taken = {move.target for move in plan.moves}
                self.there_before.update(
                    path for _kind, path in _entries(os.path.realpath(target)) if path not in taken
                )
        for move in plan.moves:
            status = os.lstat(move.source)
            acls = {} if move.kind == "link" else {name: raw.hex() for name, raw in acl.read_acls(move.source).items()}
            before = Attributes(status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode), acls)
            self.attributes.setdefault(move.target, before)
        self.script = options.script
        for change in plan.lines:
            earlier = next((line for line in self.lines if line.after == change.before), None)
            if earlier:
                self.lines.remove(earlier)
                change = shell_settings.Change(earlier.before, change.after)
            if change not in self.lines:  # a run that was stopped had got so far
                self.lines.append(change)


def plan_takeover(options: Options) -> Plan:
    """What is to be moved and rewritten. Fails where something would be overwritten or lost."""
    script = _read_script(options.script)
    new_script, lines = shell_settings.set_settings(script, options.settings)
    moves, left = _plan_moves(options.directories)
    plan = Plan(moves, script, new_script, lines, left, *_used_by(moves, options.script))
    if not plan.changed or not options.check_mounts:
        return plan
    return plan._replace(not_told=check_mounts(options.script, new_script, [to for _from, to in options.directories]))


def take_over(options: Options, plan: Plan, record: Record, backup: t.Callable[[str], str]) -> None:
    """Do it. Where it is stopped, the next run goes on."""
    _expect_unused(plan, options.script)
    record.add(plan, options)
    if plan.new_script != plan.script and not record.backup_file:
        record.backup_file = backup(options.script)
    record.write()
    _move_all(plan.moves, {move.target: Attributes(options.uid, options.gid) for move in plan.moves})
    _write_script(options.script, plan)


def plan_undo(record: Record) -> Plan:
    """The way back: everything below the data root that was not there before the takeover, newer files too."""
    script = _read_script(record.script)
    new_script, gone = shell_settings.undo_changes(script, record.lines)
    if gone:
        text = b", ".join(gone).decode("utf-8", "replace")
        raise GuardError(
            record.script,
            f"the lines that the takeover wrote: {text}",
            "others: the script was changed since",
            f"Put the lines back, or restore {record.backup_file} by hand and remove {record.path}.",
        )
    back = [(target, source) for source, target in record.directories]
    moves, left = _plan_moves(back, record.there_before)
    return Plan(moves, script, new_script, record.lines, left, *_used_by(moves, record.script))


def undo(plan: Plan, record: Record) -> None:
    """Do it, and forget the takeover. The backup of the script stays."""
    _expect_unused(plan, record.script)
    _move_all(plan.moves, {move.target: record.attributes.get(move.source, Attributes()) for move in plan.moves})
    _write_script(record.script, plan)
    os.unlink(record.path)


def still_named(script: bytes, directories: t.Iterable[str]) -> list[str]:
    """Lines such as "12: /root/logs/audit": the script names an old directory otherwise than in a setting."""
    return [
        f"{number}: {name}"
        for number, line in enumerate(script.splitlines(), 1)
        for name in directories
        if os.fsencode(name) in line and not line.lstrip().startswith(b"#")
    ]


def _read_script(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise GuardError(path, "the start script of the old installation", error.strerror or str(error)) from error


def _write_script(path: str, plan: Plan) -> None:
    if plan.new_script == plan.script:
        return
    status = os.stat(path)
    path = os.path.realpath(path)  # a link to the script stays one
    write_atomically(path, plan.new_script)
    os.chown(path, status.st_uid, status.st_gid)
    os.chmod(path, stat.S_IMODE(status.st_mode))


def _expect_unused(plan: Plan, script: str) -> None:
    if plan.used_by:
        raise GuardError(
            script, "a stopped installation", f"in use by process {_some(plan.used_by)}", "Stop it, and run this again."
        )


def _used_by(moves: t.Sequence[Move], script: str) -> tuple[list[str], list[str]]:
    files = set()
    for move in moves:
        status = os.lstat(move.source)
        files.add((status.st_dev, status.st_ino))
    return processes_using(files, script)


def _entries(root: str) -> t.Iterator[tuple[str, str]]:
    """(kind, path) of all below a directory, directories before what is in them; nothing where there is none."""
    if not os.path.isdir(root):
        return
    with os.scandir(root) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        if entry.is_symlink():
            yield "link", entry.path
        elif entry.is_dir():
            yield "directory", entry.path
            yield from _entries(entry.path)
        else:
            yield ("file" if entry.is_file() else "other"), entry.path


def _plan_moves(directories: t.Iterable[tuple[str, str]], stay: t.Container[str] = ()) -> tuple[list[Move], list[str]]:
    """The moves, and what cannot be moved; ``stay``: what is not to be."""
    moves: list[Move] = []
    left: list[str] = []
    taken: list[str] = []
    for source, target in directories:
        source, target = os.path.realpath(source), os.path.realpath(target)
        if source == target:
            continue
        if os.path.commonpath([source, target]) in (source, target):
            raise GuardError(source, "a directory neither inside the new one nor around it", target)
        _expect_two(source, target)
        for kind, path in _entries(source):
            move = Move(kind, path, os.path.join(target, os.path.relpath(path, source)))
            if path in stay:
                continue
            if kind == "other":
                left.append(path)
            elif kind == "directory":
                _expect_two(path, move.target)
                if os.path.lexists(move.target) and not os.path.isdir(move.target):
                    taken.append(move.target)
                moves.append(move)
            elif not os.path.lexists(move.target):
                moves.append(move)
            elif _same(move):  # a run that was stopped got so far
                moves.append(move._replace(done=True))
            else:
                taken.append(move.target)
    if taken:
        raise GuardError(
            _some(taken),
            "no file yet, since one of the same name is to be moved there",
            "another file, which is never overwritten",
            "Rename or remove one of the two, and run this again.",
        )
    return [move for move in moves if not _must_stay(move, left)], left


def _expect_two(source: str, target: str) -> None:
    """One directory under two names (a bind mount): what is "moved" from one to the other would be gone."""
    if os.path.isdir(source) and os.path.isdir(target) and os.path.samefile(source, target):
        raise GuardError(source, "another directory than the new one", f"the same one, mounted at {target}")


def _must_stay(move: Move, left: t.Sequence[str]) -> bool:
    """A directory that was moved already, as far as possible."""
    return (
        move.kind == "directory"
        and os.path.isdir(move.target)
        and any(path.startswith(move.source + "/") for path in left)
    )


def _same(move: Move) -> bool:
    """Whether both sides hold the same, in two places."""
    if os.path.islink(move.source) or os.path.islink(move.target):
        return os.path.islink(move.target) and os.readlink(move.source) == os.readlink(move.target)
    if not os.path.isfile(move.target):
        return False
    with open(move.source, "rb") as one, open(move.target, "rb") as other:
        status = os.fstat(one.fileno())
        if os.path.samestat(status, os.fstat(other.fileno())) and status.st_nlink < 2:
            return False  # one file, seen by way of two mounts
        while True:
            left, right = one.read(1 << 20), other.read(1 << 20)
            if left != right:
                return False
            if not left:
                return True


def _move_all(moves: t.Sequence[Move], attributes: t.Mapping[str, Attributes]) -> None:
    for move in moves:
        try:
            _move(move, attributes[move.target])
        except OSError as error:
            hint = "Run this again when the cause is gone: it goes on where it stopped."
            found = error.strerror or str(error)
            raise GuardError(move.source, f"to be moved to {move.target}", found, hint) from error
    for move in reversed(moves):
        if move.kind == "directory" and not os.listdir(move.source):
            os.rmdir(move.source)


def _move(move: Move, attributes: Attributes) -> None:
    os.makedirs(os.path.dirname(move.target), exist_ok=True)
    if move.kind == "directory":
        _make_directory(move)
    else:
        _move_file(move)
    uid, gid, mode, acls = attributes
    if uid is not None or gid is not None:
        os.chown(move.target, -1 if uid is None else uid, -1 if gid is None else gid, follow_symlinks=False)
    if move.kind == "link":
        return
    if acls is not None:  # before the mode, which would be their mask's
        acl.replace_acls(move.target, {name: bytes.fromhex(raw) for name, raw in acls.items()})
    if mode is not None:
        os.chmod(move.target, mode)


def _make_directory(move: Move) -> None:
    if not os.path.isdir(move.target):
        os.mkdir(move.target)
        _copy_attributes(move.source, move.target)


def _move_file(move: Move) -> None:
    """Never over another file: a link fails where one has appeared meanwhile, a rename would replace it."""
    directory = os.path.dirname(move.target)
    if not move.done:
        try:
            os.link(move.source, move.target, follow_symlinks=False)
        except FileExistsError as error:
            raise GuardError(move.target, "no file", "one that appeared meanwhile", "Run this again.") from error
        except OSError:  # another file system, or one without links: a copy, whole before it gets its name
            _copy_whole(move)
        fsync_path(directory)
    os.unlink(move.source)


def _copy_whole(move: Move) -> None:
    temporary = os.path.join(os.path.dirname(move.target), f".takeover-{secrets.token_hex(6)}")
    try:
        shutil.copyfile(move.source, temporary, follow_symlinks=False)
        _copy_attributes(move.source, temporary)
        if not os.path.islink(temporary):
            fsync_path(temporary)
        if not _same(move._replace(target=temporary)):
            raise GuardError(move.source, "a copy that is equal", "another content", "Is something writing to it?")
        os.link(temporary, move.target, follow_symlinks=False)
    finally:
        if os.path.lexists(temporary):
            os.unlink(temporary)


def _copy_attributes(source: str, target: str) -> None:
    status = os.lstat(source)
    os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)  # before the mode: it clears setuid
    shutil.copystat(source, target, follow_symlinks=False)


def _some(names: t.Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
