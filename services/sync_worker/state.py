"""The state of a sync: record by record, what the destination is known to hold.

An immutable Parquet file per run that changed it, one row for each key that was ever settled or sent:

- `key`
- `confirmed`: payload hash that the destination holds, empty if it holds nothing (never did, or deleted)
- `sent`: payload hash that may have arrived instead, null if none: it was sent and never answered
- `rejected`, `rejected_revision`: the payload hash that was refused last (empty for a delete), and by which
  destination revision; null if none
- `base`: the plan's base of what may have arrived, or else the run that settled the key last; 0 before
"""

from collections.abc import Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

from services.sync_worker.domain import BatchState
from services.sync_worker.engine import open_duckdb
from services.sync_worker.files import written_once
from services.sync_worker.ledger import Outcome, RejectedOrdinal

COLUMNS = "key VARCHAR, confirmed VARCHAR, sent VARCHAR, rejected VARCHAR, rejected_revision INTEGER, base BIGINT"

#: A batch that counted rejects without naming them confirms nothing of its records.
NEXT_STATE = """
COPY (
    WITH settled AS (
        SELECT plan.key, plan.payload_hash, plan.base, rejects.destination_revision AS revision,
            CASE
                WHEN rejects.ordinal IS NOT NULL THEN 'rejected'
                WHEN batches.state = $confirmed AND batches.unnamed_rejects = 0 THEN 'confirmed'
                WHEN batches.state <> $planned THEN 'unknown'
            END AS outcome
        FROM plan
        JOIN batches ON batches.number = plan.ordinal // $batch_size
        LEFT JOIN rejects USING (ordinal)
    )
    SELECT
        key,
        CASE outcome WHEN 'confirmed' THEN payload_hash ELSE coalesce(state.confirmed, '') END AS confirmed,
        CASE outcome WHEN 'unknown' THEN payload_hash WHEN 'confirmed' THEN NULL WHEN 'rejected' THEN NULL
            ELSE state.sent END AS sent,
        CASE outcome WHEN 'rejected' THEN payload_hash WHEN 'confirmed' THEN NULL ELSE state.rejected END AS rejected,
        CASE outcome WHEN 'rejected' THEN revision WHEN 'confirmed' THEN NULL ELSE state.rejected_revision END
            AS rejected_revision,
        CASE outcome WHEN 'unknown' THEN settled.base WHEN 'confirmed' THEN $run WHEN 'rejected' THEN $run
            ELSE state.base END AS base
    FROM state FULL JOIN (SELECT * FROM settled WHERE outcome IS NOT NULL) AS settled USING (key)
) TO $target (FORMAT parquet, COMPRESSION zstd)
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
        connection.read_parquet(str(plan)).create_view("plan")
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
        connection.execute(
            NEXT_STATE,
            {
                "confirmed": str(BatchState.CONFIRMED),
                "planned": str(BatchState.PLANNED),
                "batch_size": batch_size,
                "run": run,
                "target": str(draft),
            },
        )


def load_state(connection: duckdb.DuckDBPyConnection, path: Path | None) -> None:
    """Makes a state file, or the empty state, the view or table `state`."""
    if path is None:
        connection.execute(f"CREATE TABLE state ({COLUMNS})")
    else:
        connection.read_parquet(str(path)).create_view("state")
