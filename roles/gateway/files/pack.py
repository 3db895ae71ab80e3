# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pack the gateway's code: one line of JSON with the archive and the version that it makes.

Runs on the controller. The same files make the same version, whatever their times and owners, and whoever packs them.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import pathlib
import sys
import tarfile


def pack(directory: pathlib.Path) -> bytes:
    """A tar of the directory, under its own name."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(directory.rglob("*")):
            if path.is_dir() or "__pycache__" in path.parts:
                continue
            entry = tarfile.TarInfo(path.relative_to(directory.parent).as_posix())
            content = path.read_bytes()
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))
    return archive.getvalue()


if __name__ == "__main__":
    packed = pack(pathlib.Path(sys.argv[1]))
    print(
        json.dumps(
            {
                "version": hashlib.sha256(packed).hexdigest()[:12],
                "archive": base64.b64encode(gzip.compress(packed, mtime=0)).decode(),
            }
        )
    )
