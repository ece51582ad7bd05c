"""Comparisons as SQL in two-valued logic: every condition is true or false, never null.

A comparison with null is false; `!=` and `not in` with null are true; only null tests look at null itself.
"""

from collections.abc import Sequence

from sqlglot import exp

from services.audience.compiler.target import literal
from services.audience.domain import NULL_TESTS, Comparison, Operator

_BINARY: dict[Operator, type[exp.Binary]] = {
    Operator.EQUAL: exp.EQ,
    Operator.NOT_EQUAL: exp.NEQ,
    Operator.LESS: exp.LT,
    Operator.LESS_OR_EQUAL: exp.LTE,
    Operator.GREATER: exp.GT,
    Operator.GREATER_OR_EQUAL: exp.GTE,
}
_TRUE_FOR_NULL = frozenset({Operator.NOT_EQUAL, Operator.NOT_IN})


def holds(value: exp.Expr, comparison: Comparison) -> exp.Expr:
    """Whether the comparison holds for `value`, which may be null, as a boolean that is not."""
    if comparison.operator in NULL_TESTS:
        is_null = exp.Is(this=value, expression=exp.Null())
        return is_null if comparison.operator is Operator.IS_NULL else negated(is_null)
    condition = _condition(value, comparison.operator, [literal(v) for v in comparison.values])
    if_null = exp.Boolean(this=comparison.operator in _TRUE_FOR_NULL)
    return exp.Coalesce(this=condition, expressions=[if_null])


def _condition(value: exp.Expr, operator: Operator, literals: list[exp.Expr]) -> exp.Expr:
    match operator:
        case Operator.IN:
            return exp.In(this=value, expressions=literals)
        case Operator.NOT_IN:
            return negated(exp.In(this=value, expressions=literals))
        case Operator.CONTAINS:
            return exp.GT(this=exp.StrPosition(this=value, substr=literals[0]), expression=exp.Literal.number(0))
        case _:
            return compared(value, operator, literals[0])


def compared(value: exp.Expr, operator: Operator, with_value: exp.Expr) -> exp.Expr:
    """A comparison by order."""
    return _BINARY[operator](this=value, expression=with_value)


def negated(condition: exp.Expr) -> exp.Expr:
    """The complement of a condition that is never null."""
    return exp.Not(this=exp.paren(condition))


def all_of(conditions: Sequence[exp.Expr]) -> exp.Expr:
    """True if every condition is; of none, true."""
    return _balanced(exp.And, conditions) if conditions else exp.true()


def any_of(conditions: Sequence[exp.Expr]) -> exp.Expr:
    """True if a condition is; of none, false."""
    return _balanced(exp.Or, conditions) if conditions else exp.false()


def _balanced(kind: type[exp.Connector], conditions: Sequence[exp.Expr]) -> exp.Expr:
    """A tree of logarithmic depth: parsers and generators recurse, and a chain of 300 is too deep for them."""
    if len(conditions) == 1:
        return conditions[0]
    middle = len(conditions) // 2
    left, right = _balanced(kind, conditions[:middle]), _balanced(kind, conditions[middle:])
    return exp.paren(kind(this=left, expression=right), copy=False)
