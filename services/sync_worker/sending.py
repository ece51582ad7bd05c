"""Sending: the plan's batches that are not confirmed go to the connector, and its answers into the ledger.

The connector's process gets the configuration here, opened from its seal, and nowhere else.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import structlog
from sqlalchemy import Engine, Row

from libs.kit import telemetry
from libs.kit.seal import Seal
from services.sync_worker import ledger, plan, store
from services.sync_worker.connectors import Connector, masked
from services.sync_worker.domain import AIRBYTE_MODES, BatchState, Operation, RunName, Sync
from traitmesh_connector import runner
from traitmesh_connector.protocol import Stream, record_line

#: One that the connector writes and one that waits for it: more would only be more to send again after a crash.
UNACKED_BATCHES = 2

log = structlog.get_logger()


@dataclass(frozen=True)
class Delivery:
    """What is sent, where, and by what. `destination` is the row that the attempt began with."""

    run: RunName
    sync: Sync
    plan: Path
    connector: Connector
    destination: Row[Any]


class Attempt:
    """One attempt to send what remains of a run. `stopping` is asked before each batch whether to end early.

    `confirmed_batches` counts up while it works.
    """

    def __init__(self, engine: Engine, seal: Seal, delivery: Delivery, stopping: Callable[[], bool]) -> None:
        self._engine = engine
        self._seal = seal
        self._delivery = delivery
        self._stopping = stopping
        self._in_flight: dict[int, list[plan.PlannedRecord]] = {}
        self._epoch = 0
        self.confirmed_batches = 0

    def send(self) -> bool:
        """Sends until nothing remains, which is True, or until it was told to stop.

        Raises traitmesh_connector.errors.ConnectorError, and Conflict if a newer attempt took the run over.
        """
        run = self._delivery.run
        with self._engine.begin() as tx:
            self._epoch = ledger.begin_attempt(tx, run)
            remaining = ledger.remaining_batches(tx, run)
        if remaining:
            self._write(remaining)
        with self._engine.begin() as tx:
            return not ledger.remaining_batches(tx, run)

    def _write(self, remaining: list[ledger.Batch]) -> None:
        delivery = self._delivery
        stream = stream_of(delivery.sync, plan.read_record_schema(delivery.plan))
        with telemetry.TRACER.start_as_current_span(f"{delivery.connector.id} write"):
            runner.write(
                delivery.connector.program,
                open_config(self._seal, delivery.destination),
                stream,
                self._batches(remaining, stream),
                self._confirm,
                max_unacked_batches=UNACKED_BATCHES,
                environment=telemetry.child_environment(),
                on_config=self._keep_config,
            )

    def _batches(self, remaining: list[ledger.Batch], stream: Stream) -> Iterator[runner.Batch]:
        """The batches as the connector is given them; being asked for one means that it is about to be sent."""
        records = plan.read_records(self._delivery.plan, remaining[0].first_ordinal)
        position = remaining[0].first_ordinal
        for batch in remaining:
            if self._stopping():
                return
            # Confirmed batches may lie between two that are not.
            list(islice(records, batch.first_ordinal - position))
            planned = list(islice(records, batch.record_count))
            position = batch.first_ordinal + batch.record_count
            lines = [_line(stream, record, resend=batch.state is BatchState.UNKNOWN) for record in planned]
            with self._engine.begin() as tx:
                ledger.mark_sent(tx, self._delivery.run, self._epoch, batch.number)
            self._in_flight[batch.number] = planned
            yield runner.Batch(batch.number, lines)

    def _confirm(self, ack: runner.Ack) -> None:
        planned = self._in_flight.pop(ack.batch_id)
        refused = [
            ledger.Reject(record.ordinal, record.key, record.operation, reject.code, reject.message)
            for reject, record in ((reject, planned[reject.index]) for reject in ack.rejects)
        ]
        with self._engine.begin() as tx:
            ledger.confirm(
                tx,
                self._delivery.run,
                self._epoch,
                ack.batch_id,
                refused,
                unnamed_rejects=max(0, ack.rejected_count - len(refused)),
                destination_revision=self._delivery.destination.revision,
            )
        self.confirmed_batches += 1

    def _keep_config(self, config: Mapping[str, Any]) -> None:
        """Stores what the connector changed in its configuration, such as a token that it renewed."""
        mine = self._delivery.destination
        with self._engine.begin() as tx:
            current = store.find_destination(tx, mine.workspace, mine.destination, lock=True)
            if current is None or current.revision != mine.revision:
                log.warning("a renewed configuration came too late", destination=mine.destination)
                return
            schema = self._delivery.connector.config_schema
            kept = close_config(self._seal, mine.workspace, mine.destination, config, schema)
            store.update_destination(tx, mine.workspace, mine.destination, current.display_name, current.revision, kept)


def stream_of(sync: Sync, record_schema: Mapping[str, Any]) -> Stream:
    """What a connector is told about a sync."""
    return Stream(
        name=sync.sync,
        json_schema=record_schema,
        sync_mode=AIRBYTE_MODES[sync.mode],
        primary_key=(sync.key_field,),
        object_name=sync.object,
    )


def open_config(seal: Seal, destination: Row[Any]) -> dict[str, Any]:
    """A destination's configuration, secrets and all."""
    place = _place(destination.workspace, destination.destination)
    config: dict[str, Any] = orjson.loads(seal.open(bytes(destination.sealed_config), place))
    return config


def close_config(
    seal: Seal, workspace: str, destination: str, config: Mapping[str, Any], schema: Mapping[str, Any]
) -> store.StoredConfig:
    """A configuration as it is stored; `schema` is its connector's and says what is secret."""
    return store.StoredConfig(seal.close(orjson.dumps(config), _place(workspace, destination)), masked(config, schema))


def _place(workspace: str, destination: str) -> str:
    return f"workspaces/{workspace}/destinations/{destination} config"


def _line(stream: Stream, record: plan.PlannedRecord, *, resend: bool) -> bytes:
    deletes = record.operation == Operation.DELETE
    return record_line(
        stream,
        orjson.loads(record.payload) if deletes else orjson.Fragment(record.payload),
        operation=record.operation,
        idempotency_key=record.idempotency_key,
        resend=resend or record.resend,
    )
