# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A verdict says whether it looked at everything, and is stored with that."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import verify
from support.engine import Engine


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    engine = Engine(tmp_path / "engine")
    source = tmp_path / "source"
    source.mkdir()
    for number in range(3):
        (source / f"weights-{number}").write_bytes(os.urandom(20_000))
    engine.backup(source)
    return engine


def verified(engine: Engine, level: str, sample: int) -> verify.Verdict:
    options = verify.Options(level, sample_bytes=sample, ownership=os.geteuid() == 0)
    with engine.session() as session:
        return verify.verify(session, options)


@pytest.mark.parametrize("level", ["stored", "decrypted", "restored"])
def test_a_sample_is_stored_as_one(engine: Engine, level: str) -> None:
    for sample, told in ((1000, 1000), (1 << 30, 0), (0, 0)):
        verdict = verified(engine, level, sample)
        assert (verdict.ok, verdict.sample_bytes) == (True, told)
        assert any("sample" in text for text in verdict.not_checked) is bool(told)
        assert engine.repository.verdicts("model", verdict.snapshot)[level]["sample_bytes"] == told
    after = verified(engine, level, 1000)
    stored = engine.repository.verdicts("model", after.snapshot)[level]
    assert (stored["sample_bytes"], stored["whole"]["sample_bytes"]) == (1000, 0)


def test_a_sample_that_fails_is_stored_as_one(engine: Engine) -> None:
    assert verified(engine, "restored", 0).ok
    for part in engine.store_path.rglob("part-*"):
        part.write_bytes(b"\0" * part.stat().st_size)
    verdict = verified(engine, "restored", 1000)
    assert (verdict.ok, verdict.sample_bytes) == (False, 1000)
    stored = engine.repository.verdicts("model", verdict.snapshot)["restored"]
    assert (stored["ok"], stored["whole"]["ok"]) == (False, True)
