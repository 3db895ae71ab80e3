# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a patrol remembers, and the files that it leaves where it runs.

Private to the collection: use the modules, not this file.

A file that cannot be read or written is one more finding: it must not cost the verdict, which often says why.
"""

from __future__ import annotations

import json
import os
import typing as t

from ..errors import GuardError
from ..system.files import make_private_directory, write_atomically
from . import patrol_metrics
from .patrol_findings import HOST, Finding, Findings

_CHECK = "files"
_FORMAT = 1
_HINT = "Look at the file system: is it full, read-only, or gone?"


def load_state(path: str, findings: Findings) -> dict[str, t.Any] | None:
    """What earlier runs remembered; nothing where there is nothing, or nothing that can be understood.

    None where it is there and cannot be read: then it is not replaced either.
    """
    try:
        with open(path, "rb") as handle:
            raw = json.load(handle)
    except FileNotFoundError:
        return {}
    except OSError as error:
        findings.fail(_CHECK, path, "a file that can be read", error.strerror or str(error), _HINT)
        return None
    except (ValueError, RecursionError):
        return {}
    return raw if isinstance(raw, dict) and raw.get("format") == _FORMAT else {}


def save_state(path: str, state: dict[str, t.Any], findings: Findings) -> None:
    """Remember it for the next run."""
    try:
        make_private_directory(os.path.dirname(path))
        write_atomically(path, (json.dumps({**state, "format": _FORMAT}) + "\n").encode())
    except GuardError as error:
        findings.fail(_CHECK, path, "a file that can be written", error.found, _HINT)


def leave_results(verdict: dict[str, t.Any], instance: str, metrics_file: str | None, verdict_file: str | None) -> None:
    """Write the metrics, then the verdict; each says what was wrong until then."""
    for path, mode, render in (
        (metrics_file, 0o644, patrol_metrics.render),
        (verdict_file, 0o600, lambda told: json.dumps(told, indent=1) + "\n"),
    ):
        if not path:
            continue
        try:
            write_atomically(path, render(verdict).encode(), mode)
        except GuardError as error:
            where = HOST if verdict["scope"]["host"] else ""
            found = Finding(_CHECK, path, "a file that can be written", error.found, _HINT, instance, where)
            verdict["failures"].append(found._asdict())
            verdict["ok"] = False
