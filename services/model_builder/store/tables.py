"""The tables."""

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    DateTime,
    Double,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from libs.kit.database import lock, time_column
from libs.kit.requests import request_table

SCHEMA = "model"

metadata = MetaData(schema=SCHEMA)


archives = Table(
    "archives",
    metadata,
    Column("workspace", Text, primary_key=True),
    Column("sha256", Text, primary_key=True),
    Column("content", LargeBinary, nullable=False),
    Column("declaration", JSONB),
    time_column(),
)

projects = Table(
    "projects",
    metadata,
    Column("workspace", Text, primary_key=True),
    Column("project", Text, primary_key=True),
    Column("revision", Integer, primary_key=True),
    Column("sha256", Text, nullable=False),
    time_column("push_time"),
    ForeignKeyConstraint(["workspace", "sha256"], [archives.c.workspace, archives.c.sha256]),
)

notebooks = Table(
    "notebooks",
    metadata,
    Column("workspace", Text, primary_key=True),
    Column("notebook", Text, primary_key=True),
    Column("revision", Integer, primary_key=True),
    Column("sha256", Text, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("trait", Text, nullable=False),
    Column("inputs", JSONB, nullable=False),
    time_column("push_time"),
)

loads = Table(
    "loads",
    metadata,
    Column("workspace", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("file_name", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("byte_count", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("row_count", BigInteger, nullable=False, server_default=text("0")),
    Column("event_count", BigInteger, nullable=False, server_default=text("0")),
    Column("duplicate_count", BigInteger, nullable=False, server_default=text("0")),
    Column("quarantined_count", BigInteger, nullable=False, server_default=text("0")),
    Column("new_user_count", BigInteger, nullable=False, server_default=text("0")),
    Column("error", Text, nullable=False, server_default=text("''")),
    time_column(),
    Column("end_time", DateTime(timezone=True)),
)

builds = Table(
    "builds",
    metadata,
    Column("workspace", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("model_revision", Integer, nullable=False),
    Column("as_of", DateTime(timezone=True), nullable=False),
    Column("traits", JSONB, nullable=False),
    Column("projects", JSONB, nullable=False),
    Column("notebooks", JSONB, nullable=False),
    Column("state", Text, nullable=False),
    Column("snapshot", BigInteger, nullable=False, server_default=text("0")),
    Column("row_count", BigInteger, nullable=False, server_default=text("0")),
    Column("inserted_count", BigInteger, nullable=False, server_default=text("0")),
    Column("updated_count", BigInteger, nullable=False, server_default=text("0")),
    Column("deleted_count", BigInteger, nullable=False, server_default=text("0")),
    Column("failures", JSONB, nullable=False, server_default=text("'[]'")),
    time_column(),
    Column("end_time", DateTime(timezone=True)),
    Index("one_build_at_a_time", "workspace", unique=True, postgresql_where=text("state = 'running'")),
    Index("good_builds", "workspace", "number", postgresql_where=text("state = 'succeeded'")),
)

build_steps = Table(
    "build_steps",
    metadata,
    Column("workspace", Text, primary_key=True),
    Column("build", Integer, primary_key=True),
    Column("step", Text, primary_key=True),
    Column("outcome", Text, nullable=False, server_default=text("''")),
    time_column("start_time"),
    Column("seconds", Double),
    ForeignKeyConstraint(["workspace", "build"], [builds.c.workspace, builds.c.number]),
)

notebook_runs = Table(
    "notebook_runs",
    metadata,
    Column("workspace", Text, primary_key=True),
    Column("build", Integer, primary_key=True),
    Column("notebook", Text, primary_key=True),
    Column("revision", Integer, nullable=False),
    Column("metrics", JSONB, nullable=False),
    Column("row_count", BigInteger, nullable=False),
    ForeignKeyConstraint(["workspace", "build"], [builds.c.workspace, builds.c.number]),
)

profiles = Table(
    "profiles",
    metadata,
    Column("workspace", Text, primary_key=True),
    Column("user_id", Text, primary_key=True),
    Column("body", LargeBinary, nullable=False),
)

requests = request_table(metadata)


def lock_model(tx: Connection, workspace: str) -> None:
    """Holds other pushes and the creation of builds off until the transaction ends.

    The traits that the registry knows and the revisions that lie here change together under it.
    """
    lock(tx, f"sources of {workspace}")
