# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real model engine on this machine's CPU, with a tiny model that answers as Qwen3Guard-Gen does."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import time
import typing as t
import urllib.request
from pathlib import Path

from .checkout import ROOT
from .processes import LOOPBACK, end_group, free_ports

SAMPLE = ROOT / "tests" / "sample_instance"
ENVIRONMENTS = ROOT / ".cache" / "environments"
MODELS = ROOT / ".cache" / "models"
PATIENCE = 240.0  # seconds; on a busy machine most of it is spent on importing torch


def engine_python(name: str) -> Path | None:
    """The interpreter that tools/own-venv made; None if it did not."""
    path = ENVIRONMENTS / f"engine-{name}" / "bin" / "python"
    return path if path.exists() else None


def guard_model(name: str) -> Path:
    """The tiny model that knows responses too, trained once and kept."""
    python = engine_python(name)
    assert python is not None
    sources = [SAMPLE / "make_model.py", SAMPLE / "texts.json"]
    key = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    target = MODELS / f"{name}-{key}"
    if not target.exists():
        work = target.with_name(f"{target.name}.{os.getpid()}")
        made = subprocess.run(
            [python, sources[0], "--responses", work], capture_output=True, text=True, env=environment(), check=False
        )
        assert made.returncode == 0, made.stderr
        try:
            work.rename(target)
        except OSError:  # another worker was faster
            shutil.rmtree(work)
    return target


def environment() -> dict[str, str]:
    """Nothing is fetched, and nothing is told."""
    telling = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    return {**os.environ, **telling, "VLLM_CPU_KVCACHE_SPACE": "1"}


def command(name: str, model: Path, port: int) -> list[str]:
    """How to serve the model."""
    python = str(engine_python(name))
    if name == "vllm":
        options = ["--dtype", "float32", "--max-model-len", "512", "--enforce-eager", "--max-num-seqs", "4"]
        return [
            *(python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)),
            *("--host", LOOPBACK, "--port", str(port), *options),
        ]
    program = str(Path(python).with_name("transformers"))
    return [program, "serve", "--host", LOOPBACK, "--port", str(port), "--device", "cpu", str(model)]


class ModelEngine:
    """``name``: transformers or vllm. Output goes to ``log``."""

    def __init__(self, name: str, log: Path):
        self.name = name
        self.model = guard_model(name)
        self.canaries: list[dict[str, t.Any]] = json.loads((self.model / "canaries.json").read_text(encoding="utf-8"))
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def __enter__(self) -> ModelEngine:
        (port,) = free_ports(1)
        self.url = f"http://{LOOPBACK}:{port}"
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                command(self.name, self.model, port),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(),
                start_new_session=True,
            )
        end = time.monotonic() + PATIENCE
        while not self.is_up():
            if self._process.poll() is not None or time.monotonic() > end:
                self.__exit__()
                raise AssertionError(f"{self.name} does not start:\n{self._log.read_text(errors='replace')[-4000:]}")
            time.sleep(0.2)
        return self

    def is_up(self) -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/health", timeout=5) as reply:  # noqa: S310
            return bool(reply.status == 200)
        return False

    def __exit__(self, *_exception: object) -> None:
        if self._process is not None:
            end_group(self._process, patience=10.0)
