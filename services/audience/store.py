"""The audience service's tables, in the PostgreSQL schema `audience`, and the questions asked of them.

Functions take the transaction that they are part of. A rule is kept as the JSON form of its message.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Column, Connection, DateTime, MetaData, Row, Table, Text, func, select, text, update
from sqlalchemy.dialects.postgresql import JSONB, insert

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
    Column("create_time", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

requests = request_table(metadata)

AudienceRow = Row[tuple[str, str, str, str, dict[str, Any], str, datetime]]


def lock_audiences(tx: Connection, workspace: str) -> None:
    """Holds other changes of this workspace's audiences off until the transaction ends."""
    key = {"key": f"audiences of {workspace}"}
    tx.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))"), key)


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


def set_model_revision(tx: Connection, workspace: str, audience: str, model_revision: str) -> None:
    """Records the model revision that the audience joined with."""
    mine = (audiences.c.workspace == workspace) & (audiences.c.audience == audience)
    tx.execute(update(audiences).where(mine).values(model_revision=model_revision))


def find_audience(tx: Connection, workspace: str, audience: str) -> AudienceRow | None:
    """One audience's row."""
    query = select(audiences).where(audiences.c.workspace == workspace, audiences.c.audience == audience)
    return tx.execute(query).first()


def list_audiences(tx: Connection, workspace: str, after: str | None, limit: int) -> Sequence[AudienceRow]:
    """Audiences by id, after one if that is given."""
    query = select(audiences).where(audiences.c.workspace == workspace).order_by(audiences.c.audience).limit(limit)
    if after is not None:
        query = query.where(audiences.c.audience > after)
    return tx.execute(query).all()


def all_rules(tx: Connection, workspace: str) -> dict[str, dict[str, Any]]:
    """The stored rule of each audience of the workspace."""
    query = select(audiences.c.audience, audiences.c.rule).where(audiences.c.workspace == workspace)
    return {row.audience: row.rule for row in tx.execute(query)}
