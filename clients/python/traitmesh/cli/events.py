"""`traitmesh events`: bring events in, and see what was set aside."""

from collections.abc import Iterator
from pathlib import Path

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from traitmesh.cli.display import console, number, short, state, table
from traitmesh.client import CHUNK_BYTES, Client, Json

UNFINISHED = ("STATE_RUNNING",)


@click.group()
def events() -> None:
    """Load events, and see what was quarantined."""


@events.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.pass_obj
def load(client: Client, files: tuple[Path, ...]) -> None:
    """Load FILES of Snowplow enriched events: newline JSON, bare or as search-index hits, or TSV; plain or gzip.

    Loading the same events again changes nothing.
    """
    columns = [TextColumn("{task.description:32}"), BarColumn(), TextColumn("{task.fields[done]}"), TimeElapsedColumn()]
    finished = []
    with Progress(*columns, console=console) as progress:
        for file in files:
            task = progress.add_task(file.name, total=file.stat().st_size, done="sending")
            started = client.upload(
                "loads",
                lambda file=file, task=task: _pieces(file, progress, task),  # type: ignore[misc]
                "application/octet-stream",
                fileName=file.name,
            )
            progress.update(task, total=None)

            def show(resource: Json, task: object = task) -> None:
                progress.update(task, done=f"{number(resource, 'rowCount'):,} rows")  # type: ignore[arg-type]

            ended = client.wait(started["name"], UNFINISHED, show)
            progress.update(task, total=1, completed=1)
            finished.append(ended)
    _show(finished)
    if any(ended["state"] != "STATE_SUCCEEDED" for ended in finished):
        raise SystemExit(1)


@events.command("loads")
@click.pass_obj
def list_loads(client: Client) -> None:
    """List loads, newest first."""
    _show(list(client.pages("loads", "loads")))


@events.command()
@click.pass_obj
def quarantine(client: Client) -> None:
    """Count the rows that could not be an event, by reason."""
    reasons = client.get("quarantine").get("reasons", [])
    table(
        ["reason", "rows", "what is wrong", "first at"],
        ([r["reason"], number(r, "rowCount"), r["detail"], f"{r['file']}:{r['line']}"] for r in reasons),
    )


def _pieces(file: Path, progress: Progress, task: object) -> Iterator[bytes]:
    progress.reset(task)  # type: ignore[arg-type]
    with file.open("rb") as opened:
        while piece := opened.read(CHUNK_BYTES):
            yield piece
            progress.advance(task, len(piece))  # type: ignore[arg-type]


def _show(loads: list[Json]) -> None:
    table(
        ["load", "file", "state", "rows", "new events", "duplicates", "quarantined", "new users"],
        (
            [
                short(load["name"]),
                load["fileName"],
                f"{state(load)} {load.get('error', '')}".strip(),
                number(load, "rowCount"),
                number(load, "eventCount"),
                number(load, "duplicateCount"),
                number(load, "quarantinedCount"),
                number(load, "newUserCount"),
            ]
            for load in loads
        ),
    )


COMMANDS = [events]
