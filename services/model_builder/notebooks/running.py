"""Runs a notebook by papermill in a process and an environment of its own, and reads what it leaves.

The folder of a run holds `inputs/<schema>.<table>.parquet` and `inputs/model.parquet`, put there before, and receives
`outputs/<trait>.parquet` and `outputs/metrics.json`. The notebook finds it by TRAITMESH_RUN_DIR.
"""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from libs.kit import names, telemetry
from libs.warehouse import Warehouse
from services.model_builder import contained
from services.model_builder.domain import KEY, TraitType

MAX_METRICS = 100

#: Errors whose messages name no values: the helper that notebooks use writes them for people.
_SPEAKING_ERRORS = {"NotebookError", "NotInRun"}
_NOTE = "papermill-error-cell-tag"
_ARROW_TYPES = {
    TraitType.BOOLEAN: (pa.types.is_boolean, pa.bool_(), "true or false"),
    TraitType.CONTINUOUS: (lambda t: pa.types.is_floating(t) or pa.types.is_integer(t), pa.float64(), "numbers"),
    TraitType.CATEGORICAL: (lambda t: pa.types.is_string(t) or pa.types.is_large_string(t), pa.string(), "text"),
}


@dataclass(frozen=True)
class Jupyter:
    """The interpreter of the notebooks' environment, and how long one notebook may take."""

    python: Path
    seconds: int


class NotebookFailed(Exception):
    """The notebook did not run to its end or left something else than it declares; says what to do."""


@dataclass(frozen=True)
class Outcome:
    """What a notebook left: user_id and value of its trait, and what it measured."""

    values: pa.Table
    metrics: dict[str, float]


def run(jupyter: Jupyter, content: bytes, folder: Path, trait: str, kind: TraitType) -> Outcome:
    """Runs the notebook over the folder's inputs. Raises NotebookFailed."""
    (folder / "home").mkdir(exist_ok=True)
    (folder / "outputs").mkdir(exist_ok=True)
    (folder / "notebook.ipynb").write_bytes(content)
    executed = folder / "executed.ipynb"
    said: list[str] = []
    try:
        code = contained.run(
            [jupyter.python.absolute(), "-m", "papermill", "notebook.ipynb", executed, "--no-progress-bar"],
            folder=folder,
            environment=_environment(jupyter, folder),
            seconds=jupyter.seconds,
            on_line=said.append,
        )
    except contained.TimedOut:
        raise NotebookFailed(f"took longer than {jupyter.seconds} seconds") from None
    if code != 0:
        raise NotebookFailed(_what_failed(executed, code))
    return Outcome(_read_values(folder / "outputs" / f"{trait}.parquet", trait, kind), _read_metrics(folder))


def _environment(jupyter: Jupyter, folder: Path) -> dict[str, str]:
    return {
        "PATH": f"{jupyter.python.absolute().parent}:{os.defpath}",
        "HOME": str((folder / "home").absolute()),
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "TRAITMESH_RUN_DIR": str(folder.absolute()),
        **telemetry.child_environment(),
    }


def _what_failed(executed: Path, code: int) -> str:
    """Cell and kind of the error; its message only if it is sure to hold no row's values."""
    try:
        cells = json.loads(executed.read_bytes())["cells"]
    except (OSError, ValueError, KeyError):
        return f"could not be started (exit code {code}); is its environment complete?"
    # Papermill puts notes of its own in front of what it shows as failed.
    own = [cell for cell in cells if _NOTE not in cell.get("metadata", {}).get("tags", ())]
    for number, cell in enumerate(own, 1):
        for output in cell.get("outputs", []):
            if output.get("output_type") == "error":
                kind = str(output.get("ename"))[:100]
                message = f": {str(output.get('evalue'))[:1000]}" if kind in _SPEAKING_ERRORS else ""
                return f"its cell {number} raised {kind}{message}; run the notebook by hand to see more"
    return f"ended with exit code {code}; its kernel may have run out of memory"


def _read_values(path: Path, trait: str, kind: TraitType) -> pa.Table:
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise NotebookFailed(f"published no {trait}; end it with publish_trait({trait!r}, frame)") from None
    except (OSError, pa.ArrowException):
        raise NotebookFailed(f"left an outputs/{trait}.parquet that is no Parquet file") from None
    if set(table.column_names) != {KEY, "value"}:
        raise NotebookFailed(f"outputs/{trait}.parquet must have the columns {KEY} and value")
    fits, stored, expected = _ARROW_TYPES[kind]
    if not fits(table["value"].type):
        raise NotebookFailed(f"published {table['value'].type} for {trait}, but a {kind} trait is {expected}")
    users = table[KEY].cast(pa.string())
    if users.null_count or pc.count_distinct(users).as_py() != table.num_rows:
        raise NotebookFailed(f"outputs/{trait}.parquet must have one row per {KEY}, none of them null")
    values = table["value"].cast(stored)
    if kind is TraitType.CONTINUOUS and not pc.all(pc.is_finite(values), min_count=0).as_py():
        raise NotebookFailed(f"published values of {trait} that are infinite or no number; leave these users out")
    return pa.table({KEY: users, "value": values})


def _read_metrics(folder: Path) -> dict[str, float]:
    try:
        metrics = json.loads((folder / "outputs" / "metrics.json").read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError:
        raise NotebookFailed("left an outputs/metrics.json that is no JSON") from None
    if not _are_metrics(metrics):
        raise NotebookFailed(f"outputs/metrics.json must hold at most {MAX_METRICS} finite numbers by name")
    return {name: float(value) for name, value in metrics.items()}


def _are_metrics(metrics: Any) -> bool:
    if not isinstance(metrics, Mapping) or len(metrics) > MAX_METRICS:
        return False
    return all(
        names.COLUMN_ID.fullmatch(name) and type(value) in {int, float} and math.isfinite(value)
        for name, value in metrics.items()
    )


def put_table(warehouse: Warehouse, table: str, folder: Path) -> None:
    """Puts a whole table where a notebook looks for it, in one order, so that the same rows give the same values."""
    order = ", ".join(str(place) for place, _ in enumerate(warehouse.describe(table), 1))
    put_input(warehouse, f"SELECT * FROM {warehouse.table(table)} ORDER BY {order}", folder, table)  # noqa: S608


def put_input(warehouse: Warehouse, select: str, folder: Path, name: str) -> None:
    """Writes the rows of a SELECT where a notebook looks for the input `name`."""
    rows = warehouse.query(select)
    with pq.ParquetWriter(folder / "inputs" / f"{name}.parquet", rows.schema) as writer:
        for batch in rows:
            writer.write_batch(batch)


def land(warehouse: Warehouse, table: str, values: pa.Table) -> None:
    """Makes the values the whole content of a table of the warehouse."""
    kinds = {pa.bool_(): "BOOLEAN", pa.float64(): "DOUBLE PRECISION", pa.string(): "VARCHAR"}
    empty = f"SELECT CAST(NULL AS VARCHAR) AS {KEY}, CAST(NULL AS {kinds[values['value'].type]}) AS value WHERE FALSE"
    with warehouse.transaction() as transaction:
        transaction.drop(table)
        transaction.create_table_as(table, empty)
        transaction.append(table, values)
