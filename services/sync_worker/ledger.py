"""The ledger: which batches of a run's plan were sent and confirmed, and which records were refused.

It is the only checkpoint of sending: whoever goes on with a run, goes on from here. An attempt to send raises the
run's epoch and writes under it, so that a worker which was only thought dead cannot write any more.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Row,
    ScalarSelect,
    Select,
    case,
    cast,
    func,
    insert,
    literal,
    select,
    update,
)

from libs.kit import errors
from libs.kit.paging import Page
from services.sync_worker.domain import BatchState, RunName, RunState
from services.sync_worker.store import batches, point_to_state, rejects, runs


class Batch(NamedTuple):
    """Records `first_ordinal` to `first_ordinal + record_count` (exclusive) of the plan."""

    number: int
    first_ordinal: int
    record_count: int
    state: BatchState


class Reject(NamedTuple):
    """A record that the destination refused."""

    ordinal: int
    key: str
    operation: str
    code: str
    message: str


class Outcome(NamedTuple):
    """What became of one batch; `unnamed_rejects` of its records were refused without being named."""

    number: int
    state: BatchState
    unnamed_rejects: int


class RejectedOrdinal(NamedTuple):
    """The place of a refused record, and the destination's revision that refused it."""

    ordinal: int
    destination_revision: int


def _of(run: RunName) -> ColumnElement[bool]:
    return (runs.c.workspace == run.workspace) & (runs.c.sync == run.sync) & (runs.c.number == run.number)


def _batches_of(run: RunName) -> ColumnElement[bool]:
    return (batches.c.workspace == run.workspace) & (batches.c.sync == run.sync) & (batches.c.run == run.number)


def _rejects_of(run: RunName) -> ColumnElement[bool]:
    return (rejects.c.workspace == run.workspace) & (rejects.c.sync == run.sync) & (rejects.c.run == run.number)


# The life of a run.


def insert_run(tx: Connection, workspace: str, sync: str, *, retry_rejects: bool) -> RunName:
    """Inserts the sync's next run, in state planning. The caller holds the sync's lock.

    Raises UnderWay if one goes on.
    """
    mine = (runs.c.workspace == workspace) & (runs.c.sync == sync)
    last = tx.execute(select(runs.c.number, runs.c.state).where(mine).order_by(runs.c.number.desc()).limit(1)).first()
    if last is not None and not RunState(last.state).is_over:
        raise errors.UnderWay(str(RunName(workspace, sync, last.number)))
    run = RunName(workspace, sync, last.number + 1 if last else 1)
    row = {"workspace": workspace, "sync": sync, "number": run.number}
    tx.execute(insert(runs).values(**row, state=RunState.PLANNING, retry_rejects=retry_rejects))
    return run


def lock_run(tx: Connection, run: RunName) -> Row[Any] | None:
    """The run's row, held off from others until the transaction ends; None if there is no such run."""
    return tx.execute(select(runs).where(_of(run)).with_for_update()).first()


def pin_build(tx: Connection, run: RunName, build: str, snapshot: int | None) -> None:
    """Fixes which build a run sends; what was fixed before stays."""
    tx.execute(update(runs).where(_of(run), runs.c.build == "").values(build=build, snapshot=snapshot))


def record_plan(tx: Connection, run: RunName, batch_size: int, counts: dict[str, int]) -> None:
    """Cuts a frozen plan into batches. `counts` are the plan's records by change. Does nothing the second time."""
    row = lock_run(tx, run)
    if row is None or row.batch_size is not None:
        return
    total = sum(counts.values())
    by_column = {f"{change}_count": count for change, count in counts.items()}
    tx.execute(update(runs).where(_of(run)).values(batch_size=batch_size, state=RunState.SENDING, **by_column))
    if total == 0:
        return
    number = func.generate_series(0, (total - 1) // batch_size).column_valued("number")
    first = cast(number, BigInteger) * batch_size
    rows = select(
        literal(run.workspace),
        literal(run.sync),
        literal(run.number),
        number,
        first,
        func.least(batch_size, total - first),
        literal(str(BatchState.PLANNED)),
    )
    columns = ["workspace", "sync", "run", "number", "first_ordinal", "record_count", "state"]
    tx.execute(insert(batches).from_select(columns, rows))


def park(tx: Connection, run: RunName, attention: str) -> None:
    """Marks a run as waiting for a person. Raises NotFound if there is no such run."""
    values = {"state": RunState.NEEDS_ATTENTION, "attention": attention}
    if tx.execute(update(runs).where(_of(run)).values(values)).rowcount == 0:
        raise errors.NotFound(str(run))


def resume(tx: Connection, run: RunName) -> None:
    """Takes a parked run back to what it was doing."""
    state = case((runs.c.batch_size.is_(None), RunState.PLANNING), else_=RunState.SENDING)
    tx.execute(update(runs).where(_of(run)).values(state=state, attention=""))


def close(tx: Connection, run: RunName) -> int:
    """Ends whatever attempt still writes, and returns the epoch under which `finish` may end the run."""
    return _raise_epoch(tx, run)


def finish(tx: Connection, run: RunName, epoch: int, state: RunState, *, new_state_file: bool) -> None:
    """Ends a run; if it left a new state file, the sync points to that from now on."""
    _check_epoch(tx, run, epoch)
    tx.execute(update(runs).where(_of(run)).values(state=state, attention="", end_time=func.now()))
    if new_state_file:
        point_to_state(tx, run.workspace, run.sync, run.number)


# Sending, fenced by the epoch.


def begin_attempt(tx: Connection, run: RunName) -> int:
    """Begins an attempt to send and returns its epoch. Batches that a dead attempt left as sent become unknown."""
    row = lock_run(tx, run)
    if row is None or row.batch_size is None or RunState(row.state).is_over:
        raise errors.NotReady(f"{run} has nothing to send: it is not planned, or over")
    epoch = _raise_epoch(tx, run)
    resume(tx, run)
    left = _batches_of(run) & (batches.c.state == BatchState.SENT)
    tx.execute(update(batches).where(left).values(state=BatchState.UNKNOWN))
    return epoch


def remaining_batches(tx: Connection, run: RunName) -> list[Batch]:
    """The batches that are not confirmed, in order."""
    query = (
        select(batches.c.number, batches.c.first_ordinal, batches.c.record_count, batches.c.state)
        .where(_batches_of(run), batches.c.state != BatchState.CONFIRMED)
        .order_by(batches.c.number)
    )
    return [Batch(*row[:3], BatchState(row.state)) for row in tx.execute(query)]


def mark_sent(tx: Connection, run: RunName, epoch: int, number: int) -> None:
    """Notes that a batch is about to be sent."""
    _check_epoch(tx, run, epoch)
    values = {"state": BatchState.SENT, "attempts": batches.c.attempts + 1, "sent_time": func.now()}
    tx.execute(update(batches).where(_batches_of(run), batches.c.number == number).values(values))


def confirm(
    tx: Connection,
    run: RunName,
    epoch: int,
    number: int,
    refused: Sequence[Reject],
    *,
    unnamed_rejects: int,
    destination_revision: int,
) -> None:
    """Notes that the destination committed a batch but for the refused records, which it keeps with their reasons."""
    _check_epoch(tx, run, epoch)
    values = {"state": BatchState.CONFIRMED, "unnamed_rejects": unnamed_rejects, "confirm_time": func.now()}
    tx.execute(update(batches).where(_batches_of(run), batches.c.number == number).values(values))
    place = {"workspace": run.workspace, "sync": run.sync, "run": run.number, "batch": number}
    rows = [place | reject._asdict() | {"destination_revision": destination_revision} for reject in refused]
    if rows:
        tx.execute(insert(rejects), rows)


def _raise_epoch(tx: Connection, run: RunName) -> int:
    raised = update(runs).where(_of(run)).values(epoch=runs.c.epoch + 1).returning(runs.c.epoch)
    epoch: int = tx.execute(raised).scalar_one()
    return epoch


def _check_epoch(tx: Connection, run: RunName, epoch: int) -> None:
    # The shared lock holds the next attempt off until this write is committed.
    current = tx.execute(select(runs.c.epoch).where(_of(run)).with_for_update(read=True)).scalar()
    if current != epoch:
        raise errors.Conflict(f"{run} was taken over by a newer attempt; this one ends")


# What the ledger says.


def find_run(tx: Connection, run: RunName) -> Row[Any] | None:
    """A run's row with its confirmed_count, rejected_count and unknown_count; None if there is no such run."""
    return tx.execute(_counted().where(_of(run))).first()


def list_runs(tx: Connection, workspace: str, sync: str | None, page: Page) -> tuple[Sequence[Row[Any]], str]:
    """A page of the runs of one sync, or of all, as `find_run` gives them, newest first; and the next page's token."""
    query = _counted().where(runs.c.workspace == workspace)
    if sync is not None:
        query = query.where(runs.c.sync == sync)
    return page.read(tx, query, runs.c.create_time, runs.c.sync, runs.c.number, newest_first=True)


def list_rejects(tx: Connection, run: RunName, page: Page) -> tuple[Sequence[Row[Any]], str]:
    """A page of the rejects in the order of the plan, and the next page's token."""
    return page.read(tx, select(rejects).where(_rejects_of(run)), rejects.c.ordinal)


def outcomes(tx: Connection, run: RunName) -> tuple[list[Outcome], list[RejectedOrdinal]]:
    """What became of each batch, and which records were refused."""
    found = select(batches.c.number, batches.c.state, batches.c.unnamed_rejects).where(_batches_of(run))
    refused = select(rejects.c.ordinal, rejects.c.destination_revision).where(_rejects_of(run))
    return (
        [Outcome(row.number, BatchState(row.state), row.unnamed_rejects) for row in tx.execute(found)],
        [RejectedOrdinal(*row) for row in tx.execute(refused)],
    )


def _counted() -> Select[Any]:
    mine = (
        (batches.c.workspace == runs.c.workspace) & (batches.c.sync == runs.c.sync) & (batches.c.run == runs.c.number)
    )
    named = (
        (rejects.c.workspace == runs.c.workspace) & (rejects.c.sync == runs.c.sync) & (rejects.c.run == runs.c.number)
    )
    acknowledged = _sum(batches.c.record_count, mine & (batches.c.state == BatchState.CONFIRMED))
    maybe = _sum(batches.c.record_count, mine & batches.c.state.in_([BatchState.SENT, BatchState.UNKNOWN]))
    refused = select(func.count()).where(named).correlate(runs).scalar_subquery() + _sum(
        batches.c.unnamed_rejects, mine
    )
    return select(
        runs,
        (acknowledged - refused).label("confirmed_count"),
        refused.label("rejected_count"),
        maybe.label("unknown_count"),
    )


def _sum(column: ColumnElement[int], where: ColumnElement[bool]) -> ScalarSelect[int]:
    return select(func.coalesce(func.sum(column), 0)).where(where).correlate(runs).scalar_subquery()
