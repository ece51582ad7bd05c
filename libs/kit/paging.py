"""Pages of a list, after AIP-158: a token continues where the last page ended, for the same question only."""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from libs.kit import errors

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000

T = TypeVar("T")


class ListRequest(Protocol):
    """The fields that list requests share."""

    @property
    def page_size(self) -> int: ...
    @property
    def page_token(self) -> str: ...


@dataclass(frozen=True)
class Page:
    """Which part of a list is asked for: up to `size` items after the key `after`."""

    size: int
    after: str | None
    scope: str

    def split(self, rows: Sequence[T], key: Callable[[T], object]) -> tuple[Sequence[T], str]:
        """From `size` + 1 fetched rows: the page, and the token of the next one ("" at the end)."""
        if len(rows) <= self.size:
            return rows, ""
        shown = rows[: self.size]
        token = json.dumps([self.scope, str(key(shown[-1]))]).encode()
        return shown, base64.urlsafe_b64encode(token).decode()


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
    if token_scope != scope or not isinstance(after, str):
        raise errors.invalid("page_token", "must be the next_page_token of a page of this same list")
    return Page(size, after, scope)
