"""The methods, called over the wire, with no worker: what is accepted, what is refused, what is answered."""

import socket
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from google.protobuf import json_format
from traitmesh_proto.sync.v1 import destination_pb2, run_pb2, run_pb2_grpc, sync_pb2

from libs.kit import auth, database
from libs.kit.settings import TemporalSettings
from libs.kit.testing import free_port, reason, running, violations
from services.sync_worker import store
from services.sync_worker.__main__ import build_servicers
from services.sync_worker.tests.stage import EDITOR, Moody, Stage, users

VIEWER = auth.Caller("vera", "tusk", "viewer")
STRANGER = auth.Caller("otto", "other", "editor")
PARENT = "workspaces/tusk"
SECRETS = ("s3cret", "1234")


@pytest.fixture(autouse=True)
def _as_editor(stage: Stage) -> Iterator[None]:
    with auth.acting_as(EDITOR):
        yield


@pytest.fixture
def moody(stage: Stage) -> Moody:
    return stage.moody(port=5432, login={"pin": "1234"})


def create(config: dict[str, Any], **fields: object) -> destination_pb2.CreateDestinationRequest:
    values: dict[str, object] = {"parent": PARENT, "destination_id": "never"} | fields
    request = destination_pb2.CreateDestinationRequest(**values)  # type: ignore[arg-type]
    request.destination.connector = "destination-moody"
    request.destination.config.update(config)
    return request


def test_connectors_are_listed_with_what_they_ask_for(stage: Stage) -> None:
    answer = stage.destinations.ListConnectors(destination_pb2.ListConnectorsRequest(parent=PARENT))
    (moody,) = [connector for connector in answer.connectors if connector.id == "destination-moody"]
    assert list(moody.modes) == ["upsert", "insert", "mirror"]
    assert moody.guarantee == "exactly once"
    schema = json_format.MessageToDict(moody.config_schema)
    assert schema["properties"]["token"]["airbyte_secret"] is True


def test_a_destination_answers_with_its_secrets_masked(stage: Stage, moody: Moody) -> None:
    got = stage.destinations.GetDestination(destination_pb2.GetDestinationRequest(name=moody.name))
    assert got.revision == 1
    config = json_format.MessageToDict(got.config)
    assert (config["token"], config["login"], config["folder"]) == ("********", {"pin": "********"}, str(moody.folder))
    listed = stage.destinations.ListDestinations(destination_pb2.ListDestinationsRequest(parent=PARENT))
    assert got in listed.destinations
    assert not any(secret in str(listed) for secret in SECRETS)


@pytest.mark.parametrize(
    ("config", "fields"),
    [
        ({"folder": "/"}, ["destination.config"]),
        ({"folder": "/", "token": 5}, ["destination.config.token"]),
        ({"folder": "/", "token": "s3cret", "port": "x"}, ["destination.config.port"]),
        ({"folder": "/", "token": "s3cret", "port": 1.5}, ["destination.config.port"]),
    ],
)
def test_a_wrong_configuration_is_refused_by_path(stage: Stage, config: dict[str, Any], fields: list[str]) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stage.destinations.CreateDestination(create(config))
    assert violations(caught.value) == fields
    assert "s3cret" not in str(caught.value)
    with pytest.raises(grpc.RpcError, match="there is no"):
        stage.destinations.GetDestination(destination_pb2.GetDestinationRequest(name=f"{PARENT}/destinations/never"))


def test_what_the_tool_refuses_is_not_created(stage: Stage) -> None:
    with pytest.raises(grpc.RpcError, match="is wrong") as caught:
        stage.destinations.CreateDestination(create({"folder": "/", "token": "wrong-s3cret"}))
    assert reason(caught.value) == "ERROR_REASON_CONNECTOR_REFUSED"
    assert "s3cret" not in str(caught.value)


def test_validate_only_checks_the_tool_and_creates_nothing(stage: Stage) -> None:
    good = create({"folder": "/", "token": "s3cret"}, validate_only=True)
    assert stage.destinations.CreateDestination(good).config["token"] == "********"
    with pytest.raises(grpc.RpcError, match="is wrong"):
        stage.destinations.CreateDestination(create({"folder": "/", "token": "wrong-one"}, validate_only=True))
    with pytest.raises(grpc.RpcError, match="there is no"):
        stage.destinations.GetDestination(destination_pb2.GetDestinationRequest(name=f"{PARENT}/destinations/never"))


def test_a_destination_is_refused_with_what_would_be_right(stage: Stage, moody: Moody) -> None:
    taken = create({"folder": "/", "token": "t"}, destination_id=moody.name.rpartition("/")[2])
    unknown = create({})
    unknown.destination.connector = "destination-unknown"
    for request, why in ((taken, "EXISTS"), (unknown, "INVALID_FIELD"), (create({}, destination_id="A B"), "INVALID")):
        with pytest.raises(grpc.RpcError) as caught:
            stage.destinations.CreateDestination(request)
        assert why in reason(caught.value)


def test_a_request_id_has_one_effect(stage: Stage, tmp_path: Path) -> None:
    config = {"folder": str(tmp_path), "token": "s3cret"}
    request = create(config, destination_id="once", request_id=str(uuid.uuid4()))
    created = stage.destinations.CreateDestination(request)
    (tmp_path / "mood.json").write_text('{"refuse": true}')
    assert stage.destinations.CreateDestination(request) == created
    other = create(config, destination_id="twice", request_id=request.request_id)
    with pytest.raises(grpc.RpcError) as caught:
        stage.destinations.CreateDestination(other)
    assert reason(caught.value) == "ERROR_REASON_REQUEST_ID_REUSED"


def test_no_transaction_is_open_while_the_tool_is_asked(stage: Stage, moody: Moody) -> None:
    config = {"folder": str(moody.folder), "token": "s3cret"}
    change = destination_pb2.UpdateDestinationRequest(request_id=str(uuid.uuid4()))
    change.destination.name = moody.name
    change.destination.config.update(config)
    calls = [
        lambda: stage.destinations.CreateDestination(create(config, destination_id="slow")),
        lambda: stage.destinations.UpdateDestination(change),
    ]
    with socket.create_server(("127.0.0.1", 0)) as asked, ThreadPoolExecutor(1) as pool:
        asked.settimeout(30)
        moody.set(ask=asked.getsockname()[1])
        for call in calls:
            answer = pool.submit(copy_context().run, call)
            held, _ = asked.accept()
            with held:
                assert open_transactions(stage) == 0
            assert answer.result(30).name


def test_of_two_updates_at_once_one_is_told_to_try_again(stage: Stage, moody: Moody) -> None:
    change = destination_pb2.UpdateDestinationRequest()
    change.destination.name = moody.name
    change.destination.config.update({"folder": str(moody.folder), "token": "s3cret"})
    with socket.create_server(("127.0.0.1", 0)) as asked, ThreadPoolExecutor(1) as pool:
        asked.settimeout(30)
        moody.set(ask=asked.getsockname()[1])
        slower = pool.submit(copy_context().run, stage.destinations.UpdateDestination, change)
        held, _ = asked.accept()
        moody.set()
        with held:
            assert stage.destinations.UpdateDestination(change).revision == 2
    with pytest.raises(grpc.RpcError) as caught:
        slower.result(30)
    assert reason(caught.value) == "ERROR_REASON_CONFLICT"


def open_transactions(stage: Stage) -> int:
    """How many sessions of the stage's database are in a transaction in which nothing happens."""
    url = stage.settings.database_url.get_secret_value()
    with psycopg.connect(url) as connection:
        counted = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'"
        ).fetchone()
    assert counted is not None
    return int(counted[0])


def test_an_update_keeps_masked_secrets_and_counts_revisions(stage: Stage, moody: Moody) -> None:
    shown = stage.destinations.GetDestination(destination_pb2.GetDestinationRequest(name=moody.name))
    shown.config["port"] = 6543
    updated = stage.destinations.UpdateDestination(destination_pb2.UpdateDestinationRequest(destination=shown))
    assert (updated.revision, updated.config["port"], updated.config["token"]) == (2, 6543, "********")
    renamed = destination_pb2.Destination(name=moody.name, display_name="Cheerful")
    after = stage.destinations.UpdateDestination(destination_pb2.UpdateDestinationRequest(destination=renamed))
    assert (after.display_name, after.revision, after.config["port"]) == ("Cheerful", 2, 6543)
    shown.connector = "destination-postgres"
    with pytest.raises(grpc.RpcError) as caught:
        stage.destinations.UpdateDestination(destination_pb2.UpdateDestinationRequest(destination=shown))
    assert violations(caught.value) == ["destination.connector"]


def test_a_sync_is_answered_as_it_was_made(stage: Stage, moody: Moody) -> None:
    name = stage.sync(moody.name, "mirror", audience=f"{PARENT}/audiences/whales", display_name="Whales")
    sync = stage.syncs.GetSync(sync_pb2.GetSyncRequest(name=name))
    assert (sync.audience, sync.destination, sync.mode) == (
        f"{PARENT}/audiences/whales",
        moody.name,
        sync_pb2.MODE_MIRROR,
    )
    assert [(m.source, m.destination) for m in sync.mappings] == [
        ("user_id", "id"),
        ("level", "level"),
        ("email", "mail"),
    ]
    assert sync in stage.syncs.ListSyncs(sync_pb2.ListSyncsRequest(parent=PARENT)).syncs


def test_every_wrong_field_of_a_sync_is_named(stage: Stage, moody: Moody) -> None:
    with pytest.raises(grpc.RpcError, match="did you mean level") as caught:
        stage.sync(moody.name, "update", fields=[("levle", "a"), ("level", "a")], audience=f"{PARENT}/audiences/payer")
    assert violations(caught.value) == [
        "sync.mappings[0].source",
        "sync.mappings[1].destination",
        "sync.mappings",
        "sync.audience",
        "sync.mode",
    ]
    assert "destination-moody cannot update; it has upsert, insert, mirror" in str(caught.value)


def test_what_is_in_another_workspace_is_not_found(stage: Stage, moody: Moody) -> None:
    sync = stage.sync(moody.name)
    with auth.acting_as(STRANGER):
        for call in (
            lambda: stage.syncs.GetSync(sync_pb2.GetSyncRequest(name=sync)),
            lambda: stage.destinations.GetDestination(destination_pb2.GetDestinationRequest(name=moody.name)),
            lambda: stage.runs.CreateRun(run_pb2.CreateRunRequest(parent=sync)),
            lambda: stage.runs.ListRuns(run_pb2.ListRunsRequest(parent=f"{PARENT}/syncs/-")),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                call()
            assert reason(caught.value) == "ERROR_REASON_RESOURCE_NOT_FOUND"


def test_a_viewer_reads_and_does_not_run(stage: Stage, moody: Moody) -> None:
    sync = stage.sync(moody.name)
    with auth.acting_as(VIEWER):
        stage.syncs.GetSync(sync_pb2.GetSyncRequest(name=sync))
        with pytest.raises(grpc.RpcError) as caught:
            stage.runs.CreateRun(run_pb2.CreateRunRequest(parent=sync))
    assert reason(caught.value) == "ERROR_REASON_PERMISSION_DENIED"


def test_one_run_of_a_sync_goes_on_at_a_time(stage: Stage, moody: Moody) -> None:
    sync = stage.sync(moody.name)
    request = run_pb2.CreateRunRequest(parent=sync, request_id=str(uuid.uuid4()))
    first = stage.runs.CreateRun(request)
    assert first.state == run_pb2.Run.STATE_PLANNING
    assert stage.runs.CreateRun(request) == first
    with pytest.raises(grpc.RpcError, match="runs/1 is under way") as caught:
        stage.start(sync)
    assert reason(caught.value) == "ERROR_REASON_UNDER_WAY"
    with pytest.raises(grpc.RpcError, match="only a run that needs attention takes retry") as caught:
        stage.runs.RetryRun(run_pb2.RetryRunRequest(name=first.name))
    assert reason(caught.value) == "ERROR_REASON_NOT_READY"
    assert stage.get(first.name) == first


def test_runs_are_paged_newest_first(stage: Stage, moody: Moody) -> None:
    names = [stage.start(stage.sync(moody.name)).name for _ in range(3)]
    found: list[str] = []
    token = ""
    for _ in range(50):
        request = run_pb2.ListRunsRequest(parent=f"{PARENT}/syncs/-", page_size=2, page_token=token)
        page = stage.runs.ListRuns(request)
        found += [run.name for run in page.runs]
        token = page.next_page_token
        if not token:
            break
    assert found[:3] == names[::-1]
    assert len(found) == len(set(found))
    for token in ("x", "eyJhIjoxfQ=="):
        with pytest.raises(grpc.RpcError) as caught:
            stage.runs.ListRuns(run_pb2.ListRunsRequest(parent=f"{PARENT}/syncs/-", page_token=token))
        assert violations(caught.value) == ["page_token"]


def test_a_run_that_cannot_be_started_leaves_nothing(stage: Stage, moody: Moody) -> None:
    sync = stage.sync(moody.name)
    nowhere = TemporalSettings(address=f"127.0.0.1:{free_port()}")
    engine = database.connect(stage.settings, store.SCHEMA)
    servicers = build_servicers(engine, stage.settings, nowhere)
    refused = pytest.raises(grpc.RpcError, match="Temporal does not answer")
    with running(servicers, stage.settings) as channel, refused:
        run_pb2_grpc.RunServiceStub(channel).CreateRun(run_pb2.CreateRunRequest(parent=sync))
    assert list(stage.runs.ListRuns(run_pb2.ListRunsRequest(parent=sync)).runs) == []
    assert stage.start(sync).name == f"{sync}/runs/1"


def test_names_that_do_not_exist_are_not_found(stage: Stage) -> None:
    for call in (
        lambda: stage.syncs.GetSync(sync_pb2.GetSyncRequest(name=f"{PARENT}/syncs/none")),
        lambda: stage.syncs.PreviewSync(sync_pb2.PreviewSyncRequest(name=f"{PARENT}/syncs/none")),
        lambda: stage.runs.CreateRun(run_pb2.CreateRunRequest(parent=f"{PARENT}/syncs/none")),
        lambda: stage.runs.GetRun(run_pb2.GetRunRequest(name=f"{PARENT}/syncs/none/runs/1")),
        lambda: stage.runs.AbortRun(run_pb2.AbortRunRequest(name=f"{PARENT}/syncs/none/runs/x")),
        lambda: stage.runs.ListRejects(run_pb2.ListRejectsRequest(parent=f"{PARENT}/syncs/none/runs/1")),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            call()
        assert reason(caught.value) == "ERROR_REASON_RESOURCE_NOT_FOUND"


def test_a_preview_says_what_a_run_would_do_and_keeps_nothing(stage: Stage, moody: Moody) -> None:
    stage.publish(users(12, email="a@b.c"))
    sync = stage.sync(moody.name, "mirror")
    for _ in range(2):
        preview = stage.syncs.PreviewSync(sync_pb2.PreviewSyncRequest(name=sync))
    assert (preview.added_count, preview.changed_count, preview.deleted_count, preview.unchanged_count) == (12, 0, 0, 0)
    assert len(preview.operations) == 5
    assert preview.operations[0].operation == "upsert"
    assert dict(preview.operations[0].record) == {"id": "u00000", "level": 0.0, "mail": "a@b.c"}
    assert preview.build == stage.builds.latest["tusk"].name
    assert list(stage.settings.data_dir.rglob("*.parquet")) == []
