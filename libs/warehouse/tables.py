"""The platform's own tables in a workspace, and how they came to be: numbered migrations.

Types are neutral: text, uint32, int64, float64, timestamp (UTC, microseconds), json. An engine
maps each to its own. A released migration is never edited: add the next one.
"""

# ruff: noqa: S608  (identifiers are quoted, values are parameters)

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from libs.warehouse.interface import Warehouse
from libs.warehouse.sql import quote

SCHEMA = "traitmesh"
_APPLIED = f"{SCHEMA}.migrations"


@dataclass(frozen=True)
class Table:
    """A table to create: (name, neutral type) of each column, and the order of its rows."""

    name: str
    columns: tuple[tuple[str, str], ...]
    sorted_by: tuple[str, ...] = ()


def _columns(kind: str, names: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, kind) for name in names.split())


EVENTS = Table(
    f"{SCHEMA}.events",
    (
        *_columns("text", "event_id name"),
        ("user_ord", "uint32"),
        ("user_id", "text"),
        ("time", "timestamp"),
        *_columns(
            "text",
            "app_id platform event_name domain_userid network_userid domain_sessionid"
            " geo_country geo_region geo_region_name geo_city geo_timezone os_timezone"
            " useragent user_ipaddress se_category se_action se_label se_property",
        ),
        *_columns("float64", "se_value geo_latitude geo_longitude"),
        *_columns(
            "timestamp",
            "collector_tstamp dvce_created_tstamp dvce_sent_tstamp derived_tstamp etl_tstamp",
        ),
        *_columns("json", "unstruct_event contexts"),
        ("load", "int64"),
    ),
    sorted_by=("name", "user_ord", "time"),
)
USERS = Table(
    f"{SCHEMA}.users",
    (("user_id", "text"), ("user_ord", "uint32"), ("first_seen", "timestamp")),
    sorted_by=("user_id",),
)
QUARANTINE = Table(
    f"{SCHEMA}.quarantine",
    (
        ("row_hash", "text"),
        ("load", "int64"),
        ("file", "text"),
        ("line", "int64"),
        *_columns("text", "reason detail raw"),
    ),
)

MIGRATIONS: tuple[tuple[Table, ...], ...] = ((EVENTS, USERS, QUARANTINE),)
"""The tables that migration 1, 2, ... creates."""


def migrate(
    warehouse: Warehouse,
    schema: str,
    types: Mapping[str, str],
    keep_sorted: Callable[[Table], Sequence[str]],
) -> None:
    """Apply the migrations that the workspace lacks, a transaction each.

    `schema` is the platform's schema, quoted; `types` maps the neutral types; `keep_sorted` gives
    the statements by which the engine keeps the rows of a table in order. The caller holds a lock
    on the workspace.
    """
    for number in range(applied(warehouse) + 1, len(MIGRATIONS) + 1):
        with warehouse.transaction(f"migration {number}") as transaction:
            transaction.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
            transaction.execute(f"CREATE TABLE IF NOT EXISTS {warehouse.table(_APPLIED)} (number INTEGER)")
            for table in MIGRATIONS[number - 1]:
                columns = ", ".join(f"{quote(name)} {types[kind]}" for name, kind in table.columns)
                transaction.execute(f"CREATE TABLE {warehouse.table(table.name)} ({columns})")
                for statement in keep_sorted(table):
                    transaction.execute(statement)
            transaction.execute(f"INSERT INTO {warehouse.table(_APPLIED)} VALUES ({number})")


def applied(warehouse: Warehouse) -> int:
    """Return the number of the newest migration of the workspace, 0 if there is none."""
    if not warehouse.exists(_APPLIED):
        return 0
    newest = warehouse.query(f"SELECT max(number) AS number FROM {warehouse.table(_APPLIED)}")
    return int(newest.read_all()["number"][0].as_py())
