"""The model builder: `python -m services.model_builder serve` and `... worker`.

A server keeps what is pushed and starts workflows; a worker does them. Events come in by `servicer.loads`, through
`loading`, into the warehouse. A project or notebook is pushed, declares its traits in the registry, and waits for a
build. A build (`workflows`, then `activities.build`) runs `dbt_project` and `notebooks`, puts the traits together and
publishes them (`publishing`), records where they come from (`lineage`), and ends in the profiles that are served.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
from sqlalchemy import Engine
from traitmesh_proto.audience.v1.audience_pb2_grpc import AudienceServiceStub
from traitmesh_proto.model.v1 import (
    build_pb2_grpc,
    load_pb2_grpc,
    notebook_pb2_grpc,
    profile_pb2_grpc,
    project_pb2_grpc,
)
from traitmesh_proto.registry.v1.lineage_pb2_grpc import LineageServiceStub
from traitmesh_proto.registry.v1.trait_pb2_grpc import TraitServiceStub
from traitmesh_proto.registry.v1.workspace_pb2_grpc import WorkspaceServiceStub

from libs.kit import database, logs, server, telemetry
from libs.kit.client import open_channel
from libs.kit.settings import TemporalSettings
from libs.kit.temporal import Queue, WorkflowStarter, run_workers
from libs.warehouse import Limits
from services.model_builder.activities.build import BuildActivities
from services.model_builder.activities.load import LoadActivities
from services.model_builder.activities.project import ProjectActivities
from services.model_builder.config import ModelSettings
from services.model_builder.dbt_project.command import Dbt
from services.model_builder.notebooks.running import Jupyter
from services.model_builder.servicer.builds import BuildServicer
from services.model_builder.servicer.loads import LoadServicer
from services.model_builder.servicer.notebooks import NotebookServicer
from services.model_builder.servicer.profiles import ProfileServicer
from services.model_builder.servicer.projects import ProjectServicer
from services.model_builder.store.tables import SCHEMA
from services.model_builder.warehouses import Warehouses
from services.model_builder.workflows import QUEUE, BuildWorkflow, LoadWorkflow, ParseWorkflow

ALEMBIC = Path(__file__).parent / "alembic"


def build_servicers(engine: Engine, settings: ModelSettings, temporal: TemporalSettings) -> server.Servicers:
    """The services of this process by full name."""
    registry = open_channel(settings.registry_address, settings)
    traits = TraitServiceStub(registry)
    warehouses = _warehouses(settings, WorkspaceServiceStub(registry))
    starter = WorkflowStarter(temporal)
    uploads = settings.data_dir / "uploads"
    return {
        "traitmesh.model.v1.LoadService": partial(
            load_pb2_grpc.add_LoadServiceServicer_to_server,
            LoadServicer(engine, warehouses, starter, uploads, settings.max_upload_bytes),
        ),
        "traitmesh.model.v1.ProjectService": partial(
            project_pb2_grpc.add_ProjectServiceServicer_to_server,
            ProjectServicer(engine, warehouses, starter, traits),
        ),
        "traitmesh.model.v1.NotebookService": partial(
            notebook_pb2_grpc.add_NotebookServiceServicer_to_server, NotebookServicer(engine, traits)
        ),
        "traitmesh.model.v1.BuildService": partial(
            build_pb2_grpc.add_BuildServiceServicer_to_server, BuildServicer(engine, warehouses, starter, traits)
        ),
        "traitmesh.model.v1.ProfileService": partial(
            profile_pb2_grpc.add_ProfileServiceServicer_to_server, ProfileServicer(engine)
        ),
    }


def build_queue(engine: Engine, settings: ModelSettings) -> Queue:
    """The task queue of this service, with all that is done on it."""
    registry = open_channel(settings.registry_address, settings)
    audiences = open_channel(settings.audience_address, settings)
    warehouses = _warehouses(settings, WorkspaceServiceStub(registry))
    dbt = Dbt(settings.dbt, settings.dbt_seconds, settings.data_dir / "dbt")
    loading = LoadActivities(engine, warehouses, settings.data_dir / "uploads", settings.connectors_dir)
    parsing = ProjectActivities(engine, warehouses, dbt)
    building = BuildActivities(
        engine=engine,
        warehouses=warehouses,
        audiences=AudienceServiceStub(audiences),
        lineage=LineageServiceStub(registry),
        dbt=dbt,
        jupyter=Jupyter(settings.notebook_python, settings.notebook_seconds),
        folder=settings.data_dir / "builds",
    )
    activities: list[Callable[..., Any]] = [
        loading.load_events,
        loading.fail_load,
        parsing.parse_project,
        building.plan_build,
        building.build_project,
        building.run_notebook,
        building.stage_traits,
        building.decide_audiences,
        building.publish,
        building.record_lineage,
        building.serve_profiles,
        building.fail_build,
        building.clean_up,
    ]
    return Queue(QUEUE, [LoadWorkflow, ParseWorkflow, BuildWorkflow], activities)


def _warehouses(settings: ModelSettings, workspaces: WorkspaceServiceStub) -> Warehouses:
    limits = Limits(memory=settings.warehouse_memory, threads=settings.warehouse_threads)
    return Warehouses(settings.warehouse_url.get_secret_value(), limits, workspaces)


def _start(service: str) -> tuple[ModelSettings, Engine]:
    settings = ModelSettings()
    logs.configure(service, settings.log_level)
    telemetry.configure(service, settings.traces)
    engine = database.connect(settings, SCHEMA)
    database.upgrade(engine, SCHEMA, ALEMBIC)
    return settings, engine


@click.group()
def main() -> None:
    """Makes the model: loads, dbt projects, notebooks, builds, profiles."""


@main.command()
def serve() -> None:
    """Migrates the schema `model`, then answers gRPC calls until SIGTERM."""
    settings, engine = _start("model_builder")
    server.serve(settings.model_address, build_servicers(engine, settings, TemporalSettings()), settings)


@main.command()
def worker() -> None:
    """Migrates the schema `model`, then works on the task queue `model_builder` until SIGTERM."""
    settings, engine = _start("model_builder_worker")
    queues = [build_queue(engine, settings)]
    run_workers(TemporalSettings(), queues, settings.worker_threads, settings.drain_seconds)


if __name__ == "__main__":
    main()
