"""A real PostgreSQL, and on it a warehouse of every engine."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pyarrow as pa
import pytest

from libs.warehouse import Warehouse, close_warehouses, open_warehouse, provision_workspace

ENGINES = ("ducklake", "postgresql")


@pytest.fixture(scope="session")
def urls(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """URL by engine."""
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("CREATE DATABASE warehouse")
    database = postgres.replace("/postgres?", "/warehouse?")
    yield {
        "ducklake": f"ducklake:{database}&data_path={tmp_path_factory.mktemp('lake')}",
        "postgresql": database,
    }
    close_warehouses()


@pytest.fixture(scope="session", params=ENGINES)
def url(request: pytest.FixtureRequest, urls: dict[str, str]) -> str:
    """The URL of each engine in turn."""
    return urls[request.param]


@pytest.fixture(scope="session")
def warehouse(url: str) -> Warehouse:
    """The warehouse of workspace `acme`, of each engine in turn."""
    provision_workspace(url, "acme")
    return open_warehouse(url, "acme")


@pytest.fixture(scope="session")
def lake(urls: dict[str, str]) -> Warehouse:
    """The warehouse of the engine that has snapshots."""
    provision_workspace(urls["ducklake"], "acme")
    return open_warehouse(urls["ducklake"], "acme")


@pytest.fixture
def table(request: pytest.FixtureRequest) -> str:
    """A table name of this test alone."""
    return f"spare.{request.node.originalname}"


@pytest.fixture
def data_folder(urls: dict[str, str]) -> Path:
    """Where the lakes keep their files."""
    return Path(urls["ducklake"].partition("data_path=")[2])


def write(warehouse: Warehouse, table: str, rows: list[dict[str, object]]) -> None:
    """Write the rows into a new table, replacing one of that name."""
    arrow = pa.Table.from_pylist(rows)
    kinds = {pa.string(): "VARCHAR", pa.int64(): "BIGINT", pa.float64(): "DOUBLE PRECISION"}
    columns = ", ".join(f"CAST(NULL AS {kinds[field.type]}) AS {field.name}" for field in arrow.schema)
    with warehouse.transaction() as transaction:
        transaction.drop(table)
        transaction.create_table_as(table, f"SELECT {columns} WHERE FALSE")
        transaction.append(table, arrow)


def rows_of(warehouse: Warehouse, table: str, order: str, at: int | None = None) -> list[dict[str, object]]:
    """Return the rows of a table in order."""
    found = warehouse.query(f"SELECT * FROM {warehouse.table(table, at)} AS t ORDER BY {order}")
    rows: list[dict[str, object]] = found.read_all().to_pylist()
    return rows
