"""How answers look in a terminal: tables, durations, progress. Everything is plain text where nobody looks on."""

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from traitmesh.client import Json

console = Console(highlight=False, soft_wrap=True)
if not console.is_terminal:
    # Wider than any row: what reads a file or a pipe wants each row whole, on one line.
    console.width = 100_000


def table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Prints rows under headings; numbers to the right, with separators.

    A terminal that is too narrow folds text, and never a number; where nobody looks on, each row is one line.
    """
    shown = Table(header_style="dim", box=None, pad_edge=False)
    materialised = [list(row) for row in rows]
    for index, heading in enumerate(headings):
        numeric = any(isinstance(row[index], int | float) for row in materialised)
        shown.add_column(heading, justify="right" if numeric else "left", no_wrap=numeric, overflow="fold")
    for row in materialised:
        shown.add_row(*(escape(text(value)) for value in row))
    console.print(shown)


def text(value: Any) -> str:
    """One value as a person reads it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}"
    return str(value)


def number(resource: Json, field: str) -> int:
    """A 64-bit integer, which JSON carries as text."""
    return int(resource.get(field, 0))


def state(resource: Json) -> str:
    """A state as words: `needs attention` for STATE_NEEDS_ATTENTION."""
    return str(resource.get("state", "")).removeprefix("STATE_").replace("_", " ").lower()


def short(name: str, keep: int = 1) -> str:
    """The last `keep` parts of a resource name."""
    return "/".join(name.split("/")[-keep:])


def seconds(duration: str | None) -> str:
    """A protobuf duration such as `1.250s` as people say it."""
    if not duration:
        return "-"
    value = float(duration.removesuffix("s"))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return f"{value:.1f} s"
