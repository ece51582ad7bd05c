"""A lake can be read as it was, and tells what changed, until maintenance expires it."""

import random
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from libs.warehouse import Conflict, NotFound, QueryError, SnapshotExpired, Warehouse, open_warehouse
from libs.warehouse import provision_workspace as provision
from libs.warehouse.tests.conftest import rows_of, write
from libs.warehouse.tests.test_merge import merge

Rows = list[dict[str, object]]
NOW = timedelta(0)


@pytest.fixture
def fresh(urls: dict[str, str], table: str) -> Warehouse:
    """A lake of this test alone, for maintenance expires every snapshot of a lake."""
    workspace = table.removeprefix("spare.test_")[:40]
    provision(urls["ducklake"], workspace)
    return open_warehouse(urls["ducklake"], workspace)


def test_a_table_is_read_as_of_a_snapshot(lake: Warehouse, table: str) -> None:
    write(lake, table, [{"k": "a", "v": 1}])
    before = lake.snapshot()
    with lake.transaction() as transaction:
        transaction.execute(f"UPDATE {lake.table(table)} SET v = 2")
    assert rows_of(lake, table, "k", at=before) == [{"k": "a", "v": 1}]
    assert rows_of(lake, table, "k") == [{"k": "a", "v": 2}]


def test_a_transaction_tells_its_snapshot(lake: Warehouse, table: str) -> None:
    write(lake, table, [{"k": "a"}])
    with lake.transaction() as writing:
        writing.execute(f"INSERT INTO {lake.table(table)} VALUES ('b')")
    assert writing.snapshot == lake.snapshot()
    with lake.transaction("writes nothing") as reading:
        reading.execute(f"DELETE FROM {lake.table(table)} WHERE k = 'absent'")
    assert reading.snapshot is None
    assert lake.snapshot() == writing.snapshot


def test_a_snapshot_is_found_by_its_message(lake: Warehouse, table: str) -> None:
    write(lake, table, [{"k": "a"}])
    with lake.transaction("it's build 7") as transaction:
        transaction.execute(f"INSERT INTO {lake.table(table)} VALUES ('b')")
    assert lake.snapshot_of("it's build 7") == transaction.snapshot
    assert lake.snapshot_of("it's build 8") is None


def test_changes_are_folded_to_one_a_key(lake: Warehouse, table: str) -> None:
    write(lake, table, [{"k": k, "v": 1} for k in ("same", "changed", "gone", "there and back", "reborn")])
    name = lake.table(table)
    base = lake.snapshot()
    for statement in (
        f"UPDATE {name} SET v = 2 WHERE k IN ('changed', 'there and back')",
        f"UPDATE {name} SET v = 3 WHERE k = 'changed'",
        f"UPDATE {name} SET v = 1 WHERE k = 'there and back'",
        f"DELETE FROM {name} WHERE k IN ('gone', 'reborn')",
        f"INSERT INTO {name} VALUES ('new', 5), ('short-lived', 6), ('reborn', 7)",
        f"DELETE FROM {name} WHERE k = 'short-lived'",
    ):
        with lake.transaction() as transaction:
            transaction.execute(statement)
    found = lake.changes(table, base, lake.snapshot(), "k").read_all()
    assert found.column_names == ["_change", "k", "v"]
    assert sorted(found.to_pylist(), key=lambda row: str(row["k"])) == [
        {"_change": "update", "k": "changed", "v": 3},
        {"_change": "delete", "k": "gone", "v": 1},
        {"_change": "insert", "k": "new", "v": 5},
        {"_change": "update", "k": "reborn", "v": 7},
    ]


def test_changes_of_merges_equal_the_difference(fresh: Warehouse, table: str) -> None:
    """The oracle compares whole tables; files are merged and rewritten in between."""
    chance = random.Random(11)
    snapshots: list[int] = []
    for _ in range(5):
        keys = chance.sample(range(40), chance.randint(10, 35))
        merge(fresh, table, [{"k": str(k), "v": chance.choice([None, 1, 2])} for k in keys])
        snapshots.append(fresh.snapshot())
    fresh.maintain(keep=timedelta(days=1), grace=NOW)
    for base in snapshots:
        for head in snapshots:
            if base <= head:
                assert _told(fresh, table, base, head) == _difference(fresh, table, base, head)


def _told(lake: Warehouse, table: str, base: int, head: int) -> dict[object, object]:
    rows = lake.changes(table, base, head, "k").read_all().to_pylist()
    told = {row["k"]: (row["_change"], row["v"]) for row in rows}
    assert len(told) == len(rows)
    return dict(told)


def _difference(lake: Warehouse, table: str, base: int, head: int) -> dict[object, object]:
    was, now = ({row["k"]: row["v"] for row in rows_of(lake, table, "k", at)} for at in (base, head))
    changed = {k: ("update", now[k]) for k in was.keys() & now.keys() if was[k] != now[k]}
    came = {k: ("insert", now[k]) for k in now.keys() - was.keys()}
    return {**changed, **came, **{k: ("delete", was[k]) for k in was.keys() - now.keys()}}


def test_changes_since_before_the_table_are_all_inserts(lake: Warehouse, table: str) -> None:
    with lake.transaction() as transaction:
        transaction.drop(table)
    base = lake.snapshot()
    write(lake, table, [{"k": "a"}, {"k": "b"}])
    found = lake.changes(table, base, lake.snapshot(), "k").read_all()
    assert found["_change"].to_pylist() == ["insert", "insert"]


def test_a_table_made_anew_has_no_changes_to_tell(lake: Warehouse, table: str) -> None:
    write(lake, table, [{"k": "a"}])
    base = lake.snapshot()
    write(lake, table, [{"k": "a"}])
    with pytest.raises(QueryError, match="made anew"):
        lake.changes(table, base, lake.snapshot(), "k")


def test_changes_refuse_what_makes_no_sense(lake: Warehouse, table: str) -> None:
    write(lake, table, [{"k": "a"}])
    newest = lake.snapshot()
    with pytest.raises(QueryError, match="newer than"):
        lake.changes(table, newest, newest - 1, "k")
    with pytest.raises(QueryError, match="no column nowhere"):
        lake.changes(table, newest, newest, "nowhere")
    with pytest.raises(NotFound, match=f"snapshot {newest + 9}"):
        lake.changes(table, newest, newest + 9, "k")
    with pytest.raises(NotFound):
        lake.changes("spare.nowhere", newest, newest, "k")


def test_a_future_snapshot_is_not_found(lake: Warehouse) -> None:
    future = lake.snapshot() + 9
    with pytest.raises(NotFound, match=f"snapshot {future}"):
        rows_of(lake, "traitmesh.users", "user_id", at=future)


def test_maintenance_expires_merges_and_deletes(fresh: Warehouse, table: str, data_folder: Path) -> None:
    write(fresh, table, [{"k": str(n)} for n in range(50)])
    base = fresh.snapshot()
    for n in range(50, 60):
        with fresh.transaction() as transaction:
            transaction.execute(f"INSERT INTO {fresh.table(table)} VALUES ('{n}')")
    with fresh.transaction() as transaction:
        transaction.execute(f"DELETE FROM {fresh.table(table)} WHERE k < '3'")
    held = rows_of(fresh, table, "k")
    folder = data_folder / fresh.workspace / "spare"
    before = len(list(folder.rglob("*.parquet")))
    orphan = folder / "orphan.parquet"
    orphan.write_bytes(b"left by a killed writer")

    fresh.maintain(keep=timedelta(days=1))
    assert rows_of(fresh, table, "k", at=base) == [{"k": k} for k in sorted(map(str, range(50)))]
    assert len(list(folder.rglob("*.parquet"))) >= before
    assert orphan.exists()

    fresh.maintain(keep=NOW, grace=NOW)
    assert not orphan.exists()
    assert len(list(folder.rglob("*.parquet"))) <= 2
    assert rows_of(fresh, table, "k") == held
    oldest = fresh.snapshot()
    with pytest.raises(SnapshotExpired) as raised:
        rows_of(fresh, table, "k", at=base)
    assert raised.value.oldest <= oldest
    for expired in (base, raised.value.oldest - 1):
        with pytest.raises(SnapshotExpired):
            fresh.changes(table, expired, oldest, "k")


def test_two_that_merge_at_once_conflict(lake: Warehouse, table: str) -> None:
    """Even two that only insert, which as appends would both commit and double the rows."""
    merge(lake, table, [{"k": "a", "v": 1}])
    staged = f"{table}_staged"
    with lake.transaction() as transaction:
        transaction.execute(f"INSERT INTO {lake.table(staged)} VALUES ('b', 1, 'hash')")
    with pytest.raises(Conflict), lake.transaction() as slow:  # noqa: PT012
        slow.merge(table, staged, key="k", hash_column="row_hash")
        with lake.transaction() as quick:
            quick.merge(table, staged, key="k", hash_column="row_hash")
    assert [row["k"] for row in rows_of(lake, table, "k")] == ["a", "b"]


def test_events_are_stored_in_order(lake: Warehouse) -> None:
    with lake.transaction() as transaction:
        transaction.execute(
            f"INSERT INTO {lake.table('traitmesh.events')} (event_id, name, user_ord)"
            " SELECT 'sorted', 'n' || (i % 3), 1000 - i FROM range(1000) AS t(i)"
        )
    sql = f"SELECT name, user_ord FROM {lake.table('traitmesh.events')} WHERE event_id = 'sorted'"
    stored = [(row["name"], row["user_ord"]) for row in lake.query(sql).read_all().to_pylist()]
    assert len(stored) == 1000
    assert stored == sorted(stored)


def test_no_rows_are_inlined_into_the_catalog(lake: Warehouse, table: str, urls: dict[str, str]) -> None:
    write(lake, table, [{"mail": "needle@example.com"}])
    with psycopg.connect(urls["postgresql"]) as catalog:
        found = catalog.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = %s"
            " AND tablename ~ '^ducklake_inlined_(data|delete)_[0-9]'",
            [f"lake_{lake.workspace}"],
        )
        assert found.fetchall() == []
