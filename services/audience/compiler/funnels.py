"""Funnels as SQL: which chains of events there are, and what follows from them.

A user's events are in one total order: time, first step that they match, last step that they match, event_id. A chain
takes strictly later events, one per step, within the window of its first. For every event the latest chain that leads
to it is the best: it begins last and lies closest. So one pass per step that keeps only the latest predecessor is
exact, and two forms of it exist: `funnel_asof` where the engine joins to the latest row before and no event can match
two steps, `funnel_windows` everywhere.

Both give `Chains`. The times of the best chain never fall from one event to the next, so the minimum of each over the
events of a step is the chain that reaches the step first: the attempt that is credited.
"""

from collections.abc import Sequence

from sqlglot import exp

from services.audience.compiler import funnel_asof, funnel_windows
from services.audience.compiler.chains import Chains
from services.audience.compiler.target import Target, column, number
from services.audience.domain import Funnel

_ATTEMPT = "attempt"


def chains(funnel: Funnel, target: Target) -> Chains:
    """The funnel's chains in the fastest form that is exact on this engine."""
    names = [step.event for step in funnel.steps]
    if target.dialect.asof_join and len(set(names)) == len(names):
        return funnel_asof.chains(funnel, target)
    return funnel_windows.chains(funnel, target)


def furthest_steps(found: Chains) -> exp.Select:
    """One row per user who began: `user_ord`, and `level`, the furthest step reached, from 1."""
    reached = [
        exp.select(column("user_ord", "s").as_("user_ord", quoted=True), number(level).as_("level", quoted=True)).from_(
            step.subquery("s")
        )
        for level, step in enumerate(found.steps, start=1)
    ]
    user, level = column("user_ord", "r"), column("level", "r")
    furthest = exp.select(user.as_("user_ord", quoted=True), exp.Max(this=level).as_("level", quoted=True))
    return found.define(furthest.from_(_union(reached).subquery("r")).group_by(user))


def attempts(found: Chains) -> exp.Select:
    """One row per user who began: `user_ord`, `level`, and `d2`, `d3`, ... of the credited attempt.

    `dk` is the time from the first step to step k in microseconds, null beyond the user's level.
    """
    steps = len(found.steps)
    each = [_first_attempts(step, level, steps) for level, step in enumerate(found.steps, start=1)]
    order = exp.Order(expressions=[exp.Ordered(this=column("level", "r"), desc=True, nulls_first=True)])
    place = exp.Window(this=exp.RowNumber(), partition_by=[column("user_ord", "r")], order=order)
    ranked = exp.select("*", place.as_("place", quoted=True)).from_(_union(each).subquery("r"))
    names = ["user_ord", "level", *duration_names(steps)]
    kept = exp.select(*(column(name, _ATTEMPT) for name in names)).from_(ranked.subquery(_ATTEMPT))
    return found.define(kept.where(exp.EQ(this=column("place", _ATTEMPT), expression=number(1))))


def duration_names(steps: int) -> list[str]:
    """The columns of `attempts` that hold durations."""
    return [f"d{step}" for step in range(2, steps + 1)]


def _first_attempts(rows: exp.Select, level: int, steps: int) -> exp.Select:
    user = column("user_ord", "s")
    first = [exp.Min(this=column(f"t{step}", "s")) for step in range(1, level + 1)]
    durations = [exp.Sub(this=first[step - 1], expression=first[0].copy()) for step in range(2, level + 1)]
    absent = [exp.cast(exp.Null(), "BIGINT") for _ in range(level, steps)]
    shown = [
        duration.as_(name, quoted=True)
        for duration, name in zip([*durations, *absent], duration_names(steps), strict=True)
    ]
    selected = exp.select(user.as_("user_ord", quoted=True), number(level).as_("level", quoted=True), *shown)
    return selected.from_(rows.subquery("s")).group_by(user)


def _union(selects: Sequence[exp.Select]) -> exp.Query:
    return exp.union(*selects, distinct=False) if len(selects) > 1 else selects[0]
