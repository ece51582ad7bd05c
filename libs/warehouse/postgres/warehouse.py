"""PostgreSQL as a warehouse: a schema per workspace and schema, a connection per query."""

# ruff: noqa: ARG002  (what the engine cannot do, it refuses whatever the arguments)

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import pyarrow as pa
from psycopg.conninfo import conninfo_to_dict

from libs.warehouse.interface import (
    GRACE,
    KEEP,
    Capabilities,
    Column,
    DbtProfile,
    Dialect,
    Limits,
    QueryError,
    Unsupported,
)
from libs.warehouse.postgres import session
from libs.warehouse.postgres.transaction import PostgresTransaction
from libs.warehouse.sql import SqlWarehouse, quote
from libs.warehouse.streaming import Batches, Deadline, stream
from libs.warehouse.tables import SCHEMA


class Postgres(SqlWarehouse):
    """See `Warehouse`."""

    capabilities = Capabilities(snapshots=False, changes=False, commit_messages=False, sorted_tables=False)
    dialect = Dialect(
        sqlglot="postgres",
        asof_join=False,
        micros_template="CAST(EXTRACT(EPOCH FROM {}) * 1000000 AS BIGINT)",
    )

    def __init__(self, conninfo: str, workspace: str, limits: Limits, *, read_only: bool = False) -> None:
        self.workspace = workspace
        self._conninfo = conninfo
        self._limits = limits
        self._read_only = read_only

    def close(self) -> None:
        """See `Warehouse.close`. Nothing is held between queries."""

    def stored_schema(self, name: str) -> str:
        """Return the name under which a schema of this workspace is stored in the database."""
        return f"{self.workspace}__{name}"

    def schema(self, name: str) -> str:
        """Return the quoted identifier of a schema of this workspace."""
        return quote(self.stored_schema(name))

    def _as_of(self, qualified: str, snapshot: int) -> str:
        raise Unsupported("snapshots", "PostgreSQL")

    def query(
        self, sql: str, parameters: Sequence[object] = (), *, seconds: float | None = None
    ) -> pa.RecordBatchReader:
        return stream(self._batches(sql, parameters, self._limits.lowered(seconds)))

    def _batches(self, sql: str, parameters: Sequence[object], seconds: float | None) -> Batches:
        connection = session.connect(self._conninfo, read_only=True)
        deadline = Deadline(seconds, connection.cancel_safe)
        try:
            yield from session.read(connection, sql, parameters, deadline)
        finally:
            deadline.stop()
            connection.close()

    def describe(self, table: str) -> tuple[Column, ...]:
        return session.columns_of(self.query, table, self.table(table))

    @contextmanager
    def transaction(self, message: str = "") -> Iterator[PostgresTransaction]:
        """See `Warehouse.transaction`. The message is not kept."""
        if self._read_only:
            raise Unsupported("writing", "read-only PostgreSQL")
        connection = session.connect(self._conninfo, read_only=False)
        try:
            transaction = PostgresTransaction(self, connection)
            yield transaction
            if transaction.failed:
                raise QueryError("a statement of the transaction had failed: nothing was written")
            with session.translated():
                connection.commit()
        finally:
            # Closing rolls back what was not committed.
            connection.close()

    def snapshot(self) -> int:
        raise Unsupported("snapshots", "PostgreSQL")

    def snapshot_of(self, message: str) -> int | None:
        raise Unsupported("commit_messages", "PostgreSQL")

    def changes(self, table: str, base: int, head: int, key: str) -> pa.RecordBatchReader:
        raise Unsupported("changes", "PostgreSQL")

    def maintain(self, keep: timedelta = KEEP, grace: timedelta = GRACE) -> None:
        """See `Warehouse.maintain`: vacuums; there are no snapshots to expire."""
        tables = self.query(
            "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables WHERE starts_with(schemaname, $1)",
            [self.stored_schema("")],
        ).read_all()
        connection = session.connect(self._conninfo, read_only=False)
        connection.autocommit = True
        try:
            for table in tables["name"].to_pylist():
                session.execute(connection, f"VACUUM (ANALYZE) {table}", [])
        finally:
            connection.close()

    def dbt_profile(self) -> DbtProfile:
        # dbt replaces the values of variables of this prefix by asterisks in what it logs.
        secret = "DBT_ENV_SECRET_WAREHOUSE"  # noqa: S105  # the variable's name
        parts = conninfo_to_dict(self._conninfo)
        password = str(parts.get("password") or "")
        target = {
            "type": "postgres",
            "host": parts.get("host", "localhost"),
            "port": int(parts.get("port") or 5432),
            "user": parts.get("user", ""),
            "password": f"{{{{ env_var('{secret}') }}}}",
            "dbname": parts.get("dbname", ""),
            "schema": self.stored_schema("dbt"),
            "threads": self._limits.threads,
        }
        return DbtProfile(target, {secret: password, "TRAITMESH_SCHEMA": self.stored_schema(SCHEMA)})
