"""DuckLake as an engine.

URL: ``ducklake:postgresql://USER:PASSWORD@HOST/DATABASE?data_path=/absolute/folder``, with any
further parameter of libpq (``&host=/socket/folder``). A workspace has the catalog schema
``lake_<workspace>`` in that database and the folder ``<data_path>/<workspace>``.
"""

from collections.abc import Sequence

from libs.warehouse.ducklake.location import locate
from libs.warehouse.ducklake.warehouse import DuckLake
from libs.warehouse.interface import Limits, NotFound
from libs.warehouse.sql import quote
from libs.warehouse.tables import SCHEMA, Table, migrate

_OPTIONS = {
    # Rows inlined into the catalog would leave personal values in PostgreSQL's log files.
    "data_inlining_row_limit": "0",
    "parquet_compression": "zstd",
}
_TYPES = {
    "text": "VARCHAR",
    "uint32": "UINTEGER",
    "int64": "BIGINT",
    "float64": "DOUBLE",
    "timestamp": "TIMESTAMP",
    "json": "JSON",
}


def provision(url: str, workspace: str) -> None:
    """Create the lake of a workspace, or bring it up to date."""
    location = locate(url, workspace)
    with location.connect() as catalog:
        # The lock lives as long as the connection: of several processes one does the work.
        lock = f"traitmesh warehouse {location.schema}"
        catalog.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [lock])
        catalog.execute(f"CREATE SCHEMA IF NOT EXISTS {quote(location.schema)}".encode())
        lake = DuckLake(location, workspace, Limits())
        try:
            lake.apply(_OPTIONS)
            migrate(lake, lake.schema(SCHEMA), _TYPES, lambda table: _sort(lake, table))
        finally:
            lake.close()


def _sort(lake: DuckLake, table: Table) -> Sequence[str]:
    if not table.sorted_by:
        return ()
    order = ", ".join(quote(column) for column in table.sorted_by)
    return (f"ALTER TABLE {lake.table(table.name)} SET SORTED BY ({order})",)


def open_workspace(url: str, workspace: str, limits: Limits, *, read_only: bool) -> DuckLake:
    """Attach the lake of a provisioned workspace. Raises NotFound or Unavailable."""
    location = locate(url, workspace)
    with location.connect() as catalog:
        found = catalog.execute(
            "SELECT 1 FROM pg_tables WHERE schemaname = %s AND tablename = 'ducklake_snapshot'",
            [location.schema],
        )
        if found.fetchone() is None:
            # Attaching now would make a lake of that name.
            raise NotFound(f"workspace {workspace}")
    return DuckLake(location, workspace, limits, read_only=read_only)
