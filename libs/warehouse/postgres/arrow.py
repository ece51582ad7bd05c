"""PostgreSQL's rows as Arrow batches, and Arrow batches as what COPY reads."""

import io
from collections.abc import Sequence
from typing import Any

import psycopg
import pyarrow as pa
from psycopg.types.string import TextLoader
from pyarrow import csv

from libs.warehouse.interface import QueryError

_TYPES: dict[str, pa.DataType] = {
    "bool": pa.bool_(),
    "int2": pa.int16(),
    "int4": pa.int32(),
    "int8": pa.int64(),
    "float4": pa.float32(),
    "float8": pa.float64(),
    "text": pa.string(),
    "varchar": pa.string(),
    "bpchar": pa.string(),
    "name": pa.string(),
    "json": pa.string(),
    "jsonb": pa.string(),
    "uuid": pa.string(),
    "bytea": pa.binary(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", tz="UTC"),
}


def load_as_text(connection: psycopg.Connection[Any]) -> None:
    """Make the connection return documents and identifiers as text, not as Python objects."""
    for name in ("json", "jsonb", "uuid"):
        connection.adapters.register_loader(name, TextLoader)


def schema_of(columns: Sequence[psycopg.Column]) -> pa.Schema:
    """Return the Arrow schema of a result. Raises QueryError for a type without a counterpart."""
    return pa.schema([pa.field(column.name, _arrow_type(column)) for column in columns])


def _arrow_type(column: psycopg.Column) -> pa.DataType:
    known = psycopg.adapters.types.get(column.type_code)
    name = known.name if known else f"number {column.type_code}"
    if name == "numeric":
        # Without a declared precision an exact counterpart does not exist.
        exact = column.precision and column.precision <= 38
        return pa.decimal128(column.precision, column.scale) if exact else pa.float64()
    if name not in _TYPES:
        raise QueryError(f"column {column.name} has type {name}: cast it to a plain type")
    return _TYPES[name]


def batch_of(rows: Sequence[Sequence[Any]], schema: pa.Schema) -> pa.RecordBatch:
    """Return the rows as one batch."""
    columns = zip(*rows, strict=True)
    return pa.record_batch(
        [_array(column, field.type) for column, field in zip(columns, schema, strict=True)],
        schema=schema,
    )


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_floating(kind):
        values = [None if value is None else float(value) for value in values]
    return pa.array(values, kind)


def copy_text(batch: pa.RecordBatch) -> bytes:
    """Return the batch as CSV for COPY: null is an empty field, empty text is quoted.

    Raises QueryError for nested and binary columns.
    """
    for field in batch.schema:
        if pa.types.is_nested(field.type) or pa.types.is_binary(field.type):
            raise QueryError(f"column {field.name} of type {field.type} cannot be appended")
    text = io.BytesIO()
    csv.write_csv(batch, text, csv.WriteOptions(include_header=False))
    return text.getvalue()
