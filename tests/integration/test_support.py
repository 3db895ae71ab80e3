# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The object store and the KMS that the other tests rely on are real: they refuse, keep, and end."""

from __future__ import annotations

import os
import pathlib
import stat
import subprocess

import botocore.exceptions
import psutil
import pytest

from support.checkout import find_tool
from support.faulty_proxy import Fault, FaultyProxy
from support.kms import Kms
from support.seaweed import Seaweed

CONTENT = os.urandom(1_000_000)


def rclone(config: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    flags = ["--config", config, "--retries", "1", "--low-level-retries", "1"]
    return subprocess.run(
        [find_tool("rclone"), *flags, *arguments], capture_output=True, check=False, timeout=60, input=CONTENT
    )


def test_rclone_stores_what_boto3_reads(store) -> None:
    done = rclone(store.config, "rcat", f"{store.remote}/some/object")
    assert done.returncode == 0, done.stderr
    body = store.seaweed.client.get_object(Bucket=store.bucket, Key="some/object")["Body"].read()
    assert body == CONTENT
    assert stat.S_IMODE(os.stat(store.config).st_mode) == 0o600


def test_wrong_keys_are_refused(store, tmp_path: pathlib.Path) -> None:
    text = pathlib.Path(store.config).read_text().replace(store.seaweed.secret_key, "wrong")
    config = tmp_path / "wrong.conf"
    config.write_text(text)
    assert rclone(os.fspath(config), "rcat", f"{store.remote}/object").returncode != 0
    assert store.seaweed.client.list_objects_v2(Bucket=store.bucket)["KeyCount"] == 0


def test_a_cut_on_the_way_to_the_store_fails_the_upload(store, proxy: FaultyProxy) -> None:
    config = store.config_through(proxy)
    proxy.fault = Fault("cut", after=200_000)
    assert rclone(config, "rcat", f"{store.remote}/object").returncode != 0
    assert proxy.hit >= 1
    assert store.seaweed.client.list_objects_v2(Bucket=store.bucket)["KeyCount"] == 0
    proxy.fault = Fault()
    assert rclone(config, "rcat", f"{store.remote}/object").returncode == 0


def test_seaweed_keeps_data_and_endpoint_over_a_restart(tmp_path: pathlib.Path) -> None:
    server = Seaweed(tmp_path / "data")
    with server:
        endpoint, pid = server.endpoint, server.pid
        server.make_bucket("kept")
        server.client.put_object(Bucket="kept", Key="object", Body=CONTENT)
        listeners = [c.laddr.ip for c in psutil.Process(pid).net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    assert set(listeners) == {"127.0.0.1"}
    assert not psutil.pid_exists(pid)
    with server:
        assert server.endpoint == endpoint
        assert server.client.get_object(Bucket="kept", Key="object")["Body"].read() == CONTENT
    assert stat.S_IMODE((tmp_path / "data" / "s3.json").stat().st_mode) == 0o600


def test_kms_binds_the_encryption_context(kms: Kms) -> None:
    key = kms.client.generate_data_key(KeyId=kms.key_id, KeySpec="AES_256", EncryptionContext={"layer": "logs"})
    again = kms.client.decrypt(CiphertextBlob=key["CiphertextBlob"], EncryptionContext={"layer": "logs"})
    assert again["Plaintext"] == key["Plaintext"]
    with pytest.raises(botocore.exceptions.ClientError, match="InvalidCiphertext"):
        kms.client.decrypt(CiphertextBlob=key["CiphertextBlob"], EncryptionContext={"layer": "model"})
