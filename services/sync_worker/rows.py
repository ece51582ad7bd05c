"""The rows that a sync sends: how they are read from the model, told apart, and written as the destination's records.

The model is read as the columns `key` and `field0`, `field1`, ..., one for each mapping, so that no trait's name can
mean anything else in a query.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import duckdb
import pyarrow as pa

from libs import warehouse as wh
from libs.kit import errors
from services.sync_worker import domain


@dataclass(frozen=True)
class Rows:
    """The rows of one snapshot. The properties that are SQL are for DuckDB, over the columns of `reader`."""

    sync: domain.Sync
    count: int
    reader: pa.RecordBatchReader

    @classmethod
    def read(cls, warehouse: wh.Warehouse, sync: domain.Sync, snapshot: int | None) -> "Rows":
        """Begins to read a snapshot (None where the engine has none).

        Raises NotReady if it lacks a column of the sync, and what a warehouse raises.
        """
        table = warehouse.table(domain.MODEL_TABLE, at=snapshot)
        _require_traits(sync, set(warehouse.query(f"SELECT * FROM {table} LIMIT 0").schema.names))  # noqa: S608 -- quoted
        where = f" WHERE {warehouse.quote(sync.audience)} IS TRUE" if sync.audience else ""
        count = _count_keys(warehouse, f"{table}{where}")
        fields = (f"{warehouse.quote(mapping.source)} AS field{i}" for i, mapping in enumerate(sync.mappings))
        columns = ", ".join([f"{warehouse.quote(domain.KEY)} AS key", *fields])
        return cls(sync, count, warehouse.query(f"SELECT {columns} FROM {table}{where}"))  # noqa: S608 -- quoted

    @property
    def payload(self) -> str:
        """SQL: the record as canonical JSON, fields in mapped order. Its parameters are `parameters`."""
        values = (f"$name{i}, {_json_value(f'field{i}', kind)}" for i, kind in enumerate(self._kinds))
        return f"json_object({', '.join(values)})::VARCHAR"

    @property
    def fingerprints(self) -> tuple[str, str]:
        """SQL: two numbers that together change whenever the payload does. Their parameter is `$salt`.

        A model's columns are booleans, numbers, texts and moments, of which equal ones give equal JSON. DuckDB hashes
        each value by itself and then mixes, so that another salt alone would leave two texts of one hash alike in
        both numbers; for the second, all texts are one.
        """
        fields = [f"field{i}" for i in range(len(self._kinds))]
        texts = [field for field, kind in zip(fields, self._kinds, strict=True) if _is_text(kind)]
        others = [field for field in fields if field not in texts]
        joined = ", ".join(["'+'", "''", *texts])
        return f"hash($salt, {', '.join(fields)})", f"hash({', '.join(['$salt', *others])}, concat_ws({joined}))"

    @property
    def parameters(self) -> dict[str, str]:
        """The destination's names of the fields, and the salt of fingerprints.

        Fingerprints compare only where rows become payloads in one way, and DuckDB's hashes only within one version
        of it: whatever decides is in the salt, so that other fingerprints simply differ.
        """
        names = {f"name{i}": mapping.destination for i, mapping in enumerate(self.sync.mappings)}
        decisive = repr((duckdb.__version__, self.payload, names, list(map(str, self._kinds))))
        return names | {"salt": hashlib.sha256(decisive.encode()).hexdigest()}

    @property
    def record_schema(self) -> dict[str, Any]:
        """The JSON schema of the payloads."""
        kinds = zip(self.sync.mappings, self._kinds, strict=True)
        return {"type": "object", "properties": {mapping.destination: _json_type(kind) for mapping, kind in kinds}}

    @cached_property
    def _kinds(self) -> list[pa.DataType]:
        return [self.reader.schema.field(f"field{i}").type for i in range(len(self.sync.mappings))]


def _require_traits(sync: domain.Sync, there: set[str]) -> None:
    sent = {mapping.source for mapping in sync.mappings}
    missing = sorted({*sent, *filter(None, [sync.audience])} - there)
    if missing:
        raise errors.NotReady(
            f"the model has no trait {', '.join(missing)} any more, which {sync.name} sends; "
            "bring it back and build, or make another sync"
        )


def _count_keys(warehouse: wh.Warehouse, rows: str) -> int:
    key = warehouse.quote(domain.KEY)
    counts = f"SELECT count(*) AS total, count({key}) AS present, count(DISTINCT {key}) AS distinct_keys FROM {rows}"  # noqa: S608
    (found,) = warehouse.query(counts).read_all().to_pylist()
    nulls, repeated = found["total"] - found["present"], found["present"] - found["distinct_keys"]
    if nulls or repeated:
        raise wh.KeyViolation(domain.MODEL_TABLE, domain.KEY, nulls, repeated)
    return int(found["total"])


def _json_value(column: str, kind: pa.DataType) -> str:
    """SQL for a column's value in JSON: equal values give equal text, and what JSON lacks gives null."""
    if pa.types.is_floating(kind):
        # Adding zero makes one zero of the two.
        return f"CASE WHEN isfinite({column}) THEN {column}::DOUBLE + 0.0 END"
    if pa.types.is_timestamp(kind):
        return f"strftime(make_timestamp(epoch_us({column})), '%Y-%m-%dT%H:%M:%S.%fZ')"
    if pa.types.is_date(kind):
        return f"strftime({column}, '%Y-%m-%d')"
    return column


def _json_type(kind: pa.DataType) -> dict[str, Any]:
    if pa.types.is_timestamp(kind):
        return {"type": ["string", "null"], "format": "date-time"}
    if pa.types.is_date(kind):
        return {"type": ["string", "null"], "format": "date"}
    tests = {
        "boolean": pa.types.is_boolean,
        "integer": pa.types.is_integer,
        "number": lambda k: pa.types.is_floating(k) or pa.types.is_decimal(k),
        "string": _is_text,
    }
    name = next((name for name, test in tests.items() if test(kind)), "object")
    return {"type": [name, "null"]}


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
