"""Loads of events."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Engine, Row, func, insert, select, text, update

from libs.kit import errors
from libs.kit.database import lock
from libs.kit.paging import Page
from services.model_builder.domain import State, load_name
from services.model_builder.store.tables import loads

LoadRow = Row[Any]


@dataclass(frozen=True)
class LoadCounts:
    """What became of a file's rows."""

    row_count: int
    event_count: int
    duplicate_count: int
    quarantined_count: int
    new_user_count: int


def insert_load(tx: Connection, workspace: str, file_name: str, sha256: str, byte_count: int) -> LoadRow:
    """Inserts the workspace's next load."""
    lock(tx, f"loads of {workspace}")
    newest = tx.execute(select(func.max(loads.c.number)).where(loads.c.workspace == workspace)).scalar() or 0
    row = insert(loads).values(
        workspace=workspace,
        number=newest + 1,
        file_name=file_name,
        sha256=sha256,
        byte_count=byte_count,
        state=State.RUNNING,
    )
    return tx.execute(row.returning(loads)).one()


def find_load(tx: Connection, workspace: str, number: int) -> LoadRow | None:
    """One load's row."""
    return tx.execute(select(loads).where(_load(workspace, number))).first()


def list_loads(tx: Connection, workspace: str, page: Page) -> tuple[Sequence[LoadRow], str]:
    """A page of the loads, newest first, and the next page's token."""
    return page.read(tx, select(loads).where(loads.c.workspace == workspace), loads.c.number, newest_first=True)


def set_progress(tx: Connection, workspace: str, number: int, rows: int) -> None:
    """Notes how many rows have been read."""
    tx.execute(update(loads).where(_load(workspace, number)).values(row_count=rows))


def set_counts(tx: Connection, workspace: str, number: int, counts: LoadCounts) -> None:
    """Notes what became of the rows."""
    tx.execute(update(loads).where(_load(workspace, number)).values(**asdict(counts)))


def end_load(tx: Connection, workspace: str, number: int, state: State, error: str = "") -> None:
    """Ends a load that runs."""
    running = _load(workspace, number) & (loads.c.state == State.RUNNING)
    tx.execute(update(loads).where(running).values(state=state, error=error, end_time=func.now()))


def is_needed(tx: Connection, workspace: str, sha256: str) -> bool:
    """Whether a load that runs reads the uploaded file."""
    running = (loads.c.workspace == workspace) & (loads.c.sha256 == sha256) & (loads.c.state == State.RUNNING)
    return tx.execute(select(loads.c.number).where(running).limit(1)).first() is not None


@contextmanager
def alone(engine: Engine, workspace: str, number: int) -> Iterator[None]:
    """Within the block, no other load of the workspace writes; raises Conflict if one does now.

    Ordinals are given one after the other, so two loads must not give them at once. The lock ends with its session,
    hence with the worker that dies.
    """
    key = {"key": f"load into {workspace}"}
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as session:
        if not session.execute(text("SELECT pg_try_advisory_lock(hashtextextended(:key, 0))"), key).scalar():
            raise errors.Conflict(f"another load goes on; {load_name(workspace, number)} waits for its end")
        try:
            yield
        finally:
            session.execute(text("SELECT pg_advisory_unlock(hashtextextended(:key, 0))"), key)


def _load(workspace: str, number: int) -> Any:
    return (loads.c.workspace == workspace) & (loads.c.number == number)
