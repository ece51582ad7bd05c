"""Writing into PostgreSQL, inside one transaction."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
import pyarrow as pa
from psycopg import sql as composed

from libs.warehouse.interface import Column, MergeCounts
from libs.warehouse.merging import Merge
from libs.warehouse.postgres import session
from libs.warehouse.postgres.arrow import copy_text
from libs.warehouse.sql import SqlWarehouse, quote, require_columns, split
from libs.warehouse.streaming import BATCH_ROWS, Batches, stream

_SELECT = "traitmesh_select"


class PostgresTransaction:
    """See `Transaction`."""

    def __init__(self, warehouse: SqlWarehouse, connection: psycopg.Connection[Any]) -> None:
        self.snapshot: int | None = None
        self.failed = False
        """A statement failed: PostgreSQL would answer COMMIT by a silent rollback."""
        self._warehouse = warehouse
        self._connection = connection

    def query(self, sql: str, parameters: Sequence[object] = ()) -> pa.RecordBatchReader:
        return stream(self._batches(sql, parameters))

    def _batches(self, sql: str, parameters: Sequence[object]) -> Batches:
        with self._noting_failure():
            yield from session.read(self._connection, sql, parameters)

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> int:
        with self._noting_failure():
            return session.execute(self._connection, sql, parameters)

    def describe(self, table: str) -> tuple[Column, ...]:
        return session.columns_of(self.query, table, self._warehouse.table(table))

    def append(self, table: str, rows: pa.Table | pa.RecordBatchReader) -> int:
        require_columns(table, self.describe(table), rows.schema.names)
        names = ", ".join(quote(name) for name in rows.schema.names)
        copy = f"COPY {self._warehouse.table(table)} ({names}) FROM STDIN (FORMAT csv)"
        batches = rows.to_batches(BATCH_ROWS) if isinstance(rows, pa.Table) else rows
        with self._noting_failure(), self._connection.cursor() as cursor:
            with cursor.copy(copy.encode()) as stdin:
                for batch in batches:
                    stdin.write(copy_text(batch))
            return cursor.rowcount

    def create_table_as(self, table: str, sql: str, parameters: Sequence[object] = ()) -> None:
        schema, _ = split(table)
        self.execute(f"CREATE SCHEMA IF NOT EXISTS {self._warehouse.schema(schema)}")
        # CREATE TABLE takes no parameters; a prepared statement's own arguments may be literals.
        self.execute(f"PREPARE {_SELECT} AS {sql}")
        given = ", ".join(composed.Literal(p).as_string(self._connection) for p in parameters)
        arguments = f"({given})" if given else ""
        self.execute(f"CREATE TABLE {self._warehouse.table(table)} AS EXECUTE {_SELECT}{arguments}")
        self.execute(f"DEALLOCATE {_SELECT}")

    def drop(self, table: str) -> None:
        self.execute(f"DROP TABLE IF EXISTS {self._warehouse.table(table)}")

    def merge(self, target: str, source: str, key: str, hash_column: str) -> MergeCounts:
        """See `Transaction.merge`. Two at once: the second waits for the first."""
        lock = f"merge {self._warehouse.table(target)}"
        self.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", [lock])
        return Merge(self._warehouse, self, target, source, key, hash_column).run()

    @contextmanager
    def _noting_failure(self) -> Iterator[None]:
        try:
            with session.translated():
                yield
        except Exception:
            self.failed = True
            raise
