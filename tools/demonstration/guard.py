# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guard of the demo: the real gateway in front of a model engine, and the questions that it is asked."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import typing as t

from sample_instance import model_tree

from support.fake_upstream import FakeUpstream, completion
from support.gateway import Answer, GatewayProcess
from support.model_engine import ModelEngine, engine_python

from .playbooks import DemoFailed

STAND_IN = "behind it a stand-in for the model engine, which knows four questions (with torch: a real one)"
ENGINE = "behind it a real model engine: transformers serve, with a tiny Qwen3"
ENGINE_NAME = "transformers"


class Guard:
    """``logs`` is where the gateway writes; ``ledger`` is what the backup tells it of archived records."""

    def __init__(self, place: pathlib.Path, logs: pathlib.Path):
        self.place = place
        self.logs = logs
        self.ledger = place / "archived.json"
        self._has_engine = engine_python(ENGINE_NAME) is not None
        self.engine = ENGINE if self._has_engine else STAND_IN
        self._open = contextlib.ExitStack()
        self._gateway: GatewayProcess | None = None

    def start(self) -> None:
        """Engine and gateway. The log directory must be there, or is made where nothing was ever written."""
        self.place.mkdir(exist_ok=True)
        url, model = self._open.enter_context(self._upstream())
        settings = {
            "directory": str(self.logs), "state_directory": str(self.place / "state"),
            "archive_ledger": str(self.ledger),
        }  # fmt: skip
        gateway = GatewayProcess(self.place, url, log=settings, upstream={"model": model, "answer_seconds": 60.0})
        self.logs.mkdir(exist_ok=True)
        self._gateway = self._open.enter_context(gateway)
        self._open.callback(gateway.stop)  # first, so that it ends well; a kill follows only where it does not

    def lose(self) -> None:
        """As when the host is gone: no time to say goodbye, and what the gateway knew on this host is lost."""
        if self._gateway is not None:
            self._gateway.kill()
        self._open.close()
        shutil.rmtree(self.place)

    def stop(self) -> None:
        """End both. Safe to call twice."""
        self._open.close()

    def ask(self) -> list[dict[str, t.Any]]:
        """Put the canaries' questions; the answers, whose verdicts must be the right ones."""
        answers = []
        for canary in model_tree.canaries():
            answer = self._running.audit(canary["text"])
            if answer.status != 200 or answer.json["verdict"] != canary["safety"].lower():
                raise DemoFailed(
                    f"{canary['text']!r}: expected {canary['safety']}, found {answer.status} {answer.body!r}"
                )
            answers.append(answer.json)
        return answers

    def record(self, trace_id: str) -> dict[str, t.Any]:
        """What the gateway tells of a record."""
        answer: Answer = self._running.get(f"/api/audit/{trace_id}")
        if answer.status != 200:
            raise DemoFailed(f"record {trace_id}: expected 200, found {answer.status} {answer.body!r}")
        told: dict[str, t.Any] = answer.json
        return told

    @property
    def _running(self) -> GatewayProcess:
        if self._gateway is None:
            raise DemoFailed("the gateway: expected it to run, and it was not started")
        return self._gateway

    @contextlib.contextmanager
    def _upstream(self) -> t.Iterator[tuple[str, str]]:
        """Its address, and the model's name there."""
        if self._has_engine:
            with ModelEngine(ENGINE_NAME, self.place / "engine.log") as engine:
                yield engine.url, str(engine.model)
            return
        answers = {
            canary["text"]: completion(
                f"Safety: {canary['safety']}\nCategories: {', '.join(canary['categories']) or 'None'}"
            )
            for canary in model_tree.canaries()
        }
        with FakeUpstream() as upstream:
            upstream.act = lambda handler, body: handler.send_body(200, answers[body["messages"][-1]["content"]])
            yield upstream.url, "stand-in"
