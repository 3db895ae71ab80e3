# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What all tests share: the collection made importable, and the fixtures of tests/support."""

from __future__ import annotations

import os
import pathlib
import secrets
import signal
import typing as t

import pytest

from support.checkout import link_collection
from support.faulty_proxy import FaultyProxy
from support.kms import Kms
from support.scheduling import Scheduler
from support.seaweed import Seaweed

link_collection()  # pyproject.toml puts the folder on sys.path

# A shell that is no terminal's starts what it has in the background with SIGINT ignored, and nohup ignores SIGHUP: so
# would be what tests start, and mean to interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: t.Any) -> Scheduler:
    """Called by pytest-xdist in the process that hands out the tests."""
    return Scheduler(config, log)


class Store(t.NamedTuple):
    """A bucket of its own for one test."""

    seaweed: Seaweed
    bucket: str
    config: str  # rclone.conf, with the remote ``store``
    remote: str  # store:BUCKET

    def config_through(self, proxy: FaultyProxy) -> str:
        """Another rclone.conf, that reaches the same store by way of a proxy."""
        path = pathlib.Path(self.config).with_name(f"rclone-{proxy.port}.conf")
        return self.seaweed.rclone_config(path, endpoint=proxy.endpoint)


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Seaweed]:
    """A real S3 server, one for each worker."""
    with Seaweed(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture
def store(seaweed: Seaweed, tmp_path: pathlib.Path) -> t.Iterator[Store]:
    """A fresh bucket and the rclone.conf to reach it; emptied afterwards, so that disks stay free."""
    bucket = seaweed.make_bucket("test-" + secrets.token_hex(6))
    yield Store(seaweed, bucket, seaweed.rclone_config(tmp_path / "rclone.conf"), f"store:{bucket}")
    for page in seaweed.client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for entry in page.get("Contents", []):
            seaweed.client.delete_object(Bucket=bucket, Key=entry["Key"])
    seaweed.client.delete_bucket(Bucket=bucket)


@pytest.fixture
def proxy(seaweed: Seaweed) -> t.Iterator[FaultyProxy]:
    """A proxy in front of the S3 server; it passes everything until its ``fault`` is set."""
    with FaultyProxy(seaweed.port) as running:
        yield running


@pytest.fixture(scope="session")
def kms() -> t.Iterator[Kms]:
    """A KMS with a key, one for each worker."""
    with Kms() as server:
        yield server


@pytest.fixture(autouse=True, scope="session")
def _no_real_credentials() -> t.Iterator[None]:
    """Nothing in a developer's environment may lead a test to a real account."""
    patch = pytest.MonkeyPatch()
    for name in list(os.environ):
        if name.startswith(("AWS_", "RCLONE_", "ALIBABA_CLOUD_", "VAULT_")):
            patch.delenv(name)
    patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    patch.setenv("AWS_CONFIG_FILE", os.devnull)
    patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    yield
    patch.undo()
