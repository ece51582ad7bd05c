"""The registry's tables, in the PostgreSQL schema `registry`, and the questions asked of them.

Functions take the transaction that they are part of. Revisions are only ever inserted.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Row,
    Select,
    Table,
    Text,
    delete,
    func,
    insert,
    select,
    tuple_,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import insert as upsert

from libs.kit.database import lock, time_column
from libs.kit.paging import Page
from libs.kit.requests import request_table
from services.trait_registry import domain

SCHEMA = "registry"

metadata = MetaData(schema=SCHEMA)

workspaces = Table(
    "workspaces",
    metadata,
    Column("workspace", Text, primary_key=True),
    Column("display_name", Text, nullable=False),
    Column("time_zone", Text, nullable=False),
    time_column(),
)

trait_revisions = Table(
    "trait_revisions",
    metadata,
    Column("workspace", Text, primary_key=True),
    Column("trait", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("definition", JSONB, nullable=False),
    time_column(),
)

model_revisions = Table(
    "model_revisions",
    metadata,
    Column("workspace", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("changes", JSONB, nullable=False),
    time_column(),
)

model_revision_traits = Table(
    "model_revision_traits",
    metadata,
    Column("workspace", Text, primary_key=True),
    Column("model_revision", Integer, primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("trait", Text, nullable=False),
    Column("trait_revision", Integer, nullable=False),
    ForeignKeyConstraint(["workspace", "model_revision"], [model_revisions.c.workspace, model_revisions.c.number]),
    ForeignKeyConstraint(
        ["workspace", "trait", "trait_revision"],
        [trait_revisions.c.workspace, trait_revisions.c.trait, trait_revisions.c.number],
    ),
)

lineage_edges = Table(
    "lineage_edges",
    metadata,
    Column("workspace", Text, primary_key=True),
    Column("job", Text, primary_key=True),
    Column("input_namespace", Text, primary_key=True),
    Column("input_dataset", Text, primary_key=True),
    Column("input_field", Text, primary_key=True),
    Column("output_namespace", Text, primary_key=True),
    Column("output_dataset", Text, primary_key=True),
    Column("output_field", Text, primary_key=True),
    Column("influence", Text, primary_key=True),
    Column("partial", Boolean, nullable=False),
    Column("run", Text, nullable=False),
    time_column("record_time"),
    Index("lineage_by_output", "workspace", "output_dataset", "output_field"),
    Index("lineage_by_input", "workspace", "input_dataset", "input_field"),
)

requests = request_table(metadata)


def insert_workspace(tx: Connection, workspace: str, display_name: str, time_zone: str) -> datetime | None:
    """Inserts a workspace and returns its create_time; None if the id is taken."""
    row = upsert(workspaces).values(workspace=workspace, display_name=display_name, time_zone=time_zone)
    return tx.execute(row.on_conflict_do_nothing().returning(workspaces.c.create_time)).scalar()


def find_workspace(tx: Connection, workspace: str) -> Row[tuple[str, str, str, datetime]] | None:
    """One workspace's row."""
    return tx.execute(select(workspaces).where(workspaces.c.workspace == workspace)).first()


def list_workspaces(tx: Connection, only: str | None, page: Page) -> tuple[Sequence[Row[Any]], str]:
    """A page of the workspaces by id, or of `only` that one, and the next page's token."""
    query = select(workspaces)
    if only is not None:
        query = query.where(workspaces.c.workspace == only)
    return page.read(tx, query, workspaces.c.workspace)


class StoredTrait(NamedTuple):
    """A trait revision and when it was made."""

    revision: domain.TraitRevision
    create_time: datetime


def lock_model(tx: Connection, workspace: str) -> None:
    """Holds other changes of this workspace's model off until the transaction ends."""
    lock(tx, f"model of {workspace}")


def latest_model_revision(tx: Connection, workspace: str) -> int:
    """The number of the newest model revision; 0 before the first."""
    query = select(func.max(model_revisions.c.number)).where(model_revisions.c.workspace == workspace)
    return tx.execute(query).scalar() or 0


def find_model_revision(
    tx: Connection, workspace: str, number: int
) -> Row[tuple[str, int, list[dict[str, str]], datetime]] | None:
    """One model revision's row."""
    query = select(model_revisions).where(model_revisions.c.workspace == workspace, model_revisions.c.number == number)
    return tx.execute(query).first()


def list_model_revisions(tx: Connection, workspace: str, page: Page) -> tuple[Sequence[Row[Any]], str]:
    """A page of the model revisions, newest first, and the next page's token."""
    query = select(model_revisions).where(model_revisions.c.workspace == workspace)
    return page.read(tx, query, model_revisions.c.number, newest_first=True)


def traits_of_model_revision(tx: Connection, workspace: str, number: int) -> list[StoredTrait]:
    """The traits of one model revision, in column order."""
    query = _traits_of(workspace, number).order_by(model_revision_traits.c.position)
    return [_stored_trait(row) for row in tx.execute(query)]


def list_traits(tx: Connection, workspace: str, number: int, page: Page) -> tuple[list[StoredTrait], str]:
    """A page of one model revision's traits by id, and the next page's token."""
    rows, token = page.read(tx, _traits_of(workspace, number), trait_revisions.c.trait)
    return [_stored_trait(row) for row in rows], token


def find_trait(tx: Connection, workspace: str, number: int, trait: str) -> StoredTrait | None:
    """One trait of a model revision."""
    row = tx.execute(_traits_of(workspace, number).where(trait_revisions.c.trait == trait)).first()
    return None if row is None else _stored_trait(row)


def _traits_of(workspace: str, number: int) -> Select[Any]:
    member, revision = model_revision_traits.c, trait_revisions.c
    return (
        select(revision.trait, revision.number, revision.definition, revision.create_time)
        .join_from(
            model_revision_traits,
            trait_revisions,
            (revision.workspace == member.workspace)
            & (revision.trait == member.trait)
            & (revision.number == member.trait_revision),
        )
        .where(member.workspace == workspace, member.model_revision == number)
    )


def _stored_trait(row: Row[Any]) -> StoredTrait:
    return StoredTrait(domain.TraitRevision(row.trait, row.number, _definition(row.definition)), row.create_time)


def newest_numbers(tx: Connection, workspace: str) -> dict[str, int]:
    """The highest revision number of each trait that the workspace ever had."""
    query = (
        select(trait_revisions.c.trait, func.max(trait_revisions.c.number).label("number"))
        .where(trait_revisions.c.workspace == workspace)
        .group_by(trait_revisions.c.trait)
    )
    return {row.trait: row.number for row in tx.execute(query)}


def insert_model_revision(
    tx: Connection,
    workspace: str,
    number: int,
    traits: Sequence[domain.TraitRevision],
    changes: Sequence[domain.TraitChange],
) -> None:
    """Inserts a model revision and the trait revisions that are new with it."""
    tx.execute(
        insert(model_revisions).values(
            workspace=workspace, number=number, changes=[asdict(change) for change in changes]
        )
    )
    changed = {change.trait for change in changes}
    revisions = [
        {
            "workspace": workspace,
            "trait": revision.trait,
            "number": revision.number,
            "definition": asdict(revision.definition),
        }
        for revision in traits
        if revision.trait in changed
    ]
    if revisions:
        tx.execute(insert(trait_revisions), revisions)
    members = [
        {
            "workspace": workspace,
            "model_revision": number,
            "position": position,
            "trait": revision.trait,
            "trait_revision": revision.number,
        }
        for position, revision in enumerate(traits)
    ]
    if members:
        tx.execute(insert(model_revision_traits), members)


class StoredEdge(NamedTuple):
    """A lineage edge, what recorded it and when."""

    edge: domain.LineageEdge
    job: str
    run: str
    record_time: datetime


def replace_lineage(tx: Connection, workspace: str, job: str, run: str, edges: Iterable[domain.LineageEdge]) -> None:
    """Makes `edges` all that `job` has recorded."""
    tx.execute(delete(lineage_edges).where(lineage_edges.c.workspace == workspace, lineage_edges.c.job == job))
    rows = [
        {
            "workspace": workspace,
            "job": job,
            "run": run,
            "input_namespace": edge.input.namespace,
            "input_dataset": edge.input.dataset,
            "input_field": edge.input.field,
            "output_namespace": edge.output.namespace,
            "output_dataset": edge.output.dataset,
            "output_field": edge.output.field,
            "influence": edge.influence,
            "partial": edge.partial,
        }
        for edge in edges
    ]
    if rows:
        tx.execute(upsert(lineage_edges).on_conflict_do_nothing(), rows)


def edges_into(
    tx: Connection, workspace: str, columns: Sequence[domain.Column], influences: Sequence[str], limit: int
) -> list[StoredEdge]:
    """Edges whose output is one of the columns, or the dataset of one; a whole dataset means all its columns."""
    return _edges(tx, workspace, "output", columns, influences, limit)


def edges_from(
    tx: Connection, workspace: str, columns: Sequence[domain.Column], influences: Sequence[str], limit: int
) -> list[StoredEdge]:
    """Edges whose input is one of the columns, or the dataset of one; a whole dataset means all its columns."""
    return _edges(tx, workspace, "input", columns, influences, limit)


def _edges(
    tx: Connection, workspace: str, end: str, columns: Sequence[domain.Column], influences: Sequence[str], limit: int
) -> list[StoredEdge]:
    edge = lineage_edges.c
    dataset, field = (edge[f"{end}_namespace"], edge[f"{end}_dataset"]), edge[f"{end}_field"]
    named = {(c.namespace, c.dataset, name) for c in columns if c.field for name in (c.field, "")}
    whole = {(c.namespace, c.dataset) for c in columns if not c.field}
    query = (
        select(lineage_edges)
        .where(
            edge.workspace == workspace,
            edge.influence.in_(influences),
            tuple_(*dataset, field).in_(sorted(named)) | tuple_(*dataset).in_(sorted(whole)),
        )
        .order_by(edge.output_dataset, edge.output_field, edge.input_dataset, edge.input_field)
        .limit(limit)
    )
    return [_stored_edge(row) for row in tx.execute(query)]


def _stored_edge(row: Row[tuple[object, ...]]) -> StoredEdge:
    values = row._mapping
    edge = domain.LineageEdge(
        domain.Column(values["input_namespace"], values["input_dataset"], values["input_field"]),
        domain.Column(values["output_namespace"], values["output_dataset"], values["output_field"]),
        domain.Influence(values["influence"]),
        values["partial"],
    )
    return StoredEdge(edge, values["job"], values["run"], values["record_time"])


def _definition(stored: dict[str, str]) -> domain.Definition:
    return domain.Definition(
        display_name=stored["display_name"],
        description=stored["description"],
        kind=domain.TraitKind(stored["kind"]),
        type=domain.TraitType(stored["type"]),
        unit=stored["unit"],
        origin=stored["origin"],
        column=stored["column"],
    )
