"""PostgreSQL as an engine.

URL: ``postgresql://USER:PASSWORD@HOST/DATABASE``. Schema ``s`` of workspace ``w`` is stored as
schema ``w__s`` of that database.
"""

from collections.abc import Sequence

import psycopg
from psycopg.conninfo import make_conninfo

from libs.warehouse.interface import Limits, NotFound, QueryError
from libs.warehouse.postgres import session
from libs.warehouse.postgres.warehouse import Postgres
from libs.warehouse.sql import quote, split
from libs.warehouse.tables import SCHEMA, Table, migrate

_TYPES = {
    "text": "TEXT",
    "uint32": "BIGINT",
    "int64": "BIGINT",
    "float64": "DOUBLE PRECISION",
    "timestamp": "TIMESTAMP",
    "json": "JSONB",
}


def provision(url: str, workspace: str) -> None:
    """Create the schemas and tables of a workspace, or bring them up to date."""
    conninfo = _conninfo(url)
    warehouse = Postgres(conninfo, workspace, Limits())
    connection = session.connect(conninfo, read_only=False)
    try:
        # The lock lives as long as this transaction: of several processes one does the work.
        lock = f"traitmesh warehouse {workspace}"
        session.execute(connection, "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", [lock])
        migrate(warehouse, warehouse.schema(SCHEMA), _TYPES, lambda t: _sort(warehouse, t))
    finally:
        connection.close()


def _sort(warehouse: Postgres, table: Table) -> Sequence[str]:
    if not table.sorted_by:
        return ()
    index = quote(f"{split(table.name)[1]}_order")
    order = ", ".join(quote(column) for column in table.sorted_by)
    return (f"CREATE INDEX {index} ON {warehouse.table(table.name)} ({order})",)


def open_workspace(url: str, workspace: str, limits: Limits, *, read_only: bool) -> Postgres:
    """Return the warehouse of a provisioned workspace. Raises NotFound or Unavailable."""
    warehouse = Postgres(_conninfo(url), workspace, limits, read_only=read_only)
    if not warehouse.exists(f"{SCHEMA}.migrations"):
        raise NotFound(f"workspace {workspace}")
    return warehouse


def _conninfo(url: str) -> str:
    try:
        return make_conninfo(url)
    except psycopg.Error:
        raise QueryError("a PostgreSQL URL is postgresql://USER:PASSWORD@HOST/DATABASE") from None
