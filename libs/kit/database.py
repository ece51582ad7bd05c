"""PostgreSQL: one engine a process, one schema and one migration history a service.

A service's `alembic/env.py` is one call of `run_migrations`; `python -m services.<name> serve` calls `upgrade` first,
so several processes may start at once: one migrates, the others wait.
"""

import time
from datetime import datetime
from pathlib import Path

from alembic import command, context
from alembic.config import Config
from sqlalchemy import Column, Connection, DateTime, Engine, MetaData, create_engine, func, text
from sqlalchemy.exc import OperationalError

from libs.kit.settings import Settings

LOCK_TIMEOUT = "5s"
#: How long the database may take to start when it starts together with the services.
START_SECONDS = 30


def connect(settings: Settings, schema: str) -> Engine:
    """An engine whose sessions see `schema` alone. Errors hide the values of statements."""
    url = settings.database_url.get_secret_value()
    return create_engine(
        url.replace("postgresql://", "postgresql+psycopg://", 1),
        connect_args={"options": f"-c search_path={schema} -c timezone=UTC"},
        hide_parameters=True,
        pool_pre_ping=True,
        pool_size=8,
        max_overflow=16,
    )


def upgrade(engine: Engine, schema: str, scripts: Path) -> None:
    """Brings the schema to the newest migration under `scripts`, a service's alembic folder."""
    config = Config()
    config.set_main_option("script_location", str(scripts))
    with _patient_connection(engine) as connection:
        key = {"key": f"migrate {schema}"}
        connection.execute(text("SELECT pg_advisory_lock(hashtextextended(:key, 0))"), key)
        try:
            connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{schema}"'))
            connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
            connection.commit()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.commit()
        finally:
            connection.rollback()
            connection.execute(text("SELECT pg_advisory_unlock(hashtextextended(:key, 0))"), key)
            connection.execute(text("RESET lock_timeout"))
            connection.commit()


def lock(tx: Connection, what: str) -> None:
    """Waits for, and until the transaction's end is, the only one who holds the lock of this name."""
    tx.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:what, 0))"), {"what": what})


def time_column(name: str = "create_time") -> Column[datetime]:
    """A column for a moment in time: that of the insertion unless it is given."""
    return Column(name, DateTime(timezone=True), nullable=False, server_default=func.now())


def _patient_connection(engine: Engine) -> Connection:
    """A connection to a database that may still be starting, as a service that starts with it finds it."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            return engine.connect()
        except OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def run_migrations(metadata: MetaData) -> None:
    """What a service's alembic/env.py calls, with the tables of its store."""
    connection: Connection = context.config.attributes["connection"]
    context.configure(
        connection=connection,
        target_metadata=metadata,
        version_table_schema=metadata.schema,
        include_schemas=False,
    )
    with context.begin_transaction():
        context.run_migrations()
