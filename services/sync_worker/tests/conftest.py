"""The stage of a test module: started once, with a database and a warehouse of its own."""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import grpc
import pytest
from traitmesh_proto.model.v1 import build_pb2_grpc

from libs.kit import auth, client, database, server
from libs.kit.settings import Settings, TemporalSettings
from libs.kit.testing import SIGNING_KEY
from libs.warehouse import close_warehouses
from services.sync_worker import store
from services.sync_worker.__main__ import build_servicers
from services.sync_worker.config import SyncSettings
from services.sync_worker.tests.stage import ROOT, Builds, Stage, WorkerProcess, python_environment, worker
from services.trait_registry import store as registry_store
from services.trait_registry.__main__ import build_servicers as build_registry


@pytest.fixture(scope="session")
def connectors_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installed connectors, and destination-moody beside them."""
    folder = tmp_path_factory.mktemp("connectors")
    installed = Path(os.environ.get("TRAITMESH_CONNECTORS_DIR") or ROOT / ".envs" / "connectors")
    for path in installed.glob("destination-*"):
        (folder / path.name).symlink_to(path)
    program = folder / "destination-moody" / "bin" / "destination-moody"
    program.parent.mkdir(parents=True)
    script = Path(__file__).parent / "moody.py"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT}/libs/connector exec {sys.executable} {script} "$@"\n')
    program.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def stage(
    settings: Settings, temporal_address: str, connectors_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """The server over the wire and all that it calls, but no worker."""
    folder = tmp_path_factory.mktemp("stage")
    database_url = settings.database_url.get_secret_value()
    builds = Builds()  # type: ignore[abstract]  # Nothing else of it is called.
    with ExitStack() as stack:
        stack.callback(close_warehouses)
        registry_engine = database.connect(settings, registry_store.SCHEMA)
        scripts = Path(registry_store.__file__).parent / "alembic"
        database.upgrade(registry_engine, registry_store.SCHEMA, scripts)
        registry = _serve(stack, build_registry(registry_engine), settings)
        add_builds = partial(build_pb2_grpc.add_BuildServiceServicer_to_server, builds)
        model = _serve(stack, {"traitmesh.model.v1.BuildService": add_builds}, settings)
        values = {
            "database_url": database_url,
            "signing_key": SIGNING_KEY,
            "registry_address": registry,
            "model_address": model,
            "warehouse_url": f"ducklake:{database_url}&data_path={folder / 'lake'}",
            "data_dir": str(folder / "data"),
            "connectors_dir": str(connectors_dir),
            "send_attempts": "3",
            "retry_seconds": "0.2",
        }
        sync_settings = SyncSettings.model_validate(values)
        engine = database.connect(sync_settings, store.SCHEMA)
        database.upgrade(engine, store.SCHEMA, Path(store.__file__).parent / "alembic")
        temporal = TemporalSettings(address=temporal_address)
        address = _serve(stack, build_servicers(engine, sync_settings, temporal), sync_settings)
        environment = python_environment() | {f"TRAITMESH_{key.upper()}": value for key, value in values.items()}
        stage = Stage(
            settings=sync_settings,
            environment=environment | {"TRAITMESH_TEMPORAL_ADDRESS": temporal_address, "TRAITMESH_DRAIN_SECONDS": "20"},
            channel=_channel(stack, address, settings),
            registry=_channel(stack, registry, settings),
            builds=builds,
            folder=folder,
            temporal=temporal_address,
        )
        stage.add_workspace("tusk")
        yield stage


@pytest.fixture(scope="module")
def working(stage: Stage) -> Iterator[WorkerProcess]:
    """A worker that carries out the stage's runs."""
    with worker(stage) as process:
        yield process


def _serve(stack: ExitStack, servicers: server.Servicers, settings: Settings) -> str:
    grpc_server, port = server.build_server("127.0.0.1:0", servicers, settings)
    grpc_server.start()
    stack.callback(lambda: grpc_server.stop(0).wait())
    return f"127.0.0.1:{port}"


def _channel(stack: ExitStack, address: str, settings: Settings) -> grpc.Channel:
    channel = client.open_channel(address, settings, identity=auth.current_caller)
    stack.callback(channel.close)
    return channel
