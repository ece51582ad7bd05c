"""Warehouses of both engines, holding every case and the random world."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import psycopg
import pytest
from sqlglot import exp

from libs.warehouse import Dialect, Warehouse, close_warehouses, open_warehouse, provision_workspace
from services.audience.compiler import guard
from services.audience.tests import population


@pytest.fixture(scope="session")
def urls(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """URL by engine."""
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("CREATE DATABASE audience_warehouse")
    database = postgres.replace("/postgres?", "/audience_warehouse?")
    yield {
        "ducklake": f"ducklake:{database}&data_path={tmp_path_factory.mktemp('lake')}",
        "postgresql": database,
    }
    close_warehouses()


@pytest.fixture(scope="session")
def loaded(urls: dict[str, str]) -> dict[str, Warehouse]:
    """The warehouse of each engine with every world in it."""
    warehouses = {}
    for engine, url in urls.items():
        provision_workspace(url, "worlds")
        warehouses[engine] = open_warehouse(url, "worlds")
        population.load(warehouses[engine], [*population.cases(), population.random_world()])
    return warehouses


@dataclass(frozen=True)
class Form:
    """A warehouse, and the form of funnels that is compiled for it."""

    warehouse: Warehouse
    dialect: Dialect

    def rows(self, query: exp.Query, world: int) -> list[dict[str, Any]]:
        sql = guard.sql(query, population.target(self.warehouse, self.dialect, world))
        rows: list[dict[str, Any]] = self.warehouse.query(sql).read_all().to_pylist()
        return rows


@pytest.fixture(scope="session", params=["ducklake by asof", "ducklake by windows", "postgresql by windows"])
def form(request: pytest.FixtureRequest, loaded: dict[str, Warehouse]) -> Form:
    """Each engine in each form that it can."""
    engine, _, by = request.param.split()
    warehouse = loaded[engine]
    return Form(warehouse, replace(warehouse.dialect, asof_join=by == "asof"))
