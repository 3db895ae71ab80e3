# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the transformers probe in a Python interpreter that has torch, offline and with an end.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
import tempfile
import typing as t

from ..system.process import clean_environment, run
from . import transformers_probe

# A verdict of Qwen3Guard has two or three short lines.
_NEW_TOKENS = 128


class Outcome(t.NamedTuple):
    """What came of it: ``missing`` libraries, or an ``error``, or what the probe found."""

    missing: list[str]
    error: str
    problems: dict[str, list[str]]
    parameters: int
    answers: list[str]


def probe_argv(python: str) -> list[str]:
    """Isolated mode: nothing of the current directory, of the user's packages or of PYTHON* variables."""
    return [python, "-I", "-c", inspect.getsource(transformers_probe)]


def load_and_ask(path: str, texts: t.Sequence[str], python: str | None, timeout: float) -> Outcome:
    """Load the model in ``path`` and ask it ``texts``; never raises for what is wrong with the model."""
    request = {"path": os.path.abspath(path), "texts": list(texts), "new_tokens": _NEW_TOKENS}
    with tempfile.TemporaryDirectory(prefix="guardops-transformers-") as cache:
        environment = clean_environment(
            {
                "HF_HUB_OFFLINE": "1",
                "TRANSFORMERS_OFFLINE": "1",
                "HF_HUB_DISABLE_TELEMETRY": "1",
                "HF_HOME": cache,
                "HOME": cache,
                "TOKENIZERS_PARALLELISM": "false",
                "CUDA_VISIBLE_DEVICES": "",  # the service may need the whole GPU while a backup of it is verified
            }
        )
        done = run(
            probe_argv(python or sys.executable),
            data=json.dumps(request).encode(),
            env=environment,
            timeout=timeout,
            cwd=cache,
        )
    if done.timed_out:
        return _failed(f"no end within {timeout:.0f} s")
    if done.rc != 0:
        last = done.stderr.splitlines()[-1] if done.stderr else "no message"
        return _failed(f"exit code {done.rc}: {last[:500]}")
    try:
        reply = json.loads(done.stdout)
    except ValueError:
        return _failed(f"an answer that is not JSON: {done.stdout[:80]!r}")
    if "missing" in reply:
        return Outcome(reply["missing"], "", {}, 0, [])
    return Outcome([], "", reply["problems"], reply["parameters"], reply["answers"])


def _failed(error: str) -> Outcome:
    return Outcome([], error, {}, 0, [])
