"""`request_id`: a mutation that is repeated has one effect and one answer (AIP-155).

The id, a hash of the request and the answer are a row in the service's own schema, written in the transaction of the
effect itself. A second call with the same id waits for the first to commit and gets its answer; the same id with
another request is refused. A call that failed leaves no row, so it can be repeated.
"""

import hashlib
import uuid
from collections.abc import Callable
from typing import Protocol, TypeVar

from google.protobuf.message import Message
from sqlalchemy import (
    Column,
    Connection,
    DateTime,
    LargeBinary,
    MetaData,
    Table,
    Text,
    Uuid,
    func,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from libs.kit import errors

Answer = TypeVar("Answer", bound=Message)


class Request(Protocol):
    """A request message with a request_id."""

    @property
    def request_id(self) -> str: ...
    def SerializeToString(self, *, deterministic: bool = ...) -> bytes: ...  # noqa: N802 -- protobuf's name


def request_table(metadata: MetaData) -> Table:
    """The table that a service's store keeps its requests in."""
    return Table(
        "requests",
        metadata,
        Column("workspace", Text, primary_key=True),
        Column("request_id", Uuid, primary_key=True),
        Column("fingerprint", LargeBinary, nullable=False),
        Column("answer", LargeBinary),
        Column("create_time", DateTime(timezone=True), nullable=False, server_default=func.now()),
    )


def once(
    transaction: Connection,
    table: Table,
    workspace: str,
    request: Request,
    *,
    answer_type: type[Answer],
    effect: Callable[[], Answer],
) -> Answer:
    """Runs `effect` unless this request has been answered before; then returns that answer.

    Raises InvalidArgument if request_id is not a UUID, RequestIdReused if it belongs to another request.
    """
    if not request.request_id:
        return effect()
    key = _parse(request.request_id)
    fingerprint = hashlib.sha256(
        type(request).__name__.encode() + request.SerializeToString(deterministic=True)
    ).digest()
    claim = insert(table).values(workspace=workspace, request_id=key, fingerprint=fingerprint)
    claimed = transaction.execute(claim.on_conflict_do_nothing().returning(table.c.request_id)).first()
    mine = (table.c.workspace == workspace) & (table.c.request_id == key)
    if claimed is not None:
        answer = effect()
        transaction.execute(update(table).where(mine).values(answer=answer.SerializeToString()))
        return answer
    row = transaction.execute(select(table.c.fingerprint, table.c.answer).where(mine)).one()
    if bytes(row.fingerprint) != fingerprint:
        raise errors.RequestIdReused(
            "request_id was used before with another request; make a new one",
            request_id=request.request_id,
        )
    return answer_type.FromString(bytes(row.answer))


def _parse(request_id: str) -> uuid.UUID:
    try:
        return uuid.UUID(request_id)
    except ValueError as error:
        raise errors.invalid("request_id", "must be a UUID, or empty") from error
