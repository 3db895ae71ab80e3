# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a stored verdict proves: a sample nothing, and it takes nothing away from what looked at everything."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.guardops.qwen3guard.plugins.module_utils.format import verdict as verdicts

GOOD, BAD = {"ok": True, "sample_bytes": 0}, {"ok": False, "sample_bytes": 0}
GOOD_SAMPLE, BAD_SAMPLE = {"ok": True, "sample_bytes": 9}, {"ok": False, "sample_bytes": 9}
OLD = {"ok": True}  # release 0.4.0 wrote no such field


@pytest.mark.parametrize(("stored", "passed", "failed"), [
    ([OLD], True, False),
    ([GOOD], True, False),
    ([BAD], False, True),
    ([GOOD_SAMPLE], False, False),
    ([BAD_SAMPLE], False, True),
    ([GOOD, GOOD_SAMPLE], True, False),
    ([OLD, GOOD_SAMPLE, GOOD_SAMPLE], True, False),
    ([BAD, GOOD_SAMPLE], False, True),  # what failed may be what the sample left out
    ([BAD, GOOD_SAMPLE, GOOD], True, False),
    ([GOOD, BAD_SAMPLE], True, True),
    ([GOOD, BAD_SAMPLE, GOOD_SAMPLE], True, False),
    ([GOOD_SAMPLE, BAD], False, True),
])  # fmt: skip
def test_one_verdict_after_another(stored: list[verdicts.Verdict], passed: bool, failed: bool) -> None:
    last: verdicts.Verdict | None = None
    for verdict in stored:
        last = verdicts.kept(verdict, last)
    assert last is not None
    assert verdicts.passed(last) is passed
    assert verdicts.proves("restored", last) is verdicts.proves("loaded", last) is passed
    assert not any(verdicts.proves(level, last) for level in ("listed", "stored", "decrypted", "", "future"))
    assert (verdicts.failure(last) is not None) is failed
    assert len(verdicts.known(last)) <= 2, "no verdict carries all that were before it"


@pytest.mark.parametrize("verdict", [
    {}, {"ok": 1}, {"ok": "true"}, {"ok": True, "sample_bytes": None}, {"ok": True, "sample_bytes": "0"},
    {"ok": True, "sample_bytes": 9, "whole": True}, {"ok": True, "sample_bytes": 9, "whole": {"ok": 1}},
    {"ok": True, "sample_bytes": 9, "whole": {"ok": True, "sample_bytes": 9, "whole": {"ok": True}}},
])  # fmt: skip
def test_what_makes_no_sense_proves_nothing(verdict: dict[str, t.Any]) -> None:
    assert not verdicts.passed(verdict)
