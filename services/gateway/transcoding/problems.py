"""Errors as the caller sees them: RFC 9457 problem details, made from google.rpc.Status.

HTTP statuses follow the comments of google/rpc/code.proto.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar

import grpc
import orjson
from google.rpc import code_pb2, error_details_pb2, status_pb2

Detail = TypeVar("Detail", error_details_pb2.ErrorInfo, error_details_pb2.BadRequest)

MEDIA_TYPE = "application/problem+json"

_DETAILS_KEY = "grpc-status-details-bin"

_HTTP_STATUS = {
    "OK": 200,
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "UNAUTHENTICATED": 401,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DATA_LOSS": 500,
}

#: What is said when the gRPC library or a crash made the status, whose own words may show addresses or values.
_OWN_WORDS = {
    "CANCELLED": "the call was cancelled",
    "UNKNOWN": "the service failed",
    "INTERNAL": "the service failed",
    "DATA_LOSS": "the service failed",
    "UNAVAILABLE": "the service does not answer; repeat the call later",
    "DEADLINE_EXCEEDED": "the service did not answer in time",
    "RESOURCE_EXHAUSTED": "the request or its answer is too large for the service",
    "UNIMPLEMENTED": "the service does not know this method",
}


@dataclass(frozen=True)
class Violation:
    """One field that is wrong: its path in the request, and what would be right."""

    field: str
    description: str


class ProblemError(Exception):
    """Ends a request with an error answer.

    `code` is a name of google.rpc.Code. `status` is the HTTP status, by default the one of the code. `reason`,
    `domain` and `metadata` are those of google.rpc.ErrorInfo. `headers` go to the answer.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        status: int | None = None,
        reason: str = "",
        domain: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: tuple[Violation, ...] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.status = status or _HTTP_STATUS[code]
        self.reason = reason
        self.domain = domain
        self.metadata = metadata or {}
        self.violations = violations
        self.headers = headers or {}

    def body(self, **members: str) -> bytes:
        """The problem as JSON, with further members such as the trace's id."""
        problem: dict[str, Any] = {
            "type": "about:blank",
            "title": _title(self.status),
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
        }
        if self.reason:
            problem |= {"reason": self.reason, "domain": self.domain}
        if self.metadata:
            problem["metadata"] = dict(self.metadata)
        if self.violations:
            problem["violations"] = [{"field": v.field, "description": v.description} for v in self.violations]
        return orjson.dumps(problem | members)


def invalid(field: str, description: str) -> ProblemError:
    """One wrong field."""
    return ProblemError("INVALID_ARGUMENT", f"{field}: {description}", violations=(Violation(field, description),))


def too_large(what: str, limit: str, value: int, status: int = 413) -> ProblemError:
    """A part of the request above its limit, which is named."""
    return ProblemError(
        "RESOURCE_EXHAUSTED",
        f"{what} may have at most {value} bytes",
        status=status,
        metadata={"limit": limit, "value": str(value)},
        violations=(Violation(what, f"may have at most {value} bytes"),),
    )


def not_allowed(allow: str) -> ProblemError:
    """A method that a path does not take; `allow` lists those that it does."""
    takes = f"this path takes {allow}"
    return ProblemError(
        "UNIMPLEMENTED",
        takes,
        status=405,
        violations=(Violation("method", takes),),
        headers={"Allow": allow},
    )


def from_call(error: grpc.RpcError) -> ProblemError:
    """The problem of a failed call."""
    trailers: Any = error.trailing_metadata() or ()
    if details := dict(trailers).get(_DETAILS_KEY):
        return from_status(status_pb2.Status.FromString(details))
    return from_status(status_pb2.Status(code=error.code().value[0], message=error.details() or ""))


def from_status(status: status_pb2.Status) -> ProblemError:
    """The problem of a status. Details of types other than ErrorInfo and BadRequest are left out."""
    try:
        code = code_pb2.Code.Name(status.code)
    except ValueError:
        code = "UNKNOWN"
    info = _first(status, error_details_pb2.ErrorInfo())
    bad_request = _first(status, error_details_pb2.BadRequest()) or error_details_pb2.BadRequest()
    return ProblemError(
        code,
        status.message if info else _OWN_WORDS.get(code, status.message),
        reason=info.reason if info else "",
        domain=info.domain if info else "",
        metadata=dict(info.metadata) if info else {},
        violations=tuple(Violation(v.field, v.description) for v in bad_request.field_violations),
    )


def _first(status: status_pb2.Status, message: Detail) -> Detail | None:
    return next((message for detail in status.details if detail.Unpack(message)), None)


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Client Closed Request"
