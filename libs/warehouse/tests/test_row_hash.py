"""The row hash changes when a value does, and is the same in every engine where that is promised."""

import hashlib

import pytest

from libs.warehouse import QueryError, Warehouse


def hash_of(warehouse: Warehouse, **values: str) -> str:
    """Return the hash of one row, its values given as SQL."""
    row = ", ".join(f"{sql} AS {name}" for name, sql in values.items())
    found = warehouse.query(f"SELECT {warehouse.row_hash(list(values))} AS h FROM (SELECT {row}) AS t")
    return str(found.read_all()["h"][0].as_py())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": "'x'", "b": "'yz'"}, {"a": "'xy'", "b": "'z'"}),
        ({"a": "CAST(NULL AS VARCHAR)", "b": "'x'"}, {"a": "'x'", "b": "CAST(NULL AS VARCHAR)"}),
        ({"a": "CAST(NULL AS VARCHAR)"}, {"a": "''"}),
        ({"a": "CAST(NULL AS VARCHAR)"}, {"a": "':'"}),
        ({"a": "'1:x'", "b": "''"}, {"a": "''", "b": "'1:x'"}),
        ({"a": "TRUE"}, {"a": "FALSE"}),
        ({"a": "CAST(0.1 AS DOUBLE PRECISION)"}, {"a": "CAST(0.1 AS DOUBLE PRECISION) + 1e-16"}),
    ],
)
def test_different_rows_have_different_hashes(warehouse: Warehouse, one: dict[str, str], other: dict[str, str]) -> None:
    assert hash_of(warehouse, **one) != hash_of(warehouse, **other)


def test_the_order_of_columns_does_not_matter(warehouse: Warehouse) -> None:
    assert hash_of(warehouse, a="'1'", b="'2'") == hash_of(warehouse, b="'2'", a="'1'")


@pytest.mark.parametrize(
    ("sql", "text"),
    [
        ("'Ω🂡'", "Ω🂡"),
        ("CAST(NULL AS VARCHAR)", None),
        ("CAST(-42 AS BIGINT)", "-42"),
        ("TRUE", "true"),
        ("DATE '2026-01-02'", "2026-01-02"),
        ("TIMESTAMP '2026-01-02 03:04:05.600000'", "2026-01-02 03:04:05.6"),
        ("TIMESTAMP '2026-01-02 00:00:00'", "2026-01-02 00:00:00"),
    ],
)
def test_the_hash_is_the_same_in_every_engine_and_release(warehouse: Warehouse, sql: str, text: str | None) -> None:
    """A change here makes every row of every model count as changed."""
    framed = ":" if text is None else f"{len(text)}:{text}"
    assert hash_of(warehouse, a=sql) == hashlib.md5(framed.encode(), usedforsecurity=False).hexdigest()


def test_a_wide_row_is_hashed_whole(warehouse: Warehouse) -> None:
    wide = {f"c{n:03d}": f"'{n}'" for n in range(150)}
    assert hash_of(warehouse, **wide) != hash_of(warehouse, **{**wide, "c149": "'changed'"})


def test_a_hash_of_nothing_is_refused(warehouse: Warehouse) -> None:
    with pytest.raises(QueryError):
        warehouse.row_hash([])
