# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Full disks, failing disks, and others who meddle with the log: nothing acknowledged is lost or told twice."""

from __future__ import annotations

import errno
import gzip
import os
import pathlib
import resource
import signal
import stat
import subprocess
import typing as t

import pytest

from qwen3guard_gateway import chain_writer, log_file
from qwen3guard_gateway.errors import JournalError, JournalUnavailable
from support.gateway_logs import Place, audits, chains_of, events


class Disk:
    """Stands in for the calls that write, and fails as told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.write_error = self.sync_error = self.truncate_error = 0
        self.write_at_most = 0  # bytes that one call takes; 0: all
        self.before_sync: t.Callable[[], object] = lambda: None
        self.writes = self.syncs = 0
        self._write, self._sync, self._truncate = os.write, os.fdatasync, os.ftruncate
        monkeypatch.setattr(log_file.os, "write", self.write)
        monkeypatch.setattr(log_file.os, "fdatasync", self.sync)
        monkeypatch.setattr(log_file.os, "ftruncate", self.truncate)

    def write(self, descriptor: int, data: bytes) -> int:
        self.writes += 1
        if self.write_at_most:
            if self.write_error and self.writes > 2:
                raise OSError(self.write_error, os.strerror(self.write_error))
            return self._write(descriptor, data[: self.write_at_most])
        if self.write_error:
            raise OSError(self.write_error, os.strerror(self.write_error))
        return self._write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        self.syncs += 1
        self.before_sync()
        if self.sync_error:
            raise OSError(self.sync_error, os.strerror(self.sync_error))
        self._sync(descriptor)

    def truncate(self, descriptor: int, length: int) -> None:
        if self.truncate_error:
            raise OSError(self.truncate_error, os.strerror(self.truncate_error))
        self._truncate(descriptor, length)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def test_short_writes(place: Place, disk: Disk) -> None:
    writer = place.writer()
    disk.write_at_most = 7
    audits(writer, 3)
    (entries,) = chains_of(place.logs).values()
    assert len(entries) == 4


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_batch_that_does_not_fit_leaves_nothing(place: Place, disk: Disk, number: int) -> None:
    writer = place.writer()
    audits(writer)
    before = place.active.read_bytes()
    disk.write_at_most, disk.write_error, disk.writes = 50, number, 0
    for _attempt in range(3):
        with pytest.raises(JournalUnavailable, match=os.strerror(number)):
            audits(writer, 2)
        assert place.active.read_bytes() == before
    disk.write_at_most = disk.write_error = 0
    audits(writer)
    (entries,) = chains_of(place.logs).values()
    assert [entry.content["event"] for entry in entries] == ["chain", "audit", "repair", "audit"]
    (told,) = events(place.logs, "repair")
    assert (told["reason"], told["refused"]) == ("writing failed", 6)
    assert os.strerror(number) in told["error"]
    assert len([line for line in writer.reports if "no record can be written" in line]) == 1


def test_a_disk_that_is_really_full(tmp_path: pathlib.Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    (tmp_path / "mnt").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(tmp_path / "mnt")]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        (tmp_path / "state").mkdir()
        writer = chain_writer.ChainWriter(tmp_path / "mnt", tmp_path / "state", "8b")
        writer.start()
        told = []
        while os.statvfs(tmp_path / "mnt").f_bavail:
            told += audits(writer, 1, "x" * 997)
        with pytest.raises(JournalUnavailable, match="the disk is full"):
            audits(writer, 5, "x" * 9970)
        subprocess.run(["mount", "-o", "remount,size=1m", str(tmp_path / "mnt")], check=True)
        told += audits(writer, 5, "x" * 9970)
        writer.close()
        (entries,) = chains_of(tmp_path / "mnt").values()
        ids = [entry.record.trace_id for entry in entries if entry.content["event"] == "audit"]
        assert ids == [record.line.trace_id for record in told]
        assert entries[-6].content["refused"] == 5
    finally:
        subprocess.run(["umount", str(tmp_path / "mnt")], check=True)


def test_a_limit_on_the_size_of_files(place: Place) -> None:
    writer = place.writer()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (place.active.stat().st_size + 100, hard))
    try:
        with pytest.raises(JournalUnavailable, match="may not become larger"):
            audits(writer)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    audits(writer)
    chains_of(place.logs)


def test_a_failed_sync_begins_a_new_file_and_a_new_chain(
    place: Place, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = place.writer()
    last = audits(writer, 2)[-1].head
    disk.sync_error = errno.EIO
    with pytest.raises(JournalUnavailable, match="could not be made durable"):
        audits(writer)
    assert place.active.read_bytes().endswith(
        f'"hash":"{last.hash}"}}\n'.encode()
    )  # nothing unproven, even if killed now
    disk.syncs = 0
    for _attempt in range(5):
        with pytest.raises(JournalUnavailable):
            audits(writer)
    assert disk.syncs == 1  # does not go on trying for every audit
    monkeypatch.setattr(chain_writer, "_RETRY_SECONDS", 0.0)
    writer._retry_at = 0.0
    for _attempt in range(3):
        with pytest.raises(JournalUnavailable):
            audits(writer)
    disk.sync_error = 0
    audits(writer)
    (aside,) = place.logs.glob("audit.log.suspect-*")
    old, new = chains_of(place.logs).values()
    if old[0].content["reason"] != "first start":
        old, new = new, old
    assert (old[-1].record.seq, old[-1].record.hash) == (last.seq, last.hash)
    assert new[0].content["continues"] == last.as_json()
    assert (new[0].content["reason"], new[0].content["kept_as"]) == ("write error", aside.name)
    assert events(place.logs, "repair")[0]["refused"] == 9
    writer.close()
    assert place.writer().reports == []


def test_what_cannot_be_cut_back_is_set_aside(place: Place, disk: Disk) -> None:
    writer = place.writer()
    last = audits(writer)[-1].head
    disk.write_at_most, disk.write_error, disk.truncate_error, disk.writes = 50, errno.ENOSPC, errno.EIO, 0
    with pytest.raises(JournalUnavailable, match="nor cut back"):
        audits(writer)
    disk.write_at_most = disk.write_error = disk.truncate_error = 0
    audits(writer)
    assert [event["reason"] for event in events(place.logs, "chain")].count("write error") == 1
    assert any(event.get("continues") == last.as_json() for event in events(place.logs, "chain"))


def test_the_first_record_of_a_chain_meets_a_bad_disk(place: Place, disk: Disk) -> None:
    disk.sync_error = errno.EIO
    with pytest.raises(JournalError, match="could not be made durable"):
        place.writer()
    disk.sync_error = 0
    audits(place.writer())
    (entries,) = chains_of(place.logs).values()
    assert entries[0].content["reason"] == "first start"


def test_a_new_name_is_durable_before_a_record_is_written(
    place: Place, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    fsync = os.fsync
    monkeypatch.setattr(
        log_file.os,
        "fsync",
        lambda opened: (order.append("names" if stat.S_ISDIR(os.fstat(opened).st_mode) else "file"), fsync(opened)),
    )
    writer = place.writer()
    disk.before_sync = lambda: order.append("records")
    order.clear()
    audits(writer)
    place.active.rename(place.logs / "audit.log.1")
    audits(writer)
    audits(writer)
    assert order == ["records", "names", "records", "records"]


def test_removed_while_it_was_written(place: Place, disk: Disk) -> None:
    writer = place.writer()
    audits(writer)
    kept = place.active.read_bytes()

    def remove() -> None:
        place.active.unlink(missing_ok=True)
        disk.before_sync = lambda: None

    disk.before_sync = remove
    (told,) = audits(writer)
    assert told.line.data == place.active.read_bytes()  # in the new file, under its own number
    audits(writer)
    (place.logs / "audit.log.1").write_bytes(kept)
    assert [event["reason"] for event in events(place.logs, "repair")] == ["file removed"]


def test_truncated_while_it_was_written(place: Place, disk: Disk) -> None:
    writer = place.writer()
    audits(writer)

    def truncate() -> None:
        os.rename(place.active, place.logs / "audit.log.1")
        place.active.touch()
        os.truncate(place.logs / "audit.log.1", 0)
        disk.before_sync = lambda: None

    disk.before_sync = truncate
    (told,) = audits(writer)
    assert told.line.data == place.active.read_bytes()


def test_copytruncate_and_removal_are_told(place: Place) -> None:
    writer = place.writer()
    audits(writer)
    copies = place.active.read_bytes()
    os.truncate(place.active, 0)
    audits(writer)
    copies += place.active.read_bytes()
    place.active.unlink()
    audits(writer)
    (place.logs / "audit.log.1").write_bytes(copies)
    assert [event["reason"] for event in events(place.logs, "repair")] == ["file truncated", "file removed"]


def test_compression_right_after_rotation_is_no_loss(place: Place) -> None:
    writer = place.writer()
    audits(writer)
    status = place.active.stat()
    packed = place.logs / "audit.log.1.gz"
    packed.write_bytes(gzip.compress(place.active.read_bytes()))
    os.utime(packed, ns=(status.st_atime_ns, status.st_mtime_ns))
    place.active.unlink()
    audits(writer)
    assert len(writer.reports) == 1  # the first start
    assert events(place.logs, "repair") == []


def test_lines_of_others(place: Place) -> None:
    writer = place.writer()
    audits(writer)
    for _time in range(3):
        with open(place.active, "ab") as log:
            log.write(b'{"trace_id":"qwg-20240520-8b-7f3a9c21"}')  # without an end: ours still begin a line
        audits(writer)
    assert [event["reason"] for event in events(place.logs, "repair")] == ["foreign lines"]


def test_probe_says_why(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = place.writer(min_free_bytes=1 << 20)
    size = place.active.stat().st_size
    writer.probe()
    assert place.active.stat().st_size == size
    writer._min_free_bytes = 1 << 60
    with pytest.raises(JournalUnavailable, match="nearly full"):
        writer.probe()
    writer._min_free_bytes = 0
    place.state.rename(place.state.with_name("gone"))
    audits(writer)  # records do not depend on it
    writer.save_state()
    with pytest.raises(JournalUnavailable, match="the state in"):
        writer.probe()
    place.state.with_name("gone").rename(place.state)
    writer.save_state()
    writer.probe()
    (place.logs / ".gateway.probe").unlink()
    (place.logs / ".gateway.probe").mkdir()
    with pytest.raises(JournalUnavailable):
        writer.probe()


def test_probe_without_permission(place: Place) -> None:
    writer = place.writer()
    place.logs.chmod(0o555)
    child = os.fork()
    if child == 0:  # as nobody; what happens here must not reach pytest
        try:
            if os.geteuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            writer.probe()
        except JournalUnavailable as error:
            os._exit(0 if "no permission" in str(error) else 2)
        finally:
            os._exit(1)
    _pid, status = os.waitpid(child, 0)
    place.logs.chmod(0o755)
    assert os.waitstatus_to_exitcode(status) == 0
