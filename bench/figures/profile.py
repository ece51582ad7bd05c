"""Reading profiles: latency one at a time, and how many a second sixteen callers get, through the gateway.

Beside the same call directly over gRPC to the service that answers it.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from itertools import cycle, islice
from statistics import median, quantiles

import grpc
from traitmesh_proto.model.v1 import profile_pb2, profile_pb2_grpc

from bench import machine
from bench.bench import Bench
from bench.company import Company
from bench.figure import Figure
from bench.measuring import medians
from libs.kit import auth, client
from libs.kit.settings import Settings

CALLS = 1_000
CALLERS = 16
SECONDS = 3.0
USERS = 1_000

Read = Callable[[str], None]
"""Reads the profile of that resource name."""


def run(bench: Bench) -> list[Figure]:
    """Median and 99th percentile of one caller, and reads a second of sixteen."""
    company = bench.tusk
    profiles = [f"workspaces/{company.workspace}/profiles/{user}" for user in company.users(USERS)]
    address = f"127.0.0.1:{company.stack.port('gateway')}"
    with _direct(company) as direct:
        rests = [_rest(address, company.api_key) for _ in range(CALLERS)]
        _latencies(rests[0], profiles)
        _latencies(direct, profiles)
        rounds = [(_latencies(rests[0], profiles), _latencies(direct, profiles)) for _ in range(bench.repeats)]
        rate, direct_rate = medians(
            bench.repeats, [lambda: _rate(rests, profiles), lambda: _rate([direct] * CALLERS, profiles)]
        )
    ours, theirs = ([quantiles(taken, n=100) for taken in column] for column in zip(*rounds, strict=True))
    versions = machine.versions("grpcio", "uvicorn", "starlette", "sqlalchemy", "psycopg")
    figures = [
        Figure(f"profile-p{p}", _middle(ours, p), "ms", versions, "gRPC, no gateway", _middle(theirs, p))
        for p in (50, 99)
    ]
    return [*figures, Figure("profile-rate", rate, "reads/s", versions, "gRPC, no gateway", direct_rate)]


def _middle(rounds: Sequence[Sequence[float]], percentile: int) -> float:
    return median(cuts[percentile - 1] for cuts in rounds) * 1000


def _latencies(read: Read, profiles: Sequence[str]) -> list[float]:
    taken = []
    for profile in islice(cycle(profiles), CALLS):
        started = time.perf_counter()
        read(profile)
        taken.append(time.perf_counter() - started)
    return taken


def _rate(readers: Sequence[Read], profiles: Sequence[str]) -> float:
    """Reads a second of all readers at once."""
    deadline = time.perf_counter() + SECONDS

    def until_then(number: int) -> int:
        done = 0
        for profile in islice(cycle(profiles), number, None):
            if time.perf_counter() > deadline:
                break
            readers[number](profile)
            done += 1
        return done

    with ThreadPoolExecutor(len(readers)) as pool:
        return sum(pool.map(until_then, range(len(readers)))) / SECONDS


def _rest(address: str, api_key: str) -> Read:
    """A reader with a connection of its own that stays open."""
    connection = HTTPConnection(address)
    headers = {"Authorization": f"Bearer {api_key}"}

    def read(profile: str) -> None:
        connection.request("GET", f"/v1/{profile}", headers=headers)
        answer = connection.getresponse()
        content = answer.read()
        assert answer.status == 200, content

    return read


@contextmanager
def _direct(company: Company) -> Iterator[Read]:
    """A reader on a channel that all callers share, as the gateway's requests share one."""
    environment = company.stack.environment()
    settings = Settings.model_validate(
        {key: environment[f"TRAITMESH_{key.upper()}"] for key in ("database_url", "signing_key")}
    )
    caller = auth.Caller("bench", company.workspace, "editor")
    channel: grpc.Channel = client.open_channel(environment["TRAITMESH_MODEL_ADDRESS"], settings, lambda: caller)
    stub = profile_pb2_grpc.ProfileServiceStub(channel)
    try:
        yield lambda profile: stub.GetProfile(profile_pb2.GetProfileRequest(name=profile))
    finally:
        channel.close()
