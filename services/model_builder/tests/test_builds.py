"""Pushes and builds, called over the wire, done by a real worker process with real dbt and notebooks."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pyarrow as pa
import pytest
from google.protobuf import json_format
from temporalio.client import WorkflowFailureError
from traitmesh_proto.audience.v1 import audience_pb2
from traitmesh_proto.model.v1 import build_pb2, load_pb2, profile_pb2, project_pb2
from traitmesh_proto.registry.v1 import lineage_pb2, trait_pb2

from libs.kit import auth
from libs.kit.testing import reason, reset_workflow, violations
from services.model_builder.tests import mini
from services.model_builder.tests.conftest import ROOT, TUSK, World, archive_of, files_of, until

SUCCEEDED = build_pb2.Build.STATE_SUCCEEDED
FAILED = build_pb2.Build.STATE_FAILED
TUSK_PROJECT = "workspaces/tusk/projects/tusk"


@pytest.fixture(scope="module")
def tusk(world: World, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The demo company, small: loaded, pushed, built once."""
    folder = tmp_path_factory.mktemp("events")
    command = [sys.executable, str(TUSK / "generate.py"), "--users", "300", "--events", "5000", "--out", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    parent = world.create_workspace("tusk")
    for file in sorted(folder.glob("*.gz")):
        assert world.load(parent, file.name, file.read_bytes()).state == load_pb2.Load.STATE_SUCCEEDED
    world.push(TUSK_PROJECT, archive_of(files_of(TUSK / "dbt")))
    world.push_notebook("workspaces/tusk/notebooks/churn", (TUSK / "notebooks" / "churn.ipynb").read_bytes())
    build = world.build(parent)
    assert build.state == SUCCEEDED, build
    return parent


@pytest.fixture(scope="module")
def small(world: World) -> str:
    """Three users, three traits and a score, built once."""
    parent = world.create_workspace("mini")
    world.load(parent, "a.ndjson", mini.lines(*mini.EVENTS))
    pushed = world.push("workspaces/mini/projects/mini", mini.archive())
    assert list(pushed.added_traits) == ["actions", "is_active", "last_action"]
    world.push_notebook("workspaces/mini/notebooks/scoring", mini.notebook())
    build = world.build(parent)
    assert build.state == SUCCEEDED, build
    return parent


def read(world: World, name: str, *traits: str) -> pa.Table:
    pieces = list(world.builds.ReadBuild(build_pb2.ReadBuildRequest(name=name, traits=traits)))
    assert {piece.content_type for piece in pieces} == {"application/vnd.apache.arrow.stream"}
    return pa.ipc.open_stream(b"".join(piece.data for piece in pieces)).read_all()


def test_a_build_makes_every_trait(world: World, tusk: str) -> None:
    build = world.get_build(f"{tusk}/builds/latest")
    assert [step.step for step in build.steps] == [
        *("dbt build tusk", "notebook churn"),
        *("staging", "audiences", "publish", "lineage", "profiles"),
    ]
    assert all(step.outcome and step.duration.ToMicroseconds() > 0 for step in build.steps)
    assert (build.row_count, build.inserted_count, build.updated_count) == (300, 300, 0)
    [run] = build.notebook_runs
    assert 0.5 < run.metrics["auc"] <= 1
    table = read(world, build.name)
    assert table.num_rows == 300
    assert table.column_names[0] == "user_id"
    kinds = {table.schema.field(trait).type for trait in ("is_payer", "ltv", "country", "games_30d")}
    assert kinds == {pa.bool_(), pa.float64(), pa.string(), pa.int64()}
    assert table["churn_probability"].null_count == 300 - run.row_count
    folder = world.settings.data_dir / "builds" / "tusk"
    until(lambda: list(folder.iterdir()), lambda left: left == [], seconds=20)


def test_a_trait_leads_back_to_event_columns(world: World, tusk: str) -> None:
    up = lineage_pb2.DIRECTION_UPSTREAM
    ask = lineage_pb2.GetLineageRequest(parent=tusk, root="traits/ltv", direction=up, direct_only=True)
    found = world.lineage.GetLineage(ask)
    inputs = {(edge.input.dataset, edge.input.field) for edge in found.edges}
    assert ("traitmesh.events", "se_value") in inputs
    assert ("traitmesh.events", "geo_country") not in inputs
    assert not any(edge.partial for edge in found.edges)
    ask.direct_only = False
    everything = world.lineage.GetLineage(ask)
    assert ("traitmesh.events", "time") in {(edge.input.dataset, edge.input.field) for edge in everything.edges}
    ask.root = "traits/active_days_30d"
    counted = {
        (edge.input.dataset, edge.input.field, edge.output.field) for edge in world.lineage.GetLineage(ask).edges
    }
    assert ("dbt.user_days", "day", "active_days_30d") in counted
    assert ("traitmesh.events", "time", "day") in counted
    ask.root = "traits/churn_probability"
    predicted = {(edge.input.dataset, edge.partial) for edge in world.lineage.GetLineage(ask).edges}
    assert ("dbt.user_activity_windows", True) in predicted


def test_a_revision_with_more_traits_and_audiences_compares(world: World, tusk: str) -> None:
    first = world.get_build(f"{tusk}/builds/latest")
    files = files_of(TUSK / "dbt") | files_of(TUSK / "next")
    trial = world.push(TUSK_PROJECT, archive_of(files), validate_only=True)
    pushed = world.push(TUSK_PROJECT, archive_of(files))
    assert list(trial.added_traits) == list(pushed.added_traits) != []
    assert pushed.project.revision == 2
    create_audience(world, tusk, "payers", {"trait": {"trait": "is_payer", "operator": 1, "values": [True]}})
    create_audience(world, tusk, "others", {"not": {"trait": {"trait": "payers", "operator": 1, "values": [True]}}})
    second = world.build(tusk)
    assert second.state == SUCCEEDED, second
    compared = world.builds.CompareBuilds(build_pb2.CompareBuildsRequest(name=second.name))
    assert compared.base == first.name
    assert list(compared.added_traits) == sorted([*pushed.added_traits, "others", "payers"])
    assert (compared.added_rows, compared.removed_rows, compared.changed_rows) == (0, 0, 0)
    table = read(world, second.name, "is_payer", "payers", "others").to_pylist()
    assert all(row["payers"] == row["is_payer"] != row["others"] for row in table)
    assert {True, False} == {row["payers"] for row in table}
    assert "payers" not in read(world, first.name).column_names
    ask = lineage_pb2.GetLineageRequest(parent=tusk, root="traits/others", direction=lineage_pb2.DIRECTION_UPSTREAM)
    assert ("dbt.user_traits", "is_payer") in {
        (edge.input.dataset, edge.input.field) for edge in world.lineage.GetLineage(ask).edges
    }


def create_audience(world: World, parent: str, audience: str, rule: dict[str, object]) -> None:
    message = json_format.ParseDict({"rule": rule}, audience_pb2.Audience())
    request = audience_pb2.CreateAudienceRequest(parent=parent, audience_id=audience, audience=message)
    world.audiences.CreateAudience(request)


def test_a_profile_is_what_the_build_says(world: World, small: str) -> None:
    body = world.profile(f"{small}/profiles/ana")
    assert body.content_type == "application/json"
    profile = json.loads(body.data)
    latest = world.get_build(f"{small}/builds/latest")
    assert profile["traits"] == {"actions": 2, "is_active": True, "last_action": "click", "score": 3.0}
    assert profile["audiences"] == []
    assert (profile["build"], profile["modelRevision"]) == (latest.name, latest.model_revision)
    assert profile["asOf"] == latest.as_of.ToJsonString()
    parsed = json_format.Parse(body.data, profile_pb2.Profile())
    assert parsed.name == f"{small}/profiles/ana"
    assert 0 < parsed.staleness.ToMilliseconds() < 600_000
    with pytest.raises(grpc.RpcError, match="check the user's id") as absent:
        world.profile(f"{small}/profiles/nobody-42")
    assert reason(absent.value) == "ERROR_REASON_RESOURCE_NOT_FOUND"
    assert "nobody-42" not in str(absent.value)
    with auth.acting_as(auth.Caller("otto", "elsewhere", "editor")), pytest.raises(grpc.RpcError) as foreign:
        world.profile(f"{small}/profiles/ana")
    assert reason(foreign.value) == "ERROR_REASON_RESOURCE_NOT_FOUND"


def test_a_broken_contract_keeps_the_last_good_build(world: World, small: str) -> None:
    good = world.get_build(f"{small}/builds/latest")
    before = json.loads(world.profile(f"{small}/profiles/ana").data)
    strict = mini.archive({"last_action": [{"accepted_values": {"arguments": {"values": ["open"]}}}]})
    world.push("workspaces/mini/projects/mini", strict)
    world.load(small, "more.ndjson", mini.lines(mini.event("ana", 7)))
    broken = world.build(small)
    world.push("workspaces/mini/projects/mini", mini.archive())
    assert broken.state == FAILED
    [failure] = broken.failures
    assert (failure.trait, failure.contract) == ("last_action", "accepted_values_mini_traits_last_action__open")
    assert "1 rows break this contract" in failure.reason
    assert [step.step for step in broken.steps] == ["dbt build mini"]
    assert world.get_build(f"{small}/builds/latest") == good
    after = json.loads(world.profile(f"{small}/profiles/ana").data)
    assert after | {"staleness": ""} == before | {"staleness": ""}
    with pytest.raises(grpc.RpcError, match="was not published"):
        read(world, broken.name)


def test_a_column_of_another_type_fails_the_build_and_says_so(world: World, small: str) -> None:
    world.push("workspaces/mini/projects/mini", mini.archive(last_action="continuous"))
    broken = world.build(small)
    world.push("workspaces/mini/projects/mini", mini.archive())
    assert broken.state == FAILED
    assert [(failure.trait, failure.contract) for failure in broken.failures] == [("last_action", "type")]
    assert "dbt.mini_traits.last_action is VARCHAR" in broken.failures[0].reason


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise ValueError('ana@example.com')", "its cell 1 raised ValueError;"),
        ("import time; time.sleep(0)", "published no score"),
    ],
)
def test_a_failing_notebook_names_cell_and_trait_but_no_value(world: World, small: str, code: str, said: str) -> None:
    world.push_notebook("workspaces/mini/notebooks/scoring", mini.notebook(code=code))
    broken = world.build(small)
    world.push_notebook("workspaces/mini/notebooks/scoring", mini.notebook())
    assert broken.state == FAILED
    [failure] = broken.failures
    assert (failure.trait, failure.contract) == ("score", "notebook scoring")
    assert said in failure.reason
    assert "example.com" not in str(broken)


def test_a_build_outlives_its_workers(world: World, small: str) -> None:
    world.load(small, "outlive.ndjson", mini.lines(mini.event("dee", 1), mini.event("ana", 8)))
    started = world.start_build(small)
    seen = list(kill_at(world, started.name, "dbt build mini", "notebook scoring", "publish"))
    build = world.wait_build(started.name)
    assert seen == ["dbt build mini", "notebook scoring", "publish"]
    assert build.state == SUCCEEDED, build
    assert json.loads(world.profile(f"{small}/profiles/dee").data)["traits"]["actions"] == 1
    assert read(world, build.name).num_rows == build.row_count == 4
    assert (build.inserted_count, build.deleted_count) == (1, 0)
    staged = f"traitmesh.build_{build.name.rpartition('/')[2]}_0"
    until(lambda: world.warehouse("mini").exists(staged), lambda left: not left, seconds=20)


def test_a_build_that_has_ended_stays_so_when_its_workflow_is_reset(world: World, small: str) -> None:
    first = world.get_build(f"{small}/builds/1")
    latest = world.get_build(f"{small}/builds/latest")
    model = world.rows("mini", "SELECT * FROM {} ORDER BY user_ord", "traitmesh.user_model")
    with pytest.raises(WorkflowFailureError) as caught:
        reset_workflow(world.temporal.address, first.name)
    assert "has succeeded; make another with `traitmesh build run`" in str(caught.value.cause)
    assert world.get_build(first.name) == first != latest
    assert world.get_build(f"{small}/builds/latest") == latest
    assert world.rows("mini", "SELECT * FROM {} ORDER BY user_ord", "traitmesh.user_model") == model


def kill_at(world: World, name: str, *steps: str) -> Iterator[str]:
    """Kills the worker once each of the steps has begun, and starts another; yields the steps it was killed in."""
    for step in steps:
        until(lambda: world.get_build(name), begun(step), seconds=120)
        world.kill_worker()
        caught = world.get_build(name)
        world.start_worker()
        if caught.state == build_pb2.Build.STATE_RUNNING:
            yield caught.steps[-1].step if caught.steps[-1].step != "lineage" else "publish"


def begun(step: str) -> Callable[[build_pb2.Build], bool]:
    return lambda build: step in [each.step for each in build.steps]


def test_two_workspaces_build_at_once_and_one_of_them_once_at_a_time(world: World, tusk: str, small: str) -> None:
    request = build_pb2.CreateBuildRequest(parent=small, request_id="8c1ac6a2-24c2-4a53-a35d-7fd7d5e5d0d4")
    one = world.builds.CreateBuild(request)
    same = world.builds.CreateBuild(request)
    other = world.start_build(tusk)
    with pytest.raises(grpc.RpcError) as caught:
        world.start_build(small)
    assert same.name == one.name
    assert reason(caught.value) == "ERROR_REASON_UNDER_WAY"
    assert one.name in str(caught.value)
    ended = [world.wait_build(build.name) for build in (one, other)]
    assert [build.state for build in ended] == [SUCCEEDED, SUCCEEDED]
    assert ended[1].updated_count == 0
    listed = world.builds.ListBuilds(build_pb2.ListBuildsRequest(parent=small, page_size=1))
    assert [build.name for build in listed.builds] == [one.name]
    assert listed.next_page_token


def test_a_build_decides_audiences_by_its_own_model_revision(world: World) -> None:
    parent = world.create_workspace("pinned")
    world.load(parent, "a.ndjson", mini.lines(*mini.EVENTS))
    project = world.push(f"{parent}/projects/mini", mini.archive())
    create_audience(world, parent, "clicked", {"trait": {"trait": "last_action", "operator": 1, "values": ["click"]}})
    started = world.start_build(parent)
    changed = trait_pb2.ApplyTraitsRequest(parent=parent, origin=f"{parent}/projects/mini")
    changed.traits.add(
        name=f"{parent}/traits/last_action",
        kind=trait_pb2.TRAIT_KIND_COMPUTED,
        type=trait_pb2.TRAIT_TYPE_CONTINUOUS,
        column="dbt.mini_traits.last_action",
    )
    with auth.acting_as(auth.Caller("model_builder", "pinned", "service")):
        latest = world.traits.ApplyTraits(changed).model_revision.name
    assert "audiences" not in [step.step for step in world.get_build(started.name).steps], "the change came too late"
    build = world.wait_build(started.name)
    assert build.state == SUCCEEDED, build
    assert build.model_revision not in (project.model_revision, latest)
    members = [row["user_id"] for row in read(world, build.name, "clicked").to_pylist() if row["clicked"]]
    assert sorted(members) == ["ana", "cy"]


def test_a_project_brings_its_seeds(world: World) -> None:
    parent = world.create_workspace("seeded")
    world.load(parent, "a.ndjson", mini.lines(*mini.EVENTS))
    labels = (
        "select {}, labels.label as last_action from ({}) as users join {{{{ ref('labels') }}}} using (last_action)"
    )
    columns = "user_id, actions, is_active"
    seeded = {
        "models/mini_traits.sql": labels.format(columns, mini.PROJECT["models/mini_traits.sql"]),
        "models/mini_traits.yml": mini.schema(),
        "seeds/labels.csv": "last_action,label\nclick,clicked\nopen,opened\n",
    }
    world.push(f"{parent}/projects/mini", archive_of(mini.PROJECT | seeded))
    build = world.build(parent)
    assert build.state == SUCCEEDED, build
    assert {row["last_action"] for row in read(world, build.name).to_pylist()} == {"clicked", "opened"}
    ask = lineage_pb2.GetLineageRequest(
        parent=parent, root="traits/last_action", direction=lineage_pb2.DIRECTION_UPSTREAM, direct_only=True
    )
    inputs = {(edge.input.dataset, edge.input.field) for edge in world.lineage.GetLineage(ask).edges}
    assert ("dbt.labels", "label") in inputs


def test_a_build_needs_events_and_traits(world: World) -> None:
    parent = world.create_workspace("bare")
    with pytest.raises(grpc.RpcError, match="there are no events yet"):
        world.start_build(parent)
    world.load(parent, "a.ndjson", mini.lines(mini.event("ana", 1)))
    with pytest.raises(grpc.RpcError, match="there are no traits yet") as caught:
        world.start_build(parent)
    assert reason(caught.value) == "ERROR_REASON_NOT_READY"
    with pytest.raises(grpc.RpcError, match="make the first build with `traitmesh build run`") as absent:
        world.get_build(f"{parent}/builds/latest")
    assert reason(absent.value) == "ERROR_REASON_RESOURCE_NOT_FOUND"


def test_a_project_that_dbt_cannot_read_changes_nothing(world: World, small: str) -> None:
    broken = archive_of(mini.PROJECT | {"models/mini_traits.sql": "select {{ ref('nowhere') }}"})
    with pytest.raises(grpc.RpcError, match="nowhere") as caught:
        world.push("workspaces/mini/projects/mini", broken)
    assert reason(caught.value) == "ERROR_REASON_INVALID_SOURCE"
    wrong = mini.archive(actions="number")
    with pytest.raises(grpc.RpcError, match=r"mini_traits, column actions: meta.traitmesh.trait.type must be"):
        world.push("workspaces/mini/projects/mini", wrong)
    latest = trait_pb2.GetModelRevisionRequest(name=f"{small}/modelRevisions/latest")
    assert "actions" in [trait.display_name for trait in world.traits.GetModelRevision(latest).traits]


def test_the_same_project_again_is_the_same_revision(world: World, small: str) -> None:
    get = project_pb2.GetProjectRequest(name="workspaces/mini/projects/mini")
    before = world.projects.GetProject(get)
    again = world.push("workspaces/mini/projects/mini", mini.archive())
    assert again.project == before
    assert not [*again.added_traits, *again.changed_traits, *again.removed_traits]
    assert world.projects.ListProjects(project_pb2.ListProjectsRequest(parent=small)).projects == [before]


def test_an_archive_that_leaves_its_folder_is_refused(world: World, small: str, tmp_path: Path) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        world.push("workspaces/mini/projects/mini", archive_of(mini.PROJECT | {"../outside.sql": "select 1"}))
    assert violations(caught.value) == ["archive.data"]
    assert not list(tmp_path.iterdir())
