"""The outermost layer: what every HTTP request passes on its way in, and every answer on its way out.

It checks what no route should have to (size of address and headers), opens the span whose trace id is
the request's id, answers every failure as problem+json, and writes one line of access log that holds the path's
template, never its values.
"""

import asyncio
import time
from collections.abc import MutableMapping
from typing import Any

import structlog
from opentelemetry import trace
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from traitmesh_proto.api.v1.error_reason_pb2 import ErrorReason

from libs.kit import errors, telemetry
from services.gateway.transcoding import problems
from services.gateway.transcoding.problems import ProblemError

MAX_ADDRESS_BYTES = 8 * 1024
MAX_HEADER_BYTES = 32 * 1024

#: The key of a request's scope under which whoever finds its route notes the template.
TEMPLATE = "path_template"

SECURITY_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)

#: The reason of a problem that has none yet, by its code: those of the transcoder and of gRPC itself.
_REASONS = {
    "INVALID_ARGUMENT": ErrorReason.ERROR_REASON_INVALID_FIELD,
    "NOT_FOUND": ErrorReason.ERROR_REASON_RESOURCE_NOT_FOUND,
    "UNIMPLEMENTED": ErrorReason.ERROR_REASON_INVALID_FIELD,
    "RESOURCE_EXHAUSTED": ErrorReason.ERROR_REASON_LIMIT_EXCEEDED,
    "UNAVAILABLE": ErrorReason.ERROR_REASON_UNAVAILABLE,
    "DEADLINE_EXCEEDED": ErrorReason.ERROR_REASON_UNAVAILABLE,
}

log = structlog.get_logger()


class Front:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, whatever happens within."""
        headers = Headers(scope=scope)
        with telemetry.server_span(f"HTTP {scope['method']}", headers) as span:
            await _Exchange(scope, send, span).run(self._app, receive)


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, send: Send, span: trace.Span) -> None:
        self._scope = scope
        self._send = send
        self._span = span
        self._trace_id = trace.format_trace_id(span.get_span_context().trace_id)
        self._started = time.monotonic()
        self._status = 0

    async def run(self, app: ASGIApp, receive: Receive) -> None:
        try:
            _check_sizes(self._scope)
            await app(self._scope, receive, self._pass_on)
        except ClientDisconnect:
            self._status = 499
        except Exception as error:  # noqa: BLE001 -- the one place where every failure becomes an answer
            await self._answer(_problem(error), receive)
        finally:
            template = self._scope.get(TEMPLATE, "-")
            self._span.update_name(f"{self._scope['method']} {template}")
            self._span.set_attribute("http.response.status_code", self._status)
            # Logged when the event loop has sent what was written: nobody waits for a log.
            asyncio.get_running_loop().call_soon(self._write_log, template, time.monotonic() - self._started)

    async def _pass_on(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            given = {name for name, _ in message["headers"]}
            message["headers"] += [header for header in SECURITY_HEADERS if header[0] not in given]
            message["headers"].append((b"x-trace-id", self._trace_id.encode()))
        await self._send(message)

    async def _answer(self, problem: ProblemError, receive: Receive) -> None:
        if self._status:
            # The answer has begun. Not ending it makes the server close the connection, which the client notices.
            log.warning("answer broken off", code=problem.code)
            return
        body = problem.body(traceId=self._trace_id)
        response = Response(body, problem.status, problem.headers, problems.MEDIA_TYPE)
        await response(self._scope, receive, self._pass_on)

    def _write_log(self, template: str, seconds: float) -> None:
        log.info(
            "request",
            method=self._scope["method"],
            path=template,
            status=self._status,
            milliseconds=round(seconds * 1000, 1),
        )


def _check_sizes(scope: MutableMapping[str, Any]) -> None:
    address = len(scope["raw_path"]) + len(scope["query_string"])
    if address > MAX_ADDRESS_BYTES:
        raise problems.too_large("address", "address_bytes", MAX_ADDRESS_BYTES, status=414)
    if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADER_BYTES:
        raise problems.too_large("headers", "header_bytes", MAX_HEADER_BYTES, status=431)
    if not any(name == b"host" for name, _ in scope["headers"]):
        raise problems.invalid("host", "must be given as a header")


def _problem(error: Exception) -> ProblemError:
    if isinstance(error, errors.Fault):
        problem = problems.from_status(error.status())
    elif isinstance(error, ProblemError):
        problem = error
    else:
        log.error("unexpected", exc_info=True)
        problem = ProblemError("INTERNAL", "something went wrong here; the log has it")
    if not problem.reason:
        reason = _REASONS.get(problem.code, ErrorReason.ERROR_REASON_INTERNAL)
        problem.reason, problem.domain = ErrorReason.Name(reason), errors.DOMAIN
    if problem.status == 401:
        problem.headers = {**problem.headers, "WWW-Authenticate": "Bearer"}
    return problem
