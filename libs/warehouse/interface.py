"""What every warehouse engine offers: the interface, its value types and its errors.

Reading happens on a `Warehouse`, from any number of threads at once. Writing happens only inside
`Warehouse.transaction()`, which commits everything or nothing. A table is named
``"<schema>.<name>"`` (``traitmesh.events``) everywhere; `Warehouse.table` turns that into the
quoted identifier to put into SQL. Parameters are positional, written ``$1``, ``$2``, ... in the
SQL of every engine, and always bound, never pasted.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

import pyarrow as pa

KEEP = timedelta(days=30)
GRACE = timedelta(days=1)


@dataclass(frozen=True)
class Capabilities:
    """What an engine can do; whatever is False here raises `Unsupported` when asked for."""

    snapshots: bool
    """`snapshot`, `snapshot_of`, `table(name, at=...)` and `Transaction.snapshot` work."""
    changes: bool
    """`changes` works."""
    commit_messages: bool
    """The `message` of a transaction is stored with its snapshot."""
    sorted_tables: bool
    """Tables are stored in their declared order, so range filters on it read less."""


@dataclass(frozen=True)
class Dialect:
    """Facts that a SQL compiler needs about the engine."""

    sqlglot: str
    """Name of the dialect in sqlglot."""
    asof_join: bool
    """`ASOF JOIN` exists."""
    micros_template: str
    """SQL with one ``{}``: microseconds since 1970 UTC, as a 64 bit integer."""

    def micros(self, timestamp: str) -> str:
        """Return SQL for the UTC timestamp expression as microseconds since 1970, a BIGINT."""
        return self.micros_template.format(timestamp)


@dataclass(frozen=True)
class Limits:
    """What one open warehouse may use in this process."""

    memory: str = "1GB"
    """Memory of an embedded engine, e.g. "512MB"; beyond it spills to disk. A server has its own."""
    threads: int = 2
    """Threads of an embedded engine, and of dbt. A server has its own."""
    seconds: float | None = None
    """Time limit of a query from start to last batch; None is no limit."""

    def lowered(self, seconds: float | None) -> float | None:
        """Return the time limit of a query that asks for `seconds`: the lower of the two."""
        return min((s for s in (seconds, self.seconds) if s is not None), default=None)


@dataclass(frozen=True)
class Column:
    """A column of a table and its type as the warehouse spells it."""

    name: str
    type: str


@dataclass(frozen=True)
class MergeCounts:
    """Rows that a merge wrote, and rows that it left alone."""

    inserted: int
    updated: int
    deleted: int
    unchanged: int


@dataclass(frozen=True)
class DbtProfile:
    """The dbt target of one workspace, without secrets: `target` reads them by `env_var()`."""

    target: dict[str, Any]
    """One entry of `outputs` in profiles.yml."""
    environment: dict[str, str]
    """Variables that `target` reads, and `TRAITMESH_SCHEMA`, the schema as stored of the tables
    that dbt names `source('traitmesh', ...)`. Holds secrets: do not log."""


class Transaction(Protocol):
    """Writes of one transaction; usable only inside its `with` block, by one thread."""

    snapshot: int | None
    """After the block: id of the snapshot it made; None if nothing changed or no snapshots."""

    def query(self, sql: str, parameters: Sequence[object] = ()) -> pa.RecordBatchReader:
        """Read as `Warehouse.query`, seeing this transaction's own writes.

        The next statement of the transaction ends the reader.
        """
        ...

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> int:
        """Run one statement and return the number of rows it changed (0 for DDL)."""
        ...

    def append(self, table: str, rows: pa.Table | pa.RecordBatchReader) -> int:
        """Insert rows by column name and return how many.

        Columns absent from `rows` become null. Raises NotFound, or QueryError naming the columns
        that the table does not have.
        """
        ...

    def create_table_as(self, table: str, sql: str, parameters: Sequence[object] = ()) -> None:
        """Create a table, and its schema if need be, from a SELECT. Raises QueryError if it exists.

        Rows, and thereby personal values, go to data files only, never inline into a catalog.
        """
        ...

    def drop(self, table: str) -> None:
        """Drop a table if it exists."""
        ...

    def describe(self, table: str) -> tuple[Column, ...]:
        """Describe as `Warehouse.describe`, seeing this transaction's own writes."""
        ...

    def merge(self, target: str, source: str, key: str, hash_column: str) -> MergeCounts:
        """Make table `target` equal to table `source`, writing only the rows that differ.

        New keys are inserted, keys whose `hash_column` (see `Warehouse.row_hash`) differs are
        updated, keys that `source` lacks are deleted. `target` first takes the columns and types
        of `source`: it is created if absent, columns that `source` lacks are dropped, and if one
        is added or changes its type every row counts as updated. Equal tables write nothing. Two
        merges of one table at once: one waits, or raises Conflict. Raises KeyViolation if a key
        of `source` is null or repeated, NotFound, or QueryError if `source` lacks key or hash.
        """
        ...


class Warehouse(Protocol):
    """The warehouse of one workspace. Every method may be called from any thread."""

    workspace: str
    capabilities: Capabilities
    dialect: Dialect

    def table(self, name: str, at: int | None = None) -> str:
        """Return the quoted identifier of ``schema.table``, as of snapshot `at` if given.

        An alias goes after it: ``f"FROM {warehouse.table('dbt.users', at=7)} AS u"``. Reading as
        of a snapshot that is gone raises SnapshotExpired when the query runs.
        """
        ...

    def quote(self, identifier: str) -> str:
        """Return one identifier quoted for SQL."""
        ...

    def row_hash(self, columns: Sequence[str]) -> str:
        """Return a SQL expression: 32 hex digits that change when any of the columns changes.

        MD5 over each column's length, a colon and its text (null: the colon alone), the columns
        in the order of their names. Equal over releases of one engine. Equal
        between engines for text, integers, booleans, dates and timestamps without zone only:
        engines write floating point and JSON values as different text.
        """
        ...

    def query(
        self, sql: str, parameters: Sequence[object] = (), *, seconds: float | None = None
    ) -> pa.RecordBatchReader:
        """Run one SELECT and stream its rows as Arrow batches, reading one snapshot.

        `seconds` lowers the time limit of `Limits` for this query. Raises NotFound,
        SnapshotExpired, QueryError, LimitExceeded or Unavailable; while streaming, too.
        """
        ...

    def exists(self, table: str) -> bool:
        """Tell whether the table or view exists."""
        ...

    def describe(self, table: str) -> tuple[Column, ...]:
        """Return the columns of a table or view in order. Raises NotFound."""
        ...

    def transaction(self, message: str = "") -> AbstractContextManager[Transaction]:
        """Open a transaction: it commits when the block ends and rolls back on any error.

        `message` is stored with the snapshot where the engine can, e.g. a build's name, so that
        `snapshot_of` finds it. Raises Conflict at the end of the block when another writer changed
        the same rows or tables first: repeat the whole block. Appends never conflict.
        """
        ...

    def snapshot(self) -> int:
        """Return the id of the newest snapshot. Ids only grow."""
        ...

    def snapshot_of(self, message: str) -> int | None:
        """Return the newest readable snapshot committed with exactly this message, else None."""
        ...

    def changes(self, table: str, base: int, head: int, key: str) -> pa.RecordBatchReader:
        """Return what turns the table as of `base` into the table as of `head`, one row a key.

        Columns: `_change` ("insert", "update", "delete"), then the table's. A deleted row carries
        its values at `base`, the others those at `head`. Keys with equal rows at both ends are absent.
        The cost follows the changes. Raises NotFound, SnapshotExpired if `base` is gone, QueryError
        if the table was dropped and made anew in between.
        """
        ...

    def maintain(self, keep: timedelta = KEEP, grace: timedelta = GRACE) -> None:
        """Expire snapshots older than `keep`, merge small files, delete files no longer used.

        Files are deleted `grace` after they fell out of use, so that readers and writers under
        way keep theirs: it must be longer than any query or transaction. Run it daily; raises
        Conflict, with part of the work done, when a writer came first: repeat later.
        """
        ...

    def dbt_profile(self) -> DbtProfile:
        """Return the target by which dbt writes schema `dbt` of this workspace."""
        ...

    def close(self) -> None:
        """Release connections and memory. Queries under way fail."""
        ...


class WarehouseError(Exception):
    """Base of all errors of a warehouse. No message holds a value of a row or a secret."""


class NotFound(WarehouseError):
    """The workspace, table or snapshot does not exist."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} does not exist in the warehouse")
        self.what = what


class SnapshotExpired(WarehouseError):
    """The snapshot was removed by maintenance; `oldest` is the oldest one still readable."""

    def __init__(self, snapshot: int, oldest: int) -> None:
        super().__init__(f"snapshot {snapshot} has expired; the oldest readable one is {oldest}")
        self.snapshot = snapshot
        self.oldest = oldest


class Conflict(WarehouseError):
    """Another writer changed the same data first; nothing was written. Repeat the transaction."""


class Unsupported(WarehouseError):
    """The engine cannot do this; `capability` names the field of `Capabilities`, or the ability."""

    def __init__(self, capability: str, engine: str) -> None:
        super().__init__(f"the {engine} warehouse does not support {capability}")
        self.capability = capability


class QueryError(WarehouseError):
    """The caller's SQL, name or columns are wrong; repeating does not help."""


class KeyViolation(QueryError):
    """Rows of `table` have no usable key: it is null in some, or repeated."""

    def __init__(self, table: str, key: str, nulls: int, repeated: int) -> None:
        super().__init__(
            f"{table}: key {key} must be present and unique, but it is null in {nulls} rows"
            f" and repeats an earlier row's in {repeated}"
        )
        self.table = table
        self.key = key
        self.nulls = nulls
        self.repeated = repeated


class LimitExceeded(WarehouseError):
    """The query needed more than its limit of `resource`: "time" or "memory"."""

    def __init__(self, resource: str, limit: str) -> None:
        super().__init__(f"the query exceeded its {resource} limit of {limit}")
        self.resource = resource


class Unavailable(WarehouseError):
    """The warehouse or its catalog cannot be reached now; repeat later."""
