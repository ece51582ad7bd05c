"""Column lineage of one SELECT, by sqlglot: which input columns each output column is made of or influenced by.

What a value is made of is direct; what decides about it (a CASE's condition, a window's partition and order, an
aggregate's FILTER, for a count of rows what decides which rows there are) is indirect, and so is what decides which
rows the output has (joins, filters, groups), after OpenLineage's ColumnLineageDatasetFacet. A shape that cannot be
traced surely raises Untraceable: no edge is guessed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlglot import exp, parse_one
from sqlglot.optimizer.qualify import qualify
from sqlglot.optimizer.scope import Scope, build_scope

#: Columns by table, tables as "schema.table".
Tables = Mapping[str, Mapping[str, str]]


class Untraceable(Exception):
    """The statement has a shape whose columns cannot be traced."""


@dataclass(frozen=True)
class Input:
    """A column that takes part, `table` as "schema.table"."""

    table: str
    column: str
    direct: bool

    def indirectly(self) -> "Input":
        """The same column, deciding instead of being part of the value."""
        return Input(self.table, self.column, direct=False)


Inputs = frozenset[Input]
_SELECT = (exp.Select, exp.SetOperation)
_NONE: Inputs = frozenset()


@dataclass(frozen=True)
class Trace:
    """The inputs of each output column, in order, and the columns that decide which rows there are."""

    columns: Mapping[str, Inputs]
    rows: Inputs


def trace(sql: str, dialect: str, tables: Tables) -> Trace:
    """Traces one SELECT over `tables`. Raises Untraceable."""
    try:
        tree = parse_one(sql, dialect=dialect)
        _refuse_uncertain(tree)
        qualified = qualify(
            tree, schema=_nested(tree, tables), dialect=dialect, validate_qualify_columns=False, quote_identifiers=False
        )
        scope = build_scope(qualified)
        if scope is None:
            raise Untraceable("not a SELECT")
        tracer = _Tracer()
        outputs = _output_names(scope)
        return Trace({name: tracer.column(scope, name) for name in outputs}, tracer.rows(scope))
    except Untraceable:
        raise
    except Exception as error:
        raise Untraceable(type(error).__name__) from error


def _refuse_uncertain(tree: exp.Expr) -> None:
    """Raises Untraceable for shapes that sqlglot is known to map wrongly or to lose."""
    if not isinstance(tree, exp.Query):
        raise Untraceable("not a SELECT")
    for node in tree.walk():
        natural = isinstance(node, exp.Join) and node.args.get("method") == "NATURAL"
        by_name = isinstance(node, exp.SetOperation) and node.args.get("by_name")
        lateral = isinstance(node, exp.Lateral) and isinstance(node.this, exp.Subquery)
        if natural or by_name or lateral or isinstance(node, exp.Pivot | exp.Columns):
            raise Untraceable(type(node).__name__)


def _nested(tree: exp.Expr, tables: Tables) -> dict[str, Any]:
    """The tables as sqlglot's schema, with the catalog that the statement names them by, if it does."""
    catalogs = {table.catalog for table in tree.find_all(exp.Table) if table.db}
    if len(catalogs) > 1:
        raise Untraceable("several catalogs")
    schemas: dict[str, Any] = {}
    for table, columns in tables.items():
        schema, _, name = table.partition(".")
        schemas.setdefault(schema, {})[name] = dict(columns)
    catalog = next(iter(catalogs), "")
    return {catalog: schemas} if catalog else schemas


class _Tracer:
    """Follows columns through the scopes of one statement."""

    def __init__(self) -> None:
        self._columns: dict[tuple[int, str], Inputs] = {}
        self._rows: dict[int, Inputs] = {}

    def column(self, scope: Scope, name: str) -> Inputs:
        """The inputs of one output column of a scope."""
        key = (id(scope), name)
        if key not in self._columns:
            # A recursive CTE comes back here: its own column adds nothing to itself.
            self._columns[key] = _NONE
            self._columns[key] = self._trace_column(scope, name)
        return self._columns[key]

    def _trace_column(self, scope: Scope, name: str) -> Inputs:
        expression = scope.expression
        if isinstance(expression, exp.SetOperation):
            position = _output_names(scope).index(name)
            branches = scope.set_operation_scopes
            return _NONE.union(*(self.column(branch, _output_names(branch)[position]) for branch in branches))
        if isinstance(expression, exp.Unnest | exp.Lateral | exp.UDTF):
            return self.expression(scope, expression)
        if not isinstance(expression, exp.Select) or name not in _output_names(scope):
            raise Untraceable("a column that no SELECT makes")
        return self.expression(scope, expression.selects[_output_names(scope).index(name)])

    def rows(self, scope: Scope) -> Inputs:
        """The columns that decide which rows a scope has, those of the scopes below included."""
        key = id(scope)
        if key not in self._rows:
            self._rows[key] = _NONE
            inputs = _NONE.union(*(self.expression(scope, clause) for clause in _deciding_clauses(scope.expression)))
            below = [
                *scope.set_operation_scopes,
                *(source for source in scope.sources.values() if isinstance(source, Scope)),
            ]
            inputs = inputs.union(*(self.rows(source) for source in below if source is not scope))
            self._rows[key] = frozenset(found.indirectly() for found in inputs)
        return self._rows[key]

    def expression(self, scope: Scope, expression: exp.Expr) -> Inputs:
        """The inputs of an expression that stands in a scope."""
        found: set[Input] = set()
        for node in _shallow(expression):
            if isinstance(node, exp.Column):
                inputs = self._source_column(scope, node)
            elif isinstance(node, _SELECT) and node is not expression:
                inputs = self._subquery(scope, node)
            elif isinstance(node, exp.AggFunc) and node.find(exp.Column) is None:
                # It is made of rows alone, such as count(*), so what decides which rows there are decides about it.
                inputs = self.rows(scope)
            else:
                continue
            direct = _is_part_of_value(node, expression)
            found |= inputs if direct else {each.indirectly() for each in inputs}
        return frozenset(found)

    def _source_column(self, scope: Scope, column: exp.Column) -> Inputs:
        within: Scope | None = scope
        # A subquery may name the tables of the statement around it.
        while within is not None and column.table not in within.sources:
            within = within.parent
        if within is None:
            raise Untraceable("a column of no known table")
        source = within.sources[column.table]
        if isinstance(source, Scope):
            return self.column(source, column.name)
        if not isinstance(source, exp.Table):
            raise Untraceable("a column of a table function")
        if not source.db:
            raise Untraceable("a table without a schema")
        return frozenset({Input(f"{source.db}.{source.name}", column.name, direct=True)})

    def _subquery(self, scope: Scope, query: exp.Expr) -> Inputs:
        for inner in scope.subquery_scopes:
            if inner.expression is query:
                return self.rows(inner).union(*(self.column(inner, name) for name in _output_names(inner)))
        raise Untraceable("a subquery")


def _output_names(scope: Scope) -> list[str]:
    if not isinstance(scope.expression, exp.Query):
        raise Untraceable("not a SELECT")
    return [select.alias_or_name for select in scope.expression.selects]


def _deciding_clauses(expression: exp.Expr) -> Iterator[exp.Expr]:
    """The clauses of a SELECT that decide which rows it has."""
    for clause in ("where", "group", "having", "qualify", "distinct"):
        found = expression.args.get(clause)
        if isinstance(found, exp.Expr):
            yield found
    distinct = expression.args.get("distinct")
    if isinstance(expression, exp.Select) and distinct is not None and distinct.args.get("on") is None:
        yield from expression.selects
    group = expression.args.get("group")
    if isinstance(expression, exp.Select) and group is not None and group.args.get("all"):
        yield from (select for select in expression.selects if not select.find(exp.AggFunc))
    for join in expression.args.get("joins") or ():
        if join.args.get("on") is not None:
            yield join.args["on"]
    if expression.args.get("limit") is not None and expression.args.get("order") is not None:
        yield expression.args["order"]


def _shallow(expression: exp.Expr) -> Iterator[exp.Expr]:
    """The nodes of an expression; a query inside it is yielded and not entered."""
    return expression.walk(prune=lambda node: isinstance(node, _SELECT) and node is not expression)


def _is_part_of_value(node: exp.Expr, top: exp.Expr) -> bool:
    """Whether a node inside an expression is part of its value, rather than deciding about it."""
    child = node
    while child is not top and child.parent is not None:
        parent = child.parent
        if isinstance(parent, exp.If) and child is parent.this:
            return False
        if isinstance(parent, exp.Case) and child is parent.this:
            return False
        if isinstance(parent, exp.Filter) and child is parent.expression:
            return False
        if isinstance(parent, exp.Window) and child is not parent.this:
            return False
        if isinstance(parent, exp.Order | exp.Exists) or (isinstance(parent, exp.In) and child is not parent.this):
            return False
        child = parent
    return True
