"""What the sink remembers, in one SQLite file, so that a restart forgets nothing."""

import json
import sqlite3
import time
from dataclasses import dataclass
from typing import Any

_TABLES = """
CREATE TABLE IF NOT EXISTS channels (
  id TEXT PRIMARY KEY, name TEXT UNIQUE, is_archived INTEGER DEFAULT 0, is_member INTEGER DEFAULT 1);
CREATE TABLE IF NOT EXISTS messages (
  channel TEXT, number INTEGER PRIMARY KEY, ts TEXT UNIQUE, text TEXT, metadata TEXT);
CREATE TABLE IF NOT EXISTS counts (what TEXT PRIMARY KEY, number INTEGER);
"""


@dataclass(frozen=True)
class Channel:
    """A channel; `is_member` says whether the app is in it."""

    id: str
    name: str
    is_archived: bool
    is_member: bool


class Store:
    """Channels, messages and counts; every change is on disk when the call returns."""

    def __init__(self, path: str, channels: list[str]) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.executescript(_TABLES)
        for name in channels:
            self._db.execute(
                "INSERT OR IGNORE INTO channels (id, name) SELECT printf('C%09d', count(*) + 1), ? FROM channels",
                [name],
            )

    def channels(self) -> list[Channel]:
        """Return every channel by name."""
        query = "SELECT id, name, is_archived, is_member FROM channels ORDER BY name"
        return [Channel(i, n, bool(a), bool(m)) for i, n, a, m in self._db.execute(query)]

    def channel(self, name_or_id: str) -> Channel | None:
        """Return a channel by id, `name` or `#name`."""
        wanted = {name_or_id, name_or_id.removeprefix("#")}
        return next((c for c in self.channels() if c.id in wanted or c.name in wanted), None)

    def change(self, channel: Channel, *, archived: bool | None = None, member: bool | None = None) -> None:
        """Archive or unarchive a channel; put the app in or out."""
        self._db.execute(
            "UPDATE channels SET is_archived = coalesce(?, is_archived), "
            "is_member = coalesce(?, is_member) WHERE id = ?",
            [archived, member, channel.id],
        )

    def post(self, channel: Channel, text: str, metadata: dict[str, Any] | None) -> dict[str, Any]:
        """Add a message and return it as Slack shows it."""
        last = self._db.execute("SELECT max(ts) FROM messages").fetchone()[0]
        # A timestamp is a message's identity, so that two never share one.
        ts = f"{max(time.time(), float(last or 0) + 0.000002):.6f}"
        self._db.execute(
            "INSERT INTO messages (channel, ts, text, metadata) VALUES (?, ?, ?, ?)",
            [channel.id, ts, text, json.dumps(metadata) if metadata else None],
        )
        return message_body(ts, text, metadata)

    def history(self, channel: Channel, before: int, limit: int) -> list[tuple[int, dict[str, Any]]]:
        """Return (number, message) pairs, the newest first, numbered below `before`."""
        rows = self._db.execute(
            "SELECT number, ts, text, metadata FROM messages WHERE channel = ? AND number < ? "
            "ORDER BY number DESC LIMIT ?",
            [channel.id, before, limit],
        )
        return [(n, message_body(ts, text, json.loads(m) if m else None)) for n, ts, text, m in rows]

    def count(self, what: str) -> None:
        """Count something that happened."""
        self._db.execute("INSERT INTO counts VALUES (?, 1) ON CONFLICT DO UPDATE SET number = number + 1", [what])

    def counts(self) -> dict[str, int]:
        """Return how often each thing happened, and the messages of each channel."""
        counted = dict(self._db.execute("SELECT what, number FROM counts").fetchall())
        for channel in self.channels():
            query = "SELECT count(*) FROM messages WHERE channel = ?"
            counted[f"#{channel.name}"] = self._db.execute(query, [channel.id]).fetchone()[0]
        return counted


def message_body(ts: str, text: str, metadata: dict[str, Any] | None) -> dict[str, Any]:
    """Return a message in Slack's shape."""
    body = {"type": "message", "user": "U00000001", "bot_id": "B00000001", "ts": ts, "text": text}
    return body | ({"metadata": metadata} if metadata else {})
