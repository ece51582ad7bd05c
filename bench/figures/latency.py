"""How long one changed row takes to be in the destination: from the creation of a run to its success."""

import time
from statistics import median

from bench import machine
from bench.bench import Bench
from bench.figure import Figure

TIMES = 10
SYNC = "latency"


def run(bench: Bench) -> list[Figure]:
    """One figure: milliseconds, in a mirror of all users to PostgreSQL."""
    company = bench.tusk
    company.create_sync(SYNC)
    company.run_sync(SYNC)
    (buyer,) = company.users(1)
    taken = []
    for _ in range(TIMES):
        company.buy([buyer])
        company.build()
        started = time.perf_counter()
        done = company.run_sync(SYNC)
        taken.append(time.perf_counter() - started)
        assert int(done["confirmedCount"]) == 1
    versions = machine.versions("temporalio", "duckdb", "psycopg")
    return [Figure("latency", median(taken) * 1000, "ms", versions)]
