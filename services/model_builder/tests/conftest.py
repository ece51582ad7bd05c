"""The model builder as it really runs: registry, server, Temporal and a worker process over one PostgreSQL."""

import gzip
import io
import os
import signal
import subprocess
import sys
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import grpc
import psycopg
import pytest
from google.api.httpbody_pb2 import HttpBody
from pydantic import SecretStr
from sqlalchemy import Engine
from traitmesh_proto.audience.v1 import audience_pb2_grpc
from traitmesh_proto.model.v1 import (
    build_pb2,
    build_pb2_grpc,
    load_pb2,
    load_pb2_grpc,
    notebook_pb2,
    notebook_pb2_grpc,
    profile_pb2,
    profile_pb2_grpc,
    project_pb2,
    project_pb2_grpc,
)
from traitmesh_proto.registry.v1 import lineage_pb2_grpc, trait_pb2_grpc, workspace_pb2, workspace_pb2_grpc

from libs.kit import auth, client, database, server
from libs.kit.settings import Settings, TemporalSettings
from libs.kit.testing import SIGNING_KEY
from libs.warehouse import Limits, Warehouse, open_warehouse
from services.audience import __main__ as audience
from services.audience import store as audience_store
from services.audience.config import AudienceSettings
from services.model_builder import __main__ as model_builder
from services.model_builder.config import ModelSettings
from services.model_builder.store.tables import SCHEMA
from services.trait_registry import __main__ as trait_registry
from services.trait_registry import store as registry_store

ROOT = Path(__file__).parents[3]
TUSK = ROOT / "examples" / "tusk"
ADMIN = auth.Caller("root", auth.EVERY_WORKSPACE, "admin")

T = TypeVar("T")


@dataclass
class World:
    """Everything that a test needs, called as an administrator of all workspaces."""

    settings: ModelSettings
    temporal: TemporalSettings
    engine: Engine
    channel: grpc.Channel
    registry: grpc.Channel
    audience: grpc.Channel
    folder: Path
    worker: "subprocess.Popen[bytes] | None" = None

    @cached_property
    def loads(self) -> load_pb2_grpc.LoadServiceStub:
        return load_pb2_grpc.LoadServiceStub(self.channel)

    @cached_property
    def projects(self) -> project_pb2_grpc.ProjectServiceStub:
        return project_pb2_grpc.ProjectServiceStub(self.channel)

    @cached_property
    def notebooks(self) -> notebook_pb2_grpc.NotebookServiceStub:
        return notebook_pb2_grpc.NotebookServiceStub(self.channel)

    @cached_property
    def builds(self) -> build_pb2_grpc.BuildServiceStub:
        return build_pb2_grpc.BuildServiceStub(self.channel)

    @cached_property
    def profiles(self) -> profile_pb2_grpc.ProfileServiceStub:
        return profile_pb2_grpc.ProfileServiceStub(self.channel)

    @cached_property
    def audiences(self) -> audience_pb2_grpc.AudienceServiceStub:
        return audience_pb2_grpc.AudienceServiceStub(self.audience)

    @cached_property
    def traits(self) -> trait_pb2_grpc.TraitServiceStub:
        return trait_pb2_grpc.TraitServiceStub(self.registry)

    @cached_property
    def lineage(self) -> lineage_pb2_grpc.LineageServiceStub:
        return lineage_pb2_grpc.LineageServiceStub(self.registry)

    def create_workspace(self, workspace: str) -> str:
        stub = workspace_pb2_grpc.WorkspaceServiceStub(self.registry)
        stub.CreateWorkspace(workspace_pb2.CreateWorkspaceRequest(workspace_id=workspace))
        return f"workspaces/{workspace}"

    def warehouse(self, workspace: str) -> Warehouse:
        return open_warehouse(self.settings.warehouse_url.get_secret_value(), workspace, Limits(memory="512MB"))

    def rows(self, workspace: str, sql: str, *tables: str) -> list[dict[str, Any]]:
        """The rows of a query whose `{}` are these tables."""
        warehouse = self.warehouse(workspace)
        found: list[dict[str, Any]] = warehouse.query(sql.format(*map(warehouse.table, tables))).read_all().to_pylist()
        return found

    def start_load(self, parent: str, file_name: str, content: bytes) -> load_pb2.Load:
        def messages() -> Iterator[load_pb2.CreateLoadRequest]:
            yield load_pb2.CreateLoadRequest(parent=parent, file_name=file_name)
            for start in range(0, len(content), 100_000):
                yield load_pb2.CreateLoadRequest(content=HttpBody(data=content[start : start + 100_000]))
            yield load_pb2.CreateLoadRequest(content=HttpBody())

        return self.loads.CreateLoad(messages())

    def load(self, parent: str, file_name: str, content: bytes) -> load_pb2.Load:
        """Loads a file and waits for its end."""
        started = self.start_load(parent, file_name, content)
        return self.wait_load(started.name)

    def wait_load(self, name: str) -> load_pb2.Load:
        request = load_pb2.GetLoadRequest(name=name)
        return until(
            lambda: self.loads.GetLoad(request), lambda found: found.state != load_pb2.Load.STATE_RUNNING, seconds=60
        )

    def push(self, name: str, archive: bytes, **fields: Any) -> project_pb2.PushProjectResponse:
        body = HttpBody(content_type="application/gzip", data=archive)
        request = project_pb2.PushProjectRequest(name=name, archive=body, **fields)
        return self.projects.PushProject(request, timeout=120)

    def push_notebook(self, name: str, content: bytes, **fields: Any) -> notebook_pb2.PushNotebookResponse:
        request = notebook_pb2.PushNotebookRequest(name=name, content=HttpBody(data=content), **fields)
        return self.notebooks.PushNotebook(request)

    def start_build(self, parent: str, **fields: Any) -> build_pb2.Build:
        return self.builds.CreateBuild(build_pb2.CreateBuildRequest(parent=parent, **fields))

    def build(self, parent: str) -> build_pb2.Build:
        """Builds and waits for the end."""
        return self.wait_build(self.start_build(parent).name)

    def get_build(self, name: str) -> build_pb2.Build:
        return self.builds.GetBuild(build_pb2.GetBuildRequest(name=name))

    def wait_build(self, name: str) -> build_pb2.Build:
        return until(
            lambda: self.get_build(name), lambda build: build.state != build_pb2.Build.STATE_RUNNING, seconds=180
        )

    def profile(self, name: str) -> HttpBody:
        return self.profiles.GetProfile(profile_pb2.GetProfileRequest(name=name))

    def start_worker(self) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in (".", "gen", "libs/connector")),
            "TRAITMESH_DATABASE_URL": self.settings.database_url.get_secret_value(),
            "TRAITMESH_SIGNING_KEY": SIGNING_KEY,
            "TRAITMESH_REGISTRY_ADDRESS": self.settings.registry_address,
            "TRAITMESH_AUDIENCE_ADDRESS": self.settings.audience_address,
            "TRAITMESH_WAREHOUSE_URL": self.settings.warehouse_url.get_secret_value(),
            "TRAITMESH_DATA_DIR": str(self.settings.data_dir),
            "TRAITMESH_CONNECTORS_DIR": str(self.settings.connectors_dir),
            "TRAITMESH_DBT": str(self.settings.dbt),
            "TRAITMESH_NOTEBOOK_PYTHON": str(self.settings.notebook_python),
            "TRAITMESH_NOTEBOOK_SECONDS": str(self.settings.notebook_seconds),
            "TRAITMESH_TEMPORAL_ADDRESS": self.temporal.address,
            "TRAITMESH_DRAIN_SECONDS": "1",
        }
        command = [sys.executable, "-m", "services.model_builder", "worker"]
        log = (self.folder / "worker.log").open("ab")
        self.worker = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=log)

    def kill_worker(self) -> None:
        """Ends the worker process as an accident would."""
        assert self.worker is not None
        assert self.worker.poll() is None
        self.worker.send_signal(signal.SIGKILL)
        self.worker.wait()

    def stop_worker(self) -> None:
        if self.worker is not None and self.worker.poll() is None:
            self.worker.terminate()
            self.worker.wait(30)


def until(ask: Callable[[], T], done: Callable[[T], bool], seconds: float) -> T:
    """Asks until the answer is the one that is waited for; fails with the last answer after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        answer = ask()
        if done(answer):
            return answer
        assert time.monotonic() < end, answer
        time.sleep(0.1)


@pytest.fixture(scope="session")
def world(postgres: str, temporal_address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("model")
    database_url = _database(postgres)
    with ExitStack() as stack:
        registry_address = _serve_registry(stack, database_url)
        settings = _settings(folder, database_url, registry_address)
        temporal = TemporalSettings(address=temporal_address)
        engine = database.connect(settings, SCHEMA)
        stack.callback(engine.dispose)
        database.upgrade(engine, SCHEMA, model_builder.ALEMBIC)
        with auth.acting_as(ADMIN):
            address = _serve(stack, model_builder.build_servicers(engine, settings, temporal), settings)
            audience_address = _serve_audiences(stack, settings, address)
            made = World(
                settings=settings.model_copy(update={"audience_address": audience_address}),
                temporal=temporal,
                engine=engine,
                channel=_open(stack, address, settings),
                registry=_open(stack, registry_address, settings),
                audience=_open(stack, audience_address, settings),
                folder=folder,
            )
            stack.callback(made.stop_worker)
            made.start_worker()
            yield made


@pytest.fixture(autouse=True)
def as_admin() -> Iterator[None]:
    with auth.acting_as(ADMIN):
        yield


def _database(postgres: str) -> str:
    name = f"model_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    return postgres.replace("/postgres?", f"/{name}?")


def _serve(stack: ExitStack, servicers: server.Servicers, settings: Settings) -> str:
    grpc_server, port = server.build_server("127.0.0.1:0", servicers, settings)
    grpc_server.start()
    stack.callback(lambda: grpc_server.stop(0).wait())
    return f"127.0.0.1:{port}"


def _open(stack: ExitStack, address: str, settings: Settings) -> grpc.Channel:
    channel = client.open_channel(address, settings, identity=auth.current_caller)
    stack.callback(channel.close)
    return channel


def _serve_audiences(stack: ExitStack, settings: ModelSettings, model_address: str) -> str:
    its = AudienceSettings(
        database_url=settings.database_url,
        signing_key=settings.signing_key,
        registry_address=settings.registry_address,
        model_address=model_address,
        warehouse_url=settings.warehouse_url,
    )
    engine = database.connect(its, audience_store.SCHEMA)
    stack.callback(engine.dispose)
    database.upgrade(engine, audience_store.SCHEMA, Path(audience_store.__file__).parent / "alembic")
    return _serve(stack, audience.build_servicers(engine, its), its)


def _serve_registry(stack: ExitStack, database_url: str) -> str:
    settings = Settings(database_url=SecretStr(database_url), signing_key=SecretStr(SIGNING_KEY))
    engine = database.connect(settings, registry_store.SCHEMA)
    stack.callback(engine.dispose)
    database.upgrade(engine, registry_store.SCHEMA, Path(registry_store.__file__).parent / "alembic")
    return _serve(stack, trait_registry.build_servicers(engine), settings)


def _settings(folder: Path, database_url: str, registry_address: str) -> ModelSettings:
    (folder / "lake").mkdir()
    # The environment of notebooks has the client installed; here its sources stand in.
    python = folder / "notebook-python"
    interpreter = os.environ.get("TRAITMESH_NOTEBOOK_PYTHON", ROOT / ".envs/notebook/bin/python")
    python.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT}/clients/python exec {interpreter} "$@"\n')
    python.chmod(0o755)
    return ModelSettings(
        database_url=SecretStr(database_url),
        signing_key=SecretStr(SIGNING_KEY),
        registry_address=registry_address,
        warehouse_url=SecretStr(f"ducklake:{database_url}&data_path={folder / 'lake'}"),
        data_dir=folder / "data",
        connectors_dir=Path(os.environ.get("TRAITMESH_CONNECTORS_DIR", ROOT / ".envs/connectors")),
        dbt=Path(os.environ.get("TRAITMESH_DBT", ROOT / ".envs/dbt/bin/dbt")),
        notebook_python=python,
        notebook_seconds=60,
    )


def files_of(folder: Path) -> dict[str, str | bytes]:
    """The files of a folder, by path."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def archive_of(files: Mapping[str, str | bytes]) -> bytes:
    """A gzipped tar of these files, the same bytes each time."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, given in files.items():
            content = given.encode() if isinstance(given, str) else given
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return gzip.compress(packed.getvalue(), mtime=0)
