"""`traitmesh destination`, `sync`, `run`: activate, and watch."""

import json

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from traitmesh.cli.display import console, number, short, state, table
from traitmesh.client import Client, Json

MOVING = ("STATE_PLANNING", "STATE_SENDING")


@click.group()
def destination() -> None:
    """Connect the tools that records are sent to."""


@destination.command()
@click.pass_obj
def connectors(client: Client) -> None:
    """List the connectors that are installed."""
    table(
        ["connector", "name", "modes", "promises", "asks for"],
        (
            [
                c["id"],
                c["displayName"],
                ", ".join(c.get("modes", [])),
                c.get("guarantee", ""),
                ", ".join(c["configSchema"].get("properties", {})),
            ]
            for c in client.get("connectors").get("connectors", [])
        ),
    )


@destination.command("create")
@click.argument("id")
@click.option("--connector", required=True, help="Such as destination-slack.")
@click.option("--config", required=True, help="JSON, or @FILE that holds it: what the connector asks for.")
@click.pass_obj
def create_destination(client: Client, id: str, connector: str, config: str) -> None:  # noqa: A002
    """Create the destination ID, after its tool has been asked whether the configuration works."""
    made = client.create("destinations", {"connector": connector, "config": _config(config)}, destinationId=id)
    console.print(f"created {short(made['name'], 2)}; {connector} could reach its tool")


@destination.command("update")
@click.argument("id")
@click.option("--config", required=True, help="JSON, or @FILE that holds it.")
@click.pass_obj
def update_destination(client: Client, id: str, config: str) -> None:  # noqa: A002
    """Replace the configuration of the destination ID; parked runs go on with it when they are retried."""
    made = client.patch(f"destinations/{id}", {"config": _config(config)})
    console.print(f"{short(made['name'], 2)} is at revision {made['revision']}")


@destination.command("list")
@click.pass_obj
def list_destinations(client: Client) -> None:
    """List destinations."""
    table(
        ["destination", "connector", "revision", "config"],
        (
            [short(d["name"]), d["connector"], d["revision"], json.dumps(d.get("config", {}))]
            for d in client.pages("destinations", "destinations")
        ),
    )


@click.group()
def sync() -> None:
    """Order what is sent where, and run it."""


@sync.command("create")
@click.argument("id")
@click.option("--destination", "destination_id", required=True, help="The destination's id.")
@click.option("--object", "object_name", required=True, help="Where in it: a channel, a table, ...")
@click.option("--mode", required=True, type=click.Choice(["upsert", "insert", "update", "mirror"]))
@click.option("--audience", default="", help="The audience whose members are sent. Defaults to every user.")
@click.option(
    "--map",
    "mappings",
    multiple=True,
    required=True,
    metavar="TRAIT[=FIELD]",
    help="A field to send; user_id is the key. May be repeated.",
)
@click.pass_obj
def create_sync(
    client: Client,
    id: str,  # noqa: A002
    destination_id: str,
    object_name: str,
    mode: str,
    audience: str,
    mappings: tuple[str, ...],
) -> None:
    """Create the sync ID. Nothing is sent before it is run."""
    workspace = f"workspaces/{client.workspace}"
    fields = [mapping.partition("=") for mapping in mappings]
    body: Json = {
        "destination": f"{workspace}/destinations/{destination_id}",
        "object": object_name,
        "mode": f"MODE_{mode.upper()}",
        "mappings": [{"source": source, "destination": field or source} for source, _, field in fields],
    }
    if audience:
        body["audience"] = f"{workspace}/audiences/{audience}"
    made = client.create("syncs", body, syncId=id)
    console.print(f"created {short(made['name'], 2)}: {mode} to {object_name}")


@sync.command("list")
@click.pass_obj
def list_syncs(client: Client) -> None:
    """List syncs."""
    table(
        ["sync", "sends", "to", "object", "mode"],
        (
            [
                short(s["name"]),
                short(s["audience"], 2) if s.get("audience") else "every user",
                short(s["destination"]),
                s["object"],
                s["mode"].removeprefix("MODE_").lower(),
            ]
            for s in client.pages("syncs", "syncs")
        ),
    )


@sync.command()
@click.argument("id")
@click.pass_obj
def preview(client: Client, id: str) -> None:  # noqa: A002
    """Show what a run of the sync ID would send now, and send nothing."""
    found = client.get(f"syncs/{id}:preview")
    counts = ", ".join(
        f"{number(found, f'{kind}Count'):,} {kind}" for kind in ("added", "changed", "deleted", "unchanged")
    )
    console.print(f"{counts}; {short(found['build'], 2)}")
    for operation in found.get("operations", []):
        console.print(f"  {operation['operation']:7} {json.dumps(operation.get('record', {}), ensure_ascii=False)}")


@sync.command("run")
@click.argument("id")
@click.option("--retry-rejects", is_flag=True, help="Send again, too, what was rejected and has not changed.")
@click.option("--detach", is_flag=True, help="Do not wait for the end.")
@click.pass_obj
def run_sync(client: Client, id: str, retry_rejects: bool, detach: bool) -> None:  # noqa: A002
    """Run the sync ID and watch it; exit status 2 if it then waits for a person."""
    # These two are fields of the request beside the run itself, so they travel in the query.
    started = client.create(f"syncs/{id}/runs", {}, retryRejects=str(retry_rejects).lower())
    console.print(f"{short(started['name'], 4)} {started.get('workflowUri', '')}")
    if not detach:
        _watch(client, started["name"])


@click.group()
def run() -> None:
    """See runs, and tell a parked one what to do. RUN is such as `slack/3`."""


@run.command("list")
@click.argument("sync_id", default="-")
@click.pass_obj
def list_runs(client: Client, sync_id: str) -> None:
    """List runs, newest first, of one sync or of all."""
    table(
        ["run", "state", "planned", "confirmed", "rejected", "unknown", "what to do"],
        (
            [
                short(r["name"], 3).replace("/runs/", "/"),
                state(r),
                number(r, "plannedCount"),
                number(r, "confirmedCount"),
                number(r, "rejectedCount"),
                number(r, "unknownCount"),
                r.get("attention", ""),
            ]
            for r in client.pages(f"syncs/{sync_id}/runs", "runs")
        ),
    )


@run.command()
@click.argument("name")
@click.pass_obj
def watch(client: Client, name: str) -> None:
    """Watch RUN until it ends or waits for a person."""
    _watch(client, _full_name(client, name))


@run.command()
@click.argument("name")
@click.pass_obj
def retry(client: Client, name: str) -> None:
    """Tell the parked RUN to send again what is not confirmed, and watch it."""
    full = _full_name(client, name)
    client.post(f"/v1/{full}:retry", {})
    _watch(client, full)


@run.command()
@click.argument("name")
@click.pass_obj
def abort(client: Client, name: str) -> None:
    """End the parked RUN; what was confirmed stays so, the next run plans the rest anew."""
    full = _full_name(client, name)
    client.post(f"/v1/{full}:abort", {})
    _watch(client, full)


@run.command()
@click.argument("name")
@click.pass_obj
def rejects(client: Client, name: str) -> None:
    """List the records that the destination refused in RUN, with the reason of each."""
    found = client.pages(f"/v1/{_full_name(client, name)}/rejects", "rejects")
    table(
        ["key", "operation", "code", "message"],
        ([r["key"], r["operation"], r["code"], r.get("message", "")] for r in found),
    )


def _full_name(client: Client, name: str) -> str:
    sync_id, _, run_number = name.partition("/")
    if not run_number:
        raise click.BadParameter("must be SYNC/NUMBER, such as slack/3")
    return f"workspaces/{client.workspace}/syncs/{sync_id}/runs/{run_number}"


def _watch(client: Client, name: str) -> None:
    columns = [
        TextColumn("  {task.description:18}"),
        BarColumn(),
        TextColumn("{task.fields[done]}"),
        TimeElapsedColumn(),
    ]
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("planning", total=None, done="")

        def show(resource: Json) -> None:
            planned = number(resource, "plannedCount")
            settled = number(resource, "confirmedCount") + number(resource, "rejectedCount")
            progress.update(
                task,
                description=state(resource),
                total=planned or None,
                completed=settled,
                done=f"{settled:,} of {planned:,}",
            )

        ended = client.wait(name, MOVING, show)
    console.print(
        f"  {state(ended)}: {number(ended, 'plannedCount'):,} planned ({number(ended, 'addedCount'):,} added, "
        f"{number(ended, 'changedCount'):,} changed, {number(ended, 'deletedCount'):,} left), "
        f"{number(ended, 'confirmedCount'):,} confirmed, {number(ended, 'rejectedCount'):,} rejected"
    )
    if ended["state"] == "STATE_NEEDS_ATTENTION":
        console.print(f"  {ended.get('attention', '')}")
        console.print(f"  then: traitmesh run retry {short(name, 3).replace('/runs/', '/')}")
        raise SystemExit(2)


def _config(given: str) -> Json:
    try:
        text = click.open_file(given[1:]).read() if given.startswith("@") else given
        content = json.loads(text)
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"--config must be JSON, or @FILE with JSON: {error}") from error
    if not isinstance(content, dict):
        raise click.BadParameter("--config must be a JSON object")
    return content


COMMANDS = [destination, sync, run]
