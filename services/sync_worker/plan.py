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
- `fingerprint_a`, `fingerprint_b`: of the row that the payload was made of (see rows.py), null for a delete

Behind the records, without an ordinal, are the keys of rows that look different and whose payload is confirmed all the
same: the next state takes their fingerprints over, so that they need not be looked at again.

The file's metadata holds the record's JSON schema.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pyarrow.parquet as pq

from libs import warehouse as wh
from libs.kit import errors
from services.sync_worker import domain
from services.sync_worker.engine import open_duckdb
from services.sync_worker.files import written_once
from services.sync_worker.rows import Rows
from services.sync_worker.state import load_state

SCHEMA_KEY = b"record_schema"

#: What is to be looked at more closely: all but the rows that look as they did when their payload was confirmed.
#: `payload` is null for keys that the source lacks; `target` is the payload hash that the destination should hold,
#: empty for nothing.
DIFFERING = """
CREATE TEMP TABLE differing AS
SELECT
    *,
    coalesce(sha256(payload), '') AS target
FROM (
    SELECT
        coalesce(source.key, state.key) AS key,
        source.fingerprint_a,
        source.fingerprint_b,
        CASE WHEN source.key IS NOT NULL THEN {payload} END AS payload,
        state.* EXCLUDE (key, fingerprint_a, fingerprint_b)
    FROM (
        SELECT * REPLACE (key::VARCHAR AS key), {fingerprint_a} AS fingerprint_a, {fingerprint_b} AS fingerprint_b
        FROM model
    ) AS source FULL JOIN state ON source.key = state.key
    WHERE (
        state.sent IS NULL
        AND source.fingerprint_a = state.fingerprint_a
        AND source.fingerprint_b = state.fingerprint_b
    ) IS NOT TRUE
)
"""

COMPARED = """
SELECT
    key,
    payload,
    target,
    fingerprint_a,
    fingerprint_b,
    -- After another payload may have arrived, the same payload is another effect; negative, so that it differs from
    -- the base of what this run settles.
    CASE WHEN sent <> target THEN -$run ELSE coalesce(base, 0) END AS base,
    coalesce(sent = target, false) AS resend,
    CASE
        WHEN sent IS NULL AND coalesce(confirmed, '') = target THEN NULL
        WHEN NOT $retry_rejects AND rejected = target AND rejected_revision = $destination_revision THEN NULL
        WHEN payload IS NULL THEN 'deleted'
        WHEN coalesce(confirmed, '') = '' THEN 'added'
        ELSE 'changed'
    END AS change,
    sent IS NULL AND confirmed = target AND payload IS NOT NULL AS is_confirmed
FROM differing
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
        resend,
        fingerprint_a,
        fingerprint_b
    FROM ({COMPARED}) JOIN operations USING (change)
    ORDER BY resend DESC, key
)
"""  # noqa: S608 -- put together from constants

RECOGNISED = f"SELECT key, fingerprint_a, fingerprint_b FROM ({COMPARED}) WHERE is_confirmed"  # noqa: S608


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
    with written_once(path) as draft, _compared(warehouse, question, path.parent) as (connection, rows):
        copy = f"COPY ({PLANNED} UNION ALL BY NAME {RECOGNISED}) TO $target (FORMAT parquet, COMPRESSION zstd, "
        parameters = _planning(question) | {
            "target": str(draft),
            "record_schema": orjson.dumps(rows.record_schema).decode(),
        }
        connection.execute(f"{copy} KV_METADATA {{{SCHEMA_KEY.decode()}: $record_schema}})", parameters)


def count_plan(path: Path) -> dict[str, int]:
    """The records of a plan by change."""
    with duckdb.connect(":memory:") as connection:
        rows = connection.execute(
            "SELECT change, count(*) FROM read_parquet($path) WHERE ordinal IS NOT NULL GROUP BY change",
            {"path": str(path)},
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
    with _compared(warehouse, question, folder) as (connection, rows):
        connection.execute(f"CREATE TEMP TABLE planned AS {PLANNED}", _planning(question))
        counts = connection.execute("SELECT change, count(*) FROM planned GROUP BY change").fetchall()
        some = connection.execute(
            "SELECT operation, payload FROM planned ORDER BY ordinal LIMIT $limit", {"limit": limit}
        )
        operations = [(operation, orjson.loads(payload)) for operation, payload in some.fetchall()]
        sent = f"SELECT count(*) FROM ({COMPARED}) WHERE change IS NOT NULL AND payload IS NOT NULL"  # noqa: S608 -- as above
        (changed,) = connection.execute(sent, _comparing(question)).fetchone() or (0,)
    return Preview({domain.Change(change): count for change, count in counts}, rows.count - changed, operations)


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
) -> Iterator[tuple[duckdb.DuckDBPyConnection, Rows]]:
    """A database with the tables `differing` and `operations`, and the rows that were compared."""
    with open_duckdb(folder) as connection:
        load_state(connection, question.state)
        try:
            rows = Rows.read(warehouse, question.sync, question.snapshot)
            _find_differing(connection, rows)
        except wh.Unavailable as error:
            raise errors.Unavailable("the warehouse does not answer", part="warehouse") from error
        except wh.WarehouseError as error:
            raise errors.NotReady(f"the model cannot be read: {error}") from error
        operations = domain.OPERATIONS[question.sync.mode]
        connection.execute("CREATE TEMP TABLE operations (change VARCHAR, operation VARCHAR)")
        connection.executemany(
            "INSERT INTO operations VALUES (?, ?)", [[str(c), str(o)] for c, o in operations.items()]
        )
        yield connection, rows


def _find_differing(connection: duckdb.DuckDBPyConnection, rows: Rows) -> None:
    fingerprint_a, fingerprint_b = rows.fingerprints
    query = DIFFERING.format(payload=rows.payload, fingerprint_a=fingerprint_a, fingerprint_b=fingerprint_b)
    connection.register("model", rows.reader)
    # DuckDB cannot know how long a stream is. Joins keep their right side in memory: the state, not the wider model.
    connection.execute("SET disabled_optimizers = 'build_side_probe_side'")
    connection.execute(query, rows.parameters)
