# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keys, remotes, programs and data that are not as the options say: told, and nothing is left behind."""

from __future__ import annotations

import json
import os
import secrets
import socket
import typing as t
from pathlib import Path

import pytest

from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.keys.key_file import make_key_file
from support.git_trees import open_place
from support.kms import Kms
from support.trial import Trial

NOBODY = 65534


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    it = Trial(tmp_path / "trial", tmp_path / "repository")
    it.make_model(2)
    return it


@pytest.fixture
def remote(store, tmp_path: Path) -> Trial:
    it = Trial(tmp_path / "trial", f"{store.remote}/prod", store)
    it.make_model(1)
    return it


# -- keys


def file_key(path: Path) -> dict[str, str]:
    return {"provider": "file", "key_file": str(path)}


def test_another_key_opens_nothing(trial: Trial, tmp_path: Path) -> None:
    taken = trial.run("backup").succeeded()["snapshot"]
    other = tmp_path / "other.key"
    make_key_file(str(other))
    target = tmp_path / "target"
    trial.refused("restore", "data key, wrapped with", "does not fit", path=str(target), key=file_key(other))
    assert not target.exists()
    for level in ("decrypted", "restored"):
        trial.refused("verify", "data key, wrapped with", "does not fit", level=level, key=file_key(other))
    assert trial.snapshots() == [taken]
    trial.restores_equal()


def test_a_key_that_was_exchanged_is_told_and_does_not_stop_the_backups(trial: Trial, tmp_path: Path) -> None:
    first = trial.run("backup").succeeded()["snapshot"]
    other = tmp_path / "other.key"
    make_key_file(str(other))
    host = trial.elsewhere("second-state")
    done = host.run("backup", key=file_key(other)).succeeded()
    assert "cannot be read here" in done["reason"]
    assert f"{first} cannot be read" in json.dumps(done["warnings"])
    host.restores_equal(key=file_key(other))
    host.restores_equal(snapshot=first)


@pytest.mark.parametrize(
    ("content", "words"), [(None, "No such file"), (b"", "key"), (b"short\n", "32"), (b"\x00" * 40, "key")]
)
@pytest.mark.parametrize("module", ["backup", "restore"])
def test_no_usable_key_file(trial: Trial, tmp_path: Path, module: str, content: bytes | None, words: str) -> None:
    path = tmp_path / "bad.key"
    if content is not None:
        path.write_bytes(content)
        path.chmod(0o600)
    more = {} if module == "backup" else {"path": str(tmp_path / "target")}
    trial.refused(module, "bad.key", words, key=file_key(path), **more)
    trial.run("backup").succeeded()


# -- KMS


def kms_key(kms: Kms, **more: str) -> dict[str, str]:
    return {
        "provider": "aws_kms", "kms_key_id": kms.key_id, "kms_region": kms.region,
        "kms_endpoint_url": kms.endpoint_url, "aws_access_key_id": kms.access_key,
        "aws_secret_access_key": kms.secret_key, **more,
    }  # fmt: skip


def test_kms_refuses(trial: Trial, tmp_path: Path, kms: Kms) -> None:
    with socket.socket() as held:  # bound, and does not listen
        held.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{held.getsockname()[1]}"
        trial.refused("backup", "KMS key alias/none", "no such key", key=kms_key(kms, kms_key_id="alias/none"))
        trial.refused("backup", "no answer from", key=kms_key(kms, kms_endpoint_url=nobody))
        trial.run("backup", key=kms_key(kms)).succeeded()
        target = {"path": str(tmp_path / "target")}
        trial.refused("restore", "no answer from", key=kms_key(kms, kms_endpoint_url=nobody), **target)
    other = kms_key(kms, kms_key_id=kms.make_key())
    trial.refused("restore", "KMS key", "another KMS key|access denied", key=other, **target)
    assert not os.path.exists(target["path"])
    trial.restores_equal(key=kms_key(kms))


def test_kms_binds_the_key_to_its_snapshot(trial: Trial, tmp_path: Path, kms: Kms) -> None:
    """A snapshot that was renamed carries a key of another context, and KMS says no."""
    taken = trial.run("backup", key=kms_key(kms)).succeeded()["snapshot"]
    moved = f"000002-{secrets.token_hex(4)}"
    trial.folder(taken).rename(trial.folder(moved))
    manifest = trial.folder(moved) / "manifest.json"
    manifest.write_text(manifest.read_text().replace(taken, moved))
    trial.refused("restore", "KMS key", "of another snapshot", key=kms_key(kms), path=str(tmp_path / "target"))


# -- the remote


def change_bucket(trial: Trial) -> dict[str, t.Any]:
    return {"repository": f"store:missing-{secrets.token_hex(6)}/prod"}


def change_remote(_trial: Trial) -> dict[str, t.Any]:
    return {"repository": "nowhere:bucket/prod"}


def remove_config(trial: Trial) -> dict[str, t.Any]:
    return {"rclone_config": str(trial.place / "no-rclone.conf")}


def remove_rclone(_trial: Trial) -> dict[str, t.Any]:
    return {"rclone_path": "/nonexistent/rclone"}


def remove_gpg(_trial: Trial) -> dict[str, t.Any]:
    return {"gpg_path": "/nonexistent/gpg"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (change_bucket, ("missing-", "bucket or directory that exists", "none")),
        (change_remote, ("nowhere:", "not in rclone.conf")),
        (remove_config, ("no-rclone.conf", "no such file")),
        (remove_rclone, ("/nonexistent/rclone", "executable program", "rclone_path")),
        (remove_gpg, ("/nonexistent/gpg", "executable program", "gnupg")),
    ],
)
def test_the_way_to_the_store_is_wrong(
    remote: Trial, store, tmp_path: Path, change: t.Callable[[Trial], dict[str, t.Any]], words: tuple[str, ...]
) -> None:
    buckets = {bucket["Name"] for bucket in store.seaweed.client.list_buckets()["Buckets"]}
    remote.refused("backup", *words, **change(remote))
    remote.refused("restore", *words, path=str(tmp_path / "target"), **change(remote))
    assert not (tmp_path / "target").exists()
    # SeaweedFS makes a bucket at the first write to it: a misspelt name would hold the backups unnoticed.
    assert {bucket["Name"] for bucket in store.seaweed.client.list_buckets()["Buckets"]} <= buckets
    remote.run("backup").succeeded()


def test_a_reader_may_restore_and_not_back_up(remote: Trial, store) -> None:
    config = store.seaweed.rclone_config(remote.place / "reader.conf", credentials=store.seaweed.reader)
    reader = remote.elsewhere("reader-state", config)
    reader.refused("backup", store.bucket, "Permission denied")
    assert "Contents" not in store.seaweed.client.list_objects_v2(Bucket=store.bucket)
    remote.run("backup").succeeded()
    reader.restores_equal()
    reader.refused("backup", store.bucket, "Permission denied", type="full")
    reader.refused("verify", "verifications", "Permission denied", level="stored")
    assert reader.run("verify", level="stored", keep_verdict=False, key=None).succeeded()["ok"]


def test_unknown_credentials(remote: Trial, store) -> None:
    config = store.seaweed.rclone_config(remote.place / "wrong.conf", credentials=("AKNOBODY", "wrong"))
    remote.refused("backup", store.bucket, "credentials|denied", rclone_config=config)
    remote.run("backup").succeeded()


def test_a_repository_directory_that_is_not_there_is_not_made(trial: Trial, tmp_path: Path) -> None:
    missing = str(tmp_path / "unmounted")
    for module, more in (("backup", {}), ("restore", {"path": str(tmp_path / "target")}), ("verify", {})):
        trial.refused(module, "unmounted", "Is it mounted", repository=missing, **more)
    assert not os.path.exists(missing)


# -- the data


@pytest.mark.parametrize("layer", ["model", "config", "logs"])
def test_no_data(trial: Trial, tmp_path: Path, layer: str) -> None:
    """Absent, empty as a mount point without its mount is, a file, or full of nothing."""
    root = tmp_path / "root"
    trial.refused("backup", "root", "a directory|the directory", "none|No such", layer=layer, path=str(root))
    root.mkdir()
    trial.refused("backup", "root", "at least one", "mounted", layer=layer, path=str(root))
    assert not list(root.iterdir()), "a Git repository was made of nothing"
    (root / "empty").mkdir()
    trial.refused("backup", "root", "at least one", layer=layer, path=str(root))
    if layer != "logs":  # a log may be empty: it was just rotated
        (root / "empty" / "weights.safetensors").touch()
        trial.refused("backup", "root", "not empty", layer=layer, path=str(root))
    (root / "empty" / "weights.safetensors").write_text("{}\n")
    assert trial.run("backup", layer=layer, path=str(root)).succeeded()["files"]
    trial.refused("backup", "weights.safetensors", layer=layer, path=str(root / "empty" / "weights.safetensors"))


@pytest.mark.parametrize("layer", ["model", "logs"])
def test_a_file_that_cannot_be_read(layer: str) -> None:
    with open_place() as place:
        trial = Trial(place / "trial", place / "repository")
        trial.make_model(1)
        if os.geteuid() == 0:
            trial.give_to(NOBODY)
        (trial.model / "config.json").chmod(0)
        trial.refused("backup", "config.json", "can be read", "Permission denied", layer=layer)
        (trial.model / "config.json").chmod(0o644)
        (trial.model / "closed").mkdir(mode=0)
        if os.geteuid() == 0:
            os.chown(trial.model / "closed", NOBODY, NOBODY)
        trial.refused("backup", "closed", "can be read", "Permission denied", layer=layer)
        (trial.model / "closed").rmdir()
        assert trial.run("backup", layer=layer).succeeded()["files"] == 3
