"""DuckLake as a warehouse: DuckDB in this process, catalog in PostgreSQL, rows in Parquet files."""

# ruff: noqa: S608  (identifiers are quoted, values are parameters)

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta

import duckdb
import pyarrow as pa

from libs.warehouse.ducklake.changes import folded, identities
from libs.warehouse.ducklake.location import ALIAS, Location
from libs.warehouse.ducklake.session import EXTENSIONS, SETTINGS, Session, literal
from libs.warehouse.ducklake.transaction import DuckLakeTransaction, columns_of
from libs.warehouse.interface import (
    GRACE,
    KEEP,
    Capabilities,
    Column,
    DbtProfile,
    Dialect,
    Limits,
    QueryError,
    SnapshotExpired,
    Unsupported,
)
from libs.warehouse.sql import SqlWarehouse, quote, split
from libs.warehouse.streaming import Batches, Deadline, stream
from libs.warehouse.tables import SCHEMA

_REWRITE_SHARE = 0.25
"""A file is written anew once this share of its rows is deleted."""


class DuckLake(SqlWarehouse):
    """See `Warehouse`."""

    capabilities = Capabilities(snapshots=True, changes=True, commit_messages=True, sorted_tables=True)
    dialect = Dialect(sqlglot="duckdb", asof_join=True, micros_template="epoch_us({})")

    def __init__(self, location: Location, workspace: str, limits: Limits, *, read_only: bool = False) -> None:
        self.workspace = workspace
        self._location = location
        self._session = Session(location, limits, read_only=read_only)
        self._commit_lock = threading.Lock()

    def close(self) -> None:
        self._session.close()

    def schema(self, name: str) -> str:
        """Return the quoted, qualified identifier of a schema of this workspace."""
        return f"{ALIAS}.{quote(name)}"

    def _as_of(self, qualified: str, snapshot: int) -> str:
        # An alias would have to stand before AT; after a subquery it may follow.
        return f"(SELECT * FROM {qualified} AT (VERSION => {snapshot:d}))"

    def query(
        self, sql: str, parameters: Sequence[object] = (), *, seconds: float | None = None
    ) -> pa.RecordBatchReader:
        return stream(self._batches(sql, parameters, self._session.limits.lowered(seconds)))

    def _batches(self, sql: str, parameters: Sequence[object], seconds: float | None) -> Batches:
        cursor = self._session.cursor()
        deadline = Deadline(seconds, cursor.interrupt)
        try:
            yield from self._session.read(cursor, sql, parameters, deadline)
        finally:
            deadline.stop()
            cursor.close()

    def describe(self, table: str) -> tuple[Column, ...]:
        return columns_of(self.query(f"DESCRIBE {self.table(table)}"))

    @contextmanager
    def transaction(self, message: str = "") -> Iterator[DuckLakeTransaction]:
        if self._session.read_only:
            raise Unsupported("writing", "read-only DuckLake")
        cursor = self._session.cursor()
        transaction = DuckLakeTransaction(self, self._session, cursor)
        try:
            transaction.execute("BEGIN")
            if message:
                stored = f"set_commit_message('traitmesh', {literal(message)})"
                transaction.execute(f"CALL {ALIAS}.{stored}")
            yield transaction
            transaction.snapshot = self._commit(cursor, failed=transaction.failed)
        except BaseException:
            with suppress(duckdb.Error):
                cursor.execute("ROLLBACK")
            raise
        finally:
            cursor.close()

    def _commit(self, cursor: duckdb.DuckDBPyConnection, *, failed: bool) -> int | None:
        """Commit; return the id of the snapshot made, or None if nothing changed."""
        if failed:
            raise QueryError("a statement of the transaction had failed: nothing was written")
        last = f"FROM ducklake_last_committed_snapshot('{ALIAS}')"
        # The last committed snapshot is one for all cursors of the process: one commit at a time.
        with self._commit_lock, self._session.translated():
            before = cursor.execute(last).fetchone()
            cursor.execute("COMMIT")
            after = cursor.execute(last).fetchone()
        return int(after[0]) if after and after != before else None

    def snapshot(self) -> int:
        newest = self.query(f"SELECT id FROM ducklake_current_snapshot('{ALIAS}')")
        return int(newest.read_all()["id"][0].as_py())

    def snapshot_of(self, message: str) -> int | None:
        found = self.query(
            f"SELECT snapshot_id FROM ducklake_snapshots('{ALIAS}')"
            " WHERE commit_message = $1 ORDER BY snapshot_id DESC LIMIT 1",
            [message],
        ).read_all()
        return int(found["snapshot_id"][0].as_py()) if found.num_rows else None

    def changes(self, table: str, base: int, head: int, key: str) -> pa.RecordBatchReader:
        if base > head:
            raise QueryError(f"the base snapshot {base} is newer than the head {head}")
        described = columns_of(self.query(f"DESCRIBE SELECT * FROM {self.table(table, head)}"))
        columns = [column.name for column in described]
        if key not in columns:
            raise QueryError(f"{table} has no column {key}")
        oldest, _ = self._session.snapshots()
        if base < oldest:
            raise SnapshotExpired(base, oldest)
        schema, name = split(table)
        known = self.query(identities(self._location.schema), [schema, name, base, head])
        if known.read_all().num_rows > 1:
            raise QueryError(f"{table} was made anew after snapshot {base}: compare whole tables")
        return self.query(folded(columns, key), [ALIAS, schema, name, base, head])

    def maintain(self, keep: timedelta = KEEP, grace: timedelta = GRACE) -> None:
        steps = (
            f"ducklake_expire_snapshots('{ALIAS}', older_than => {_ago(keep)})",
            f"ducklake_merge_adjacent_files('{ALIAS}')",
            f"ducklake_rewrite_data_files('{ALIAS}', delete_threshold => {_REWRITE_SHARE})",
            f"ducklake_cleanup_old_files('{ALIAS}', older_than => {_ago(grace)})",
            f"ducklake_delete_orphaned_files('{ALIAS}', older_than => {_ago(grace)})",
        )
        cursor = self._session.cursor()
        try:
            for step in steps:
                self._session.rows(cursor, f"CALL {step}")
        finally:
            cursor.close()

    def apply(self, options: dict[str, str]) -> None:
        """Store options of the whole lake in its catalog, so that every writer follows them."""
        with self.transaction() as transaction:
            for name, value in options.items():
                transaction.execute(f"CALL {ALIAS}.set_option({literal(name)}, {literal(value)})")

    def dbt_profile(self) -> DbtProfile:
        # dbt replaces the values of variables of this prefix by asterisks in what it logs.
        secret = "DBT_ENV_SECRET_WAREHOUSE"  # noqa: S105  # the variable's name
        limits = self._session.limits
        attach = {
            "path": f"{{{{ env_var('{secret}') }}}}",
            "alias": ALIAS,
            "is_ducklake": True,
            "options": {
                "META_SCHEMA": self._location.schema,
                "DATA_PATH": self._location.data_path,
            },
        }
        target = {
            "type": "duckdb",
            "path": ":memory:",
            "database": ALIAS,
            "schema": "dbt",
            # One model at a time: with more, dbt-duckdb on DuckLake now and then does not find a table that it has just
            # made (known to dbt-duckdb as number 748). A model itself still uses all threads of DuckDB.
            "threads": 1,
            "extensions": list(EXTENSIONS),
            "config_options": {"autoinstall_known_extensions": False},
            "settings": {**SETTINGS, "memory_limit": limits.memory, "threads": limits.threads},
            "attach": [attach],
        }
        return DbtProfile(target, {secret: self._location.attachment(), "TRAITMESH_SCHEMA": SCHEMA})


def _ago(age: timedelta) -> str:
    return f"now() - to_microseconds({age // timedelta(microseconds=1)})"
