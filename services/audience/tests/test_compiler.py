"""What the compiler promises beside its answers: one SELECT over its tables, and values that stay values."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlglot import exp

from services.audience.compiler import answers, funnels, guard, segments
from services.audience.compiler.target import Target, literal
from services.audience.domain import (
    AllOf,
    Comparison,
    EventCount,
    EventPattern,
    EventRule,
    Funnel,
    FunnelRule,
    Not,
    Operator,
    Rule,
    TraitRule,
    TraitType,
)
from services.audience.tests import population
from services.audience.tests.conftest import Form
from services.audience.tests.test_cases import CASES

WORLD = len(CASES)
HOSTILE = [
    "'",
    "''",
    "\\",
    "\\'",
    "'; DROP TABLE users; --",
    '"',
    "$1",
    "$$",
    "%s",
    ":v0",
    "@v0",
    "?",
    "{}",
    "/* */",
    "--",
    "\n",
    "\t",
    "é",
    "e\u0301",
    "\u202egnirts",
    "\u0430dmin",
    "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
    "E'\\n'",
    "U&'\\0041'",
    "null",
]


def is_country(value: str) -> Rule:
    return TraitRule("country", TraitType.CATEGORICAL, Comparison(Operator.EQUAL, (value,)))


def funnel(*events: str) -> Funnel:
    return Funnel(tuple(EventPattern(event) for event in events), timedelta(hours=1))


@pytest.mark.parametrize("value", HOSTILE)
def test_a_hostile_text_stays_a_text(form: Form, value: str) -> None:
    query = exp.select(exp.alias_(literal(value), "text"))
    rows: list[dict[str, Any]] = form.warehouse.query(query.sql(form.dialect.sqlglot)).read_all().to_pylist()
    assert rows == [{"text": value}]


def test_hostile_names_of_events_stay_texts(form: Form) -> None:
    events = Funnel(tuple(EventPattern(value) for value in HOSTILE[:10]), timedelta(hours=1))
    rule = AllOf(
        (FunnelRule(events, 0), *(EventRule(EventCount(step, None), Operator.LESS, 1) for step in events.steps))
    )
    query = segments.members(rule, population.target(form.warehouse, form.dialect, WORLD))
    assert len(form.rows(query, WORLD)) == len(population.random_world().users)


def test_the_deepest_and_widest_rules_compile_and_run(form: Form) -> None:
    wide = AllOf(tuple(is_country(value) for value in HOSTILE * 8))
    deep: Rule = wide
    for _ in range(30):
        deep = Not(AllOf((deep,)))
    query = segments.members(deep, population.target(form.warehouse, form.dialect, WORLD))
    assert form.rows(query, WORLD) == []


def test_the_guard_refuses_other_tables_and_other_statements(form: Form) -> None:
    target = population.target(form.warehouse, form.dialect, WORLD)
    with pytest.raises(guard.CompilerError, match="none of its tables"):
        guard.sql(exp.select("*").from_("secrets"), target)
    with pytest.raises(guard.CompilerError, match="one SELECT"):
        guard.sql(exp.union(exp.select("1"), exp.select("2")), target)


def test_funnels_take_the_form_that_is_exact(form: Form) -> None:
    target = population.target(form.warehouse, form.dialect, WORLD)

    def joins_asof(asked: Funnel) -> bool:
        found = funnels.furthest_steps(funnels.chains(asked, target))
        return any(join.method == "ASOF" for join in found.find_all(exp.Join))

    assert joins_asof(funnel("view", "cart", "buy")) == form.dialect.asof_join
    assert not joins_asof(funnel("view", "cart", "view"))


def test_equal_questions_are_asked_once(form: Form) -> None:
    often = EventRule(EventCount(EventPattern("view"), None), Operator.GREATER, 2)
    seldom = replace(often, operator=Operator.LESS)
    asked = FunnelRule(funnel("view", "view"), 1)
    rule = AllOf((often, seldom, asked, Not(asked)))
    query = segments.members(rule, population.target(form.warehouse, form.dialect, WORLD))
    scans = [table for table in query.find_all(exp.Table) if table.name == "events"]
    assert len(scans) == 2


@pytest.mark.parametrize("breakdown", [None, ("ltv", TraitType.CONTINUOUS), ("payer", TraitType.BOOLEAN)])
def test_a_breakdown_puts_everybody_somewhere(form: Form, breakdown: answers.Breakdown) -> None:
    target: Target = population.target(form.warehouse, form.dialect, WORLD)
    rows = form.rows(answers.estimate(Not(is_country("DE")), breakdown, target), WORLD)
    (everybody,) = [row for row in rows if row["place"] is None]
    places = [row for row in rows if row["place"] is not None]
    assert sum(row["size"] for row in places) == everybody["size"] < everybody["total"] == 300
    assert len({row["place"] for row in places}) == len(places)
