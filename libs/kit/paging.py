"""Pages of a list, after AIP-158: a token continues where the last page ended, for the same question only."""

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import ColumnElement, Connection, Row, Select, literal, tuple_

from libs.kit import errors

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000


class ListRequest(Protocol):
    """The fields that list requests share."""

    @property
    def page_size(self) -> int: ...
    @property
    def page_token(self) -> str: ...


@dataclass(frozen=True)
class Page:
    """Which part of a list is asked for: up to `size` rows behind the one whose key is `after`."""

    size: int
    after: Sequence[object] | None
    scope: str

    def read(
        self, tx: Connection, query: Select[Any], *key: ColumnElement[Any], newest_first: bool = False
    ) -> tuple[Sequence[Row[Any]], str]:
        """The page's rows, and the token of the next page ("" at the end).

        `key` are columns that the query selects and by whose values, in order, its rows are listed and told apart;
        `newest_first` lists them the other way round. An order that the query has already must agree.
        """
        query = query.order_by(*(column.desc() if newest_first else column for column in key)).limit(self.size + 1)
        if self.after is not None:
            here, before = tuple_(*key), tuple_(*self._bound(key))
            query = query.where(here < before if newest_first else here > before)
        rows = tx.execute(query).all()
        if len(rows) <= self.size:
            return rows, ""
        shown = rows[: self.size]
        last = [shown[-1]._mapping[column] for column in key]
        return shown, base64.urlsafe_b64encode(json.dumps([self.scope, last], default=_written).encode()).decode()

    def _bound(self, key: Sequence[ColumnElement[Any]]) -> list[ColumnElement[Any]]:
        """The values of `after`, each of its column's type; InvalidArgument where a token was made up."""
        values = self.after or ()
        if len(values) != len(key):
            raise _foreign_token()
        return [
            literal(_read(value, column.type.python_type), column.type)
            for value, column in zip(values, key, strict=True)
        ]


def page(request: ListRequest, scope: str) -> Page:
    """Reads the paging fields of a list request; `scope` is what the list is of, such as its parent and kind.

    Raises InvalidArgument for a size out of range, or a token that is not of this list.
    """
    if not 0 <= request.page_size <= MAX_PAGE_SIZE:
        raise errors.invalid("page_size", f"must be 0 (for {DEFAULT_PAGE_SIZE}) to {MAX_PAGE_SIZE}")
    size = request.page_size or DEFAULT_PAGE_SIZE
    if not request.page_token:
        return Page(size, None, scope)
    try:
        token_scope, after = json.loads(base64.urlsafe_b64decode(request.page_token))
    except (binascii.Error, ValueError, TypeError):
        token_scope, after = None, None
    if token_scope != scope or not isinstance(after, list):
        raise _foreign_token()
    return Page(size, after, scope)


def _written(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"a list cannot be ordered by {type(value).__name__}")


def _read(value: object, python_type: type[Any]) -> object:
    try:
        read = datetime.fromisoformat(value) if python_type is datetime and isinstance(value, str) else value
    except ValueError:
        raise _foreign_token() from None
    if type(read) is not python_type:
        raise _foreign_token()
    return read


def _foreign_token() -> errors.InvalidArgument:
    return errors.invalid("page_token", "must be the next_page_token of a page of this same list")
