"""Workers that die or are told to stop in the middle of a run: nothing is lost, nothing is doubled."""

import signal
import time
from collections.abc import Callable, Iterator

import psycopg
import pytest
from sqlalchemy import Engine, func, select
from traitmesh_proto.sync.v1 import run_pb2

from libs.kit import database
from services.sync_worker import store
from services.sync_worker.tests.stage import Stage, users, worker

ROWS = 20_000

# No key that would hide what is written twice, and a trigger that makes a batch of 5,000 take a second.
SLOW_TABLE = """
    CREATE SCHEMA IF NOT EXISTS crm;
    CREATE TABLE crm.{table} (id text NOT NULL, level double precision);
    CREATE OR REPLACE FUNCTION crm.dawdle() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_sleep(0.00005); RETURN NEW; END $$;
    CREATE TRIGGER dawdle BEFORE INSERT ON crm.{table} FOR EACH ROW EXECUTE FUNCTION crm.dawdle();
"""


@pytest.fixture(scope="module")
def engine(stage: Stage) -> Engine:
    return database.connect(stage.settings, store.SCHEMA)


@pytest.fixture
def crm(stage: Stage) -> Iterator[psycopg.Connection]:
    with psycopg.connect(stage.settings.database_url.get_secret_value(), autocommit=True) as connection:
        yield connection


@pytest.fixture
def slow_sync(stage: Stage, crm: psycopg.Connection) -> tuple[str, str]:
    """A sync that inserts ROWS users into a slow table, and the table's name."""
    table = stage.fresh("slow").replace("-", "_")
    crm.execute(SLOW_TABLE.format(table=table))
    destination = f"workspaces/tusk/destinations/{stage.fresh('pg')}"
    stage.destination(destination, "destination-postgres", {"url": stage.settings.database_url.get_secret_value()})
    stage.publish(users(ROWS))
    fields = (("user_id", "id"), ("level", "level"))
    return stage.sync(destination, "insert", fields=fields, object=f"crm.{table}"), f"crm.{table}"


def _in_the_middle(stage: Stage, run: str) -> run_pb2.Run:
    """The run, caught while some batches are confirmed and some are under way."""
    return _caught(lambda: stage.get(run), lambda now: now.confirmed_count > 0 and now.unknown_count > 0)


def _caught(look: Callable[[], run_pb2.Run], wanted: Callable[[run_pb2.Run], bool]) -> run_pb2.Run:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        now = look()
        if wanted(now):
            return now
        time.sleep(0.02)
    raise AssertionError("the run was not caught in the middle")


def _attempts(engine: Engine, run: str) -> int:
    """The most that any batch of the run was sent."""
    _, _, _, sync, _, number = run.split("/")
    query = select(func.max(store.batches.c.attempts))
    with engine.begin() as tx:
        mine = query.where(store.batches.c.sync == sync, store.batches.c.run == int(number))
        most: int = tx.execute(mine).scalar_one()
        return most


def _rows(crm: psycopg.Connection, table: str) -> tuple[int, int]:
    """All rows, and different ones."""
    row = crm.execute(f"SELECT count(*), count(DISTINCT id) FROM {table}").fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


def test_a_killed_worker_loses_and_doubles_nothing(
    stage: Stage, slow_sync: tuple[str, str], crm: psycopg.Connection, engine: Engine
) -> None:
    sync, table = slow_sync
    with worker(stage) as first:
        run = stage.start(sync)
        caught = _in_the_middle(stage, run.name)
        assert first.kill(signal.SIGKILL) == -signal.SIGKILL
    assert 0 < caught.confirmed_count < ROWS
    with worker(stage):
        done = stage.wait(run.name)
    assert (done.state, done.confirmed_count, done.rejected_count, done.unknown_count) == (
        run_pb2.Run.STATE_SUCCEEDED,
        ROWS,
        0,
        0,
    )
    assert _attempts(engine, run.name) == 2, "a batch was under way and was sent again"
    assert _rows(crm, table) == (ROWS, ROWS)


def test_a_worker_that_is_told_to_stop_hands_the_rest_over(stage: Stage) -> None:
    moody = stage.moody()
    moody.set(slow=0.5)
    stage.publish(users(120))
    with worker(stage) as first:
        run = stage.start(stage.sync(moody.name))
        _in_the_middle(stage, run.name)
        assert first.kill(signal.SIGTERM) == 0
    left = stage.get(run.name)
    assert 0 < left.confirmed_count < 120, "it was in the middle"
    assert left.unknown_count == 0, "what was under way was brought to its end"
    moody.set()
    with worker(stage):
        done = stage.wait(run.name)
    assert (done.state, done.confirmed_count) == (run_pb2.Run.STATE_SUCCEEDED, 120)
    assert len(moody.writes()) == 120
    assert not any(resend for _, _, _, resend in moody.writes())
    assert "activity failed" not in (stage.folder / "worker.log").read_text()
