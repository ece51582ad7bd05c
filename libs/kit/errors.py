"""Failures that say whose turn it is: one type per thing the caller can do next.

Servicers, domains and stores raise these and nothing else on purpose. `server.py` turns them into gRPC status in one
place, `temporal.py` into `ApplicationError` in another. Messages are shown to callers and kept in histories: they never
hold a secret or a personal value.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from traitmesh_proto.api.v1.error_reason_pb2 import ErrorReason

DOMAIN = "traitmesh"

Thing = TypeVar("Thing")


class Fault(Exception):
    """A failure with a reason for programs and a sentence for people."""

    code: grpc.StatusCode = grpc.StatusCode.INTERNAL
    reason: ErrorReason.ValueType = ErrorReason.ERROR_REASON_INTERNAL
    #: True if the same call may succeed later without anybody doing anything.
    retriable = False

    def __init__(self, message: str, **metadata: str) -> None:
        super().__init__(message)
        self.message = message
        self.metadata: Mapping[str, str] = metadata

    @property
    def reason_name(self) -> str:
        """The reason as programs see it, such as `ERROR_REASON_NOT_READY`."""
        return ErrorReason.Name(self.reason)

    def status(self) -> status_pb2.Status:
        """The fault as google.rpc.Status with ErrorInfo, and whatever details the type adds."""
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        info = error_details_pb2.ErrorInfo(reason=self.reason_name, domain=DOMAIN, metadata=self.metadata)
        for detail in (info, *self.details()):
            packed = AnyMessage()
            packed.Pack(detail)
            status.details.append(packed)
        return status

    def details(self) -> tuple[error_details_pb2.BadRequest, ...]:
        """Further error details, for the types that have some."""
        return ()


@dataclass(frozen=True)
class Violation:
    """One field that is wrong: its path in the request, and what would be right."""

    field: str
    description: str


class InvalidArgument(Fault):
    """The request is wrong; nothing was changed. The caller corrects the named fields."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = ErrorReason.ERROR_REASON_INVALID_FIELD

    def __init__(self, *violations: Violation) -> None:
        super().__init__("; ".join(f"{v.field}: {v.description}" for v in violations))
        self.violations = violations

    def details(self) -> tuple[error_details_pb2.BadRequest, ...]:
        bad_request = error_details_pb2.BadRequest()
        for violation in self.violations:
            bad_request.field_violations.add(field=violation.field, description=violation.description)
        return (bad_request,)


def invalid(field: str, description: str) -> InvalidArgument:
    """The usual case of one wrong field."""
    return InvalidArgument(Violation(field, description))


class InvalidSource(Fault):
    """A dbt project or notebook that its own tool cannot read."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = ErrorReason.ERROR_REASON_INVALID_SOURCE


class Unauthenticated(Fault):
    """The caller must show another credential."""

    code = grpc.StatusCode.UNAUTHENTICATED
    reason = ErrorReason.ERROR_REASON_UNAUTHENTICATED


class PermissionDenied(Fault):
    """The caller's role does not allow this; somebody else must grant it."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = ErrorReason.ERROR_REASON_PERMISSION_DENIED


class NotFound(Fault):
    """Not there, or another workspace's: the two look the same. A hint says what to do about it."""

    code = grpc.StatusCode.NOT_FOUND
    reason = ErrorReason.ERROR_REASON_RESOURCE_NOT_FOUND

    def __init__(self, resource: str, hint: str = "") -> None:
        super().__init__("; ".join(filter(None, (f"there is no {resource}", hint))), resource=resource)


def found(thing: Thing | None, resource: str, hint: str = "") -> Thing:
    """What was looked for; raises NotFound where there is none."""
    if thing is None:
        raise NotFound(resource, hint)
    return thing


class AlreadyExists(Fault):
    """Another resource has this name."""

    code = grpc.StatusCode.ALREADY_EXISTS
    reason = ErrorReason.ERROR_REASON_RESOURCE_EXISTS

    def __init__(self, resource: str) -> None:
        super().__init__(f"{resource} exists already; choose another id", resource=resource)


class RequestIdReused(Fault):
    """The request_id belongs to another request; the caller makes a new one."""

    code = grpc.StatusCode.ALREADY_EXISTS
    reason = ErrorReason.ERROR_REASON_REQUEST_ID_REUSED


class NotReady(Fault):
    """Something must happen first; the message says what, and how."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = ErrorReason.ERROR_REASON_NOT_READY


class UnderWay(Fault):
    """A build or run that excludes this one goes on; the caller waits for it."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = ErrorReason.ERROR_REASON_UNDER_WAY

    def __init__(self, resource: str) -> None:
        super().__init__(f"{resource} is under way; wait for its end", resource=resource)


class ConnectorRefused(Fault):
    """A connector, or the tool behind it, refused; a person corrects its configuration."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = ErrorReason.ERROR_REASON_CONNECTOR_REFUSED


class Conflict(Fault):
    """Two callers changed the same thing; the call can be repeated at once."""

    code = grpc.StatusCode.ABORTED
    reason = ErrorReason.ERROR_REASON_CONFLICT
    retriable = True


class LimitExceeded(Fault):
    """Too large or too much; the metadata names the limit."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = ErrorReason.ERROR_REASON_LIMIT_EXCEEDED


class Unavailable(Fault):
    """A part that is needed does not answer; the call can be repeated later."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = ErrorReason.ERROR_REASON_UNAVAILABLE
    retriable = True


class Internal(Fault):
    """A fault of our own. The message says nothing; the log does, under the trace id."""


class Remote(Fault):
    """A fault of the service that was called, passed on as it is."""

    def __init__(self, status: status_pb2.Status) -> None:
        super().__init__(status.message)
        self._status = status
        self.code = _CODES.get(status.code, grpc.StatusCode.INTERNAL)
        self.retriable = self.code in _RETRIABLE
        for detail in status.details:
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info):
                self.reason = ErrorReason.Value(info.reason)
                self.metadata = dict(info.metadata)

    def status(self) -> status_pb2.Status:
        return self._status


def from_rpc(error: Exception) -> Fault:
    """The fault behind a failed call of a stub (a grpc.RpcError).

    A status without details was not made by a service: nobody answered in time, which a later call may mend.
    """
    if not isinstance(error, grpc.Call):
        return Internal("a call failed before it was sent")
    status = rpc_status.from_call(error)
    if status is not None:
        return Remote(status)
    if error.code() in _RETRIABLE:
        return Unavailable("a service that this call needs does not answer; try again")
    return Internal(f"a service answered {error.code().name}")


_CODES = {code.value[0]: code for code in grpc.StatusCode}
_RETRIABLE = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.ABORTED,
}
