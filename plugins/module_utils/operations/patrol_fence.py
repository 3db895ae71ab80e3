# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Is the host that patrols the one that writes into its instance?

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

from ..format.repository import Repository
from . import fences
from .patrol_findings import HOST, Findings


def check_fence(repository: Repository, state_directory: str, findings: Findings) -> None:
    """A host that was fenced off backs up no more, whatever its timers say."""
    ids = fences.listed(repository)
    if not ids:
        return  # any host may write
    mine = fences.held(repository, state_directory)
    told = fences.read(repository, ids[-1:]).describe(ids[-1], mine)
    findings.facts["fence"] = {name: told[name] for name in ("id", "host", "created", "ours")}
    if not told["ours"]:
        findings.where = HOST  # no patrol from elsewhere can say that it is well again
        findings.fail(
            "fence", "this host", "the host that writes into the instance",
            f"one that was fenced off: {told['host'] or 'another one'} took it over at {told['created'] or '?'} (fence "
            f"{told['id']})",
            "Stop the timers of this host. If it is to write again, run the playbook fence on it.",
        )  # fmt: skip
        findings.where = ""
