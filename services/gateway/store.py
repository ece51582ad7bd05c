"""The gateway's table of API keys, in the PostgreSQL schema `gateway`.

Functions take the transaction that they are part of.
"""

from collections.abc import Sequence

from sqlalchemy import (
    Column,
    Connection,
    DateTime,
    LargeBinary,
    MetaData,
    Row,
    Table,
    Text,
    func,
    insert,
    select,
    update,
)

from services.gateway.domain import ApiKey

SCHEMA = "gateway"

metadata = MetaData(schema=SCHEMA)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("workspace", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("display_name", Text, nullable=False),
    Column("sha256", LargeBinary, nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("expire_time", DateTime(timezone=True)),
    Column("revoke_time", DateTime(timezone=True)),
    Column("last_use_time", DateTime(timezone=True)),
)


def insert_key(tx: Connection, key: ApiKey) -> None:
    """Inserts a new key."""
    values = {
        "id": key.id,
        "workspace": key.workspace,
        "role": key.role,
        "display_name": key.display_name,
        "sha256": key.sha256,
        "create_time": key.create_time,
        "expire_time": key.expire_time,
    }
    tx.execute(insert(api_keys).values(values))


def find_key(tx: Connection, key_id: str) -> ApiKey | None:
    """The key of an id."""
    row = tx.execute(select(api_keys).where(api_keys.c.id == key_id)).first()
    return _key(row) if row else None


def list_keys(tx: Connection) -> list[ApiKey]:
    """Every key, oldest first, those that are dead too."""
    rows: Sequence[Row[tuple[object, ...]]] = tx.execute(select(api_keys).order_by(api_keys.c.create_time)).all()
    return [_key(row) for row in rows]


def note_use(tx: Connection, key_id: str) -> None:
    """Notes the hour in which a key is used; writes once in each."""
    hour = func.date_trunc("hour", func.now())
    earlier = api_keys.c.last_use_time.is_(None) | (api_keys.c.last_use_time < hour)
    tx.execute(update(api_keys).where(api_keys.c.id == key_id, earlier).values(last_use_time=hour))


def revoke_key(tx: Connection, key_id: str) -> bool:
    """Ends a key, once and for all; False if there is none of this id."""
    now = func.coalesce(api_keys.c.revoke_time, func.now())
    return tx.execute(update(api_keys).where(api_keys.c.id == key_id).values(revoke_time=now)).rowcount == 1


def _key(row: Row[tuple[object, ...]]) -> ApiKey:
    return ApiKey(**row._mapping)
