# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Work divided among forked processes."""

from __future__ import annotations

import os
import pathlib
import signal

import psutil
import pytest

from ansible_collections.guardops.qwen3guard.plugins.module_utils.system.forked import run_forked


def test_results_in_order() -> None:
    assert run_forked(lambda number: number * number, 5) == [0, 1, 4, 9, 16]


def test_a_failure_is_raised_and_leaves_no_child() -> None:
    def fail(number: int) -> bytes:
        if number == 1:
            raise ValueError("no luck")
        return b"x" * (4 << 20)  # more than a pipe holds: such a worker waits to be read

    before = psutil.Process().children()
    with pytest.raises(RuntimeError, match="no luck"):
        run_forked(fail, 3)
    with pytest.raises(RuntimeError, match="without a result"):
        run_forked(lambda _number: os._exit(9), 1)
    assert psutil.Process().children() == before


def test_a_failure_ends_the_others(tmp_path: pathlib.Path) -> None:
    ready, go = os.pipe()

    def fail_first(number: int) -> None:
        if number == 0:
            os.read(ready, 1)
            raise ValueError("no luck")
        os.write(go, b"x")
        # Left alone, it would go on and tell so; killed, it never gets there.
        signal.signal(signal.SIGALRM, lambda *_args: (tmp_path / "survived").touch())
        signal.alarm(5)
        signal.pause()

    try:
        with pytest.raises(RuntimeError, match="no luck"):
            run_forked(fail_first, 2)
    finally:
        os.close(ready)
        os.close(go)
    assert not (tmp_path / "survived").exists()
