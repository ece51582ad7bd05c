"""Builds."""

# ruff: noqa: S608  (identifiers are quoted, values are parameters)

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import grpc
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.duration_pb2 import Duration
from sqlalchemy import Connection, Engine
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError, RPCStatusCode
from traitmesh_proto.model.v1 import build_pb2, build_pb2_grpc
from traitmesh_proto.registry.v1.trait_pb2_grpc import TraitServiceStub

from libs.kit import errors, names, paging
from libs.kit.messages import moment, timestamp
from libs.kit.requests import mutate
from libs.kit.temporal import WorkflowStarter, search_attributes
from services.model_builder import registry
from services.model_builder.domain import Blueprint, Failure, State, Trait, build_name
from services.model_builder.publishing import reading
from services.model_builder.store import builds, notebooks, projects, tables
from services.model_builder.store.builds import BuildRow
from services.model_builder.warehouses import Warehouses, as_faults
from services.model_builder.workflows import QUEUE, BuildWorkflow

_BUILD = "workspaces/{workspace}/builds/{build}"

ARROW_STREAM = "application/vnd.apache.arrow.stream"
PIECE_BYTES = 1 << 20

#: How long a build may be without its workflow: it is started just before the build's row is committed.
STARTING = timedelta(seconds=60)


@dataclass(frozen=True)
class BuildServicer(build_pb2_grpc.BuildServiceServicer):
    """Builds: their state in PostgreSQL, their rows in the warehouse, made by workflows."""

    engine: Engine
    warehouses: Warehouses
    temporal: WorkflowStarter
    traits: TraitServiceStub

    def CreateBuild(self, request: build_pb2.CreateBuildRequest, context: grpc.ServicerContext) -> build_pb2.Build:
        (workspace,) = names.parse(names.WORKSPACE, request.parent, "parent")
        as_of = _given_as_of(request)
        with as_faults():
            newest_event = self._newest_event(workspace)
        return mutate(
            self.engine,
            tables.requests,
            workspace,
            request,
            build_pb2.Build,
            lambda tx: self._create(tx, workspace, as_of or newest_event),
        )

    def _newest_event(self, workspace: str) -> datetime | None:
        warehouse = self.warehouses.open(workspace)
        events = warehouse.table("traitmesh.events")
        newest = warehouse.query(f"SELECT max(time) AS time FROM {events}").read_all()["time"][0].as_py()
        return newest.replace(tzinfo=UTC) if newest is not None else None

    def _create(self, tx: Connection, workspace: str, as_of: datetime | None) -> build_pb2.Build:
        tables.lock_model(tx, workspace)
        if as_of is None:
            raise errors.NotReady(
                "there are no events yet; load some with `traitmesh events load`", resource=f"workspaces/{workspace}"
            )
        running = builds.find_running(tx, workspace)
        if running is not None:
            self._check_lost(tx, running)
        number, traits = self._latest_model(workspace)
        blueprint = Blueprint(
            workspace=workspace,
            number=builds.next_number(tx, workspace),
            model_revision=number,
            as_of=as_of,
            traits=traits,
            projects=projects.current_revisions(tx, workspace),
            notebooks=notebooks.current_revisions(tx, workspace),
        )
        row = builds.insert_build(tx, blueprint)
        self.temporal.call(lambda client: _start(client, blueprint))
        return _build_message(tx, row)

    def _check_lost(self, tx: Connection, row: BuildRow) -> None:
        """Ends a build whose workflow was ended by hand; raises UnderWay if it really goes on."""
        name = build_name(row.workspace, row.number)
        young = datetime.now(UTC) - row.create_time < STARTING
        if young or self.temporal.call(lambda client: _is_running(client, name)):
            raise errors.UnderWay(name)
        reason = "its workflow was ended from outside; build again"
        builds.add_failures(tx, row.workspace, row.number, [Failure("", "workflow", reason)])
        builds.end_build(tx, row.workspace, row.number, State.FAILED)

    def _latest_model(self, workspace: str) -> tuple[int, tuple[Trait, ...]]:
        try:
            return registry.latest_model(self.traits, workspace)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            raise errors.NotReady(
                "there are no traits yet; push a dbt project with `traitmesh project push`",
                resource=f"workspaces/{workspace}/modelRevisions/-",
            ) from error

    def GetBuild(self, request: build_pb2.GetBuildRequest, context: grpc.ServicerContext) -> build_pb2.Build:
        with self.engine.begin() as tx:
            return _build_message(tx, _find(tx, request.name))

    def ListBuilds(
        self, request: build_pb2.ListBuildsRequest, context: grpc.ServicerContext
    ) -> build_pb2.ListBuildsResponse:
        (workspace,) = names.parse(names.WORKSPACE, request.parent, "parent")
        page = paging.page(request, f"{request.parent}/builds")
        with self.engine.begin() as tx:
            rows, token = builds.list_builds(tx, workspace, page)
            messages = _build_messages(tx, rows)
        return build_pb2.ListBuildsResponse(builds=messages, next_page_token=token)

    def CompareBuilds(
        self, request: build_pb2.CompareBuildsRequest, context: grpc.ServicerContext
    ) -> build_pb2.BuildComparison:
        with self.engine.begin() as tx:
            build = _published(_find(tx, request.name))
            base = _published(_find(tx, request.base, "base") if request.base else _find_before(tx, build))
        if base.workspace != build.workspace:
            raise errors.NotFound(request.base)
        before, after = builds.traits_of(base), builds.traits_of(build)
        with as_faults():
            warehouse = self.warehouses.open(build.workspace)
            if not (warehouse.capabilities.snapshots and base.snapshot and build.snapshot):
                raise _no_snapshots(warehouse.workspace)
            compared = reading.compare(warehouse, base.snapshot, build.snapshot, before, after)
        ids_before, ids_after = {trait.id for trait in before}, {trait.id for trait in after}
        return build_pb2.BuildComparison(
            base=build_name(base.workspace, base.number),
            build=build_name(build.workspace, build.number),
            added_traits=sorted(ids_after - ids_before),
            removed_traits=sorted(ids_before - ids_after),
            added_rows=compared.added_rows,
            removed_rows=compared.removed_rows,
            changed_rows=compared.changed_rows,
            changed_values=compared.changed_values,
        )

    def ReadBuild(self, request: build_pb2.ReadBuildRequest, context: grpc.ServicerContext) -> Iterator[HttpBody]:
        with self.engine.begin() as tx:
            build = _published(_find(tx, request.name))
            serving = builds.find_good(tx, build.workspace)
        known = [trait.id for trait in builds.traits_of(build)]
        for number, trait in enumerate(request.traits):
            if trait not in known:
                raise errors.invalid(f"traits[{number}]", f"must be a trait of this build: {', '.join(known)}")
        wanted = list(dict.fromkeys(request.traits)) or known
        with as_faults():
            warehouse = self.warehouses.open(build.workspace)
            if not warehouse.capabilities.snapshots and (serving is None or serving.number != build.number):
                raise _no_snapshots(build.workspace)
            rows = reading.read(warehouse, build.snapshot, wanted)
            for piece in reading.as_stream(rows, PIECE_BYTES):
                yield HttpBody(content_type=ARROW_STREAM, data=piece)


def _given_as_of(request: build_pb2.CreateBuildRequest) -> datetime | None:
    if not request.build.HasField("as_of"):
        return None
    try:
        return moment(request.build.as_of)
    except ValueError as error:
        raise errors.invalid("build.as_of", "must be a time of the years 1 to 9999") from error


async def _start(client: Client, blueprint: Blueprint) -> None:
    # Before the row is committed, as with loads: an orphan goes on with the next row of its number.
    await client.start_workflow(
        BuildWorkflow.run,
        blueprint.name,
        id=blueprint.name,
        task_queue=QUEUE,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        search_attributes=search_attributes(blueprint.workspace),
    )


async def _is_running(client: Client, name: str) -> bool:
    try:
        described = await client.get_workflow_handle(name).describe()
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return False
        raise
    return described.status is WorkflowExecutionStatus.RUNNING


def _find(tx: Connection, name: str, field: str = "name") -> BuildRow:
    workspace, build = names.parse(_BUILD, name, field)
    if build == "latest":
        return errors.found(builds.find_good(tx, workspace), name, "make the first build with `traitmesh build run`")
    return errors.found(builds.find_build(tx, workspace, names.number(build, name)), name)


def _find_before(tx: Connection, build: BuildRow) -> BuildRow:
    row = builds.find_good(tx, build.workspace, before=build.number)
    if row is None:
        raise errors.NotReady(
            "there is no earlier build that succeeded to compare with",
            resource=build_name(build.workspace, build.number),
        )
    return row


def _published(row: BuildRow) -> BuildRow:
    if row.state == State.SUCCEEDED:
        return row
    name = build_name(row.workspace, row.number)
    raise errors.NotReady(f"{name} was not published: it is {row.state}", resource=name)


def _no_snapshots(workspace: str) -> errors.NotReady:
    return errors.NotReady(
        "this workspace's warehouse keeps no snapshots, so only the build that serves can be read",
        resource=f"workspaces/{workspace}/builds/latest",
    )


def _build_message(tx: Connection, row: BuildRow) -> build_pb2.Build:
    [message] = _build_messages(tx, [row])
    return message


def _build_messages(tx: Connection, rows: Sequence[BuildRow]) -> list[build_pb2.Build]:
    """Some builds of one workspace, with their steps and notebook runs."""
    if not rows:
        return []
    workspace, numbers = rows[0].workspace, [row.number for row in rows]
    steps = builds.list_steps(tx, workspace, numbers)
    runs = builds.list_notebook_runs(tx, workspace, numbers)
    now = datetime.now(UTC)
    messages = {row.number: _bare_message(row) for row in rows}
    for step in steps:
        took = Duration()
        took.FromTimedelta(timedelta(seconds=builds.running_seconds(step, now)))
        messages[step.build].steps.add(step=step.step, outcome=step.outcome, duration=took)
    for run in runs:
        messages[run.build].notebook_runs.add(
            notebook=f"workspaces/{workspace}/notebooks/{run.notebook}",
            revision=run.revision,
            metrics=run.metrics,
            row_count=run.row_count,
        )
    return list(messages.values())


def _bare_message(row: BuildRow) -> build_pb2.Build:
    return build_pb2.Build(
        name=build_name(row.workspace, row.number),
        model_revision=f"workspaces/{row.workspace}/modelRevisions/{row.model_revision}",
        as_of=timestamp(row.as_of),
        state=build_pb2.Build.State.Value(f"STATE_{row.state.upper()}"),
        failures=[build_pb2.BuildFailure(**failure) for failure in row.failures],
        snapshot=row.snapshot,
        row_count=row.row_count,
        inserted_count=row.inserted_count,
        updated_count=row.updated_count,
        deleted_count=row.deleted_count,
        create_time=timestamp(row.create_time),
        end_time=timestamp(row.end_time),
    )
