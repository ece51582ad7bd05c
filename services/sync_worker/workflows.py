"""The workflow of a run: plan, send, finalize; and between, if need be, the wait for a person.

Histories hold the run's name and counts. All that matters is in the ledger, so that a workflow may be reset, replayed
or started anew at any point and goes on from what was confirmed.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from libs.kit.temporal import SYNC_STATUS

QUEUE = "sync_worker"

HEARTBEAT_TIMEOUT = timedelta(seconds=6)
PLAN_TIMEOUT = timedelta(hours=2)
SEND_TIMEOUT = timedelta(days=10)
LEDGER_TIMEOUT = timedelta(minutes=1)
FINALIZE_TIMEOUT = timedelta(hours=1)
LONGEST_WAIT = timedelta(minutes=5)


def connector_queue(connector: str) -> str:
    """The task queue on which a connector's runs are sent: one that stands still holds up no other."""
    return f"connector-{connector}"


@dataclass
class RunOrder:
    """Which run, by which connector, and how patiently: `attempts` of each step, waiting longer and longer."""

    run: str
    connector: str
    attempts: int
    retry_seconds: float


@dataclass
class Attention:
    """Why a run waits for a person."""

    run: str
    reason: str


@dataclass
class Ending:
    """How a run is to end: aborted, or with its plan sent."""

    run: str
    aborted: bool


@dataclass
class Progress:
    """What the query `progress` answers: planning, sending, needs attention (with the reason), finalizing."""

    stage: str
    attention: str = ""


@workflow.defn
class SyncWorkflow:
    """One run. Signals `retry` and `abort`, without arguments, are for a run that needs attention.

    An `abort` that comes while it sends takes effect when the sending fails; a `retry` then has none.
    """

    def __init__(self) -> None:
        self._progress = Progress("planning")
        self._retry = False
        self._abort = False

    @workflow.signal
    def retry(self) -> None:
        """Sends again what is not confirmed."""
        self._retry = True

    @workflow.signal
    def abort(self) -> None:
        """Ends the run with what was confirmed."""
        self._abort = True

    @workflow.query
    def progress(self) -> Progress:
        """Where the run is."""
        return self._progress

    @workflow.run
    async def run(self, order: RunOrder) -> str:
        """Carries the run out and returns the state that it ended in."""
        try:
            done = await self._attended(order, "planning", _plan) and await self._attended(order, "sending", _send)
        except (asyncio.CancelledError, ActivityError) as error:
            if not is_cancelled_exception(error):
                raise
            # Cancelled from outside: the ledger must still learn what was confirmed.
            await self._finalize(order, aborted=True)
            raise
        return await self._finalize(order, aborted=not done)

    async def _attended(self, order: RunOrder, stage: str, step: Callable[[RunOrder], Awaitable[None]]) -> bool:
        """Takes a step until it is done, which is True, or until the run is aborted."""
        while not self._abort:
            self._progress = Progress(stage)
            try:
                await step(order)
                return True
            except ActivityError as error:
                if is_cancelled_exception(error):
                    raise
                await self._park(order, _reason(error))
        return False

    async def _park(self, order: RunOrder, reason: str) -> None:
        self._retry = False
        self._progress = Progress("needs attention", reason)
        await workflow.execute_activity(
            "note_attention",
            Attention(order.run, reason),
            start_to_close_timeout=LEDGER_TIMEOUT,
            retry_policy=RetryPolicy(maximum_interval=LONGEST_WAIT),
        )
        workflow.upsert_search_attributes([SYNC_STATUS.value_set("NeedsAttention")])
        await workflow.wait_condition(lambda: self._retry or self._abort)
        if self._abort:
            return
        workflow.upsert_search_attributes([SYNC_STATUS.value_set("Running")])
        if workflow.info().is_continue_as_new_suggested():
            workflow.continue_as_new(order)

    async def _finalize(self, order: RunOrder, *, aborted: bool) -> str:
        self._progress = Progress("finalizing")
        state: str = await workflow.execute_activity(
            "finalize_run",
            Ending(order.run, aborted),
            result_type=str,
            start_to_close_timeout=FINALIZE_TIMEOUT,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            retry_policy=RetryPolicy(maximum_interval=LONGEST_WAIT),
        )
        workflow.upsert_search_attributes([SYNC_STATUS.value_set(state.capitalize())])
        self._progress = Progress(state)
        return state


async def _plan(order: RunOrder) -> None:
    await workflow.execute_activity(
        "plan_run",
        order.run,
        start_to_close_timeout=PLAN_TIMEOUT,
        heartbeat_timeout=HEARTBEAT_TIMEOUT,
        retry_policy=_patience(order),
    )


async def _send(order: RunOrder) -> None:
    done = False
    # A worker that shuts down hands back what it has not sent: that is no failure.
    while not done:
        done = await workflow.execute_activity(
            "send_run",
            order.run,
            result_type=bool,
            task_queue=connector_queue(order.connector),
            start_to_close_timeout=SEND_TIMEOUT,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            retry_policy=_patience(order),
        )


def _patience(order: RunOrder) -> RetryPolicy:
    return RetryPolicy(
        initial_interval=timedelta(seconds=order.retry_seconds),
        maximum_interval=LONGEST_WAIT,
        maximum_attempts=order.attempts,
    )


def _reason(error: ActivityError) -> str:
    if isinstance(error.cause, ApplicationError):
        return error.cause.message
    return "no worker brought this step to its end; see that one runs, then retry"
