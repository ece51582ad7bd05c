"""The embedded DuckDB that compares a model with a state, with its memory and its files bounded."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from services.sync_worker.files import scratch_folder

MEMORY = "1GB"
THREADS = 2


@contextmanager
def open_duckdb(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database of its own for one piece of work; what does not fit into memory spills to a folder in `folder`."""
    with (
        scratch_folder(folder) as spill,
        duckdb.connect(
            ":memory:", config={"memory_limit": MEMORY, "threads": THREADS, "temp_directory": str(spill)}
        ) as connection,
    ):
        yield connection
