"""Writes records into PostgreSQL tables, exactly once.

A batch is one transaction, which also writes the batch's key and its rejects to `_traitmesh_ledger`
beside the table: sent again, it is answered from there. Records are copied into a staging table and
moved on by one statement per kind of operation; where that fails because of the data, the batch is
halved under savepoints until the bad records are alone, and those become rejects.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, LiteralString

import orjson
import psycopg
from psycopg import errors, sql

from traitmesh_connector.destination import Destination, DestinationObject
from traitmesh_connector.errors import ConfigError, Reject, TransientError
from traitmesh_connector.protocol import Batch, Guarantee, Record, Stream

# A record and its place in the batch, which a reject must name.
Placed = tuple[int, Record]

LEDGER = """
CREATE TABLE {ledger} (
  batch_key text PRIMARY KEY, rejects jsonb NOT NULL, written_at timestamptz NOT NULL DEFAULT now())
"""
COLUMNS = """
SELECT attname, format_type(atttypid, NULL) FROM pg_attribute
WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped
"""
TABLES = """
SELECT n.nspname || '.' || c.relname,
  jsonb_object_agg(a.attname, format_type(a.atttypid, NULL) ORDER BY a.attnum),
  coalesce(jsonb_agg(a.attname) FILTER (WHERE a.attnum = ANY (i.indkey)), '[]')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^(pg_|information_schema)'
  AND c.relname <> '_traitmesh_ledger'
GROUP BY 1 ORDER BY 1
"""
INSERT: LiteralString = "INSERT INTO {table} ({columns}) SELECT {columns} FROM {staging}"
STATEMENTS: dict[str, LiteralString] = {
    "insert": INSERT,
    "upsert": INSERT + " ON CONFLICT ({key}) DO UPDATE SET {new}",
    "ignore": INSERT + " ON CONFLICT ({key}) DO NOTHING",
    "update": "UPDATE {table} t SET {staged} FROM {staging} s WHERE {match}",
    "delete": "DELETE FROM {table} t USING {staging} s WHERE {match}",
}
TYPES: dict[str, LiteralString] = {
    "string": "text",
    "integer": "bigint",
    "number": "double precision",
    "boolean": "boolean",
}
FORMATS: dict[str, LiteralString] = {"date-time": "timestamptz", "date": "date", "time": "time"}
JSON_TYPES = {kind: name for name, kind in TYPES.items()}


class DestinationPostgres(Destination):
    """The connector; its object is a table, `schema.table` or `table` in public."""

    name = "destination-postgres"
    sync_modes = ("append", "append_dedup", "update")
    guarantee = Guarantee.EXACTLY_ONCE
    batch_size = 5000
    config_schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "PostgreSQL",
        "type": "object",
        "anyOf": [{"required": ["url"]}, {"required": ["host", "database", "user"]}],
        "properties": {
            "url": {
                "type": "string",
                "description": "postgresql://user:password@host:port/database, or the fields below",
                "airbyte_secret": True,
            },
            "host": {"type": "string", "description": "Name, address or socket folder"},
            "port": {"type": "integer", "minimum": 1, "maximum": 65535, "default": 5432},
            "database": {"type": "string"},
            "user": {"type": "string"},
            "password": {"type": "string", "airbyte_secret": True},
            "sslmode": {"enum": ["disable", "prefer", "require", "verify-full"]},
        },
    }

    def check(self) -> None:
        """Connect, which proves address and credentials."""
        with told_apart():
            self._connection.execute("SELECT 1")

    def discover(self) -> list[DestinationObject]:
        """List every table; one with a primary key also takes upserts and updates by it."""
        with told_apart():
            tables = self._connection.execute(TABLES).fetchall()
        return [
            DestinationObject(name, mode, _json_schema(columns), [[column] for column in key])
            for name, columns, key in tables
            for mode in (self.sync_modes if key else ("append",))
        ]

    def write(self, batch: Batch) -> list[Reject]:
        """Write the batch and its ledger row in one transaction."""
        with told_apart(), self._connection.transaction():
            table = self._tables(batch.stream)
            written = table.written_before(batch.idempotency_key)
            if written is not None:
                return written
            rejects = table.write(batch.records)
            table.note(batch.idempotency_key, rejects)
        return rejects

    @cached_property
    def _connection(self) -> "psycopg.Connection[tuple[Any, ...]]":
        fields = {"host": "host", "port": "port", "database": "dbname", "user": "user"}
        fields |= {"password": "password", "sslmode": "sslmode"}
        parts = {to: self.config[name] for name, to in fields.items() if name in self.config}
        return psycopg.connect(
            self.config.get("url", ""),
            **({} if "url" in self.config else parts),
            connect_timeout=10,
            application_name="traitmesh",
            options="-c lock_timeout=30s",
            autocommit=True,
        )

    @cached_property
    def _tables(self) -> Callable[[Stream], "Table"]:
        known: dict[str, Table] = {}

        def table(stream: Stream) -> Table:
            if stream.object_name not in known:
                known[stream.object_name] = Table(self._connection, stream)
            return known[stream.object_name]

        return table


class Table:
    """The table of one stream, made or widened to the stream's columns."""

    def __init__(self, connection: "psycopg.Connection[tuple[Any, ...]]", stream: Stream) -> None:
        schema, _, table = stream.object_name.rpartition(".")
        if not table or "." in schema:
            raise ConfigError(f"object {stream.object_name} must be schema.table")
        self._execute = connection.execute
        self._connection = connection
        self._key = stream.primary_key
        self._name = sql.Identifier(schema or "public", table)
        self._ledger = sql.Identifier(schema or "public", "_traitmesh_ledger")
        missing = [c for c in self._key if c not in stream.json_schema.get("properties", {})]
        if missing:
            raise ConfigError(f"the stream has no column {missing[0]}, which its key names")
        self._create(schema or "public", stream.json_schema.get("properties", {}))
        self._types = self._columns()

    def _create(self, schema: str, columns: Mapping[str, Mapping[str, Any]]) -> None:
        """Make what is absent, and only that: the user may be allowed no more than to write."""
        # Two first runs at once would otherwise collide in the catalog.
        self._execute("SELECT pg_advisory_xact_lock(hashtext('traitmesh'))")
        if not self._value("SELECT to_regnamespace(%s)", sql.Identifier(schema)):
            self._execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        if not self._value("SELECT to_regclass(%s)", self._ledger):
            self._execute(sql.SQL(LEDGER).format(ledger=self._ledger))
        typed = {name: _definition(name, kind) for name, kind in columns.items()}
        if not self._value("SELECT to_regclass(%s)", self._name):
            key = [sql.SQL("PRIMARY KEY ({})").format(_names(self._key))] if self._key else []
            parts = sql.SQL(", ").join([*typed.values(), *key])
            self._execute(sql.SQL("CREATE TABLE {} ({})").format(self._name, parts))
        for name in typed.keys() - self._columns().keys():
            add = sql.SQL("ALTER TABLE {} ADD COLUMN {}")
            self._execute(add.format(self._name, typed[name]))

    def _columns(self) -> dict[str, str]:
        rows = self._execute(COLUMNS, [self._name.as_string(self._connection)]).fetchall()
        return dict(rows)

    def _value(self, query: LiteralString, name: sql.Identifier) -> object:
        row = self._execute(query, [name.as_string(self._connection)]).fetchone()
        return row and row[0]

    def written_before(self, batch_key: str | None) -> list[Reject] | None:
        """Return the rejects of a batch that is in the ledger already, None if it is not."""
        query = sql.SQL("SELECT rejects FROM {} WHERE batch_key = %s").format(self._ledger)
        row = self._execute(query, [batch_key]).fetchone() if batch_key else None
        return [Reject(**reject) for reject in row[0]] if row else None

    def note(self, batch_key: str | None, rejects: Sequence[Reject]) -> None:
        """Put the batch into the ledger; a host that names no keys gets at least once."""
        if batch_key:
            listed = [{"index": r.index, "code": r.code, "message": r.message} for r in rejects]
            statement = sql.SQL("INSERT INTO {} (batch_key, rejects) VALUES (%s, %s)")
            self._execute(statement.format(self._ledger), [batch_key, orjson.dumps(listed).decode()])

    def write(self, records: Sequence[Record]) -> list[Reject]:
        """Apply the records and return the refused ones."""
        rejects: list[Reject] = []
        latest: dict[object, Placed] = {}
        for index, record in enumerate(records):
            refusal = self._refusal(record)
            if refusal is not None:
                rejects.append(Reject(index, *refusal))
            else:
                # Of two states of one row the later counts; two inserts of it are a conflict.
                key = tuple(str(record.data[column]) for column in self._key)
                latest[index if record.operation == "insert" else key] = (index, record)
        # One statement takes one operation on one set of columns: an absent field stays untouched.
        groups: dict[tuple[str, tuple[str, ...]], list[Placed]] = {}
        for index, record in latest.values():
            columns = self._key if record.operation == "delete" else tuple(record.data)
            groups.setdefault((record.operation, columns), []).append((index, record))
        for (operation, columns), placed in groups.items():
            rejects += self._apply(operation, columns, placed)
        return rejects

    def _refusal(self, record: Record) -> tuple[str, str] | None:
        for column in self._key:
            if record.data.get(column) is None:
                return "null_key", f"key column {column} is null or absent"
        if not self._key and record.operation != "insert":
            return "no_key", f"operation {record.operation} needs a primary key"
        if not record.data.keys() <= self._types.keys():
            return "unknown_field", "the record has fields that the stream's schema lacks"
        return None

    def _apply(self, operation: str, columns: tuple[str, ...], placed: Sequence[Placed]) -> list[Reject]:
        try:
            with self._connection.transaction():
                self._copy_and_move(operation, columns, placed)
        except (errors.DataError, errors.IntegrityError, errors.CardinalityViolation) as error:
            if len(placed) == 1:
                return [Reject(placed[0][0], *_reason(error))]
            middle = len(placed) // 2
            halves = placed[:middle], placed[middle:]
            return [r for half in halves for r in self._apply(operation, columns, half)]
        return []

    def _copy_and_move(self, operation: str, columns: tuple[str, ...], placed: Sequence[Placed]) -> None:
        what = repr((self._name, columns)).encode()
        staging = sql.Identifier("traitmesh_" + hashlib.sha256(what).hexdigest()[:16])
        create = "CREATE TEMP TABLE IF NOT EXISTS {} ON COMMIT DELETE ROWS AS SELECT {} FROM {} LIMIT 0"
        self._execute(sql.SQL(create).format(staging, _names(columns), self._name))
        self._execute(sql.SQL("DELETE FROM {}").format(staging))
        texts = [_text_of(self._types[column]) for column in columns]
        command = sql.SQL("COPY {} ({}) FROM STDIN").format(staging, _names(columns))
        with self._connection.cursor() as cursor, cursor.copy(command) as copy:
            for _, record in placed:
                data = record.data
                copy.write_row([text(data[c]) for text, c in zip(texts, columns, strict=True)])
        self._execute(_move(operation, self._name, staging, self._key, columns))


def _move(
    operation: str,
    table: sql.Identifier,
    staging: sql.Identifier,
    key: Sequence[str],
    columns: Sequence[str],
) -> sql.Composed:
    """Return the statement that takes staged rows to the table."""
    values = [column for column in columns if column not in key]
    match = _pairs("t.{0} = s.{0}", " AND ", key)
    statement = STATEMENTS["ignore" if operation == "upsert" and not values else operation]
    return sql.SQL(statement).format(
        table=table,
        staging=staging,
        columns=_names(columns),
        key=_names(key),
        match=match,
        new=_pairs("{0} = EXCLUDED.{0}", ", ", values),
        staged=_pairs("{0} = s.{0}", ", ", values or key),
    )


def _pairs(template: str, between: str, columns: Sequence[str]) -> sql.Composed:
    return sql.SQL(between).join(sql.SQL(template).format(sql.Identifier(c)) for c in columns)


def _names(columns: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, columns))


def _definition(name: str, kind: Mapping[str, Any]) -> sql.Composed:
    return sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(_column_type(kind)))


def _column_type(kind: Mapping[str, Any]) -> LiteralString:
    names = kind.get("type", [])
    names = {names} if isinstance(names, str) else set(names) - {"null"}
    (name,) = names if len(names) == 1 else ("object",)
    return FORMATS.get(kind.get("format", ""), "text") if name == "string" else TYPES.get(name, "jsonb")


def _json_schema(columns: Mapping[str, str]) -> dict[str, Any]:
    kinds = {name: JSON_TYPES.get(kind, "string") for name, kind in columns.items()}
    return {"type": "object", "properties": {n: {"type": [k, "null"]} for n, k in kinds.items()}}


def _text_of(column_type: str) -> Callable[[Any], Any]:
    """Return what turns a JSON value into what COPY takes for a column of this type."""

    def json_text(value: object) -> str | None:
        return None if value is None else orjson.dumps(value).decode()

    def text(value: object) -> str | None:
        return value if isinstance(value, str) else json_text(value)

    def native(value: object) -> object:
        return json_text(value) if isinstance(value, dict | list) else value

    if column_type in ("json", "jsonb"):
        return json_text
    return text if column_type.startswith(("text", "char")) else native


def _reason(error: psycopg.Error) -> tuple[str, str]:
    """Return code and message of a refused record without the value that PostgreSQL quotes."""
    code = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(error).__name__).lower()
    place = re.search(r"column (\S+?):", error.diag.context or "")
    column = error.diag.column_name or (place and place[1])
    where = f"column {column}" if column else error.diag.constraint_name or "the record"
    return code, f"{where}: PostgreSQL says {code.replace('_', ' ')} ({error.sqlstate or 'no state'})"


@contextmanager
def told_apart() -> Iterator[None]:
    """Turn PostgreSQL's errors into what the caller does next."""
    try:
        yield
    except errors.InsufficientPrivilege as error:
        raise ConfigError(f"the user lacks a privilege: {error.diag.message_primary}") from None
    except errors.InvalidColumnReference:
        raise ConfigError("the table needs a unique index on exactly the key's columns") from None
    except psycopg.ProgrammingError as error:
        raise ConfigError(f"PostgreSQL refuses the statement or address ({error.sqlstate})") from None
    except psycopg.OperationalError as error:
        text = str(error)
        for sign in ("authentication failed", "does not exist", "no pg_hba.conf", "not permitted"):
            if sign in text:
                raise ConfigError(f"PostgreSQL refuses the login: {sign} (check user, password, database)") from None
        raise TransientError(f"PostgreSQL is not reachable or busy ({error.sqlstate or 'no connection'})") from None
