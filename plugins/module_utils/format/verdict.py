# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a stored verdict proves, for all who ask: retention, ``latest_verified``, patrols and reports.

Private to the collection: use the modules, not this file.

A verdict that looked at a sample has ``sample_bytes``. It is a sign of life, and no proof: what it left out may be
lost. So it neither passes for a level nor takes away what looked at everything before it, be that good or bad: the
last such verdict of the level stays in it as ``whole``. One without ``sample_bytes`` (of an older release) counts as
one that looked at everything.
"""

from __future__ import annotations

import typing as t

LEVELS = ("listed", "stored", "decrypted", "restored", "loaded")
READING = ("stored", "decrypted", "restored", "loaded")  # levels that read what is stored
PROVING = ("restored", "loaded")  # levels that restore

Verdict = dict[str, t.Any]


def is_sample(verdict: Verdict) -> bool:
    """Whether it left something out. A field that makes no sense proves nothing either."""
    return bool(verdict.get("sample_bytes", 0) != 0)


def whole(verdict: Verdict) -> Verdict | None:
    """The last of this level that looked at everything: this one, or the one that a sample came after."""
    if not is_sample(verdict):
        return verdict
    before = verdict.get("whole")
    return before if isinstance(before, dict) and not is_sample(before) else None


def known(verdict: Verdict) -> list[Verdict]:
    """All that is kept of a level: the newest, and the whole one before it."""
    before = whole(verdict)
    return [verdict] if before is None or before is verdict else [verdict, before]


def passed(verdict: Verdict) -> bool:
    """Whether everything was looked at, and all of it was right."""
    found = whole(verdict)
    return found is not None and found.get("ok") is True


def proves(level: str, verdict: Verdict) -> bool:
    """Whether the snapshot was wholly restored, and nothing was wrong."""
    return level in PROVING and passed(verdict)


def failure(verdict: Verdict) -> Verdict | None:
    """The one that failed: this one, or the whole one before it, which no sample makes good."""
    return next((item for item in known(verdict) if item.get("ok") is not True), None)


def kept(verdict: Verdict, before: Verdict | None) -> Verdict:
    """What is stored of a new verdict where ``before`` was stored of its level."""
    last = whole(before) if before is not None and is_sample(verdict) else None
    return verdict if last is None else {**verdict, "whole": last}
