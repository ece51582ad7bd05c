"""The sync worker: `python -m services.sync_worker serve` and `... worker`.

A call reaches the `servicer`, which writes destinations and syncs to the `store`, and for a run asks `dispatch` to
start its workflow. In the worker, `workflows` calls `activities`: `plan` compares the model with the `state` and
freezes what differs, `sending` feeds it to the connector's process and puts its answers into the `ledger`, and
finalizing turns the ledger into the next `state`.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
from sqlalchemy import Engine
from traitmesh_proto.sync.v1 import destination_pb2_grpc, run_pb2_grpc, sync_pb2_grpc

from libs.kit import client, database, logs, server, telemetry
from libs.kit.seal import Seal
from libs.kit.settings import TemporalSettings
from libs.kit.temporal import Queue, run_workers
from libs.warehouse import Warehouse, open_warehouse
from services.sync_worker import servicer, store
from services.sync_worker.activities import SyncActivities
from services.sync_worker.config import SyncSettings
from services.sync_worker.connectors import Connectors
from services.sync_worker.dispatch import Dispatch
from services.sync_worker.neighbours import Neighbours
from services.sync_worker.workflows import QUEUE, SyncWorkflow, connector_queue


def build_servicers(engine: Engine, settings: SyncSettings, temporal: TemporalSettings) -> server.Servicers:
    """The services of this process by full name."""
    connectors = Connectors(settings.connectors_dir)
    neighbours = _neighbours(settings)
    seal = Seal(settings.signing_key.get_secret_value())
    dispatch = Dispatch(temporal, settings.send_attempts, settings.retry_seconds)
    warehouse = partial(_warehouse, settings)
    return {
        "traitmesh.sync.v1.DestinationService": partial(
            destination_pb2_grpc.add_DestinationServiceServicer_to_server,
            servicer.DestinationServicer(engine, seal, connectors, neighbours),
        ),
        "traitmesh.sync.v1.SyncService": partial(
            sync_pb2_grpc.add_SyncServiceServicer_to_server,
            servicer.SyncServicer(engine, connectors, neighbours, warehouse, settings.data_dir),
        ),
        "traitmesh.sync.v1.RunService": partial(
            run_pb2_grpc.add_RunServiceServicer_to_server, servicer.RunServicer(engine, dispatch)
        ),
    }


def build_queues(engine: Engine, settings: SyncSettings) -> list[Queue]:
    """The task queues of a worker: one for the workflows, one for each installed connector."""
    connectors = Connectors(settings.connectors_dir)
    activities = SyncActivities(
        engine=engine,
        seal=Seal(settings.signing_key.get_secret_value()),
        connectors=connectors,
        neighbours=_neighbours(settings),
        open_warehouse=partial(_warehouse, settings),
        data_dir=settings.data_dir,
        batch_records=settings.batch_records,
    )
    steps: list[Callable[..., Any]] = [activities.plan_run, activities.note_attention, activities.finalize_run]
    sending = [Queue(connector_queue(connector), [], [activities.send_run]) for connector in connectors.ids()]
    return [Queue(QUEUE, [SyncWorkflow], steps), *sending]


def _neighbours(settings: SyncSettings) -> Neighbours:
    return Neighbours(
        client.open_channel(settings.registry_address, settings), client.open_channel(settings.model_address, settings)
    )


def _warehouse(settings: SyncSettings, workspace: str) -> Warehouse:
    return open_warehouse(settings.warehouse_url.get_secret_value(), workspace, read_only=True)


@click.group()
def main() -> None:
    """Moves the model out: destinations, syncs, runs."""


@main.command()
def serve() -> None:
    """Migrates the schema `sync`, then answers gRPC calls until SIGTERM."""
    settings, engine = _start("sync_worker")
    server.serve(settings.sync_address, build_servicers(engine, settings, TemporalSettings()), settings)


@main.command()
def worker() -> None:
    """Carries out runs until SIGTERM; then ends the batch under way and leaves the rest to others."""
    settings, engine = _start("sync_worker worker")
    run_workers(TemporalSettings(), build_queues(engine, settings), settings.worker_threads, settings.drain_seconds)


def _start(name: str) -> tuple[SyncSettings, Engine]:
    settings = SyncSettings()
    logs.configure(name, settings.log_level)
    telemetry.configure(name, settings.traces)
    engine = database.connect(settings, store.SCHEMA)
    database.upgrade(engine, store.SCHEMA, Path(__file__).parent / "alembic")
    return settings, engine


if __name__ == "__main__":
    main()
