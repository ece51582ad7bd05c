"""The registry's gRPC methods: a request becomes domain values, the store answers, and the rows become messages."""

import zoneinfo
from collections.abc import Iterable
from datetime import datetime

import grpc
from sqlalchemy import Connection, Engine, Row
from traitmesh_proto.registry.v1 import (
    lineage_pb2,
    lineage_pb2_grpc,
    trait_pb2,
    trait_pb2_grpc,
    workspace_pb2,
    workspace_pb2_grpc,
)

from libs.kit import errors, names, paging
from libs.kit.auth import EVERY_WORKSPACE, current_caller
from libs.kit.messages import enum_value, timestamp
from libs.kit.requests import mutate
from services.trait_registry import domain, store

TRAIT = "workspaces/{workspace}/traits/{trait}"
MODEL_REVISION = "workspaces/{workspace}/modelRevisions/{model_revision}"

MAX_LINEAGE_EDGES = 5000


class WorkspaceServicer(workspace_pb2_grpc.WorkspaceServiceServicer):
    """Workspaces, in PostgreSQL."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def CreateWorkspace(
        self, request: workspace_pb2.CreateWorkspaceRequest, context: grpc.ServicerContext
    ) -> workspace_pb2.Workspace:
        workspace = names.check_id(request.workspace_id, "workspace_id")
        time_zone = _check_time_zone(request.workspace.time_zone or "UTC")
        display_name = request.workspace.display_name or workspace
        name = f"workspaces/{workspace}"

        def create(tx: Connection) -> workspace_pb2.Workspace:
            create_time = store.insert_workspace(tx, workspace, display_name, time_zone)
            if create_time is None:
                raise errors.AlreadyExists(name)
            return workspace_pb2.Workspace(
                name=name,
                display_name=display_name,
                time_zone=time_zone,
                create_time=timestamp(create_time),
            )

        return mutate(self._engine, store.requests, workspace, request, workspace_pb2.Workspace, create)

    def GetWorkspace(
        self, request: workspace_pb2.GetWorkspaceRequest, context: grpc.ServicerContext
    ) -> workspace_pb2.Workspace:
        (workspace,) = names.parse(names.WORKSPACE, request.name)
        with self._engine.begin() as tx:
            return _workspace_message(errors.found(store.find_workspace(tx, workspace), request.name))

    def ListWorkspaces(
        self, request: workspace_pb2.ListWorkspacesRequest, context: grpc.ServicerContext
    ) -> workspace_pb2.ListWorkspacesResponse:
        caller = current_caller()
        only = None if caller.workspace == EVERY_WORKSPACE else caller.workspace
        page = paging.page(request, f"workspaces for {caller.workspace}")
        with self._engine.begin() as tx:
            rows, token = store.list_workspaces(tx, only, page)
        return workspace_pb2.ListWorkspacesResponse(workspaces=map(_workspace_message, rows), next_page_token=token)


class TraitServicer(trait_pb2_grpc.TraitServiceServicer):
    """Traits and model revisions, in PostgreSQL."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def GetTrait(self, request: trait_pb2.GetTraitRequest, context: grpc.ServicerContext) -> trait_pb2.Trait:
        workspace, trait = names.parse(TRAIT, request.name)
        with self._engine.begin() as tx:
            stored = store.find_trait(tx, workspace, store.latest_model_revision(tx, workspace), trait)
        return _trait_message(workspace, errors.found(stored, request.name))

    def ListTraits(
        self, request: trait_pb2.ListTraitsRequest, context: grpc.ServicerContext
    ) -> trait_pb2.ListTraitsResponse:
        (workspace,) = names.parse(names.WORKSPACE, request.parent, "parent")
        page = paging.page(request, f"{request.parent}/traits")
        with self._engine.begin() as tx:
            traits, token = store.list_traits(tx, workspace, store.latest_model_revision(tx, workspace), page)
        return trait_pb2.ListTraitsResponse(
            traits=[_trait_message(workspace, stored) for stored in traits], next_page_token=token
        )

    def GetModelRevision(
        self, request: trait_pb2.GetModelRevisionRequest, context: grpc.ServicerContext
    ) -> trait_pb2.ModelRevision:
        workspace, revision = names.parse(MODEL_REVISION, request.name)
        with self._engine.begin() as tx:
            if revision == "latest":
                number = store.latest_model_revision(tx, workspace)
            else:
                number = names.number(revision, request.name)
            return _read_model_revision(tx, workspace, number, request.name)

    def ListModelRevisions(
        self, request: trait_pb2.ListModelRevisionsRequest, context: grpc.ServicerContext
    ) -> trait_pb2.ListModelRevisionsResponse:
        (workspace,) = names.parse(names.WORKSPACE, request.parent, "parent")
        page = paging.page(request, f"{request.parent}/modelRevisions")
        with self._engine.begin() as tx:
            rows, token = store.list_model_revisions(tx, workspace, page)
            revisions = [_model_revision_message(tx, workspace, row) for row in rows]
        return trait_pb2.ListModelRevisionsResponse(model_revisions=revisions, next_page_token=token)

    def ApplyTraits(
        self, request: trait_pb2.ApplyTraitsRequest, context: grpc.ServicerContext
    ) -> trait_pb2.ApplyTraitsResponse:
        (workspace,) = names.parse(names.WORKSPACE, request.parent, "parent")
        declared = _declared_traits(workspace, request)

        def apply(tx: Connection) -> trait_pb2.ApplyTraitsResponse:
            errors.found(store.find_workspace(tx, workspace), request.parent)
            return _apply(tx, workspace, request, declared)

        return mutate(self._engine, store.requests, workspace, request, trait_pb2.ApplyTraitsResponse, apply)


def _apply(
    tx: Connection,
    workspace: str,
    request: trait_pb2.ApplyTraitsRequest,
    declared: dict[str, domain.Definition],
) -> trait_pb2.ApplyTraitsResponse:
    store.lock_model(tx, workspace)
    latest = store.latest_model_revision(tx, workspace)
    current = [stored.revision for stored in store.traits_of_model_revision(tx, workspace, latest)]
    try:
        traits, changes = domain.next_model(current, request.origin, declared, store.newest_numbers(tx, workspace))
    except domain.OwnedByAnotherOriginError as error:
        raise errors.invalid("traits", str(error)) from error
    if changes:
        latest += 1
        store.insert_model_revision(tx, workspace, latest, traits, changes)
    response = trait_pb2.ApplyTraitsResponse(changes=_change_messages(changes))
    if latest:
        name = f"workspaces/{workspace}/modelRevisions/{latest}"
        response.model_revision.CopyFrom(_read_model_revision(tx, workspace, latest, name))
    return response


class LineageServicer(lineage_pb2_grpc.LineageServiceServicer):
    """Lineage edges, in PostgreSQL."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def RecordLineage(
        self, request: lineage_pb2.RecordLineageRequest, context: grpc.ServicerContext
    ) -> lineage_pb2.RecordLineageResponse:
        (workspace,) = names.parse(names.WORKSPACE, request.parent, "parent")
        edges = [_edge(edge) for edge in request.edges]
        with self._engine.begin() as tx:
            store.replace_lineage(tx, workspace, request.job, request.run, edges)
        return lineage_pb2.RecordLineageResponse(edge_count=len(edges))

    def GetLineage(self, request: lineage_pb2.GetLineageRequest, context: grpc.ServicerContext) -> lineage_pb2.Lineage:
        (workspace,) = names.parse(names.WORKSPACE, request.parent, "parent")
        root = domain.lineage_root(request.root)
        if root is None:
            raise errors.invalid("root", "must be traits/{trait} or schema.table.column")
        if not 0 <= request.depth <= 20:
            raise errors.invalid("depth", "must be 0 (for 10) to 20")
        direction = request.direction or lineage_pb2.DIRECTION_BOTH
        influences = list(domain.Influence)[: 1 if request.direct_only else None]
        answer = lineage_pb2.Lineage(root=_column_message(root))
        with self._engine.begin() as tx:
            if direction != lineage_pb2.DIRECTION_DOWNSTREAM:
                _walk(tx, workspace, root, "input", request.depth or 10, influences, answer)
            if direction != lineage_pb2.DIRECTION_UPSTREAM:
                _walk(tx, workspace, root, "output", request.depth or 10, influences, answer)
        return answer


def _walk(
    tx: Connection,
    workspace: str,
    root: domain.Column,
    towards: str,
    depth: int,
    influences: list[domain.Influence],
    answer: lineage_pb2.Lineage,
) -> None:
    """Follows edges from the root, one step at a time, and adds them to the answer."""
    step = store.edges_into if towards == "input" else store.edges_from
    seen = {root}
    frontier = [root]
    for _ in range(depth):
        room = MAX_LINEAGE_EDGES - len(answer.edges)
        found = step(tx, workspace, frontier, influences, room + 1)
        answer.edges.extend(_edge_message(stored) for stored in found[:room])
        if len(found) > room:
            answer.truncated = True
            return
        ends = {getattr(stored.edge, towards) for stored in found}
        frontier = sorted(ends - seen, key=lambda column: (column.dataset, column.field))
        seen |= ends
        if not frontier:
            return
    answer.truncated = bool(step(tx, workspace, frontier, influences, 1))


def _check_time_zone(name: str) -> str:
    if name in zoneinfo.available_timezones():
        return name
    raise errors.invalid("workspace.time_zone", "must be an IANA time zone, such as Europe/Berlin")


def _declared_traits(workspace: str, request: trait_pb2.ApplyTraitsRequest) -> dict[str, domain.Definition]:
    """The request's traits by id, or one InvalidArgument with every field that is wrong."""
    declared: dict[str, domain.Definition] = {}
    violations: list[errors.Violation] = []
    for index, message in enumerate(request.traits):
        try:
            trait, definition = _declared_trait(workspace, request.origin, message, f"traits[{index}]")
            if trait in declared:
                raise errors.invalid(f"traits[{index}].name", f"the trait {trait} is declared twice")
            declared[trait] = definition
        except errors.InvalidArgument as error:
            violations += error.violations
    if violations:
        raise errors.InvalidArgument(*violations)
    return declared


def _declared_trait(workspace: str, origin: str, message: trait_pb2.Trait, field: str) -> tuple[str, domain.Definition]:
    trait_workspace, trait = names.parse(TRAIT, message.name, f"{field}.name")
    if trait_workspace != workspace:
        raise errors.NotFound(message.name)
    names.check_id(trait, f"{field}.name", names.COLUMN_ID)
    if trait in domain.RESERVED_IDS:
        raise errors.invalid(f"{field}.name", f"{trait} is a column of every model; choose another id")
    if not message.kind or not message.type:
        raise errors.invalid(field, "kind and type must be given")
    return trait, domain.Definition(
        display_name=message.display_name or trait,
        description=message.description,
        kind=domain.TraitKind(enum_value(trait_pb2.TraitKind.Name(message.kind), "TRAIT_KIND")),
        type=domain.TraitType(enum_value(trait_pb2.TraitType.Name(message.type), "TRAIT_TYPE")),
        unit=message.unit,
        origin=origin,
        column=message.column,
    )


def _read_model_revision(tx: Connection, workspace: str, number: int, name: str) -> trait_pb2.ModelRevision:
    row = errors.found(store.find_model_revision(tx, workspace, number), name)
    return _model_revision_message(tx, workspace, row)


def _model_revision_message(
    tx: Connection, workspace: str, row: Row[tuple[str, int, list[dict[str, str]], datetime]]
) -> trait_pb2.ModelRevision:
    traits = store.traits_of_model_revision(tx, workspace, row.number)
    changes = [domain.TraitChange(c["trait"], domain.Change(c["change"])) for c in row.changes]
    return trait_pb2.ModelRevision(
        name=f"workspaces/{workspace}/modelRevisions/{row.number}",
        number=row.number,
        traits=[_trait_message(workspace, stored) for stored in traits],
        changes=_change_messages(changes),
        create_time=timestamp(row.create_time),
    )


def _change_messages(changes: Iterable[domain.TraitChange]) -> list[trait_pb2.TraitChange]:
    return [
        trait_pb2.TraitChange(
            trait=change.trait,
            change=trait_pb2.TraitChange.Change.Value(f"CHANGE_{change.change.upper()}"),
        )
        for change in changes
    ]


def _trait_message(workspace: str, stored: store.StoredTrait) -> trait_pb2.Trait:
    revision, definition = stored.revision, stored.revision.definition
    return trait_pb2.Trait(
        name=f"workspaces/{workspace}/traits/{revision.trait}",
        display_name=definition.display_name,
        description=definition.description,
        kind=trait_pb2.TraitKind.Value(f"TRAIT_KIND_{definition.kind.upper()}"),
        type=trait_pb2.TraitType.Value(f"TRAIT_TYPE_{definition.type.upper()}"),
        unit=definition.unit,
        origin=definition.origin,
        column=definition.column,
        revision=revision.number,
        revision_time=timestamp(stored.create_time),
    )


def _workspace_message(row: Row[tuple[str, str, str, datetime]]) -> workspace_pb2.Workspace:
    return workspace_pb2.Workspace(
        name=f"workspaces/{row.workspace}",
        display_name=row.display_name,
        time_zone=row.time_zone,
        create_time=timestamp(row.create_time),
    )


def _edge(message: lineage_pb2.LineageEdge) -> domain.LineageEdge:
    direct = message.influence == lineage_pb2.INFLUENCE_DIRECT
    return domain.LineageEdge(
        input=domain.Column(message.input.namespace, message.input.dataset, message.input.field),
        output=domain.Column(message.output.namespace, message.output.dataset, message.output.field),
        influence=domain.Influence.DIRECT if direct else domain.Influence.INDIRECT,
        partial=message.partial,
    )


def _edge_message(stored: store.StoredEdge) -> lineage_pb2.LineageEdge:
    return lineage_pb2.LineageEdge(
        input=_column_message(stored.edge.input),
        output=_column_message(stored.edge.output),
        influence=lineage_pb2.Influence.Value(f"INFLUENCE_{stored.edge.influence.upper()}"),
        job=stored.job,
        run=stored.run,
        record_time=timestamp(stored.record_time),
        partial=stored.edge.partial,
    )


def _column_message(column: domain.Column) -> lineage_pb2.Column:
    return lineage_pb2.Column(namespace=column.namespace, dataset=column.dataset, field=column.field)
