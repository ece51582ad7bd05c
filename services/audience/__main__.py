"""The audience service: `python -m services.audience serve`.

A call comes in through `libs.kit.server` and reaches `servicer`. `rules` reads the message into the segment tree of
`domain`; from there it goes one of two ways. To be kept: a row of `store`, and a trait in the registry. To be answered:
`serving` finds the build that serves, `compiler` makes one SELECT of the tree, the warehouse runs it.
"""

from functools import partial
from pathlib import Path

import click
from sqlalchemy import Engine
from traitmesh_proto.audience.v1 import analytics_pb2_grpc, audience_pb2_grpc
from traitmesh_proto.model.v1 import build_pb2_grpc
from traitmesh_proto.registry.v1 import trait_pb2_grpc

from libs.kit import client, database, logs, server, telemetry
from libs.warehouse import Limits, Warehouse, open_warehouse
from services.audience import servicer, store
from services.audience.config import AudienceSettings
from services.audience.serving import Models


def build_servicers(engine: Engine, settings: AudienceSettings) -> server.Servicers:
    """The services of this process by full name."""
    traits = trait_pb2_grpc.TraitServiceStub(client.open_channel(settings.registry_address, settings))
    builds = build_pb2_grpc.BuildServiceStub(client.open_channel(settings.model_address, settings))
    models = Models(traits, builds, partial(_open_workspace, settings))
    return {
        "traitmesh.audience.v1.AudienceService": partial(
            audience_pb2_grpc.add_AudienceServiceServicer_to_server, servicer.AudienceServicer(engine, models, traits)
        ),
        "traitmesh.audience.v1.AnalyticsService": partial(
            analytics_pb2_grpc.add_AnalyticsServiceServicer_to_server, servicer.AnalyticsServicer(models)
        ),
    }


def _open_workspace(settings: AudienceSettings, workspace: str) -> Warehouse:
    """Opened for reading alone: what the compiler makes can change nothing."""
    limits = Limits(
        memory=settings.warehouse_memory, threads=settings.warehouse_threads, seconds=settings.query_seconds
    )
    return open_warehouse(settings.warehouse_url.get_secret_value(), workspace, limits, read_only=True)


@click.group()
def main() -> None:
    """Who is in: audiences, their sizes, funnels."""


@main.command()
def serve() -> None:
    """Migrates the schema `audience`, then answers gRPC calls until SIGTERM."""
    settings = AudienceSettings()
    logs.configure("audience", settings.log_level)
    telemetry.configure("audience", settings.traces)
    engine = database.connect(settings, store.SCHEMA)
    database.upgrade(engine, store.SCHEMA, Path(__file__).parent / "alembic")

    server.serve(settings.audience_address, build_servicers(engine, settings), settings)


if __name__ == "__main__":
    main()
