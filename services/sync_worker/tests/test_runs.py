"""Whole runs: a real worker process, a real Temporal server, real connector processes."""

import asyncio
import base64
import re
import socket
import subprocess
import sys
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import DeleteWorkflowExecutionRequest
from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode
from traitmesh_proto.registry.v1 import lineage_pb2, lineage_pb2_grpc
from traitmesh_proto.sync.v1 import destination_pb2, run_pb2, sync_pb2

from libs.kit import auth
from libs.kit.settings import TemporalSettings
from libs.kit.temporal import SYNC_STATUS, connect
from libs.kit.testing import free_port, reset_workflow
from services.sync_worker.tests.stage import ATTENTION, EDITOR, ROOT, Stage, WorkerProcess, users
from services.sync_worker.workflows import SyncWorkflow

pytestmark = pytest.mark.usefixtures("working")

CANARY = "canary.person@example.com"


@pytest.fixture
def slack(tmp_path: Path) -> Iterator[str]:
    """The base URL of a Slack-compatible sink with the channel #vip."""
    port = free_port()
    command = [sys.executable, "-m", "slack_sink", "--port", str(port), "--channels", "vip"]
    folder = ROOT / "connectors" / "destination-slack"
    sink = subprocess.Popen([*command, "--state-file", str(tmp_path / "slack.db")], cwd=folder)
    try:
        _eventually(lambda: _listens(port))
        yield f"http://127.0.0.1:{port}/api/"
    finally:
        sink.terminate()
        sink.wait(20)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def temporal(stage: Stage, use: Any) -> Any:
    """Runs `use(client)` as somebody at the Temporal UI would."""

    async def call() -> Any:
        client: Client = await connect(TemporalSettings(address=stage.temporal))
        answer: Coroutine[Any, Any, Any] = use(client)
        return await answer

    return asyncio.run(call())


def handle(client: Client, run: str) -> WorkflowHandle[SyncWorkflow, str]:
    return client.get_workflow_handle_for(SyncWorkflow.run, run)


def status_of(stage: Stage, run: str) -> str | None:
    """The workflow's SyncStatus, as the UI lists it."""

    async def describe(client: Client) -> str | None:
        return (await handle(client, run).describe()).typed_search_attributes.get(SYNC_STATUS)

    status: str | None = temporal(stage, describe)
    return status


def steps(stage: Stage, run: str) -> list[tuple[str, str]]:
    """The activities that the run's workflow asked for, each with its task queue."""

    async def history(client: Client) -> list[tuple[str, str]]:
        events = (await client.get_workflow_handle(run).fetch_history()).events
        asked = [event.activity_task_scheduled_event_attributes for event in events]
        return [(step.activity_type.name, step.task_queue.name) for step in asked if step.activity_type.name]

    done: list[tuple[str, str]] = temporal(stage, history)
    return done


async def terminate(client: Client, run: str) -> None:
    await client.get_workflow_handle(run).terminate()


async def delete(client: Client, run: str) -> None:
    """Ends the workflow and forgets it, as when Temporal's database is lost."""
    workflow = WorkflowExecution(workflow_id=run)
    request = DeleteWorkflowExecutionRequest(namespace=client.namespace, workflow_execution=workflow)
    await client.workflow_service.delete_workflow_execution(request)
    for _ in range(600):
        try:
            await client.get_workflow_handle(run).describe()
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return
            raise
        await asyncio.sleep(0.05)
    raise AssertionError("the workflow is still there")


def rejects(stage: Stage, run: str) -> list[run_pb2.Reject]:
    with auth.acting_as(EDITOR):
        return list(stage.runs.ListRejects(run_pb2.ListRejectsRequest(parent=run)).rejects)


def test_a_run_sends_what_is_new_and_the_next_one_nothing(stage: Stage) -> None:
    moody = stage.moody()
    stage.publish(users(25))
    sync = stage.sync(moody.name)
    first = stage.carry_out(sync)
    assert (first.planned_count, first.confirmed_count, first.added_count) == (25, 25, 25)
    assert first.build == stage.builds.latest["tusk"].name
    assert moody.records()["u00007"] == {"id": "u00007", "level": 7.0, "mail": None}
    assert stage.carry_out(sync).planned_count == 0
    assert len(moody.writes()) == 25
    assert status_of(stage, first.name) == "Succeeded"


def test_a_mirror_follows_its_audience(stage: Stage) -> None:
    moody = stage.moody()
    sync = stage.sync(moody.name, "mirror", audience="workspaces/tusk/audiences/whales")
    stage.publish([*users(12, whales=True), {"user_id": "out", "whales": False}])
    stage.carry_out(sync)
    stage.publish([*users(10, whales=True, email="new"), {"user_id": "out", "whales": True}])
    run = stage.carry_out(sync)
    assert (run.added_count, run.changed_count, run.deleted_count) == (1, 10, 2)
    assert set(moody.records()) == {*(f"u{number:05}" for number in range(10)), "out"}
    assert moody.records()["u00003"]["mail"] == "new"


def test_a_bad_record_is_rejected_and_tried_again_when_it_changes(stage: Stage) -> None:
    moody = stage.moody()
    moody.set(reject=["u00003"])
    stage.publish(users(12))
    sync = stage.sync(moody.name)
    first = stage.carry_out(sync)
    assert (first.confirmed_count, first.rejected_count) == (11, 1)
    (reject,) = rejects(stage, first.name)
    assert (reject.key, reject.operation, reject.code) == ("u00003", "upsert", "bad_record")
    assert reject.message == "the record is not to our taste"
    moody.set()
    assert stage.carry_out(sync).planned_count == 0, "not tried again blindly"
    assert stage.carry_out(sync, retry_rejects=True).confirmed_count == 1
    assert "u00003" in moody.records()
    moody.set(reject=["u00004"])
    stage.publish(users(12, email="x"))
    assert stage.carry_out(sync).rejected_count == 1
    moody.set()
    stage.publish([*users(4, email="x"), {"user_id": "u00004", "level": 5.0}, *users(12, email="x")[5:]])
    assert (stage.carry_out(sync).planned_count, moody.records()["u00004"]["level"]) == (1, 5.0)


def test_a_new_configuration_tries_the_rejects_again(stage: Stage) -> None:
    moody = stage.moody()
    moody.set(reject=["u00000"])
    stage.publish(users(1))
    sync = stage.sync(moody.name)
    assert stage.carry_out(sync).rejected_count == 1
    moody.set()
    destination = destination_pb2.Destination(name=moody.name)
    destination.config.update({"folder": str(moody.folder), "token": "s3cret"})
    with auth.acting_as(EDITOR):
        stage.destinations.UpdateDestination(destination_pb2.UpdateDestinationRequest(destination=destination))
    assert stage.carry_out(sync).confirmed_count == 1


def test_a_refusal_parks_the_run_until_somebody_retries(stage: Stage) -> None:
    moody = stage.moody()
    moody.set(refuse=True, but_take="g00d-token")
    stage.publish(users(25))
    sync = stage.sync(moody.name)
    parked = stage.wait(stage.start(sync).name)
    assert (parked.state, parked.attention) == (ATTENTION, "the account is closed: open it")
    assert parked.workflow_uri.endswith("workspaces%2Ftusk%2Fsyncs%2F" + sync.rpartition("/")[2] + "%2Fruns%2F1")
    _eventually(lambda: status_of(stage, parked.name) == "NeedsAttention")
    progress = temporal(stage, lambda client: handle(client, parked.name).query(SyncWorkflow.progress))
    assert (progress.stage, progress.attention) == ("needs attention", parked.attention)
    destination = destination_pb2.Destination(name=moody.name)
    destination.config.update({"folder": str(moody.folder), "token": "g00d-token"})
    with auth.acting_as(EDITOR):
        stage.destinations.UpdateDestination(destination_pb2.UpdateDestinationRequest(destination=destination))
        assert stage.runs.RetryRun(run_pb2.RetryRunRequest(name=parked.name)).state == run_pb2.Run.STATE_SENDING
    done = stage.wait(parked.name)
    assert (done.state, done.confirmed_count, done.attention) == (run_pb2.Run.STATE_SUCCEEDED, 25, "")
    assert len(moody.writes()) == 25


def test_the_retry_signal_of_the_temporal_ui_needs_no_arguments(stage: Stage) -> None:
    moody = stage.moody()
    moody.set(refuse=True)
    stage.publish(users(5))
    parked = stage.wait(stage.start(stage.sync(moody.name)).name)
    moody.set()
    temporal(stage, lambda client: client.get_workflow_handle(parked.name).signal("retry"))
    assert stage.wait(parked.name, run_pb2.Run.STATE_SUCCEEDED).confirmed_count == 5


def test_a_retry_that_comes_before_it_is_needed_has_no_effect(stage: Stage) -> None:
    moody = stage.moody()
    moody.set(slow=1)
    stage.publish(users(30))
    run = stage.start(stage.sync(moody.name))
    _eventually(lambda: stage.get(run.name).confirmed_count > 0)
    temporal(stage, lambda client: client.get_workflow_handle(run.name).signal("retry"))
    moody.set(refuse=True)
    stage.wait(run.name, ATTENTION)
    _eventually(lambda: status_of(stage, run.name) == "NeedsAttention")
    moody.set()
    temporal(stage, lambda client: client.get_workflow_handle(run.name).signal("retry"))
    stage.wait(run.name, run_pb2.Run.STATE_SUCCEEDED)
    assert [name for name, _ in steps(stage, run.name)] == [
        *("plan_run", "send_run", "note_attention", "send_run", "finalize_run")
    ]


def test_each_connector_has_a_queue_of_its_own(stage: Stage) -> None:
    stage.publish(users(1))
    run = stage.carry_out(stage.sync(stage.moody().name))
    assert steps(stage, run.name) == [
        ("plan_run", "sync_worker"),
        ("send_run", "connector-destination-moody"),
        ("finalize_run", "sync_worker"),
    ]


def test_exhausted_retries_park_the_run_and_abort_leaves_the_rest_to_the_next(stage: Stage) -> None:
    moody = stage.moody()
    stage.publish(users(25))
    sync = stage.sync(moody.name)
    moody.set(busy=0.1)
    parked = stage.wait(stage.start(sync).name)
    assert (parked.state, parked.attention) == (ATTENTION, "too many requests")
    assert parked.unknown_count > 0
    with auth.acting_as(EDITOR):
        stage.runs.AbortRun(run_pb2.AbortRunRequest(name=parked.name))
    aborted = stage.wait(parked.name, run_pb2.Run.STATE_ABORTED)
    assert aborted.HasField("end_time")
    moody.set()
    second = stage.carry_out(sync)
    assert (second.planned_count, second.confirmed_count) == (25, 25)
    resent = [resend for _, _, _, resend in moody.writes()]
    assert resent == [True] * aborted.unknown_count + [False] * (25 - aborted.unknown_count)


def test_a_connector_that_crashes_is_started_again(stage: Stage) -> None:
    moody = stage.moody()
    moody.set(crash_once=True)
    stage.publish(users(15))
    assert stage.carry_out(stage.sync(moody.name)).confirmed_count == 15
    assert (moody.folder / "crashed").exists()
    assert len(moody.writes()) == 15


def test_a_wait_that_the_destination_names_is_kept(stage: Stage) -> None:
    moody = stage.moody()
    stage.publish(users(3))
    moody.set(busy=3)
    run = stage.start(stage.sync(moody.name))
    _eventually((moody.folder / "was_busy").exists)
    refused = time.monotonic()
    moody.set()
    done = stage.wait(run.name)
    assert done.state == run_pb2.Run.STATE_SUCCEEDED
    assert time.monotonic() - refused > 2, "retry_seconds would have tried again after 0.2 s"


def test_without_a_build_the_run_waits_and_says_so(stage: Stage) -> None:
    stage.add_workspace("empty")
    moody = stage.moody("empty")
    parked = stage.wait(stage.start(stage.sync(moody.name)).name)
    assert parked.attention == "the workspace has no build yet; make the first with `traitmesh build run`"
    stage.publish(users(3), "empty")
    with auth.acting_as(auth.Caller("eve", "empty", "editor")):
        again = stage.runs.RetryRun(run_pb2.RetryRunRequest(name=parked.name))
    assert again.state == run_pb2.Run.STATE_PLANNING
    assert stage.wait(parked.name, run_pb2.Run.STATE_SUCCEEDED).confirmed_count == 3


def test_a_run_that_was_never_planned_can_be_aborted(stage: Stage) -> None:
    stage.add_workspace("buildless")
    moody = stage.moody("buildless")
    sync = stage.sync(moody.name)
    parked = stage.wait(stage.start(sync).name)
    assert parked.state == ATTENTION
    with auth.acting_as(auth.Caller("eve", "buildless", "editor")):
        stage.runs.AbortRun(run_pb2.AbortRunRequest(name=parked.name))
    stage.wait(parked.name, run_pb2.Run.STATE_ABORTED)
    stage.publish(users(3), "buildless")
    assert stage.carry_out(sync).confirmed_count == 3


def test_two_syncs_and_two_workspaces_at_once(stage: Stage) -> None:
    stage.add_workspace("second")
    stage.publish(users(40))
    stage.publish([{"user_id": "theirs"}], "second")
    ours, theirs = stage.moody(), stage.moody("second")
    ours.set(slow=0.2)
    syncs = [stage.sync(ours.name, object=name) for name in ("one", "two")] + [stage.sync(theirs.name)]
    runs = [stage.start(sync).name for sync in syncs]
    done = [stage.wait(run) for run in runs]
    assert [run.confirmed_count for run in done] == [40, 40, 1]
    assert len(ours.records("one")) == len(ours.records("two")) == 40
    assert set(theirs.records()) == {"theirs"}


def test_a_run_sends_the_build_that_it_began_with(stage: Stage) -> None:
    moody = stage.moody()
    stage.publish(users(5, email="old"))
    sync = stage.sync(moody.name)
    moody.set(refuse=True)
    parked = stage.wait(stage.start(sync).name)
    stage.publish(users(6, email="new"))
    moody.set()
    with auth.acting_as(EDITOR):
        stage.runs.RetryRun(run_pb2.RetryRunRequest(name=parked.name))
    stage.wait(parked.name, run_pb2.Run.STATE_SUCCEEDED)
    assert {record["mail"] for record in moody.records().values()} == {"old"}
    assert stage.carry_out(sync).confirmed_count == 6
    assert {record["mail"] for record in moody.records().values()} == {"new"}


@pytest.mark.parametrize("lose", [terminate, delete])
def test_a_run_whose_workflow_was_lost_goes_on_when_it_is_retried(stage: Stage, lose: Any) -> None:
    moody = stage.moody()
    moody.set(slow=1)
    stage.publish(users(30))
    run = stage.start(stage.sync(moody.name))
    _eventually(lambda: stage.get(run.name).confirmed_count > 0)
    temporal(stage, lambda client: lose(client, run.name))
    moody.set()
    with auth.acting_as(EDITOR):
        stage.runs.RetryRun(run_pb2.RetryRunRequest(name=run.name))
    done = stage.wait(run.name, run_pb2.Run.STATE_SUCCEEDED)
    assert done.confirmed_count == 30
    assert len(moody.writes()) == 30


def test_a_run_keeps_its_plan_when_its_workflow_is_reset(stage: Stage) -> None:
    moody = stage.moody()
    moody.set(reject=["u00000"])
    stage.publish(users(1))
    sync = stage.sync(moody.name)
    assert stage.carry_out(sync).rejected_count == 1
    moody.set(refuse=True)
    stage.publish(users(4))
    parked = stage.wait(stage.start(sync).name)
    assert parked.planned_count == 3
    moody.set()
    # With another configuration, a plan that was made anew would try the reject again.
    destination = destination_pb2.Destination(name=moody.name)
    destination.config.update({"folder": str(moody.folder), "token": "s3cret"})
    with auth.acting_as(EDITOR):
        stage.destinations.UpdateDestination(destination_pb2.UpdateDestinationRequest(destination=destination))
    reset_workflow(stage.temporal, parked.name)
    done = stage.get(parked.name)
    assert (done.state, done.confirmed_count, done.planned_count) == (run_pb2.Run.STATE_SUCCEEDED, 3, 3)
    assert set(moody.records()) == {"u00001", "u00002", "u00003"}


def test_a_run_that_is_over_stays_so_when_its_workflow_is_reset(stage: Stage) -> None:
    moody = stage.moody()
    stage.publish(users(5))
    sync = stage.sync(moody.name)
    first = stage.carry_out(sync)
    stage.publish(users(7))
    stage.carry_out(sync)
    reset_workflow(stage.temporal, first.name)
    assert stage.get(first.name) == first
    assert stage.carry_out(sync).planned_count == 0
    assert len(moody.writes()) == 7


def test_old_states_are_deleted(stage: Stage) -> None:
    moody = stage.moody()
    sync = stage.sync(moody.name)
    for count in range(1, 6):
        stage.publish(users(count))
        stage.carry_out(sync)
    states = stage.settings.data_dir / "sync" / "tusk" / sync.rpartition("/")[2] / "state"
    assert {path.name.partition(".")[0] for path in states.iterdir()} == {"4", "5"}


def test_a_cancelled_workflow_ends_the_run_as_aborted(stage: Stage) -> None:
    moody = stage.moody()
    moody.set(slow=1)
    stage.publish(users(40))
    sync = stage.sync(moody.name)
    run = stage.start(sync)
    _eventually(lambda: stage.get(run.name).confirmed_count > 0)
    temporal(stage, lambda client: client.get_workflow_handle(run.name).cancel())
    aborted = stage.wait(run.name, run_pb2.Run.STATE_ABORTED)
    assert 0 < aborted.confirmed_count < 40
    moody.set()
    second = stage.carry_out(sync)
    assert second.planned_count == 40 - aborted.confirmed_count
    assert len(moody.writes()) == 40


def test_postgres_is_kept_equal_to_the_model(stage: Stage) -> None:
    url = stage.settings.database_url.get_secret_value()
    name = "workspaces/tusk/destinations/pg"
    stage.destination(name, "destination-postgres", {"url": url})
    sync = stage.sync(name, "mirror", object="crm.people")
    stage.publish(users(30, payer=True))
    stage.carry_out(sync)
    stage.publish(users(29, email="x"))
    run = stage.carry_out(sync)
    assert (run.changed_count, run.deleted_count) == (29, 1)
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT id, level, mail FROM crm.people ORDER BY id").fetchall()
    assert rows == [(user["user_id"], user["level"], "x") for user in users(29)]


def test_slack_hears_who_entered_an_audience(stage: Stage, slack: str) -> None:
    name = "workspaces/tusk/destinations/slack"
    config = {"token": "xoxb-local", "base_url": slack, "template": "{name} is at level {level}"}
    stage.destination(name, "destination-slack", config)
    fields = (("user_id", "name"), ("level", "level"))
    sync = stage.sync(name, audience="workspaces/tusk/audiences/whales", fields=fields, object="#vip")
    stage.publish(users(3, whales=True))
    stage.carry_out(sync)
    stage.publish(users(4, whales=True))
    stage.carry_out(sync)
    channels = _slack(slack, "conversations.list")["channels"]
    (vip,) = [channel["id"] for channel in channels if channel["name"] == "vip"]
    newest, oldest = [message["text"] for message in _slack(slack, "conversations.history", channel=vip)["messages"]]
    assert [line for line in oldest.splitlines() if "level" in line] == [
        f"• u0000{number} is at level {number}.0" for number in range(3)
    ]
    assert [line for line in newest.splitlines() if "level" in line] == ["• u00003 is at level 3.0"]


def test_a_sync_draws_its_lineage(stage: Stage) -> None:
    moody = stage.moody()
    stage.publish(users(1, whales=True))
    sync = stage.sync(moody.name, audience="workspaces/tusk/audiences/whales")
    run = stage.carry_out(sync)

    def edges() -> set[tuple[str, str, str, str]]:
        request = lineage_pb2.GetLineageRequest(parent="workspaces/tusk", root="traits/level")
        with auth.acting_as(EDITOR):
            lineage = lineage_pb2_grpc.LineageServiceStub(stage.registry).GetLineage(request)
        return {(e.job, e.run, e.output.namespace, e.output.field) for e in lineage.edges}

    _eventually(lambda: (sync, run.name, moody.name, "level") in edges())


def test_no_personal_value_or_secret_reaches_a_history_or_a_log(stage: Stage, working: WorkerProcess) -> None:
    moody = stage.moody()
    moody.set(refuse=True)
    stage.publish([{"user_id": "canary-user", "email": CANARY}, *users(3, email=CANARY)])
    parked = stage.wait(stage.start(stage.sync(moody.name)).name)
    moody.set(reject=["canary-user"])
    with auth.acting_as(EDITOR):
        stage.runs.RetryRun(run_pb2.RetryRunRequest(name=parked.name))
    stage.wait(parked.name, run_pb2.Run.STATE_SUCCEEDED)
    assert {reject.key for reject in rejects(stage, parked.name)} == {"canary-user"}, "the canary was on its way"

    async def history(client: Client) -> str:
        return (await client.get_workflow_handle(parked.name).fetch_history()).to_json()

    encoded: str = temporal(stage, history)
    payloads = [base64.b64decode(data).decode() for data in re.findall(r'"data": *"([^"]*)"', encoded)]
    assert any(parked.name in payload for payload in payloads), "payloads were read"
    told = "\n".join([encoded, *payloads, working.log.read_text()])
    for secret in (CANARY, "canary", "s3cret"):
        assert secret not in told


def test_a_preview_follows_what_was_confirmed(stage: Stage) -> None:
    moody = stage.moody()
    moody.set(reject=["u00000"])
    stage.publish(users(10))
    sync = stage.sync(moody.name, "mirror")
    stage.carry_out(sync)
    stage.publish(users(8))
    with auth.acting_as(EDITOR):
        preview = stage.syncs.PreviewSync(sync_pb2.PreviewSyncRequest(name=sync))
    assert (preview.deleted_count, preview.unchanged_count, preview.added_count) == (2, 8, 0)


def _slack(base_url: str, method: str, **form: str) -> Any:
    headers = {"Authorization": "Bearer xoxb-local"}
    return httpx.post(base_url + method, data=form, headers=headers).json()


def _eventually(happened: Any, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
