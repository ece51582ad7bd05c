"""Pages of a table's rows: one after the other, to the end, and no token but the list's own."""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Column, Connection, DateTime, Integer, MetaData, Table, insert, select

from libs.kit import errors, paging
from libs.kit.database import connect
from libs.kit.settings import Settings

TABLE = Table("happenings", MetaData(), Column("time", DateTime(timezone=True)), Column("number", Integer))
START = datetime(2026, 3, 1, tzinfo=UTC)


@dataclass
class ListRequest:
    page_size: int = 0
    page_token: str = ""


@pytest.fixture
def tx(settings: Settings) -> Iterator[Connection]:
    """A transaction that holds five rows, two of one moment and two of another, and is given up."""
    with connect(settings, "public").connect() as connection:
        TABLE.create(connection)
        rows = [{"time": START + timedelta(microseconds=number // 2), "number": number} for number in range(5)]
        connection.execute(insert(TABLE), rows)
        yield connection


@pytest.mark.parametrize("newest_first", [False, True])
def test_pages_follow_each_other_to_the_end(tx: Connection, newest_first: bool) -> None:
    token = ""
    pages: list[list[int]] = []
    for _ in range(3):
        page = paging.page(ListRequest(2, token), "workspaces/w/happenings")
        rows, token = page.read(tx, select(TABLE), TABLE.c.time, TABLE.c.number, newest_first=newest_first)
        pages.append([row.number for row in rows])
    assert pages == ([[4, 3], [2, 1], [0]] if newest_first else [[0, 1], [2, 3], [4]])
    assert token == ""


def test_a_page_that_holds_the_rest_is_the_last(tx: Connection) -> None:
    for size in (5, 0):
        rows, token = paging.page(ListRequest(size), "list").read(tx, select(TABLE), TABLE.c.number)
        assert (len(rows), token) == (5, "")


def test_a_token_is_for_its_own_list(tx: Connection) -> None:
    _, token = paging.page(ListRequest(1), "workspaces/a/happenings").read(tx, select(TABLE), TABLE.c.number)
    with pytest.raises(errors.InvalidArgument, match="page_token"):
        paging.page(ListRequest(1, token), "workspaces/b/happenings")


@pytest.mark.parametrize("after", [["x"], [True], [1, 2], [], [None], 1])
def test_a_token_that_was_made_up_is_refused(tx: Connection, after: object) -> None:
    token = base64.urlsafe_b64encode(json.dumps(["list", after]).encode()).decode()
    with pytest.raises(errors.InvalidArgument, match="must be the next_page_token of a page of this same list"):
        paging.page(ListRequest(1, token), "list").read(tx, select(TABLE), TABLE.c.number)


def test_a_moment_that_was_made_up_is_refused(tx: Connection) -> None:
    token = base64.urlsafe_b64encode(json.dumps(["list", ["tomorrow"]]).encode()).decode()
    with pytest.raises(errors.InvalidArgument, match="page_token"):
        paging.page(ListRequest(1, token), "list").read(tx, select(TABLE), TABLE.c.time)


@pytest.mark.parametrize("size", [-1, 1001])
def test_a_page_has_bounds(size: int) -> None:
    with pytest.raises(errors.InvalidArgument, match="page_size"):
        paging.page(ListRequest(size), "x")
