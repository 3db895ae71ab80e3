# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The files of an evidence bundle: signed, checked without this collection, and no byte of them can be changed."""

from __future__ import annotations

import datetime
import gzip
import hashlib
import json
import shutil
import subprocess
import typing as t
from pathlib import Path

import pytest
from sample_instance.chained import START, record_line

from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import GuardError, KeyProviderError
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import export_bundle
from support.engine import INSTANCE
from support.evidence import Bundle, Trail, run_checker
from support.keyring import KeyRing, living
from support.modules import run_module

SECOND = datetime.timedelta(seconds=1)


@pytest.fixture(name="trail")
def fixture_trail(tmp_path: Path) -> Trail:
    return Trail(tmp_path)


@pytest.fixture(scope="module", name="keyring")
def fixture_keyring() -> t.Iterator[KeyRing]:
    ring = KeyRing()
    ring.make("evidence")
    ring.make("protected", passphrase="with a blank")
    yield ring
    ring.remove()


def test_signed_and_checked_with_gpg(trail: Trail, keyring: KeyRing, tmp_path: Path) -> None:
    trail.writer.append(20)
    key = keyring.private("evidence", tmp_path)
    bundle = trail.export(unsigned=False, signing_key_file=key)
    fingerprint = bundle.outcome.signed_by
    assert len(fingerprint) == 40
    checked = bundle.check()
    assert f"the signature of {fingerprint} is good" in checked.output
    assert run_checker(bundle.path, "--signer", fingerprint).rc == 0
    assert run_checker(bundle.path, "--signer", "0" * 40).rc == 1
    home = tmp_path / "h"
    home.mkdir(mode=0o700)
    for arguments in (["--import", "signer.asc"], ["--verify", "statement.json.asc", "statement.json"]):
        done = subprocess.run(
            ["gpg", "--homedir", str(home), "--batch", "--no-autostart", *arguments], cwd=bundle.path,
            capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert not living(trail.gpg_home)
    assert not Path(trail.gpg_home).exists()


def test_signing_key_with_a_passphrase(trail: Trail, keyring: KeyRing, tmp_path: Path) -> None:
    trail.writer.append(2)
    key, word = keyring.private("protected", tmp_path), tmp_path / "word"
    word.write_text("with a blank\n")
    options = {"unsigned": False, "signing_key_file": key, "signing_passphrase_file": str(word)}
    with pytest.raises(KeyProviderError, match="only its owner"):
        trail.export(**options)
    word.chmod(0o600)
    trail.export(**options).check()
    word.write_text("another\n")
    with pytest.raises(KeyProviderError):
        trail.export(**options)
    with pytest.raises(KeyProviderError):
        trail.export(unsigned=False, signing_key_file=key)


CHANGED = ["statement.json", "statement.json.asc", "signer.asc", "summary.html", "README.txt", "check.py"]


@pytest.fixture(scope="module", name="signed")
def fixture_signed(tmp_path_factory: pytest.TempPathFactory, keyring: KeyRing) -> Bundle:
    base = tmp_path_factory.mktemp("signed")
    trail = Trail(base)
    trail.writer.append(200)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_bundle, "_PLAIN_BYTES", 20_000)  # several files of records
        bundle = trail.export(unsigned=False, signing_key_file=keyring.private("evidence", base))
    assert len(list((bundle.path / "records").iterdir())) > 2
    assert bundle.check().rc == 0
    return bundle


@pytest.mark.parametrize("name", [*CHANGED, "records/00001.jsonl.gz", "records/00002.jsonl.gz"])
@pytest.mark.parametrize("how", ["a byte", "cut", "removed"])
def test_a_changed_bundle_fails(signed: Bundle, tmp_path: Path, name: str, how: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(signed.path, copy)
    script = tmp_path / "check.py"
    shutil.copy(signed.path / "check.py", script)
    data = bytearray((copy / name).read_bytes())
    place = data.index(b"exported") if name == "statement.json" else len(data) // 2
    data[place] ^= 1
    if how == "removed":
        (copy / name).unlink()
    else:
        (copy / name).write_bytes(data if how == "a byte" else data[: len(data) // 2])
    checked = run_checker(copy, script=script)
    assert checked.rc == 1, checked.output
    assert "FAILED" in checked.output


def test_a_bundle_made_to_fit_fails_by_its_signature(signed: Bundle, tmp_path: Path) -> None:
    """Somebody takes a record out, and adapts the statement to it."""
    copy = tmp_path / "copy"
    shutil.copytree(signed.path, copy)
    statement = json.loads((copy / "statement.json").read_bytes())
    statement["host"] = "another"
    (copy / "statement.json").write_text(json.dumps(statement))
    checked = run_checker(copy)
    assert checked.failures == ["the signature of the statement is not good"]
    (copy / "extra.txt").write_text("x")
    assert len(run_checker(copy).failures) == 2


def test_a_record_taken_out_of_an_unsigned_bundle_fails_by_its_number(trail: Trail) -> None:
    trail.writer.append(30)
    bundle = trail.export()
    name = "records/00001.jsonl.gz"
    data = gzip.compress(b"".join([*trail.lines(1, 10), *trail.lines(12)]))
    (bundle.path / name).write_bytes(data)
    statement = bundle.statement
    statement["files"][name].update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest(), records=30)
    (bundle.path / "statement.json").write_text(json.dumps(statement))
    failures = run_checker(bundle.path).failures
    assert any("records 11 to 11 are missing" in failure for failure in failures)
    assert any("hour 2026-11-23T09" in failure or "30 records" in failure for failure in failures)


def test_a_record_exchanged_in_an_unsigned_bundle_fails_by_its_link(trail: Trail) -> None:
    trail.writer.append(30)
    bundle = trail.export()
    false = record_line(trail.writer.chain, 11, "a" * 64, START + 9 * SECOND, event="audit")
    name, lines = "records/00001.jsonl.gz", [*trail.lines(1, 10), false.line, *trail.lines(12)]
    data = gzip.compress(b"".join(lines))
    (bundle.path / name).write_bytes(data)
    statement = bundle.statement
    statement["files"][name].update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    (bundle.path / "statement.json").write_text(json.dumps(statement))
    failures = run_checker(bundle.path).failures
    assert any("record 11 of chain" in failure and "does not follow" in failure for failure in failures)
    assert any("record 12 of chain" in failure and "does not follow" in failure for failure in failures)


def test_the_page_needs_nothing_and_escapes_everything(trail: Trail) -> None:
    name = "<script>alert(1).log"
    trail.writer.append(3)
    trail.put([*trail.lines(), b'{"chain":<script>\n'], name)
    bundle = trail.export()
    page = (bundle.path / "summary.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "http://" not in page
    assert "https://" not in page
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page


def test_check_mode_writes_nothing(trail: Trail) -> None:
    trail.writer.append(20)
    trail.save()
    trail.writer.append(10)
    state = sorted(str(path) for path in (trail.base / "state").rglob("*"))
    bundle = trail.export(dry=True)
    assert not bundle.path.exists()
    assert (bundle.outcome.records, bundle.outcome.records_expected) == (0, 31)
    assert (bundle.outcome.parts, len(bundle.outcome.snapshots)) == (1, 1)
    assert sorted(str(path) for path in (trail.base / "state").rglob("*")) == state


def test_options_that_cannot_work(trail: Trail, tmp_path: Path) -> None:
    trail.writer.append(2)
    with pytest.raises(GuardError, match="signing_key_file"):
        trail.export(unsigned=False)
    with pytest.raises(GuardError, match="after"):
        trail.export(START, START)
    with pytest.raises(GuardError, match="zone"):
        trail.export(START.replace(tzinfo=None))
    with pytest.raises(KeyProviderError, match="secret key"):
        trail.export(unsigned=False, signing_key_file=str(tmp_path / "none"))
    taken = tmp_path / "bundle-5"
    taken.mkdir()
    (taken / "x").touch()
    with pytest.raises(GuardError, match="empty directory"):
        trail.export()
    (taken / "x").unlink()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".bundle")]


def test_the_module_by_way_of_a_store(store: t.Any, tmp_path: Path, keyring: KeyRing) -> None:
    trail = Trail(tmp_path)
    trail.writer.append(20)
    common = {
        "instance": INSTANCE, "repository": store.remote, "rclone_config": store.config,
        "state_dir": str(tmp_path / "state-2"), "key": {"provider": "file", "key_file": str(trail.engine.key_file)},
    }  # fmt: skip
    run_module("backup", {**common, "layer": "logs", "path": str(trail.logs)}).succeeded()
    trail.writer.append(5)
    arguments = {
        **common, "path": str(tmp_path / "evidence"), "logs_path": str(trail.logs),
        "start": "2026-11-23T16:00:00+08:00",
        "end": "2026-11-23T18:00:00+08:00", "signing_key_file": keyring.private("evidence", tmp_path),
    }  # fmt: skip
    checked = run_module("audit_export", arguments, check=True).succeeded()
    assert (checked["records_expected"], checked["parts"]) == (26, 1)
    assert not (tmp_path / "evidence").exists()
    result = run_module("audit_export", {**arguments, "progress_file": str(tmp_path / "progress")}).succeeded()
    assert (result["records"], result["ok"], result["changed"]) == (26, True, True)
    assert json.loads((tmp_path / "progress").read_text())["phase"] == "exporting records"
    assert run_checker(tmp_path / "evidence").rc == 0
    assert (tmp_path / "evidence").stat().st_mode & 0o777 == 0o700
    trail.put(trail.lines(1, 23) + trail.lines(25))
    failed = run_module("audit_export", {**arguments, "path": str(tmp_path / "second")})
    assert failed.failed
    assert "missing" in failed.result["msg"]
    assert failed.result["conservation"]["missing"] == 1
    assert run_checker(tmp_path / "second").rc == 1
