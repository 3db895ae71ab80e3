# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Remotes that have directories, which an object store has not: of a missing object they say other things.

A directory by rclone, as of a mounted NAS, and an SFTP server.
"""

from __future__ import annotations

import os
import pathlib
import secrets
import socket
import subprocess
import time
import typing as t

import pytest

from support.checkout import find_tool
from support.modules import run_module
from support.processes import LOOPBACK, end_group, free_ports

pytestmark = pytest.mark.slow

DEADLINE = 30.0


def answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((LOOPBACK, port)) == 0


@pytest.fixture(params=["local", "sftp"])
def place(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> t.Iterator[tuple[pathlib.Path, dict[str, str]]]:
    """An empty directory, and how the modules reach it by rclone."""
    root, config = tmp_path / "store", tmp_path / "rclone.conf"
    root.mkdir()
    server = None
    if request.param == "local":
        config.write_text("[nas]\ntype = local\n", encoding="utf-8")
        repository = f"nas:{root}"
    else:
        password = secrets.token_hex(12)  # a hyphen at its beginning would make it an option
        (port,) = free_ports(1)
        flags = ["--addr", f"{LOOPBACK}:{port}", "--user", "guard", "--pass", password]
        server = subprocess.Popen(
            [find_tool("rclone"), "serve", "sftp", str(root), *flags, "--cache-dir", str(tmp_path / "cache")],
            env={**os.environ, "RCLONE_CONFIG": str(tmp_path / "none.conf")},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        hidden = subprocess.run(
            [find_tool("rclone"), "obscure", password], check=True, stdout=subprocess.PIPE, text=True
        ).stdout.strip()
        settings = {"type": "sftp", "host": LOOPBACK, "port": port, "user": "guard", "pass": hidden}
        text = "".join(f"{name} = {value}\n" for name, value in settings.items())
        config.write_text(f"[nas]\n{text}", encoding="utf-8")
        repository = "nas:"
    try:
        if server is not None:
            limit = time.monotonic() + DEADLINE
            while not answers(port):
                assert server.poll() is None, "the SFTP server ended"
                assert time.monotonic() < limit, "the SFTP server does not answer"
                time.sleep(0.1)
        yield root, {"repository": repository, "rclone_config": str(config)}
    finally:
        if server is not None:
            end_group(server)


def test_the_main_job(place: tuple[pathlib.Path, dict[str, str]], tmp_path: pathlib.Path) -> None:
    root, remote = place
    key = tmp_path / "key"
    key.write_text(secrets.token_urlsafe(32), encoding="utf-8")
    key.chmod(0o600)
    common = {"instance": "guard-01", **remote, "state_dir": str(tmp_path / "state")}
    layer = {**common, "layer": "config", "key": {"provider": "file", "key_file": str(key)}}
    source, back = tmp_path / "config", tmp_path / "back"
    source.mkdir()
    (source / "service.yml").write_text("port: 8080\n", encoding="utf-8")

    told = run_module("backup", {**layer, "path": str(source)}, check=True).succeeded()
    assert told["changed"]
    assert not list(root.iterdir())
    first = run_module("backup", {**layer, "path": str(source)}).succeeded()
    (source / "service.yml").write_text("port: 8443\n", encoding="utf-8")
    second = run_module("backup", {**layer, "path": str(source)}).succeeded()
    assert not run_module("backup", {**layer, "path": str(source)}).succeeded()["changed"]

    for level in ("stored", "restored"):
        assert run_module("verify", {**layer, "level": level}).succeeded()["level"] == level
    run_module("restore", {**layer, "path": str(back)}).succeeded()
    assert (back / "service.yml").read_text(encoding="utf-8") == "port: 8443\n"
    listed = run_module("snapshot_info", {**common, "layer": "config"}).succeeded()["snapshots"]["config"]
    assert [item["snapshot"] for item in listed] == [first["snapshot"], second["snapshot"]]
    assert "restored" in listed[1]["verified"]

    rules = {**common, "layer": "config", "keep_last": 1, "min_age": 0}
    assert run_module("prune", {**rules, "apply": True}).succeeded()["removed"] == [first["snapshot"]]
    assert not (root / "guard-01" / "config" / first["snapshot"]).exists()
    assert run_module("verify", {**layer, "level": "stored"}).succeeded()["level"] == "stored"


def test_a_directory_that_is_not_there_is_said_so(
    place: tuple[pathlib.Path, dict[str, str]], tmp_path: pathlib.Path
) -> None:
    _root, remote = place
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "service.yml").write_text("port: 8080\n", encoding="utf-8")
    key = tmp_path / "key"
    key.write_text(secrets.token_urlsafe(32), encoding="utf-8")
    key.chmod(0o600)
    run = run_module(
        "backup",
        {
            **remote,
            "repository": f"{remote['repository']}/guards" if remote["repository"] != "nas:" else "nas:guards",
            "instance": "guard-01",
            "state_dir": str(tmp_path / "state"),
            "layer": "config",
            "path": str(tmp_path / "config"),
            "key": {"provider": "file", "key_file": str(key)},
        },
    )
    assert run.failed
    assert "expected a bucket or directory that exists, found none" in run.result["msg"]
