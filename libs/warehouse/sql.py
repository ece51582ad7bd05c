"""What the engines that speak SQL share: names and the row hash."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from libs.warehouse.interface import Column, NotFound, QueryError


def quote(identifier: str) -> str:
    """Return the identifier in double quotes, as all our engines read them."""
    return '"' + identifier.replace('"', '""') + '"'


def split(table: str) -> tuple[str, str]:
    """Return schema and name of "schema.name". Raises QueryError for any other form."""
    schema, dot, name = table.partition(".")
    if not (schema and dot and name) or "." in name or "\0" in table:
        raise QueryError(f"a table is named 'schema.name', not {table!r}")
    return schema, name


class SqlWarehouse(ABC):
    """Names and expressions of an engine that speaks SQL."""

    @abstractmethod
    def schema(self, name: str) -> str:
        """Return the quoted, qualified identifier of a schema of this workspace."""

    @abstractmethod
    def describe(self, table: str) -> tuple[Column, ...]:
        """See `Warehouse.describe`."""

    def quote(self, identifier: str) -> str:
        """See `Warehouse.quote`."""
        return quote(identifier)

    def table(self, name: str, at: int | None = None) -> str:
        """See `Warehouse.table`."""
        schema, table = split(name)
        qualified = f"{self.schema(schema)}.{quote(table)}"
        return qualified if at is None else self._as_of(qualified, at)

    @abstractmethod
    def _as_of(self, qualified: str, snapshot: int) -> str:
        """Return a relation that reads the table as of the snapshot, or raise Unsupported."""

    def exists(self, table: str) -> bool:
        """See `Warehouse.exists`."""
        try:
            self.describe(table)
        except NotFound:
            return False
        return True

    def row_hash(self, columns: Sequence[str]) -> str:
        """See `Warehouse.row_hash`."""
        if not columns:
            raise QueryError("a row hash needs at least one column")
        framed = [_framed(column) for column in sorted(columns)]
        return "md5(" + " || ".join(f"concat({', '.join(some)})" for some in _chunks(framed)) + ")"


def _framed(column: str) -> str:
    """Return arguments of concat, from whose text the value can be told: length, colon, text.

    A null leaves the colon alone, as concat skips nulls.
    """
    text = f"CAST({quote(column)} AS VARCHAR)"
    return f"length({text}), ':', {text}"


def _chunks(framed: list[str]) -> Iterator[list[str]]:
    """Split for concat, which takes no more than 100 arguments in PostgreSQL."""
    for start in range(0, len(framed), 30):
        yield framed[start : start + 30]


def require_columns(table: str, columns: Sequence[Column], given: Sequence[str]) -> None:
    """Raise QueryError if rows to append have columns that the table lacks."""
    unknown = sorted(set(given) - {column.name for column in columns})
    if unknown:
        raise QueryError(f"{table} has no column {', '.join(unknown)}")
