"""A whole stack for the end-to-end suites: every process real, in a folder and on ports of its own."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from deploy.local.processes import Program, wait_until
from deploy.local.stack import PORTS, ROOT, Stack, StackError
from libs.kit.testing import free_port
from traitmesh import Client

TUSK = ROOT / "examples" / "tusk"
USERS, EVENTS = 300, 6000
SLACK_TOKEN = "xoxb-local-canary-token"


@dataclass
class Company:
    """A workspace as its people see it: the command line, and the client behind it."""

    workspace: str
    client: Client
    home: Path

    def run(self, *arguments: str, code: int = 0) -> str:
        """The output of a `traitmesh` command, which must end with `code`."""
        environment = os.environ | {
            "TRAITMESH_HOME": str(self.home),
            "TRAITMESH_WORKSPACE": self.workspace,
        }
        done = subprocess.run(
            [sys.executable, "-m", "traitmesh.cli", *arguments],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert done.returncode == code, f"{arguments}: {done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """Everything that `make up` starts, with spans written to the logs."""
    # A short path, since PostgreSQL's socket lives in it.
    folder = Path(tempfile.mkdtemp(prefix="tm-"))
    # Small batches, so that a small company's syncs have a middle.
    running = Stack(folder, _free_offset(), {"TRACES": "console", "BATCH_RECORDS": "20"})
    try:
        running.up(lambda _: None)
        yield running
    finally:
        running.processes.stop(["slack-fast", "slack-slow"], 5)
        running.stop()
        if kept := os.environ.get("TRAITMESH_KEEP_LOGS"):
            shutil.copytree(folder / "logs", kept, dirs_exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def api_key(stack: Stack) -> str:
    """A key for every workspace."""
    return create_key(stack, "-", "admin")


def create_key(stack: Stack, workspace: str, role: str) -> str:
    """Makes an API key as an operator does."""
    command = [sys.executable, "-m", "services.gateway", "key", "create", "--workspace", workspace, "--role", role]
    made = subprocess.run(command, env=stack.environment(), cwd=ROOT, capture_output=True, text=True, check=True)
    return made.stdout.strip().splitlines()[-1]


@pytest.fixture(scope="session")
def new_company(stack: Stack, api_key: str) -> Callable[[str], Company]:
    """Makes a workspace and gives its company."""
    (stack.folder / "client.json").write_text(json.dumps({"url": stack.url, "api_key": api_key}))

    def make(workspace: str) -> Company:
        company = Company(workspace, Client(stack.url, api_key, workspace), stack.folder)
        company.run("workspace", "create", workspace)
        return company

    return make


@pytest.fixture(scope="session")
def event_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A small Tusk's events."""
    folder = tmp_path_factory.mktemp("events")
    command = [sys.executable, str(TUSK / "generate.py"), "--users", str(USERS), "--events", str(EVENTS)]
    subprocess.run([*command, "--seed", "7", "--out", str(folder)], check=True, capture_output=True)
    return sorted(folder.glob("*.ndjson.gz"))


@pytest.fixture(scope="session")
def tusk(new_company: Callable[[str], Company], event_files: list[Path]) -> Company:
    """The demo company with events loaded, computed traits, and one build."""
    company = new_company("tusk")
    company.run("events", "load", *map(str, event_files))
    company.run("project", "push", str(TUSK / "dbt"), "--name", "tusk")
    company.run("build", "run")
    return company


@pytest.fixture(scope="session")
def crm_url(stack: Stack) -> str:
    """A company's own database, as a destination."""
    server = stack.environment()["TRAITMESH_DATABASE_URL"]
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("CREATE DATABASE crm")
    return server.replace("/postgres?", "/crm?")


@pytest.fixture(scope="session")
def slack_url(stack: Stack) -> str:
    """A server of Slack's Web API with the channel #growth."""
    return start_slack(stack, "fast", posts_per_second=50, burst=100)


def start_slack(stack: Stack, name: str, posts_per_second: int, burst: int) -> str:
    """Starts a server of Slack's Web API, which the stack's end ends too; returns its base URL."""
    port = free_port()
    options = {
        "--port": port,
        "--state-file": stack.folder / f"slack-{name}.db",
        "--channels": "growth",
        "--token": SLACK_TOKEN,
        "--posts-per-second": posts_per_second,
        "--burst": burst,
    }
    arguments = [str(part) for option in options.items() for part in option]
    program = Program(f"slack-{name}", (sys.executable, "-m", "slack_sink", *arguments), port)
    environment = os.environ | {"PYTHONPATH": str(ROOT / "connectors" / "destination-slack")}
    stack.processes.start(program, environment, ROOT)
    return f"http://127.0.0.1:{port}/api/"


def rows_at(url: str, table: str) -> list[tuple[Any, ...]]:
    """What a destination's table holds."""
    with psycopg.connect(url) as connection:
        return connection.execute(f"SELECT * FROM {table}").fetchall()


def eventually(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Waits for a condition, and fails with what was waited for."""
    assert wait_until(condition, seconds), f"waited {seconds} s for {what}"


def _free_offset() -> int:
    """An offset at which every port of the stack is free, below those that outgoing connections take."""
    for offset in range(2_000 + os.getpid() % 1_000, 24_000, 1_000):
        candidate = Stack(Path(), offset)
        try:
            candidate.check_ports(Program(name, (), candidate.port(name)) for name in PORTS)
        except StackError:
            continue
        return offset
    raise RuntimeError("no free ports")
