"""Writing into a DuckLake, inside one transaction."""

# ruff: noqa: S608  (identifiers are quoted, values are parameters)

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import duckdb
import pyarrow as pa

from libs.warehouse.ducklake.session import Session
from libs.warehouse.interface import Column, MergeCounts
from libs.warehouse.merging import Merge
from libs.warehouse.sql import SqlWarehouse, require_columns, split
from libs.warehouse.streaming import Batches, stream

_INCOMING = "traitmesh_incoming_rows"


class DuckLakeTransaction:
    """See `Transaction`."""

    def __init__(self, warehouse: SqlWarehouse, session: Session, cursor: duckdb.DuckDBPyConnection) -> None:
        self.snapshot: int | None = None
        self.failed = False
        """A statement failed: DuckDB would answer COMMIT without an error, and write nothing."""
        self._warehouse = warehouse
        self._session = session
        self._cursor = cursor

    def query(self, sql: str, parameters: Sequence[object] = ()) -> pa.RecordBatchReader:
        return stream(self._batches(sql, parameters))

    def _batches(self, sql: str, parameters: Sequence[object]) -> Batches:
        with self._noting_failure():
            yield from self._session.read(self._cursor, sql, parameters)

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> int:
        with self._noting_failure():
            result = self._session.rows(self._cursor, sql, parameters)
        return sum(result["Count"].to_pylist()) if result.column_names == ["Count"] else 0

    def describe(self, table: str) -> tuple[Column, ...]:
        described = self._session.read(self._cursor, f"DESCRIBE {self._warehouse.table(table)}", ())
        # A table that is not found does not fail the transaction: DuckDB goes on after it.
        return columns_of(stream(described))

    def append(self, table: str, rows: pa.Table | pa.RecordBatchReader) -> int:
        require_columns(table, self.describe(table), rows.schema.names)
        self._cursor.register(_INCOMING, rows)
        try:
            return self.execute(f"INSERT INTO {self._warehouse.table(table)} BY NAME SELECT * FROM {_INCOMING}")
        finally:
            self._cursor.unregister(_INCOMING)

    def create_table_as(self, table: str, sql: str, parameters: Sequence[object] = ()) -> None:
        schema, _ = split(table)
        self.execute(f"CREATE SCHEMA IF NOT EXISTS {self._warehouse.schema(schema)}")
        self.execute(f"CREATE TABLE {self._warehouse.table(table)} AS {sql}", parameters)

    def drop(self, table: str) -> None:
        self.execute(f"DROP TABLE IF EXISTS {self._warehouse.table(table)}")

    def merge(self, target: str, source: str, key: str, hash_column: str) -> MergeCounts:
        """See `Transaction.merge`. Two at once: the second to commit raises Conflict."""
        counts = Merge(self._warehouse, self, target, source, key, hash_column).run()
        if counts.inserted or counts.updated or counts.deleted:
            # Two that only insert would both commit, as appends do; altering the table conflicts.
            self.execute(f"COMMENT ON TABLE {self._warehouse.table(target)} IS 'merged'")
        return counts

    @contextmanager
    def _noting_failure(self) -> Iterator[None]:
        try:
            yield
        except Exception:
            self.failed = True
            raise


def columns_of(described: pa.RecordBatchReader) -> tuple[Column, ...]:
    """Return the columns that a DESCRIBE lists."""
    listed = described.read_all()
    names, types = listed["column_name"].to_pylist(), listed["column_type"].to_pylist()
    return tuple(Column(name, kind) for name, kind in zip(names, types, strict=True))
