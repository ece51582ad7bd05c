"""The gateway, the public face: `python -m services.gateway serve`, and `key create`, `key list`, `key revoke`.

A request comes in through `front`, is matched to a method by `transcoding`, admitted by `app` for the caller whom
`authentication` tells by the API key, and goes on over gRPC to the service that the method's package belongs to. The
only table is that of the keys.
"""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import traitmesh_proto
import uvicorn
import uvloop
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from sqlalchemy import Engine
from starlette.types import ASGIApp

from libs.kit import auth, database, errors, logs, names, telemetry
from services.gateway import domain, store
from services.gateway.app import build_app
from services.gateway.channels import open_channels
from services.gateway.config import GatewaySettings
from services.gateway.transcoding.methods import methods_of, pool_of
from services.gateway.transcoding.transcoder import Limits

DESCRIPTORS = Path(traitmesh_proto.__path__[0]) / "descriptors.binpb"


@click.group()
def main() -> None:
    """REST in front of the services, and the keys that open it."""


@main.command()
def serve() -> None:
    """Migrates the schema `gateway`, then answers HTTP until SIGTERM."""
    settings = GatewaySettings()
    logs.configure("gateway", settings.log_level)
    telemetry.configure("gateway", settings.traces)
    engine = connect(settings)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings, engine))


@main.group()
def key() -> None:
    """API keys."""


@key.command("create")
@click.option("--workspace", required=True, help="The one workspace that the key opens; - opens every one.")
@click.option("--role", required=True, type=click.Choice(domain.ROLES))
@click.option("--name", default="", help="What the key is for.")
@click.option("--expires-in-days", type=click.IntRange(1, 3650), help="Never, if left out.")
def create_key(workspace: str, role: domain.Role, name: str, expires_in_days: int | None) -> None:
    """Makes a key and prints it: the only time that it can be seen."""
    if workspace != auth.EVERY_WORKSPACE:
        _check_workspace(workspace)
    now = datetime.now(UTC)
    expire_time = now + timedelta(days=expires_in_days) if expires_in_days else None
    text = domain.new_key_text()
    made = domain.ApiKey(
        id=domain.key_id_of(text) or "",
        workspace=workspace,
        role=role,
        display_name=name,
        sha256=domain.digest(text),
        create_time=now,
        expire_time=expire_time,
    )
    with connect(GatewaySettings()).begin() as tx:
        store.insert_key(tx, made)
    click.echo(text)


@key.command("list")
def list_keys() -> None:
    """Shows every key but its secret: id, workspace, role, state, hour of last use, what it is for."""
    with connect(GatewaySettings()).begin() as tx:
        for found in store.list_keys(tx):
            state = "alive" if found.is_alive(datetime.now(UTC)) else "revoked" if found.revoke_time else "expired"
            used = found.last_use_time.isoformat(timespec="minutes") if found.last_use_time else "never used"
            click.echo("\t".join([found.id, found.workspace, found.role, state, used, found.display_name]))


@key.command("revoke")
@click.argument("key_id")
def revoke_key(key_id: str) -> None:
    """Ends a key, given by its id (the part after tm_). Running gateways follow within 5 seconds."""
    with connect(GatewaySettings()).begin() as tx:
        if not store.revoke_key(tx, key_id):
            raise click.ClickException(f"there is no key {key_id}; `key list` shows those that there are")
    click.echo(f"{key_id} is revoked")


async def _serve(settings: GatewaySettings, engine: Engine) -> None:
    # uvicorn drains on SIGTERM and then raises it again; a gateway that was told to end has not failed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    host, _, port = settings.gateway_address.rpartition(":")
    async with application(settings, engine) as app:
        config = uvicorn.Config(
            app,
            host=host,
            port=int(port),
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=int(settings.drain_seconds),
        )
        await uvicorn.Server(config).serve()


@asynccontextmanager
async def application(settings: GatewaySettings, engine: Engine) -> AsyncIterator[ASGIApp]:
    """The application with open channels to its services, within the event loop that serves."""
    files = FileDescriptorSet.FromString(DESCRIPTORS.read_bytes())
    methods = methods_of(files, pool_of(files))
    signer = auth.TokenSigner(settings.signing_key.get_secret_value())
    async with open_channels(settings, methods) as channel_of:
        yield build_app(files, methods, channel_of, engine, signer, Limits())


def connect(settings: GatewaySettings) -> Engine:
    """An engine on the migrated schema."""
    engine = database.connect(settings, store.SCHEMA)
    database.upgrade(engine, store.SCHEMA, Path(__file__).parent / "alembic")
    return engine


def _check_workspace(workspace: str) -> None:
    try:
        names.check_id(workspace, "--workspace")
    except errors.InvalidArgument as error:
        raise click.BadParameter(error.message) from error


if __name__ == "__main__":
    main()
