"""Questions as SQL: the size of a segment and the steps of a funnel, each for all and broken down by a trait.

Both answer rows of `place`, `value` and figures. Place null is everybody; 0 those without a value; 1 to 25 the most
frequent values; 26 all others together.
"""

from sqlglot import exp

from services.audience.compiler.funnels import attempts, chains, duration_names
from services.audience.compiler.segments import USER, judged, trait_value
from services.audience.compiler.target import Target, aliased, column, number
from services.audience.domain import Funnel, Rule, TraitType

TOP_VALUES = 25
NO_VALUE_PLACE = 0
OTHER_PLACE = TOP_VALUES + 1

Breakdown = tuple[str, TraitType] | None


def estimate(rule: Rule, breakdown: Breakdown, target: Target) -> exp.Select:
    """Rows of `place`, `value`, `size`: the members. The row of everybody holds `total`, the model's users, too."""
    verdicts = aliased(judged(rule, "member?", target).subquery(), USER)
    members = exp.select(_value(breakdown).as_("value", quoted=True)).from_(verdicts)
    members = members.where(column("member?", USER), copy=False)
    total = exp.select(exp.Count(this=exp.Star())).from_(aliased(target.users, USER)).subquery()
    size = exp.Count(this=exp.Star()).as_("size", quoted=True)
    return _by_place(members, breakdown, [size, total.as_("total", quoted=True)], target)


def funnel(asked: Funnel, breakdown: Breakdown, target: Target) -> exp.Select:
    """Rows of `place`, `value`, users who reached step k as `rk`, median microseconds to it as `mk`."""
    begun = aliased(attempts(chains(asked, target)).subquery(), "a")
    same_user = exp.EQ(this=column("user_ord", "a"), expression=column("user_ord", USER))
    durations = duration_names(len(asked.steps))
    located = exp.select(
        _value(breakdown).as_("value", quoted=True), column("level", "a"), *(column(name, "a") for name in durations)
    )
    located = located.from_(begun, copy=False).join(aliased(target.users, USER), on=same_user, copy=False)
    reached = [
        exp.Count(this=exp.Case().when(_at_least(step), number(1))).as_(f"r{step}", quoted=True)
        for step in range(1, len(asked.steps) + 1)
    ]
    medians = [_median(column(name, "p")).as_(f"m{name[1:]}", quoted=True) for name in durations]
    return _by_place(located, breakdown, [*reached, *medians], target)


def _value(breakdown: Breakdown) -> exp.Expr:
    return trait_value(*breakdown) if breakdown else exp.cast(exp.Null(), "VARCHAR")


def _by_place(rows: exp.Select, breakdown: Breakdown, figures: list[exp.Expr], target: Target) -> exp.Select:
    """The figures over `rows`, called `p`, for everybody and for each place of their column `value`."""
    value = column("value", "r")
    tie = target.byte_order(value) if breakdown and breakdown[1] is TraitType.CATEGORICAL else value
    order = [exp.Ordered(this=exp.Count(this=exp.Star()), desc=True, nulls_first=True), exp.Ordered(this=tie.copy())]
    place = exp.Window(this=exp.RowNumber(), order=exp.Order(expressions=order))
    values = exp.select(value, place.as_("place", quoted=True)).from_(_table("located", "r"))
    values = values.where(exp.Is(this=value.copy(), expression=exp.Null()).not_(), copy=False).group_by(value)
    placed = _placed([name for name in rows.named_selects if name != "value"])
    by_place = [column("place", "p"), column("value", "p")]
    answer = exp.select(*by_place, *figures).from_(placed.subquery("p"))
    sets = exp.GroupingSets(expressions=[exp.Tuple(), exp.Tuple(expressions=[key.copy() for key in by_place])])
    answer.set("group", exp.Group(grouping_sets=[sets]))
    return answer.with_("located", as_=rows, copy=False).with_("top", as_=values, copy=False)


def _placed(carried: list[str]) -> exp.Select:
    """The located rows with their place, and their value where it is one of the most frequent."""
    ranked = exp.LTE(this=column("place", "t"), expression=number(TOP_VALUES))
    without = exp.Is(this=column("value", "l"), expression=exp.Null())
    place = exp.Case().when(without, number(NO_VALUE_PLACE)).when(ranked, column("place", "t"))
    shown = exp.Case().when(ranked.copy(), column("value", "l"))
    same = exp.EQ(this=column("value", "l"), expression=column("value", "t"))
    return (
        exp.select(
            *(column(name, "l") for name in carried),
            place.else_(number(OTHER_PLACE)).as_("place", quoted=True),
            shown.as_("value", quoted=True),
        )
        .from_(_table("located", "l"))
        .join(_table("top", "t"), on=same, join_type="left")
    )


def _table(name: str, alias: str) -> exp.Expr:
    return exp.alias_(exp.to_table(name), alias, table=True)


def _at_least(step: int) -> exp.Expr:
    return exp.GTE(this=column("level", "p"), expression=number(step))


def _median(value: exp.Expr) -> exp.Expr:
    """The exact median, between the two in the middle for an even number."""
    order = exp.Order(expressions=[exp.Ordered(this=value, nulls_first=False)])
    return exp.WithinGroup(this=exp.PercentileCont(this=exp.Literal.number("0.5")), expression=order)
