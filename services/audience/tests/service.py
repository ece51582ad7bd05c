"""The audience service as its callers meet it: over the wire, with a real registry, PostgreSQL and warehouse.

The model builder is an outside stand-in, over the wire too: it answers `builds/latest` from a row.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pyarrow as pa
from pydantic import SecretStr
from sqlalchemy import Engine
from traitmesh_proto.audience.v1 import analytics_pb2_grpc, audience_pb2_grpc
from traitmesh_proto.model.v1 import build_pb2, build_pb2_grpc
from traitmesh_proto.registry.v1 import trait_pb2, trait_pb2_grpc, workspace_pb2, workspace_pb2_grpc

from libs.kit import auth, client, database, errors, server
from libs.kit.messages import timestamp
from libs.kit.settings import Settings
from libs.kit.testing import SIGNING_KEY
from libs.warehouse import Warehouse, open_warehouse, provision_workspace
from services.audience import __main__ as audience_main
from services.audience import store
from services.audience.config import AudienceSettings
from services.audience.tests import population
from services.trait_registry import __main__ as registry_main
from services.trait_registry import store as registry_store

ADMIN = auth.Caller("root", auth.EVERY_WORKSPACE, "admin")
EDITOR = auth.Caller("ed", "tusk", "editor")
VIEWER = auth.Caller("vera", "tusk", "viewer")
STRANGER = auth.Caller("otto", "other", "editor")
SERVICE = auth.Caller("model_builder", "tusk", "service")

TUSK = "workspaces/tusk"
TRAITS = {
    "country": trait_pb2.TRAIT_TYPE_CATEGORICAL,
    "ltv": trait_pb2.TRAIT_TYPE_CONTINUOUS,
    "payer": trait_pb2.TRAIT_TYPE_BOOLEAN,
}


class StandInBuilds(build_pb2_grpc.BuildServiceServicer):
    """The model builder as far as the audience service sees it."""

    def __init__(self) -> None:
        self.latest: dict[str, build_pb2.Build] = {}

    def GetBuild(self, request: build_pb2.GetBuildRequest, context: grpc.ServicerContext) -> build_pb2.Build:  # noqa: N802
        if request.name not in self.latest:
            raise errors.NotFound(request.name)
        return self.latest[request.name]


@dataclass
class Service:
    """The service under test and what surrounds it; the stubs carry whoever `auth.acting_as` says."""

    engine: Engine
    builds: StandInBuilds
    warehouse: Warehouse
    traits: trait_pb2_grpc.TraitServiceStub
    audiences: audience_pb2_grpc.AudienceServiceStub
    analytics: analytics_pb2_grpc.AnalyticsServiceStub

    def declare(self, origin: str, traits: dict[str, trait_pb2.TraitType.ValueType]) -> str:
        """Makes traits of an origin; returns the model revision that holds them."""
        declared = [
            trait_pb2.Trait(name=f"{TUSK}/traits/{name}", kind=trait_pb2.TRAIT_KIND_COMPUTED, type=kind)
            for name, kind in traits.items()
        ]
        request = trait_pb2.ApplyTraitsRequest(parent=TUSK, origin=f"{TUSK}/{origin}", traits=declared)
        with auth.acting_as(SERVICE):
            return self.traits.ApplyTraits(request).model_revision.name

    def publish(self, model_revision: str) -> build_pb2.Build:
        """Makes what the warehouse holds now the build that serves."""
        snapshot = self.warehouse.snapshot() if self.warehouse.capabilities.snapshots else 0
        build = build_pb2.Build(
            name=f"{TUSK}/builds/1",
            model_revision=model_revision,
            as_of=timestamp(population.AS_OF),
            state=build_pb2.Build.STATE_SUCCEEDED,
            snapshot=snapshot,
        )
        self.builds.latest[f"{TUSK}/builds/latest"] = build
        return build


@contextmanager
def running(url: str, database_url: str) -> Iterator[Service]:
    """The service on a warehouse and a database of its own, with the workspaces `tusk` and `other`."""
    base = Settings(database_url=SecretStr(database_url), signing_key=SecretStr(SIGNING_KEY))
    builds = StandInBuilds()  # type: ignore[abstract]
    add_builds = partial(build_pb2_grpc.add_BuildServiceServicer_to_server, builds)
    with ExitStack() as stack:
        registry_engine = _migrated(base, registry_store.SCHEMA, registry_main)
        registry = stack.enter_context(_served(registry_main.build_servicers(registry_engine), base))
        model = stack.enter_context(_served({"traitmesh.model.v1.BuildService": add_builds}, base))
        settings = AudienceSettings(
            database_url=base.database_url,
            signing_key=base.signing_key,
            registry_address=registry,
            model_address=model,
            warehouse_url=SecretStr(url),
        )
        engine = _migrated(settings, store.SCHEMA, audience_main)
        address = stack.enter_context(_served(audience_main.build_servicers(engine, settings), settings))
        channels = [client.open_channel(each, base, identity=auth.current_caller) for each in (registry, address)]
        for channel in channels:
            stack.callback(channel.close)
        with auth.acting_as(ADMIN):
            for workspace in ("tusk", "other"):
                request = workspace_pb2.CreateWorkspaceRequest(workspace_id=workspace)
                workspace_pb2_grpc.WorkspaceServiceStub(channels[0]).CreateWorkspace(request)
        provision_workspace(url, "tusk")
        yield Service(
            engine,
            builds,
            open_warehouse(url, "tusk"),
            trait_pb2_grpc.TraitServiceStub(channels[0]),
            audience_pb2_grpc.AudienceServiceStub(channels[1]),
            analytics_pb2_grpc.AnalyticsServiceStub(channels[1]),
        )


def _migrated(settings: Settings, schema: str, main: Any) -> Engine:
    engine = database.connect(settings, schema)
    database.upgrade(engine, schema, Path(main.__file__).parent / "alembic")
    return engine


@contextmanager
def _served(servicers: server.Servicers, settings: Settings) -> Iterator[str]:
    """The address of a running server."""
    grpc_server, port = server.build_server("127.0.0.1:0", servicers, settings)
    grpc_server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        grpc_server.stop(0).wait()


def write_model(warehouse: Warehouse, users: Sequence[dict[str, Any]]) -> None:
    """Publishes a user model: `user_id` and traits; ordinals are given in order."""
    rows = [{"user_ord": number, "payer": None, "ltv": None, "country": None} | u for number, u in enumerate(users)]
    kinds = {"user_id": "TEXT", "user_ord": "BIGINT", "country": "TEXT", "ltv": "DOUBLE PRECISION", "payer": "BOOLEAN"}
    schema = pa.schema(
        {
            "user_id": pa.string(),
            "user_ord": pa.int64(),
            "country": pa.string(),
            "ltv": pa.float64(),
            "payer": pa.bool_(),
        }
    )
    columns = ", ".join(f'CAST(NULL AS {kind}) AS "{name}"' for name, kind in kinds.items())
    with warehouse.transaction() as transaction:
        transaction.create_table_as("traitmesh.user_model", f"SELECT {columns} WHERE FALSE")
        transaction.append("traitmesh.user_model", pa.Table.from_pylist(rows, schema))


def write_events(warehouse: Warehouse, events: Sequence[tuple[int, str, timedelta]]) -> None:
    """Loads events: the user's ordinal, the name, and the time before as_of."""
    rows = [
        {
            "event_id": f"{user}-{name}-{before}",
            "name": name,
            "user_ord": user,
            "time": (population.AS_OF - before).replace(tzinfo=None),
        }
        for user, name, before in events
    ]
    with warehouse.transaction() as transaction:
        transaction.append("traitmesh.events", pa.Table.from_pylist(rows, population.EVENT_SCHEMA))
