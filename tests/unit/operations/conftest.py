# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the tests of the logs share."""

from __future__ import annotations

import pathlib

import pytest

from support.log_chain import Chain, LogDirectory


@pytest.fixture(name="logs")
def fixture_logs(tmp_path: pathlib.Path) -> LogDirectory:
    """A log directory with five lines."""
    logs = LogDirectory(tmp_path / "logs")
    logs.append("audit.log", 5)
    return logs


@pytest.fixture(name="chain")
def fixture_chain(logs: LogDirectory) -> Chain:
    """Snapshots of it: a full."""
    chain = Chain(logs.root)
    chain.full()
    return chain
