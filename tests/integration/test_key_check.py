# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""key_check finds what would keep a host from backing up, and stores nothing."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from support.keyring import KeyRing
from support.trial import Trial


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    it = Trial(tmp_path / "trial", tmp_path / "repository")
    it.make_model(1)
    return it


@pytest.fixture
def keyring() -> t.Iterator[KeyRing]:
    ring = KeyRing()
    yield ring
    ring.remove()


def test_host_that_can_back_up(trial: Trial) -> None:
    trial.run("backup").succeeded()
    before = trial.objects()
    result = trial.run("key_check", layer=None).succeeded()
    assert (result["provider"], result["unwrapped"]) == ("file", True)
    assert result["complete"] == {"model": 1, "config": 0, "logs": 0}
    assert result["not_checked"]
    assert trial.objects() == before
    trial.nothing_left()


def test_host_with_public_keys_only(trial: Trial, keyring: KeyRing, tmp_path: Path) -> None:
    keyring.make("backup")
    key = {"provider": "gpg_recipients", "public_key_files": [keyring.public("backup", tmp_path)]}
    result = trial.run("key_check", layer=None, key=key).succeeded()
    assert result["unwrapped"] is False
    assert any("unwrap" in text for text in result["not_checked"])


def test_what_keeps_a_host_from_backing_up(trial: Trial, tmp_path: Path) -> None:
    trial.refused("key_check", "Is it mounted", layer=None, repository=str(tmp_path / "nowhere"))
    key = {"provider": "file", "key_file": str(tmp_path / "nowhere")}
    trial.refused("key_check", "a key file", layer=None, key=key)
