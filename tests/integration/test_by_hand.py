# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""With the page that ``backup`` stored, and rclone, gpg, zstd and GNU tar alone, a person gets everything back.

As root all of it is compared. GNU tar brings back everything that the tests know how to make.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from sample_instance import logs
from sample_instance.compare import compare_trees

from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.keys.aws_kms import AwsKms
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.keys.gpg_recipients import GpgRecipients
from support import trees
from support.by_hand import follow, restored, shell_blocks
from support.engine import Engine, short_place
from support.keyring import KeyRing
from support.kms import Kms

# The AWS command line tool is no package that the tests could install beside boto3: this stands in for its one
# command that the page uses, with the same arguments and the same output.
AWS_STAND_IN = """\
#!{python}
import argparse, base64, json, boto3
parser = argparse.ArgumentParser()
parser.add_argument("service", choices=["kms"])
parser.add_argument("operation", choices=["decrypt"])
for name in ("ciphertext-blob", "key-id", "encryption-context", "region", "endpoint-url"):
    parser.add_argument("--" + name, required=True)
parser.add_argument("--query", choices=["Plaintext"], required=True)
parser.add_argument("--output", choices=["text"], required=True)
o = parser.parse_args()
assert o.ciphertext_blob.startswith("fileb://")
answer = boto3.client("kms", region_name=o.region, endpoint_url=o.endpoint_url).decrypt(
    CiphertextBlob=open(o.ciphertext_blob[8:], "rb").read(), KeyId=o.key_id,
    EncryptionContext=json.loads(o.encryption_context))
print(base64.b64encode(answer["Plaintext"]).decode())
"""


@pytest.fixture
def place() -> Iterator[Path]:
    with short_place() as path:
        yield path


def by_hand(engine: Engine, snapshot: str, place: Path, env: dict[str, str] | None = None) -> Path:
    """Follow the page of the engine's repository; the tree."""
    done = follow(engine.recovery_text, engine.layer, snapshot, place, env)
    assert done.returncode == 0, done.stderr
    return restored(place, snapshot)


def same_by_hand(place: Path, tree: list[trees.Node]) -> None:
    source = place / "source"
    skipped = trees.build(source, tree)
    engine = Engine(place / "engine")
    taken = engine.backup(source)
    found = compare_trees(source, by_hand(engine, taken.snapshot, place / "hand"))
    missing = {f"{name if name.isprintable() else ascii(name)}: missing" for name in skipped}
    assert [line for line in found if line not in missing] == []


@pytest.mark.root
@pytest.mark.skipif(not trees.ROOT, reason="tar restores owners only for root")
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(trees.trees())
def test_any_tree(tree: list[trees.Node]) -> None:
    with short_place() as place:
        same_by_hand(place, tree)


@pytest.mark.root
@pytest.mark.skipif(not trees.ROOT, reason="tar restores owners only for root")
def test_a_tree_with_everything(place: Path) -> None:
    same_by_hand(place, trees.everything())


def small_engine(place: Path, layer: str = "model") -> Engine:
    source = place / "source"
    source.mkdir()
    (source / "weights").write_bytes(os.urandom(20_000))
    (source / "config.json").write_text("{}\n" * 3000)
    return Engine(place / "engine", layer)


def test_the_history_of_the_configuration(place: Path) -> None:
    engine = small_engine(place, "config")
    first = engine.backup(place / "source").commit
    (place / "source" / "config.json").write_text("changed\n")
    taken = engine.backup(place / "source")
    tree = by_hand(engine, taken.snapshot, place / "hand")
    clone = next(part for part in engine.recovery_text.split("`") if part.startswith("git clone"))
    subprocess.run(["sh", "-e", "-c", clone], cwd=tree.parent, check=True, capture_output=True)
    history = tree.parent / "history"
    listing = ["git", "-C", str(history), "log", "--format=%H"]
    commits = subprocess.run(listing, check=True, capture_output=True, text=True).stdout.split()
    assert commits == [taken.commit, first]
    assert (history / "config.json").read_text() == "changed\n"
    assert compare_trees(place / "source", tree, ignore=[".git", ".git/*", ".guardops", ".guardops/*", "."]) == []


def test_logs_hold_every_record_once(place: Path) -> None:
    """The full and each increment, every one in a directory of its own, together."""
    source = place / "source"
    logs.write_history(source, days=2, records_per_day=80)
    engine = Engine(place / "engine", "logs")
    snapshots = [engine.backup(source).snapshot]
    with logs.Writer(source) as writer:
        for scheme in ("numbered", "dated"):
            writer.append(20)
            writer.rotate(scheme)
            writer.append(15, torn=scheme == "dated")
            snapshots.append(engine.backup(source).snapshot)
        writer.complete()
        writer.append(5)
        snapshots.append(engine.backup(source).snapshot)
    written = [record["trace_id"] for record in logs.iter_records(source)]
    found = []
    for snapshot in snapshots:
        tree = by_hand(engine, snapshot, place / "hand")
        found.append([record["trace_id"] for record in logs.iter_records(tree)])
    assert all(found), "each of them brings records"
    assert sorted(trace_id for part in found for trace_id in part) == sorted(written)


def test_damage_is_noticed(place: Path) -> None:
    """A changed part ends it before tar runs, at the hashes and, were they changed as well, at gpg."""
    engine = small_engine(place)
    taken = engine.backup(place / "source")
    part = sorted(engine.objects(taken.snapshot).glob("part-*"))[0]
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    done = follow(engine.recovery_text, "model", taken.snapshot, place / "hand")
    assert done.returncode != 0
    assert f"{part.name}: FAILED" in done.stdout
    unchecked = "".join(
        f"```sh\n{block}```\n" for block in shell_blocks(engine.recovery_text) if "sha256sum" not in block
    )
    done = follow(unchecked, "model", taken.snapshot, place / "unchecked")
    assert done.returncode != 0
    assert not restored(place / "unchecked", taken.snapshot).exists()


def test_with_a_private_key(place: Path) -> None:
    ring = KeyRing()
    try:
        ring.make("owner")
        engine = small_engine(place)
        engine.provider = lambda gpg: GpgRecipients([ring.public("owner", place)], gpg)
        taken = engine.backup(place / "source")
        tree = by_hand(engine, taken.snapshot, place / "hand", {"GNUPGHOME": ring.home})
        assert compare_trees(place / "source", tree, aspects=("content", "mode", "mtime_ns")) == []
    finally:
        ring.remove()


def test_with_a_kms(place: Path, kms: Kms) -> None:
    engine = small_engine(place)
    engine.provider = lambda _gpg: AwsKms(
        kms.key_id, region=kms.region, endpoint_url=kms.endpoint_url, access_key=kms.access_key,
        secret_key=kms.secret_key,
    )  # fmt: skip
    taken = engine.backup(place / "source")
    programs = place / "bin"
    programs.mkdir()
    (programs / "aws").write_text(AWS_STAND_IN.format(python=sys.executable))
    (programs / "aws").chmod(0o700)
    credentials = {"AWS_ACCESS_KEY_ID": kms.access_key, "AWS_SECRET_ACCESS_KEY": kms.secret_key}
    path = os.pathsep.join([str(programs), os.path.dirname(sys.executable), os.environ["PATH"]])
    tree = by_hand(engine, taken.snapshot, place / "hand", {"PATH": path, **credentials})
    assert compare_trees(place / "source", tree, aspects=("content", "mode", "mtime_ns")) == []


def test_a_location_with_a_quote(place: Path) -> None:
    """The page quotes what a shell would take apart."""
    odd = place / "it's $HOME"
    odd.mkdir()
    engine = small_engine(odd)
    taken = engine.backup(odd / "source")
    tree = by_hand(engine, taken.snapshot, place / "hand")
    assert compare_trees(odd / "source", tree, aspects=("content",)) == []
