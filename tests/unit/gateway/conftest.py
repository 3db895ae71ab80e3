# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A directory for logs and one for the state, and writers that are always closed."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from support.gateway_logs import Place


@pytest.fixture
def place(tmp_path: Path) -> t.Iterator[Place]:
    """An empty place."""
    made = Place(tmp_path)
    yield made
    made.close()
