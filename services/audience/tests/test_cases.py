"""The cases of cases/*.yaml: on every engine, in both forms of funnels, and by the oracle."""

from typing import Any

import pytest
from google.protobuf import json_format
from traitmesh_proto.audience.v1 import segment_pb2

from services.audience import rules
from services.audience.compiler import answers, segments
from services.audience.domain import Funnel, FunnelRule, Rule
from services.audience.tests import oracle, population
from services.audience.tests.conftest import Form

CASES = list(enumerate(population.cases()))
SEGMENTS = [pytest.param(number, world, id=str(world)) for number, world in CASES if "rule" in world.content]
FUNNELS = [pytest.param(number, world, id=str(world)) for number, world in CASES if "funnel" in world.content]


def read_rule(form: dict[str, Any]) -> Rule:
    return rules.read_rule(json_format.ParseDict(form, segment_pb2.Rule()), "rule", population.TRAITS)


def read_funnel(form: dict[str, Any]) -> Funnel:
    return rules.read_funnel(json_format.ParseDict(form, segment_pb2.Funnel()), "funnel")


def users(form: Form, rule: Rule, number: int, world: population.World) -> list[str]:
    """The members of a world by name; a member that comes twice is listed twice."""
    query = segments.members(rule, population.target(form.warehouse, form.dialect, number))
    first = sum(len(earlier.users) for _, earlier in CASES[:number])
    names = list(world.users)
    return sorted(names[row["user_ord"] - first] for row in form.rows(query, number))


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 60
    assert len({str(world) for _, world in CASES}) == len(CASES)


@pytest.mark.parametrize(("number", "world"), SEGMENTS)
def test_segment(form: Form, number: int, world: population.World) -> None:
    assert users(form, read_rule(world.content["rule"]), number, world) == sorted(world.content["members"])


@pytest.mark.parametrize(("number", "world"), SEGMENTS)
def test_segment_by_the_oracle(number: int, world: population.World) -> None:
    members = [
        user
        for user, traits in world.users.items()
        if oracle.verdict(world.content["rule"], traits, world.events.get(user, []))
    ]
    assert sorted(members) == sorted(world.content["members"])


@pytest.mark.parametrize(("number", "world"), FUNNELS)
def test_funnel(form: Form, number: int, world: population.World) -> None:
    funnel = read_funnel(world.content["funnel"])
    furthest = world.content["furthest"]
    top = max(furthest.values())
    assert users(form, FunnelRule(funnel, top), number, world) == sorted(u for u in furthest if furthest[u] == top)
    target = population.target(form.warehouse, form.dialect, number)
    (row,) = (row for row in form.rows(answers.funnel(funnel, None, target), number) if row["place"] is None)
    steps = range(1, len(funnel.steps) + 1)
    assert [row[f"r{step}"] for step in steps] == [sum(1 for f in furthest.values() if f >= step) for step in steps]
    if "medians" in world.content:
        medians = [None if row[f"m{step}"] is None else row[f"m{step}"] / 1e6 for step in steps[1:]]
        assert medians == world.content["medians"]


@pytest.mark.parametrize(("number", "world"), FUNNELS)
def test_funnel_by_the_oracle(number: int, world: population.World) -> None:
    funnel = world.content["funnel"]
    attempts = {user: oracle.credited_attempt(funnel, world.events.get(user, [])) for user in world.users}
    assert {user: len(times) for user, times in attempts.items()} == world.content["furthest"]
    if "medians" in world.content:
        _, medians = oracle.funnel_answer(funnel, list(attempts.values()))
        assert [None if m is None else m / 1e6 for m in medians] == world.content["medians"]
