"""Loads."""

# ruff: noqa: S608  (identifiers are quoted, values are parameters)

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
from sqlalchemy import Engine
from temporalio.common import WorkflowIDConflictPolicy
from traitmesh_proto.model.v1 import load_pb2, load_pb2_grpc

from libs.kit import errors, names, paging
from libs.kit.messages import timestamp
from libs.kit.temporal import WorkflowStarter, search_attributes
from services.model_builder.domain import load_name
from services.model_builder.loading import uploads
from services.model_builder.store import loads
from services.model_builder.store.loads import LoadRow
from services.model_builder.warehouses import Warehouses, as_faults
from services.model_builder.workflows import QUEUE, LoadWorkflow

_LOAD = "workspaces/{workspace}/loads/{load}"


@dataclass(frozen=True)
class LoadServicer(load_pb2_grpc.LoadServiceServicer):
    """Loads: files on disk, their state in PostgreSQL, their rows in the warehouse."""

    engine: Engine
    warehouses: Warehouses
    temporal: WorkflowStarter
    uploads: Path
    max_upload_bytes: int

    def CreateLoad(
        self, request_iterator: Iterator[load_pb2.CreateLoadRequest], context: grpc.ServicerContext
    ) -> load_pb2.Load:
        first = next(request_iterator, None)
        if first is None:
            raise errors.invalid("parent", f"must be given in the first message, of the form {names.WORKSPACE}")
        (workspace,) = names.parse(names.WORKSPACE, first.parent, "parent")
        file_name = uploads.check_file_name(first.file_name)
        with as_faults():
            self.warehouses.open(workspace)
        pieces = _pieces(first, request_iterator)
        upload = uploads.take_in(self.uploads, workspace, file_name, pieces, self.max_upload_bytes)
        with self.engine.begin() as tx:
            row = loads.insert_load(tx, workspace, file_name, upload.sha256, upload.byte_count)
            self._start(workspace, load_name(workspace, row.number))
        return _load_message(row)

    def _start(self, workspace: str, name: str) -> None:
        # Started before the row is committed, so that no row waits for a workflow that was never started. One that
        # was started for a row that then failed to commit goes on with the next row of that number.
        self.temporal.call(
            lambda client: client.start_workflow(
                LoadWorkflow.run,
                name,
                id=name,
                task_queue=QUEUE,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                search_attributes=search_attributes(workspace),
            )
        )

    def GetLoad(self, request: load_pb2.GetLoadRequest, context: grpc.ServicerContext) -> load_pb2.Load:
        workspace, load = names.parse(_LOAD, request.name)
        with self.engine.begin() as tx:
            row = loads.find_load(tx, workspace, names.number(load, request.name))
        return _load_message(errors.found(row, request.name))

    def ListLoads(
        self, request: load_pb2.ListLoadsRequest, context: grpc.ServicerContext
    ) -> load_pb2.ListLoadsResponse:
        (workspace,) = names.parse(names.WORKSPACE, request.parent, "parent")
        page = paging.page(request, f"{request.parent}/loads")
        with self.engine.begin() as tx:
            rows, token = loads.list_loads(tx, workspace, page)
        return load_pb2.ListLoadsResponse(loads=map(_load_message, rows), next_page_token=token)

    def ListQuarantine(
        self, request: load_pb2.ListQuarantineRequest, context: grpc.ServicerContext
    ) -> load_pb2.ListQuarantineResponse:
        (workspace,) = names.parse(names.WORKSPACE, request.parent, "parent")
        with as_faults():
            warehouse = self.warehouses.open(workspace)
            ranked = (
                "SELECT q.reason, q.detail, q.file, q.line, count(*) OVER (PARTITION BY q.reason) AS row_count,"
                " row_number() OVER (PARTITION BY q.reason ORDER BY q.load, q.line) AS place"
                f" FROM {warehouse.table('traitmesh.quarantine')} AS q"
            )
            found = warehouse.query(
                f"SELECT reason, detail, file, line, row_count FROM ({ranked}) AS ranked WHERE place = 1"
                " ORDER BY row_count DESC, reason"
            )
            reasons = [load_pb2.QuarantineReason(**row) for row in found.read_all().to_pylist()]
        return load_pb2.ListQuarantineResponse(reasons=reasons)


def _pieces(first: load_pb2.CreateLoadRequest, rest: Iterator[load_pb2.CreateLoadRequest]) -> Iterator[bytes]:
    yield first.content.data
    last = b"more"
    for request in rest:
        if request.parent or request.file_name:
            raise errors.invalid("parent", "parent and file_name stand in the first message only")
        last = request.content.data
        yield last
    if last:
        # A stream that its caller broke off looks like one that ended, so the end must be said.
        raise errors.invalid("content", "must end with an empty piece; the file was not sent whole")


def _load_message(row: LoadRow) -> load_pb2.Load:
    return load_pb2.Load(
        name=load_name(row.workspace, row.number),
        file_name=row.file_name,
        sha256=row.sha256,
        byte_count=row.byte_count,
        state=load_pb2.Load.State.Value(f"STATE_{row.state.upper()}"),
        row_count=row.row_count,
        event_count=row.event_count,
        duplicate_count=row.duplicate_count,
        quarantined_count=row.quarantined_count,
        new_user_count=row.new_user_count,
        error=row.error,
        create_time=timestamp(row.create_time),
        end_time=timestamp(row.end_time),
    )
