"""The plan of a run: what differs between a build of the model and what the destination has confirmed.

Frozen as Parquet before anything is sent, one row per record, in the order of sending:

- `ordinal`: from 0
- `operation`, `key`, `change`
- `payload`: the destination's record as canonical JSON (fields in mapped order; the key alone for a delete)
- `payload_hash`: SHA-256 of the payload, empty for a delete
- `idempotency_key`: the same whenever this record is sent or planned again before it is settled, and different after
- `base`: what distinguishes equal payloads in idempotency keys: the run that settled the key last, or, negative, the
  run that sent this payload after another one may have arrived
- `resend`: whether an earlier run may have delivered this very record

The file's metadata holds the record's JSON schema.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from libs import warehouse as wh
from libs.kit import errors
from services.sync_worker import domain
from services.sync_worker.engine import open_duckdb
from services.sync_worker.files import written_once
from services.sync_worker.state import load_state

SCHEMA_KEY = b"record_schema"

#: `target` is the payload hash that the destination should hold, empty for nothing.
COMPARED = """
SELECT
    key,
    payload,
    coalesce(source.target, '') AS target,
    -- After another payload may have arrived, the same payload is another effect; negative, so that it differs from
    -- the base of what this run settles.
    CASE WHEN state.sent <> coalesce(source.target, '') THEN -$run ELSE coalesce(state.base, 0) END AS base,
    coalesce(state.sent = coalesce(source.target, ''), false) AS resend,
    CASE
        WHEN state.sent IS NULL AND coalesce(state.confirmed, '') = coalesce(source.target, '') THEN NULL
        WHEN NOT $retry_rejects AND state.rejected = coalesce(source.target, '')
            AND state.rejected_revision = $destination_revision THEN NULL
        WHEN source.target IS NULL THEN 'deleted'
        WHEN coalesce(state.confirmed, '') = '' THEN 'added'
        ELSE 'changed'
    END AS change
FROM source FULL JOIN state USING (key)
"""

#: What may have arrived goes first and in its old order, so that it makes up the same batches as before. Numbering the
#: sorted rows as they come, which DuckDB keeps in order, saves a second sort.
PLANNED = f"""
SELECT row_number() OVER () - 1 AS ordinal, *
FROM (
    SELECT
        operation,
        key,
        change,
        CASE change WHEN 'deleted' THEN json_object($key_field, key) ELSE payload END::VARCHAR AS payload,
        target AS payload_hash,
        sha256(json_array($sync, key, operation, target, base)::VARCHAR) AS idempotency_key,
        base,
        resend
    FROM ({COMPARED}) JOIN operations USING (change)
    ORDER BY resend DESC, key
)
"""  # noqa: S608 -- put together from constants


@dataclass(frozen=True)
class Question:
    """What is to be planned: a sync's rows of one snapshot (None where the engine has none) against a state."""

    sync: domain.Sync
    run: int
    snapshot: int | None
    state: Path | None
    destination_revision: int
    retry_rejects: bool


@dataclass(frozen=True)
class Preview:
    """What a run would do: records by change, rows left alone, and a few (operation, record)."""

    counts: Mapping[domain.Change, int]
    unchanged: int
    operations: Sequence[tuple[str, dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class PlannedRecord:
    """One row of a plan. `payload` is JSON."""

    ordinal: int
    operation: str
    key: str
    payload: str
    idempotency_key: str
    resend: bool


def write_plan(warehouse: wh.Warehouse, question: Question, path: Path) -> None:
    """Freezes the plan at `path`. A plan that is there already stays as it is.

    Raises NotReady if the snapshot lacks a column of the sync, or its keys are null or repeated; Unavailable.
    """
    if path.exists():
        return
    with written_once(path) as draft, _compared(warehouse, question, path.parent) as (connection, record_schema):
        copy = f"COPY ({PLANNED}) TO $target (FORMAT parquet, COMPRESSION zstd, "
        parameters = _planning(question) | {
            "target": str(draft),
            "record_schema": orjson.dumps(record_schema).decode(),
        }
        connection.execute(f"{copy} KV_METADATA {{{SCHEMA_KEY.decode()}: $record_schema}})", parameters)


def count_plan(path: Path) -> dict[str, int]:
    """The records of a plan by change."""
    with duckdb.connect(":memory:") as connection:
        rows = connection.execute(
            "SELECT change, count(*) FROM read_parquet($path) GROUP BY change", {"path": str(path)}
        )
        return dict(rows.fetchall())


def read_record_schema(path: Path) -> dict[str, Any]:
    """The JSON schema of a plan's records."""
    schema: dict[str, Any] = orjson.loads(pq.read_schema(path).metadata[SCHEMA_KEY])
    return schema


def read_records(path: Path, first_ordinal: int) -> Iterator[PlannedRecord]:
    """The records of a plan from an ordinal on, in order."""
    query = """
        SELECT ordinal, operation, key, payload, idempotency_key, resend
        FROM read_parquet($path) WHERE ordinal >= $first
    """
    with duckdb.connect(":memory:", config={"threads": 1}) as connection:
        reader = connection.execute(query, {"path": str(path), "first": first_ordinal}).to_arrow_reader(10_000)
        for batch in reader:
            for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                yield PlannedRecord(*row)


def preview(warehouse: wh.Warehouse, question: Question, folder: Path, *, limit: int) -> Preview:
    """Works the plan out without keeping it; `folder` is for what does not fit into memory."""
    with _compared(warehouse, question, folder) as (connection, _):
        connection.execute(f"CREATE TEMP TABLE planned AS {PLANNED}", _planning(question))
        counts = connection.execute("SELECT change, count(*) FROM planned GROUP BY change").fetchall()
        some = connection.execute(
            "SELECT operation, payload FROM planned ORDER BY ordinal LIMIT $limit", {"limit": limit}
        )
        operations = [(operation, orjson.loads(payload)) for operation, payload in some.fetchall()]
        left = f"SELECT count(*) FROM ({COMPARED}) WHERE change IS NULL AND target <> ''"  # noqa: S608 -- as above
        (unchanged,) = connection.execute(left, _comparing(question)).fetchone() or (0,)
    return Preview({domain.Change(change): count for change, count in counts}, unchanged, operations)


def _comparing(question: Question) -> dict[str, Any]:
    return {
        "run": question.run,
        "retry_rejects": question.retry_rejects,
        "destination_revision": question.destination_revision,
    }


def _planning(question: Question) -> dict[str, Any]:
    return _comparing(question) | {"sync": question.sync.name, "key_field": question.sync.key_field}


@contextmanager
def _compared(
    warehouse: wh.Warehouse, question: Question, folder: Path
) -> Iterator[tuple[duckdb.DuckDBPyConnection, dict[str, Any]]]:
    """A database with the tables `source` (key, payload, target), `state` and `operations`, and the record's schema."""
    with open_duckdb(folder) as connection:
        try:
            rows = warehouse.query(_model_query(warehouse, question))
            _load_source(connection, question.sync, rows)
        except wh.Unavailable as error:
            raise errors.Unavailable("the warehouse does not answer", part="warehouse") from error
        except wh.WarehouseError as error:
            raise errors.NotReady(f"the model cannot be read: {error}") from error
        load_state(connection, question.state)
        operations = domain.OPERATIONS[question.sync.mode]
        connection.execute("CREATE TEMP TABLE operations (change VARCHAR, operation VARCHAR)")
        connection.executemany(
            "INSERT INTO operations VALUES (?, ?)", [[str(c), str(o)] for c, o in operations.items()]
        )
        yield connection, _record_schema(question.sync, rows.schema)


def _model_query(warehouse: wh.Warehouse, question: Question) -> str:
    sync = question.sync
    table = warehouse.table(domain.MODEL_TABLE, at=question.snapshot)
    there = set(warehouse.query(f"SELECT * FROM {table} LIMIT 0").schema.names)  # noqa: S608 -- quoted by the engine
    sources = list(dict.fromkeys(mapping.source for mapping in sync.mappings))
    missing = sorted({*sources, *filter(None, [sync.audience])} - there)
    if missing:
        raise errors.NotReady(
            f"the model has no trait {', '.join(missing)} any more, which {sync.name} sends; "
            "bring it back and build, or make another sync"
        )
    columns = ", ".join(map(warehouse.quote, sources))
    where = f" WHERE {warehouse.quote(sync.audience)} IS TRUE" if sync.audience else ""
    return f"SELECT {columns} FROM {table}{where}"  # noqa: S608 -- quoted by the engine


def _load_source(connection: duckdb.DuckDBPyConnection, sync: domain.Sync, rows: pa.RecordBatchReader) -> None:
    fields: list[str] = []
    parameters: dict[str, str] = {}
    for index, mapping in enumerate(sync.mappings):
        parameters[f"field{index}"] = mapping.destination
        fields.append(f"$field{index}, {_json_value(mapping.source, rows.schema.field(mapping.source).type)}")
    connection.register("model", rows)
    connection.execute(
        f"""
        CREATE TEMP TABLE source AS
        SELECT key, payload, sha256(payload) AS target
        FROM (SELECT {domain.KEY}::VARCHAR AS key, json_object({", ".join(fields)})::VARCHAR AS payload FROM model)
        """,  # noqa: S608 -- trait ids are identifiers, fields are parameters
        parameters,
    )
    counts = "SELECT count(*) FILTER (key IS NULL), count(key) - count(DISTINCT key) FROM source"
    nulls, repeated = connection.execute(counts).fetchone() or (0, 0)
    if nulls or repeated:
        raise wh.KeyViolation(domain.MODEL_TABLE, domain.KEY, nulls, repeated)


def _json_value(column: str, kind: pa.DataType) -> str:
    """SQL for a column's value in JSON: equal values give equal text, and what JSON lacks gives null."""
    quoted = f'"{column}"'
    if pa.types.is_floating(kind):
        # Adding zero makes one zero of the two.
        return f"CASE WHEN isfinite({quoted}) THEN {quoted}::DOUBLE + 0.0 END"
    if pa.types.is_timestamp(kind):
        return f"strftime(make_timestamp(epoch_us({quoted})), '%Y-%m-%dT%H:%M:%S.%fZ')"
    if pa.types.is_date(kind):
        return f"strftime({quoted}, '%Y-%m-%d')"
    return quoted


def _record_schema(sync: domain.Sync, schema: pa.Schema) -> dict[str, Any]:
    properties = {m.destination: _json_type(schema.field(m.source).type) for m in sync.mappings}
    return {"type": "object", "properties": properties}


def _json_type(kind: pa.DataType) -> dict[str, Any]:
    if pa.types.is_timestamp(kind):
        return {"type": ["string", "null"], "format": "date-time"}
    if pa.types.is_date(kind):
        return {"type": ["string", "null"], "format": "date"}
    tests = {
        "boolean": pa.types.is_boolean,
        "integer": pa.types.is_integer,
        "number": lambda k: pa.types.is_floating(k) or pa.types.is_decimal(k),
        "string": lambda k: pa.types.is_string(k) or pa.types.is_large_string(k),
    }
    name = next((name for name, test in tests.items() if test(kind)), "object")
    return {"type": [name, "null"]}
