"""Questions: a funnel of three steps and a segment by event counts, as the audience service compiles them.

On DuckLake as it is stored, sorted by name, user and time, beside a MergeTree in the same order; and on plain Parquet
beside the same file. Every contender must give the same answer before any is timed.
"""

# ruff: noqa: S608 -- put together from constants

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import duckdb
from sqlglot import exp

from bench import machine
from bench.bench import Bench
from bench.chdb import Chdb
from bench.figure import Figure, Gate
from bench.measuring import medians, timed
from bench.worlds import EVENTS, USERS, World, synthetic, tusk
from services.audience.compiler import funnels, guard, segments
from services.audience.compiler.target import Target

SYNTHETIC_EVENTS = 20_000_000
GATES = {
    ("funnel", "parquet"): Gate(1.0),
    ("funnel", "sorted"): Gate(1.8),
    ("segment", "parquet"): Gate(0.5),
    ("segment", "sorted"): Gate(1.5),
}
PEERS = {"parquet": "chdb on Parquet", "sorted": "chdb MergeTree"}

Answer = list[tuple[int, ...]]


def run(bench: Bench) -> list[Figure]:
    """Four figures of Tusk's events, and four of twenty times as many."""
    return [*measure(bench, tusk(bench)), *measure(bench, synthetic(bench, SYNTHETIC_EVENTS))]


def measure(bench: Bench, world: World) -> list[Figure]:
    """Seconds of each question in each kind of storage."""
    versions = machine.versions("duckdb", "sqlglot") | machine.versions("chdb", "chdb-core", environment=bench.peers)
    figures = []
    with Chdb(bench.peer_python, bench.folder / f"chdb-{world.name}") as chdb, Ours(world) as ours:
        theirs = Theirs(chdb, world)
        for (question, storage), gate in GATES.items():
            ask, asked = ours.asking(question, storage), theirs.sql(question, storage)
            expected = sorted(tuple(map(int, row)) for row in chdb.rows(asked))
            if sorted(ask()) != expected:
                raise AssertionError(f"{question} of {world.name} on {storage}: the answers differ")
            value, other = medians(bench.repeats, [timed(ask), partial(chdb.seconds, asked)])
            name = f"{question}-{storage}-{world.name}"
            figures.append(Figure(name, value, "s", versions, PEERS[storage], other, gate))
    return figures


@dataclass
class Ours:
    """Compiled SQL on the warehouse, and on Parquet in a DuckDB with the limits that services have."""

    world: World

    def __enter__(self) -> "Ours":
        self._parquet = duckdb.connect(":memory:", config={"threads": 2, "memory_limit": "1GB"})
        for name, path in (("events", self.world.events), ("users", self.world.users)):
            self._parquet.read_parquet(str(path)).create_view(name)
        return self

    def __exit__(self, *_: object) -> None:
        self._parquet.close()

    def asking(self, question: str, storage: str) -> Callable[[], Answer]:
        """Asks and returns rows of (level, users) of a funnel, (members,) of a segment."""
        warehouse = self.world.warehouse
        if storage == "sorted":
            target = Target.of(warehouse.dialect, warehouse.table(USERS), warehouse.table(EVENTS), self.world.as_of)
            sql = compiled(self.world, question, target)
            return lambda: _tuples(warehouse.query(sql).read_all().to_pylist())
        sql = compiled(self.world, question, Target.of(warehouse.dialect, "users", "events", self.world.as_of))
        return lambda: self._parquet.execute(sql).fetchall()


def compiled(world: World, question: str, target: Target) -> str:
    """The SQL of a question, its users counted."""
    count = exp.Count(this=exp.Star())
    if question == "funnel":
        levels = funnels.furthest_steps(funnels.chains(world.funnel, target)).subquery("reached")
        level = exp.column("level", table="reached", quoted=True)
        return guard.sql(exp.select(level, count).from_(levels).group_by(level.copy()), target)
    return guard.sql(exp.select(count).from_(segments.members(world.segment, target).subquery("members")), target)


def _tuples(rows: list[dict[str, Any]]) -> Answer:
    return [tuple(row.values()) for row in rows]


class Theirs:
    """The same in ClickHouse's own words, time as microseconds since windowFunnel takes no finer type."""

    def __init__(self, chdb: Chdb, world: World) -> None:
        self._world = world
        columns = "name, user_ord, toUInt64(toUnixTimestamp64Micro(time)) AS t"
        self._from = {"sorted": "bench.events", "parquet": f"(SELECT {columns} FROM file('{world.events}', Parquet))"}
        chdb.rows("CREATE DATABASE bench")
        chdb.rows(
            "CREATE TABLE bench.events (name LowCardinality(String), user_ord UInt32, t UInt64)"
            " ENGINE = MergeTree ORDER BY (name, user_ord, t)"
        )
        chdb.rows(f"INSERT INTO bench.events SELECT * FROM {self._from['parquet']}")
        chdb.rows("OPTIMIZE TABLE bench.events FINAL")

    def sql(self, question: str, storage: str) -> str:
        """The question as ClickHouse's users ask it."""
        return {"funnel": self._funnel, "segment": self._segment}[question](self._from[storage])

    def _funnel(self, events: str) -> str:
        steps = [f"name = '{name}'" for name in self._world.steps]
        level = f"windowFunnel({self._world.funnel.window_micros})(t, {', '.join(steps)})"
        counted = f"SELECT user_ord, {level} AS level FROM {events} WHERE {' OR '.join(steps)} GROUP BY user_ord"
        return f"SELECT level, count() FROM ({counted}) WHERE level > 0 GROUP BY level"

    def _segment(self, events: str) -> str:
        *_, often, never = self._world.steps
        as_of = self._world.as_of
        recent, wide = _micros(as_of - timedelta(days=14)), _micros(as_of - timedelta(days=21))
        return (
            f"SELECT count() FROM (SELECT user_ord FROM {events}"
            f" WHERE name IN ('{often}', '{never}') AND t > {wide} AND t <= {_micros(as_of)} GROUP BY user_ord"
            f" HAVING countIf(name = '{often}') >= 3 AND countIf(name = '{never}' AND t > {recent}) = 0)"
        )


def _micros(moment: datetime) -> int:
    return round(moment.timestamp()) * 1_000_000 + moment.microsecond
