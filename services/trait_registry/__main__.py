"""The trait registry: `python -m services.trait_registry serve`.

A call comes in through `libs.kit.server`, reaches a servicer, is checked against `domain`, and ends in a row of
`store`. Nothing calls out from here: every other service calls the registry.
"""

from functools import partial
from pathlib import Path

import click
from sqlalchemy import Engine
from traitmesh_proto.registry.v1 import lineage_pb2_grpc, trait_pb2_grpc, workspace_pb2_grpc

from libs.kit import database, logs, server, telemetry
from services.trait_registry import servicer, store
from services.trait_registry.config import RegistrySettings


def build_servicers(engine: Engine) -> server.Servicers:
    """The services of this process by full name."""
    return {
        "traitmesh.registry.v1.WorkspaceService": partial(
            workspace_pb2_grpc.add_WorkspaceServiceServicer_to_server, servicer.WorkspaceServicer(engine)
        ),
        "traitmesh.registry.v1.TraitService": partial(
            trait_pb2_grpc.add_TraitServiceServicer_to_server, servicer.TraitServicer(engine)
        ),
        "traitmesh.registry.v1.LineageService": partial(
            lineage_pb2_grpc.add_LineageServiceServicer_to_server, servicer.LineageServicer(engine)
        ),
    }


@click.group()
def main() -> None:
    """What a trait is: traits, revisions, model revisions, lineage."""


@main.command()
def serve() -> None:
    """Migrates the schema `registry`, then answers gRPC calls until SIGTERM."""
    settings = RegistrySettings()
    logs.configure("trait_registry", settings.log_level)
    telemetry.configure("trait_registry", settings.traces)
    engine = database.connect(settings, store.SCHEMA)
    database.upgrade(engine, store.SCHEMA, Path(__file__).parent / "alembic")

    server.serve(settings.registry_address, build_servicers(engine), settings)


if __name__ == "__main__":
    main()
