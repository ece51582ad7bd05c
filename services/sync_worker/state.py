"""The state of a sync: record by record, what the destination is known to hold.

Immutable Parquet, made by each run that changed it, one row for each key that was ever settled or sent:

- `key`
- `confirmed`: payload hash that the destination holds, empty if it holds nothing (never did, or deleted)
- `sent`: payload hash that may have arrived instead, null if none: it was sent and never answered
- `rejected`, `rejected_revision`: the payload hash that was refused last (empty for a delete), and by which
  destination revision; null if none
- `base`: the plan's base of what may have arrived, or else the run that settled the key last; 0 before
- `fingerprint_a`, `fingerprint_b`: of a row whose payload was the confirmed one (see rows.py); null if none is known,
  as in a state of before there were fingerprints

While little changes, a state holds the rows that differ from those of an earlier, whole one, which lies beside it.
"""

from collections.abc import Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

from services.sync_worker.domain import BatchState
from services.sync_worker.engine import open_duckdb
from services.sync_worker.files import keep_whole, whole_of, written_once
from services.sync_worker.ledger import Outcome, RejectedOrdinal

COLUMNS = (
    "key VARCHAR, confirmed VARCHAR, sent VARCHAR, rejected VARCHAR, rejected_revision INTEGER, base BIGINT, "
    "fingerprint_a UBIGINT, fingerprint_b UBIGINT"
)

WHOLE_TO_CHANGES = 8
"""A state is written whole again when its changes would be more than this part of it."""

#: A batch that counted rejects without naming them confirms nothing of its records.
TOUCHED = """
CREATE TEMP TABLE touched AS
WITH settled AS (
    SELECT plan.*, rejects.destination_revision AS revision,
        CASE
            WHEN plan.ordinal IS NULL THEN 'recognised'
            WHEN rejects.ordinal IS NOT NULL THEN 'rejected'
            WHEN batches.state = $confirmed AND batches.unnamed_rejects = 0 THEN 'confirmed'
            WHEN batches.state <> $planned THEN 'unknown'
        END AS outcome
    FROM plan
    LEFT JOIN batches ON batches.number = plan.ordinal // $batch_size
    LEFT JOIN rejects USING (ordinal)
)
SELECT
    settled.key,
    CASE outcome WHEN 'confirmed' THEN payload_hash ELSE coalesce(state.confirmed, '') END AS confirmed,
    CASE outcome WHEN 'unknown' THEN payload_hash WHEN 'confirmed' THEN NULL WHEN 'rejected' THEN NULL
        ELSE state.sent END AS sent,
    CASE outcome WHEN 'rejected' THEN payload_hash WHEN 'confirmed' THEN NULL ELSE state.rejected END AS rejected,
    CASE outcome WHEN 'rejected' THEN revision WHEN 'confirmed' THEN NULL ELSE state.rejected_revision END
        AS rejected_revision,
    CASE outcome WHEN 'unknown' THEN settled.base WHEN 'confirmed' THEN $run WHEN 'rejected' THEN $run
        ELSE state.base END AS base,
    CASE WHEN outcome IN ('confirmed', 'recognised') THEN settled.fingerprint_a ELSE state.fingerprint_a END
        AS fingerprint_a,
    CASE WHEN outcome IN ('confirmed', 'recognised') THEN settled.fingerprint_b ELSE state.fingerprint_b END
        AS fingerprint_b
FROM settled LEFT JOIN state USING (key)
WHERE outcome IS NOT NULL
"""

NEXT_STATE = """
COPY (FROM touched UNION ALL SELECT {kept}.* FROM {kept} ANTI JOIN touched USING (key))
TO $target (FORMAT parquet, COMPRESSION zstd)
"""


def write_next_state(
    old: Path | None,
    plan: Path,
    new: Path,
    *,
    run: int,
    batch_size: int,
    batches: Sequence[Outcome],
    rejects: Sequence[RejectedOrdinal],
) -> None:
    """Writes the state that a run leaves: the old one, and what its plan's batches became."""
    with written_once(new) as draft, open_duckdb(new.parent) as connection:
        load_state(connection, old)
        _load_file(connection, "plan", plan)
        _load_outcomes(connection, batches, rejects)
        parameters = {
            "confirmed": str(BatchState.CONFIRMED),
            "planned": str(BatchState.PLANNED),
            "batch_size": batch_size,
            "run": run,
        }
        connection.execute(TOUCHED, parameters)
        kept = "state"
        if old is not None and _changes_are_few(connection):
            keep_whole(old, new)
            kept = "changes"
        connection.execute(NEXT_STATE.format(kept=kept), {"target": str(draft)})


def load_state(connection: duckdb.DuckDBPyConnection, path: Path | None) -> None:
    """Makes a state, or the empty state, the view `state`: `changes`, and what these leave of `whole`."""
    connection.execute(f"CREATE TABLE nothing ({COLUMNS})")
    whole = None if path is None else whole_of(path)
    _load_file(connection, "whole", whole)
    _load_file(connection, "changes", None if path == whole else path)
    connection.execute(
        "CREATE VIEW state AS FROM changes UNION ALL SELECT whole.* FROM whole ANTI JOIN changes USING (key)"
    )


def _load_file(connection: duckdb.DuckDBPyConnection, view: str, file: Path | None) -> None:
    """Makes a file a view; columns of states that it lacks, such as what an older release did not know, are null."""
    stored = "nothing"
    if file is not None:
        stored = f"{view}_file"
        connection.read_parquet(str(file)).create_view(stored)
    connection.execute(f"CREATE VIEW {view} AS FROM nothing UNION ALL BY NAME FROM {stored}")


def _load_outcomes(
    connection: duckdb.DuckDBPyConnection, batches: Sequence[Outcome], rejects: Sequence[RejectedOrdinal]
) -> None:
    connection.register(
        "batches",
        pa.table(
            {
                "number": pa.array([batch.number for batch in batches], pa.int64()),
                "state": pa.array([str(batch.state) for batch in batches], pa.string()),
                "unnamed_rejects": pa.array([batch.unnamed_rejects for batch in batches], pa.int64()),
            }
        ),
    )
    connection.register(
        "rejects",
        pa.table(
            {
                "ordinal": pa.array([reject.ordinal for reject in rejects], pa.int64()),
                "destination_revision": pa.array([reject.destination_revision for reject in rejects], pa.int32()),
            }
        ),
    )


def _changes_are_few(connection: duckdb.DuckDBPyConnection) -> bool:
    query = """
        SELECT ((SELECT count(*) FROM changes) + (SELECT count(*) FROM touched)) * $part
            <= (SELECT count(*) FROM whole)
    """
    return connection.execute(query, {"part": WHOLE_TO_CHANGES}).fetchone() == (True,)
