"""The tables of the PostgreSQL schema `sync`, and the questions asked of destinations and syncs.

Functions take the transaction that they are part of. Runs, batches and rejects are the ledger's: see `ledger`.
"""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    DateTime,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    Table,
    Text,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import insert as upsert

from libs.kit.database import time_column
from libs.kit.paging import Page
from libs.kit.requests import request_table
from services.sync_worker.domain import Mapping, Mode, Sync

SCHEMA = "sync"

metadata = MetaData(schema=SCHEMA)

destinations = Table(
    "destinations",
    metadata,
    Column("workspace", Text, primary_key=True),
    Column("destination", Text, primary_key=True),
    Column("display_name", Text, nullable=False),
    Column("connector", Text, nullable=False),
    Column("sealed_config", LargeBinary, nullable=False),
    # The same with its secrets masked, so that reading needs neither the key nor the connector.
    Column("shown_config", JSONB, nullable=False),
    Column("revision", Integer, nullable=False),
    time_column(),
)

syncs = Table(
    "syncs",
    metadata,
    Column("workspace", Text, primary_key=True),
    Column("sync", Text, primary_key=True),
    Column("display_name", Text, nullable=False),
    Column("audience", Text, nullable=False),
    Column("destination", Text, nullable=False),
    Column("object", Text, nullable=False),
    Column("mode", Text, nullable=False),
    Column("mappings", JSONB, nullable=False),
    # The run whose state file says what the destination holds; null before the first.
    Column("state_run", Integer),
    time_column(),
    ForeignKeyConstraint(["workspace", "destination"], [destinations.c.workspace, destinations.c.destination]),
)

runs = Table(
    "runs",
    metadata,
    Column("workspace", Text, primary_key=True),
    Column("sync", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("state", Text, nullable=False),
    Column("retry_rejects", Boolean, nullable=False),
    Column("build", Text, nullable=False, server_default=""),
    Column("snapshot", BigInteger),
    # Null until the plan is frozen.
    Column("batch_size", Integer),
    Column("added_count", BigInteger, nullable=False, server_default="0"),
    Column("changed_count", BigInteger, nullable=False, server_default="0"),
    Column("deleted_count", BigInteger, nullable=False, server_default="0"),
    Column("attention", Text, nullable=False, server_default=""),
    # Counts the attempts to send; only the newest may write to the ledger.
    Column("epoch", Integer, nullable=False, server_default="0"),
    time_column(),
    Column("end_time", DateTime(timezone=True)),
    ForeignKeyConstraint(["workspace", "sync"], [syncs.c.workspace, syncs.c.sync]),
    Index(
        "one_unfinished_run",
        "workspace",
        "sync",
        unique=True,
        postgresql_where=text("state NOT IN ('succeeded', 'aborted')"),
    ),
    Index("runs_by_age", "workspace", "create_time"),
)

batches = Table(
    "batches",
    metadata,
    Column("workspace", Text, primary_key=True),
    Column("sync", Text, primary_key=True),
    Column("run", Integer, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("first_ordinal", BigInteger, nullable=False),
    Column("record_count", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    # Rejects that a destination counted without saying which records they are.
    Column("unnamed_rejects", Integer, nullable=False, server_default="0"),
    Column("sent_time", DateTime(timezone=True)),
    Column("confirm_time", DateTime(timezone=True)),
    ForeignKeyConstraint(["workspace", "sync", "run"], [runs.c.workspace, runs.c.sync, runs.c.number]),
)

rejects = Table(
    "rejects",
    metadata,
    Column("workspace", Text, primary_key=True),
    Column("sync", Text, primary_key=True),
    Column("run", Integer, primary_key=True),
    Column("ordinal", BigInteger, primary_key=True),
    Column("batch", Integer, nullable=False),
    Column("key", Text, nullable=False),
    Column("operation", Text, nullable=False),
    Column("code", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("destination_revision", Integer, nullable=False),
    ForeignKeyConstraint(
        ["workspace", "sync", "run", "batch"],
        [batches.c.workspace, batches.c.sync, batches.c.run, batches.c.number],
    ),
)

requests = request_table(metadata)


class StoredConfig(NamedTuple):
    """A destination's configuration as it is kept: sealed whole, and with its secrets masked."""

    sealed_config: bytes
    shown_config: dict[str, Any]


class StoredSync(NamedTuple):
    """A sync, what else is kept of it, and the run whose state file is current (None before the first)."""

    sync: Sync
    display_name: str
    create_time: datetime
    state_run: int | None


def insert_destination(
    tx: Connection, workspace: str, destination: str, display_name: str, connector: str, config: StoredConfig
) -> Row[Any] | None:
    """Inserts a destination as revision 1 and returns its row; None if the id is taken."""
    row = upsert(destinations).values(
        workspace=workspace,
        destination=destination,
        display_name=display_name,
        connector=connector,
        revision=1,
        **config._asdict(),
    )
    return tx.execute(row.on_conflict_do_nothing().returning(destinations)).first()


def find_destination(tx: Connection, workspace: str, destination: str, *, lock: bool = False) -> Row[Any] | None:
    """One destination's row; `lock` holds other changes of it off until the transaction ends."""
    query = select(destinations).where(destinations.c.workspace == workspace, destinations.c.destination == destination)
    return tx.execute(query.with_for_update() if lock else query).first()


def list_destinations(tx: Connection, workspace: str, page: Page) -> tuple[Sequence[Row[Any]], str]:
    """A page of the destinations by id, and the next page's token."""
    return page.read(tx, select(destinations).where(destinations.c.workspace == workspace), destinations.c.destination)


def update_destination(
    tx: Connection, workspace: str, destination: str, display_name: str, revision: int, config: StoredConfig | None
) -> Row[Any]:
    """Replaces what a destination holds, its configuration if one is given, and returns its row."""
    change = (
        update(destinations)
        .where(destinations.c.workspace == workspace, destinations.c.destination == destination)
        .values(display_name=display_name, revision=revision, **(config._asdict() if config else {}))
        .returning(destinations)
    )
    return tx.execute(change).one()


def insert_sync(tx: Connection, sync: Sync, display_name: str) -> StoredSync | None:
    """Inserts a sync and returns it; None if the id is taken."""
    row = upsert(syncs).values(
        workspace=sync.workspace,
        sync=sync.sync,
        display_name=display_name,
        audience=sync.audience,
        destination=sync.destination,
        object=sync.object,
        mode=sync.mode,
        mappings=[asdict(mapping) for mapping in sync.mappings],
    )
    stored = tx.execute(row.on_conflict_do_nothing().returning(syncs)).first()
    return None if stored is None else _stored_sync(stored)


def find_sync(tx: Connection, workspace: str, sync: str, *, lock: bool = False) -> StoredSync | None:
    """One sync; `lock` holds others that lock it off until the transaction ends."""
    query = select(syncs).where(syncs.c.workspace == workspace, syncs.c.sync == sync)
    row = tx.execute(query.with_for_update() if lock else query).first()
    return None if row is None else _stored_sync(row)


def list_syncs(tx: Connection, workspace: str, page: Page) -> tuple[list[StoredSync], str]:
    """A page of the syncs by id, and the next page's token."""
    rows, token = page.read(tx, select(syncs).where(syncs.c.workspace == workspace), syncs.c.sync)
    return [_stored_sync(row) for row in rows], token


def point_to_state(tx: Connection, workspace: str, sync: str, run: int) -> None:
    """Makes the state that `run` left the base of the next plan."""
    tx.execute(update(syncs).where(syncs.c.workspace == workspace, syncs.c.sync == sync).values(state_run=run))


def _stored_sync(row: Row[Any]) -> StoredSync:
    sync = Sync(
        workspace=row.workspace,
        sync=row.sync,
        audience=row.audience,
        destination=row.destination,
        object=row.object,
        mode=Mode(row.mode),
        mappings=tuple(Mapping(**mapping) for mapping in row.mappings),
    )
    return StoredSync(sync, row.display_name, row.create_time, row.state_run)
