"""dbt projects: their archives, what these declare, and their numbered revisions."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, Row, and_, func, insert, select, tuple_, update
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.dialects.postgresql import insert as upsert

from libs.kit.paging import Page
from services.model_builder.domain import Declaration, DeclaredTrait, TraitType
from services.model_builder.store.tables import archives, projects

ProjectRow = Row[Any]


def insert_archive(tx: Connection, workspace: str, sha256: str, content: bytes) -> None:
    """Keeps an archive; the same one again changes nothing."""
    row = upsert(archives).values(workspace=workspace, sha256=sha256, content=content)
    tx.execute(row.on_conflict_do_nothing())


def read_archive(tx: Connection, workspace: str, sha256: str) -> bytes:
    """The archive, which is there."""
    return bytes(tx.execute(select(archives.c.content).where(_archive(workspace, sha256))).scalar_one())


def set_declaration(tx: Connection, workspace: str, sha256: str, declaration: Declaration) -> None:
    """Keeps what the archive was found to declare."""
    values = {"traits": [asdict(trait) for trait in declaration.traits], "keys": declaration.keys}
    tx.execute(update(archives).where(_archive(workspace, sha256)).values(declaration=values))


def find_declaration(tx: Connection, workspace: str, sha256: str) -> Declaration | None:
    """What the archive declares; None if it has not been read yet."""
    stored = tx.execute(select(archives.c.declaration).where(_archive(workspace, sha256))).scalar()
    return _declaration(stored) if stored else None


def insert_project(tx: Connection, workspace: str, project: str, sha256: str) -> ProjectRow:
    """Makes the archive the project's current revision, unless it is already, and returns that."""
    current = find_project(tx, workspace, project)
    if current is not None and current.sha256 == sha256:
        return current
    revision = current.revision + 1 if current is not None else 1
    row = insert(projects).values(workspace=workspace, project=project, revision=revision, sha256=sha256)
    return tx.execute(row.returning(projects)).one()


def find_project(tx: Connection, workspace: str, project: str) -> ProjectRow | None:
    """The current revision of one project."""
    mine = (projects.c.workspace == workspace) & (projects.c.project == project)
    return tx.execute(select(projects).where(mine).order_by(projects.c.revision.desc()).limit(1)).first()


def list_projects(tx: Connection, workspace: str, page: Page) -> tuple[Sequence[ProjectRow], str]:
    """A page of the current revisions, by project id, and the next page's token."""
    query = select(projects).ext(distinct_on(projects.c.project)).where(projects.c.workspace == workspace)
    return page.read(tx, query.order_by(projects.c.project, projects.c.revision.desc()), projects.c.project)


def current_revisions(tx: Connection, workspace: str) -> dict[str, int]:
    """The number of each project's current revision."""
    revision = func.max(projects.c.revision).label("revision")
    query = select(projects.c.project, revision).where(projects.c.workspace == workspace).group_by(projects.c.project)
    return {row.project: row.revision for row in tx.execute(query)}


def archive_of(tx: Connection, workspace: str, project: str, revision: int) -> bytes:
    """The archive of one revision."""
    place = tuple_(projects.c.workspace, projects.c.project, projects.c.revision)
    query = select(projects.c.sha256).where(place == tuple_(workspace, project, revision))
    return read_archive(tx, workspace, tx.execute(query).scalar_one())


def keys_of(tx: Connection, workspace: str, revisions: dict[str, int]) -> dict[str, str]:
    """The column that holds the user's id, by table, of these revisions of projects."""
    same = and_(projects.c.workspace == archives.c.workspace, projects.c.sha256 == archives.c.sha256)
    query = (
        select(archives.c.declaration)
        .join_from(projects, archives, same)
        .where(projects.c.workspace == workspace)
        .where(tuple_(projects.c.project, projects.c.revision).in_(list(revisions.items())))
    )
    keys: dict[str, str] = {}
    for stored in tx.execute(query).scalars():
        keys |= _declaration(stored).keys
    return keys


def _archive(workspace: str, sha256: str) -> Any:
    return (archives.c.workspace == workspace) & (archives.c.sha256 == sha256)


def _declaration(stored: dict[str, Any]) -> Declaration:
    traits = tuple(DeclaredTrait(**{**trait, "type": TraitType(trait["type"])}) for trait in stored["traits"])
    return Declaration(traits, stored["keys"])
