"""The audience service's methods, called over the wire on warehouses of both engines."""

import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import grpc
import psycopg
import pytest
from google.protobuf import json_format
from sqlalchemy import text
from traitmesh_proto.audience.v1 import analytics_pb2, audience_pb2
from traitmesh_proto.registry.v1 import trait_pb2

from libs.kit import auth
from libs.kit.messages import timestamp
from libs.kit.testing import reason, schema_differences, violations
from services.audience import store
from services.audience.tests import population
from services.audience.tests.service import (
    EDITOR,
    SERVICE,
    STRANGER,
    TRAITS,
    TUSK,
    VIEWER,
    Service,
    running,
    write_events,
    write_model,
)

GERMANS = {"trait": {"trait": "country", "operator": "OPERATOR_EQUAL", "values": ["DE"]}}
CHECKOUT = {"steps": [{"event": "view"}, {"event": "buy"}], "window": "86400s"}
PROJECT = "projects/tusk"


@pytest.fixture(scope="module", params=["ducklake", "postgresql"])
def service(request: pytest.FixtureRequest, urls: dict[str, str], postgres: str) -> Iterator[Service]:
    """Each engine in turn; 40 users: 30 in countries of their own, then 6 in DE, 4 in none; ltv 0 to 39."""
    name = f"audience_{request.param}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    with running(urls[request.param], postgres.replace("/postgres?", f"/{name}?")) as service:
        revision = service.declare(PROJECT, TRAITS)
        countries = [f"C{number:02}" for number in range(30)] + ["DE"] * 6 + [None] * 4
        users = [
            {"user_id": f"u{number}", "country": country, "ltv": float(number), "payer": number % 2 == 0}
            for number, country in enumerate(countries)
        ]
        write_model(service.warehouse, users)
        hours = [(user, "view", timedelta(hours=9)) for user in range(20, 40)]
        hours += [(user, "buy", timedelta(hours=8, seconds=-user)) for user in range(30, 36)]
        write_events(service.warehouse, hours)
        service.publish(revision)
        yield service


def create(audience: str, rule: dict[str, Any], **fields: Any) -> audience_pb2.CreateAudienceRequest:
    body = {"parent": TUSK, "audienceId": audience, "audience": {"rule": rule}}
    request = json_format.ParseDict(body, audience_pb2.CreateAudienceRequest())
    request.MergeFrom(audience_pb2.CreateAudienceRequest(**fields))
    return request


def estimate(rule: dict[str, Any] | None = None, **fields: str) -> audience_pb2.EstimateAudienceRequest:
    body: dict[str, Any] = {"parent": TUSK, **fields} | ({"rule": rule} if rule else {})
    return json_format.ParseDict(body, audience_pb2.EstimateAudienceRequest())


def is_true(trait: str) -> dict[str, Any]:
    return {"trait": {"trait": trait, "operator": "OPERATOR_EQUAL", "values": [True]}}


def everybody_above(ltv: float) -> dict[str, Any]:
    return {"trait": {"trait": "ltv", "operator": "OPERATOR_GREATER_OR_EQUAL", "values": [ltv]}}


def refused(call: Any, request: Any, caller: auth.Caller = EDITOR) -> grpc.RpcError:
    with auth.acting_as(caller), pytest.raises(grpc.RpcError) as caught:
        call(request)
    return caught.value


def refused_message(error: Any) -> str:
    return str(error.details())


def test_the_store_declares_what_the_migrations_make(service: Service) -> None:
    assert schema_differences(service.engine, store.metadata) == []


def test_an_audience_becomes_a_trait(service: Service) -> None:
    request = create("germans", GERMANS)
    request.audience.display_name = "Germans"
    with auth.acting_as(EDITOR):
        made = service.audiences.CreateAudience(request)
        trait = service.traits.GetTrait(trait_pb2.GetTraitRequest(name=f"{TUSK}/traits/germans"))
        got = service.audiences.GetAudience(audience_pb2.GetAudienceRequest(name=f"{TUSK}/audiences/germans"))
    assert made == got
    assert json_format.MessageToDict(made.rule) == GERMANS
    assert made.model_revision.startswith(f"{TUSK}/modelRevisions/")
    assert (trait.kind, trait.type) == (trait_pb2.TRAIT_KIND_DECIDED, trait_pb2.TRAIT_TYPE_BOOLEAN)
    assert (trait.display_name, trait.origin) == ("Germans", f"{TUSK}/audiences/germans")


def test_validate_only_creates_nothing(service: Service) -> None:
    with auth.acting_as(EDITOR):
        answer = service.audiences.CreateAudience(create("imagined", GERMANS, validate_only=True))
    assert answer.name == f"{TUSK}/audiences/imagined"
    # The answer tells what would be, and nothing of it is.
    revision = trait_pb2.GetModelRevisionRequest(name=answer.model_revision)
    assert reason(refused(service.traits.GetModelRevision, revision)) == "ERROR_REASON_RESOURCE_NOT_FOUND"
    audience = audience_pb2.GetAudienceRequest(name=answer.name)
    assert reason(refused(service.audiences.GetAudience, audience)) == "ERROR_REASON_RESOURCE_NOT_FOUND"
    trait = trait_pb2.GetTraitRequest(name=f"{TUSK}/traits/imagined")
    assert reason(refused(service.traits.GetTrait, trait)) == "ERROR_REASON_RESOURCE_NOT_FOUND"


def test_a_request_id_has_one_effect_and_one_answer(service: Service) -> None:
    request = create("once", GERMANS, request_id=str(uuid.uuid4()))
    other = create("once", everybody_above(3), request_id=request.request_id)
    with auth.acting_as(EDITOR):
        assert service.audiences.CreateAudience(request) == service.audiences.CreateAudience(request)
    assert reason(refused(service.audiences.CreateAudience, other)) == "ERROR_REASON_REQUEST_ID_REUSED"
    taken = create("once", GERMANS)
    assert reason(refused(service.audiences.CreateAudience, taken)) == "ERROR_REASON_RESOURCE_EXISTS"


def test_what_the_registry_knows_and_we_forgot_heals_by_a_repeat(service: Service) -> None:
    with auth.acting_as(EDITOR):
        first = service.audiences.CreateAudience(create("healed", GERMANS))
    with service.engine.begin() as tx:
        # As if the registry had answered and our own commit had failed.
        tx.execute(text("DELETE FROM audience.audiences WHERE audience = 'healed'"))
    with auth.acting_as(EDITOR):
        second = service.audiences.CreateAudience(create("healed", GERMANS))
    assert second.model_revision >= first.model_revision


@pytest.mark.parametrize("taken", ["ltv", "user_id"])
def test_an_id_that_the_model_cannot_take(service: Service, taken: str) -> None:
    error = refused(service.audiences.CreateAudience, create(taken, GERMANS))
    assert violations(error) == ["audience_id"]
    assert refused_message(error).endswith("choose another id")


def test_a_description_has_a_limit(service: Service) -> None:
    request = create("wordy", GERMANS)
    request.audience.description = "x" * 1025
    assert violations(refused(service.audiences.CreateAudience, request)) == ["audience.description"]


def test_an_id_must_be_a_column(service: Service) -> None:
    assert violations(refused(service.audiences.CreateAudience, create("Ge-rmans", GERMANS))) == ["audience_id"]


def test_an_audience_cannot_refer_to_itself(service: Service) -> None:
    with auth.acting_as(EDITOR):
        service.audiences.CreateAudience(create("ring_a", GERMANS))
        service.audiences.CreateAudience(create("ring_b", is_true("ring_a")))
    with service.engine.begin() as tx:
        tx.execute(text("DELETE FROM audience.audiences WHERE audience = 'ring_a'"))
    error = refused(service.audiences.CreateAudience, create("ring_a", is_true("ring_b")))
    assert violations(error) == ["audience.rule"]
    assert "ring_a -> ring_b -> ring_a" in refused_message(error)


def test_audiences_nest_five_deep(service: Service) -> None:
    with auth.acting_as(EDITOR):
        service.audiences.CreateAudience(create("deep1", GERMANS))
        for depth in range(2, 6):
            service.audiences.CreateAudience(create(f"deep{depth}", is_true(f"deep{depth - 1}")))
        size = service.audiences.EstimateAudience(estimate(audience=f"{TUSK}/audiences/deep5")).size
    assert size == 6
    error = refused(service.audiences.CreateAudience, create("deep6", is_true("deep5")))
    assert "at most 5 deep" in refused_message(error)


def test_audiences_are_listed_by_id(service: Service) -> None:
    with auth.acting_as(EDITOR):
        for audience in ("list_b", "list_a"):
            service.audiences.CreateAudience(create(audience, GERMANS))
    request = audience_pb2.ListAudiencesRequest(parent=TUSK, page_size=1)
    seen = []
    with auth.acting_as(VIEWER):
        for _ in range(30):
            page = service.audiences.ListAudiences(request)
            seen += [audience.name.rpartition("/")[2] for audience in page.audiences]
            request.page_token = page.next_page_token
            if not request.page_token:
                break
    assert seen == sorted(seen)
    assert {"list_a", "list_b"} <= set(seen)


def test_another_workspace_is_not_there(service: Service) -> None:
    with auth.acting_as(EDITOR):
        service.audiences.CreateAudience(create("secret", GERMANS))
    known, unknown = (audience_pb2.GetAudienceRequest(name=f"{TUSK}/audiences/{a}") for a in ("secret", "none"))
    for caller, request in ((STRANGER, known), (EDITOR, unknown)):
        error = refused(service.audiences.GetAudience, request, caller)
        assert reason(error) == "ERROR_REASON_RESOURCE_NOT_FOUND"
    mixed = audience_pb2.EstimateAudienceRequest(parent="workspaces/other", audience=f"{TUSK}/audiences/secret")
    for caller in (STRANGER, EDITOR):
        assert reason(refused(service.audiences.EstimateAudience, mixed, caller)) == "ERROR_REASON_RESOURCE_NOT_FOUND"


def test_a_viewer_may_ask_and_not_create(service: Service) -> None:
    error = refused(service.audiences.CreateAudience, create("mine", GERMANS), VIEWER)
    assert reason(error) == "ERROR_REASON_PERMISSION_DENIED"
    with auth.acting_as(VIEWER):
        assert service.audiences.EstimateAudience(estimate(GERMANS)).size == 6


def test_an_estimate_is_exact_and_names_its_build(service: Service) -> None:
    with auth.acting_as(EDITOR):
        answer = service.audiences.EstimateAudience(estimate(everybody_above(10)))
    assert (answer.size, answer.total, answer.build) == (30, 40, f"{TUSK}/builds/1")
    assert answer.as_of == timestamp(population.AS_OF)
    assert not answer.breakdown


def test_an_estimate_of_nobody(service: Service) -> None:
    with auth.acting_as(EDITOR):
        answer = service.audiences.EstimateAudience(estimate(everybody_above(99), breakdownTrait="country"))
    assert (answer.size, answer.total, list(answer.breakdown)) == (0, 40, [])


def test_a_breakdown_has_25_values_then_others_then_none_and_sums_up(service: Service) -> None:
    with auth.acting_as(EDITOR):
        answer = service.audiences.EstimateAudience(estimate(everybody_above(1), breakdownTrait="country"))
    buckets = [(bucket.value, bucket.size) for bucket in answer.breakdown]
    assert buckets[:3] == [("DE", 6), ("C01", 1), ("C02", 1)]
    assert buckets[-2:] == [("(other)", 5), ("(none)", 4)]
    assert len(buckets) == 27
    assert sum(size for _, size in buckets) == answer.size == 39


@pytest.mark.parametrize(
    ("trait", "expected"), [("payer", [("false", 2), ("true", 2)]), ("ltv", [("36", 1), ("37", 1)])]
)
def test_values_of_a_breakdown_are_text(service: Service, trait: str, expected: list[tuple[str, int]]) -> None:
    with auth.acting_as(EDITOR):
        answer = service.audiences.EstimateAudience(estimate(everybody_above(36), breakdownTrait=trait))
    assert [(bucket.value, bucket.size) for bucket in answer.breakdown][:2] == expected


def test_an_audience_can_be_estimated_before_it_is_built(service: Service) -> None:
    with auth.acting_as(EDITOR):
        service.audiences.CreateAudience(create("upper", everybody_above(30)))
        service.audiences.CreateAudience(
            create("upper_payers", {"all": {"rules": [is_true("upper"), is_true("payer")]}})
        )
        by_name = service.audiences.EstimateAudience(estimate(audience=f"{TUSK}/audiences/upper_payers"))
        by_rule = service.audiences.EstimateAudience(estimate({"not": is_true("upper_payers")}, breakdownTrait="upper"))
        by_breakdown = service.audiences.EstimateAudience(estimate(is_true("payer"), breakdownTrait="upper"))
    assert (by_name.size, by_name.total) == (5, 40)
    assert [(bucket.value, bucket.size) for bucket in by_breakdown.breakdown] == [("false", 15), ("true", 5)]
    assert by_rule.size == 35
    assert [(bucket.value, bucket.size) for bucket in by_rule.breakdown] == [("false", 30), ("true", 5)]


def test_a_trait_that_no_build_holds_yet(service: Service) -> None:
    service.declare("projects/later", {"fresh": trait_pb2.TRAIT_TYPE_BOOLEAN})
    for request in (estimate(is_true("fresh")), estimate(GERMANS, breakdownTrait="fresh")):
        error = refused(service.audiences.EstimateAudience, request)
        assert reason(error) == "ERROR_REASON_NOT_READY"
        assert "fresh" in refused_message(error)


def test_without_a_build_nothing_can_be_asked(service: Service) -> None:
    request = audience_pb2.EstimateAudienceRequest(parent="workspaces/other")
    request.rule.event.event = "view"
    error = refused(service.audiences.EstimateAudience, request, STRANGER)
    assert reason(error) == "ERROR_REASON_NOT_READY"
    assert "run `traitmesh build run`" in refused_message(error)


def test_an_estimate_wants_a_rule_or_an_audience(service: Service) -> None:
    for request in (estimate(), estimate(GERMANS, audience=f"{TUSK}/audiences/germans")):
        assert violations(refused(service.audiences.EstimateAudience, request)) == ["rule"]


def test_an_answer_is_about_the_build_where_the_engine_keeps_snapshots(service: Service) -> None:
    write_events(service.warehouse, [(0, "late", timedelta(hours=1))])
    with auth.acting_as(EDITOR):
        answer = service.audiences.EstimateAudience(estimate({"event": {"event": "late"}}))
        assert answer.size == (0 if service.warehouse.capabilities.snapshots else 1)
        service.publish(service.builds.latest[f"{TUSK}/builds/latest"].model_revision)
        answer = service.audiences.EstimateAudience(estimate({"event": {"event": "late"}}))
    assert answer.size == 1


def test_a_build_whose_snapshot_is_gone_is_not_ready(service: Service) -> None:
    build = service.builds.latest[f"{TUSK}/builds/latest"]
    kept, build.snapshot = build.snapshot, 10**6
    try:
        if service.warehouse.capabilities.snapshots:
            error = refused(service.audiences.EstimateAudience, estimate(GERMANS))
            assert reason(error) == "ERROR_REASON_NOT_READY"
        else:
            with auth.acting_as(EDITOR):
                assert service.audiences.EstimateAudience(estimate(GERMANS)).size == 6
    finally:
        build.snapshot = kept


def ask_funnel(service: Service, **fields: str) -> analytics_pb2.QueryFunnelResponse:
    request = json_format.ParseDict({"parent": TUSK, "funnel": CHECKOUT, **fields}, analytics_pb2.QueryFunnelRequest())
    with auth.acting_as(VIEWER):
        return service.analytics.QueryFunnel(request)


def test_a_funnel_counts_reached_stopped_conversion_and_median(service: Service) -> None:
    answer = ask_funnel(service)
    view, buy = answer.steps
    assert (view.event, view.reached, view.stopped, view.conversion) == ("view", 20, 14, 1.0)
    assert (buy.event, buy.reached, buy.stopped, buy.conversion) == ("buy", 6, 6, 0.3)
    assert not view.HasField("median_time")
    assert buy.median_time.ToMicroseconds() == int((3600 + 32.5) * 1e6)
    assert answer.build == f"{TUSK}/builds/1"


def test_a_funnel_is_broken_down_by_a_trait(service: Service) -> None:
    answer = ask_funnel(service, breakdownTrait="country")
    buckets = {bucket.value: [step.reached for step in bucket.steps] for bucket in answer.breakdown}
    assert buckets["DE"] == [6, 6]
    assert buckets["C20"] == [1, 0]
    assert buckets["(none)"] == [4, 0]
    assert sum(reached for reached, _ in buckets.values()) == 20
    germans = next(bucket for bucket in answer.breakdown if bucket.value == "DE")
    assert germans.steps[1].median_time.ToMicroseconds() == int((3600 + 32.5) * 1e6)


def test_a_funnel_that_nobody_began(service: Service) -> None:
    request = analytics_pb2.QueryFunnelRequest(parent=TUSK)
    json_format.ParseDict({"steps": [{"event": "x"}, {"event": "y"}], "window": "1s"}, request.funnel)
    with auth.acting_as(VIEWER):
        answer = service.analytics.QueryFunnel(request)
    assert [(step.reached, step.conversion) for step in answer.steps] == [(0, 1.0), (0, 0.0)]
    assert not answer.steps[1].HasField("median_time")


def compile_request(
    *audiences: str, traits: tuple[str, ...] = tuple(TRAITS), model_revision: str = ""
) -> audience_pb2.CompileAudiencesRequest:
    return audience_pb2.CompileAudiencesRequest(
        parent=TUSK,
        audiences=audiences,
        traits=traits,
        users_table="traitmesh.user_model",
        as_of=timestamp(population.AS_OF),
        model_revision=model_revision,
    )


def test_audiences_are_compiled_in_an_order_that_can_be_built(service: Service) -> None:
    dropped = {"funnel": {"funnel": CHECKOUT, "reached": 1}}
    with auth.acting_as(EDITOR):
        service.audiences.CreateAudience(create("z_base", {"any": {"rules": [GERMANS, dropped]}}))
        service.audiences.CreateAudience(create("a_top", {"not": is_true("z_base")}))
    with auth.acting_as(SERVICE):
        base, top = service.audiences.CompileAudiences(compile_request("a_top", "z_base")).audiences
    assert (base.audience, top.audience) == ("z_base", "a_top")
    rows = service.warehouse.query(base.sql).read_all()
    assert rows.column_names == ["user_ord"]
    assert sorted(rows["user_ord"].to_pylist()) == list(range(20, 40))
    assert list(base.columns) == [
        "traitmesh.events.name",
        "traitmesh.events.time",
        "traitmesh.user_model.country",
    ]
    assert list(top.columns) == ["traitmesh.user_model.z_base"]


def test_what_cannot_be_compiled_is_named(service: Service) -> None:
    with auth.acting_as(EDITOR):
        service.audiences.CreateAudience(create("compiled", GERMANS))
    absent = refused(service.audiences.CompileAudiences, compile_request("absent"), SERVICE)
    assert reason(absent) == "ERROR_REASON_RESOURCE_NOT_FOUND"
    lacking = refused(service.audiences.CompileAudiences, compile_request("compiled", traits=("ltv",)), SERVICE)
    assert reason(lacking) == "ERROR_REASON_NOT_READY"
    assert "country" in refused_message(lacking)
    internal = refused(service.audiences.CompileAudiences, compile_request("compiled"), EDITOR)
    assert reason(internal) == "ERROR_REASON_PERMISSION_DENIED"


def test_an_audience_is_compiled_by_the_types_of_the_named_model_revision(service: Service) -> None:
    pinned = service.declare("projects/plans", {"plan": trait_pb2.TRAIT_TYPE_CATEGORICAL})
    with auth.acting_as(EDITOR):
        rule = {"trait": {"trait": "plan", "operator": "OPERATOR_EQUAL", "values": ["gold"]}}
        service.audiences.CreateAudience(create("on_gold", rule))
    service.declare("projects/plans", {"plan": trait_pb2.TRAIT_TYPE_CONTINUOUS})
    latest = refused(service.audiences.CompileAudiences, compile_request("on_gold", traits=("plan",)), SERVICE)
    assert reason(latest) == "ERROR_REASON_NOT_READY"
    request = compile_request("on_gold", traits=("plan",), model_revision=pinned)
    with auth.acting_as(SERVICE):
        (compiled,) = service.audiences.CompileAudiences(request).audiences
    assert list(compiled.columns) == ["traitmesh.user_model.plan"]
    for elsewhere in ("workspaces/other/modelRevisions/1", f"{TUSK}/modelRevisions/999"):
        request.model_revision = elsewhere
        absent = refused(service.audiences.CompileAudiences, request, SERVICE)
        assert reason(absent) == "ERROR_REASON_RESOURCE_NOT_FOUND"
