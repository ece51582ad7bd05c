"""The change feed of a DuckLake table, folded to one change a key."""

# ruff: noqa: S608  (identifiers are quoted, values are parameters)

from collections.abc import Sequence

from libs.warehouse.ducklake.location import ALIAS
from libs.warehouse.sql import quote


def folded(columns: Sequence[str], key: str) -> str:
    """Return the SELECT of `Warehouse.changes`.

    Parameters: catalog, schema, table, base, head. `table_changes` lists what each snapshot did,
    an update as the row before and after; it includes both its ends, so it is asked from after
    the base, and never filtered by snapshot_id, which loses deletes (DuckLake 1.5.5). The first
    entry of a key tells whether it existed at the base, the last whether it does at the head.
    Within a snapshot what went comes before what came.
    """
    packed = ", ".join(f"{quote(column)} := {quote(column)}" for column in columns)
    return f"""
        WITH entries AS (
            SELECT {quote(key)} AS row_key, struct_pack({packed}) AS stored,
                change_type IN ('insert', 'update_postimage') AS present,
                snapshot_id * 2 + CAST(present AS BIGINT) AS position
            FROM ducklake_table_changes($1, $2, $3, least(CAST($4 AS BIGINT) + 1, $5), $5)
            WHERE $4 < $5
        ), folded AS (
            SELECT NOT arg_min(present, position) AS before, arg_max(present, position) AS after,
                arg_min(stored, position) AS first_stored, arg_max(stored, position) AS last_stored
            FROM entries GROUP BY row_key
        ), told AS (
            SELECT CASE WHEN NOT before THEN 'insert' WHEN after THEN 'update' ELSE 'delete' END
                AS _change, CASE WHEN after THEN last_stored ELSE first_stored END AS stored
            FROM folded
            WHERE (before OR after)
                AND NOT (before AND after AND first_stored IS NOT DISTINCT FROM last_stored)
        )
        SELECT _change, stored.* FROM told
    """


def identities(catalog_schema: str) -> str:
    """Return a SELECT of the ids under which the catalog knew a table at two snapshots.

    Parameters: schema, table, base, head. A table that was dropped and made anew has two.
    """
    catalog = f"__ducklake_metadata_{ALIAS}.{quote(catalog_schema)}"
    return f"""
        SELECT DISTINCT t.table_id
        FROM {catalog}.ducklake_table AS t JOIN {catalog}.ducklake_schema AS s USING (schema_id)
        WHERE s.schema_name = $1 AND t.table_name = $2 AND (
            (t.begin_snapshot <= $3 AND coalesce(t.end_snapshot > $3, TRUE))
            OR (t.begin_snapshot <= $4 AND coalesce(t.end_snapshot > $4, TRUE)))
    """
