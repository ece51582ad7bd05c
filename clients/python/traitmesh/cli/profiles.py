"""`traitmesh profile`: what is known about one user."""

import click
from rich.markup import escape

from traitmesh.cli.display import console, seconds, short, table
from traitmesh.client import Client
from traitmesh.graph import sources_of


@click.command()
@click.argument("user_id")
@click.option("--provenance", is_flag=True, help="Show, too, which columns of the events each value is made of.")
@click.pass_obj
def profile(client: Client, user_id: str, provenance: bool) -> None:
    """Show the profile of USER_ID: traits, audiences, and how old they are."""
    found = client.get(f"profiles/{user_id}")
    console.print(
        f"{escape(short(found['name'], 2))}  as of {found['asOf']}, {short(found['build'], 2)} of "
        f"{short(found['modelRevision'], 2)}, published {seconds(found.get('staleness'))} ago"
    )
    rows = []
    for trait, value in found.get("traits", {}).items():
        row = [trait, value]
        if provenance:
            found_lineage = client.get("lineage", root=f"traits/{trait}", direction="DIRECTION_UPSTREAM")
            column = (found_lineage["root"]["dataset"], found_lineage["root"]["field"])
            row.append(", ".join(sources_of(found_lineage.get("edges", []), column)))
        rows.append(row)
    table(["trait", "value", *(["made of"] if provenance else [])], rows)
    console.print(f"audiences: {', '.join(found.get('audiences', [])) or 'none'}")


COMMANDS = [profile]
