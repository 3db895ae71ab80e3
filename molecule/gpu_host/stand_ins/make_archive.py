# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Make an apt archive with stand-ins of NVIDIA's packages, signed by a key that is thrown away.

usage: make_archive.py DIRECTORY
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import typing as t

HERE = pathlib.Path(__file__).parent
DRIVER = "580.1.1"

REFRESH = {
    "usr/lib/systemd/system/nvidia-cdi-refresh.service": """[Unit]
After=multi-user.target
[Service]
Type=oneshot
RemainAfterExit=yes
Environment=NVIDIA_CTK_CDI_OUTPUT_FILE_PATH=/var/run/cdi/nvidia.yaml
ExecStart=/usr/bin/nvidia-ctk cdi generate
[Install]
WantedBy=multi-user.target
""",
    "usr/lib/systemd/system/nvidia-cdi-refresh.path": """[Path]
PathChanged=/usr/bin/nvidia-ctk
[Install]
WantedBy=multi-user.target
""",
}
POSTINST = """#!/bin/sh
set -e
systemctl daemon-reload
systemctl enable --now nvidia-cdi-refresh.path nvidia-cdi-refresh.service
"""
PERSISTENCED = """[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
[Install]
WantedBy=multi-user.target
"""
CTK = {"usr/bin/nvidia-ctk": HERE / "nvidia-ctk"}


class Package(t.NamedTuple):
    """Its files by their path, as text or as a file to copy; those in a bin or sbin are programs."""

    name: str
    version: str
    files: dict[str, str | pathlib.Path]
    postinst: str = ""


PACKAGES = [
    Package("nvidia-driver-pinning-580", "580-1", {}),
    Package(
        "nvidia-kernel-open-dkms",
        f"{DRIVER}-1",
        {"usr/local/sbin/modprobe": HERE / "modprobe", "usr/local/sbin/modinfo": HERE / "modinfo"},
    ),
    Package(
        "nvidia-driver-cuda",
        f"{DRIVER}-1",
        {
            "usr/bin/nvidia-smi": HERE / "nvidia-smi",
            "usr/lib/stand-in/driver-version": f"{DRIVER}\n",
            f"usr/lib/stand-in/libcuda.so.{DRIVER}": "a library\n",
        },
    ),
    Package("nvidia-persistenced", f"{DRIVER}-1", {"usr/lib/systemd/system/nvidia-persistenced.service": PERSISTENCED}),
    Package("nvidia-container-toolkit-base", "1.17.9-1", {**CTK}),
    Package("nvidia-container-toolkit-base", "1.18.0-1", {**CTK, **REFRESH}, POSTINST),
]


def build(package: Package, target: pathlib.Path) -> str:
    """Build a package, and give its paragraph of the index."""
    control = "\n".join(
        [
            f"Package: {package.name}",
            f"Version: {package.version}",
            "Architecture: all",
            "Maintainer: nobody <nobody@example.com>",
            "Description: stand-in of NVIDIA's",
            "",
        ]
    )
    with tempfile.TemporaryDirectory() as place:
        tree = pathlib.Path(place, "tree")
        for name, content in {**package.files, "DEBIAN/control": control}.items():
            path = tree / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, pathlib.Path):
                shutil.copyfile(content, path)
            else:
                path.write_text(content, encoding="utf-8")
            path.chmod(0o755 if path.parent.name in ("bin", "sbin") else 0o644)
        if package.postinst:
            script = tree / "DEBIAN" / "postinst"
            script.write_text(package.postinst, encoding="utf-8")
            script.chmod(0o755)
        file = target / f"{package.name}_{package.version}.deb"
        command = ["dpkg-deb", "--root-owner-group", "--build", str(tree), str(file)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    data = file.read_bytes()
    return f"{control}Filename: ./{file.name}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"


def gpg(home: str, *arguments: str) -> str:
    command = ["gpg", "--batch", "--homedir", home, "--pinentry-mode", "loopback", "--passphrase", "", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main(directory: pathlib.Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    tree = directory / "stand-in"
    archive = tree / "archive"
    archive.mkdir(parents=True)
    index = "\n".join(build(package, archive) for package in PACKAGES)
    (archive / "Packages").write_text(index, encoding="utf-8")
    release = archive / "Release"
    digest = hashlib.sha256(index.encode()).hexdigest()
    date = subprocess.run(["date", "--utc", "-R"], check=True, capture_output=True, text=True).stdout
    release.write_text(f"Date: {date}SHA256:\n {digest} {len(index.encode())} Packages\n", encoding="utf-8")

    with tempfile.TemporaryDirectory() as home:
        os.chmod(home, 0o700)
        fingerprints = []
        for name in ("right", "wrong"):
            gpg(home, "--quick-generate-key", f"{name} <{name}@example.com>", "ed25519", "sign", "never")
            listing = gpg(home, "--list-keys", "--with-colons", f"{name}@example.com").splitlines()
            fingerprints.append(next(line.split(":")[9] for line in listing if line.startswith("fpr:")))
        right, wrong = fingerprints
        gpg(home, "--local-user", right, "--output", str(archive / "InRelease"), "--clearsign", str(release))
        for name, keys in {"key": [right], "wrong": [wrong], "both": [right, wrong]}.items():
            (archive / f"{name}.asc").write_text(gpg(home, "--armor", "--export", *keys), encoding="utf-8")
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=True)
    (directory / "fingerprint").write_text(right, encoding="utf-8")
    shutil.copyfile(HERE / "make_image.py", tree / "make_image.py")
    for path in [tree, *tree.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    with tarfile.open(directory / "stand-in.tar", "w") as packed:  # one file is quicker to bring than a dozen
        packed.add(tree, "stand-in")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
