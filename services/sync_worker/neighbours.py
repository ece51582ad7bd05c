"""What other services know and are told: the build that serves, the model's traits, lineage."""

from collections.abc import Mapping
from typing import NamedTuple

import grpc
from traitmesh_proto.model.v1 import build_pb2, build_pb2_grpc
from traitmesh_proto.registry.v1 import (
    lineage_pb2,
    lineage_pb2_grpc,
    trait_pb2,
    trait_pb2_grpc,
    workspace_pb2,
    workspace_pb2_grpc,
)

from libs.kit import errors
from services.sync_worker.domain import MODEL_TABLE, RunName, Sync

WAREHOUSE = "warehouse"


class PinnedBuild(NamedTuple):
    """A build's name, and the warehouse's snapshot that holds it; None where the engine has none."""

    name: str
    snapshot: int | None


class Neighbours:
    """The trait registry and the model builder, called over these channels for the current caller."""

    def __init__(self, registry: grpc.Channel, model: grpc.Channel) -> None:
        self._workspaces = workspace_pb2_grpc.WorkspaceServiceStub(registry)
        self._traits = trait_pb2_grpc.TraitServiceStub(registry)
        self._lineage = lineage_pb2_grpc.LineageServiceStub(registry)
        self._builds = build_pb2_grpc.BuildServiceStub(model)

    def check_workspace(self, workspace: str) -> None:
        """Raises NotFound if there is no such workspace."""
        self._workspaces.GetWorkspace(workspace_pb2.GetWorkspaceRequest(name=f"workspaces/{workspace}"))

    def latest_build(self, workspace: str) -> PinnedBuild:
        """The build that serves. Raises NotReady before the first."""
        try:
            build = self._builds.GetBuild(build_pb2.GetBuildRequest(name=f"workspaces/{workspace}/builds/latest"))
        except grpc.RpcError as error:
            if errors.from_rpc(error).code is not grpc.StatusCode.NOT_FOUND:
                raise
            raise errors.NotReady(
                "the workspace has no build yet; make the first with `traitmesh build run`",
                resource=f"workspaces/{workspace}/builds/-",
            ) from None
        return PinnedBuild(build.name, build.snapshot or None)

    def model_traits(self, workspace: str) -> Mapping[str, trait_pb2.TraitKind.ValueType]:
        """The traits of the latest model revision by id, with how their values come about; none before the first."""
        name = f"workspaces/{workspace}/modelRevisions/latest"
        try:
            revision = self._traits.GetModelRevision(trait_pb2.GetModelRevisionRequest(name=name))
        except grpc.RpcError as error:
            if errors.from_rpc(error).code is not grpc.StatusCode.NOT_FOUND:
                raise
            return {}
        return {trait.name.rpartition("/")[2]: trait.kind for trait in revision.traits}

    def record_lineage(self, sync: Sync, run: RunName) -> None:
        """Tells which columns of the model reach which fields, and that the audience decides which rows do."""
        edges = [
            _edge(mapping.source, sync, mapping.destination, lineage_pb2.INFLUENCE_DIRECT) for mapping in sync.mappings
        ]
        if sync.audience:
            edges.append(_edge(sync.audience, sync, "", lineage_pb2.INFLUENCE_INDIRECT))
        self._lineage.RecordLineage(
            lineage_pb2.RecordLineageRequest(
                parent=f"workspaces/{sync.workspace}", job=sync.name, run=str(run), edges=edges
            )
        )


def _edge(column: str, sync: Sync, field: str, influence: lineage_pb2.Influence.ValueType) -> lineage_pb2.LineageEdge:
    return lineage_pb2.LineageEdge(
        input=lineage_pb2.Column(namespace=WAREHOUSE, dataset=MODEL_TABLE, field=column),
        output=lineage_pb2.Column(namespace=sync.destination_name, dataset=sync.object, field=field),
        influence=influence,
    )
