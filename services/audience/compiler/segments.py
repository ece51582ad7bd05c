"""Segments as SQL: for each user of the model, whether the rule lets it in."""

from collections.abc import Sequence
from typing import TypeVar

from sqlglot import exp

from services.audience.compiler.events import counts, property_columns
from services.audience.compiler.funnels import chains, furthest_steps
from services.audience.compiler.predicates import all_of, any_of, compared, holds, negated
from services.audience.compiler.target import Target, aliased, column, number, without_nan
from services.audience.domain import (
    AllOf,
    AnyOf,
    EventPattern,
    EventRule,
    FunnelRule,
    Not,
    Rule,
    TraitRule,
    TraitType,
    leaves,
)

USER = "u"
_COUNTS = "counts"

T = TypeVar("T")


def judged(rule: Rule, name: str, target: Target) -> exp.Select:
    """Every user with every trait, and the rule's verdict as one more boolean column `name`, never null."""
    answers = _Answers(rule, target)
    users = exp.select(exp.Column(this=exp.Star(), table=exp.to_identifier(USER, quoted=True)))
    users = users.select(_verdict(rule, answers).as_(name, quoted=True), copy=False)
    return answers.joined(users.from_(aliased(target.users, USER), copy=False))


def members(rule: Rule, target: Target) -> exp.Select:
    """One column, `user_ord`: each user that the rule lets in, once."""
    answers = _Answers(rule, target)
    users = exp.select(column("user_ord", USER)).from_(aliased(target.users, USER))
    return answers.joined(users).where(_verdict(rule, answers), copy=False)


def trait_value(trait: str, kind: TraitType) -> exp.Expr:
    """A user's value of a trait; NaN is null."""
    value = column(trait, USER)
    return without_nan(value) if kind is TraitType.CONTINUOUS else value


def columns_read(rule: Rule, users: str, events: str) -> list[str]:
    """The columns that decide, as `schema.table.column`, given the two tables' names."""
    found = leaves(rule)
    traits = {leaf.trait for leaf in found if isinstance(leaf, TraitRule)}
    patterns = _patterns(found)
    properties = property_columns(patterns) if patterns else set()
    return sorted({f"{users}.{trait}" for trait in traits} | {f"{events}.{name}" for name in properties})


def _patterns(found: Sequence[Rule]) -> list[EventPattern]:
    patterns: list[EventPattern] = []
    for leaf in found:
        match leaf:
            case EventRule(events):
                patterns.append(events.pattern)
            case FunnelRule(funnel):
                patterns += funnel.steps
    return patterns


class _Answers:
    """What the rule asks of the events, each question once: all counts in one pass, each funnel in its own."""

    def __init__(self, rule: Rule, target: Target) -> None:
        found = leaves(rule)
        self._target = target
        self._counts = _once([leaf.events for leaf in found if isinstance(leaf, EventRule)])
        self._funnels = _once([leaf.funnel for leaf in found if isinstance(leaf, FunnelRule)])

    def count(self, leaf: EventRule) -> exp.Expr:
        """How often the user did it; 0 for users without events."""
        return _or_zero(column(f"c{self._counts.index(leaf.events)}", _COUNTS))

    def level(self, leaf: FunnelRule) -> exp.Expr:
        """The furthest step; 0 for users who never began."""
        return _or_zero(column("level", f"funnel{self._funnels.index(leaf.funnel)}"))

    def joined(self, users: exp.Select) -> exp.Select:
        """The users, joined with the answers."""
        if self._counts:
            users = _left_join(users, counts(self._counts, self._target), _COUNTS)
        for index, funnel in enumerate(self._funnels):
            users = _left_join(users, furthest_steps(chains(funnel, self._target)), f"funnel{index}")
        return users


def _verdict(rule: Rule, answers: _Answers) -> exp.Expr:
    match rule:
        case AllOf(rules):
            return all_of([_verdict(inner, answers) for inner in rules])
        case AnyOf(rules):
            return any_of([_verdict(inner, answers) for inner in rules])
        case Not(inner):
            return negated(_verdict(inner, answers))
        case TraitRule(trait, kind, comparison):
            return holds(trait_value(trait, kind), comparison)
        case EventRule(_, operator, count):
            return compared(answers.count(rule), operator, number(count))
        case FunnelRule(_, reached):
            return exp.EQ(this=answers.level(rule), expression=number(reached))


def _left_join(users: exp.Select, answer: exp.Select, name: str) -> exp.Select:
    same_user = exp.EQ(this=column("user_ord", USER), expression=column("user_ord", name))
    return users.join(answer.subquery(exp.to_identifier(name, quoted=True)), on=same_user, join_type="left", copy=False)


def _or_zero(value: exp.Expr) -> exp.Expr:
    return exp.Coalesce(this=value, expressions=[number(0)])


def _once(items: list[T]) -> list[T]:
    return list(dict.fromkeys(items))
