"""The Web API methods that a notifying app uses, with Slack's shapes, errors and limits."""

import json
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from slack_sink.store import Channel, Store

TEXT_LIMIT = 40_000
Answer = dict[str, Any]
Arguments = dict[str, Any]


class SlackError(Exception):
    """An answer with `ok: false`; `code` is the word that Slack documents."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class RateLimitedError(Exception):
    """Too many posts to one channel."""


@dataclass
class Limits:
    """How many posts a channel takes; `retry_after` is told in whole seconds, as Slack does."""

    posts_per_second: float
    burst: int
    retry_after: int

    def __post_init__(self) -> None:
        self._tokens: dict[str, tuple[float, float]] = defaultdict(lambda: (float(self.burst), time.monotonic()))

    def take(self, channel: Channel) -> None:
        """Take one post from the channel's bucket; `RateLimitedError` if it is empty."""
        tokens, then = self._tokens[channel.id]
        now = time.monotonic()
        tokens = min(self.burst, tokens + (now - then) * self.posts_per_second)
        self._tokens[channel.id] = (tokens - 1 if tokens >= 1 else tokens, now)
        if tokens < 1:
            raise RateLimitedError


class WebApi:
    """The methods; each takes the call's arguments and returns what follows `ok: true`."""

    def __init__(self, store: Store, limits: Limits) -> None:
        self._store = store
        self._limits = limits
        self.methods: dict[str, Callable[[Arguments], Answer]] = {
            "auth.test": self._auth_test,
            "chat.postMessage": self._post_message,
            "conversations.list": self._list,
            "conversations.history": self._history,
            "conversations.archive": self._archive,
            "conversations.unarchive": self._unarchive,
        }

    def _auth_test(self, arguments: Arguments) -> Answer:
        del arguments
        who = {"team": "Local", "team_id": "T00000001", "user": "traitmesh", "user_id": "U00000001"}
        return who | {"url": "http://localhost/", "bot_id": "B00000001", "is_enterprise_install": False}

    def _post_message(self, arguments: Arguments) -> Answer:
        channel = self._channel(arguments)
        if channel.is_archived:
            raise SlackError("is_archived")
        if not channel.is_member:
            raise SlackError("not_in_channel")
        text = str(arguments.get("text") or "")
        if not text and not arguments.get("blocks"):
            raise SlackError("no_text")
        if len(text) > TEXT_LIMIT:
            raise SlackError("msg_too_long")
        metadata = _metadata(arguments.get("metadata"))
        self._limits.take(channel)
        message = self._store.post(channel, text, metadata)
        self._store.count("posted")
        return {"channel": channel.id, "ts": message["ts"], "message": message}

    def _list(self, arguments: Arguments) -> Answer:
        skip_archived = str(arguments.get("exclude_archived", "")).lower() in ("1", "true")
        channels = [c for c in self._store.channels() if not (skip_archived and c.is_archived)]
        start, limit = int(arguments.get("cursor") or 0), _limit(arguments, 100, 1000)
        page = [_channel_body(channel) for channel in channels[start : start + limit]]
        more = str(start + limit) if start + limit < len(channels) else ""
        return {"channels": page, "response_metadata": {"next_cursor": more}}

    def _history(self, arguments: Arguments) -> Answer:
        channel = self._channel(arguments)
        if not channel.is_member:
            raise SlackError("not_in_channel")
        limit = _limit(arguments, 100, 999)
        before = int(arguments.get("cursor") or 1 << 60)
        found = self._store.history(channel, before, limit + 1)
        page = found[:limit]
        messages = [message for _, message in page]
        if str(arguments.get("include_all_metadata", "")).lower() not in ("1", "true"):
            messages = [{k: v for k, v in m.items() if k != "metadata"} for m in messages]
        more = len(found) > limit
        cursor = str(page[-1][0]) if more else ""
        return {"messages": messages, "has_more": more, "response_metadata": {"next_cursor": cursor}}

    def _archive(self, arguments: Arguments) -> Answer:
        channel = self._channel(arguments)
        if channel.is_archived:
            raise SlackError("already_archived")
        self._store.change(channel, archived=True)
        return {}

    def _unarchive(self, arguments: Arguments) -> Answer:
        channel = self._channel(arguments)
        if not channel.is_archived:
            raise SlackError("not_archived")
        self._store.change(channel, archived=False)
        return {}

    def _channel(self, arguments: Arguments) -> Channel:
        channel = self._store.channel(str(arguments.get("channel", "")))
        if channel is None:
            raise SlackError("channel_not_found")
        return channel


def _channel_body(channel: Channel) -> Answer:
    shown = {"id": channel.id, "name": channel.name, "name_normalized": channel.name}
    flags = {"is_archived": channel.is_archived, "is_member": channel.is_member}
    return shown | flags | {"is_channel": True, "is_private": False}


def _limit(arguments: Arguments, default: int, most: int) -> int:
    limit = int(arguments.get("limit") or default)
    if not 1 <= limit <= most:
        raise SlackError("invalid_limit")
    return limit


def _metadata(value: object) -> dict[str, Any] | None:
    """Return message metadata, which comes as an object in JSON and as text in a form."""
    if value is None or value == "":
        return None
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        raise SlackError("invalid_metadata_format") from None
    if not isinstance(found, dict) or not isinstance(found.get("event_type"), str):
        raise SlackError("invalid_metadata_schema")
    return found
