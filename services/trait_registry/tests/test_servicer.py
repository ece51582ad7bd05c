"""The registry's methods, called over the wire against a real PostgreSQL."""

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from sqlalchemy import Engine, text
from traitmesh_proto.registry.v1 import (
    lineage_pb2,
    lineage_pb2_grpc,
    trait_pb2,
    trait_pb2_grpc,
    workspace_pb2,
    workspace_pb2_grpc,
)

from libs.kit import auth, database
from libs.kit.settings import Settings
from libs.kit.testing import reason, running, schema_differences, violations
from services.trait_registry import store
from services.trait_registry.__main__ import build_servicers

ADMIN = auth.Caller("root", auth.EVERY_WORKSPACE, "admin")
SERVICE = auth.Caller("model_builder", "tusk", "service")
VIEWER = auth.Caller("vera", "tusk", "viewer")
STRANGER = auth.Caller("otto", "other", "editor")

PROJECT = "workspaces/tusk/projects/tusk"


@pytest.fixture(scope="module")
def engine(settings: Settings) -> Engine:
    engine = database.connect(settings, store.SCHEMA)
    scripts = Path(store.__file__).parent / "alembic"
    database.upgrade(engine, store.SCHEMA, scripts)
    database.upgrade(engine, store.SCHEMA, scripts)  # A second start finds nothing to do.
    return engine


@pytest.fixture(scope="module")
def channel(engine: Engine, settings: Settings) -> Iterator[grpc.Channel]:
    with running(build_servicers(engine), settings) as channel:
        workspaces = workspace_pb2_grpc.WorkspaceServiceStub(channel)
        with auth.acting_as(ADMIN):
            for workspace in ("tusk", "other"):
                workspaces.CreateWorkspace(workspace_pb2.CreateWorkspaceRequest(workspace_id=workspace))
        yield channel


@pytest.fixture
def traits(channel: grpc.Channel) -> trait_pb2_grpc.TraitServiceStub:
    return trait_pb2_grpc.TraitServiceStub(channel)


@pytest.fixture
def workspaces(channel: grpc.Channel) -> workspace_pb2_grpc.WorkspaceServiceStub:
    return workspace_pb2_grpc.WorkspaceServiceStub(channel)


def trait(name: str, **fields: object) -> trait_pb2.Trait:
    defaults: dict[str, object] = {
        "name": f"workspaces/tusk/traits/{name}",
        "kind": trait_pb2.TRAIT_KIND_COMPUTED,
        "type": trait_pb2.TRAIT_TYPE_CONTINUOUS,
        "column": f"dbt.user_traits.{name}",
    }
    return trait_pb2.Trait(**(defaults | fields))  # type: ignore[arg-type]


def apply(*declared: trait_pb2.Trait, origin: str = PROJECT, **fields: object) -> trait_pb2.ApplyTraitsRequest:
    return trait_pb2.ApplyTraitsRequest(
        parent="workspaces/tusk",
        origin=origin,
        traits=declared,
        **fields,  # type: ignore[arg-type]
    )


def test_the_store_declares_what_the_migrations_make(engine: Engine) -> None:
    assert schema_differences(engine, store.metadata) == []


def test_traits_become_numbered_revisions(traits: trait_pb2_grpc.TraitServiceStub) -> None:
    with auth.acting_as(SERVICE):
        first = traits.ApplyTraits(apply(trait("ltv"), trait("sessions")))
        same = traits.ApplyTraits(apply(trait("ltv"), trait("sessions")))
        second = traits.ApplyTraits(apply(trait("ltv", unit="USD"), trait("level")))
    base = first.model_revision.number
    assert [change.trait for change in first.changes] == ["ltv", "sessions"]
    assert same.model_revision.number == base
    assert not same.changes
    assert second.model_revision.number == base + 1
    assert {(c.trait, trait_pb2.TraitChange.Change.Name(c.change)) for c in second.changes} == {
        ("ltv", "CHANGE_CHANGED"),
        ("sessions", "CHANGE_REMOVED"),
        ("level", "CHANGE_ADDED"),
    }
    with auth.acting_as(VIEWER):
        old = traits.GetModelRevision(trait_pb2.GetModelRevisionRequest(name=f"workspaces/tusk/modelRevisions/{base}"))
        new = traits.GetModelRevision(trait_pb2.GetModelRevisionRequest(name="workspaces/tusk/modelRevisions/latest"))
        ltv = traits.GetTrait(trait_pb2.GetTraitRequest(name="workspaces/tusk/traits/ltv"))
    assert [(t.display_name, t.unit, t.revision) for t in old.traits] == [("ltv", "", 1), ("sessions", "", 1)]
    assert [(t.display_name, t.unit, t.revision) for t in new.traits] == [("ltv", "USD", 2), ("level", "", 1)]
    assert ltv.revision == 2


def test_validate_only_answers_the_changes_and_makes_none(traits: trait_pb2_grpc.TraitServiceStub) -> None:
    latest = trait_pb2.GetModelRevisionRequest(name="workspaces/tusk/modelRevisions/latest")
    with auth.acting_as(SERVICE):
        traits.ApplyTraits(apply(trait("ltv")))
        before = traits.GetModelRevision(latest)
        trial = traits.ApplyTraits(apply(trait("ltv"), trait("imagined"), validate_only=True))
        after = traits.GetModelRevision(latest)
    assert [change.trait for change in trial.changes] == ["imagined"]
    assert trial.model_revision.number == before.number + 1
    assert after == before


def test_an_origin_cannot_take_anothers_trait(traits: trait_pb2_grpc.TraitServiceStub) -> None:
    with auth.acting_as(SERVICE):
        traits.ApplyTraits(apply(trait("ltv")))
        with pytest.raises(grpc.RpcError, match="is made by workspaces/tusk/projects/tusk") as caught:
            traits.ApplyTraits(apply(trait("ltv"), origin="workspaces/tusk/notebooks/churn"))
    assert reason(caught.value) == "ERROR_REASON_INVALID_FIELD"


def test_every_wrong_field_is_named(traits: trait_pb2_grpc.TraitServiceStub) -> None:
    wrong = apply(trait("Ltv"), trait("user_id"), trait("x", type=0), trait("y"), trait("y"), trait("z", kind=0))
    with auth.acting_as(SERVICE), pytest.raises(grpc.RpcError) as caught:
        traits.ApplyTraits(wrong)
    assert violations(caught.value) == [
        "traits[0].name",
        "traits[1].name",
        "traits[2]",
        "traits[4].name",
        "traits[5]",
    ]


def test_a_request_id_has_one_effect_and_one_answer(workspaces: workspace_pb2_grpc.WorkspaceServiceStub) -> None:
    request = workspace_pb2.CreateWorkspaceRequest(workspace_id="once", request_id=str(uuid.uuid4()))
    other = workspace_pb2.CreateWorkspaceRequest(workspace_id="once", request_id=request.request_id)
    other.workspace.time_zone = "Asia/Phnom_Penh"
    with auth.acting_as(ADMIN):
        assert workspaces.CreateWorkspace(request) == workspaces.CreateWorkspace(request)
        with pytest.raises(grpc.RpcError) as reused:
            workspaces.CreateWorkspace(other)
        request.request_id = ""
        with pytest.raises(grpc.RpcError) as taken:
            workspaces.CreateWorkspace(request)
    assert reason(reused.value) == "ERROR_REASON_REQUEST_ID_REUSED"
    assert reason(taken.value) == "ERROR_REASON_RESOURCE_EXISTS"


def test_two_workspaces_may_use_the_same_request_id(traits: trait_pb2_grpc.TraitServiceStub) -> None:
    ours = apply(trait("ltv"), request_id=str(uuid.uuid4()))
    theirs = trait_pb2.ApplyTraitsRequest(
        parent="workspaces/other", origin="workspaces/other/projects/p", request_id=ours.request_id
    )
    with auth.acting_as(SERVICE):
        answer = traits.ApplyTraits(ours)
    with auth.acting_as(auth.Caller("model_builder", "other", "service")):
        traits.ApplyTraits(theirs)
    with auth.acting_as(SERVICE):
        assert traits.ApplyTraits(ours) == answer


def test_origins_that_declare_at_once_make_one_revision_after_the_other(
    traits: trait_pb2_grpc.TraitServiceStub,
) -> None:
    def declare(number: int) -> int:
        theirs = trait("at_once")
        theirs.name = f"workspaces/other/traits/at_once_{number}"
        declared = trait_pb2.ApplyTraitsRequest(
            parent="workspaces/other",
            origin=f"workspaces/other/notebooks/n{number}",
            traits=[theirs],
        )
        with auth.acting_as(auth.Caller("model_builder", "other", "service")):
            return traits.ApplyTraits(declared).model_revision.number

    with ThreadPoolExecutor(8) as threads:
        numbers = sorted(threads.map(declare, range(16)))
    assert numbers == list(range(numbers[0], numbers[0] + 16))


def test_a_workspace_says_what_it_was_given_and_sensible_things_else(
    workspaces: workspace_pb2_grpc.WorkspaceServiceStub,
) -> None:
    given = workspace_pb2.Workspace(display_name="Given", time_zone="Asia/Phnom_Penh")
    with auth.acting_as(ADMIN):
        plain = workspaces.CreateWorkspace(workspace_pb2.CreateWorkspaceRequest(workspace_id="plain"))
        named = workspaces.CreateWorkspace(workspace_pb2.CreateWorkspaceRequest(workspace_id="named", workspace=given))
        given.time_zone = "Phnom Penh"
        with pytest.raises(grpc.RpcError) as wrong:
            workspaces.CreateWorkspace(workspace_pb2.CreateWorkspaceRequest(workspace_id="wrong", workspace=given))
    assert (plain.display_name, plain.time_zone) == ("plain", "UTC")
    assert (named.display_name, named.time_zone) == ("Given", "Asia/Phnom_Penh")
    assert violations(wrong.value) == ["workspace.time_zone"]


def test_a_caller_lists_only_workspaces_that_it_may_enter(workspaces: workspace_pb2_grpc.WorkspaceServiceStub) -> None:
    everything = workspace_pb2.ListWorkspacesRequest()
    with auth.acting_as(VIEWER):
        assert [each.name for each in workspaces.ListWorkspaces(everything).workspaces] == ["workspaces/tusk"]
    with auth.acting_as(ADMIN):
        assert {"workspaces/tusk", "workspaces/other"} <= {
            each.name for each in workspaces.ListWorkspaces(everything).workspaces
        }


def test_another_workspace_is_not_there(traits: trait_pb2_grpc.TraitServiceStub) -> None:
    known = trait_pb2.GetTraitRequest(name="workspaces/tusk/traits/ltv")
    unknown = trait_pb2.GetTraitRequest(name="workspaces/other/traits/ltv")
    with auth.acting_as(STRANGER):
        with pytest.raises(grpc.RpcError) as forbidden:
            traits.GetTrait(known)
        with pytest.raises(grpc.RpcError) as absent:
            traits.GetTrait(unknown)
    nowhere = trait_pb2.ApplyTraitsRequest(parent="workspaces/nowhere", origin="workspaces/nowhere/projects/p")
    with auth.acting_as(auth.Caller("model_builder", "nowhere", "service")), pytest.raises(grpc.RpcError) as unmade:
        traits.ApplyTraits(nowhere)
    refused = [reason(each.value) for each in (forbidden, absent, unmade)]
    assert refused == ["ERROR_REASON_RESOURCE_NOT_FOUND"] * 3


def test_a_viewer_may_not_use_internal_methods(traits: trait_pb2_grpc.TraitServiceStub) -> None:
    with auth.acting_as(VIEWER), pytest.raises(grpc.RpcError) as caught:
        traits.ApplyTraits(apply(trait("ltv")))
    assert reason(caught.value) == "ERROR_REASON_PERMISSION_DENIED"


def test_pages_continue_where_they_ended(traits: trait_pb2_grpc.TraitServiceStub) -> None:
    with auth.acting_as(SERVICE):
        traits.ApplyTraits(apply(*(trait(f"t{n}") for n in range(5))))
        request = trait_pb2.ListTraitsRequest(parent="workspaces/tusk", page_size=2)
        seen = []
        for _ in range(3):
            page = traits.ListTraits(request)
            seen += [t.display_name for t in page.traits]
            request.page_token = page.next_page_token
        assert seen == ["t0", "t1", "t2", "t3", "t4"]
        assert not page.next_page_token
        request.parent = "workspaces/tusk"
        request.page_token = "e30="
        with pytest.raises(grpc.RpcError) as caught:
            traits.ListTraits(request)
    assert reason(caught.value) == "ERROR_REASON_INVALID_FIELD"


def test_revisions_cannot_be_changed(engine: Engine, traits: trait_pb2_grpc.TraitServiceStub) -> None:
    with auth.acting_as(SERVICE):
        traits.ApplyTraits(apply(trait("ltv")))
    with pytest.raises(Exception, match="is immutable"), engine.begin() as tx:
        tx.execute(text("UPDATE registry.trait_revisions SET number = 99"))


def edge(source: str, target: str, influence: int = lineage_pb2.INFLUENCE_DIRECT) -> lineage_pb2.LineageEdge:
    def column(path: str) -> lineage_pb2.Column:
        dataset, _, field = path.rpartition(".")
        return lineage_pb2.Column(namespace="warehouse", dataset=dataset, field=field)

    return lineage_pb2.LineageEdge(input=column(source), output=column(target), influence=influence)  # type: ignore[arg-type]


def test_lineage_leads_from_a_trait_to_event_columns(channel: grpc.Channel) -> None:
    lineage = lineage_pb2_grpc.LineageServiceStub(channel)
    record = lineage_pb2.RecordLineageRequest(
        parent="workspaces/tusk",
        job=PROJECT,
        run="workspaces/tusk/builds/1",
        edges=[
            edge("traitmesh.events.se_value", "dbt.stg_events.amount"),
            edge("traitmesh.events.name", "dbt.stg_events.", lineage_pb2.INFLUENCE_INDIRECT),
            edge("dbt.stg_events.amount", "dbt.user_traits.ltv"),
            edge("dbt.user_traits.ltv", "traitmesh.user_model.ltv"),
        ],
    )
    ask = lineage_pb2.GetLineageRequest(
        parent="workspaces/tusk", root="traits/ltv", direction=lineage_pb2.DIRECTION_UPSTREAM
    )
    with auth.acting_as(SERVICE):
        lineage.RecordLineage(record)
        lineage.RecordLineage(record)
        everything = lineage.GetLineage(ask)
        ask.direct_only = True
        direct = lineage.GetLineage(ask)
        ask.depth = 1
        shallow = lineage.GetLineage(ask)
    assert len(everything.edges) == 4
    assert [e.input.field for e in direct.edges] == ["ltv", "amount", "se_value"]
    assert not direct.truncated
    assert len(shallow.edges) == 1
    assert shallow.truncated


def test_lineage_leads_both_ways_and_forgets_what_a_job_no_longer_does(channel: grpc.Channel) -> None:
    lineage = lineage_pb2_grpc.LineageServiceStub(channel)
    first, second = edge("both.a.x", "both.b.x"), edge("both.b.x", "both.c.x")
    record = lineage_pb2.RecordLineageRequest(parent="workspaces/tusk", job="both", run="1", edges=[first, second])
    ask = lineage_pb2.GetLineageRequest(parent="workspaces/tusk", root="both.b.x")

    def found(direction: lineage_pb2.Direction.ValueType) -> list[str]:
        ask.direction = direction
        return [each.output.dataset for each in lineage.GetLineage(ask).edges]

    with auth.acting_as(SERVICE):
        lineage.RecordLineage(record)
        assert found(lineage_pb2.DIRECTION_UPSTREAM) == ["both.b"]
        assert found(lineage_pb2.DIRECTION_DOWNSTREAM) == ["both.c"]
        assert found(lineage_pb2.DIRECTION_UNSPECIFIED) == ["both.b", "both.c"]
        del record.edges[1]
        lineage.RecordLineage(record)
        assert found(lineage_pb2.DIRECTION_BOTH) == ["both.b"]
