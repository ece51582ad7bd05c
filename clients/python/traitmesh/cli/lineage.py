"""`traitmesh lineage`: where a value comes from and where it goes."""

from pathlib import Path

import click

from traitmesh.cli.display import console
from traitmesh.client import Client
from traitmesh.graph import draw, made_of, tree


@click.command()
@click.argument("trait")
@click.option(
    "--direction", type=click.Choice(["upstream", "downstream", "both"]), default="upstream", show_default=True
)
@click.option("--all", "everything", is_flag=True, help="Show joins, filters and groups, too.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Draw it to this SVG file.")
@click.pass_obj
def lineage(client: Client, trait: str, direction: str, everything: bool, output: Path | None) -> None:
    """Show the lineage of TRAIT, or of a column `schema.table.column`, as a tree or as a picture."""
    root = trait if "." in trait else f"traits/{trait}"
    upstream = direction == "upstream"
    found = client.get(
        "lineage",
        root=root,
        direction=f"DIRECTION_{direction.upper()}",
        # What a count of rows is made of is known only with the indirect edges.
        directOnly=str(not everything and not upstream).lower(),
    )
    edges = found.get("edges", [])
    column = (found["root"]["dataset"], found["root"]["field"])
    if upstream and not everything:
        edges = made_of(edges, column)
    if output:
        output.write_text(draw(edges, column))
        console.print(f"drew {len(edges)} arrows to {output}")
    elif upstream:
        for line in tree(edges, column):
            console.print(line, markup=False)
    else:
        for edge in edges:
            ends = (edge["input"], edge["output"])
            console.print(" -> ".join(f"{end['dataset']}.{end.get('field', '')}" for end in ends), markup=False)


COMMANDS = [lineage]
