"""Random rules and funnels over the random world: the compiler says what the oracle says, in every form."""

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.audience.compiler import answers, segments
from services.audience.tests import oracle, population
from services.audience.tests.conftest import Form
from services.audience.tests.test_cases import CASES, read_funnel, read_rule

WORLD = population.random_world()
NUMBER = len(CASES)
FIRST = sum(len(world.users) for _, world in CASES)

EQUALITY = ["EQUAL", "NOT_EQUAL"]
ORDER = [*EQUALITY, "LESS", "LESS_OR_EQUAL", "GREATER", "GREATER_OR_EQUAL"]
HOURS = st.sampled_from(["3600s", "7200s", "10800s", "36000s", "3599.999999s"])


def comparisons(values: list[Any], operators: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    present = [value for value in values if value is not None and value == value]
    one = st.tuples(st.sampled_from(operators), st.lists(st.sampled_from(present), min_size=1, max_size=1))
    several = st.tuples(st.sampled_from(["IN", "NOT_IN"]), st.lists(st.sampled_from(present), min_size=1, max_size=3))
    none: st.SearchStrategy[tuple[str, list[Any]]] = st.tuples(st.sampled_from(["IS_NULL", "IS_NOT_NULL"]), st.just([]))
    choices = [one, none] if isinstance(present[0], bool) else [one, several, none]
    return st.one_of(choices).map(lambda pair: {"operator": f"OPERATOR_{pair[0]}", "values": pair[1]})


def trait_rules() -> st.SearchStrategy[dict[str, Any]]:
    def of(trait: str) -> st.SearchStrategy[dict[str, Any]]:
        operators = ORDER if trait in {"ltv", "level"} else EQUALITY
        values = [0, 1, 2, 0.5] if trait == "level" else population.VALUES[trait]
        return comparisons(values, operators).map(lambda comparison: {"trait": {"trait": trait, **comparison}})

    return st.sampled_from(sorted(population.TRAITS)).flatmap(of)


PROPERTIES: dict[str, tuple[list[Any], list[str]]] = {
    "platform": (["", "web", "ios"], EQUALITY),
    "se_value": ([1.0, 2.0, 1.5], ORDER),
    "contexts.player_1.level": ([1, 2, 2.5], ORDER),
    "unstruct_event.deal_1.level": (["2", "x"], EQUALITY),
}


def patterns() -> st.SearchStrategy[dict[str, Any]]:
    conditions = st.sampled_from(sorted(PROPERTIES)).flatmap(
        lambda name: comparisons(*PROPERTIES[name]).map(lambda comparison: {"property": name, **comparison})
    )
    where = st.lists(conditions, max_size=1)
    return st.builds(
        lambda event, where: {"event": event, "where": where}, st.sampled_from(population.EVENT_NAMES), where
    )


def event_rules() -> st.SearchStrategy[dict[str, Any]]:
    counted = st.tuples(st.sampled_from(ORDER), st.integers(0, 3)).map(
        lambda pair: {"operator": f"OPERATOR_{pair[0]}", "count": pair[1]}
    )
    within: st.SearchStrategy[dict[str, str]] = st.one_of(st.just({}), HOURS.map(lambda text: {"within": text}))
    return st.builds(lambda *parts: {"event": parts[0] | parts[1] | parts[2]}, patterns(), counted, within)


@st.composite
def funnels(draw: st.DrawFn) -> dict[str, Any]:
    funnel: dict[str, Any] = {"steps": draw(st.lists(patterns(), min_size=2, max_size=4)), "window": draw(HOURS)}
    if draw(st.booleans()):
        funnel["within"] = draw(HOURS)
    if draw(st.booleans()):
        # All different, so that the form by ASOF joins is taken where there is one.
        names = draw(st.permutations(population.EVENT_NAMES))
        funnel["steps"] = [step | {"event": name} for step, name in zip(funnel["steps"][:3], names, strict=False)]
    return funnel


def funnel_rules() -> st.SearchStrategy[dict[str, Any]]:
    return funnels().flatmap(
        lambda funnel: st.integers(0, len(funnel["steps"])).map(
            lambda reached: {"funnel": {"funnel": funnel, "reached": reached}}
        )
    )


RULES: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.one_of(trait_rules(), event_rules(), funnel_rules()),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda found: {"all": {"rules": found}}),
        st.lists(inner, min_size=1, max_size=3).map(lambda found: {"any": {"rules": found}}),
        inner.map(lambda rule: {"not": rule}),
    ),
    max_leaves=5,
)
BOUNDED = settings(
    max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class TestRandom:
    @BOUNDED
    @given(rule=RULES)
    def test_segments(self, form: Form, rule: dict[str, Any]) -> None:
        query = segments.members(read_rule(rule), population.target(form.warehouse, form.dialect, NUMBER))
        names = list(WORLD.users)
        members = {names[row["user_ord"] - FIRST] for row in form.rows(query, NUMBER)}
        assert members == {user for user in WORLD.users if oracle.verdict(rule, WORLD.users[user], WORLD.events[user])}

    @BOUNDED
    @given(asked=funnels())
    def test_funnels(self, form: Form, asked: dict[str, Any]) -> None:
        funnel = read_funnel(asked)
        query = answers.funnel(funnel, None, population.target(form.warehouse, form.dialect, NUMBER))
        (row,) = (row for row in form.rows(query, NUMBER) if row["place"] is None)
        steps = range(1, len(funnel.steps) + 1)
        attempts = [oracle.credited_attempt(asked, WORLD.events[user]) for user in WORLD.users]
        assert ([row[f"r{step}"] for step in steps], [row[f"m{step}"] for step in steps[1:]]) == oracle.funnel_answer(
            asked, attempts
        )
