"""Statements on one connection to PostgreSQL."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
import pyarrow as pa
from psycopg.conninfo import make_conninfo

from libs.warehouse.interface import Column, NotFound
from libs.warehouse.postgres.arrow import batch_of, load_as_text, schema_of
from libs.warehouse.postgres.errors import translate
from libs.warehouse.streaming import BATCH_ROWS, UNLIMITED, Batches, Deadline

_SETTINGS = {
    # The text of a value, which a row hash is made of, depends on these.
    "datestyle": "ISO,YMD",
    "timezone": "UTC",
    "extra_float_digits": "1",
    # A merge waits this long for another one of the same table, then raises Conflict.
    "lock_timeout": "60s",
}


def connect(conninfo: str, *, read_only: bool) -> psycopg.Connection[Any]:
    """Open a connection of one's own. Raises Unavailable."""
    options = " ".join(f"-c {name}={value}" for name, value in _SETTINGS.items())
    with translated():
        connection = psycopg.connect(make_conninfo(conninfo, options=options))
        connection.read_only = read_only
        load_as_text(connection)
        return connection


@contextmanager
def translated(deadline: Deadline = UNLIMITED) -> Iterator[None]:
    """Turn psycopg's errors into ours."""
    try:
        yield
    except psycopg.Error as error:
        # From None: the original quotes values, and a traceback would print it.
        raise translate(error, deadline) from None


def read(
    connection: psycopg.Connection[Any],
    sql: str,
    parameters: Sequence[object],
    deadline: Deadline = UNLIMITED,
) -> Batches:
    """Run one SELECT on the connection and stream it."""
    with (
        translated(deadline),
        psycopg.RawServerCursor(connection, "traitmesh_query") as cursor,
    ):
        cursor.execute(sql.encode(), list(parameters))
        schema = schema_of(cursor.description or ())
        yield schema
        while rows := cursor.fetchmany(BATCH_ROWS):
            deadline.check()
            yield batch_of(rows, schema)


def execute(connection: psycopg.Connection[Any], sql: str, parameters: Sequence[object]) -> int:
    """Run one statement and return the number of rows it changed."""
    with translated(), psycopg.RawCursor(connection) as cursor:
        # A binary result takes the extended protocol, which refuses several statements in one.
        cursor.execute(sql.encode(), list(parameters), binary=True)
        return max(cursor.rowcount, 0)


def columns_of(
    query: Callable[[str, Sequence[object]], pa.RecordBatchReader], table: str, qualified: str
) -> tuple[Column, ...]:
    """Return the columns of the table or view. Raises NotFound."""
    listed = query(
        "SELECT attname, format_type(atttypid, atttypmod) AS type FROM pg_attribute"
        " WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        [qualified],
    ).read_all()
    if not listed.num_rows:
        raise NotFound(f"table {table}")
    names, types = listed["attname"].to_pylist(), listed["type"].to_pylist()
    return tuple(Column(name, kind) for name, kind in zip(names, types, strict=True))
