"""`traitmesh project`, `notebook`, `trait`, `model`, `build`: shape the user model."""

import gzip
import io
import tarfile
from pathlib import Path

import click

from traitmesh.cli.display import console, number, seconds, short, state, table
from traitmesh.client import Client, Json

UNFINISHED = ("STATE_RUNNING",)

#: What dbt makes and what version control keeps is not part of a project.
LEFT_OUT = {"target", "logs", "dbt_packages", ".git", ".venv", "__pycache__"}


@click.group()
def project() -> None:
    """Push the dbt project that computes traits."""


@project.command("push")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--name", help="The project's id. Defaults to the folder's name.")
@click.option(
    "--overlay",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder whose files are laid over the project's; may be repeated.",
)
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.pass_obj
def push_project(client: Client, folder: Path, name: str | None, overlay: tuple[Path, ...], dry_run: bool) -> None:
    """Push the dbt project in FOLDER; the traits that its schema.yml files declare join the model."""
    name = name or folder.resolve().name
    archive = _archive(folder, *overlay)
    answer = client.upload(f"projects/{name}:push", archive, "application/gzip", validateOnly=str(dry_run).lower())
    for change in ("added", "changed", "removed"):
        traits = answer.get(f"{change}Traits", [])
        if traits:
            console.print(f"{change:8} {', '.join(traits)}")
    revision = short(answer.get("modelRevision", ""), 2) or "no model revision yet"
    console.print(f"{'would be' if dry_run else 'is'} {revision}")


@click.group()
def notebook() -> None:
    """Push the notebooks that predict traits."""


@notebook.command("push")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", help="The notebook's id. Defaults to the file's name.")
@click.option("--dry-run", is_flag=True, help="Check it, and change nothing.")
@click.pass_obj
def push_notebook(client: Client, file: Path, name: str | None, dry_run: bool) -> None:
    """Push the notebook FILE; each build from then on runs it."""
    name = name or file.stem
    answer = client.upload(
        f"notebooks/{name}:push",
        file.read_bytes(),
        "application/x-ipynb+json",
        validateOnly=str(dry_run).lower(),
    )
    made = answer["notebook"]
    console.print(f"{short(made['name'], 2)} revision {made['revision']} predicts the trait {made['trait']}")
    if answer.get("modelRevision"):
        console.print(f"is {short(answer['modelRevision'], 2)}")


@click.group()
def trait() -> None:
    """See the traits."""


@trait.command("list")
@click.pass_obj
def list_traits(client: Client) -> None:
    """List the model's traits."""
    table(
        ["trait", "kind", "type", "unit", "revision", "made by", "description"],
        (
            [
                short(t["name"]),
                t["kind"].removeprefix("TRAIT_KIND_").lower(),
                t["type"].removeprefix("TRAIT_TYPE_").lower(),
                t.get("unit", ""),
                t["revision"],
                short(t["origin"], 2),
                t.get("description", ""),
            ]
            for t in client.pages("traits", "traits")
        ),
    )


@click.group()
def build() -> None:
    """Build the user model, and see what builds did."""


@build.command("run")
@click.option("--as-of", help="The moment that windows end at. Defaults to the newest event's time.")
@click.pass_obj
def run_build(client: Client, as_of: str | None) -> None:
    """Build the latest model revision, and show each step."""
    started = client.create("builds", {"asOf": as_of} if as_of else {})
    console.print(f"{short(started['name'], 2)} of {short(started['modelRevision'], 2)}")
    shown = 0
    with console.status("starting") as status:

        def show(resource: Json) -> None:
            nonlocal shown
            steps = resource.get("steps", [])
            # The last step of a build that runs is not over yet.
            over = steps[:-1] if resource["state"] in UNFINISHED else steps
            for step in over[shown:]:
                console.print(f"  {step['step']:24} {seconds(step.get('duration')):>9}  {step.get('outcome', '')}")
            shown = len(over)
            if steps:
                status.update(steps[-1]["step"])

        ended = client.wait(started["name"], UNFINISHED, show)
    _show_build(ended)
    if ended["state"] != "STATE_SUCCEEDED":
        raise SystemExit(1)


@build.command("list")
@click.pass_obj
def list_builds(client: Client) -> None:
    """List builds, newest first."""
    table(
        ["build", "state", "model revision", "as of", "users", "inserted", "updated", "deleted"],
        (
            [
                short(b["name"]),
                state(b),
                short(b.get("modelRevision", "")),
                b.get("asOf", ""),
                number(b, "rowCount"),
                number(b, "insertedCount"),
                number(b, "updatedCount"),
                number(b, "deletedCount"),
            ]
            for b in client.pages("builds", "builds")
        ),
    )


@build.command("show")
@click.argument("number", default="latest")
@click.pass_obj
def show_build(client: Client, number: str) -> None:
    """Show build NUMBER; by default the one that serves."""
    _show_build(client.get(f"builds/{number}"))


@build.command("compare")
@click.argument("number", default="latest")
@click.option("--base", help="The earlier build's number. Defaults to the last good one before.")
@click.pass_obj
def compare_builds(client: Client, number: str, base: str | None) -> None:
    """Show what lies between build NUMBER and an earlier one."""
    name = client.get(f"builds/{number}")["name"]
    parameters = {"base": f"{name.rpartition('/')[0]}/{base}"} if base else {}
    found = client.get(f"/v1/{name}:compare", **parameters)
    console.print(f"from {short(found['base'], 2)} to {short(found['build'], 2)}")
    table(
        ["", "traits", "rows"],
        [
            ["added", ", ".join(found.get("addedTraits", [])) or "-", int(found.get("addedRows", 0))],
            ["removed", ", ".join(found.get("removedTraits", [])) or "-", int(found.get("removedRows", 0))],
            ["changed", f"{len(found.get('changedValues', {}))} traits", int(found.get("changedRows", 0))],
        ],
    )
    for name_, count in sorted(found.get("changedValues", {}).items(), key=lambda item: -int(item[1])):
        console.print(f"  {name_:28} {int(count):>9,} users")


def _show_build(resource: Json) -> None:
    console.print(
        f"{short(resource['name'], 2)} {state(resource)}: {number(resource, 'rowCount'):,} users, "
        f"{number(resource, 'insertedCount'):,} new, {number(resource, 'updatedCount'):,} changed, "
        f"{number(resource, 'deletedCount'):,} gone"
    )
    for failure in resource.get("failures", []):
        concerned = f"trait {failure['trait']}: " if failure.get("trait") else ""
        console.print(f"  {concerned}{failure['contract']}: {failure['reason']}")
    for run in resource.get("notebookRuns", []):
        metrics = ", ".join(f"{name} {value:.4g}" for name, value in sorted(run.get("metrics", {}).items()))
        console.print(f"  {short(run['notebook'], 2)}: {metrics}")


def _archive(*folders: Path) -> bytes:
    """The files of the folders as a gzipped tar, later folders over earlier ones; equal files give equal bytes."""
    files: dict[str, Path] = {}
    for folder in folders:
        for path in folder.rglob("*"):
            relative = path.relative_to(folder)
            if path.is_file() and not LEFT_OUT.intersection(relative.parts):
                files[relative.as_posix()] = path
    packed = io.BytesIO()
    # A gzip header normally holds the time, which would make each push another archive.
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as archive:
        for name in sorted(files):
            info = tarfile.TarInfo(name)
            content = files[name].read_bytes()
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return packed.getvalue()


COMMANDS = [project, notebook, trait, build]
