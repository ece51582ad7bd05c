"""DuckDB in this process, with the lake of one workspace attached."""

# ruff: noqa: S608  (identifiers are quoted, values are parameters)

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import duckdb
import pyarrow as pa
from duckdb_extensions import import_extension

from libs.warehouse.ducklake.errors import ABSENT_SNAPSHOT, translate
from libs.warehouse.ducklake.location import ALIAS, Location
from libs.warehouse.interface import (
    Limits,
    NotFound,
    QueryError,
    SnapshotExpired,
    WarehouseError,
)
from libs.warehouse.streaming import BATCH_ROWS, UNLIMITED, Batches, Deadline

EXTENSIONS = ("ducklake", "postgres_scanner")
SETTINGS: Mapping[str, str] = {
    # Eight writers of one catalog: 100 retries had a p99 of 2.5 s, the default 10 one of 6.7 s.
    "ducklake_max_retry_count": "100",
    "TimeZone": "UTC",
}


def literal(text: str) -> str:
    """Return a SQL string literal, for the statements of DuckDB that take no parameters."""
    return "'" + text.replace("'", "''") + "'"


class Session:
    """An open lake. Cursors of it may be used by a thread each."""

    def __init__(self, location: Location, limits: Limits, *, read_only: bool) -> None:
        self.limits = limits
        self.read_only = read_only
        # Spilled rows are personal values too: a folder of ours alone, gone when we close.
        self._spill = tempfile.TemporaryDirectory(prefix="traitmesh-duckdb-")
        with self.translated():
            self._root = self._start()
            self._attach(location)

    def _start(self) -> duckdb.DuckDBPyConnection:
        root = duckdb.connect(
            ":memory:",
            config={
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                # Else a misspelt table name would read a variable of the Python caller.
                "python_enable_replacements": False,
                "memory_limit": self.limits.memory,
                "threads": self.limits.threads,
                "temp_directory": self._spill.name,
            },
        )
        for extension in EXTENSIONS:
            import_extension(extension, con=root)
            root.load_extension(extension)
        for setting, value in SETTINGS.items():
            root.execute(f"SET {setting} = {literal(value)}")
        return root

    def _attach(self, location: Location) -> None:
        options = {
            "DATA_PATH": literal(location.data_path),
            "META_SCHEMA": literal(location.schema),
            "READ_ONLY": str(self.read_only),
        }
        listed = ", ".join(f"{name} {value}" for name, value in options.items())
        self._root.execute(f"ATTACH {literal(location.attachment())} AS {ALIAS} ({listed})")

    def close(self) -> None:
        """Stop DuckDB; queries under way fail."""
        self._root.close()
        self._spill.cleanup()

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """Return a connection of its own to the open lake."""
        with self.translated():
            return self._root.cursor()

    @contextmanager
    def translated(self, deadline: Deadline = UNLIMITED) -> Iterator[None]:
        """Turn DuckDB's errors into ours."""
        try:
            yield
        # While streaming, DuckDB's errors arrive through Arrow, as OSError or ArrowException.
        except (duckdb.Error, OSError, pa.ArrowException) as error:
            absent = self._absent_snapshot(str(error))
            # From None: the original quotes values, and a traceback would print it.
            raise absent or translate(error, self.limits, deadline) from None

    def _absent_snapshot(self, message: str) -> WarehouseError | None:
        absent = ABSENT_SNAPSHOT.search(message)
        if absent is None:
            return None
        snapshot = int(absent[1])
        oldest, newest = self.snapshots()
        if oldest <= snapshot <= newest:
            return None
        return SnapshotExpired(snapshot, oldest) if snapshot < oldest else NotFound(f"snapshot {snapshot}")

    def snapshots(self) -> tuple[int, int]:
        """Return the ids of the oldest and the newest readable snapshot."""
        cursor = self.cursor()
        try:
            found = self.rows(
                cursor,
                f"SELECT min(snapshot_id) AS oldest, max(snapshot_id) AS newest FROM ducklake_snapshots('{ALIAS}')",
            )
        finally:
            cursor.close()
        return int(found["oldest"][0].as_py()), int(found["newest"][0].as_py())

    def read(
        self,
        cursor: duckdb.DuckDBPyConnection,
        sql: str,
        parameters: Sequence[object],
        deadline: Deadline = UNLIMITED,
    ) -> Batches:
        """Run one SELECT on the cursor and stream it."""
        with self.translated(deadline):
            statement = _only_statement(cursor, sql)
            if statement.type != duckdb.StatementType.SELECT:
                raise QueryError("a query is one SELECT; write inside a transaction")
            reader = cursor.execute(statement, list(parameters)).to_arrow_reader(BATCH_ROWS)
            yield reader.schema
            for batch in reader:
                deadline.check()
                yield batch

    def rows(self, cursor: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[object] = ()) -> pa.Table:
        """Run one statement of any kind to its end and return its result."""
        with self.translated():
            statement = _only_statement(cursor, sql)
            return cursor.execute(statement, list(parameters)).to_arrow_table()


def _only_statement(cursor: duckdb.DuckDBPyConnection, sql: str) -> duckdb.Statement:
    statements = cursor.extract_statements(sql)
    if len(statements) != 1:
        raise QueryError(f"the SQL must be one statement, not {len(statements)}")
    return statements[0]
