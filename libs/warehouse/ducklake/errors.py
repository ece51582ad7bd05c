"""DuckDB's errors as ours, without the values that its messages quote."""

import re

from libs.warehouse.interface import (
    Conflict,
    LimitExceeded,
    Limits,
    NotFound,
    QueryError,
    Unavailable,
    WarehouseError,
)
from libs.warehouse.streaming import Deadline

_ABSENT = re.compile(r"(Table|View|Schema) with name (\S+) does not exist")
_CONFLICT = re.compile(r"[Tt]ransaction conflict|maximum retry count|conflicts? ")
_NAMES_ONLY = {"Binder", "Catalog", "Not implemented"}
"""Kinds of errors whose first line names columns, tables and functions, never values."""
_PASSING = {"IO", "HTTP", "Connection", "INTERRUPT", "Interrupt", "FATAL", "INTERNAL"}

ABSENT_SNAPSHOT = re.compile(r"No snapshot found at version (\d+)")


def kind_of(error: Exception) -> str:
    """Return "Binder" for "Binder Error: ..."; empty for a message of another form."""
    kind, colon, _ = str(error).partition(" Error:")
    return kind if colon else ""


def translate(error: Exception, limits: Limits, deadline: Deadline) -> WarehouseError:
    """Return the error of the interface that says what to do next."""
    message, kind = str(error), kind_of(error)
    if deadline.passed:
        return LimitExceeded("time", f"{deadline.seconds} s")
    if kind == "Out of Memory":
        return LimitExceeded("memory", limits.memory)
    if kind == "TransactionContext" and _CONFLICT.search(message):
        return Conflict("another writer changed the same data first; repeat the transaction")
    if kind in _PASSING or "Failed to commit" in message:
        return Unavailable(f"the DuckLake catalog or its files cannot be used now ({kind})")
    return _fault_of_the_caller(message, kind)


def _fault_of_the_caller(message: str, kind: str) -> WarehouseError:
    if absent := _ABSENT.search(message):
        return NotFound(f"{absent[1].lower()} {absent[2].rstrip('!')}")
    if kind in _NAMES_ONLY:
        return QueryError(message.splitlines()[0])
    return QueryError(f"{kind or 'Query'} error (its text is withheld: it may hold values)")
