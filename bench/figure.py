"""A figure: something that was measured, what was measured beside it, and what the two should be to each other."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

WIDTH = 130


@dataclass(frozen=True)
class Gate:
    """What the ratio of ours to the peer's must be: at most the limit, or at least."""

    limit: float
    at_least: bool = False

    def met(self, ratio: float) -> bool:
        """Whether a ratio is as it must be."""
        return ratio >= self.limit if self.at_least else ratio <= self.limit

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.limit:g}"


@dataclass(frozen=True)
class Figure:
    """A median over repeats; `versions` are those of all that decides it."""

    name: str
    value: float
    unit: str
    versions: Mapping[str, str] = field(default_factory=dict)
    peer: str | None = None
    peer_value: float | None = None
    gate: Gate | None = None

    @property
    def ratio(self) -> float | None:
        """Ours divided by the peer's; None without a peer."""
        return self.value / self.peer_value if self.peer_value else None

    def save(self, folder: Path, machine: Mapping[str, Any]) -> None:
        """Writes `<name>.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        content = {
            "name": self.name,
            "value": _rounded(self.value),
            "unit": self.unit,
            "peer": self.peer,
            "peer_value": _rounded(self.peer_value),
            "ratio": _rounded(self.ratio),
            "machine": machine,
            "versions": self.versions,
        }
        (folder / f"{self.name}.json").write_text(json.dumps(content, indent=2) + "\n")


def show(figures: Sequence[Figure]) -> None:
    """Prints the figures as a table, with the gates that are met and those that are not."""
    table = Table(box=None, pad_edge=False)
    for heading in ("what", "ours", "unit", "peer", "its", "ratio", "gate", "met"):
        table.add_column(heading, justify="right" if heading in {"ours", "its", "ratio"} else "left", no_wrap=True)
    for figure in figures:
        met = "" if figure.gate is None or figure.ratio is None else "yes" if figure.gate.met(figure.ratio) else "NO"
        table.add_row(
            figure.name,
            _shown(figure.value),
            figure.unit,
            figure.peer or "",
            _shown(figure.peer_value),
            _shown(figure.ratio),
            str(figure.gate or ""),
            met,
        )
    # Where the output is no terminal, its width would be taken as 80.
    Console(width=max(Console().width, WIDTH)).print(table)


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def _shown(value: float | None) -> str:
    rounded = _rounded(value)
    return "" if rounded is None else f"{rounded:,.0f}" if rounded >= 1000 else f"{rounded:g}"
