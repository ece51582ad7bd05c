"""A merge makes two tables equal, counts exactly, and writes what differs only."""

import random

import pytest

from libs.warehouse import KeyViolation, MergeCounts, NotFound, QueryError, Warehouse
from libs.warehouse.tests.conftest import rows_of, write


def stage(warehouse: Warehouse, table: str, rows: list[dict[str, object]]) -> str:
    """Write the rows and their hash into a staging table and return its name."""
    write(warehouse, f"{table}_raw", rows)
    columns = [name for name in rows[0] if name != "k"]
    with warehouse.transaction() as transaction:
        transaction.drop(f"{table}_staged")
        transaction.create_table_as(
            f"{table}_staged",
            f"SELECT *, {warehouse.row_hash(columns)} AS row_hash FROM {warehouse.table(f'{table}_raw')}",
        )
    return f"{table}_staged"


def merge(warehouse: Warehouse, table: str, rows: list[dict[str, object]]) -> MergeCounts:
    staged = stage(warehouse, table, rows)
    with warehouse.transaction() as transaction:
        return transaction.merge(table, staged, key="k", hash_column="row_hash")


def content(warehouse: Warehouse, table: str) -> list[dict[str, object]]:
    return [
        {name: value for name, value in row.items() if name != "row_hash"} for row in rows_of(warehouse, table, "k")
    ]


@pytest.fixture(autouse=True)
def _absent(warehouse: Warehouse, table: str) -> None:
    with warehouse.transaction() as transaction:
        transaction.drop(table)


def test_rows_are_inserted_updated_and_deleted(warehouse: Warehouse, table: str) -> None:
    first: list[dict[str, object]] = [{"k": "a", "v": 1}, {"k": "b", "v": 2}, {"k": "c", "v": 3}]
    assert merge(warehouse, table, first) == MergeCounts(inserted=3, updated=0, deleted=0, unchanged=0)
    second: list[dict[str, object]] = [{"k": "a", "v": 1}, {"k": "b", "v": 20}, {"k": "d", "v": 4}, {"k": "e", "v": 5}]
    assert merge(warehouse, table, second) == MergeCounts(inserted=2, updated=1, deleted=1, unchanged=1)
    assert content(warehouse, table) == second


def test_equal_tables_write_nothing(warehouse: Warehouse, table: str) -> None:
    rows: list[dict[str, object]] = [{"k": "a", "v": 1}, {"k": "b", "v": None}]
    merge(warehouse, table, rows)
    assert merge(warehouse, table, rows) == MergeCounts(inserted=0, updated=0, deleted=0, unchanged=2)


def test_random_merges_equal_their_source(warehouse: Warehouse, table: str) -> None:
    chance = random.Random(7)
    held: dict[str, object] = {}
    for _ in range(6):
        wanted = {str(k): chance.choice([None, 1, 2]) for k in chance.sample(range(60), chance.randint(20, 50))}
        counts = merge(warehouse, table, [{"k": k, "v": v} for k, v in wanted.items()])
        assert counts == MergeCounts(
            inserted=len(wanted.keys() - held.keys()),
            updated=sum(wanted[k] != held[k] for k in wanted.keys() & held.keys()),
            deleted=len(held.keys() - wanted.keys()),
            unchanged=sum(wanted[k] == held[k] for k in wanted.keys() & held.keys()),
        )
        held = dict(wanted)
        assert content(warehouse, table) == [{"k": k, "v": held[k]} for k in sorted(held)]


@pytest.mark.parametrize(
    ("keys", "nulls", "repeated"), [(["a", None, "b"], 1, 0), (["a", "a", "a"], 0, 2), ([None, None, "b", "b"], 2, 1)]
)
def test_a_null_or_repeated_key_is_refused(
    warehouse: Warehouse, table: str, keys: list[str | None], nulls: int, repeated: int
) -> None:
    merge(warehouse, table, [{"k": "held", "v": 1}])
    with pytest.raises(KeyViolation) as raised:
        merge(warehouse, table, [{"k": key, "v": 1} for key in keys])
    assert (raised.value.nulls, raised.value.repeated) == (nulls, repeated)
    assert content(warehouse, table) == [{"k": "held", "v": 1}]


def test_the_target_takes_new_columns_and_loses_old_ones(warehouse: Warehouse, table: str) -> None:
    merge(warehouse, table, [{"k": "a", "v": 1, "old": 1}, {"k": "b", "v": 2, "old": 2}])
    second: list[dict[str, object]] = [{"k": "a", "v": 1, "new": "x"}, {"k": "b", "v": 2, "new": None}]
    assert merge(warehouse, table, second) == MergeCounts(inserted=0, updated=2, deleted=0, unchanged=0)
    assert content(warehouse, table) == second


def test_a_column_of_another_type_is_filled_anew(warehouse: Warehouse, table: str) -> None:
    """The text of the values, and so the row hash, is the same: only the type tells them apart."""
    merge(warehouse, table, [{"k": "a", "v": "1"}])
    assert merge(warehouse, table, [{"k": "a", "v": 1}]).updated == 1
    assert content(warehouse, table) == [{"k": "a", "v": 1}]


def test_what_is_missing_is_named(warehouse: Warehouse, table: str) -> None:
    staged = stage(warehouse, table, [{"k": "a", "v": 1}])
    with pytest.raises(QueryError, match="has no column nowhere"), warehouse.transaction() as transaction:
        transaction.merge(table, staged, key="nowhere", hash_column="row_hash")
    with pytest.raises(NotFound), warehouse.transaction() as transaction:
        transaction.merge(table, "spare.nowhere", key="k", hash_column="row_hash")
    assert not warehouse.exists(table)


def test_two_merges_in_one_transaction(warehouse: Warehouse, table: str) -> None:
    staged = stage(warehouse, table, [{"k": "a", "v": 1}])
    with warehouse.transaction() as transaction:
        transaction.drop(f"{table}_2")
        for target in (table, f"{table}_2"):
            assert transaction.merge(target, staged, key="k", hash_column="row_hash").inserted == 1
    assert content(warehouse, f"{table}_2") == [{"k": "a", "v": 1}]
