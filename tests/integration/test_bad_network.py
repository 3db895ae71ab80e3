# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A network that stalls, cuts, truncates and flips bits. Once heals, always ends, and no snapshot is false."""

from __future__ import annotations

import contextlib
import os
import threading
import typing as t
from pathlib import Path

import pytest

from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import GuardError
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services import rclone
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.store import open_store, write_all
from support.checkout import find_tool
from support.faulty_proxy import Fault, FaultyProxy
from support.trial import Trial

MODES = ("stall", "cut", "truncate", "flip")
IN_A_PART = 300_000  # bytes into a connection: past any request but one that carries a part


@pytest.fixture
def trial(store, tmp_path: Path) -> Trial:
    it = Trial(tmp_path / "trial", f"{store.remote}/prod", store)
    it.options["idle_timeout"] = 1
    it.make_model(2)
    return it


@pytest.fixture
def far(trial: Trial, store, proxy: FaultyProxy) -> Trial:
    """The same host, by way of the proxy."""
    trial.options["rclone_config"] = store.config_through(proxy)
    return trial


@contextlib.contextmanager
def once(proxy: FaultyProxy, fault: Fault) -> t.Iterator[None]:
    """The fault strikes, then the network is well again."""
    proxy.reset_counts()
    proxy.fault = fault

    def heal() -> None:
        proxy.wait_until_hit()
        proxy.fault = Fault()

    healer = threading.Thread(target=heal)
    healer.start()
    yield
    healer.join()
    assert proxy.hit


@contextlib.contextmanager
def always(proxy: FaultyProxy, fault: Fault) -> t.Iterator[None]:
    proxy.reset_counts()
    proxy.fault = fault
    yield
    proxy.fault = Fault()
    assert proxy.hit


@pytest.mark.parametrize("mode", MODES)
def test_on_the_way_up(far: Trial, proxy: FaultyProxy, mode: str) -> None:
    fault = Fault(mode, after=IN_A_PART)
    with always(proxy, fault):
        told = far.refused("backup", r"part-0000\d\.gpg", "rclone to end well|takes the whole part")
        assert "store:" in told["thing"]
    with once(proxy, fault):
        far.run("backup").succeeded()
    far.nothing_left()
    far.restores_equal()


@pytest.mark.parametrize("mode", MODES)
def test_on_the_way_down(far: Trial, proxy: FaultyProxy, mode: str, tmp_path: Path) -> None:
    far.run("backup").succeeded()
    fault = Fault(mode, after=IN_A_PART, direction="down")
    target = tmp_path / "target"
    with always(proxy, fault):
        far.refused("restore", r"part-0000\d\.gpg", path=str(target))
        assert not list(target.glob("*.safetensors"))
        if mode == "flip":
            failed = far.run("verify", level="stored", key=None)
            assert failed.failed
            assert "SHA-256" in failed.result["failures"][0]
        else:
            far.refused("verify", r"part-0000\d\.gpg", level="stored")
    with once(proxy, fault):
        far.restores_equal()
    with once(proxy, fault):
        assert far.run("verify", level="stored").succeeded()["ok"]
    far.nothing_left()


def test_in_the_first_bytes(far: Trial, proxy: FaultyProxy) -> None:
    """Every connection is hit, also those that list: nothing that was misread makes a snapshot or removes one."""
    taken = far.run("backup").succeeded()["snapshot"]
    for mode, direction in (("refuse", "up"), ("stall", "up"), ("flip", "up"), ("flip", "down"), ("truncate", "down")):
        with always(proxy, Fault(mode, after=40, direction=direction)):
            far.refused("backup", "store:", type="full")
    assert far.snapshots() == [taken]
    far.run("backup", type="full").succeeded()
    far.restores_equal()


@pytest.mark.parametrize("size", [5_000, 1_100_000])
def test_what_is_stored_is_what_was_sent(store, proxy: FaultyProxy, size: int) -> None:
    """Wherever in a request a bit flips (line, headers, body, the list that completes an upload)."""
    options = rclone.Options(find_tool("rclone"), store.config_through(proxy), 1, 1, 60)
    far = open_store(store.remote, options)
    stored = 0
    for at in (
        0,
        30,
        150,
        400,
        700,
        900,
        1100,
        1500,
        3000,
        5200,
        5800,
        size // 2,
        size + 600,
        size + 1200,
        size + 2500,
    ):
        data, name = os.urandom(size), f"object-{at}"
        proxy.fault = Fault("flip", after=at)
        try:
            with far.upload(name) as upload:
                write_all(upload.fd, data)
                upload.commit()
        except (GuardError, BrokenPipeError):
            continue
        finally:
            proxy.fault = Fault()
        stored += 1
        assert store.seaweed.client.get_object(Bucket=store.bucket, Key=name)["Body"].read() == data, at
    assert stored < 13, "the flips did not reach the uploads"
