"""PostgreSQL's errors as ours, without the values that its messages quote."""

import psycopg
from psycopg import errors

from libs.warehouse.interface import (
    Conflict,
    LimitExceeded,
    NotFound,
    QueryError,
    Unavailable,
    WarehouseError,
)
from libs.warehouse.streaming import Deadline

_CONFLICTS = (
    errors.SerializationFailure,
    errors.DeadlockDetected,
    errors.LockNotAvailable,
    errors.UniqueViolation,
)
_ABSENT = (errors.UndefinedTable, errors.InvalidSchemaName)


def translate(error: psycopg.Error, deadline: Deadline) -> WarehouseError:
    """Return the error of the interface that says what to do next."""
    if deadline.passed:
        return LimitExceeded("time", f"{deadline.seconds} s")
    if isinstance(error, errors.OutOfMemory):
        return LimitExceeded("memory", "the server")
    if isinstance(error, _CONFLICTS):
        return Conflict("another writer changed the same data first; repeat the transaction")
    if isinstance(error, psycopg.OperationalError):
        return Unavailable(f"PostgreSQL cannot be used now ({type(error).__name__})")
    return _fault_of_the_caller(error)


def _fault_of_the_caller(error: psycopg.Error) -> WarehouseError:
    message = _without_values(error)
    if isinstance(error, _ABSENT):
        return NotFound(message.removesuffix(" does not exist").replace('"', ""))
    return QueryError(message)


def _without_values(error: psycopg.Error) -> str:
    """Return a message without the values of rows or of the query.

    Those of classes 42 and 3F (names and types that do not fit) quote identifiers only, save a syntax
    error, which quotes the text where it stands.
    """
    quotes_names_only = (error.sqlstate or "").startswith(("42", "3F")) and not isinstance(error, errors.SyntaxError)
    if quotes_names_only and error.diag.message_primary:
        return error.diag.message_primary
    return f"{type(error).__name__} (its text is withheld: it may hold values)"
