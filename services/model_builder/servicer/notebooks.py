"""Notebooks."""

import hashlib
from dataclasses import dataclass

import grpc
from sqlalchemy import Engine
from traitmesh_proto.model.v1 import notebook_pb2, notebook_pb2_grpc
from traitmesh_proto.registry.v1.trait_pb2_grpc import TraitServiceStub

from libs.kit import errors, names, paging
from libs.kit.messages import timestamp
from services.model_builder import registry
from services.model_builder.domain import TraitKind
from services.model_builder.notebooks.declaration import Notebook, read_notebook
from services.model_builder.store import notebooks
from services.model_builder.store.notebooks import NotebookRow
from services.model_builder.store.tables import lock_model

_NOTEBOOK = "workspaces/{workspace}/notebooks/{notebook}"


@dataclass(frozen=True)
class NotebookServicer(notebook_pb2_grpc.NotebookServiceServicer):
    """Notebooks, in PostgreSQL."""

    engine: Engine
    traits: TraitServiceStub

    def PushNotebook(
        self, request: notebook_pb2.PushNotebookRequest, context: grpc.ServicerContext
    ) -> notebook_pb2.PushNotebookResponse:
        workspace, notebook = names.parse(_NOTEBOOK, request.name)
        names.check_id(notebook, "name")
        read = read_notebook(request.content.data)
        sha256 = hashlib.sha256(request.content.data).hexdigest()
        with self.engine.begin() as tx:
            lock_model(tx, workspace)
            applied = registry.apply_traits(
                self.traits, request.name, TraitKind.PREDICTED, [read.trait], validate_only=request.validate_only
            )
            if request.validate_only:
                message = _unpushed(request.name, sha256, read)
            else:
                row = notebooks.insert_notebook(
                    tx,
                    workspace,
                    notebook,
                    sha256=sha256,
                    content=read.content,
                    trait=read.trait.id,
                    inputs=read.inputs,
                )
                message = _notebook_message(row)
        return notebook_pb2.PushNotebookResponse(notebook=message, model_revision=applied.model_revision.name)

    def GetNotebook(
        self, request: notebook_pb2.GetNotebookRequest, context: grpc.ServicerContext
    ) -> notebook_pb2.Notebook:
        workspace, notebook = names.parse(_NOTEBOOK, request.name)
        with self.engine.begin() as tx:
            row = notebooks.find_notebook(tx, workspace, notebook)
        return _notebook_message(errors.found(row, request.name))

    def ListNotebooks(
        self, request: notebook_pb2.ListNotebooksRequest, context: grpc.ServicerContext
    ) -> notebook_pb2.ListNotebooksResponse:
        (workspace,) = names.parse(names.WORKSPACE, request.parent, "parent")
        page = paging.page(request, f"{request.parent}/notebooks")
        with self.engine.begin() as tx:
            rows, token = notebooks.list_notebooks(tx, workspace, page)
        return notebook_pb2.ListNotebooksResponse(notebooks=map(_notebook_message, rows), next_page_token=token)


def _unpushed(name: str, sha256: str, read: Notebook) -> notebook_pb2.Notebook:
    return notebook_pb2.Notebook(name=name, sha256=sha256, trait=_trait_name(name, read.trait.id), inputs=read.inputs)


def _notebook_message(row: NotebookRow) -> notebook_pb2.Notebook:
    name = f"workspaces/{row.workspace}/notebooks/{row.notebook}"
    return notebook_pb2.Notebook(
        name=name,
        revision=row.revision,
        sha256=row.sha256,
        trait=_trait_name(name, row.trait),
        inputs=row.inputs,
        push_time=timestamp(row.push_time),
    )


def _trait_name(notebook: str, trait: str) -> str:
    return f"{notebook.partition('/notebooks/')[0]}/traits/{trait}"
