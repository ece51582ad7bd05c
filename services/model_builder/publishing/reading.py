"""Reads builds that were published: one as it was, or two side by side."""

# ruff: noqa: S608  (identifiers are quoted, values are parameters)

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from libs.warehouse import Warehouse
from services.model_builder.domain import KEY, MODEL_TABLE, Trait, common_traits


@dataclass(frozen=True)
class Comparison:
    """How many rows and values differ between two builds; `changed_values` by trait, without zeros."""

    added_rows: int
    removed_rows: int
    changed_rows: int
    changed_values: dict[str, int]


def read(warehouse: Warehouse, snapshot: int, traits: Sequence[str]) -> pa.RecordBatchReader:
    """The model as a snapshot holds it: user_id, then these traits. Raises SnapshotExpired."""
    listed = ", ".join(warehouse.quote(column) for column in (KEY, *traits))
    return warehouse.query(f"SELECT {listed} FROM {warehouse.table(MODEL_TABLE, at=snapshot or None)}")


def compare(
    warehouse: Warehouse, base: int, build: int, base_traits: Sequence[Trait], build_traits: Sequence[Trait]
) -> Comparison:
    """Compares two snapshots of the model, each with the traits that it had. Raises SnapshotExpired."""
    common = common_traits(base_traits, build_traits)
    differs = [_differs(warehouse, before, after) for before, after in common]
    any_differs = " OR ".join(differs) or "FALSE"
    values = "".join(f", {_count(condition)} AS v{number}" for number, condition in enumerate(differs))
    both = "b.user_id IS NOT NULL AND a.user_id IS NOT NULL"
    found = warehouse.query(
        f"SELECT {_count('b.user_id IS NULL')} AS added, {_count('a.user_id IS NULL')} AS removed,"
        f" {_count(f'{both} AND ({any_differs})')} AS changed{values}"
        f" FROM {warehouse.table(MODEL_TABLE, at=base)} AS b"
        f" FULL JOIN {warehouse.table(MODEL_TABLE, at=build)} AS a ON a.user_id = b.user_id"
    )
    [row] = found.read_all().to_pylist()
    counts = {after.id: row[f"v{number}"] for number, (_, after) in enumerate(common)}
    return Comparison(
        row["added"], row["removed"], row["changed"], {trait: count for trait, count in counts.items() if count}
    )


def _differs(warehouse: Warehouse, before: Trait, after: Trait) -> str:
    column = warehouse.quote(after.id)
    old, new = f"b.{column}", f"a.{column}"
    if before.type is not after.type:
        old, new = f"CAST({old} AS VARCHAR)", f"CAST({new} AS VARCHAR)"
    return f"(b.user_id IS NOT NULL AND a.user_id IS NOT NULL AND {old} IS DISTINCT FROM {new})"


def _count(condition: str) -> str:
    return f"count(CASE WHEN {condition} THEN 1 END)"


def as_stream(reader: pa.RecordBatchReader, piece_bytes: int) -> Iterator[bytes]:
    """The rows as an Arrow IPC stream, cut into pieces of at most `piece_bytes`."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch)
            yield from _take_all(sink, piece_bytes)
    yield from _take_all(sink, piece_bytes)


def _take_all(sink: io.BytesIO, piece_bytes: int) -> Iterator[bytes]:
    written = sink.getvalue()
    sink.seek(0)
    sink.truncate()
    for start in range(0, len(written), piece_bytes):
        yield written[start : start + piece_bytes]
