"""The build that serves a workspace: what its model holds, and asking the warehouse about it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import grpc
from traitmesh_proto.model.v1 import build_pb2, build_pb2_grpc
from traitmesh_proto.registry.v1 import trait_pb2, trait_pb2_grpc

from libs import warehouse as warehouses
from libs.kit import errors
from libs.kit.messages import enum_value, moment
from libs.warehouse import Warehouse
from services.audience.compiler.target import Target
from services.audience.domain import TraitType

EVENTS = "traitmesh.events"
USER_MODEL = "traitmesh.user_model"


@dataclass(frozen=True)
class ServingModel:
    """A published build, read as it was published where the engine keeps snapshots."""

    build: str
    as_of: datetime
    traits: dict[str, TraitType]
    target: Target
    warehouse: Warehouse

    def ask(self, sql: str) -> list[dict[str, Any]]:
        """The rows of one SELECT. Raises LimitExceeded, NotReady or Unavailable."""
        with faults():
            rows: list[dict[str, Any]] = self.warehouse.query(sql).read_all().to_pylist()
        return rows


class Models:
    """Finds what a workspace's model is: as it is declared, and as it serves."""

    def __init__(
        self,
        traits: trait_pb2_grpc.TraitServiceStub,
        builds: build_pb2_grpc.BuildServiceStub,
        open_workspace: Callable[[str], Warehouse],
    ) -> None:
        self._traits = traits
        self._builds = builds
        self._open = open_workspace

    def declared(self, workspace: str) -> dict[str, TraitType]:
        """The traits of the latest model revision, by id; none before the first."""
        try:
            return self.revision(f"workspaces/{workspace}/modelRevisions/latest")
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return {}
            raise

    def revision(self, name: str) -> dict[str, TraitType]:
        """The traits of one model revision, by id. Raises grpc.RpcError, NOT_FOUND if there is none."""
        revision = self._traits.GetModelRevision(trait_pb2.GetModelRevisionRequest(name=name))
        return {
            trait.name.rpartition("/")[2]: TraitType(enum_value(trait_pb2.TraitType.Name(trait.type), "TRAIT_TYPE"))
            for trait in revision.traits
        }

    def serving(self, workspace: str) -> ServingModel:
        """The build that serves. Raises NotReady before the first."""
        name = f"workspaces/{workspace}/builds/latest"
        try:
            build = self._builds.GetBuild(build_pb2.GetBuildRequest(name=name))
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                raise errors.NotReady("there is no model yet; run `traitmesh build run`", resource=name) from error
            raise
        warehouse = self.warehouse(workspace)
        at = build.snapshot if warehouse.capabilities.snapshots else None
        as_of = moment(build.as_of)
        users, events = warehouse.table(USER_MODEL, at), warehouse.table(EVENTS, at)
        target = Target.of(warehouse.dialect, users, events, as_of)
        return ServingModel(build.name, as_of, self.revision(build.model_revision), target, warehouse)

    def warehouse(self, workspace: str) -> Warehouse:
        """The workspace's warehouse."""
        with faults():
            return self._open(workspace)


@contextmanager
def faults() -> Iterator[None]:
    """Turns what the warehouse raises into what callers are told. A QueryError passes: that SQL is ours, a bug."""
    try:
        yield
    except warehouses.LimitExceeded as error:
        limit = {"time": "query_seconds", "memory": "warehouse_memory"}[error.resource]
        raise errors.LimitExceeded(f"{error}; ask for less", limit=limit) from error
    except (warehouses.NotFound, warehouses.SnapshotExpired) as error:
        raise errors.NotReady(f"{error}; run `traitmesh build run`") from error
    except (warehouses.Unavailable, warehouses.Conflict) as error:
        raise errors.Unavailable("the warehouse does not answer; try again", part="warehouse") from error
