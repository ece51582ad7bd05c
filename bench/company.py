"""Tusk, the demo company, as its people use the product: by the command line, and by the API where time is taken."""

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import orjson
import psycopg

from deploy.local.stack import ROOT, Stack
from libs.warehouse import Warehouse, open_warehouse
from traitmesh import Client
from traitmesh.client import CHUNK_BYTES, Json

TUSK = ROOT / "examples" / "tusk"
SYNCED = ("user_id", "country", "ltv", "is_payer", "games_30d", "lifecycle_stage")

BETWEEN_LOOKS = 0.1
"""Seconds between two looks at a load or a build, which take seconds."""
BETWEEN_QUICK_LOOKS = 0.01
"""The same for runs, which may take less than one."""
PATIENCE = 1200.0

PURCHASE_TIME = "2026-06-15T12:00:00.000Z"
"""Before Tusk's last event, so that builds stay as of the same moment and only the buyers change."""


@dataclass
class Company:
    """A workspace on a stack."""

    stack: Stack
    api_key: str
    workspace: str

    @cached_property
    def client(self) -> Client:
        """The API in this workspace."""
        return Client(self.stack.url, self.api_key, self.workspace)

    @cached_property
    def warehouse(self) -> Warehouse:
        """The workspace's warehouse, past all services."""
        return open_warehouse(self.stack.environment()["TRAITMESH_WAREHOUSE_URL"], self.workspace)

    def run(self, *arguments: str) -> None:
        """Runs a `traitmesh` command. Raises CalledProcessError if it fails."""
        own = {"TRAITMESH_URL": self.stack.url, "TRAITMESH_API_KEY": self.api_key}
        environment = os.environ | own | {"TRAITMESH_WORKSPACE": self.workspace}
        command = [sys.executable, "-m", "traitmesh.cli", *arguments]
        subprocess.run(command, env=environment, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)

    def load(self, files: Sequence[Path]) -> int:
        """Loads files one after another, as `traitmesh events load` does; returns how many rows they had."""
        return sum(int(self._load(file)["rowCount"]) for file in files)

    def _load(self, file: Path) -> Json:
        started = self.client.upload("loads", lambda: _pieces(file), "application/octet-stream", fileName=file.name)
        return self._ended(started["name"], BETWEEN_LOOKS)

    def buy(self, buyers: Sequence[str]) -> None:
        """Loads a new purchase of each buyer, which changes what they spent."""
        lines = b"\n".join(map(_purchase, buyers))
        started = self.client.upload("loads", lines, "application/octet-stream", fileName="purchases.ndjson")
        self._ended(started["name"], BETWEEN_LOOKS)

    def users(self, limit: int) -> list[str]:
        """The ids of the first users."""
        query = f"SELECT user_id FROM {self.warehouse.table('traitmesh.users')} ORDER BY user_ord LIMIT $1"  # noqa: S608
        found: list[str] = self.warehouse.query(query, [limit]).read_all()["user_id"].to_pylist()
        return found

    def push_traits(self) -> None:
        """Pushes the dbt project that the demo begins with."""
        self.run("project", "push", str(TUSK / "dbt"), "--name", "tusk")

    def push_everything(self) -> None:
        """Adds what the demo adds: one more trait of dbt, the churn notebook, two audiences."""
        self.run("project", "push", str(TUSK / "dbt"), "--name", "tusk", "--overlay", str(TUSK / "next"))
        self.run("notebook", "push", str(TUSK / "notebooks" / "churn.ipynb"))
        for audience in ("loyal_payers_at_risk", "started_without_purchase"):
            self.run("audience", "create", audience, str(TUSK / "audiences" / f"{audience}.json"))

    def build(self) -> Json:
        """Builds the model and returns the build."""
        return self._ended(self.client.create("builds", {})["name"], BETWEEN_LOOKS)

    @cached_property
    def destination(self) -> str:
        """The destination that is a PostgreSQL database of the company's own."""
        server = self.stack.environment()["TRAITMESH_DATABASE_URL"]
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute("CREATE DATABASE crm")
        config = orjson.dumps({"url": server.replace("/postgres?", "/crm?")}).decode()
        self.run("destination", "create", "crm", "--connector", "destination-postgres", "--config", config)
        return "crm"

    def create_sync(self, sync: str) -> None:
        """Creates a mirror of some traits of every user, in a table of the sync's name."""
        maps = [part for trait in SYNCED for part in ("--map", trait)]
        target = ("--destination", self.destination, "--object", f"public.{sync}", "--mode", "mirror")
        self.run("sync", "create", sync, *target, *maps)

    def run_sync(self, sync: str) -> Json:
        """Runs a sync to its end and returns the run."""
        return self._ended(self.client.create(f"syncs/{sync}/runs", {})["name"], BETWEEN_QUICK_LOOKS)

    def _ended(self, name: str, pause: float) -> Json:
        """Waits for a load, build or run, looking more often than `Client.wait`; raises if it did not succeed."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            resource = self.client.get(f"/v1/{name}")
            if resource["state"] == "STATE_SUCCEEDED":
                return resource
            if resource["state"] in {"STATE_FAILED", "STATE_ABORTED", "STATE_NEEDS_ATTENTION"}:
                why = resource.get("failures") or resource.get("error") or resource.get("attention")
                raise RuntimeError(f"{name} ended as {resource['state']}: {why}")
            time.sleep(pause)
        raise TimeoutError(f"{name} has not ended after {PATIENCE:.0f} s")


def _pieces(file: Path) -> Iterator[bytes]:
    with file.open("rb") as opened:
        while piece := opened.read(CHUNK_BYTES):
            yield piece


def _purchase(user: str) -> bytes:
    event = {
        "event_id": str(uuid.uuid4()),
        "event_name": "event",
        "se_category": "purchase",
        "se_value": 4.99,
        "platform": "mob",
        "user_id": user,
        "derived_tstamp": PURCHASE_TIME,
    }
    return orjson.dumps(event)
