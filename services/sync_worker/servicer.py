"""The gRPC methods: a request becomes domain values, store, ledger and dispatch answer, rows become messages."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import struct_pb2
from sqlalchemy import Connection, Engine, Row
from traitmesh_proto.registry.v1 import trait_pb2
from traitmesh_proto.sync.v1 import (
    destination_pb2,
    destination_pb2_grpc,
    run_pb2,
    run_pb2_grpc,
    sync_pb2,
    sync_pb2_grpc,
)

from libs.kit import errors, names, paging
from libs.kit.messages import enum_value, plain, timestamp
from libs.kit.requests import answered, mutate
from libs.kit.seal import Seal
from libs.warehouse import Warehouse
from services.sync_worker import domain, ledger, plan, store
from services.sync_worker.connectors import Connector, Connectors, check_config, unmasked
from services.sync_worker.dispatch import Dispatch, Signal
from services.sync_worker.files import SyncFiles
from services.sync_worker.neighbours import Neighbours
from services.sync_worker.sending import close_config, open_config

DESTINATION = "workspaces/{workspace}/destinations/{destination}"
AUDIENCE = "workspaces/{workspace}/audiences/{audience}"
SYNC = "workspaces/{workspace}/syncs/{sync}"
RUN = "workspaces/{workspace}/syncs/{sync}/runs/{run}"

EVERY_SYNC = "-"
PREVIEWED_OPERATIONS = 5
CONFIG_FIELD = "destination.config"


class DestinationServicer(destination_pb2_grpc.DestinationServiceServicer):
    """Destinations, in PostgreSQL, their configurations sealed; connectors, from their folder."""

    def __init__(self, engine: Engine, seal: Seal, connectors: Connectors, neighbours: Neighbours) -> None:
        self._engine = engine
        self._seal = seal
        self._connectors = connectors
        self._neighbours = neighbours

    def ListConnectors(
        self, request: destination_pb2.ListConnectorsRequest, context: grpc.ServicerContext
    ) -> destination_pb2.ListConnectorsResponse:
        names.parse(names.WORKSPACE, request.parent, "parent")
        return destination_pb2.ListConnectorsResponse(connectors=map(_connector_message, self._connectors.working()))

    def CreateDestination(
        self, request: destination_pb2.CreateDestinationRequest, context: grpc.ServicerContext
    ) -> destination_pb2.Destination:
        (workspace,) = names.parse(names.WORKSPACE, request.parent, "parent")
        destination = names.check_id(request.destination_id, "destination_id")
        name = f"{request.parent}/destinations/{destination}"
        before = answered(self._engine, store.requests, workspace, request, destination_pb2.Destination)
        if before is not None:
            return before
        with self._engine.begin() as tx:
            if store.find_destination(tx, workspace, destination) is not None:
                raise errors.AlreadyExists(name)
        self._neighbours.check_workspace(workspace)
        connector = self._connectors.get(request.destination.connector, "destination.connector")
        config = plain(request.destination.config)
        # Outside a transaction: the tool may take seconds to answer.
        check_config(connector, config, CONFIG_FIELD)
        kept = close_config(self._seal, workspace, destination, config, connector.config_schema)

        def create(tx: Connection) -> destination_pb2.Destination:
            display_name = request.destination.display_name or destination
            row = store.insert_destination(tx, workspace, destination, display_name, connector.id, kept)
            if row is None:
                raise errors.AlreadyExists(name)
            return _destination_message(row)

        return mutate(self._engine, store.requests, workspace, request, destination_pb2.Destination, create)

    def GetDestination(
        self, request: destination_pb2.GetDestinationRequest, context: grpc.ServicerContext
    ) -> destination_pb2.Destination:
        workspace, destination = names.parse(DESTINATION, request.name)
        with self._engine.begin() as tx:
            return _destination_message(errors.found(store.find_destination(tx, workspace, destination), request.name))

    def ListDestinations(
        self, request: destination_pb2.ListDestinationsRequest, context: grpc.ServicerContext
    ) -> destination_pb2.ListDestinationsResponse:
        (workspace,) = names.parse(names.WORKSPACE, request.parent, "parent")
        page = paging.page(request, f"{request.parent}/destinations")
        with self._engine.begin() as tx:
            rows, token = store.list_destinations(tx, workspace, page)
        return destination_pb2.ListDestinationsResponse(
            destinations=map(_destination_message, rows), next_page_token=token
        )

    def UpdateDestination(
        self, request: destination_pb2.UpdateDestinationRequest, context: grpc.ServicerContext
    ) -> destination_pb2.Destination:
        wanted = request.destination
        workspace, destination = names.parse(DESTINATION, wanted.name, "destination.name")
        before = answered(self._engine, store.requests, workspace, request, destination_pb2.Destination)
        if before is not None:
            return before
        with self._engine.begin() as tx:
            row = errors.found(store.find_destination(tx, workspace, destination), wanted.name)
        if wanted.connector not in ("", row.connector):
            raise errors.invalid("destination.connector", f"stays {row.connector}; make another destination")
        # Outside a transaction: the tool may take seconds to answer.
        kept = self._new_config(row, wanted.config) if wanted.HasField("config") else None

        def change(tx: Connection) -> destination_pb2.Destination:
            current = errors.found(store.find_destination(tx, workspace, destination, lock=True), wanted.name)
            if kept is not None and current.revision != row.revision:
                # Its masked secrets were filled in from a configuration that is no longer there.
                raise errors.Conflict(f"{wanted.name} was changed at the same time; try again")
            revision = current.revision + (kept is not None)
            display_name = wanted.display_name or current.display_name
            updated = store.update_destination(tx, workspace, destination, display_name, revision, kept)
            return _destination_message(updated)

        return mutate(self._engine, store.requests, workspace, request, destination_pb2.Destination, change)

    def _new_config(self, row: Row[Any], given: struct_pb2.Struct) -> store.StoredConfig:
        connector = self._connectors.get(row.connector)
        before = open_config(self._seal, row)
        config = unmasked(plain(given), before, connector.config_schema, CONFIG_FIELD)
        check_config(connector, config, CONFIG_FIELD)
        return close_config(self._seal, row.workspace, row.destination, config, connector.config_schema)


class SyncServicer(sync_pb2_grpc.SyncServiceServicer):
    """Syncs, in PostgreSQL."""

    def __init__(
        self,
        engine: Engine,
        connectors: Connectors,
        neighbours: Neighbours,
        open_warehouse: Callable[[str], Warehouse],
        data_dir: Path,
    ) -> None:
        self._engine = engine
        self._connectors = connectors
        self._neighbours = neighbours
        self._open_warehouse = open_warehouse
        self._data_dir = data_dir

    def CreateSync(self, request: sync_pb2.CreateSyncRequest, context: grpc.ServicerContext) -> sync_pb2.Sync:
        (workspace,) = names.parse(names.WORKSPACE, request.parent, "parent")
        sync = _sync(workspace, names.check_id(request.sync_id, "sync_id"), request.sync)
        before = answered(self._engine, store.requests, workspace, request, sync_pb2.Sync)
        if before is not None:
            return before
        self._check(sync)

        def create(tx: Connection) -> sync_pb2.Sync:
            stored = store.insert_sync(tx, sync, request.sync.display_name or sync.sync)
            if stored is None:
                raise errors.AlreadyExists(sync.name)
            return _sync_message(stored)

        return mutate(self._engine, store.requests, workspace, request, sync_pb2.Sync, create)

    def _check(self, sync: domain.Sync) -> None:
        """Raises InvalidArgument with everything in the sync that is wrong, or NotFound for its destination."""
        traits = self._neighbours.model_traits(sync.workspace)
        audiences = [trait for trait, kind in traits.items() if kind == trait_pb2.TRAIT_KIND_DECIDED]
        problems = domain.sync_problems(sync, traits, audiences)
        with self._engine.begin() as tx:
            row = errors.found(store.find_destination(tx, sync.workspace, sync.destination), sync.destination_name)
        connector = self._connectors.get(row.connector)
        if sync.mode not in connector.modes:
            offered = ", ".join(connector.modes) or "none"
            problems.append(domain.Problem("mode", f"{connector.id} cannot {sync.mode}; it has {offered}"))
        if problems:
            raise errors.InvalidArgument(*(errors.Violation(f"sync.{p.field}", p.description) for p in problems))

    def GetSync(self, request: sync_pb2.GetSyncRequest, context: grpc.ServicerContext) -> sync_pb2.Sync:
        workspace, sync = names.parse(SYNC, request.name)
        with self._engine.begin() as tx:
            return _sync_message(errors.found(store.find_sync(tx, workspace, sync), request.name))

    def ListSyncs(
        self, request: sync_pb2.ListSyncsRequest, context: grpc.ServicerContext
    ) -> sync_pb2.ListSyncsResponse:
        (workspace,) = names.parse(names.WORKSPACE, request.parent, "parent")
        page = paging.page(request, f"{request.parent}/syncs")
        with self._engine.begin() as tx:
            syncs, token = store.list_syncs(tx, workspace, page)
        return sync_pb2.ListSyncsResponse(syncs=map(_sync_message, syncs), next_page_token=token)

    def PreviewSync(
        self, request: sync_pb2.PreviewSyncRequest, context: grpc.ServicerContext
    ) -> sync_pb2.PreviewSyncResponse:
        workspace, sync = names.parse(SYNC, request.name)
        with self._engine.begin() as tx:
            stored = errors.found(store.find_sync(tx, workspace, sync), request.name)
            destination = errors.found(
                store.find_destination(tx, workspace, stored.sync.destination), stored.sync.destination_name
            )
        build = self._neighbours.latest_build(workspace)
        files = SyncFiles.of(self._data_dir, workspace, sync)
        question = plan.Question(
            sync=stored.sync,
            run=0,
            snapshot=build.snapshot,
            state=None if stored.state_run is None else files.state(stored.state_run),
            destination_revision=destination.revision,
            retry_rejects=False,
        )
        found = plan.preview(self._open_warehouse(workspace), question, files.folder, limit=PREVIEWED_OPERATIONS)
        return _preview_message(build.name, found)


class RunServicer(run_pb2_grpc.RunServiceServicer):
    """Runs, in the ledger, each carried out by a workflow."""

    def __init__(self, engine: Engine, dispatch: Dispatch) -> None:
        self._engine = engine
        self._dispatch = dispatch

    def CreateRun(self, request: run_pb2.CreateRunRequest, context: grpc.ServicerContext) -> run_pb2.Run:
        workspace, sync = names.parse(SYNC, request.parent, "parent")

        def create(tx: Connection) -> run_pb2.Run:
            errors.found(store.find_sync(tx, workspace, sync, lock=True), request.parent)
            run = ledger.insert_run(tx, workspace, sync, retry_rejects=request.retry_rejects)
            # Within the transaction: if the workflow cannot be started, no run is left behind.
            self._dispatch.start(run, _connector_of(tx, run))
            return self._message(errors.found(ledger.find_run(tx, run), str(run)))

        return mutate(self._engine, store.requests, workspace, request, run_pb2.Run, create)

    def GetRun(self, request: run_pb2.GetRunRequest, context: grpc.ServicerContext) -> run_pb2.Run:
        run = _run_name(request.name)
        with self._engine.begin() as tx:
            return self._message(errors.found(ledger.find_run(tx, run), request.name))

    def ListRuns(self, request: run_pb2.ListRunsRequest, context: grpc.ServicerContext) -> run_pb2.ListRunsResponse:
        workspace, sync = names.parse(SYNC, request.parent, "parent")
        page = paging.page(request, f"{request.parent}/runs")
        with self._engine.begin() as tx:
            if sync != EVERY_SYNC:
                errors.found(store.find_sync(tx, workspace, sync), request.parent)
            only = None if sync == EVERY_SYNC else sync
            rows, token = ledger.list_runs(tx, workspace, only, page)
        return run_pb2.ListRunsResponse(runs=map(self._message, rows), next_page_token=token)

    def ListRejects(
        self, request: run_pb2.ListRejectsRequest, context: grpc.ServicerContext
    ) -> run_pb2.ListRejectsResponse:
        run = _run_name(request.parent, "parent")
        page = paging.page(request, f"{request.parent}/rejects")
        with self._engine.begin() as tx:
            errors.found(ledger.find_run(tx, run), request.parent)
            rows, token = ledger.list_rejects(tx, run, page)
        rejects = [
            run_pb2.Reject(key=row.key, operation=row.operation, code=row.code, message=row.message) for row in rows
        ]
        return run_pb2.ListRejectsResponse(rejects=rejects, next_page_token=token)

    def RetryRun(self, request: run_pb2.RetryRunRequest, context: grpc.ServicerContext) -> run_pb2.Run:
        return self._tell(request.name, "retry")

    def AbortRun(self, request: run_pb2.AbortRunRequest, context: grpc.ServicerContext) -> run_pb2.Run:
        return self._tell(request.name, "abort")

    def _tell(self, name: str, signal: Signal) -> run_pb2.Run:
        """Signals a parked run. One whose workflow is lost is started anew: it goes on from the ledger."""
        run = _run_name(name)
        with self._engine.begin() as tx:
            state = domain.RunState(errors.found(ledger.lock_run(tx, run), name).state)
            parked = state is domain.RunState.NEEDS_ATTENTION
            if state.is_over or (not parked and self._dispatch.goes_on(run)):
                raise errors.NotReady(
                    f"{name} is {state}; only a run that needs attention takes {signal}", resource=name
                )
            if signal == "retry":
                ledger.resume(tx, run)
            self._dispatch.start(run, _connector_of(tx, run), signal)
            return self._message(errors.found(ledger.find_run(tx, run), name))

    def _message(self, row: Row[Any]) -> run_pb2.Run:
        run = domain.RunName(row.workspace, row.sync, row.number)
        return run_pb2.Run(
            name=str(run),
            state=run_pb2.Run.State.Value(f"STATE_{row.state.upper()}"),
            build=row.build,
            planned_count=row.added_count + row.changed_count + row.deleted_count,
            confirmed_count=row.confirmed_count,
            rejected_count=row.rejected_count,
            unknown_count=row.unknown_count,
            added_count=row.added_count,
            changed_count=row.changed_count,
            deleted_count=row.deleted_count,
            attention=row.attention,
            workflow_uri=self._dispatch.uri(run),
            create_time=timestamp(row.create_time),
            end_time=timestamp(row.end_time),
        )


def _run_name(name: str, field: str = "name") -> domain.RunName:
    workspace, sync, number = names.parse(RUN, name, field)
    return domain.RunName(workspace, sync, names.number(number, name))


def _connector_of(tx: Connection, run: domain.RunName) -> str:
    stored = errors.found(store.find_sync(tx, run.workspace, run.sync), str(run))
    row = errors.found(store.find_destination(tx, run.workspace, stored.sync.destination), stored.sync.destination_name)
    connector: str = row.connector
    return connector


def _sync(workspace: str, sync: str, message: sync_pb2.Sync) -> domain.Sync:
    """The sync that a message describes, its references checked for form and workspace."""
    if not message.mode:
        raise errors.invalid("sync.mode", f"must be one of {', '.join(domain.Mode)}")
    destination_workspace, destination = names.parse(DESTINATION, message.destination, "sync.destination")
    audience = ""
    if message.audience:
        audience_workspace, audience = names.parse(AUDIENCE, message.audience, "sync.audience")
        if audience_workspace != workspace:
            raise errors.NotFound(message.audience)
    if destination_workspace != workspace:
        raise errors.NotFound(message.destination)
    return domain.Sync(
        workspace=workspace,
        sync=sync,
        audience=audience,
        destination=destination,
        object=message.object,
        mode=domain.Mode(enum_value(sync_pb2.Mode.Name(message.mode), "MODE")),
        mappings=tuple(domain.Mapping(m.source, m.destination) for m in message.mappings),
    )


def _destination_message(row: Row[Any]) -> destination_pb2.Destination:
    return destination_pb2.Destination(
        name=f"workspaces/{row.workspace}/destinations/{row.destination}",
        display_name=row.display_name,
        connector=row.connector,
        config=_struct(row.shown_config),
        revision=row.revision,
        create_time=timestamp(row.create_time),
    )


def _sync_message(stored: store.StoredSync) -> sync_pb2.Sync:
    sync = stored.sync
    return sync_pb2.Sync(
        name=sync.name,
        display_name=stored.display_name,
        audience=f"workspaces/{sync.workspace}/audiences/{sync.audience}" if sync.audience else "",
        destination=sync.destination_name,
        object=sync.object,
        mode=sync_pb2.Mode.Value(f"MODE_{sync.mode.upper()}"),
        mappings=[sync_pb2.FieldMapping(source=m.source, destination=m.destination) for m in sync.mappings],
        create_time=timestamp(stored.create_time),
    )


def _connector_message(connector: Connector) -> destination_pb2.Connector:
    return destination_pb2.Connector(
        id=connector.id,
        display_name=connector.display_name,
        config_schema=_struct(connector.config_schema),
        modes=connector.modes,
        guarantee=connector.guarantee,
    )


def _preview_message(build: str, found: plan.Preview) -> sync_pb2.PreviewSyncResponse:
    return sync_pb2.PreviewSyncResponse(
        build=build,
        added_count=found.counts.get(domain.Change.ADDED, 0),
        changed_count=found.counts.get(domain.Change.CHANGED, 0),
        deleted_count=found.counts.get(domain.Change.DELETED, 0),
        unchanged_count=found.unchanged,
        operations=[
            sync_pb2.PreviewedOperation(operation=operation, record=_struct(record))
            for operation, record in found.operations
        ],
    )


def _struct(values: Mapping[str, Any]) -> struct_pb2.Struct:
    struct = struct_pb2.Struct()
    struct.update(values)
    return struct
