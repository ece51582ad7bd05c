"""The events that questions are asked about: sorted in a warehouse, and as one plain Parquet file in order of time."""

# ruff: noqa: S608 -- put together from constants and quoted names

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb

from bench.bench import WRITING, Bench
from libs.warehouse import Warehouse
from services.audience.domain import AllOf, EventCount, EventPattern, EventRule, Funnel, Operator, Rule

EVENTS = "traitmesh.events"
USERS = "traitmesh.users"
COLUMNS = "event_id, name, user_ord, user_id, time, platform, geo_country, se_value"
"""Of the plain Parquet file; those that no question reads cost nothing on either side."""


@dataclass(frozen=True)
class World:
    """Events and users. `steps` are the names of a funnel's steps within 7 days."""

    name: str
    warehouse: Warehouse
    events: Path
    users: Path
    as_of: datetime
    steps: Sequence[str]

    @property
    def funnel(self) -> Funnel:
        """The steps, each following the one before."""
        return Funnel(tuple(map(EventPattern, self.steps)), timedelta(days=7))

    @property
    def segment(self) -> Rule:
        """Often the step before the last in 21 days, and not once the last in 14."""
        *_, often, never = self.steps
        return AllOf(
            (
                EventRule(EventCount(EventPattern(often), timedelta(days=21)), Operator.GREATER_OR_EQUAL, 3),
                EventRule(EventCount(EventPattern(never), timedelta(days=14)), Operator.EQUAL, 0),
            )
        )


def tusk(bench: Bench) -> World:
    """Tusk's events as the product loaded them."""
    warehouse = bench.tusk.warehouse
    files = {name: bench.folder / f"tusk-{name}.parquet" for name in ("events", "users")}
    with duckdb.connect(":memory:") as connection:
        for table, columns, path in ((EVENTS, COLUMNS, files["events"]), (USERS, "*", files["users"])):
            order = "time" if table == EVENTS else "user_ord"
            rows = warehouse.query(f"SELECT {columns} FROM {warehouse.table(table)} ORDER BY {order}")
            connection.register("rows", rows)
            connection.execute(f"COPY (FROM rows) TO '{path}' (FORMAT parquet)")
    newest = warehouse.query(f"SELECT max(time) AS time FROM {warehouse.table(EVENTS)}").read_all()["time"][0].as_py()
    steps = ("ChipSelect", "game_start", "purchase")
    return World("tusk", warehouse, files["events"], files["users"], newest.replace(tzinfo=UTC), steps)


def synthetic(bench: Bench, events: int) -> World:
    """Events of 20 names over 30 days, by users of whom some do much more than others; 100 events a user."""
    files = {name: bench.folder / f"synthetic-{name}.parquet" for name in ("events", "users")}
    users = max(1, events // 100)
    start, days = datetime(2026, 6, 1, tzinfo=UTC), timedelta(days=30)
    step = days // timedelta(microseconds=1) // events
    drawn = f"""
        SELECT i::VARCHAR AS event_id, 'event ' || hash(i, 1) % 20 AS name, user_ord::UINTEGER AS user_ord,
            'user ' || user_ord AS user_id, TIMESTAMP '{start:%Y-%m-%d}' + to_microseconds(i * {step}) AS time,
            'mob' AS platform, 'country ' || hash(user_ord, 2) % 30 AS geo_country, (hash(i, 3) % 1000) / 10 AS se_value
        FROM (SELECT i, floor({users} * pow((hash(i, 4) % 1000000) / 1e6, 2)) AS user_ord FROM range({events}) AS r(i))
    """
    ordinals = "SELECT DISTINCT user_id, user_ord, TIMESTAMP '2026-06-01' AS first_seen"
    warehouse = bench.warehouse("synthetic", WRITING)
    with duckdb.connect(":memory:") as connection, warehouse.transaction() as tx:
        connection.execute(f"COPY ({drawn}) TO '{files['events']}' (FORMAT parquet)")
        connection.execute(f"COPY ({ordinals} FROM '{files['events']}') TO '{files['users']}' (FORMAT parquet)")
        for table, path in ((EVENTS, files["events"]), (USERS, files["users"])):
            order = "name, user_ord, time" if table == EVENTS else "user_id"
            tx.append(table, connection.execute(f"FROM '{path}' ORDER BY {order}").to_arrow_reader(100_000))
    # Measured with the limits of a service, not with those by which it was written.
    names = ("event 1", "event 2", "event 3")
    return World("synthetic", bench.warehouse("synthetic"), files["events"], files["users"], start + days, names)
