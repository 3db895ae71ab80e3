# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The web application: audits, records, health, and a page to try it."""

from __future__ import annotations

import collections
import contextlib
import json
import re
import time
import typing as t
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from . import bodies, record, upstream_kinds, verdict
from .access import ApiKeys, secret_of, source_address
from .bodies import Question, Rejected
from .config import Config
from .health import Checker, UpstreamState
from .limiter import Limiter, Overloaded
from .lookup import LookupBusy
from .recorder import Recorder
from .upstream import Client, UpstreamError
from .verdict import Verdict

_PAGE = Path(__file__).with_name("page")
_PAGE_FILES = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
_TRACE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_ARCHIVED = re.compile(r"archived_to_(.+)_([0-9]{4})([0-9]{2})([0-9]{2})_([0-9]{2})([0-9]{2})")
_AGAIN = {"Retry-After": "1"}
_CONTRADICTION = "the model's verdict and its categories contradict each other"


class Json(Response):
    media_type = "application/json"

    def render(self, content: t.Any) -> bytes:
        return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


class Outcome(t.NamedTuple):
    """What became of one question: a verdict or an error."""

    verdict: Verdict | None
    error: UpstreamError | None
    milliseconds: float

    @property
    def status(self) -> int:
        return self.error.status if self.error else 200


class Gateway:
    """All that lives as long as the process."""

    def __init__(self, config: Config):
        self.config = config
        self._keys = ApiKeys(config.keys_file)
        self._client = Client(config.upstream, upstream_kinds.make_protocol(config.upstream))
        self._limiter = Limiter(config.limits.concurrency, config.limits.queue, config.upstream.answer_seconds)
        self._recorder = Recorder(config.log, config.model)
        self._state = UpstreamState()
        self._checker = Checker(self._client, self._state, self._recorder, config.upstream.probe_text)
        self._labels = verdict.LABELS[config.language]
        self._audits: collections.Counter[str] = collections.Counter()
        self._failed: collections.Counter[str] = collections.Counter()
        self._rejected: collections.Counter[str] = collections.Counter()
        self._unrecorded = 0

    @contextlib.asynccontextmanager
    async def lifespan(self, _app: Starlette) -> t.AsyncIterator[None]:
        """Connections and log, opened before the first request and closed after the last."""
        await self._client.open(self.config.limits.concurrency + 1)  # one for health
        await self._recorder.start()
        try:
            yield
        finally:
            await self._recorder.close()
            await self._client.close()

    # -- audits ----------------------------------------------------------------------------------------------------

    async def audit(self, request: Request) -> Response:
        """Ask, record, answer: in this order."""
        client = self._authorize(request)
        question = await self._read(request)
        source = self._source(request)
        try:
            async with self._limiter.place():
                outcome = await self._ask(question)
        except Overloaded:
            raise Rejected(503, "overloaded", "too many questions wait for the upstream", _AGAIN) from None
        fields = self._fields(question, outcome, source, client)
        written = await self._recorder.append(fields)
        if written is None:
            self._unrecorded += 1
            if self._recorder.required:
                raise Rejected(503, "log_unavailable", "no record can be written, so there is no answer", _AGAIN)
        if outcome.verdict is None:
            self._failed[fields["error"].partition(":")[0]] += 1
            return self._error_answer(outcome, written)
        self._audits[outcome.verdict.verdict] += 1
        return Json(self._answer(outcome.verdict, written, source))

    async def _read(self, request: Request) -> Question:
        limits = self.config.limits
        bodies.check_content_type(request.scope)
        body = await bodies.read_body(request.scope, request.receive, limits.body_bytes, limits.body_seconds)
        return bodies.parse_question(body)

    async def _ask(self, question: Question) -> Outcome:
        found, failure = None, None
        started = time.perf_counter()
        try:
            found = await self._client.audit(question.text, question.response)
        except UpstreamError as error:
            failure = error
            self._state.failed(error)
        else:
            self._state.works()
        return Outcome(found, failure, round((time.perf_counter() - started) * 1000, 3))

    def _fields(self, question: Question, outcome: Outcome, source: str, client: str | None) -> dict[str, t.Any]:
        """The record, as docs/audit-trail.md describes it."""
        found, error = outcome.verdict, None
        if outcome.error:
            error = f"{outcome.error.code}: {outcome.error}"
        elif found and not found.consistent:
            error = _CONTRADICTION
        return {
            "event": "audit",
            "model": self.config.upstream.model,
            "source_ip": source,
            "text": question.text,
            **({} if question.response is None else {"response": question.response}),
            "verdict": found.verdict if found else None,
            "severity": found.severity if found else None,
            "categories": list(found.categories) if found else [],
            "refusal": found.refusal if found else None,
            "confidence": found.confidence if found else None,
            "status": outcome.status,
            "error": error,
            "upstream_ms": outcome.milliseconds,
            "client": client,
        }

    def _answer(self, found: Verdict, written: dict[str, t.Any] | None, source: str) -> dict[str, t.Any]:
        return {
            "trace_id": written["trace_id"] if written else None,
            "verdict": found.verdict,
            "label": self._labels[found.verdict],
            "severity": found.severity,
            "categories": list(found.categories),
            "refusal": found.refusal,
            "confidence": found.confidence,
            "model": self.config.upstream.model,
            "source_ip": source,
            "time": written["time"] if written else record.time_text(time.time_ns()),
            "backup_status": "pending" if written else "not_recorded",
            "recorded": written is not None,
        }

    def _error_answer(self, outcome: Outcome, written: dict[str, t.Any] | None) -> Response:
        """An upstream's failure is recorded like a verdict, and has a trace_id."""
        code = outcome.error.code if outcome.error else ""
        content = {
            "error": {"code": code, "message": str(outcome.error)},
            "trace_id": written["trace_id"] if written else None,
            "recorded": written is not None,
        }
        return Json(content, status_code=outcome.status)

    # -- records and health ----------------------------------------------------------------------------------------

    async def trace(self, request: Request) -> Response:
        """One record of the live logs, and where it is archived."""
        self._authorize(request)
        trace_id = request.path_params["trace_id"]
        try:
            found = await self._recorder.find(trace_id) if _TRACE_ID.fullmatch(trace_id) else None
        except LookupBusy as error:
            raise Rejected(503, "overloaded", str(error), _AGAIN) from None
        if found is None:
            raise Rejected(404, "not_found", "no live log has this trace_id; archived logs are searched by audit_trace")
        intact = found.pop("intact")
        status = self._recorder.backup_status(found.get("chain"), found.get("seq"))
        match = _ARCHIVED.fullmatch(status)
        archived = None
        if match:
            remote, year, month, day, hour, minute = match.groups()
            archived = {"remote": remote, "time": f"{year}-{month}-{day}T{hour}:{minute}Z"}
        return Json({"record": found, "intact": intact, "backup_status": status, "archived": archived})

    async def health(self, _request: Request) -> Response:
        """200 only if the upstream answers and a record can be written."""
        found = await self._checker.check()
        self._keys.look()
        content = {
            "status": "ok" if found.good else "failing",
            "upstream": _part(found.upstream),
            "log": _part(found.log),
            "counters": {
                "audits": dict(self._audits),
                "failed": dict(self._failed),
                "rejected": dict(self._rejected),
                "unrecorded": self._unrecorded,
                "waiting": self._limiter.waiting,
            },
            **({"warnings": [self._keys.problem]} if self._keys.problem else {}),
        }
        return Json(content, status_code=200 if found.good else 503)

    # -- who asks --------------------------------------------------------------------------------------------------

    def _authorize(self, request: Request) -> str | None:
        """The name of the API key; None where no keys are set."""
        if not self._keys.needed:
            return None
        secret = secret_of(bodies.header(request.scope, b"authorization"), bodies.header(request.scope, b"x-api-key"))
        name = self._keys.name_of(secret) if secret else None
        if name is None:
            message = "an API key is needed: Authorization: Bearer KEY, or X-API-Key: KEY"
            raise Rejected(401, "unauthorized", message, {"WWW-Authenticate": "Bearer", "Connection": "close"})
        return name

    def _source(self, request: Request) -> str:
        peer = request.scope.get("client")
        forwarded = bodies.headers(request.scope, b"x-forwarded-for") if self.config.trusted_proxies else ()
        return source_address(peer[0] if peer else "", forwarded, self.config.trusted_proxies)

    # -- errors ----------------------------------------------------------------------------------------------------

    async def rejected(self, _request: Request, error: Exception) -> Response:
        """A request that is no audit: counted, not recorded."""
        if isinstance(error, HTTPException):  # the router's: no such path, no such method
            code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
            error = Rejected(error.status_code, code, error.detail, dict(error.headers or {}))
        if not isinstance(error, Rejected):
            error = Rejected(500, "internal_error", "an error in the gateway; its log has the details")
        self._rejected[error.code] += 1
        content = {"error": {"code": error.code, "message": str(error)}}
        return Json(content, status_code=error.status, headers=error.headers)

    async def gone(self, _request: Request, _error: Exception) -> Response:
        """The client went away before its body was there: nobody reads this."""
        self._rejected["client_gone"] += 1
        return Response(status_code=400)


def _part(problem: str) -> dict[str, t.Any]:
    return {"ok": not problem, **({"error": problem} if problem else {})}


def _page_route(path: str, name: str, media_type: str) -> Route:
    content = (_PAGE / name).read_bytes()

    async def answer(_request: Request) -> Response:
        return Response(content, media_type=media_type)

    return Route(path, answer, methods=["GET"])


class _Direct:
    """An endpoint without Starlette's wrapping of functions: the application handles its errors once, not twice, which
    is a tenth of an audit's time."""

    def __init__(self, answer: t.Callable[[Request], t.Awaitable[Response]]):
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._answer(Request(scope, receive, send))
        await response(scope, receive, send)


def make_app(config: Config) -> Starlette:
    """The application; raises `ConfigError` for files that cannot be read."""
    gateway = Gateway(config)
    return Starlette(
        routes=[
            Route("/api/audit", _Direct(gateway.audit), methods=["POST"]),
            Route("/api/audit/{trace_id}", gateway.trace, methods=["GET"]),
            Route("/health", gateway.health, methods=["GET"]),
            *(_page_route(path, name, media_type) for path, (name, media_type) in _PAGE_FILES.items()),
        ],
        lifespan=gateway.lifespan,
        exception_handlers={
            Rejected: gateway.rejected,
            HTTPException: gateway.rejected,
            ClientDisconnect: gateway.gone,
            Exception: gateway.rejected,
        },
    )
