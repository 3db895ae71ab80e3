# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""docs/tutorial.md: its commands, in its order, print what it says. So does its playground, which ends cleanly."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time
import typing as t

import pytest

from support.checkout import ROOT
from support.tutorial import Step, first_missing, read_steps, run_steps

TUTORIAL = ROOT / "docs" / "tutorial.md"
PLAYGROUND = [sys.executable, str(ROOT / "tools" / "playground.py")]
CHECKOUT_THERE = "/home/you/ansible-qwen3guard"  # where the document says that all of it is
ENTERED = "cd .playground\n. ./env\n"


@pytest.fixture
def playground(tmp_path: pathlib.Path) -> t.Iterator[pathlib.Path]:
    """The directory of one that runs."""
    directory = tmp_path / ".playground"
    log = tmp_path / "playground.log"
    with open(log, "wb") as output:
        process = subprocess.Popen([*PLAYGROUND, "--directory", str(directory)], stdout=output, stderr=output)
    try:
        while "Ready" not in log.read_text(encoding="utf-8"):
            assert process.poll() is None, log.read_text(encoding="utf-8")
            time.sleep(0.1)
        yield directory
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_tutorial_prints_what_it_says(playground: pathlib.Path) -> None:
    steps = read_steps(TUTORIAL)
    begin = [step.commands for step in steps].index(ENTERED)  # what comes before it starts the playground
    environment = {
        "PATH": os.defpath + ":/usr/local/bin:/usr/bin:/bin", "HOME": str(playground.parent), "LC_ALL": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    outputs = run_steps(steps[begin:], playground.parent, environment)
    names = {f"{CHECKOUT_THERE}/.playground": str(playground), CHECKOUT_THERE: str(ROOT)}
    outputs.insert(0, playground.with_name("playground.log").read_text(encoding="utf-8"))
    for step, output in zip(steps[begin - 1 :], outputs):
        missing = first_missing(step, output, names)
        assert not missing, f"{TUTORIAL}:{step.line}: not printed: {missing}\n{step.commands}printed:\n{output}"
    assert len(outputs) == len(steps) - begin + 1, f"it ended after {outputs[-1]}"
    left = [path.name for path in playground.parent.iterdir() if path.name not in (".playground", "playground.log")]
    assert left == []


def test_directory_with_other_files_is_left_alone(tmp_path: pathlib.Path) -> None:
    (tmp_path / "precious").write_text("mine")
    done = subprocess.run([*PLAYGROUND, "--directory", str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "found other files" in done.stderr
    assert (tmp_path / "precious").read_text() == "mine"


def test_what_differs_from_run_to_run_is_not_compared(tmp_path: pathlib.Path) -> None:
    document = tmp_path / "document.md"
    document.write_text("```sh\nls\n```\n\n```text\na\n…\n/there/x took 1.5 s…\n```\n\nProse.\n\n```text\nmore\n```\n")
    (step,) = read_steps(document)
    assert step == Step(2, "ls\n", ["a", "…", "/there/x took 1.5 s…"])
    assert first_missing(step, "a\nb\n/here/x took 22.75 s, 7 files\n", {"/there": "/here"}) == ""
    assert first_missing(step, "a\n/else/x took 22.75 s, 7 files\n", {"/there": "/here"}) == "/there/x took 1.5 s…"
    assert first_missing(step, "/here/x took 22.75 s, 7 files\na\n", {"/there": "/here"}) != ""
    assert first_missing(Step(1, "", ["7 files"]), "8 files\n", {}) == "7 files"
