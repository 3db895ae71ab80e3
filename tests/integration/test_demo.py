# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`make demo` itself: it goes through, it stops what it started, and what it would compare it does compare."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from support.checkout import ROOT

sys.path.insert(0, str(ROOT / "tools"))
from demonstration import evidence
from demonstration.screen import amount, table
from sample_instance.instance import make_instance

COMMAND = [sys.executable, str(ROOT / "tools" / "demo.py")]


def processes_of(directory: pathlib.Path) -> list[str]:
    """Command lines of all processes that know the demo's directory from their arguments or environment."""
    found = []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            arguments, environment = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
        except OSError:  # it ended, or is another user's
            continue
        if os.fsencode(directory) in arguments + environment and folder.name != str(os.getpid()):
            found.append(arguments.replace(b"\0", b" ").decode(errors="replace"))
    return found


@pytest.mark.slow
def test_demo_goes_through(tmp_path: pathlib.Path) -> None:
    directory = tmp_path / "demo"
    done = subprocess.run([*COMMAND, "--directory", str(directory)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("layer "))
    assert [line.split()[0] for line in lines[start + 2 : start + 5]] == ["model", "config", "logs"]
    assert all(" loaded " in line for line in lines[start + 2 : start + 5])
    # 2,600 of the sample, and of the gateway the beginning of its chain and twice the four canaries.
    assert "Recovery point: 0 of 2,609 records lost, 0 there more than once." in lines
    assert done.stdout.count("1 part fetched") == 2
    assert "      the same record as before the disaster, byte by byte" in lines
    assert any(line.startswith("      13 records in ") for line in lines)
    assert "      check.py: RESULT: the bundle is whole, and what its statement says" in lines
    assert lines[-1] == "Every byte, mode, owner, ACL and extended attribute came back."
    assert processes_of(directory) == []
    assert os.listdir(tmp_path) == ["demo"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_demo_that_is_stopped_stops_everything(tmp_path: pathlib.Path, number: signal.Signals) -> None:
    directory = tmp_path / "demo"
    with open(tmp_path / "output", "wb") as output:
        demo = subprocess.Popen([*COMMAND, "--directory", str(directory)], stdout=output, stderr=output)
    try:
        while not list(directory.glob("progress/*.json")):  # a module is at work
            assert demo.poll() is None, (tmp_path / "output").read_text()
            time.sleep(0.05)
        assert any("weed" in line for line in processes_of(directory))
        demo.send_signal(number)
        assert demo.wait(120) == 128 + number
    finally:
        demo.kill()
        demo.wait()
    assert processes_of(directory) == []


def test_directory_with_other_files_is_left_alone(tmp_path: pathlib.Path) -> None:
    (tmp_path / "precious").write_text("mine")
    done = subprocess.run([*COMMAND, "--directory", str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "found other files" in done.stderr
    assert (tmp_path / "precious").read_text() == "mine"


def test_every_difference_is_found(tmp_path: pathlib.Path) -> None:
    instance = make_instance(tmp_path / "data", days=1, records_per_day=20)
    for arguments in (
        ["init", "-q"],
        ["add", "--all"],
        ["-c", "user.name=a", "-c", "user.email=b", "commit", "-qm", "c"],
    ):
        subprocess.run(["git", "-C", str(instance.config), *arguments], check=True)
    before = evidence.take_evidence(instance)
    (half,) = before.half_written.values()
    evidence.expect_whole_lines(before, instance.logs)

    # The half-written line is the one thing that may be missing, and no byte more.
    active = instance.logs / "audit.log"
    status = active.stat()
    os.truncate(active, status.st_size - half)
    os.utime(active, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert evidence.differences(before, evidence.take_evidence(instance)) == []

    active.write_bytes(active.read_bytes().rstrip(b"\n").rpartition(b"\n")[0] + b"\n")
    os.utime(active, ns=(status.st_atime_ns, status.st_mtime_ns))
    (instance.config / "nginx.conf").chmod(0o600)
    (instance.model / "config.json").write_bytes(b"{}")
    found = "\n".join(evidence.differences(before, evidence.take_evidence(instance)))
    for text in ("audit.log: size", "1 records lost", "nginx.conf: mode", "config.json: content"):
        assert text in found
    (instance.config / "站点说明.md").unlink()
    assert "config: git status: expected nothing" in "\n".join(
        evidence.differences(before, evidence.take_evidence(instance))
    )


def test_table_aligns_numbers_to_the_right() -> None:
    assert table(("layer", "bytes"), [("logs", "1,234"), ("model", "5")]).splitlines() == [
        "layer  bytes", "-----  -----", "logs   1,234", "model      5",
    ]  # fmt: skip
    assert [amount(count) for count in (5, 1500, 2_000_000, 3.1e9)] == ["5 bytes", "1.5 kB", "2.0 MB", "3.1 GB"]
