"""A destination for tests: keeps records in a folder's SQLite file, and behaves as the folder's `mood.json` says.

Moods: `refuse` (a person must act) and the token it `but_take`s, `ask` (the port of who lets it answer a check), `busy`
(seconds to wait), `crash`, `crash_once`, `slow` (seconds, after the commit, before the answer), `reject` (keys). Every
write is noted in the table `writes`, so that tests see what arrived, how often and how.
"""

import json
import os
import socket
import sqlite3
import time
from functools import cached_property
from pathlib import Path
from typing import Any

from traitmesh_connector.destination import Destination, DestinationObject
from traitmesh_connector.errors import ConfigError, Reject, TransientError
from traitmesh_connector.protocol import Batch, Guarantee

TABLES = """
CREATE TABLE IF NOT EXISTS records (object TEXT, key TEXT, data TEXT, PRIMARY KEY (object, key));
CREATE TABLE IF NOT EXISTS writes (object TEXT, key TEXT, operation TEXT, idempotency_key TEXT, resend INTEGER);
CREATE TABLE IF NOT EXISTS batches (batch_key TEXT PRIMARY KEY);
"""


class DestinationMoody(Destination):
    name = "destination-moody"
    sync_modes = ("append", "append_dedup")
    guarantee = Guarantee.EXACTLY_ONCE
    batch_size = 10
    config_schema = {
        "type": "object",
        "title": "Moody",
        "required": ["folder", "token"],
        "properties": {
            "folder": {"type": "string"},
            "token": {"type": "string", "airbyte_secret": True},
            "port": {"type": "integer"},
            "login": {"oneOf": [{"type": "object", "properties": {"pin": {"type": "string", "airbyte_secret": True}}}]},
        },
    }

    def check(self) -> None:
        if self.config["token"].startswith("wrong"):
            raise ConfigError(f"the token {self.config['token']} is wrong")
        mood = self._mood()
        if "ask" in mood:
            with socket.create_connection(("127.0.0.1", mood["ask"])) as asked:
                asked.recv(1)
        self._take(mood)

    def discover(self) -> list[DestinationObject]:
        return []

    @cached_property
    def _database(self) -> sqlite3.Connection:
        database = sqlite3.connect(Path(self.config["folder"]) / "records.sqlite", timeout=30)
        database.executescript(TABLES)
        return database

    def write(self, batch: Batch) -> list[Reject]:
        mood = self._mood()
        self._take(mood)
        if "busy" in mood:
            (Path(self.config["folder"]) / "was_busy").touch()
            raise TransientError("too many requests", mood["busy"])
        if mood.get("crash") or (mood.get("crash_once") and not self._crashed_before()):
            os._exit(7)
        rejects = self._store(batch, mood)
        time.sleep(mood.get("slow", 0))
        return rejects

    def _mood(self) -> dict[str, Any]:
        file = Path(self.config["folder"]) / "mood.json"
        mood: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
        return mood

    def _take(self, mood: dict[str, Any]) -> None:
        if mood.get("refuse") and self.config["token"] != mood.get("but_take"):
            raise ConfigError("the account is closed: open it")

    def _crashed_before(self) -> bool:
        mark = Path(self.config["folder"]) / "crashed"
        before = mark.exists()
        mark.touch()
        return before

    def _store(self, batch: Batch, mood: dict[str, Any]) -> list[Reject]:
        key_field = batch.stream.primary_key[0]
        rejects: list[Reject] = []
        with self._database as tx:
            known = tx.execute("SELECT 1 FROM batches WHERE batch_key = ?", [batch.idempotency_key]).fetchone()
            if known:
                return rejects
            tx.execute("INSERT INTO batches VALUES (?)", [batch.idempotency_key])
            for index, record in enumerate(batch.records):
                key = record.data[key_field]
                note = (batch.stream.object_name, key, record.operation, record.idempotency_key, record.resend)
                tx.execute("INSERT INTO writes VALUES (?, ?, ?, ?, ?)", note)
                if key in mood.get("reject", ()):
                    rejects.append(Reject(index, "bad_record", "the record is not to our taste"))
                elif record.operation == "delete":
                    tx.execute("DELETE FROM records WHERE object = ? AND key = ?", note[:2])
                else:
                    data = json.dumps(record.data)
                    tx.execute("INSERT OR REPLACE INTO records VALUES (?, ?, ?)", (*note[:2], data))
        return rejects


if __name__ == "__main__":
    DestinationMoody.main()
