"""Starts and signals the workflows of runs, from the threads of the server."""

from typing import Literal
from urllib.parse import quote

from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.common import SearchAttributePair, TypedSearchAttributes, WorkflowIDConflictPolicy
from temporalio.service import RPCError, RPCStatusCode

from libs.kit.settings import TemporalSettings
from libs.kit.temporal import SYNC_STATUS, WorkflowStarter, search_attributes
from services.sync_worker.domain import RunName
from services.sync_worker.workflows import QUEUE, RunOrder, SyncWorkflow

Signal = Literal["retry", "abort"]


class Dispatch:
    """The way from the server to Temporal. All methods raise Unavailable if it does not answer."""

    def __init__(self, settings: TemporalSettings, attempts: int, retry_seconds: float) -> None:
        self._settings = settings
        self._starter = WorkflowStarter(settings)
        self._attempts = attempts
        self._retry_seconds = retry_seconds

    def start(self, run: RunName, connector: str, signal: Signal | None = None) -> None:
        """Starts a run's workflow unless it goes on, and gives it the signal."""
        order = RunOrder(str(run), connector, self._attempts, self._retry_seconds)
        attributes = TypedSearchAttributes(
            [*search_attributes(run.workspace), SearchAttributePair(SYNC_STATUS, "Running")]
        )

        async def start(client: Client) -> None:
            await client.start_workflow(
                SyncWorkflow.run,
                order,
                id=str(run),
                task_queue=QUEUE,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                search_attributes=attributes,
                start_signal=signal,
            )

        self._starter.call(start)

    def goes_on(self, run: RunName) -> bool:
        """Whether the run's workflow is there: it may have been terminated, or lost with Temporal's database."""

        async def describe(client: Client) -> bool:
            try:
                description = await client.get_workflow_handle(str(run)).describe()
            except RPCError as error:
                if error.status is RPCStatusCode.NOT_FOUND:
                    return False
                raise
            return description.status is WorkflowExecutionStatus.RUNNING

        return self._starter.call(describe)

    def uri(self, run: RunName) -> str:
        """Where the workflow can be watched."""
        return f"{self._settings.ui_url}/namespaces/{self._settings.namespace}/workflows/{quote(str(run), safe='')}"
