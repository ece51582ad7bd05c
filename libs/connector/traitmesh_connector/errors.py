"""What can go wrong with a connector, sorted by what its caller does next.

`ConfigError`: stop, a person must act. `TransientError`: the same again, later. `Reject`: one record
is at fault, the others are not. The rest (`ProtocolError`, `ConnectorCrashed`, `ConnectorStalled`) are
faults of the program itself, found by the runner. Messages are shown to people and stored, so they
never hold secrets or row values.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class ConnectorError(Exception):
    """Any failure of a connector; `message` is safe to show and to store."""

    failure_type = "system_error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ConfigError(ConnectorError):
    """Nothing will change until a person acts; the message says what to do."""

    failure_type = "config_error"


class TransientError(ConnectorError):
    """The same request may succeed later.

    `retry_after` is in seconds, None where the other side named no time. Nothing may be sent to the
    destination before it has passed.
    """

    failure_type = "transient_error"

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ProtocolError(ConnectorError):
    """The other side of the pipe broke the protocol; nothing it says after that is trusted."""


class ConnectorCrashed(ConnectorError):
    """The program failed by itself; `exit_code` is negative for a signal, None if unknown."""

    def __init__(self, message: str, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class ConnectorStalled(ConnectorError):
    """The program owed an answer and said nothing for the whole idle timeout."""


@dataclass(frozen=True, slots=True)
class Reject:
    """One record of a batch that the destination refuses, and would refuse again unchanged.

    `index` counts from 0 within the batch; `code` is a stable word (`invalid_type`); `message` says
    what would be right, in the vendor's words where there are any, without values of the row.
    """

    index: int
    code: str
    message: str


def trace_error(error: ConnectorError) -> dict[str, Any]:
    """Return the body of the TRACE message by which `error` crosses the process boundary."""
    body: dict[str, Any] = {"message": error.message, "failure_type": error.failure_type}
    if isinstance(error, TransientError) and error.retry_after is not None:
        body["traitmesh"] = {"retry_after": error.retry_after}
    return body


def from_trace(body: Mapping[str, Any], message: str) -> ConnectorError:
    """Return the error that a TRACE ERROR body stands for; `message` is its redacted text."""
    match body.get("failure_type"):
        case "config_error":
            return ConfigError(message)
        case "transient_error":
            extension = body.get("traitmesh")
            seconds = extension.get("retry_after") if isinstance(extension, dict) else None
            return TransientError(message, seconds if isinstance(seconds, int | float) else None)
        case _:
            return ConnectorCrashed(message)
