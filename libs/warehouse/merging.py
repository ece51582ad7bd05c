"""Make one table equal to another by writing only what differs, in plain SQL of every engine."""

# ruff: noqa: S608  (identifiers are quoted, values are parameters)

from collections.abc import Mapping
from dataclasses import dataclass

from libs.warehouse.interface import KeyViolation, MergeCounts, NotFound, QueryError, Transaction
from libs.warehouse.sql import SqlWarehouse, quote

_DIFFERENCE = "merge_difference"


@dataclass(frozen=True)
class Merge:
    """One merge of `source` into `target`, as `Transaction.merge` describes it.

    It does not keep two merges of one table apart: the engine does.
    """

    warehouse: SqlWarehouse
    transaction: Transaction
    target: str
    source: str
    key: str
    hash_column: str

    def run(self) -> MergeCounts:
        """Check the source, take its columns, find what differs and write it."""
        columns = {column.name: column.type for column in self.transaction.describe(self.source)}
        for needed in (self.key, self.hash_column):
            if needed not in columns:
                raise QueryError(f"{self.source} has no column {needed}")
        rows = self._count_rows()
        rewrite = self._take_columns(columns)
        counts = self._find_difference(rows, rewrite=rewrite)
        if counts.inserted or counts.updated or counts.deleted:
            self._write(list(columns))
        self.transaction.execute(f"DROP TABLE {_DIFFERENCE}")
        return counts

    def _count_rows(self) -> int:
        """Return the number of rows of the source, whose keys must be present and unique."""
        key = quote(self.key)
        rows, present, distinct = self._one_row(
            f"SELECT count(*) AS n, count({key}) AS p, count(DISTINCT {key}) AS d"
            f" FROM {self.warehouse.table(self.source)}"
        )
        if rows != distinct:
            raise KeyViolation(self.source, self.key, rows - present, present - distinct)
        return rows

    def _take_columns(self, wanted: Mapping[str, str]) -> bool:
        """Give the target these columns; return whether its rows must all be written again."""
        target = self.warehouse.table(self.target)
        try:
            present = {column.name: column.type for column in self.transaction.describe(self.target)}
        except NotFound:
            empty = f"SELECT * FROM {self.warehouse.table(self.source)} WHERE FALSE"
            self.transaction.create_table_as(self.target, empty)
            return False
        for name, kind in present.items():
            if wanted.get(name) != kind:
                self.transaction.execute(f"ALTER TABLE {target} DROP COLUMN {quote(name)}")
        added = [name for name, kind in wanted.items() if present.get(name) != kind]
        for name in added:
            self.transaction.execute(f"ALTER TABLE {target} ADD COLUMN {quote(name)} {wanted[name]}")
        return bool(added)

    def _find_difference(self, rows: int, *, rewrite: bool) -> MergeCounts:
        """Store key and operation of what differs in a temporary table, and count it."""
        key, stored = quote(self.key), quote(self.hash_column)
        differs = "TRUE" if rewrite else f"t.{stored} IS DISTINCT FROM s.{stored}"
        self.transaction.execute(
            f"CREATE TEMPORARY TABLE {_DIFFERENCE} AS"
            f" SELECT coalesce(s.{key}, t.{key}) AS row_key, CASE WHEN t.{key} IS NULL"
            f" THEN 'insert' WHEN s.{key} IS NULL THEN 'delete' ELSE 'update' END AS operation"
            f" FROM {self.warehouse.table(self.target)} AS t"
            f" FULL JOIN {self.warehouse.table(self.source)} AS s ON t.{key} = s.{key}"
            f" WHERE t.{key} IS NULL OR s.{key} IS NULL OR {differs}"
        )
        inserted, updated, deleted = self._one_row(
            "SELECT "
            + ", ".join(
                f"count(CASE WHEN operation = '{operation}' THEN 1 END) AS {operation}_count"
                for operation in ("insert", "update", "delete")
            )
            + f" FROM {_DIFFERENCE}"
        )
        return MergeCounts(inserted, updated, deleted, rows - inserted - updated)

    def _write(self, columns: list[str]) -> None:
        """Delete what is gone or stale, then insert what is new or changed."""
        key = quote(self.key)
        self.transaction.execute(
            f"DELETE FROM {self.warehouse.table(self.target)} WHERE {key} IN"
            f" (SELECT row_key FROM {_DIFFERENCE} WHERE operation <> 'insert')"
        )
        names = ", ".join(quote(column) for column in columns)
        values = ", ".join(f"s.{quote(column)}" for column in columns)
        self.transaction.execute(
            f"INSERT INTO {self.warehouse.table(self.target)} ({names})"
            f" SELECT {values} FROM {self.warehouse.table(self.source)} AS s"
            f" JOIN {_DIFFERENCE} AS d ON s.{key} = d.row_key WHERE d.operation <> 'delete'"
        )

    def _one_row(self, sql: str) -> tuple[int, ...]:
        """Return the values of the only row of a query."""
        return tuple(self.transaction.query(sql).read_all().to_pylist()[0].values())
