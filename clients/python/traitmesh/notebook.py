"""What a notebook needs to make a trait: read the model, publish a column, record how good it is.

    from traitmesh.notebook import log_metric, publish_trait, read_model, read_table

In a managed run the builder sets `TRAITMESH_RUN_DIR` and has put a pinned snapshot of the
notebook's inputs there; what is published and recorded is left there for the builder to audit.
By hand, the model is read from the build that serves, and nothing is published or recorded.
Everything is checked when it is called, so that a mistake shows in the cell that made it.
"""

import io
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pandas.api import types

from traitmesh.client import ApiError, Client
from traitmesh.settings import SettingsError

RUN_DIR = "TRAITMESH_RUN_DIR"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_TABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\.[A-Za-z_][A-Za-z0-9_]*")


class NotebookError(Exception):
    """Something in the notebook must be changed; the message says what, without row values."""


class NotInRun(NotebookError):
    """Data was asked for outside a managed run, where there is none to give."""


def read_model(columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Return the user model's traits: one row per user, with `user_id` first.

    In a managed run these are the traits made so far. By hand they are those of the build that
    serves, read through the gateway that `TRAITMESH_URL`, `TRAITMESH_API_KEY` and
    `TRAITMESH_WORKSPACE`, or a client.json, name. `columns` limits it to these traits. Raises
    NotInRun if no gateway is named, and NotebookError for a column that the model does not have
    and for what the gateway refuses.
    """
    run = _run_dir()
    if run is None:
        return _serving_model(columns)
    path = run / "inputs" / "model.parquet"
    if not path.exists():
        raise NotebookError("This run has no user model yet: no trait was built before it.")
    return pd.read_parquet(path, columns=_wanted(columns, pq.read_schema(path).names))


def read_table(name: str) -> pd.DataFrame:
    """Return a table of the warehouse, such as "dbt.user_activity_windows".

    The table must be among the `inputs` of the notebook's metadata. Raises NotInRun outside a
    managed run and NotebookError for a table that is not an input.
    """
    inputs = _inputs()
    path = inputs / f"{name}.parquet"
    if not _TABLE.fullmatch(name) or not path.exists():
        known = sorted(file.stem for file in inputs.glob("*.*.parquet"))
        raise NotebookError(
            f"{name!r} is not an input of this notebook. Inputs: {_listed(known) or 'none'}. "
            'Add it in the notebook\'s metadata: {"traitmesh": {"inputs": ["<schema>.<table>"]}}.'
        )
    return pd.read_parquet(path)


def publish_trait(trait_id: str, frame: pd.DataFrame, *, key: str = "user_id", value: str | None = None) -> None:
    """Publish one value per user as the trait `trait_id`.

    `frame` has a row per user: `key` is the column of user ids (text, no two equal), `value` the
    column of values, by default the one named like the trait, else the only other column. Numbers
    (all finite) make a continuous trait, true and false a boolean, text a categorical. A user
    without a value is left out of the frame. Published again, the last frame counts. Raises
    NotebookError, with how many rows are wrong, and then publishes nothing.
    """
    _check_name("trait id", trait_id)
    if frame.empty:
        raise NotebookError(f"The frame for {trait_id} has no rows.")
    keys = _keys(frame, key)
    values = _values(frame, _value_column(frame, trait_id, key, value))
    table = pa.table({"user_id": keys, "value": values})
    run = _run_dir()
    if run is None:
        print(
            f"{trait_id}: {table.num_rows:,} values are fine, and not published. Push the notebook with "
            "`traitmesh notebook push FILE`: each build then runs it and publishes them."
        )
        return
    path = run / "outputs" / f"{trait_id}.parquet"
    path.parent.mkdir(exist_ok=True)
    part = path.with_suffix(".part")
    pq.write_table(table, part)
    part.replace(path)


def log_metric(name: str, value: float) -> None:
    """Record a finite number about this run, such as `auc`; the last value of a name counts."""
    _check_name("metric", name)
    number = _finite(name, value)
    run = _run_dir()
    if run is None:
        print(f"{name} = {number:g} (recorded when a build runs the notebook)")
        return
    path = run / "outputs" / "metrics.json"
    path.parent.mkdir(exist_ok=True)
    metrics = json.loads(path.read_text()) if path.exists() else {}
    part = path.with_suffix(".part")
    part.write_text(json.dumps({**metrics, name: number}, indent=2))
    part.replace(path)


def _run_dir() -> Path | None:
    folder = os.environ.get(RUN_DIR)
    return Path(folder) if folder else None


def _inputs() -> Path:
    run = _run_dir()
    if run is None:
        raise NotInRun(
            "Tables are read in a managed run: push the notebook with `traitmesh notebook push FILE` and start "
            "a build, which runs it on a pinned snapshot. By hand, read_model() reads the model of the build "
            f"that serves; for tables, set {RUN_DIR} to a folder with inputs/<schema>.<table>.parquet."
        )
    return run / "inputs"


def _wanted(columns: Sequence[str] | None, known: Sequence[str]) -> list[str]:
    """The columns to read, `user_id` first. Raises NotebookError for some that are not known."""
    if columns is None:
        return list(known)
    unknown = sorted(set(columns) - set(known))
    if unknown:
        raise NotebookError(f"The model has no {_listed(unknown)}. It has: {_listed(known)}.")
    return ["user_id", *(name for name in columns if name != "user_id")]


def _serving_model(columns: Sequence[str] | None) -> pd.DataFrame:
    """The model of the build that serves, over REST."""
    try:
        with Client.from_settings() as client:
            return _read_build(client, columns)
    except SettingsError as error:
        raise NotInRun(f"The model of the build that serves is read through the gateway: {error}.") from error
    except ApiError as error:
        raise NotebookError(f"The gateway refuses: {error.detail}.") from error
    except httpx.TransportError as error:
        raise NotebookError(f"The gateway does not answer ({type(error).__name__}); is it up?") from error


def _read_build(client: Client, columns: Sequence[str] | None) -> pd.DataFrame:
    build = client.get("builds/latest")
    traits = client.get(f"/v1/{build['modelRevision']}")["traits"]
    known = ["user_id", *(trait["name"].rpartition("/")[2] for trait in traits)]
    wanted = _wanted(columns, known)
    # The gateway takes no trait for all of them, so of a model without traits one is read and left out.
    asked = wanted[1:] or known[1:2]
    answer = io.BufferedReader(_Pieces(client.stream(f"/v1/{build['name']}:read", traits=asked)))
    with pa.ipc.open_stream(answer) as batches:
        frame: pd.DataFrame = batches.read_all().select(wanted).to_pandas()
    return frame


class _Pieces(io.RawIOBase):
    """Pieces of bytes as a file, of which no more than one is held."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = memoryview(next(self._pieces, b""))
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def _check_name(what: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise NotebookError(
            f"{name!r} is not a {what}: it takes a small letter, then up to 62 small letters, digits or underscores."
        )


def _finite(name: str, value: float) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise NotebookError(f"The metric {name} is a {type(value).__name__}, no number.") from None
    if not math.isfinite(number):
        raise NotebookError(f"The metric {name} is {number}; it must be a finite number.")
    return number


def _column(frame: pd.DataFrame, name: str) -> "pd.Series[Any]":
    found = list(frame.columns).count(name)
    if found != 1:
        raise NotebookError(
            f"The frame has {found or 'no'} column{'s' * (found > 1)} named {name!r}. It has: {_listed(frame.columns)}."
        )
    return frame[name]


def _value_column(frame: pd.DataFrame, trait_id: str, key: str, value: str | None) -> str:
    if value is not None:
        return value
    others = [name for name in frame.columns if name != key]
    if trait_id in others:
        return trait_id
    if len(others) != 1:
        raise NotebookError(
            f"Which column holds the values of {trait_id}? The frame has: {_listed(others)}. Say value=<column>."
        )
    return str(others[0])


def _keys(frame: pd.DataFrame, key: str) -> pa.Array:
    keys = _column(frame, key)
    missing = int(keys.isna().sum())
    if missing:
        raise NotebookError(f"{_of(missing, keys)} in {key!r} are missing.")
    if not types.is_string_dtype(keys):
        raise NotebookError(f"{key!r} holds {keys.dtype}; user ids are text.")
    twice = int(keys.duplicated().sum())
    if twice:
        raise NotebookError(f"{_of(twice, keys)} in {key!r} repeat a user; keep one per user.")
    return pa.array(keys, type=pa.string())


def _values(frame: pd.DataFrame, name: str) -> pa.Array:
    values = _column(frame, name)
    missing = int(values.isna().sum())
    if missing:
        raise NotebookError(f"{_of(missing, values)} in {name!r} are missing; leave out users without a value.")
    if types.is_bool_dtype(values):
        return pa.array(values.astype(bool), type=pa.bool_())
    if types.is_numeric_dtype(values) and not types.is_complex_dtype(values):
        return _numbers(values, name)
    text = values.astype(object)
    if types.is_string_dtype(text):
        return pa.array(text, type=pa.string())
    raise NotebookError(f"{name!r} holds {values.dtype}; a trait is numbers, true and false, or text.")


def _numbers(values: "pd.Series[Any]", name: str) -> pa.Array:
    numbers = values.astype("float64")
    infinite = int(numbers.map(math.isinf).sum())
    if infinite:
        raise NotebookError(f"{_of(infinite, values)} in {name!r} are infinite.")
    return pa.array(numbers, type=pa.float64())


def _of(count: int, values: "pd.Series[Any]") -> str:
    return f"{count:,} of {len(values):,} values"


def _listed(names: Iterable[object]) -> str:
    return ", ".join(str(name) for name in names)
