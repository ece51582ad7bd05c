"""Notebooks and their numbered revisions."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select
from sqlalchemy.dialects.postgresql import distinct_on

from libs.kit.paging import Page
from services.model_builder.store.tables import notebooks

NotebookRow = Row[Any]


def insert_notebook(
    tx: Connection, workspace: str, notebook: str, *, sha256: str, content: bytes, trait: str, inputs: Sequence[str]
) -> NotebookRow:
    """Makes this the notebook's current revision, unless it is already, and returns that."""
    current = find_notebook(tx, workspace, notebook)
    if current is not None and current.sha256 == sha256:
        return current
    row = insert(notebooks).values(
        workspace=workspace,
        notebook=notebook,
        revision=current.revision + 1 if current is not None else 1,
        sha256=sha256,
        content=content,
        trait=trait,
        inputs=list(inputs),
    )
    return tx.execute(row.returning(notebooks)).one()


def find_notebook(tx: Connection, workspace: str, notebook: str, revision: int | None = None) -> NotebookRow | None:
    """One revision of a notebook, the current one if none is given."""
    query = select(notebooks).where(notebooks.c.workspace == workspace, notebooks.c.notebook == notebook)
    if revision is not None:
        query = query.where(notebooks.c.revision == revision)
    return tx.execute(query.order_by(notebooks.c.revision.desc()).limit(1)).first()


def list_notebooks(tx: Connection, workspace: str, page: Page) -> tuple[Sequence[NotebookRow], str]:
    """A page of the current revisions, by notebook id, and the next page's token."""
    query = select(notebooks).ext(distinct_on(notebooks.c.notebook)).where(notebooks.c.workspace == workspace)
    return page.read(tx, query.order_by(notebooks.c.notebook, notebooks.c.revision.desc()), notebooks.c.notebook)


def current_revisions(tx: Connection, workspace: str) -> dict[str, int]:
    """The number of each notebook's current revision."""
    revision = func.max(notebooks.c.revision).label("revision")
    query = (
        select(notebooks.c.notebook, revision).where(notebooks.c.workspace == workspace).group_by(notebooks.c.notebook)
    )
    return {row.notebook: row.revision for row in tx.execute(query)}
