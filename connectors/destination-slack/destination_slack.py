"""Posts to a Slack channel: one message per batch, a digest of who entered, changed and left.

Slack's API knows no idempotency keys for apps. The batch's key is put into the message's metadata, and
before a batch is posted again the channel's history is searched for it; a message that is not found
there is posted, so the guarantee stays at least once.
"""

import logging
import re
import time
from collections.abc import Callable
from functools import cached_property
from http.client import HTTPException
from typing import Any

from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError
from slack_sdk.web import SlackResponse

from traitmesh_connector.destination import Destination, DestinationObject
from traitmesh_connector.errors import ConfigError, Reject, TransientError
from traitmesh_connector.protocol import Batch, Guarantee, Record

TEXT_LIMIT = 39_000  # Slack cuts at 40,000 characters
LINE_LIMIT = 500
HISTORY_PAGES, HISTORY_PAGE = 5, 200
LONGEST_WAIT = 60.0  # seconds to sit out here; a longer wait is the host's to schedule

WHAT_TO_DO = {
    "account_inactive": "the app was removed from the workspace: install it again",
    "channel_not_found": "there is no such channel for this app: check its name or invite the app",
    "invalid_auth": "the token is wrong: put in the app's bot token",
    "is_archived": "the channel is archived: unarchive it or choose another",
    "missing_scope": "the app needs chat:write, channels:read and channels:history",
    "not_authed": "no token reached Slack: put in the app's bot token",
    "not_in_channel": "the app is not in the channel: invite it",
    "token_expired": "the token has expired: put in a new one",
    "token_revoked": "the token was revoked: put in a new one",
}
PASSING = {"fatal_error", "internal_error", "request_timeout", "service_unavailable", "team_added_to_org"}


class DestinationSlack(Destination):
    """The connector; its object is a channel, by name or id."""

    name = "destination-slack"
    sync_modes = ("append", "append_dedup", "update")
    guarantee = Guarantee.AT_LEAST_ONCE
    batch_size = 200
    config_schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Slack",
        "type": "object",
        "required": ["token"],
        "properties": {
            "token": {
                "type": "string",
                "minLength": 1,
                "description": "Bot token with chat:write, channels:read and channels:history",
                "airbyte_secret": True,
            },
            "template": {
                "type": "string",
                "description": "A line per record, such as {user_id} reached level {level}",
            },
            "records_per_message": {"type": "integer", "minimum": 1, "maximum": 200, "default": 20},
            "base_url": {
                "type": "string",
                "pattern": "^https?://",
                "default": "https://slack.com/api/",
            },
        },
    }

    def check(self) -> None:
        """Ask Slack who the token belongs to."""
        self._call(self._client.auth_test)

    def discover(self) -> list[DestinationObject]:
        """List the channels that are not archived."""
        schema = {"type": "object", "properties": {}}
        names = sorted(self._channels)
        return [DestinationObject(f"#{name}", mode, schema) for name in names for mode in self.sync_modes]

    def write(self, batch: Batch) -> list[Reject]:
        """Post the batch as one message."""
        channel = self._channel_id(batch.stream.object_name)
        key = batch.idempotency_key
        if key and batch.resend and self._is_posted(channel, key):
            return []
        payload = {"idempotency_key": key} if key else {}
        self._call(
            self._client.chat_postMessage,
            channel=channel,
            text=self._text(batch),
            unfurl_links=False,
            metadata={"event_type": "traitmesh_batch", "event_payload": payload},
        )
        return []

    def _text(self, batch: Batch) -> str:
        left = sum(record.operation == "delete" for record in batch.records)
        counts = [f"{len(batch.records) - left} in"] * (left < len(batch.records))
        head = f"*{_escaped(batch.stream.name)}*: " + ", ".join([*counts, *[f"{left} left"] * (left > 0)])
        shown = batch.records[: self.config["records_per_message"]]
        lines = [head, *(f"• {self._line(record, batch)[:LINE_LIMIT]}" for record in shown)]
        if len(shown) < len(batch.records):
            lines.append(f"… and {len(batch.records) - len(shown)} more")
        return "\n".join(lines)[:TEXT_LIMIT]

    def _line(self, record: Record, batch: Batch) -> str:
        fields = {name: _escaped(value) for name, value in record.data.items()}
        if record.operation == "delete":
            return " ".join(fields.get(c, "") for c in batch.stream.primary_key or fields) + " left"
        template = self.config.get("template")
        if template is None:
            return ", ".join(f"{name}: {value}" for name, value in fields.items())
        return re.sub(r"\{(\w+)\}", lambda place: fields.get(place[1], ""), template)

    def _channel_id(self, name: str) -> str:
        if re.fullmatch(r"[CG][A-Z0-9]{8,}", name):
            return name
        try:
            return self._channels[name.removeprefix("#")]
        except KeyError:
            raise ConfigError(f"{name}: {WHAT_TO_DO['channel_not_found']}") from None

    def _is_posted(self, channel: str, key: str) -> bool:
        cursor: str | None = None
        for _ in range(HISTORY_PAGES):
            page = self._call(
                self._client.conversations_history,
                channel=channel,
                limit=HISTORY_PAGE,
                cursor=cursor,
                include_all_metadata=True,
            )
            for message in page["messages"]:
                payload = message.get("metadata", {}).get("event_payload", {})
                if payload.get("idempotency_key") == key:
                    return True
            cursor = (page.get("response_metadata") or {}).get("next_cursor")
            if not cursor:
                break
        return False

    @cached_property
    def _channels(self) -> dict[str, str]:
        found: dict[str, str] = {}
        cursor: str | None = None
        while cursor != "":
            page = self._call(
                self._client.conversations_list,
                types="public_channel,private_channel",
                exclude_archived=False,
                limit=HISTORY_PAGE,
                cursor=cursor,
            )
            found |= {c["name"]: c["id"] for c in page["channels"]}
            cursor = (page.get("response_metadata") or {}).get("next_cursor") or ""
        return found

    @cached_property
    def _client(self) -> WebClient:
        # The SDK logs answers it cannot read, which may quote the message.
        silent = logging.getLogger("slack_sdk.silent")
        silent.addHandler(logging.NullHandler())
        silent.propagate = False
        return WebClient(
            token=self.config["token"],
            base_url=self.config["base_url"].rstrip("/") + "/",
            headers=self.trace_headers(),
            # The SDK would post again after a lost answer; here the history is asked first.
            retry_handlers=[],
            logger=silent,
        )

    def _call(self, method: Callable[..., SlackResponse], **arguments: Any) -> SlackResponse:
        """Call Slack, sitting out short rate limits; nothing was done where Slack says 429."""
        while True:
            try:
                return method(**arguments)
            except SlackApiError as error:
                wait = self._wait(error.response)
            except (OSError, HTTPException):
                raise TransientError("Slack is not reachable") from None
            self.log("INFO", f"Slack's rate limit: waiting {wait:.0f} s")
            time.sleep(wait)

    @staticmethod
    def _wait(response: SlackResponse) -> float:
        """Return how long to wait before the same call again, or raise what else is to be done."""
        status, code = response.status_code, str(response.get("error"))
        if status == 429 or code in ("ratelimited", "rate_limited"):
            seconds = float(response.headers.get("Retry-After", 1))
            if seconds > LONGEST_WAIT:
                raise TransientError("Slack's rate limit is used up", retry_after=seconds)
            return seconds
        if status >= 500 or code in PASSING:
            raise TransientError(f"Slack answered with status {status}")
        # Only a word is a code of Slack's; a page of a proxy may quote what was sent.
        code = code if re.fullmatch(r"\w{1,50}", code) else f"status {status}"
        raise ConfigError(f"Slack refuses ({code}): {WHAT_TO_DO.get(code, 'see its documentation')}")


def _escaped(value: object) -> str:
    """Return a value as text that can neither mention people nor make links."""
    text = "" if value is None else str(value)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
