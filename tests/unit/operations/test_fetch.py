# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The order in which parts are fetched."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.fetch import _far_apart


@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 15])
@pytest.mark.parametrize("lanes", [1, 2, 4])
def test_all_jobs_once_and_neighbours_apart(count: int, lanes: int) -> None:
    jobs: list[t.Any] = list(range(count))
    ordered = t.cast(list[int], _far_apart(jobs, lanes))
    assert sorted(ordered) == jobs
    if lanes > 1 and count >= 4 * lanes:
        assert all(abs(one - other) > 1 for one, other in zip(ordered, ordered[1:]))
