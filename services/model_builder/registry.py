"""What the model builder tells the trait registry and asks of it."""

from collections.abc import Iterable, Sequence

from traitmesh_proto.registry.v1 import lineage_pb2, trait_pb2
from traitmesh_proto.registry.v1.lineage_pb2_grpc import LineageServiceStub
from traitmesh_proto.registry.v1.trait_pb2_grpc import TraitServiceStub

from libs.kit.messages import enum_value
from services.model_builder.domain import DeclaredTrait, Trait, TraitKind, TraitType
from services.model_builder.lineage.edges import Edge

_WAREHOUSE = "warehouse"


def apply_traits(
    stub: TraitServiceStub,
    origin: str,
    kind: TraitKind,
    declared: Iterable[DeclaredTrait],
    *,
    validate_only: bool,
) -> trait_pb2.ApplyTraitsResponse:
    """Declares the whole set of traits of one origin, given by its resource name."""
    parent = "/".join(origin.split("/")[:2])
    traits = [
        trait_pb2.Trait(
            name=f"{parent}/traits/{trait.id}",
            display_name=trait.display_name,
            description=trait.description,
            kind=trait_pb2.TraitKind.Value(f"TRAIT_KIND_{kind.upper()}"),
            type=trait_pb2.TraitType.Value(f"TRAIT_TYPE_{trait.type.upper()}"),
            unit=trait.unit,
            column=trait.column,
        )
        for trait in declared
    ]
    request = trait_pb2.ApplyTraitsRequest(parent=parent, origin=origin, traits=traits, validate_only=validate_only)
    response: trait_pb2.ApplyTraitsResponse = stub.ApplyTraits(request)
    return response


def latest_model(stub: TraitServiceStub, workspace: str) -> tuple[int, tuple[Trait, ...]]:
    """Number and traits of the latest model revision. Raises grpc.RpcError, NOT_FOUND before the first."""
    name = f"workspaces/{workspace}/modelRevisions/latest"
    revision = stub.GetModelRevision(trait_pb2.GetModelRevisionRequest(name=name))
    return revision.number, tuple(_trait(message) for message in revision.traits)


def _trait(message: trait_pb2.Trait) -> Trait:
    return Trait(
        id=message.name.rpartition("/")[2],
        kind=TraitKind(enum_value(trait_pb2.TraitKind.Name(message.kind), "TRAIT_KIND")),
        type=TraitType(enum_value(trait_pb2.TraitType.Name(message.type), "TRAIT_TYPE")),
        origin=message.origin,
        column=message.column,
    )


def record_lineage(stub: LineageServiceStub, job: str, run: str, edges: Sequence[Edge]) -> None:
    """Makes the edges all that a job, such as a project, is known to do."""
    parent = "/".join(run.split("/")[:2])
    messages = [_edge(edge) for edge in edges]
    stub.RecordLineage(lineage_pb2.RecordLineageRequest(parent=parent, job=job, run=run, edges=messages))


def _edge(edge: Edge) -> lineage_pb2.LineageEdge:
    direct = lineage_pb2.INFLUENCE_DIRECT if edge.direct else lineage_pb2.INFLUENCE_INDIRECT
    return lineage_pb2.LineageEdge(
        input=lineage_pb2.Column(namespace=_WAREHOUSE, dataset=edge.input_table, field=edge.input_column),
        output=lineage_pb2.Column(namespace=_WAREHOUSE, dataset=edge.output_table, field=edge.output_column),
        influence=direct,
        partial=edge.partial,
    )
