# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Chains as a manifest tells of them, from runs that lie anywhere."""

from __future__ import annotations

import random

import pytest

from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.record_summary import chains_of
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.records import Run


def run(first: int, last: int, branch: str = "") -> Run:
    times = [f"2026-11-23T09:00:{number:02d}.000000Z" for number in (first, last)]
    return Run("a" * 16, 0, 1, last - first + 1, first, last, f"{branch}{first - 1}", f"{branch}{last}", *times)


@pytest.mark.parametrize(("runs", "breaks"), [
    ([run(3, 9)], 0), ([run(3, 5), run(6, 6), run(7, 9)], 0), ([run(3, 5), run(7, 9)], 1),
    ([run(3, 5), run(6, 9, "other ")], 1), ([run(3, 9), run(4, 5)], 1), ([run(3, 9), run(3, 9)], 1),
    ([run(3, 4), run(6, 7), run(9, 9)], 2), ([run(3, 9), run(4, 5), run(8, 8)], 2),
])  # fmt: skip
def test_one_chain(runs: list[Run], breaks: int) -> None:
    for _turn in range(3):
        random.shuffle(runs)
        (told,) = chains_of([*runs, Run("", 0, 9, 9, 0, 0, "", "", "", "")])
        assert (told["first"], told["last"], told["breaks"]) == (3, 9, breaks)
        assert told["count"] == sum(item.count for item in runs)
        assert (told["prev"], told["since"][17:19], told["until"][17:19]) == ("2", "03", "09")
        assert told["head"].endswith("9")


def test_more_chains() -> None:
    other = run(1, 2)
    other.chain = "b" * 16
    assert [told["chain"][0] for told in chains_of([run(3, 9), other])] == ["b", "a"]
    assert chains_of([]) == []
