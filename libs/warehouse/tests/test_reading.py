"""Any thread reads any SELECT as Arrow batches, within its limits."""

import gc
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime

import pyarrow as pa
import pytest

from libs.warehouse import LimitExceeded, Limits, NotFound, QueryError, Warehouse, open_warehouse
from libs.warehouse.tests.conftest import write

SERIES = "SELECT n FROM generate_series(1, 300000) AS t(n)"
ENDLESS = "SELECT count(*) AS n FROM generate_series(1, 9000000) AS a(x), generate_series(1, 9000000) AS b(y)"


def test_parameters_are_bound_in_order(warehouse: Warehouse) -> None:
    sql = "SELECT CAST($2 AS VARCHAR) AS b, CAST($1 AS BIGINT) AS a"
    assert warehouse.query(sql, [7, "it's; --"]).read_all().to_pylist() == [{"b": "it's; --", "a": 7}]


def test_types_arrive_as_arrow(warehouse: Warehouse) -> None:
    sql = (
        "SELECT TRUE AS yes, CAST(1 AS BIGINT) AS n, CAST(0.5 AS DOUBLE PRECISION) AS x, CAST('a' AS VARCHAR) AS s,"
        " DATE '2026-01-02' AS d, TIMESTAMP '2026-01-02 03:04:05.678901' AS t, CAST('{\"a\": 1}' AS JSON) AS j,"
        " CAST(1.25 AS DECIMAL(10, 2)) AS m, CAST(NULL AS VARCHAR) AS nothing"
    )
    found = warehouse.query(sql).read_all()
    assert found.schema.types == [
        pa.bool_(),
        pa.int64(),
        pa.float64(),
        pa.string(),
        pa.date32(),
        pa.timestamp("us"),
        pa.string(),
        pa.decimal128(10, 2),
        pa.string(),
    ]
    row = found.to_pylist()[0]
    assert row["t"] == datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC).replace(tzinfo=None)
    assert (row["d"], row["j"], row["nothing"]) == (date(2026, 1, 2), '{"a": 1}', None)


def test_rows_stream_in_batches(warehouse: Warehouse) -> None:
    batches = list(warehouse.query(SERIES))
    assert len(batches) > 1
    assert sum(batch.num_rows for batch in batches) == 300_000


def test_no_rows_still_have_a_schema(warehouse: Warehouse) -> None:
    assert warehouse.query(f"{SERIES} WHERE n < 0").read_all().schema.names == ["n"]


def test_many_threads_read_at_once(warehouse: Warehouse) -> None:
    def total(add: int) -> int:
        found = warehouse.query(f"SELECT CAST(sum(n + $1) AS BIGINT) AS s FROM ({SERIES}) AS t", [add])
        return int(found.read_all()["s"][0].as_py())

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(total, range(16))) == [300_000 * 300_001 // 2 + 300_000 * add for add in range(16)]


def test_a_reader_dropped_half_way_leaves_nothing_behind(warehouse: Warehouse) -> None:
    before = threading.active_count()
    reader = warehouse.query(SERIES, seconds=60)
    reader.read_next_batch()
    assert threading.active_count() > before
    del reader
    gc.collect()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_a_query_over_its_time_limit_is_cancelled(warehouse: Warehouse) -> None:
    started = time.monotonic()
    with pytest.raises(LimitExceeded, match=r"time limit of 0\.3 s") as raised:
        warehouse.query(ENDLESS, seconds=0.3).read_all()
    assert raised.value.resource == "time"
    assert time.monotonic() - started < 5


def test_the_time_limit_covers_the_streaming(warehouse: Warehouse) -> None:
    endless = "SELECT x FROM generate_series(1, 20000000) AS a(x), generate_series(1, 1000) AS b(y)"
    if warehouse.dialect.sqlglot == "postgres":
        endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c"
    reader = warehouse.query(endless, seconds=0.5)
    assert reader.read_next_batch().num_rows > 0
    given_up = time.monotonic() + 20
    with pytest.raises(LimitExceeded):  # noqa: PT012
        for _ in reader:
            assert time.monotonic() < given_up


def test_the_limits_of_the_warehouse_hold_for_its_queries(url: str, warehouse: Warehouse) -> None:
    limited = open_warehouse(url, warehouse.workspace, Limits(seconds=0.3), read_only=True)
    with pytest.raises(LimitExceeded):
        limited.query(ENDLESS, seconds=60).read_all()


def test_an_embedded_engine_keeps_to_its_memory(urls: dict[str, str], lake: Warehouse) -> None:
    small = open_warehouse(urls["ducklake"], lake.workspace, Limits(memory="60MB", threads=1), read_only=True)
    with pytest.raises(LimitExceeded, match="memory limit of 60MB"):
        small.query("SELECT list(n) AS l FROM generate_series(1, 30000000) AS t(n)").read_all()
    assert small.query("SELECT 1 AS one").read_all().num_rows == 1


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM {events}",
        "SELECT 1; SELECT 2",
        "SELECT 1; DELETE FROM {events}",
        "CREATE TABLE {events} (a INTEGER)",
        "SELEC 1",
        "",
    ],
)
def test_a_query_is_one_select(warehouse: Warehouse, sql: str) -> None:
    with pytest.raises(QueryError):
        warehouse.query(sql.format(events=warehouse.table("traitmesh.events"))).read_all()


def test_absent_things_are_not_found(warehouse: Warehouse) -> None:
    for name in ("traitmesh.nowhere", "nowhere.events"):
        with pytest.raises(NotFound):
            warehouse.query(f"SELECT * FROM {warehouse.table(name)}")
        with pytest.raises(NotFound):
            warehouse.describe(name)
        assert not warehouse.exists(name)
    assert warehouse.exists("traitmesh.events")


@pytest.mark.parametrize("name", ["events", "a.b.c", ".b", "a.", ""])
def test_a_table_is_named_by_schema_and_name(warehouse: Warehouse, name: str) -> None:
    with pytest.raises(QueryError, match=r"schema\.name"):
        warehouse.table(name)


def test_identifiers_are_quoted(warehouse: Warehouse, table: str) -> None:
    odd = f'{table} "x"; --'
    column = 'select "a"'
    with warehouse.transaction() as transaction:
        transaction.drop(odd)
        transaction.create_table_as(odd, f"SELECT 1 AS {warehouse.quote(column)}")
    assert [column.name for column in warehouse.describe(odd)] == [column]


def test_messages_hold_no_values(warehouse: Warehouse, table: str) -> None:
    write(warehouse, table, [{"mail": "eve@example.com"}])
    name = warehouse.table(table)
    for sql in (
        f"SELECT CAST(mail AS INTEGER) AS n FROM {name}",
        "SELECT CAST('eve@example.com' AS INTEGER) AS n",
        f"SELECT * FROM {name} WHERE mail = 'eve@example.com' AND nowhere = 1",
        f"SELECT * FROM {name} WHERE 'eve@example.com' 'x'",
    ):
        with pytest.raises(QueryError) as raised:
            warehouse.query(sql).read_all()
        assert "eve" not in "".join(traceback.format_exception_only(raised.value))
        assert raised.value.__suppress_context__


def test_wrong_columns_are_named(warehouse: Warehouse) -> None:
    with pytest.raises(QueryError, match="nowhere"):
        warehouse.query(f"SELECT nowhere FROM {warehouse.table('traitmesh.users')}")


def test_python_variables_are_no_tables(lake: Warehouse) -> None:
    secrets = pa.table({"a": [1]})
    with pytest.raises(NotFound):
        lake.query("SELECT * FROM secrets").read_all()
    assert secrets.num_rows == 1


def test_times_compile_to_microseconds(warehouse: Warehouse) -> None:
    micros = warehouse.dialect.micros("TIMESTAMP '1970-01-02 00:00:00.000001'")
    found = warehouse.query(f"SELECT {micros} AS t").read_all()
    assert found.schema.types == [pa.int64()]
    assert found["t"][0].as_py() == 86_400_000_001
