# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which worker runs what: files whose tests share something large (a browser, a model engine, an AWX) stay together."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

ONE_WORKER = ("test_ansible_runner.py", "test_awx_role.py", "test_gateway_engine.py", "test_gateway_page.py")


class Scheduler(LoadScopeScheduling):
    """One test at a time for whoever is free, except for those files.

    `--dist=loadgroup` is meant for this, but does nothing with pytest 9.2 (pytest-xdist issue 1386).
    """

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return path if path.endswith(ONE_WORKER) else nodeid
