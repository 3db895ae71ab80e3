# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Settings in shell scripts: what bash itself makes of them, before and after."""

from __future__ import annotations

import subprocess

import pytest

from ansible_collections.guardops.qwen3guard.plugins.module_utils.format import shell_settings

SCRIPT = """#!/bin/bash
# 一键推理
PORT=6006  # the web page

LOG_DIR="/root/logs/audit"   # audit
mkdir -p "$LOG_DIR"
#LOG_DIR=/tmp
export OTHER_LOG_DIR=/x
"""


def value_in_bash(script: bytes, name: str) -> str:
    """What the script really sets it to."""
    run = subprocess.run(["bash"], input=script + f'\nprintf %s "${name}"'.encode(), capture_output=True, check=True)
    return run.stdout.decode()


@pytest.mark.parametrize("line", ['LOG_DIR="/a"', "LOG_DIR=/a", "  export LOG_DIR='/a' # why", "readonly LOG_DIR=/a;"])
@pytest.mark.parametrize("value", ["/data/logs", "/data/with space", "/data/$HOME", "/data/o'clock", "/数据"])
def test_bash_reads_what_was_set(line: str, value: str) -> None:
    changed, _changes = shell_settings.set_settings(f"{line}\n".encode(), {"LOG_DIR": value, "MODEL_PATH": value})
    assert value_in_bash(changed, "LOG_DIR") == value
    assert value_in_bash(changed, "MODEL_PATH") == value
    assert shell_settings.set_settings(changed, {"LOG_DIR": value, "MODEL_PATH": value}) == (changed, [])


def test_only_these_lines_change() -> None:
    changed, changes = shell_settings.set_settings(SCRIPT.encode(), {"LOG_DIR": "/d/logs", "MODEL_PATH": "/d/models"})
    expected = SCRIPT.replace(
        'LOG_DIR="/root/logs/audit"   # audit', 'LOG_DIR="/d/logs"   # audit\nMODEL_PATH="/d/models"'
    )
    assert changed.decode() == expected
    assert shell_settings.undo_changes(changed, changes) == (SCRIPT.encode(), [])


@pytest.mark.parametrize("script", [b"", b"#!/bin/sh", b"#!/bin/sh\r\nLOG_DIR=/a\r\n", "LOG_DIR=/日志".encode("gbk")])
def test_every_script_comes_back(script: bytes) -> None:
    changed, changes = shell_settings.set_settings(script, {"LOG_DIR": "/d/logs", "MODEL_PATH": "/d/models"})
    assert len(changes) == 2
    back, gone = shell_settings.undo_changes(changed, changes)
    assert (back.rstrip(b"\n"), gone) == (script.rstrip(b"\n"), [])


def test_line_that_is_gone_is_told() -> None:
    _changed, changes = shell_settings.set_settings(SCRIPT.encode(), {"LOG_DIR": "/d/logs"})
    assert shell_settings.undo_changes(b"LOG_DIR=/else\n", changes) == (b"LOG_DIR=/else\n", [changes[0].after])
    # Written down, and stopped before it was written: all is as it was.
    assert shell_settings.undo_changes(SCRIPT.encode(), changes) == (SCRIPT.encode(), [])
