"""Where the lake of one workspace is."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import parse_qsl, urlencode, urlsplit

import psycopg
from psycopg.conninfo import make_conninfo

from libs.warehouse.interface import QueryError, Unavailable

ALIAS = "lake"
"""Name of the attached catalog. Views store it in their text, so it is the same everywhere."""


@dataclass(frozen=True)
class Location:
    """Catalog and folder of one workspace."""

    catalog: str
    """The PostgreSQL of the catalog, as libpq's "key=value ..."; holds the password."""
    schema: str
    """The catalog's schema of this workspace."""
    data_path: str
    """The folder of this workspace's Parquet files."""

    @contextmanager
    def connect(self) -> Iterator[psycopg.Connection]:
        """Connect to the catalog's PostgreSQL itself, past DuckDB. Raises Unavailable."""
        try:
            with psycopg.connect(self.catalog, autocommit=True) as connection:
                yield connection
        except psycopg.OperationalError:
            raise Unavailable("the PostgreSQL of the DuckLake catalog does not answer") from None

    def attachment(self) -> str:
        """Return the path to attach; holds the password."""
        return f"ducklake:postgres:{self.catalog}"


def locate(url: str, workspace: str) -> Location:
    """Read ``ducklake:postgresql://...?data_path=/folder``. Raises QueryError for another form."""
    parts = urlsplit(url.removeprefix("ducklake:"))
    options = dict(parse_qsl(parts.query))
    folder = PurePosixPath(options.pop("data_path", ""))
    try:
        catalog = make_conninfo(parts._replace(query=urlencode(options)).geturl())
    except psycopg.Error:
        catalog = ""
    if not catalog or parts.scheme not in {"postgresql", "postgres"} or not folder.is_absolute():
        raise QueryError("a DuckLake URL is ducklake:postgresql://...?data_path=/absolute/folder")
    return Location(catalog, f"lake_{workspace}", str(folder / workspace))
