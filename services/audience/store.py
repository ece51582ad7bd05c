"""The audience service's tables, in the PostgreSQL schema `audience`, and the questions asked of them.

Functions take the transaction that they are part of. A rule is kept as the JSON form of its message.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Column, Connection, MetaData, Row, Table, Text, select, update
from sqlalchemy.dialects.postgresql import JSONB, insert

from libs.kit.database import lock, time_column
from libs.kit.paging import Page
from libs.kit.requests import request_table

SCHEMA = "audience"

metadata = MetaData(schema=SCHEMA)

audiences = Table(
    "audiences",
    metadata,
    Column("workspace", Text, primary_key=True),
    Column("audience", Text, primary_key=True),
    Column("display_name", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("rule", JSONB, nullable=False),
    Column("model_revision", Text, nullable=False),
    time_column(),
)

requests = request_table(metadata)

AudienceRow = Row[tuple[str, str, str, str, dict[str, Any], str, datetime]]


def lock_audiences(tx: Connection, workspace: str) -> None:
    """Holds other changes of this workspace's audiences off until the transaction ends."""
    lock(tx, f"audiences of {workspace}")


def insert_audience(
    tx: Connection, workspace: str, audience: str, display_name: str, description: str, rule: dict[str, Any]
) -> bool:
    """Inserts an audience that no model revision holds yet; False if the id is taken."""
    row = insert(audiences).values(
        workspace=workspace,
        audience=audience,
        display_name=display_name,
        description=description,
        rule=rule,
        model_revision="",
    )
    return tx.execute(row.on_conflict_do_nothing().returning(audiences.c.audience)).first() is not None


def set_model_revision(tx: Connection, workspace: str, audience: str, model_revision: str) -> AudienceRow:
    """Records the model revision that the audience joined with, and returns its row."""
    mine = (audiences.c.workspace == workspace) & (audiences.c.audience == audience)
    change = update(audiences).where(mine).values(model_revision=model_revision).returning(audiences)
    return tx.execute(change).one()


def find_audience(tx: Connection, workspace: str, audience: str) -> AudienceRow | None:
    """One audience's row."""
    query = select(audiences).where(audiences.c.workspace == workspace, audiences.c.audience == audience)
    return tx.execute(query).first()


def list_audiences(tx: Connection, workspace: str, page: Page) -> tuple[Sequence[AudienceRow], str]:
    """A page of the audiences by id, and the next page's token."""
    return page.read(tx, select(audiences).where(audiences.c.workspace == workspace), audiences.c.audience)


def all_rules(tx: Connection, workspace: str) -> dict[str, dict[str, Any]]:
    """The stored rule of each audience of the workspace."""
    query = select(audiences.c.audience, audiences.c.rule).where(audiences.c.workspace == workspace)
    return {row.audience: row.rule for row in tx.execute(query)}
