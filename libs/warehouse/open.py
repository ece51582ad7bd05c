"""Opening the warehouse of a workspace by its URL, once per process."""

import re
import threading
from typing import Protocol

from libs.warehouse import ducklake, postgres
from libs.warehouse.interface import Limits, QueryError, Unavailable, Warehouse
from libs.warehouse.tables import MIGRATIONS, applied


class Engine(Protocol):
    """What the package of an engine offers."""

    def provision(self, url: str, workspace: str) -> None:
        """Create or update the storage of a workspace, under a lock between processes."""
        ...

    def open_workspace(self, url: str, workspace: str, limits: Limits, *, read_only: bool) -> Warehouse:
        """Return the warehouse of a provisioned workspace."""
        ...


_ENGINES: dict[str, Engine] = {"ducklake": ducklake, "postgresql": postgres}
"""By the scheme of the URL."""

_WORKSPACE = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")

_Key = tuple[str, str, Limits, bool]
_open: dict[_Key, Warehouse] = {}
_opening: dict[_Key, threading.Lock] = {}
_guard = threading.Lock()


def provision_workspace(url: str, workspace: str) -> None:
    """Create the warehouse of a workspace with the platform's tables, or bring it up to date.

    Idempotent; several processes may do it at once. Raises QueryError for a malformed URL or
    workspace, Unavailable.
    """
    _engine(url, workspace).provision(url, workspace)


def open_warehouse(url: str, workspace: str, limits: Limits | None = None, *, read_only: bool = False) -> Warehouse:
    """Return the warehouse of a provisioned workspace, the same object for the same arguments.

    It is shared by the threads of the process and stays open: do not close it, see
    `close_warehouses`. Each one has the whole of `limits` for itself. A `read_only` one refuses
    transactions. Raises NotFound if the workspace was never provisioned, Unavailable if it waits
    for a migration of this release or does not answer, QueryError for a malformed argument.
    """
    key = (url, workspace, limits or Limits(), read_only)
    with _guard:
        opening = _opening.setdefault(key, threading.Lock())
    # A slow opening holds up only those who want the same workspace.
    with opening:
        if key not in _open:
            _open[key] = _opened(*key)
        return _open[key]


def _opened(url: str, workspace: str, limits: Limits, read_only: bool) -> Warehouse:
    engine = _engine(url, workspace)
    warehouse = engine.open_workspace(url, workspace, limits, read_only=read_only)
    if applied(warehouse) < len(MIGRATIONS):
        warehouse.close()
        raise Unavailable(f"workspace {workspace} waits for a migration: provision it again")
    return warehouse


def close_warehouses() -> None:
    """Close every open warehouse of the process, e.g. at its end."""
    with _guard:
        while _open:
            _open.popitem()[1].close()


def _engine(url: str, workspace: str) -> Engine:
    scheme = url.partition(":")[0]
    if scheme not in _ENGINES:
        raise QueryError(f"a warehouse URL begins with one of {', '.join(_ENGINES)}")
    if not _WORKSPACE.fullmatch(workspace):
        raise QueryError("a workspace has 1 to 40 of a-z, 0-9, _ and -, the first no _ or -")
    return _ENGINES[scheme]
