"""dbt projects."""

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

import grpc
from sqlalchemy import Engine
from temporalio.client import Client, WorkflowFailureError
from temporalio.common import WorkflowIDConflictPolicy
from traitmesh_proto.model.v1 import project_pb2, project_pb2_grpc
from traitmesh_proto.registry.v1 import trait_pb2
from traitmesh_proto.registry.v1.trait_pb2_grpc import TraitServiceStub

from libs.kit import errors, names, paging
from libs.kit.messages import timestamp
from libs.kit.temporal import WorkflowStarter, fault_of, search_attributes
from services.model_builder import registry
from services.model_builder.activities.references import Archive
from services.model_builder.dbt_project import archive
from services.model_builder.domain import Declaration, TraitKind
from services.model_builder.store import projects
from services.model_builder.store.projects import ProjectRow
from services.model_builder.store.tables import lock_model
from services.model_builder.warehouses import Warehouses, as_faults
from services.model_builder.workflows import QUEUE, ParseWorkflow

_PROJECT = "workspaces/{workspace}/projects/{project}"

#: How long a push waits for dbt to parse the project.
PARSE_SECONDS = 120


@dataclass(frozen=True)
class ProjectServicer(project_pb2_grpc.ProjectServiceServicer):
    """dbt projects, in PostgreSQL; parsed by a worker."""

    engine: Engine
    warehouses: Warehouses
    temporal: WorkflowStarter
    traits: TraitServiceStub

    def PushProject(
        self, request: project_pb2.PushProjectRequest, context: grpc.ServicerContext
    ) -> project_pb2.PushProjectResponse:
        workspace, project = names.parse(_PROJECT, request.name)
        names.check_id(project, "name")
        content = request.archive.data
        _check_archive(content)
        with as_faults():
            self.warehouses.open(workspace)
        sha256 = hashlib.sha256(content).hexdigest()
        declared = self._declaration(Archive(workspace, sha256), content)
        with self.engine.begin() as tx:
            lock_model(tx, workspace)
            applied = registry.apply_traits(
                self.traits, request.name, TraitKind.COMPUTED, declared.traits, validate_only=request.validate_only
            )
            if request.validate_only:
                current = projects.find_project(tx, workspace, project)
            else:
                current = projects.insert_project(tx, workspace, project, sha256)
        return _push_response(request.name, current, applied)

    def _declaration(self, pushed: Archive, content: bytes) -> Declaration:
        """What the archive declares, found out by a worker unless it is known."""
        with self.engine.begin() as tx:
            projects.insert_archive(tx, pushed.workspace, pushed.sha256, content)
            known = projects.find_declaration(tx, pushed.workspace, pushed.sha256)
        if known is not None:
            return known
        try:
            self.temporal.call(lambda client: _parse(client, pushed), PARSE_SECONDS)
        except WorkflowFailureError as error:
            raise fault_of(error) from error
        with self.engine.begin() as tx:
            found = projects.find_declaration(tx, pushed.workspace, pushed.sha256)
        if found is None:
            raise errors.Internal("a parsed archive has no declaration")
        return found

    def GetProject(self, request: project_pb2.GetProjectRequest, context: grpc.ServicerContext) -> project_pb2.Project:
        workspace, project = names.parse(_PROJECT, request.name)
        with self.engine.begin() as tx:
            row = projects.find_project(tx, workspace, project)
        return _project_message(errors.found(row, request.name))

    def ListProjects(
        self, request: project_pb2.ListProjectsRequest, context: grpc.ServicerContext
    ) -> project_pb2.ListProjectsResponse:
        (workspace,) = names.parse(names.WORKSPACE, request.parent, "parent")
        page = paging.page(request, f"{request.parent}/projects")
        with self.engine.begin() as tx:
            rows, token = projects.list_projects(tx, workspace, page)
        return project_pb2.ListProjectsResponse(projects=map(_project_message, rows), next_page_token=token)


async def _parse(client: Client, pushed: Archive) -> None:
    await client.execute_workflow(
        ParseWorkflow.run,
        pushed,
        id=f"workspaces/{pushed.workspace}/archives/{pushed.sha256}",
        task_queue=QUEUE,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        search_attributes=search_attributes(pushed.workspace),
    )


def _check_archive(content: bytes) -> None:
    """Unpacks the archive once for the sake of its errors, which the caller then gets at once."""
    if len(content) > archive.MAX_ARCHIVE_BYTES:
        raise errors.LimitExceeded(
            f"a project's archive may have {archive.MAX_ARCHIVE_BYTES} bytes; leave out target/ and logs/",
            limit="archive_bytes",
        )
    with tempfile.TemporaryDirectory(prefix="traitmesh-check-") as folder:
        archive.unpack(content, Path(folder))


def _push_response(
    name: str, row: ProjectRow | None, applied: trait_pb2.ApplyTraitsResponse
) -> project_pb2.PushProjectResponse:
    by_change: dict[int, list[str]] = {}
    for change in applied.changes:
        by_change.setdefault(change.change, []).append(change.trait)
    return project_pb2.PushProjectResponse(
        project=_project_message(row) if row is not None else project_pb2.Project(name=name),
        model_revision=applied.model_revision.name,
        added_traits=by_change.get(trait_pb2.TraitChange.CHANGE_ADDED),
        changed_traits=by_change.get(trait_pb2.TraitChange.CHANGE_CHANGED),
        removed_traits=by_change.get(trait_pb2.TraitChange.CHANGE_REMOVED),
    )


def _project_message(row: ProjectRow) -> project_pb2.Project:
    return project_pb2.Project(
        name=f"workspaces/{row.workspace}/projects/{row.project}",
        revision=row.revision,
        sha256=row.sha256,
        push_time=timestamp(row.push_time),
    )
