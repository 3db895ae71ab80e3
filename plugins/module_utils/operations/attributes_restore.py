# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Give a tree the owners, modes, ACLs, capabilities and extended attributes of a snapshot.

Each entry is opened with O_PATH from its directory's descriptor and changed through /proc/self/fd: what is
changed is what was opened, never what a name or a symlink leads to a moment later.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import stat

from ..errors import GuardError
from ..format.attribute_snapshot import Snapshot
from ..format.getfacl import Attributes, parse_block
from ..services.acl import ACL_ACCESS, ACL_DEFAULT, CAPABILITY, encode_acl, read_xattrs
from ..system.tree import Directories
from .attributes import ABSENT, PRESENT, Difference, Selection, capture, compare, own_xattr

# What a directory hid is seen only after its mode was restored, so one pass may not do for an ordinary user.
_MOST_PASSES = 10


@dataclasses.dataclass
class Outcome:
    """What a restore did, or would do."""

    differences: list[Difference] = dataclasses.field(default_factory=list)  # before: the tree, after: the snapshot
    missing: list[str] = dataclasses.field(default_factory=list)  # in the snapshot only
    extra: list[str] = dataclasses.field(default_factory=list)  # in the tree only
    failures: dict[str, str] = dataclasses.field(default_factory=dict)  # path: why it is not as in the snapshot
    excluded: list[str] = dataclasses.field(default_factory=list)
    entries: int = 0
    tree: Snapshot = dataclasses.field(default_factory=Snapshot)  # as it was read last
    changed: bool = False


def restore(root: str, saved: Snapshot, selection: Selection | None = None, dry: bool = False) -> Outcome:
    """Make the tree's attributes those of the snapshot, then read them back; ``dry`` only says what differs."""
    outcome = Outcome()
    remaining = _look(root, saved, selection, outcome)
    noted = {(change.path, change.attribute): change for change in remaining}
    first = remaining
    blocks = saved.blocks() if remaining else {}
    for _pass in range(0 if dry else _MOST_PASSES):
        if not remaining:
            break
        before = remaining
        outcome.failures = _apply(root, sorted({change.path for change in remaining}, key=os.fsencode), blocks, saved)
        remaining = _look(root, saved, selection, outcome)
        for change in remaining:
            noted.setdefault((change.path, change.attribute), change)
        if remaining == before:
            break
    outcome.differences = list(noted.values())
    outcome.changed = bool(first) if dry else remaining != outcome.differences
    if not dry:
        reasons = {change.path: f"{change.attribute} is {change.before}, not {change.after}" for change in remaining}
        outcome.failures = {path: outcome.failures.get(path, reason) for path, reason in reasons.items()}
    return outcome


def _look(root: str, saved: Snapshot, selection: Selection | None, outcome: Outcome) -> list[Difference]:
    """What differs and can be changed; what is there on one side only goes into the outcome."""
    found = capture(root, selection)
    outcome.tree, outcome.entries, outcome.excluded = found.snapshot, found.entries, found.excluded
    differences = compare(found.snapshot, saved, selection)
    entries = [change for change in differences if change.attribute == "entry"]
    outcome.missing = [change.path for change in entries if change.before == ABSENT]
    outcome.extra = [change.path for change in entries if change.before == PRESENT]
    return [change for change in differences if change.attribute != "entry"]


def _apply(root: str, paths: list[str], blocks: dict[str, str], saved: Snapshot) -> dict[str, str]:
    """Change these paths; why it failed for some."""
    if not os.path.isdir("/proc/self/fd"):
        raise GuardError("/proc", "mounted, to change files by descriptor", "no /proc/self/fd")
    failures = {}
    with Directories(root) as directories:
        for path in paths:
            directory, _slash, name = path.rpartition("/")
            try:
                fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directories.open(directory))
                try:
                    _apply_to(fd, parse_block(blocks[path]), saved.xattrs(path))
                finally:
                    os.close(fd)
            except OSError as error:
                failures[path] = _reason(error)
            except GuardError as error:
                failures[path] = str(error)
    return failures


def _apply_to(fd: int, wanted: Attributes, xattrs: dict[str, bytes]) -> None:
    """Change what is open as ``fd``. The order matters: a new owner clears setuid bits and capabilities."""
    status = os.fstat(fd)
    if stat.S_ISLNK(status.st_mode) != wanted.symlink:
        expected, found = ("a symlink", "none") if wanted.symlink else ("no symlink", "a symlink")
        raise GuardError("type", expected, found, "It is left as it is.")
    this = f"/proc/self/fd/{fd}"  # leads to what is open, also where that is a symlink
    if (status.st_uid, status.st_gid) != (wanted.owner, wanted.group):
        # When this fails nothing else is done: a setuid bit or an ACL for another owner would open a hole.
        os.chown(this, wanted.owner, wanted.group)
    present = read_xattrs(this, follow_symlinks=True)
    _set_xattrs(this, status, present, xattrs)
    if not wanted.symlink:
        _set_mode_and_acls(this, present, wanted)
        if CAPABILITY in xattrs:  # last, for nothing may come after that clears it
            os.setxattr(this, CAPABILITY, xattrs[CAPABILITY])


def _set_xattrs(this: str, status: os.stat_result, present: dict[str, bytes], wanted: dict[str, bytes]) -> None:
    """All but ACLs, and capabilities as far as they are to go."""
    gone = [name for name in present.keys() - wanted.keys() if name not in (ACL_ACCESS, ACL_DEFAULT)]
    gone = [name for name in gone if own_xattr(name)]
    new = {name: value for name, value in wanted.items() if present.get(name) != value and name != CAPABILITY}
    # An owner other than root sets no user attribute on a file that is not writable, though the file is theirs.
    locked = bool(gone or new) and os.geteuid() != 0 and not status.st_mode & 0o200
    locked = locked and not stat.S_ISLNK(status.st_mode)
    if locked:
        os.chmod(this, status.st_mode & 0o777 | 0o200)
    try:
        for name in gone:
            os.removexattr(this, name)
        for name, value in new.items():
            os.setxattr(this, name, value)
    finally:
        if locked:
            os.chmod(this, status.st_mode & 0o777)


def _set_mode_and_acls(this: str, present: dict[str, bytes], wanted: Attributes) -> None:
    mode = wanted.mode
    if wanted.acl:
        # With an ACL the mode's group bits are the mask. Without one, for the moment between the two calls, they
        # would be the group's own: so the group gets nothing until its entry is there.
        mode &= ~0o070
    elif ACL_ACCESS in present:
        os.removexattr(this, ACL_ACCESS)
    os.chmod(this, mode)
    if wanted.acl:
        os.setxattr(this, ACL_ACCESS, encode_acl(wanted.acl))
    if wanted.default_acl:
        os.setxattr(this, ACL_DEFAULT, encode_acl(wanted.default_acl))
    elif ACL_DEFAULT in present:
        os.removexattr(this, ACL_DEFAULT)


def _reason(error: OSError) -> str:
    if error.errno in (errno.EPERM, errno.EACCES) and os.geteuid() != 0:
        return f"{error.strerror}: only root may do this. Run it as root (become)."
    return error.strerror or str(error)
