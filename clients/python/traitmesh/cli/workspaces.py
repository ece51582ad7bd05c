"""`traitmesh workspace`: the tenants."""

import click

from traitmesh.cli.display import console, short, table
from traitmesh.client import Client


@click.group()
def workspace() -> None:
    """Create and list workspaces."""


@workspace.command()
@click.argument("id")
@click.option("--display-name", default="", help="How people call it.")
@click.option("--time-zone", default="UTC", show_default=True, help="The zone of calendar days.")
@click.pass_obj
def create(client: Client, id: str, display_name: str, time_zone: str) -> None:  # noqa: A002
    """Create the workspace ID."""
    body = {"displayName": display_name, "timeZone": time_zone}
    made = client.create("/v1/workspaces", body, workspaceId=id)
    console.print(f"created {made['name']}")


@workspace.command("list")
@click.pass_obj
def list_all(client: Client) -> None:
    """List the workspaces that this key opens."""
    rows = client.pages("/v1/workspaces", "workspaces")
    table(
        ["workspace", "name", "time zone", "created"],
        ([short(w["name"]), w["displayName"], w["timeZone"], w["createTime"]] for w in rows),
    )


COMMANDS = [workspace]
