"""A transaction writes everything or nothing."""

from datetime import datetime

import pyarrow as pa
import pytest

from libs.warehouse import NotFound, QueryError, Unsupported, Warehouse, open_warehouse
from libs.warehouse.tests.conftest import rows_of, write


def test_a_block_that_ends_commits(warehouse: Warehouse, table: str) -> None:
    write(warehouse, table, [{"k": "a", "n": 1}, {"k": "b", "n": 2}])
    with warehouse.transaction() as transaction:
        name = warehouse.table(table)
        assert transaction.execute(f"UPDATE {name} SET n = n + $1", [10]) == 2
        assert transaction.execute(f"DELETE FROM {name} WHERE k = $1", ["b"]) == 1
        seen = transaction.query(f"SELECT CAST(sum(n) AS BIGINT) AS n FROM {name}").read_all()
        assert seen["n"][0].as_py() == 11
    assert rows_of(warehouse, table, "k") == [{"k": "a", "n": 11}]


def test_a_block_that_raises_changes_nothing(warehouse: Warehouse, table: str) -> None:
    write(warehouse, table, [{"k": "a"}])
    with pytest.raises(RuntimeError), warehouse.transaction() as transaction:  # noqa: PT012
        transaction.execute(f"DELETE FROM {warehouse.table(table)}")
        transaction.create_table_as(f"{table}_2", "SELECT 1 AS n")
        raise RuntimeError
    assert rows_of(warehouse, table, "k") == [{"k": "a"}]
    assert not warehouse.exists(f"{table}_2")


def test_an_error_swallowed_inside_the_block_is_raised_at_its_end(warehouse: Warehouse, table: str) -> None:
    write(warehouse, table, [{"k": "a"}])
    with pytest.raises(QueryError, match="nothing was written"), warehouse.transaction() as transaction:  # noqa: PT012
        transaction.execute(f"DELETE FROM {warehouse.table(table)}")
        with pytest.raises(QueryError):
            transaction.execute("SELECT nowhere")
    assert rows_of(warehouse, table, "k") == [{"k": "a"}]


def test_others_see_a_transaction_only_after_it(warehouse: Warehouse, table: str) -> None:
    write(warehouse, table, [{"k": "a"}])
    with warehouse.transaction() as transaction:
        transaction.execute(f"DELETE FROM {warehouse.table(table)}")
        assert rows_of(warehouse, table, "k") == [{"k": "a"}]
    assert rows_of(warehouse, table, "k") == []


def test_append_goes_by_column_name(warehouse: Warehouse) -> None:
    users = pa.table(
        {
            "first_seen": pa.array([datetime(2026, 1, 1, 12, 0, 0, 5)], pa.timestamp("us")),  # noqa: DTZ001
            "user_id": ["append-by-name"],
        }
    )
    with warehouse.transaction() as transaction:
        assert transaction.append("traitmesh.users", users) == 1
    name = warehouse.table("traitmesh.users")
    found = warehouse.query(f"SELECT * FROM {name} WHERE user_id = $1", ["append-by-name"]).read_all().to_pylist()
    assert found == [{"user_id": "append-by-name", "user_ord": None, "first_seen": users["first_seen"][0].as_py()}]


def test_append_keeps_every_value_as_it_is(warehouse: Warehouse, table: str) -> None:
    texts = ["", " ", "NULL", "\\N", '"', "a,b", "line\nbreak", "\\.", "Ω🂡", "it's", None]
    numbers = [0.1, -0.0, 1e300, float("inf"), 5e-324, None, 1 / 3, 2.0, 3.0, 4.0, 5.0]
    rows: list[dict[str, object]] = [
        {"n": n, "s": text, "x": x} for n, (text, x) in enumerate(zip(texts, numbers, strict=True))
    ]
    write(warehouse, table, rows)
    assert rows_of(warehouse, table, "n") == rows


def test_append_streams_a_reader(warehouse: Warehouse, table: str) -> None:
    write(warehouse, table, [{"n": 0}])
    batches = (pa.record_batch({"n": [n]}) for n in range(1, 4))
    with warehouse.transaction() as transaction:
        reader = pa.RecordBatchReader.from_batches(pa.schema([("n", pa.int64())]), batches)
        assert transaction.append(table, reader) == 3
    assert [row["n"] for row in rows_of(warehouse, table, "n")] == [0, 1, 2, 3]


def test_documents_are_appended_as_text(warehouse: Warehouse) -> None:
    with warehouse.transaction() as transaction:
        transaction.append("traitmesh.events", pa.table({"event_id": ["doc"], "contexts": ['{"a": [{"b": 1}]}']}))
    found = warehouse.query(f"SELECT contexts FROM {warehouse.table('traitmesh.events')} WHERE event_id = 'doc'")
    assert found.read_all()["contexts"].to_pylist() == ['{"a": [{"b": 1}]}']


def test_append_refuses_unknown_columns_and_tables(warehouse: Warehouse) -> None:
    with pytest.raises(QueryError, match=r"traitmesh\.users has no column mail, phone"), warehouse.transaction() as t:
        t.append("traitmesh.users", pa.table({"phone": ["1"], "mail": ["a"], "user_id": ["b"]}))
    with pytest.raises(NotFound), warehouse.transaction() as t:
        t.append("traitmesh.nowhere", pa.table({"a": [1]}))


def test_append_refuses_values_of_another_type(warehouse: Warehouse) -> None:
    with pytest.raises(QueryError) as raised, warehouse.transaction() as transaction:
        transaction.append("traitmesh.users", pa.table({"user_ord": ["eve@example.com"]}))
    assert "eve" not in str(raised.value)


def test_a_select_becomes_a_table_with_its_parameters(warehouse: Warehouse, table: str) -> None:
    with warehouse.transaction() as transaction:
        transaction.drop(table)
        sql = "SELECT CAST($1 AS VARCHAR) AS k, CAST($2 AS BIGINT) + n AS n FROM generate_series(1, 2) AS t(n)"
        transaction.create_table_as(table, sql, ["it's", 40])
    assert rows_of(warehouse, table, "n") == [{"k": "it's", "n": 41}, {"k": "it's", "n": 42}]
    with pytest.raises(QueryError), warehouse.transaction() as transaction:
        transaction.create_table_as(table, "SELECT 1 AS n")


def test_dropping_is_idempotent(warehouse: Warehouse, table: str) -> None:
    write(warehouse, table, [{"k": "a"}])
    for _ in range(2):
        with warehouse.transaction() as transaction:
            transaction.drop(table)
        assert not warehouse.exists(table)


def test_one_statement_at_a_time(warehouse: Warehouse, table: str) -> None:
    write(warehouse, table, [{"k": "a"}])
    name = warehouse.table(table)
    with pytest.raises(QueryError), warehouse.transaction() as transaction:
        transaction.execute(f"DELETE FROM {name}; DELETE FROM {name}")
    assert rows_of(warehouse, table, "k") == [{"k": "a"}]


def test_a_read_only_warehouse_refuses_transactions(url: str, warehouse: Warehouse) -> None:
    reader = open_warehouse(url, warehouse.workspace, read_only=True)
    with pytest.raises(Unsupported, match="writing"), reader.transaction():
        pass
    assert reader.exists("traitmesh.events")
