"""A funnel by ASOF joins: each event of a step joined to the latest event of the step before at or before its time.

Exact where no event matches two steps, since then equal times are in the order of the steps. One scan per step, each
filtering raw columns: a shared scan with a CASE per step is slower, as the engine pushes the CASE into the scan.
"""

from sqlglot import exp

from services.audience.compiler.chains import Chains, time_name
from services.audience.compiler.events import EVENT, matches, scan
from services.audience.compiler.target import Target, column, number
from services.audience.domain import Funnel


def chains(funnel: Funnel, target: Target) -> Chains:
    """The chains of a funnel whose steps no event shares."""
    parts: list[tuple[str, exp.Query]] = []
    for step in range(1, len(funnel.steps) + 1):
        rows = _rows(funnel, step, target)
        parts.append((f"step{step}", rows if step == 1 else _joined(rows, step, funnel)))
    steps = tuple(
        exp.select(*(column(c, "c") for c in ["user_ord", *map(time_name, range(1, step + 1))])).from_(
            exp.alias_(exp.to_table(name), "c", table=True)
        )
        for step, (name, _) in enumerate(parts, start=1)
    )
    return Chains(tuple(parts), steps)


def _rows(funnel: Funnel, step: int, target: Target) -> exp.Select:
    """The events of one step: `user_ord` and the time. Those of later steps follow a first, and so share its bounds."""
    pattern = funnel.steps[step - 1]
    rows = scan(target, [pattern.event], funnel.within)
    if pattern.where:
        rows = rows.where(matches(pattern, target), copy=False)
    time = target.micros(column("time", EVENT))
    return rows.select(column("user_ord", EVENT), time.as_(time_name(step), quoted=True), copy=False)


def _joined(rows: exp.Select, step: int, funnel: Funnel) -> exp.Select:
    """The step's events whose latest chain began within the window."""
    time, before = column(time_name(step), "r"), column(time_name(step - 1), "p")
    same_user = exp.EQ(this=column("user_ord", "r"), expression=column("user_ord", "p"))
    join = exp.Join(
        this=exp.alias_(exp.to_table(f"step{step - 1}"), "p", table=True),
        method="ASOF",
        on=exp.And(this=same_user, expression=exp.GTE(this=time, expression=before)),
    )
    elapsed = exp.Sub(this=time.copy(), expression=column(time_name(1), "p"))
    window = number(funnel.window_micros)
    carried = [column(time_name(earlier), "p") for earlier in range(1, step)]
    joined = exp.select(column("user_ord", "r"), *carried, time.copy()).from_(rows.subquery("r"))
    joined.append("joins", join)
    return joined.where(exp.LTE(this=elapsed, expression=window), copy=False)
