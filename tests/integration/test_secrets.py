# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Nothing secret leaves the places where it belongs (S11).

While real playbooks run with -vvv, the arguments and the environment of every process on this machine are read over
and over, and what a program is started with is written down by a stand-in in front of gpg and rclone, which misses
none. Afterwards the output, the state directory and all public objects in the store are searched.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import secrets
import subprocess
import threading
import time
import typing as t

import pytest
from sample_instance import instance

from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.gpg import Gpg
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.keys.options import provider_from_options
from support.keyring import KeyRing, WatchedProgram
from support.kms import Kms
from support.playbooks import Playbooks

if t.TYPE_CHECKING:
    from ..conftest import Store


@dataclasses.dataclass
class Case:
    """A key provider: its options, and what must never be seen of it."""

    key: dict[str, t.Any]
    secrets: dict[str, bytes]


class ProcWatch(threading.Thread):
    """Reads the arguments and environments of all processes until it is told to end."""

    def __init__(self, needles: dict[str, bytes]):
        super().__init__(daemon=True)
        self.needles = needles
        self.found: set[str] = set()
        self.looked_at: set[str] = set()
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.05):  # leaves the processor to what is watched
            for process in pathlib.Path("/proc").glob("[0-9]*"):
                for name in ("cmdline", "environ"):
                    try:
                        content = (process / name).read_bytes()
                    except OSError:
                        continue  # it ended, or is another user's
                    self.looked_at.add(content.partition(b"\0")[0].decode("utf-8", "replace").rpartition("/")[2])
                    for what, needle in self.needles.items():
                        if needle in content:
                            self.found.add(f"{what} in {name} of process {process.name}: {content[:120]!r}")

    def __enter__(self) -> ProcWatch:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._over.set()
        self.join()


@pytest.fixture
def keyring() -> t.Iterator[KeyRing]:
    ring = KeyRing()
    yield ring
    ring.remove()


def make_case(provider: str, tmp_path: pathlib.Path, kms: Kms, keyring: KeyRing) -> Case:
    if provider == "file":
        content = secrets.token_hex(24).encode()
        (tmp_path / "key").write_bytes(content)
        (tmp_path / "key").chmod(0o600)
        return Case({"provider": "file", "key_file": str(tmp_path / "key")}, {"key file": content})
    if provider == "gpg_recipients":
        passphrase = secrets.token_urlsafe(24)
        keyring.make("backup", passphrase)
        key = {
            "provider": "gpg_recipients",
            "public_key_files": [keyring.public("backup", tmp_path)],
            "private_key_file": keyring.private("backup", tmp_path),
            "private_key_passphrase": passphrase,
        }
        armor = pathlib.Path(key["private_key_file"]).read_bytes().splitlines()[5]
        return Case(key, {"private key's passphrase": passphrase.encode(), "private key": armor})
    key = {
        "provider": "aws_kms",
        "kms_key_id": kms.key_id,
        "kms_region": kms.region,
        "kms_endpoint_url": kms.endpoint_url,
        "aws_access_key_id": kms.access_key,
        "aws_secret_access_key": kms.secret_key,
    }
    return Case(key, {"AWS secret access key": kms.secret_key.encode()})


def data_keys(store: Store, key: dict[str, t.Any], name: str) -> dict[str, bytes]:
    """The data keys of all snapshots in the store, unwrapped."""
    found = {}
    with Gpg() as gpg:
        provider = provider_from_options(key, gpg)
        for path, content in public_objects(store).items():
            if path.endswith("/manifest.json"):
                manifest = json.loads(content)
                context = {part: manifest[part] for part in ("instance", "layer", "snapshot")}
                found[f"data key of {path}"] = provider.unwrap(manifest["key"], context)
    assert len(found) >= 3, f"{name}: a snapshot of each layer was expected"
    return found


def public_objects(store: Store) -> dict[str, bytes]:
    """All that anybody can read in the store."""
    client, bucket = store.seaweed.client, store.bucket
    names = [entry["Key"] for entry in client.list_objects_v2(Bucket=bucket)["Contents"]]
    return {
        name: client.get_object(Bucket=bucket, Key=name)["Body"].read() for name in names if not name.endswith(".gpg")
    }


def files_below(directory: pathlib.Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def search(where: dict[str, bytes], needles: dict[str, bytes]) -> list[str]:
    return [
        f"{what} in {name}" for name, content in where.items() for what, needle in needles.items() if needle in content
    ]


@pytest.mark.parametrize("provider", ["file", "gpg_recipients", "aws_kms"])
def test_nothing_secret_is_seen(
    provider: str, tmp_path: pathlib.Path, store: Store, kms: Kms, keyring: KeyRing
) -> None:
    case = make_case(provider, tmp_path, kms, keyring)
    made = instance.make_instance(tmp_path / "guard", days=1, records_per_day=20)
    programs = [WatchedProgram(name, tmp_path) for name in ("gpg", "rclone")]
    state = tmp_path / "state"
    playbooks = Playbooks(
        tmp_path / "ansible",
        {
            "guardops_instance": "watched",
            "guardops_repository": store.remote,
            "guardops_rclone_config": store.config,
            "guardops_rclone_path": programs[1].path,
            "guardops_gpg_path": programs[0].path,
            "guardops_state_dir": str(state),
            "guardops_data_root": str(made.root),
            "guardops_key": case.key,
        },
    )
    needles = {**case.secrets, "S3 secret key": store.seaweed.secret_key.encode()}
    with ProcWatch(needles) as watch:
        outputs = {}
        for name, extra in (("backup", {}), ("verify", {"guardops_verify_level": "decrypted"})):
            run = playbooks.run(name, "-vvv", **extra)
            run.succeeded()
            outputs[f"output of {name} -vvv"] = run.output.encode()
    assert {"ansible-playbook", "weed"} & watch.looked_at, "the watch saw nothing"
    assert watch.found == set()
    needles.update(data_keys(store, case.key, provider))
    started = {program.path: program.seen() for program in programs}
    assert all(started.values()), "gpg and rclone were not started by way of the stand-ins"
    reports = files_below(playbooks.reports)
    assert search({**started, **outputs, **reports, **files_below(state), **public_objects(store)}, needles) == []


def test_the_watch_sees_what_it_is_to_see(tmp_path: pathlib.Path) -> None:
    """Against a program that is given a secret the wrong way."""
    needle = secrets.token_hex(16)
    program = WatchedProgram("cat", tmp_path)
    with (
        ProcWatch({"needle": needle.encode()}) as watch,
        subprocess.Popen([program.path, "-"], stdin=subprocess.PIPE, env={"NEEDLE": needle}) as child,
    ):
        while not watch.found:
            time.sleep(0.01)
        child.communicate(b"")
    assert "needle in environ" in next(iter(watch.found))
    assert needle.encode() in program.seen()
