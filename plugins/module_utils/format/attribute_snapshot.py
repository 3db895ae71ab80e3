# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An ACL snapshot in two files: getfacl's text, and beside it a JSON file for what that text cannot say.

Neither holds a time or a place, so that an unchanged tree gives the same bytes.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
import json
import os
import typing as t

from ..errors import GuardError, IntegrityError
from ..system.files import write_atomically
from .getfacl import parse_block, parse_text

_FORMAT = "guardops-acl-snapshot"
_VERSION = 1
_HINT = "Restore both files from where they came from, or save the snapshot again."
SIDECAR_SUFFIX = ".json"

# setfacl hands a path to the kernel in one piece, and the kernel takes no longer one.
LONGEST_PATH = 4095


class Extra(t.NamedTuple):
    """What the text lacks about a path: all of its block (a symlink, too long a path), or its xattrs."""

    block: str
    xattrs: dict[str, bytes]


@dataclasses.dataclass
class Snapshot:
    """The attributes of a tree. ``unread`` says why a path, with all below it, could not be read."""

    text: bytes = b""
    extras: dict[str, Extra] = dataclasses.field(default_factory=dict)
    unread: dict[str, str] = dataclasses.field(default_factory=dict)

    def blocks(self) -> dict[str, str]:
        """Each path with its block, symlinks included."""
        found = parse_text(self.text)
        found.update({path: extra.block for path, extra in self.extras.items() if extra.block})
        return found

    def xattrs(self, path: str) -> dict[str, bytes]:
        """The extended attributes of a path, without its ACLs."""
        extra = self.extras.get(path)
        return extra.xattrs if extra else {}

    def sidecar(self) -> bytes:
        """The bytes of the JSON file."""
        paths = sorted(self.extras, key=os.fsencode)
        content = {
            "format": _FORMAT,
            "version": _VERSION,
            # Ties the two files together: one of them alone, or an old one, would restore a mixture.
            "text_sha256": hashlib.sha256(self.text).hexdigest(),
            "entries": [_entry(path, self.extras[path]) for path in paths],
            "unread": [{**_name(path), "reason": self.unread[path]} for path in sorted(self.unread, key=os.fsencode)],
        }
        return json.dumps(content, indent=1, sort_keys=True).encode("ascii") + b"\n"

    def write(self, file: str) -> None:
        """Replace both files; when only the first got there, reading says so."""
        try:
            write_atomically(file + SIDECAR_SUFFIX, self.sidecar(), 0o600)
            write_atomically(file, self.text, 0o600)
        except OSError as error:
            raise GuardError(file, "a snapshot that can be written", error.strerror or str(error)) from error


def read_bytes(file: str) -> tuple[bytes, bytes] | None:
    """Both files as they are; nothing if there is no snapshot yet."""
    found = []
    for path in (file, file + SIDECAR_SUFFIX):
        try:
            with open(path, "rb") as handle:
                found.append(handle.read())
        except FileNotFoundError:
            found.append(b"")
        except OSError as error:
            raise GuardError(path, "a readable snapshot", error.strerror or str(error)) from error
    return (found[0], found[1]) if any(found) else None


def load(file: str) -> Snapshot:
    """The snapshot in ``file``, checked."""
    both = read_bytes(file)
    if both is None:
        raise GuardError(file, "an ACL snapshot", "no such file", "Save one first, with state=saved.")
    text, sidecar = both
    try:
        content = json.loads(sidecar)
        if content["format"] != _FORMAT or content["version"] != _VERSION:
            raise IntegrityError(file + SIDECAR_SUFFIX, f"{_FORMAT} version {_VERSION}", "another format", _HINT)
        if content["text_sha256"] != hashlib.sha256(text).hexdigest():
            raise IntegrityError(file, f"the text that {file}{SIDECAR_SUFFIX} belongs to", "another text", _HINT)
        snapshot = Snapshot(
            text,
            dict(_parse_entry(entry) for entry in content["entries"]),
            {_parse_name(entry): str(entry["reason"]) for entry in content["unread"]},
        )
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as error:
        raise IntegrityError(file + SIDECAR_SUFFIX, "a complete JSON file", f"{error!r}", _HINT) from error
    for block in {extra.block for extra in snapshot.extras.values() if extra.block}:
        parse_block(block)
    return snapshot


def _name(path: str) -> dict[str, str]:
    """A path in JSON: as it is where it is UTF-8, which JSON demands, else in base64."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return {"path_base64": base64.b64encode(os.fsencode(path)).decode("ascii")}
    return {"path": path}


def _parse_name(entry: dict[str, str]) -> str:
    if "path" in entry:
        return str(entry["path"])
    return os.fsdecode(base64.b64decode(entry["path_base64"], validate=True))


def _entry(path: str, extra: Extra) -> dict[str, t.Any]:
    values = {name: base64.b64encode(value).decode("ascii") for name, value in extra.xattrs.items()}
    return {**_name(path), **({"block": extra.block} if extra.block else {}), **({"xattrs": values} if values else {})}


def _parse_entry(entry: dict[str, t.Any]) -> tuple[str, Extra]:
    xattrs = {name: base64.b64decode(value, validate=True) for name, value in entry.get("xattrs", {}).items()}
    return _parse_name(entry), Extra(str(entry.get("block", "")), xattrs)
