"""Loading: events a second from files to the warehouse, through gateway, workflow and connector.

Beside DuckDB reading the same files bare: no identity, no duplicates, no quarantine, no order. That is the floor.
"""

from collections.abc import Sequence
from itertools import count
from pathlib import Path

import duckdb

from bench import machine
from bench.bench import Bench
from bench.figure import Figure
from bench.measuring import medians, seconds

ROUNDS = 3
"""At most: one takes a minute, and a load by itself is the median of millions of rows."""


def run(bench: Bench) -> list[Figure]:
    """One figure: events a second."""
    files = bench.event_files
    numbers = count(1)

    def ours() -> float:
        company = bench.new_company(f"load-{next(numbers)}")
        return bench.events / seconds(lambda: company.load(files))

    def bare() -> float:
        return bench.events / seconds(lambda: read_bare(files))

    value, floor = medians(min(bench.repeats, ROUNDS), [ours, bare])
    versions = machine.versions("duckdb", "pyarrow", "orjson")
    return [Figure("load", value, "events/s", versions, "DuckDB read_json", floor)]


def read_bare(files: Sequence[Path]) -> int:
    """Reads the files into a table and returns its rows."""
    with duckdb.connect(":memory:", config={"threads": 2}) as connection:
        read = "read_json($files, format = 'newline_delimited', ignore_errors = true, union_by_name = true)"
        connection.execute(f"CREATE TABLE events AS FROM {read}", {"files": [str(file) for file in files]})
        (rows,) = connection.execute("SELECT count(*) FROM events").fetchone() or (0,)
        return int(rows)
