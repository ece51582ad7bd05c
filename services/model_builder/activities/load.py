"""The activities of a load."""

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine
from temporalio import activity

from libs.kit import auth, errors
from libs.kit.temporal import heartbeating
from services.model_builder.activities.references import FailureOf
from services.model_builder.domain import State, parse_numbered
from services.model_builder.loading import rows, staging, uploads
from services.model_builder.store import loads
from services.model_builder.store.loads import LoadCounts
from services.model_builder.warehouses import Warehouses, as_faults


@dataclass(frozen=True)
class LoadActivities:
    """Loads uploaded files into the warehouse."""

    engine: Engine
    warehouses: Warehouses
    uploads: Path
    connectors: Path

    @activity.defn
    def load_events(self, name: str) -> None:
        """Loads the file of a load. Raises Conflict while another load of the workspace goes on."""
        workspace, number = parse_numbered(name)
        with auth.acting_in(workspace), heartbeating(), as_faults(), loads.alone(self.engine, workspace, number):
            with self.engine.begin() as tx:
                row = loads.find_load(tx, workspace, number)
            if row is None:
                raise errors.Unavailable(f"{name} has not been stored yet")
            if row.state != State.RUNNING:
                # Somebody reset its workflow; what has ended stays as it is.
                return
            warehouse = self.warehouses.open(workspace)
            if not staging.is_loaded(warehouse, number):
                file = uploads.path_of(self.uploads, workspace, row.sha256, row.file_name)
                staging.load_chunks(
                    warehouse,
                    number,
                    row.file_name,
                    rows.read_chunks(self.connectors, file),
                    name=name,
                    on_progress=lambda count: self._set_progress(workspace, number, count),
                    before_commit=lambda counts: self._set_counts(workspace, number, counts),
                )
            self._end(workspace, number, State.SUCCEEDED)

    @activity.defn
    def fail_load(self, failure: FailureOf) -> None:
        """Ends a load that cannot succeed."""
        self._end(*parse_numbered(failure.name), State.FAILED, failure.reason)

    def _set_progress(self, workspace: str, number: int, count: int) -> None:
        with self.engine.begin() as tx:
            loads.set_progress(tx, workspace, number, count)

    def _set_counts(self, workspace: str, number: int, counts: LoadCounts) -> None:
        with self.engine.begin() as tx:
            loads.set_counts(tx, workspace, number, counts)

    def _end(self, workspace: str, number: int, state: State, error: str = "") -> None:
        """Ends the load and removes its file, unless another load needs the same."""
        with self.engine.begin() as tx:
            loads.end_load(tx, workspace, number, state, error)
            row = loads.find_load(tx, workspace, number)
            if row is not None and not loads.is_needed(tx, workspace, row.sha256):
                uploads.path_of(self.uploads, workspace, row.sha256, row.file_name).unlink(missing_ok=True)
