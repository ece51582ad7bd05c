"""The profiles that a publication changed, as the JSON that is served."""

# ruff: noqa: S608  (identifiers are quoted, values are parameters)

from collections.abc import Iterator, Sequence
from typing import Any

import orjson
import pyarrow as pa

from libs.warehouse import SnapshotExpired, Warehouse
from services.model_builder.domain import KEY, MODEL_TABLE, Trait, TraitKind
from services.model_builder.store.profiles import Change


def changes_since(warehouse: Warehouse, base: int, head: int) -> pa.RecordBatchReader | None:
    """The model's rows that differ between two builds' snapshots; None if only the whole model can be told."""
    if not (base and warehouse.capabilities.changes):
        return None
    try:
        return warehouse.changes(MODEL_TABLE, base, head, KEY)
    except SnapshotExpired:
        return None


def whole_model(warehouse: Warehouse, snapshot: int) -> pa.RecordBatchReader:
    """Every row of the model as a build left it."""
    return warehouse.query(f"SELECT * FROM {warehouse.table(MODEL_TABLE, at=snapshot or None)}")


def bodies(rows: pa.RecordBatchReader, traits: Sequence[Trait]) -> Iterator[Change]:
    """A profile's body for each row; None for a user who is gone.

    A body is the members "traits" and "audiences" of a JSON object, without its braces.
    """
    stored = [trait.id for trait in traits if trait.kind is not TraitKind.DECIDED]
    audiences = [trait.id for trait in traits if trait.kind is TraitKind.DECIDED]
    for batch in rows:
        for row in batch.to_pylist():
            gone = row.get("_change") == "delete"
            yield row[KEY], None if gone else _body(row, stored, audiences)


def _body(row: dict[str, Any], stored: Sequence[str], audiences: Sequence[str]) -> bytes:
    values = {trait: row[trait] for trait in stored}
    members = [audience for audience in audiences if row[audience]]
    return orjson.dumps({"traits": values, "audiences": members})[1:-1]
