"""The last look at compiled SQL: exactly one SELECT, over the target's tables and nothing else."""

import sqlglot
from sqlglot import exp

from services.audience.compiler.target import Target

_Name = tuple[str, str, str]


class CompilerError(RuntimeError):
    """The compiler made SQL that it should not have: a bug, never the caller's fault."""


def sql(query: exp.Query, target: Target) -> str:
    """The text of a compiled query, read again and checked. Raises CompilerError."""
    text = query.sql(dialect=target.dialect.sqlglot)
    statements = sqlglot.parse(text, dialect=target.dialect.sqlglot)
    if len(statements) != 1 or not isinstance(statements[0], exp.Select):
        raise CompilerError("a compiled query must be one SELECT")
    allowed = _tables(target.users) | _tables(target.events)
    parts = {("", "", part.alias) for part in statements[0].find_all(exp.CTE)}
    unknown = _tables(statements[0]) - allowed - parts
    if unknown:
        raise CompilerError(f"a compiled query reads {sorted(unknown)}, which is none of its tables")
    return text


def _tables(expression: exp.Expr) -> set[_Name]:
    return {(table.catalog, table.db, table.name) for table in expression.find_all(exp.Table)}
