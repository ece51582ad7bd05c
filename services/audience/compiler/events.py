"""Events as SQL: which rows a pattern takes, and how often each user did what."""

from collections.abc import Sequence
from datetime import timedelta

from sqlglot import exp

from services.audience.compiler.predicates import all_of, holds
from services.audience.compiler.target import Target, aliased, column, literal, moment, without_nan
from services.audience.domain import EventCount, EventPattern, Property, PropertyRule, TraitType

EVENT = "e"
#: Columns of the events that every pattern reads.
PATTERN_COLUMNS = ("name", "time")


def matches(pattern: EventPattern, target: Target) -> exp.Expr:
    """Whether a row of the events, called `e`, matches."""
    conditions = [_property_holds(rule, target) for rule in pattern.where]
    return all_of([exp.EQ(this=column("name", EVENT), expression=literal(pattern.event)), *conditions])


def in_time(target: Target, within: timedelta | None) -> list[exp.Expr]:
    """Conditions on the raw time of `e`: in (as_of - within, as_of], or at most as_of."""
    time = column("time", EVENT)
    conditions: list[exp.Expr] = [exp.LTE(this=time, expression=moment(target.as_of))]
    if within is not None:
        conditions.append(exp.GT(this=time.copy(), expression=moment(target.as_of - within)))
    return conditions


def scan(target: Target, names: Sequence[str], within: timedelta | None) -> exp.Select:
    """The rows of these names in time. The conditions are on raw columns, by which engines leave out files."""
    named = exp.In(this=column("name", EVENT), expressions=[literal(name) for name in sorted(set(names))])
    return exp.select().from_(aliased(target.events, EVENT)).where(named, *in_time(target, within), copy=False)


def counts(counted: Sequence[EventCount], target: Target) -> exp.Select:
    """One row per user who did any of it: `user_ord`, and `c0`, `c1`, ... as the counts were given. One pass."""
    withins = [count.within for count in counted]
    widest = None if None in withins else max(within for within in withins if within is not None)
    rows = scan(target, [count.pattern.event for count in counted], widest)
    user = column("user_ord", EVENT)
    rows = rows.select(user.as_("user_ord", quoted=True), copy=False).group_by(user, copy=False)
    for index, count in enumerate(counted):
        taken = all_of([matches(count.pattern, target), *in_time(target, count.within)])
        each = exp.Case().when(taken, exp.Literal.number(1))
        rows = rows.select(exp.Count(this=each).as_(f"c{index}", quoted=True), copy=False)
    return rows


def property_columns(patterns: Sequence[EventPattern]) -> set[str]:
    """The columns of the events that these patterns read."""
    return {*PATTERN_COLUMNS, *(rule.property.column for pattern in patterns for rule in pattern.where)}


def _property_holds(rule: PropertyRule, target: Target) -> exp.Expr:
    return holds(_property_value(rule.property, target), rule.comparison)


def _property_value(prop: Property, target: Target) -> exp.Expr:
    raw = column(prop.column, EVENT)
    if prop.object:
        # A context is an array of objects, of which the first is read.
        first = (0,) if prop.column == "contexts" else ()
        return target.document_field(raw, (prop.object, *first, prop.field), prop.type)
    return without_nan(raw) if prop.type is TraitType.CONTINUOUS else raw
