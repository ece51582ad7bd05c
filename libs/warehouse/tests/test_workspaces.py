"""Workspaces are provisioned by anyone at any time, opened once, and apart from each other."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from libs.warehouse import Limits, NotFound, QueryError, Unavailable, Warehouse, open_warehouse, provision_workspace
from libs.warehouse.tables import MIGRATIONS
from libs.warehouse.tests.conftest import rows_of, write

PROVISION = "import sys; from libs.warehouse import provision_workspace as p; p(sys.argv[1], sys.argv[2])"


def test_the_platforms_tables_are_there(warehouse: Warehouse) -> None:
    for table in MIGRATIONS[0]:
        described = warehouse.describe(table.name)
        assert [column.name for column in described] == [name for name, _ in table.columns]


def test_types_are_the_warehouses_own(warehouse: Warehouse) -> None:
    types = {column.name: column.type for column in warehouse.describe("traitmesh.events")}
    expected = {
        "duckdb": ("VARCHAR", "UINTEGER", "TIMESTAMP", "DOUBLE", "JSON", "BIGINT"),
        "postgres": ("text", "bigint", "timestamp without time zone", "double precision", "jsonb", "bigint"),
    }[warehouse.dialect.sqlglot]
    assert tuple(types[name] for name in ("event_id", "user_ord", "time", "se_value", "contexts", "load")) == expected


def test_provisioning_again_changes_nothing(url: str, warehouse: Warehouse, table: str) -> None:
    write(warehouse, table, [{"k": "a"}])
    provision_workspace(url, warehouse.workspace)
    assert rows_of(warehouse, table, "k") == [{"k": "a"}]


def test_processes_may_provision_one_workspace_at_once(url: str) -> None:
    racers = [subprocess.Popen([sys.executable, "-c", PROVISION, url, "raced"]) for _ in range(3)]
    assert [racer.wait(timeout=60) for racer in racers] == [0, 0, 0]
    raced = open_warehouse(url, "raced")
    applied = raced.query(f"SELECT number FROM {raced.table('traitmesh.migrations')}").read_all()
    assert applied["number"].to_pylist() == list(range(1, len(MIGRATIONS) + 1))


def test_two_workspaces_do_not_see_each_other(url: str, warehouse: Warehouse, table: str) -> None:
    provision_workspace(url, "other-one")
    other = open_warehouse(url, "other-one")
    write(warehouse, table, [{"k": "a"}])
    assert not other.exists(table)
    write(other, table, [{"k": "b"}])
    assert rows_of(warehouse, table, "k") == [{"k": "a"}]


def test_threads_share_one_open_warehouse(url: str, warehouse: Warehouse) -> None:
    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(lambda _: open_warehouse(url, warehouse.workspace), range(8)))
    assert {id(one) for one in opened} == {id(warehouse)}


def test_an_unknown_workspace_is_not_made_by_opening_it(url: str) -> None:
    for _ in range(2):
        with pytest.raises(NotFound, match="workspace nobody"):
            open_warehouse(url, "nobody")


@pytest.mark.parametrize("workspace", ["", "A", "a/b", "../a", "a" * 41, "-a", 'a"b', "a\n"])
def test_a_malformed_workspace_is_refused(url: str, workspace: str) -> None:
    for use in (provision_workspace, open_warehouse):
        with pytest.raises(QueryError, match="a workspace has"):
            use(url, workspace)


@pytest.mark.parametrize(
    "wrong",
    [
        "snowflake://account",
        "ducklake:postgresql://localhost/x",
        "ducklake:postgresql://localhost/x?data_path=relative",
        "ducklake:sqlite://x?data_path=/tmp/x",
        "postgresql://localhost/x?nonsense=1",
        "",
    ],
)
def test_a_malformed_url_is_refused(wrong: str) -> None:
    with pytest.raises(QueryError, match="URL"):
        open_warehouse(wrong, "acme")


def test_a_server_that_is_down_is_unavailable(url: str) -> None:
    scheme = url.partition(":")[0].replace("postgresql", "")
    down = "postgresql://someone:hunter2@127.0.0.1:1/x?data_path=/tmp/x"
    wrong = f"{scheme}:{down}" if scheme else down.partition("?")[0]
    with pytest.raises(Unavailable) as raised:
        open_warehouse(wrong, "acme")
    assert "hunter2" not in str(raised.value)


def test_an_older_workspace_waits_for_its_migration(url: str) -> None:
    provision_workspace(url, "older")
    warehouse = open_warehouse(url, "older")
    record = f"UPDATE {warehouse.table('traitmesh.migrations')} SET number = "
    with warehouse.transaction() as transaction:
        transaction.execute(f"{record}{len(MIGRATIONS) - 1}")
    another = Limits(threads=1)  # So that it is opened anew.
    with pytest.raises(Unavailable, match="provision it"):
        open_warehouse(url, "older", another)
    with warehouse.transaction() as transaction:
        transaction.execute(f"{record}{len(MIGRATIONS)}")
    assert open_warehouse(url, "older", another).workspace == "older"


def test_the_catalog_of_a_workspace_is_a_schema_of_its_own(urls: dict[str, str], lake: Warehouse) -> None:
    with psycopg.connect(urls["postgresql"]) as connection:
        found = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = %s", [f"lake_{lake.workspace}"])
        assert found.fetchone() != (0,)
