"""A funnel by running maxima over each user's events in their total order: exact for every funnel, on every engine.

The events that match any step are read and numbered once. Then one layer per step adds, for each event, the times of
the best chain up to that step among the events before it. A frame ends at the row before: no event follows itself.
"""

from collections.abc import Sequence

from sqlglot import exp

from services.audience.compiler.chains import Chains, time_name
from services.audience.compiler.events import EVENT, matches, scan
from services.audience.compiler.predicates import any_of
from services.audience.compiler.target import Target, column, number
from services.audience.domain import Funnel

_CHAINED = "chained"


def chains(funnel: Funnel, target: Target) -> Chains:
    """The chains of any funnel."""
    layered: exp.Select = _matching(funnel, target)
    for step in range(1, len(funnel.steps)):
        layered = _with_best(layered, step)
    steps = tuple(_completing(funnel, step) for step in range(1, len(funnel.steps) + 1))
    return Chains(((_CHAINED, layered),), steps)


def _matching(funnel: Funnel, target: Target) -> exp.Select:
    """The events that match a step: `user_ord`, `t`, `m1`, `m2`, ..., and their `position` in the user's order."""
    steps = range(1, len(funnel.steps) + 1)
    marks = [matches(pattern, target) for pattern in funnel.steps]
    rows = scan(target, [pattern.event for pattern in funnel.steps], funnel.within)
    marked = rows.select(
        column("user_ord", EVENT),
        column("event_id", EVENT),
        target.micros(column("time", EVENT)).as_("t", quoted=True),
        *(mark.as_(f"m{step}", quoted=True) for step, mark in zip(steps, marks, strict=True)),
        copy=False,
    )
    matched = [column(f"m{step}", "r") for step in steps]
    first, last = exp.Case(), exp.Case()
    for step in steps:
        first = first.when(matched[step - 1], number(step), copy=False)
        last = last.when(matched[-step], number(len(steps) + 1 - step), copy=False)
    order = [column("t", "r"), first, last, target.byte_order(column("event_id", "r"))]
    position = exp.Window(this=exp.RowNumber(), partition_by=[column("user_ord", "r")], order=_ascending(order))
    placed = exp.select("*", position.as_("position", quoted=True)).from_(marked.subquery("r"))
    return placed.where(any_of([mark.copy() for mark in matched]), copy=False)


def _with_best(layer: exp.Select, step: int) -> exp.Select:
    """Adds, for each event, the times of the best chain up to `step` among the events before it."""
    own = {time_name(step): column("t", "r")}
    earlier = {time_name(k): column(_best(step - 1, k), "r") for k in range(1, step)}
    begun = column(f"m{step}", "r")
    best = [
        _latest_before(exp.Case().when(begun, time)).as_(f"b{step}_{name}", quoted=True)
        for name, time in (earlier | own).items()
    ]
    return exp.select("*", *best).from_(layer.subquery("r"))


def _latest_before(value: exp.Expr) -> exp.Window:
    return exp.Window(
        this=exp.Max(this=value),
        partition_by=[column("user_ord", "r")],
        order=_ascending([column("position", "r")]),
        spec=exp.WindowSpec(
            kind="ROWS", start="UNBOUNDED", start_side="PRECEDING", end=number(1), end_side="PRECEDING"
        ),
    )


def _ascending(keys: Sequence[exp.Expr]) -> exp.Order:
    return exp.Order(expressions=[exp.Ordered(this=key, nulls_first=False) for key in keys])


def _completing(funnel: Funnel, step: int) -> exp.Select:
    """The events of the step whose best chain began within the window."""
    time = column("t", "c")
    earlier = [column(_best(step - 1, k), "c") for k in range(1, step)]
    times = [value.as_(time_name(k), quoted=True) for k, value in enumerate([*earlier, time], start=1)]
    rows = exp.select(column("user_ord", "c"), *times).from_(exp.alias_(exp.to_table(_CHAINED), "c", table=True))
    rows = rows.where(column(f"m{step}", "c"), copy=False)
    if earlier:
        elapsed = exp.Sub(this=time.copy(), expression=earlier[0].copy())
        rows = rows.where(exp.LTE(this=elapsed, expression=number(funnel.window_micros)), copy=False)
    return rows


def _best(step: int, of_step: int) -> str:
    """The column with the time of `of_step` in the best chain up to `step`."""
    return f"b{step}_{time_name(of_step)}"
