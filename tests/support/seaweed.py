# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real S3 server on loopback: SeaweedFS, with keys, ports and data of its own.

For tests, the demo and the benchmark. Needs boto3 and ``weed``, and no pytest.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
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
START_TRIES = 3
_PORTS = ("master", "master.grpc", "volume", "volume.grpc", "filer", "filer.grpc", "s3", "s3.grpc")


class Seaweed:
    """Runs while its ``with`` block does. ``data`` is kept: with the same folder and keys it goes on where it was.

    endpoint     http://127.0.0.1:PORT
    access_key   made up for this server, as is secret_key
    reader       (access key, secret key) of somebody who may list and read, and not write
    client       a boto3 S3 client
    """

    def __init__(self, data: str | os.PathLike[str], *, volume_size_mb: int = 256):
        self.data = pathlib.Path(data).absolute()
        self.volume_size_mb = volume_size_mb
        self.access_key = "AK" + secrets.token_hex(9).upper()
        self.secret_key = secrets.token_urlsafe(30)
        self.reader = ("AK" + secrets.token_hex(9).upper(), secrets.token_urlsafe(30))
        self.endpoint = ""
        self.port = 0
        self.client: t.Any = None
        self._ports: dict[str, int] = {}  # kept over a restart, so that whoever knows the endpoint finds it again
        self._process: subprocess.Popen[bytes] | None = None
        self._sockets: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Seaweed:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The server's process, which leads a process group of its own."""
        if self._process is None:
            raise RuntimeError("SeaweedFS is not running")
        return self._process.pid

    def start(self) -> None:
        """Start the server and come back when it really stores and returns an object."""
        if self._process is not None:
            raise RuntimeError("SeaweedFS is already running")
        for attempt in range(START_TRIES):
            self._launch()
            try:
                self._wait_until_it_serves()
                return
            except _Ended as error:  # most likely somebody else took one of its ports
                self.stop()
                self._ports = {}
                if attempt == START_TRIES - 1:
                    raise RuntimeError(str(error)) from error
            except BaseException:  # also Ctrl-C: no server is left behind
                self.stop()
                raise

    def stop(self) -> None:
        """End the server and wait until it is gone; the data stays."""
        if self._process is not None:
            end_group(self._process)
            self._process = None
        if self._sockets is not None:
            self._sockets.cleanup()
            self._sockets = None
        for name, port in self._ports.items():
            service, _dot, kind = name.partition(".")
            if kind:  # no option moves these elsewhere
                pathlib.Path(f"/tmp/seaweedfs-{service}-grpc-{port}.sock").unlink(missing_ok=True)
        if self.client is not None:
            self.client.close()
            self.client = None

    def make_bucket(self, name: str) -> str:
        """Create a bucket; SeaweedFS wants names of three characters or more."""
        self.client.create_bucket(Bucket=name)
        return name

    def rclone_config(
        self,
        path: str | os.PathLike[str],
        name: str = "store",
        endpoint: str | None = None,
        credentials: tuple[str, str] | None = None,
    ) -> str:
        """Write an rclone.conf whose remote ``name`` is this server, or a proxy in front of it."""
        access_key, secret_key = credentials or (self.access_key, self.secret_key)
        settings = {
            "type": "s3",
            "provider": "SeaweedFS",
            "env_auth": "false",
            "access_key_id": access_key,
            "secret_access_key": secret_key,
            "endpoint": endpoint or self.endpoint,
            "force_path_style": "true",
            "region": "us-east-1",
        }
        lines = [f"[{name}]"] + [f"{key} = {value}" for key, value in settings.items()]
        _write_private(pathlib.Path(path), "\n".join(lines) + "\n")
        return os.fspath(path)

    def _launch(self) -> None:
        self.data.mkdir(parents=True, exist_ok=True)
        # Unix sockets would go to /tmp, and their paths must be short.
        self._sockets = tempfile.TemporaryDirectory(prefix="weed-")
        self._ports = self._ports or dict(zip(_PORTS, free_ports(len(_PORTS))))
        self.port = self._ports["s3"]
        self.endpoint = f"http://{LOOPBACK}:{self.port}"
        keys = self.data / "s3.json"
        identities = [
            _identity("admin", (self.access_key, self.secret_key), "Admin", "Read", "Write", "List", "Tagging"),
            _identity("reader", self.reader, "Read", "List"),
        ]
        # Without keys SeaweedFS would let everybody in.
        _write_private(keys, json.dumps({"identities": identities}))
        with open(self.data / "weed.log", "wb") as log:
            self._process = subprocess.Popen(
                [find_tool("weed"), *self._arguments(keys, pathlib.Path(self._sockets.name))],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.data,
                env={"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.data), "GOMEMLIMIT": "256MiB"},
                start_new_session=True,
            )

    def _arguments(self, keys: pathlib.Path, sockets: pathlib.Path) -> list[str]:
        arguments = [
            "-logtostderr=true",
            "server",
            f"-dir={self.data}",
            f"-ip={LOOPBACK}",
            f"-ip.bind={LOOPBACK}",
            "-s3",
        ]
        for name, port in self._ports.items():
            service, _dot, kind = name.partition(".")
            arguments.append(f"-{service}.port{'.' + kind if kind else ''}={port}")
        return [
            *arguments,
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            f"-s3.config={keys}",
            f"-s3.localSocket={sockets / 's3'}",
            f"-filer.localSocket={sockets / 'filer'}",
            "-master.resumeState=false",
            "-master.electionTimeout=1s",
            "-master.telemetry=false",  # by default it reports to its makers
            # Volumes grow as they fill, and so many that the disk is the limit: 1,000 x 256 MB.
            f"-master.volumeSizeLimitMB={self.volume_size_mb}",
            "-master.volumePreallocate=false",
            "-volume.max=1000",
            "-volume.preStopSeconds=0",  # nobody else reads from it when it stops
        ]

    def _wait_until_it_serves(self) -> None:
        self.client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=botocore.client.Config(
                s3={"addressing_style": "path"}, retries={"max_attempts": 1}, connect_timeout=5, read_timeout=10
            ),
        )
        deadline = time.monotonic() + START_SECONDS
        probe = {"Bucket": "probe-" + secrets.token_hex(4), "Key": "probe"}
        while True:
            if self._process is not None and self._process.poll() is not None:
                raise _Ended(f"SeaweedFS ended with {self._process.returncode}: {self._log_tail()}")
            try:
                self._try_probe(probe)
                return
            except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as error:
                if time.monotonic() > deadline:
                    message = f"SeaweedFS does not serve after {START_SECONDS:.0f} s: {error}; {self._log_tail()}"
                    raise TimeoutError(message) from error
            time.sleep(0.1)

    def _try_probe(self, probe: dict[str, str]) -> None:
        """A listening port is not enough: the first writes fail until a volume is there."""
        with contextlib.suppress(self.client.exceptions.BucketAlreadyOwnedByYou):
            self.client.create_bucket(Bucket=probe["Bucket"])
        self.client.put_object(Body=b"ready", **probe)
        body = self.client.get_object(**probe)["Body"].read()
        if body != b"ready":
            raise RuntimeError(f"SeaweedFS returned {body!r} for what it was given as b'ready'")
        self.client.delete_object(**probe)
        self.client.delete_bucket(Bucket=probe["Bucket"])

    def _log_tail(self) -> str:
        log = self.data / "weed.log"
        return log.read_text(errors="replace")[-1500:] if log.exists() else "no log"


class _Ended(Exception):
    """The server ended by itself while it started."""


def _identity(name: str, credentials: tuple[str, str], *actions: str) -> dict[str, t.Any]:
    access_key, secret_key = credentials
    return {"name": name, "credentials": [{"accessKey": access_key, "secretKey": secret_key}], "actions": actions}


def _write_private(path: pathlib.Path, text: str) -> None:
    """Write a file that only its owner may read, from its first byte on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, 0o600)  # it may have been there with another mode
        file.write(text)
