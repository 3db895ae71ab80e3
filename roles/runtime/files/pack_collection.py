# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pack what a host needs of this collection into a tar file, always the same for the same content.

usage: pack_collection.py COLLECTION DIRECTORY

COLLECTION is a checkout or what ansible-galaxy installed. Times, owners and the order of names are fixed, so that the
name of a release, its version and the hash of its content, is another one only when something changed. It is printed,
and DIRECTORY/RELEASE.tar is the file; those of before that nobody used for a day are removed there.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import sys
import tarfile
import tempfile
import time

_DIRECTORIES = ("meta", "playbooks", "plugins", "requirements", "roles")
_FILES = ("COPYING", "FILES.json", "MANIFEST.json", "galaxy.yml")  # of the last three, what there is
_NEEDED = ("meta/runtime.yml", "playbooks/backup.yml", "plugins/modules/backup.py", "requirements/runtime.txt")


def version_of(root: str) -> str:
    """The collection's version, by whichever file says it."""
    manifest = os.path.join(root, "MANIFEST.json")
    if os.path.exists(manifest):
        with open(manifest, encoding="utf-8") as handle:
            return str(json.load(handle)["collection_info"]["version"])
    with open(os.path.join(root, "galaxy.yml"), encoding="utf-8") as handle:
        found = re.search(r"^version: *[\"']?([\w.+-]+)", handle.read(), re.MULTILINE)
    if not found:
        raise SystemExit(f"{root}/galaxy.yml: expected a line with the version, found none.")
    return found[1]


def names_in(root: str) -> list[str]:
    """The files to pack, relative and in order."""
    names = [name for name in _FILES if os.path.exists(os.path.join(root, name))]
    for directory in _DIRECTORIES:
        for folder, folders, files in os.walk(os.path.join(root, directory)):
            folders[:] = [name for name in folders if name != "__pycache__" and not name.startswith(".")]
            names += [os.path.relpath(os.path.join(folder, name), root) for name in files if not name.startswith(".")]
    return sorted(name for name in names if not name.endswith(".pyc"))


def pack(root: str, names: list[str]) -> bytes:
    """The tar file's content. Links are packed as what they lead to."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in names:
            path = os.path.join(root, name)
            with open(path, "rb") as handle:
                content = handle.read()
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mode = 0o755 if os.access(path, os.X_OK) else 0o644
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def remove_old(directory: str) -> None:
    """Remove what nobody made or used for a day; another run may do the same right now."""
    for name in os.listdir(directory):
        path = os.path.join(directory, name)
        with contextlib.suppress(FileNotFoundError):
            if name.endswith(".tar") and time.time() - os.stat(path).st_mtime > 86400:
                os.unlink(path)


def main() -> None:
    root, directory = sys.argv[1:]
    names = names_in(root)
    missing = [name for name in _NEEDED if name not in names]
    if missing:
        raise SystemExit(f"{root}: expected a whole collection, found no {', '.join(missing)}.")
    content = pack(root, names)
    release = f"{version_of(root)}-{hashlib.sha256(content).hexdigest()[:12]}"
    os.makedirs(directory, exist_ok=True)
    remove_old(directory)
    # Renamed into place: the same is made for several hosts at once.
    fd, temporary = tempfile.mkstemp(dir=directory, suffix=".tar")
    with open(fd, "wb") as handle:
        handle.write(content)
    os.replace(temporary, os.path.join(directory, f"{release}.tar"))
    print(release)


if __name__ == "__main__":
    main()
