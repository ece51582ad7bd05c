"""Brings a file's rows into the tables of events, users and quarantine: all of it in one transaction, or nothing."""

# ruff: noqa: S608  (identifiers are quoted, values are parameters)

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from libs.warehouse import Transaction, Warehouse
from services.model_builder.loading.rows import Chunk
from services.model_builder.store.loads import LoadCounts

_EVENTS = "traitmesh.events"
_USERS = "traitmesh.users"
_QUARANTINE = "traitmesh.quarantine"


def is_loaded(warehouse: Warehouse, load: int) -> bool:
    """Whether a load of this number has left rows, hence is complete."""
    found = warehouse.query(
        f"SELECT count(*) AS n FROM (SELECT load FROM {warehouse.table(_EVENTS)} WHERE load = $1"
        f" UNION ALL SELECT load FROM {warehouse.table(_QUARANTINE)} WHERE load = $1) AS loaded",
        [load],
    )
    return bool(found.read_all()["n"][0].as_py())


def load_chunks(
    warehouse: Warehouse,
    load: int,
    file_name: str,
    chunks: Iterable[Chunk],
    *,
    name: str,
    on_progress: Callable[[int], None],
    before_commit: Callable[[LoadCounts], None],
) -> None:
    """Loads the chunks of one file; `name` is the commit's message.

    An event whose id is there already, in the table or earlier in the file, is dropped and counted. New users get
    the next ordinals, by the time of their first event. `on_progress` hears how many rows are staged; `before_commit`
    gets the counts and runs last, so that what it keeps is there whenever the rows are.
    """
    with warehouse.transaction(name) as transaction:
        staging = _Staging(warehouse, transaction, load)
        staging.open()
        staged = 0
        for chunk in chunks:
            staging.append(chunk)
            staged += chunk.row_count
            on_progress(staged)
        counts = staging.move(file_name)
        staging.close()
        before_commit(counts)


@dataclass(frozen=True)
class _Staging:
    """The load's own tables within the transaction."""

    warehouse: Warehouse
    transaction: Transaction
    load: int

    @property
    def _events(self) -> str:
        return f"traitmesh.load_{self.load}_events"

    @property
    def _kept(self) -> str:
        return f"traitmesh.load_{self.load}_kept"

    @property
    def _bad(self) -> str:
        return f"traitmesh.load_{self.load}_bad"

    def open(self) -> None:
        """Creates the tables, empty; documents as text, since they come so."""
        columns = []
        for column in self.warehouse.describe(_EVENTS):
            name = self.warehouse.quote(column.name)
            if column.type.upper() in {"JSON", "JSONB"}:
                columns.append(f"CAST({name} AS VARCHAR) AS {name}")
            elif column.name not in {"load", "user_ord"}:
                columns.append(name)
        self._create(self._events, f"load AS row, {', '.join(columns)}", _EVENTS)
        self._create(self._bad, "row_hash, line, reason, detail, raw", _QUARANTINE)

    def _create(self, table: str, columns: str, like: str) -> None:
        self.transaction.create_table_as(table, f"SELECT {columns} FROM {self.warehouse.table(like)} WHERE FALSE")

    def append(self, chunk: Chunk) -> None:
        """Adds the rows of a chunk."""
        if chunk.events.num_rows:
            self.transaction.append(self._events, chunk.events)
        if chunk.quarantine.num_rows:
            self.transaction.append(self._bad, chunk.quarantine)

    def move(self, file_name: str) -> LoadCounts:
        """Moves what is new to the platform's tables and returns what became of the rows."""
        table = self.warehouse.table
        events, bad = self._count(self._events), self._count(self._bad)
        # Found out over two narrow columns first, so that the wide rows are read and sorted once.
        self.transaction.create_table_as(
            self._kept,
            f"SELECT min(s.row) AS row FROM {table(self._events)} AS s"
            f" WHERE NOT EXISTS (SELECT 1 FROM {table(_EVENTS)} AS e WHERE e.event_id = s.event_id)"
            " GROUP BY s.event_id",
        )
        users = self._add_users()
        loaded = self._add_events()
        quarantined = self._add_quarantine(file_name)
        return LoadCounts(events + bad, loaded, events + bad - loaded - quarantined, quarantined, users)

    def _count(self, name: str) -> int:
        counted = self.transaction.query(f"SELECT count(*) AS n FROM {self.warehouse.table(name)}")
        return int(counted.read_all()["n"][0].as_py())

    def _add_users(self) -> int:
        table = self.warehouse.table
        return self.transaction.execute(
            f"INSERT INTO {table(_USERS)} (user_id, user_ord, first_seen)"
            " SELECT user_id, row_number() OVER (ORDER BY first_seen, user_id)"
            f" + (SELECT coalesce(max(user_ord), -1) FROM {table(_USERS)}), first_seen FROM ("
            f"  SELECT s.user_id, min(s.time) AS first_seen FROM {table(self._events)} AS s"
            f"  JOIN {table(self._kept)} AS k ON k.row = s.row"
            f"  WHERE NOT EXISTS (SELECT 1 FROM {table(_USERS)} AS u WHERE u.user_id = s.user_id)"
            "  GROUP BY s.user_id) AS found"
        )

    def _add_events(self) -> int:
        # Without ORDER BY: a warehouse whose tables are sorted sorts what is inserted, and would do so twice.
        table, quote = self.warehouse.table, self.warehouse.quote
        values = {"load": str(self.load), "user_ord": "u.user_ord"}
        columns = {
            column.name: values.get(column.name) or f"CAST(s.{quote(column.name)} AS {column.type})"
            for column in self.warehouse.describe(_EVENTS)
        }
        return self.transaction.execute(
            f"INSERT INTO {table(_EVENTS)} ({', '.join(map(quote, columns))}) SELECT {', '.join(columns.values())}"
            f" FROM {table(self._events)} AS s JOIN {table(self._kept)} AS k ON k.row = s.row"
            f" JOIN {table(_USERS)} AS u ON u.user_id = s.user_id"
        )

    def _add_quarantine(self, file_name: str) -> int:
        table = self.warehouse.table
        return self.transaction.execute(
            f"INSERT INTO {table(_QUARANTINE)} (row_hash, load, file, line, reason, detail, raw)"
            f" SELECT b.row_hash, {self.load}, $1, min(b.line), min(b.reason), min(b.detail), min(b.raw)"
            f" FROM {table(self._bad)} AS b"
            f" WHERE NOT EXISTS (SELECT 1 FROM {table(_QUARANTINE)} AS q WHERE q.row_hash = b.row_hash)"
            " GROUP BY b.row_hash",
            [file_name],
        )

    def close(self) -> None:
        """Drops the tables, whose files go with the transaction."""
        for name in (self._events, self._kept, self._bad):
            self.transaction.drop(name)
