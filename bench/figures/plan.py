"""Planning a run: a million users with 20 fields against what was confirmed, 1% of them changed.

Beside DuckDB doing the least that could be called the same: a hash of each row joined to the hash kept of it, the
changed rows and the new hashes written. No canonical payloads, no keys that make sending safe to repeat.
"""

# ruff: noqa: S608 -- put together from constants

from collections.abc import Iterator
from itertools import count
from pathlib import Path

from bench import machine
from bench.bench import Bench
from bench.figure import Figure, Gate
from bench.measuring import medians, timed
from libs.warehouse import Warehouse
from services.sync_worker import plan
from services.sync_worker.domain import MODEL_TABLE, BatchState, Mapping, Mode, Sync
from services.sync_worker.engine import open_duckdb
from services.sync_worker.ledger import Outcome
from services.sync_worker.state import write_next_state

ROWS = 1_000_000
CHANGED_ONE_IN = 100
BATCH = 1_000
KINDS = {
    "number": "(hash(i, {k}) % 1000000) / 100.0",
    "count": "(hash(i, {k}) % 1000)::INTEGER",
    "word": "'value ' || hash(i, {k}) % 50",
    "flag": "hash(i, {k}) % 2 = 0",
}
TRAITS = [f"{kind}_{index}" for index, kind in zip(range(19), [*KINDS] * 5, strict=False)]


def run(bench: Bench) -> list[Figure]:
    """One figure: seconds to plan and to make the next state."""
    return [measure(bench, ROWS)]


def measure(bench: Bench, rows: int) -> Figure:
    """The figure for so many users."""
    folder = bench.folder / "plan"
    folder.mkdir()
    warehouse = bench.warehouse("plan")
    before, after = _make_models(warehouse, rows)
    ours, bare = Ours(warehouse, before, folder), Bare(warehouse, before, after, folder)
    numbers = count(2)
    assert ours.plan_and_settle(after, next(numbers)) == bare.plan_and_settle() == rows // CHANGED_ONE_IN
    contenders = [timed(lambda: ours.plan_and_settle(after, next(numbers))), timed(bare.plan_and_settle)]
    value, floor = medians(bench.repeats, contenders)
    return Figure("plan", value, "s", machine.versions("duckdb"), "DuckDB hash join", floor, Gate(2.0))


def _make_models(warehouse: Warehouse, rows: int) -> tuple[int, int]:
    """Writes the user model, then changes some of it; the snapshots before and after."""
    kinds = zip(TRAITS, [*KINDS.values()] * 5, strict=False)
    traits = ", ".join(f"{sql.format(k=k)} AS {name}" for k, (name, sql) in enumerate(kinds))
    with warehouse.transaction() as tx:
        tx.create_table_as(MODEL_TABLE, f"SELECT 'user-' || i AS user_id, {traits} FROM range({rows}) AS r(i)")
    before = warehouse.snapshot()
    changed = f"split_part(user_id, '-', 2)::BIGINT % {CHANGED_ONE_IN} = 0"
    with warehouse.transaction() as tx:
        tx.execute(f"UPDATE {warehouse.table(MODEL_TABLE)} SET count_1 = count_1 + 1 WHERE {changed}")
    return before, warehouse.snapshot()


class Ours:
    """Plans as a run does, from the state that a first run of everything left."""

    def __init__(self, warehouse: Warehouse, before: int, folder: Path) -> None:
        mappings = tuple(Mapping(name, name) for name in ("user_id", *TRAITS))
        self._sync = Sync("plan", "bench", "", "nowhere", "users", Mode.MIRROR, mappings)
        self._warehouse = warehouse
        self._folder = folder
        self._state: Path | None = None
        self.plan_and_settle(before, 1)
        self._state = folder / "state-1.parquet"

    def plan_and_settle(self, snapshot: int, run: int) -> int:
        """Plans and makes the next state as if all was confirmed; returns how many records were planned."""
        path = self._folder / f"plan-{run}.parquet"
        question = plan.Question(self._sync, run, snapshot, self._state, 1, retry_rejects=False)
        plan.write_plan(self._warehouse, question, path)
        planned = sum(plan.count_plan(path).values())
        write_next_state(
            self._state,
            path,
            self._folder / f"state-{run}.parquet",
            run=run,
            batch_size=BATCH,
            batches=list(_confirmed(planned)),
            rejects=[],
        )
        return planned


def _confirmed(records: int) -> Iterator[Outcome]:
    for number in range(-(-records // BATCH)):
        yield Outcome(number, BatchState.CONFIRMED, 0)


class Bare:
    """The same comparison by a hash join, from and to Parquet."""

    def __init__(self, warehouse: Warehouse, before: int, after: int, folder: Path) -> None:
        self._folder = folder
        self._model = str(folder / "model.parquet")
        self._state = str(folder / "hashes.parquet")
        hashed = f"SELECT user_id, hash({', '.join(TRAITS)}) AS h"
        self._hashes = f"{hashed} FROM read_parquet('{self._model}')"
        with open_duckdb(folder) as connection:
            for snapshot, query, target in ((before, hashed, self._state), (after, "SELECT *", self._model)):
                connection.register("rows", warehouse.query(f"SELECT * FROM {warehouse.table(MODEL_TABLE, snapshot)}"))
                connection.execute(f"COPY ({query} FROM rows) TO '{target}' (FORMAT parquet)")

    def plan_and_settle(self) -> int:
        """Writes the changed rows and the new hashes; returns how many changed."""
        delta = f"""
            SELECT model.* FROM read_parquet('{self._model}') AS model JOIN (
                SELECT user_id FROM hashes FULL JOIN read_parquet('{self._state}') AS state USING (user_id)
                WHERE hashes.h IS DISTINCT FROM state.h
            ) USING (user_id)
        """
        with open_duckdb(self._folder) as connection:
            connection.execute(f"CREATE TEMP TABLE hashes AS {self._hashes}")
            copied = connection.execute(f"COPY ({delta}) TO '{self._folder}/delta.parquet' (FORMAT parquet)").fetchone()
            connection.execute(f"COPY hashes TO '{self._folder}/next-hashes.parquet' (FORMAT parquet)")
        return int(copied[0]) if copied else 0
