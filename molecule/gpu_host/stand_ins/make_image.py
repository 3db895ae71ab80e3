# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Make a container image of busybox, in the form that engines can run without pulling or importing it first.

usage: make_image.py FILE
"""

from __future__ import annotations

import hashlib
import io
import json
import pathlib
import sys
import tarfile


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    entry.mode = 0o755
    archive.addfile(entry, io.BytesIO(data))


def main(target: str) -> None:
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        add(archive, "bin/busybox", pathlib.Path("/bin/busybox").read_bytes())
        for name in ("sh", "true", "ls", "cat", "echo"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type = tarfile.SYMTYPE
            link.linkname = "busybox"
            archive.addfile(link)
    digest = hashlib.sha256(layer.getvalue()).hexdigest()
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": ["PATH=/usr/bin:/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
    ).encode()
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = [{"Config": name, "RepoTags": ["localhost/busybox:latest"], "Layers": ["layer.tar"]}]
    with tarfile.open(target, mode="w") as archive:
        add(archive, "layer.tar", layer.getvalue())
        add(archive, name, config)
        add(archive, "manifest.json", json.dumps(manifest).encode())


if __name__ == "__main__":
    main(sys.argv[1])
