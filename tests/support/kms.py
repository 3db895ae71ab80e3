# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A KMS on loopback: moto's server, which speaks AWS's protocol and really encrypts and binds contexts."""

from __future__ import annotations

import secrets
import subprocess
import tempfile
import time
import typing as t

import boto3
import botocore.client
import botocore.exceptions

from .checkout import find_tool
from .processes import LOOPBACK, end_group, free_ports

START_SECONDS = 60.0


class Kms:
    """Runs while its ``with`` block does, as a process of its own, so that it can be killed like a real one.

    endpoint_url   http://127.0.0.1:PORT
    key_id         a symmetric key made for this server
    access_key     made up, as is secret_key: moto accepts any
    client         a boto3 KMS client
    """

    region = "us-east-1"

    def __init__(self) -> None:
        self.access_key = "AK" + secrets.token_hex(9).upper()
        self.secret_key = secrets.token_urlsafe(30)
        self.endpoint_url = ""
        self.key_id = ""
        self.client: t.Any = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Kms:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and come back when it has made a key."""
        (port,) = free_ports(1)
        self.endpoint_url = f"http://{LOOPBACK}:{port}"
        with tempfile.TemporaryFile() as log:
            self._process = subprocess.Popen(
                [find_tool("moto_server"), "--host", LOOPBACK, "--port", str(port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            try:
                self._wait_until_it_serves(log)
            except BaseException:  # also Ctrl-C: no server is left behind
                self.stop()
                raise

    def stop(self) -> None:
        """End the server and wait until it is gone; its keys are gone too."""
        if self._process is not None:
            end_group(self._process)
            self._process = None
        if self.client is not None:
            self.client.close()
            self.client = None

    def make_key(self) -> str:
        """Another symmetric key; its id."""
        return str(self.client.create_key()["KeyMetadata"]["KeyId"])

    def _wait_until_it_serves(self, log: t.IO[bytes]) -> None:
        self.client = boto3.client(
            "kms",
            endpoint_url=self.endpoint_url,
            region_name=self.region,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=botocore.client.Config(retries={"max_attempts": 1}, connect_timeout=5, read_timeout=10),
        )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.key_id = self.make_key()
                return
            except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as error:
                ended = self._process is None or self._process.poll() is not None
                if ended or time.monotonic() > deadline:
                    log.seek(0)
                    tail = log.read()[-1500:].decode(errors="replace")
                    raise RuntimeError(f"moto's server does not serve: {error}; {tail}") from error
            time.sleep(0.1)
