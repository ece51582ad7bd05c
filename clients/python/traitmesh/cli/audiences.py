"""`traitmesh audience`, `funnel`: discover who is who, and what they do."""

import json
from pathlib import Path
from typing import Any

import click

from traitmesh.cli.display import console, number, seconds, short, table
from traitmesh.client import Client, Json

JSON_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def audience() -> None:
    """Create audiences, and see who is in."""


@audience.command()
@click.argument("id")
@click.argument("file", type=JSON_FILE)
@click.option("--dry-run", is_flag=True, help="Check it, and create nothing.")
@click.pass_obj
def create(client: Client, id: str, file: Path, dry_run: bool) -> None:  # noqa: A002
    """Create the audience ID as the JSON in FILE says: `displayName`, `description`, `rule`."""
    made = client.create("audiences", _read(file), audienceId=id, validateOnly=str(dry_run).lower())
    console.print(f"{'would be' if dry_run else 'created'} {short(made['name'], 2)}")
    if made.get("modelRevision"):
        console.print(f"is part of {short(made['modelRevision'], 2)}; its trait is there after the next build")


@audience.command("list")
@click.pass_obj
def list_all(client: Client) -> None:
    """List audiences."""
    table(
        ["audience", "name", "description"],
        (
            [short(a["name"]), a.get("displayName", ""), a.get("description", "")]
            for a in client.pages("audiences", "audiences")
        ),
    )


@audience.command()
@click.argument("audience_or_file")
@click.option("--by", "trait", default="", help="A trait to break the size down by.")
@click.pass_obj
def size(client: Client, audience_or_file: str, trait: str) -> None:
    """Count the members of an audience, or of the rule in a JSON file, on the build that serves."""
    path = Path(audience_or_file)
    asked: Json = {"breakdownTrait": trait}
    if path.suffix == ".json":
        asked["rule"] = _read(path).get("rule")
    else:
        asked["audience"] = f"workspaces/{client.workspace}/audiences/{audience_or_file}"
    found = client.post("audiences:estimate", asked)
    members, total = number(found, "size"), number(found, "total")
    share = members / total if total else 0
    console.print(f"{members:,} of {total:,} users ({share:.1%}), as of {found['asOf']}, {short(found['build'], 2)}")
    if trait:
        _bars([(bucket["value"], number(bucket, "size")) for bucket in found.get("breakdown", [])])


@click.group()
def funnel() -> None:
    """Ask how far users come."""


@funnel.command()
@click.argument("file", type=JSON_FILE)
@click.option("--by", "trait", default="", help="A trait to break the funnel down by.")
@click.pass_obj
def show(client: Client, file: Path, trait: str) -> None:
    """Show the conversion of the funnel in the JSON FILE: `steps`, `window`."""
    definition = _read(file)
    asked = {"funnel": definition.get("funnel", definition), "breakdownTrait": trait}
    found = client.post("funnels:query", asked)
    table(
        ["step", "event", "reached", "stopped here", "conversion", "median time"],
        (
            [
                index,
                step["event"],
                number(step, "reached"),
                number(step, "stopped"),
                f"{step.get('conversion', 0.0):.1%}",
                seconds(step.get("medianTime")),
            ]
            for index, step in enumerate(found["steps"], start=1)
        ),
    )
    for bucket in found.get("breakdown", []):
        reached = " -> ".join(f"{number(step, 'reached'):,}" for step in bucket["steps"])
        console.print(f"  {bucket['value']:20} {reached}")


def _bars(sizes: list[tuple[str, int]]) -> None:
    largest = max((size for _, size in sizes), default=0) or 1
    for value, size in sizes:
        console.print(f"  {value:20} {size:>9,} {'█' * round(30 * size / largest)}")


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text())
    except ValueError as error:
        raise click.ClickException(f"{file} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise click.ClickException(f"{file} must hold a JSON object")
    return content


COMMANDS = [audience, funnel]
