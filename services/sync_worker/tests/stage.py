"""What the suites play on: a warehouse with a user model, a registry, a stand-in for builds, and the sync worker."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import grpc
import pyarrow as pa
from traitmesh_proto.model.v1 import build_pb2, build_pb2_grpc
from traitmesh_proto.registry.v1 import trait_pb2, trait_pb2_grpc, workspace_pb2, workspace_pb2_grpc
from traitmesh_proto.sync.v1 import (
    destination_pb2,
    destination_pb2_grpc,
    run_pb2,
    run_pb2_grpc,
    sync_pb2,
    sync_pb2_grpc,
)

from libs.kit import auth, errors
from libs.warehouse import open_warehouse, provision_workspace
from services.sync_worker.config import SyncSettings

ROOT = Path(__file__).resolve().parents[3]
EDITOR = auth.Caller("eve", "tusk", "editor")
ADMIN = auth.Caller("root", auth.EVERY_WORKSPACE, "admin")
SERVICE = auth.Caller("model_builder", auth.EVERY_WORKSPACE, "service")
OVER = (run_pb2.Run.STATE_SUCCEEDED, run_pb2.Run.STATE_ABORTED)
ATTENTION = run_pb2.Run.STATE_NEEDS_ATTENTION

TRAITS = {
    "level": trait_pb2.TRAIT_TYPE_CONTINUOUS,
    "email": trait_pb2.TRAIT_TYPE_CATEGORICAL,
    "payer": trait_pb2.TRAIT_TYPE_BOOLEAN,
    "whales": trait_pb2.TRAIT_TYPE_BOOLEAN,
}
MODEL = pa.schema(
    [
        ("user_id", pa.string()),
        ("user_ord", pa.uint32()),
        ("level", pa.float64()),
        ("email", pa.string()),
        ("payer", pa.bool_()),
        ("whales", pa.bool_()),
    ]
)


class Builds(build_pb2_grpc.BuildServiceServicer):
    """Answers the latest build of each workspace, as the test set it."""

    def __init__(self) -> None:
        self.latest: dict[str, build_pb2.Build] = {}

    def GetBuild(  # noqa: N802 -- gRPC names it
        self, request: build_pb2.GetBuildRequest, context: grpc.ServicerContext
    ) -> build_pb2.Build:
        workspace = request.name.split("/")[1]
        if workspace not in self.latest:
            raise errors.NotFound(request.name)
        return self.latest[workspace]


@dataclass
class Stage:
    """One running world. Calls are made as an editor of the workspace that they name."""

    settings: SyncSettings
    environment: dict[str, str]
    channel: grpc.Channel
    registry: grpc.Channel
    builds: Builds
    folder: Path
    temporal: str
    _count: int = field(default=0)

    def __post_init__(self) -> None:
        self.destinations = destination_pb2_grpc.DestinationServiceStub(self.channel)
        self.syncs = sync_pb2_grpc.SyncServiceStub(self.channel)
        self.runs = run_pb2_grpc.RunServiceStub(self.channel)

    def add_workspace(self, workspace: str) -> None:
        """A workspace with its warehouse and with TRAITS, `whales` being an audience."""
        stub = workspace_pb2_grpc.WorkspaceServiceStub(self.registry)
        with auth.acting_as(ADMIN):
            stub.CreateWorkspace(workspace_pb2.CreateWorkspaceRequest(workspace_id=workspace))
        parent = f"workspaces/{workspace}"
        with auth.acting_as(SERVICE):
            for origin, names in (("projects/p", ["level", "email", "payer"]), ("audiences/whales", ["whales"])):
                kind = trait_pb2.TRAIT_KIND_DECIDED if names == ["whales"] else trait_pb2.TRAIT_KIND_COMPUTED
                traits = [
                    trait_pb2.Trait(name=f"{parent}/traits/{name}", kind=kind, type=TRAITS[name]) for name in names
                ]
                trait_pb2_grpc.TraitServiceStub(self.registry).ApplyTraits(
                    trait_pb2.ApplyTraitsRequest(parent=parent, origin=f"{parent}/{origin}", traits=traits)
                )
        provision_workspace(self.settings.warehouse_url.get_secret_value(), workspace)

    def publish(self, rows: Sequence[Mapping[str, object]] | pa.Table, workspace: str = "tusk") -> None:
        """Makes these rows the user model, as a new build."""
        table = rows if isinstance(rows, pa.Table) else model(rows)
        warehouse = open_warehouse(self.settings.warehouse_url.get_secret_value(), workspace)
        with warehouse.transaction() as tx:
            if warehouse.exists("traitmesh.user_model"):
                tx.execute(f"DELETE FROM {warehouse.table('traitmesh.user_model')}")
            else:
                columns = 'NULL::VARCHAR user_id, NULL::UINTEGER user_ord, NULL::DOUBLE "level", NULL::VARCHAR email'
                tx.create_table_as(
                    "traitmesh.user_model",
                    f"SELECT {columns}, NULL::BOOLEAN payer, NULL::BOOLEAN whales WHERE false",
                )
            if table.num_rows:
                tx.append("traitmesh.user_model", table)
        number = (
            int(self.builds.latest[workspace].name.rpartition("/")[2]) + 1 if workspace in self.builds.latest else 1
        )
        name = f"workspaces/{workspace}/builds/{number}"
        self.builds.latest[workspace] = build_pb2.Build(name=name, snapshot=warehouse.snapshot())

    def moody(self, workspace: str = "tusk", **config: Any) -> "Moody":
        """A new destination of the connector that does as it is told."""
        folder = self.folder / self.fresh("moody")
        folder.mkdir()
        moody = Moody(folder, f"workspaces/{workspace}/destinations/{folder.name}")
        moody.set()
        self.destination(moody.name, "destination-moody", {"folder": str(folder), "token": "s3cret", **config})
        return moody

    def destination(self, name: str, connector: str, config: Mapping[str, Any]) -> destination_pb2.Destination:
        parent, _, destination_id = name.partition("/destinations/")
        request = destination_pb2.CreateDestinationRequest(parent=parent, destination_id=destination_id)
        request.destination.connector = connector
        request.destination.config.update(dict(config))
        with auth.acting_as(editor(name)):
            return self.destinations.CreateDestination(request)

    def sync(
        self,
        destination: str,
        mode: str = "upsert",
        fields: Sequence[tuple[str, str]] = (("user_id", "id"), ("level", "level"), ("email", "mail")),
        **extra: object,
    ) -> str:
        """Creates a sync under a fresh id and returns its name."""
        parent = destination.partition("/destinations/")[0]
        sync = sync_pb2.Sync(
            destination=destination,
            mode=sync_pb2.Mode.Value(f"MODE_{mode.upper()}"),
            mappings=[sync_pb2.FieldMapping(source=source, destination=to) for source, to in fields],
            **({"object": "people"} | extra),  # type: ignore[arg-type]
        )
        request = sync_pb2.CreateSyncRequest(parent=parent, sync_id=self.fresh("sync"), sync=sync)
        with auth.acting_as(editor(destination)):
            return self.syncs.CreateSync(request).name

    def start(self, sync: str, **fields: object) -> run_pb2.Run:
        with auth.acting_as(editor(sync)):
            return self.runs.CreateRun(run_pb2.CreateRunRequest(parent=sync, **fields))  # type: ignore[arg-type]

    def get(self, run: str) -> run_pb2.Run:
        with auth.acting_as(editor(run)):
            return self.runs.GetRun(run_pb2.GetRunRequest(name=run))

    def wait(self, run: str, *states: run_pb2.Run.State.ValueType, seconds: float = 60) -> run_pb2.Run:
        """The run, once it is in one of the states; by default, once it is over or needs attention."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            now = self.get(run)
            if now.state in (states or (*OVER, ATTENTION)):
                return now
            time.sleep(0.05)
        raise AssertionError(f"still waiting: {self.get(run)}")

    def carry_out(self, sync: str, **fields: object) -> run_pb2.Run:
        """Runs a sync to its end, which must be success."""
        run = self.wait(self.start(sync, **fields).name)
        assert run.state == run_pb2.Run.STATE_SUCCEEDED, run
        return run

    def fresh(self, word: str) -> str:
        """An id that nothing has yet."""
        self._count += 1
        return f"{word}-{self._count}"


@dataclass(frozen=True)
class Moody:
    """A destination of tests/moody.py: its mood, and what it holds."""

    folder: Path
    name: str

    def set(self, **mood: object) -> None:
        draft = self.folder / "mood.tmp"
        draft.write_text(json.dumps(mood))
        draft.replace(self.folder / "mood.json")

    def records(self, table: str = "people") -> dict[str, dict[str, Any]]:
        rows = self._read("SELECT key, data FROM records WHERE object = ?", [table])
        return {key: json.loads(data) for key, data in rows}

    def writes(self, table: str = "people") -> list[tuple[str, str, str, bool]]:
        """(key, operation, idempotency key, resend) in the order of arrival."""
        query = "SELECT key, operation, idempotency_key, resend FROM writes WHERE object = ? ORDER BY rowid"
        return [(key, operation, token, bool(resend)) for key, operation, token, resend in self._read(query, [table])]

    def _read(self, query: str, parameters: Sequence[object]) -> list[Any]:
        path = self.folder / "records.sqlite"
        if not path.exists():
            return []
        database = sqlite3.connect(path, timeout=30)
        try:
            return database.execute(query, parameters).fetchall()
        finally:
            database.close()


class WorkerProcess:
    """A sync worker in a process of its own."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self.log = log
        self._output: IO[bytes] = log.open("ab")
        command = [sys.executable, "-m", "services.sync_worker", "worker"]
        self._process = subprocess.Popen(command, cwd=ROOT, env=dict(environment), stderr=self._output)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> int:
        """Sends the signal and waits for the end."""
        self._process.send_signal(number)
        code = self._process.wait(60)
        self._output.close()
        return code

    def close(self) -> None:
        if self._process.poll() is None:
            self.kill(signal.SIGTERM)


@contextmanager
def worker(stage: Stage) -> Iterator[WorkerProcess]:
    """A worker process that is ended with the block, if a test has not ended it before."""
    process = WorkerProcess(stage.environment, stage.folder / "worker.log")
    try:
        yield process
    finally:
        process.close()


def editor(name: str) -> auth.Caller:
    return auth.Caller("eve", name.split("/")[1], "editor")


def model(rows: Sequence[Mapping[str, object]]) -> pa.Table:
    """A user model of these rows, absent traits being null."""
    whole = [dict.fromkeys(MODEL.names) | {"user_ord": ordinal} | dict(row) for ordinal, row in enumerate(rows)]
    return pa.Table.from_pylist(whole, schema=MODEL)


def users(count: int, **traits: object) -> list[dict[str, object]]:
    return [{"user_id": f"u{number:05}", "level": float(number), **traits} for number in range(count)]


def python_environment() -> dict[str, str]:
    """What a child Python needs to find this project."""
    paths = [ROOT, ROOT / "gen", ROOT / "libs" / "connector"]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
