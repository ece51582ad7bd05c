"""Temporal: the client for servers, which are synchronous, and the worker with its drain and error wrapper.

Histories hold references, never records or secrets: a workflow's input is a resource name and little else.
"""

import asyncio
import contextvars
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import grpc
import structlog
from google.rpc import status_pb2
from temporalio import activity
from temporalio.client import Client, WorkflowFailureError
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.contrib.opentelemetry import TracingInterceptor
from temporalio.exceptions import ApplicationError, CancelledError
from temporalio.service import RPCError
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    Interceptor,
    Worker,
)

from libs.kit import errors
from libs.kit.settings import TemporalSettings

T = TypeVar("T")

WORKSPACE = SearchAttributeKey.for_keyword("Workspace")
SYNC_STATUS = SearchAttributeKey.for_keyword("SyncStatus")
SEARCH_ATTRIBUTES = (WORKSPACE, SYNC_STATUS)

#: A call from a server to Temporal: long enough for a restart of it, shorter than a caller's patience.
CALL_SECONDS = 20
#: How often an activity says that it lives. Left alone, the SDK sends a heartbeat only when its timeout is nearly over.
BEAT = timedelta(seconds=1)
#: How long a workflow waits for the worker that has it in memory. By the SDK's default of 10 seconds, a workflow whose
#: worker was killed would stand still although another is there; histories are short, so reading one anew costs little.
STICKY = timedelta(seconds=2)

log = structlog.get_logger()


async def connect(settings: TemporalSettings) -> Client:
    """A client that carries the trace. Raises Unavailable if Temporal does not answer."""
    try:
        return await Client.connect(
            settings.address,
            namespace=settings.namespace,
            api_key=settings.api_key.get_secret_value() if settings.api_key else None,
            interceptors=[TracingInterceptor()],
        )
    except RuntimeError as error:
        raise errors.Unavailable(f"Temporal does not answer at {settings.address}", part="temporal") from error


class WorkflowStarter:
    """Starts and signals workflows from the threads of a synchronous server."""

    def __init__(self, settings: TemporalSettings) -> None:
        self._settings = settings
        self._loop = asyncio.new_event_loop()
        self._client: Client | None = None
        threading.Thread(target=self._loop.run_forever, name="temporal", daemon=True).start()

    def call(self, use: Callable[[Client], Coroutine[Any, Any, T]], seconds: float = CALL_SECONDS) -> T:
        """Runs `use(client)` and returns what it returns; raises Unavailable if Temporal does not answer."""
        # The trace context lives in this thread's context variables, which the coroutine inherits when it is made here.
        future = asyncio.run_coroutine_threadsafe(self._with_client(use), self._loop)
        try:
            return future.result(seconds)
        except TimeoutError as error:
            future.cancel()
            raise errors.Unavailable("Temporal does not answer in time", part="temporal") from error
        except RPCError as error:
            raise errors.Unavailable(f"Temporal answered {error.status.name}", part="temporal") from error

    async def _with_client(self, use: Callable[[Client], Coroutine[Any, Any, T]]) -> T:
        if self._client is None:
            self._client = await connect(self._settings)
        return await use(self._client)


def search_attributes(workspace: str) -> TypedSearchAttributes:
    """What each workflow can be found by in the Temporal UI."""
    return TypedSearchAttributes([SearchAttributePair(WORKSPACE, workspace)])


@contextmanager
def heartbeating(progress: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Within the block, an activity of a thread tells Temporal that it lives and how far it is.

    A worker that was killed tells nothing, and the activity starts anew elsewhere after its heartbeat timeout.
    """
    ended = threading.Event()
    context = contextvars.copy_context()

    def beat() -> None:
        while not ended.wait(BEAT.total_seconds()):
            context.run(activity.heartbeat, progress())

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def fault_of(error: WorkflowFailureError) -> errors.Fault:
    """The fault that an activity of a failed workflow raised, for the caller who waited for the workflow."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ApplicationError):
        cause = cause.__cause__
    if cause is None or not cause.details:
        return errors.Internal("a workflow failed; the Temporal UI shows where")
    return errors.Remote(status_pb2.Status.FromString(cause.details[0]))


class FaultInterceptor(Interceptor):
    """Turns a Fault of an activity into an ApplicationError: the one place where Temporal learns whether to retry."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        """Wraps every activity of the worker."""
        return _FaultActivity(next)


class _FaultActivity(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        try:
            return await super().execute_activity(input)
        except (errors.Fault, grpc.RpcError) as error:
            fault = error if isinstance(error, errors.Fault) else errors.from_rpc(error)
            log.warning("activity refused", activity=activity.info().activity_type, message=fault.message)
            raise _application_error(fault) from None
        except (ApplicationError, CancelledError, asyncio.CancelledError):
            raise
        except Exception as error:
            log.error("activity failed", activity=activity.info().activity_type, exc_info=True)
            # The message could quote a value, and a history is read by many: the log has the place.
            raise ApplicationError(f"unexpected {type(error).__name__}", type="INTERNAL") from None


def _application_error(fault: errors.Fault) -> ApplicationError:
    status = fault.status().SerializeToString()
    return ApplicationError(fault.message, status, type=fault.reason_name, non_retryable=not fault.retriable)


class Queue(NamedTuple):
    """A task queue, and what this process does of it."""

    name: str
    workflows: Sequence[type]
    activities: Sequence[Callable[..., Any]]


def run_workers(settings: TemporalSettings, queues: Sequence[Queue], threads: int, drain_seconds: float) -> None:
    """Works on all queues until SIGTERM or SIGINT, then lets running activities end within `drain_seconds`.

    `threads` activities run at a time on each queue. Raises Unavailable if Temporal does not answer.
    """
    asyncio.run(_work(settings, queues, threads, drain_seconds))


async def _work(settings: TemporalSettings, queues: Sequence[Queue], threads: int, drain_seconds: float) -> None:
    client = await connect(settings)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as running:
        for queue in queues:
            pool = running.enter_context(ThreadPoolExecutor(threads, thread_name_prefix=queue.name))
            worker = Worker(
                client,
                task_queue=queue.name,
                workflows=queue.workflows,
                activities=queue.activities,
                activity_executor=pool,
                max_concurrent_activities=threads,
                graceful_shutdown_timeout=timedelta(seconds=drain_seconds),
                max_heartbeat_throttle_interval=BEAT,
                sticky_queue_schedule_to_start_timeout=STICKY,
                interceptors=[FaultInterceptor()],
            )
            await running.enter_async_context(worker)
        log.info("working", queues=[queue.name for queue in queues])
        await stop.wait()
        log.info("draining", seconds=drain_seconds)
