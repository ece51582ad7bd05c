"""The steps of a run, as Temporal calls them: fat, safe to repeat, and with the ledger as their only memory."""

from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Row
from temporalio import activity
from temporalio.exceptions import ApplicationError

from libs.kit import auth, errors
from libs.kit.seal import Seal
from libs.kit.temporal import heartbeating
from libs.warehouse import Warehouse
from services.sync_worker import ledger, plan, store
from services.sync_worker.connectors import Connectors
from services.sync_worker.domain import BatchState, RunName, RunState
from services.sync_worker.files import SyncFiles
from services.sync_worker.neighbours import Neighbours
from services.sync_worker.sending import Attempt, Delivery
from services.sync_worker.state import write_next_state
from services.sync_worker.workflows import Attention, Ending
from traitmesh_connector.errors import ConfigError, ConnectorError, TransientError


@dataclass(frozen=True)
class SyncActivities:
    """What the steps need: the ledger, the warehouses by workspace, the files, the connectors, other services."""

    engine: Engine
    seal: Seal
    connectors: Connectors
    neighbours: Neighbours
    open_warehouse: Callable[[str], Warehouse]
    data_dir: Path
    batch_records: int

    @activity.defn
    def plan_run(self, name: str) -> None:
        """Freezes the run's plan and cuts it into batches."""
        run = RunName.parse(name)
        with heartbeating(lambda: "planning"), auth.acting_in(run.workspace):
            with self.engine.begin() as tx:
                row = _existing(ledger.lock_run(tx, run), run)
            # A workflow that was reset takes this step again, and what is frozen stays frozen.
            if row.batch_size is None and not RunState(row.state).is_over:
                self._plan(run, row)

    def _plan(self, run: RunName, row: Row[Any]) -> None:
        if not row.build:
            build = self.neighbours.latest_build(run.workspace)
            with self.engine.begin() as tx:
                ledger.pin_build(tx, run, build.name, build.snapshot)
        with self.engine.begin() as tx:
            row = _existing(ledger.lock_run(tx, run), run)
            stored, destination = _sync_and_destination(tx, run)
        files = SyncFiles.of(self.data_dir, run.workspace, run.sync)
        question = plan.Question(
            sync=stored.sync,
            run=run.number,
            snapshot=row.snapshot,
            state=None if stored.state_run is None else files.state(stored.state_run),
            destination_revision=destination.revision,
            retry_rejects=row.retry_rejects,
        )
        plan.write_plan(self.open_warehouse(run.workspace), question, files.plan(run))
        batch_size = min(self.connectors.get(destination.connector).batch_size, self.batch_records)
        with self.engine.begin() as tx:
            ledger.record_plan(tx, run, batch_size, plan.count_plan(files.plan(run)))

    @activity.defn
    def send_run(self, name: str) -> bool:
        """Sends what remains of the plan. False if the worker shut down before all was sent."""
        run = RunName.parse(name)
        with self.engine.begin() as tx:
            if RunState(_existing(ledger.lock_run(tx, run), run).state).is_over:
                return True
            stored, destination = _sync_and_destination(tx, run)
        connector = self.connectors.get(destination.connector)
        files = SyncFiles.of(self.data_dir, run.workspace, run.sync)
        delivery = Delivery(run, stored.sync, files.plan(run), connector, destination)
        # The connector is fed on a thread of its own, which does not know the activity.
        context = copy_context()
        attempt = Attempt(self.engine, self.seal, delivery, lambda: context.run(activity.is_worker_shutdown))
        with heartbeating(lambda: attempt.confirmed_batches):
            try:
                return attempt.send()
            except TransientError as error:
                wait = None if error.retry_after is None else timedelta(seconds=max(0.0, error.retry_after))
                raise ApplicationError(error.message, type="TRANSIENT", next_retry_delay=wait) from None
            except ConfigError as error:
                raise errors.ConnectorRefused(error.message, connector=connector.id) from None
            except ConnectorError as error:
                # A program that broke down may not do so again.
                raise errors.Unavailable(error.message, part=connector.id) from None

    @activity.defn
    def note_attention(self, attention: Attention) -> None:
        """Shows that a run waits for a person, and why."""
        with self.engine.begin() as tx:
            ledger.park(tx, RunName.parse(attention.run), attention.reason)

    @activity.defn
    def finalize_run(self, ending: Ending) -> str:
        """Makes what was confirmed and refused the base of the next plan, and ends the run."""
        run = RunName.parse(ending.run)
        with heartbeating(lambda: "finalizing"), auth.acting_in(run.workspace):
            with self.engine.begin() as tx:
                row = _existing(ledger.lock_run(tx, run), run)
                stored, _ = _sync_and_destination(tx, run)
            state = RunState(row.state)
            if not state.is_over:
                state = RunState.ABORTED if ending.aborted else RunState.SUCCEEDED
                self._finish(run, row, stored, state)
            self.neighbours.record_lineage(stored.sync, run)
        return str(state)

    def _finish(self, run: RunName, row: Row[Any], stored: store.StoredSync, state: RunState) -> None:
        with self.engine.begin() as tx:
            epoch = ledger.close(tx, run)
            batches, rejects = ledger.outcomes(tx, run)
        files = SyncFiles.of(self.data_dir, run.workspace, run.sync)
        learned = any(batch.state is not BatchState.PLANNED for batch in batches)
        if learned:
            write_next_state(
                None if stored.state_run is None else files.state(stored.state_run),
                files.plan(run),
                files.state(run.number),
                run=run.number,
                batch_size=row.batch_size,
                batches=batches,
                rejects=rejects,
            )
        with self.engine.begin() as tx:
            ledger.finish(tx, run, epoch, state, new_state_file=learned)
        if learned and stored.state_run is not None:
            # The one before stays for previews that are reading it.
            files.forget_states_before(stored.state_run)


def _existing(row: Row[Any] | None, run: RunName) -> Row[Any]:
    if row is None:
        # The workflow is started just before its row is committed, so that neither is without the other.
        raise errors.Unavailable(f"{run} is not in the ledger", part="ledger")
    return row


def _sync_and_destination(tx: Connection, run: RunName) -> tuple[store.StoredSync, Row[Any]]:
    stored = store.find_sync(tx, run.workspace, run.sync)
    destination = store.find_destination(tx, run.workspace, stored.sync.destination) if stored else None
    if stored is None or destination is None:
        raise errors.Unavailable(f"{run} is not in the ledger", part="ledger")
    return stored, destination
