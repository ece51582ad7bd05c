"""What a rule may be: every wrong field is named by its path, with what would be right."""

import time
from typing import Any

import pytest
from google.protobuf import json_format
from traitmesh_proto.audience.v1 import segment_pb2

from libs.kit import errors
from services.audience import domain, rules
from services.audience.tests import population


def problems(form: dict[str, Any]) -> list[tuple[str, str]]:
    """The path and description of each field that is wrong."""
    message = json_format.ParseDict(form, segment_pb2.Rule())
    with pytest.raises(errors.InvalidArgument) as caught:
        rules.read_rule(message, "rule", population.TRAITS)
    return [(violation.field, violation.description) for violation in caught.value.violations]


def trait(name: str = "country", operator: str = "EQUAL", *values: Any) -> dict[str, Any]:
    return {"trait": {"trait": name, "operator": f"OPERATOR_{operator}", "values": list(values)}}


def event(**fields: Any) -> dict[str, Any]:
    return {"event": {"event": "play", **fields}}


def where(prop: str, operator: str, *values: Any) -> dict[str, Any]:
    return event(where=[{"property": prop, "operator": f"OPERATOR_{operator}", "values": list(values)}])


def funnel(steps: int = 2, window: str | None = "60s", **fields: Any) -> dict[str, Any]:
    body: dict[str, Any] = {"steps": [{"event": "x"}] * steps} | ({"window": window} if window else {})
    return {"funnel": {"funnel": body, **fields}}


@pytest.mark.parametrize(
    ("form", "path", "description"),
    [
        ({}, "rule", "must be one of all, any, not, trait, event, funnel"),
        ({"all": {"rules": []}}, "rule.all.rules", "must be at least one"),
        ({"not": {}}, "rule.not", "must be one of"),
        (trait("contry", "EQUAL", "DE"), "rule.trait.trait", "there is no trait `contry`; did you mean `country`?"),
        (trait("", "EQUAL", "DE"), "rule.trait.trait", "must name a trait"),
        (trait("xyzzy", "EQUAL", "DE"), "rule.trait.trait", "there is no trait `xyzzy`"),
        ({"trait": {"trait": "country", "values": ["DE"]}}, "rule.trait.operator", "must be one of OPERATOR_EQUAL"),
        (trait("country", "LESS", "DE"), "rule.trait.operator", "does not fit the categorical trait; use one of"),
        (trait("payer", "IN", True), "rule.trait.operator", "does not fit the boolean trait"),
        (trait("ltv", "CONTAINS", "1"), "rule.trait.operator", "does not fit the continuous trait"),
        (trait("country", "EQUAL"), "rule.trait.values", "must be one value for OPERATOR_EQUAL, not 0"),
        (trait("country", "EQUAL", "a", "b"), "rule.trait.values", "must be one value for OPERATOR_EQUAL, not 2"),
        (trait("country", "IN"), "rule.trait.values", "must be 1 to 1000 values, not 0"),
        (trait("country", "IN", *["a"] * 1001), "rule.trait.values", "must be 1 to 1000 values, not 1001"),
        (trait("country", "IS_NULL", "a"), "rule.trait.values", "must be empty for OPERATOR_IS_NULL"),
        (trait("country", "EQUAL", 5), "rule.trait.values[0]", "must be a text"),
        (trait("ltv", "EQUAL", "5"), "rule.trait.values[0]", "must be a number"),
        (trait("ltv", "EQUAL", True), "rule.trait.values[0]", "must be a number"),
        (trait("payer", "EQUAL", 1), "rule.trait.values[0]", "must be true or false"),
        (trait("country", "EQUAL", None), "rule.trait.values[0]", "must not be null; use OPERATOR_IS_NULL"),
        (trait("country", "EQUAL", ["DE"]), "rule.trait.values[0]", "must be a text, a number, or true or false"),
        (trait("country", "IN", "a", "b\0"), "rule.trait.values[1]", "must not hold control characters"),
        (trait("country", "EQUAL", "x" * 1025), "rule.trait.values[0]", "at most 1024 characters, not 1025"),
        (trait("country", "CONTAINS", ""), "rule.trait.values[0]", "must not be empty"),
        ({"event": {}}, "rule.event.event", "must name an event"),
        (event(event="a\x01"), "rule.event.event", "must not hold control characters"),
        (event(count=-1), "rule.event.count", "must be 0 or more"),
        (event(operator="OPERATOR_LESS"), "rule.event.count", "must be given with an operator"),
        (event(operator="OPERATOR_IN", count=1), "rule.event.operator", "does not fit a count"),
        (event(within="0s"), "rule.event.within", "must be longer than 0 and at most 1830 days"),
        (event(within="-5s"), "rule.event.within", "must be longer than 0"),
        (event(within="0.0000005s"), "rule.event.within", "must be longer than 0"),
        (event(within="200000000s"), "rule.event.within", "at most 1830 days"),
        (where("se_valu", "EQUAL", 1), "rule.event.where[0].property", "did you mean `se_value`?"),
        (where("user_id", "EQUAL", "a"), "rule.event.where[0].property", "there is no event property `user_id`"),
        (where("contexts.player", "EQUAL", 1), "rule.event.where[0].property", "must be contexts.<name>.<field>"),
        (where("contexts.a.b'", "EQUAL", 1), "rule.event.where[0].property", "must be contexts.<name>.<field>"),
        (where("se_value", "EQUAL", "1"), "rule.event.where[0].values[0]", "must be a number"),
        (where("platform", "GREATER", "a"), "rule.event.where[0].operator", "does not fit the categorical property"),
        (where("contexts.a.b", "IN", 1, "a"), "rule.event.where[0].values", "must all be of one type"),
        (where("contexts.a.b", "LESS", "a"), "rule.event.where[0].operator", "does not fit a text"),
        (event(where=[{"property": "platform"}] * 21), "rule.event.where", "at most 20 conditions"),
        (funnel(steps=1), "rule.funnel.funnel.steps", "must be 2 to 10, not 1"),
        (funnel(steps=11), "rule.funnel.funnel.steps", "must be 2 to 10, not 11"),
        (funnel(window=None), "rule.funnel.funnel.window", "must be given"),
        (funnel(reached=3), "rule.funnel.reached", "must be 0 to 2"),
        (funnel(reached=-1), "rule.funnel.reached", "must be 0 to 2"),
    ],
)
def test_a_wrong_field_is_named(form: dict[str, Any], path: str, description: str) -> None:
    ((found, said),) = problems(form)
    assert found == path
    assert description in said


def test_every_wrong_condition_is_named_at_once() -> None:
    rule = {"all": {"rules": [trait("ltv", "EQUAL", 1), trait("contry"), {"any": {"rules": [event(count=-1)]}}]}}
    assert [path for path, _ in problems(rule)] == [
        "rule.all.rules[1].trait.trait",
        "rule.all.rules[2].any.rules[0].event.count",
    ]


def test_a_step_that_is_wrong_is_named() -> None:
    steps = [{"event": "a"}, {"event": ""}, {"event": "c", "where": [{"property": "x"}]}]
    rule = {"funnel": {"funnel": {"steps": steps, "window": "1s"}}}
    assert [path for path, _ in problems(rule)] == [
        "rule.funnel.funnel.steps[1].event",
        "rule.funnel.funnel.steps[2].where[0].property",
    ]


def nested(depth: int) -> dict[str, Any]:
    rule = trait("ltv", "EQUAL", 1)
    for _ in range(depth - 1):
        rule = {"not": rule}
    return rule


@pytest.mark.parametrize(
    ("allowed", "refused", "limit"),
    [
        (nested(32), nested(33), "at most 32 deep"),
        (
            {"any": {"rules": [trait("ltv", "EQUAL", 1)] * 200}},
            {"any": {"rules": [trait("ltv", "EQUAL", 1)] * 201}},
            "at most 200 conditions",
        ),
        ({"any": {"rules": [event()] * 50}}, {"any": {"rules": [event()] * 51}}, "at most 50 conditions on events"),
    ],
)
def test_limits_are_named(allowed: dict[str, Any], refused: dict[str, Any], limit: str) -> None:
    rules.read_rule(json_format.ParseDict(allowed, segment_pb2.Rule()), "rule", population.TRAITS)
    ((path, description),) = problems(refused)
    assert path == "rule"
    assert limit in description


def test_a_rule_far_too_large_is_refused_at_once() -> None:
    message = segment_pb2.Rule()
    for _ in range(100_000):
        message.all.rules.add().event.event = "play"
    started = time.process_time()
    with pytest.raises(errors.InvalidArgument, match="at most 50 conditions on events"):
        rules.read_rule(message, "rule", population.TRAITS)
    assert time.process_time() - started < 1


def test_a_count_without_operator_is_at_least() -> None:
    message = json_format.ParseDict(event(count=3), segment_pb2.Rule())
    rule = rules.read_rule(message, "rule", {})
    assert isinstance(rule, domain.EventRule)
    assert (rule.operator, rule.count) == (domain.Operator.GREATER_OR_EQUAL, 3)


def test_a_stored_rule_comes_back_as_it_was() -> None:
    message = json_format.ParseDict({"all": {"rules": [trait("ltv", "IN", 1, 2.5), funnel()]}}, segment_pb2.Rule())
    assert rules.from_stored(rules.stored_form(message)) == message
    assert rules.named_traits(message) == {"ltv"}


def test_audiences_come_after_those_they_refer_to() -> None:
    references = {"a": {"c", "ltv"}, "b": set[str](), "c": {"b"}}
    assert domain.dependency_order(references) == ["b", "c", "a"]
    assert domain.with_referenced({"c", "ltv"}, references) == {"b", "c"}


def test_a_circle_of_audiences_is_told_as_a_path() -> None:
    with pytest.raises(domain.CircularAudiencesError, match=r"(a -> b -> a|b -> a -> b)$"):
        domain.dependency_order({"a": {"b"}, "b": {"a"}})


def test_a_nan_value_is_refused() -> None:
    message = json_format.ParseDict(trait("ltv", "EQUAL", 1), segment_pb2.Rule())
    message.trait.values[0].number_value = float("inf")
    with pytest.raises(errors.InvalidArgument, match="must be a finite number"):
        rules.read_rule(message, "rule", population.TRAITS)
