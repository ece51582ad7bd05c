"""`request_id`: a mutation that is repeated has one effect and one answer (AIP-155).

The id, a hash of the request and the answer are a row in the service's own schema, written in the transaction of the
effect itself. A second call with the same id waits for the first to commit and gets its answer; the same id with
another request is refused. A call that failed leaves no row, so it can be repeated. With `validate_only` the answer is
what would happen, and nothing of it stays.
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
    Engine,
    LargeBinary,
    MetaData,
    Row,
    Select,
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


def mutate(
    engine: Engine,
    table: Table,
    workspace: str,
    request: Request,
    answer_type: type[Answer],
    effect: Callable[[Connection], Answer],
) -> Answer:
    """Runs `effect` in a transaction, unless this request has been answered before; then returns that answer.

    `table` is the service's `request_table`. Of a request with `validate_only`, nothing that `effect` wrote is kept.
    Raises InvalidArgument if request_id is not a UUID, RequestIdReused if it belongs to another request.
    """
    with engine.connect() as tx:
        if getattr(request, "validate_only", False):
            return effect(tx)
        answer = _once(tx, table, workspace, request, answer_type, effect) if request.request_id else effect(tx)
        tx.commit()
        return answer


def answered(
    engine: Engine, table: Table, workspace: str, request: Request, answer_type: type[Answer]
) -> Answer | None:
    """What this request was answered before, None if it is new: for checks that take too long for a transaction.

    Raises as `mutate` does.
    """
    if not request.request_id:
        return None
    with engine.connect() as tx:
        kept = tx.execute(_kept(table, workspace, _parse(request.request_id))).one_or_none()
    return None if kept is None else _answer(kept, request, answer_type)


def _once(
    tx: Connection,
    table: Table,
    workspace: str,
    request: Request,
    answer_type: type[Answer],
    effect: Callable[[Connection], Answer],
) -> Answer:
    key = _parse(request.request_id)
    claim = insert(table).values(workspace=workspace, request_id=key, fingerprint=_fingerprint(request))
    claimed = tx.execute(claim.on_conflict_do_nothing().returning(table.c.request_id)).first()
    if claimed is None:
        return _answer(tx.execute(_kept(table, workspace, key)).one(), request, answer_type)
    answer = effect(tx)
    mine = (table.c.workspace == workspace) & (table.c.request_id == key)
    tx.execute(update(table).where(mine).values(answer=answer.SerializeToString()))
    return answer


def _kept(table: Table, workspace: str, key: uuid.UUID) -> Select[tuple[bytes, bytes]]:
    mine = (table.c.workspace == workspace) & (table.c.request_id == key)
    return select(table.c.fingerprint, table.c.answer).where(mine)


def _answer(kept: Row[tuple[bytes, bytes]], request: Request, answer_type: type[Answer]) -> Answer:
    """The kept answer. Raises RequestIdReused if it was given to another request."""
    if bytes(kept.fingerprint) != _fingerprint(request):
        raise errors.RequestIdReused(
            "request_id was used before with another request; make a new one",
            request_id=request.request_id,
        )
    return answer_type.FromString(bytes(kept.answer))


def _fingerprint(request: Request) -> bytes:
    return hashlib.sha256(type(request).__name__.encode() + request.SerializeToString(deterministic=True)).digest()


def _parse(request_id: str) -> uuid.UUID:
    try:
        return uuid.UUID(request_id)
    except ValueError as error:
        raise errors.invalid("request_id", "must be a UUID, or empty") from error
