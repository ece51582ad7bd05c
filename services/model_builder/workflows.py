"""What happens in which order, and what is tried again; the work itself is in the activities."""

import asyncio
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from services.model_builder.activities.build import BuildActivities
    from services.model_builder.activities.load import LoadActivities
    from services.model_builder.activities.project import ProjectActivities
    from services.model_builder.activities.references import (
        Archive,
        BuildPlan,
        FailureOf,
        NotebookOfBuild,
        ProjectOfBuild,
        StagedBuild,
    )

QUEUE = "model_builder"

#: A worker that was killed is noticed after this long; living activities beat every few seconds.
HEARTBEAT = timedelta(seconds=8)
LONGEST = timedelta(hours=12)

#: Before the model is published: a build that meets the same trouble again and again fails visibly.
SOME_TRIES = RetryPolicy(maximum_interval=timedelta(seconds=10), maximum_attempts=6)
#: From then on: what was published must also be served, even if a part is away for hours.
MANY_TRIES = RetryPolicy(maximum_interval=timedelta(seconds=30), maximum_attempts=1000)
#: A load waits for the one before it by trying again.
PATIENT = RetryPolicy(maximum_interval=timedelta(seconds=5), maximum_attempts=5000)


async def _do(activity: Any, argument: Any, retry: RetryPolicy = SOME_TRIES) -> Any:
    return await workflow.execute_activity_method(
        activity, argument, start_to_close_timeout=LONGEST, heartbeat_timeout=HEARTBEAT, retry_policy=retry
    )


def _message(error: BaseException) -> str:
    """Why an activity failed, in its last attempt; without values, since faults hold none."""
    if is_cancelled_exception(error):
        return "it was cancelled"
    if isinstance(error, ActivityError) and isinstance(error.cause, ApplicationError):
        return error.cause.message
    return "the worker ended in each attempt"


@workflow.defn
class LoadWorkflow:
    """Brings one uploaded file of events into the warehouse."""

    @workflow.run
    async def run(self, load: str) -> None:
        """`load` is the load's resource name."""
        try:
            await _do(LoadActivities.load_events, load, PATIENT)
        except (ActivityError, asyncio.CancelledError) as error:
            await _do(LoadActivities.fail_load, FailureOf(load, "load", _message(error)), MANY_TRIES)
            raise


@workflow.defn
class ParseWorkflow:
    """Finds out what the archive of a dbt project declares."""

    @workflow.run
    async def run(self, archive: Archive) -> None:
        """The answer is kept with the archive."""
        await _do(ProjectActivities.parse_project, archive)


@workflow.defn
class BuildWorkflow:
    """Makes one build: dbt, notebooks, staging, audiences; then publishes it and serves it."""

    def __init__(self) -> None:
        self._step = "start"

    @workflow.run
    async def run(self, build: str) -> None:
        """`build` is the build's resource name; its row says what it is pinned to."""
        try:
            await self._make(build)
        except (ActivityError, asyncio.CancelledError) as error:
            message = _message(error)
            await _do(BuildActivities.fail_build, FailureOf(build, self._step, message), MANY_TRIES)
            await _do(BuildActivities.clean_up, build)
            raise ApplicationError(f"{self._step}: {message}", type="BUILD_FAILED", non_retryable=True) from error
        await _do(BuildActivities.clean_up, build)

    async def _make(self, build: str) -> None:
        plan: BuildPlan = await _do(BuildActivities.plan_build, build)
        for project in plan.projects:
            self._step = f"dbt build {project}"
            await _do(BuildActivities.build_project, ProjectOfBuild(build, project))
        for notebook in plan.notebooks:
            self._step = f"notebook {notebook}"
            await _do(BuildActivities.run_notebook, NotebookOfBuild(build, notebook))
        self._step = "staging"
        await _do(BuildActivities.stage_traits, build)
        self._step = "audiences"
        table: str = await _do(BuildActivities.decide_audiences, build)
        self._step = "publish"
        await _do(BuildActivities.publish, StagedBuild(build, table), MANY_TRIES)
        self._step = "lineage"
        try:
            await _do(BuildActivities.record_lineage, build)
        except ActivityError as error:
            # The step shows that it failed; a model that cannot be drawn is served all the same.
            if is_cancelled_exception(error):
                raise
        self._step = "profiles"
        await _do(BuildActivities.serve_profiles, build, MANY_TRIES)
