"""Shipping: rows a second through the runner to a destination that only acknowledges, a STATE for each 1,000.

Ours is made with the SDK. Beside it: a destination made with airbyte-cdk through the same runner, and a bare loop of
two processes that knows neither runner nor SDK. Then the whole way: plan, workflow, ledger, rows in PostgreSQL.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import IO

import orjson

from bench import destination_acknowledging, machine
from bench.bench import Bench
from bench.figure import Figure, Gate
from bench.measuring import medians, seconds
from services.sync_worker.sending import UNACKED_BATCHES
from traitmesh_connector import runner
from traitmesh_connector.protocol import Stream, encode, record_line

ROWS = 200_000
BATCH = 1_000
STREAM = Stream("users", {"type": "object"}, "append_dedup", ("user_id",))
PEERS = Path(__file__).resolve().parent.parent / "peers"


def run(bench: Bench) -> list[Figure]:
    """Rows a second beside each peer, and into PostgreSQL."""
    batches = make_batches(ROWS)
    sdk, airbyte, bare = medians(
        bench.repeats,
        [
            lambda: rate(send(sdk_program(), batches)),
            lambda: rate(send(airbyte_program(bench), batches)),
            lambda: rate(send_bare(batches)),
        ],
    )
    ours = machine.versions("orjson")
    theirs = ours | machine.versions("airbyte-cdk", environment=bench.peers)
    return [
        Figure("shipping-sdk", sdk, "rows/s", theirs, "airbyte-cdk", airbyte, Gate(2.0, at_least=True)),
        Figure("shipping-bare", sdk, "rows/s", ours, "bare loop", bare, Gate(0.6, at_least=True)),
        _to_postgres(bench),
    ]


def rate(acknowledged: Sequence[float]) -> float:
    """Rows a second from the first acknowledgement to the last, so that no program's start counts."""
    return (len(acknowledged) - 1) * BATCH / (acknowledged[-1] - acknowledged[0])


def sdk_program() -> runner.Program:
    """The destination made with our SDK."""
    return runner.Program((sys.executable, str(destination_acknowledging.__file__)), config_schema={})


def airbyte_program(bench: Bench) -> runner.Program:
    """The destination made with airbyte-cdk, unbuffered, without which its answers would stay with it."""
    return runner.Program((bench.peer_python, "-u", str(PEERS / "airbyte_destination.py")), config_schema={})


def send(program: runner.Program, batches: Sequence[runner.Batch]) -> list[float]:
    """Sends rows through the runner, as an attempt of a run does; when each batch was acknowledged."""
    acknowledged: list[float] = []

    def note(ack: runner.Ack) -> None:
        assert ack.record_count == BATCH
        acknowledged.append(time.perf_counter())

    runner.write(program, {}, STREAM, batches, note, max_unacked_batches=UNACKED_BATCHES)
    return acknowledged


def send_bare(batches: Sequence[runner.Batch]) -> list[float]:
    """Sends the same rows to the bare destination; when each batch was acknowledged."""
    command = [sys.executable, str(PEERS / "bare_destination.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        acknowledged: list[float] = []
        listener = threading.Thread(target=_listen, args=(child.stdout, acknowledged))
        listener.start()
        for batch in batches:
            state = encode("STATE", {"type": "STREAM", "stream": {"stream_state": {"batch": batch.id}}})
            child.stdin.write(b"\n".join((*batch.records, state)))
        child.stdin.close()
        listener.join()
    assert len(acknowledged) == len(batches)
    return acknowledged


def _listen(answers: IO[bytes], acknowledged: list[float]) -> None:
    for _ in answers:
        acknowledged.append(time.perf_counter())  # noqa: PERF401 -- the moment of each answer is what counts


def make_batches(rows: int) -> list[runner.Batch]:
    """Batches as an attempt makes them of a plan; made beforehand, since making them is no part of shipping."""
    starts = range(0, rows, BATCH)
    return [runner.Batch(number, [_line(start + i) for i in range(BATCH)]) for number, start in enumerate(starts)]


def _line(row: int) -> bytes:
    key = f"user-{row}"
    payload = PAYLOAD.replace(b"KEY", key.encode())
    return record_line(STREAM, orjson.Fragment(payload), operation="upsert", idempotency_key=f"{row:064x}")


PAYLOAD = orjson.dumps(
    {
        "user_id": "KEY",
        **{f"number_{index}": 1234.5 + index for index in range(8)},
        **{f"word_{index}": f"some text {index}" for index in range(6)},
        **{f"flag_{index}": index % 2 == 0 for index in range(5)},
    }
)
"""A record of 20 fields, as a plan holds it: JSON already."""


def _to_postgres(bench: Bench) -> Figure:
    """Rows a second from the creation of a run to its end, every user being new to the destination."""
    company = bench.tusk
    numbers = count(1)

    def ours() -> float:
        sync = f"shipping_{next(numbers)}"
        company.create_sync(sync)
        sent: list[int] = []
        taken = seconds(lambda: sent.append(int(company.run_sync(sync)["confirmedCount"])))
        return sent[0] / taken

    (value,) = medians(bench.repeats, [ours])
    return Figure("shipping-postgres", value, "rows/s", machine.versions("psycopg", "temporalio", "duckdb"))
