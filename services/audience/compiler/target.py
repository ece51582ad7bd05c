"""What SQL is compiled for: an engine, its tables, the moment that windows end at; and how the engine spells things.

Names are always quoted and come from lists of what exists; values are literals that sqlglot writes for the dialect.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import sqlglot
from sqlglot import exp

from libs.warehouse import Dialect
from services.audience.domain import TraitType, Value

_INT64 = 2**63


@dataclass(frozen=True)
class Target:
    """The engine's dialect; the relations that hold users and events; the moment that windows end at, in UTC.

    Users have a column `user_ord` and one per trait.
    """

    dialect: Dialect
    users: exp.Expr
    events: exp.Expr
    as_of: datetime

    @classmethod
    def of(cls, dialect: Dialect, users: str, events: str, as_of: datetime) -> "Target":
        """A target whose relations are given as quoted SQL, such as `Warehouse.table` returns."""
        return cls(dialect, _relation(users, dialect), _relation(events, dialect), as_of)

    def on_users(self, users: exp.Expr) -> "Target":
        """The same over another relation of users."""
        return replace(self, users=users)

    def micros(self, column: exp.Expr) -> exp.Expr:
        """A timestamp as microseconds since 1970, an integer."""
        spelled = self.dialect.micros(column.sql(dialect=self.dialect.sqlglot))
        return sqlglot.parse_one(spelled, dialect=self.dialect.sqlglot)

    def byte_order(self, column: exp.Expr) -> exp.Expr:
        """A text in an order that is the same on every engine."""
        if self.dialect.sqlglot == "postgres":
            return exp.Collate(this=column, expression=exp.to_identifier("C", quoted=True))
        return column

    def document_field(self, column: exp.Expr, path: Sequence[str | int], kind: TraitType | None) -> exp.Expr:
        """A field of a JSON document if it is of the type, else null; None takes every type."""
        if self.dialect.sqlglot == "postgres":
            keys = [exp.Literal.string(str(key)) for key in path]
            found = exp.func("JSONB_TYPEOF", exp.func("JSONB_EXTRACT_PATH", column, *keys))
            content = exp.func("JSONB_EXTRACT_PATH_TEXT", column, *keys)
            names = _POSTGRES_JSON
        else:
            steps = "".join(f"[{key}]" if isinstance(key, int) else f'."{key}"' for key in path)
            json_path = exp.Literal.string(f"${steps}")
            found = exp.Anonymous(this="JSON_TYPE", expressions=[column, json_path])
            content = exp.Anonymous(this="JSON_EXTRACT_STRING", expressions=[column.copy(), json_path.copy()])
            names = _DUCKDB_JSON
        if kind is None:
            return _when(exp.NEQ(this=found, expression=exp.Literal.string(names[None][0])), content)
        of_kind = exp.In(this=found, expressions=[exp.Literal.string(name) for name in names[kind]])
        # TRY_CAST, where the engine has it: a number that is too large for a double is null and no error.
        return _when(of_kind, content if kind is TraitType.CATEGORICAL else exp.TryCast(this=content, to=_TYPES[kind]))


_TYPES = {TraitType.CONTINUOUS: exp.DataType.build("DOUBLE"), TraitType.BOOLEAN: exp.DataType.build("BOOLEAN")}
_DUCKDB_JSON: dict[TraitType | None, tuple[str, ...]] = {
    TraitType.CATEGORICAL: ("VARCHAR",),
    TraitType.CONTINUOUS: ("BIGINT", "UBIGINT", "HUGEINT", "DOUBLE"),
    TraitType.BOOLEAN: ("BOOLEAN",),
    None: ("NULL",),
}
_POSTGRES_JSON: dict[TraitType | None, tuple[str, ...]] = {
    TraitType.CATEGORICAL: ("string",),
    TraitType.CONTINUOUS: ("number",),
    TraitType.BOOLEAN: ("boolean",),
    None: ("null",),
}


def column(name: str, table: str) -> exp.Column:
    """A column of a relation in FROM, quoted."""
    return exp.column(name, table=table, quoted=True)


def number(value: int) -> exp.Expr:
    """An integer."""
    return exp.Literal.number(value)


def literal(value: Value) -> exp.Expr:
    """A value as the dialect writes it. Whole numbers are exact, others doubles."""
    if isinstance(value, bool):
        return exp.Boolean(this=value)
    if isinstance(value, str):
        return exp.Literal.string(value)
    if value.is_integer() and abs(value) < _INT64:
        return exp.Literal.number(int(value))
    return exp.cast(exp.Literal.string(repr(value)), "DOUBLE")


def moment(at: datetime) -> exp.Expr:
    """A UTC timestamp as a literal, by which engines leave out files before they read them."""
    spelled = at.astimezone(UTC).replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")
    return exp.cast(exp.Literal.string(spelled), "TIMESTAMP")


def without_nan(value: exp.Expr) -> exp.Expr:
    """The number, or null for NaN, which engines hold to be larger than every number."""
    as_double = exp.cast(value, "DOUBLE")
    return _when(exp.NEQ(this=as_double, expression=exp.cast(exp.Literal.string("NaN"), "DOUBLE")), value.copy())


def _when(condition: exp.Expr, value: exp.Expr) -> exp.Expr:
    return exp.Case().when(condition, value)


def _relation(sql: str, dialect: Dialect) -> exp.Expr:
    """What stands in FROM: a table or a subquery."""
    found: exp.Expr = exp.select("*").from_(sql, dialect=dialect.sqlglot).args["from_"].this
    return found


def aliased(relation: exp.Expr, alias: str) -> exp.Expr:
    """The relation under a name of its own."""
    return exp.alias_(relation.copy(), alias, table=True, quoted=True)
