"""The Airbyte protocol as it is used here: one JSON object a line, a `type` and one body.

Our own facts travel under keys named `traitmesh`, which other programs ignore:
`record.meta.traitmesh` {operation, idempotency_key, resend}, `state.traitmesh` {rejects},
`spec.traitmesh` {guarantee, batch_size}, `trace.error.traitmesh` {retry_after}.
"""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from traitmesh_connector.errors import ConfigError, ProtocolError

Message = dict[str, Any]

BODY_KEYS = {
    "RECORD": "record",
    "STATE": "state",
    "LOG": "log",
    "SPEC": "spec",
    "CONNECTION_STATUS": "connectionStatus",
    "CATALOG": "catalog",
    "DESTINATION_CATALOG": "destination_catalog",
    "TRACE": "trace",
    "CONTROL": "control",
}

# Airbyte has no delete of its own: a row that left carries the time in this column.
DELETED_AT = "_ab_cdc_deleted_at"

OPERATION_OF_MODE = {
    "append": "insert",
    "overwrite": "insert",
    "append_dedup": "upsert",
    "update": "update",
}


class Guarantee(StrEnum):
    """What a destination promises about a batch that is sent twice under the same key."""

    EXACTLY_ONCE = "exactly once"
    EXACTLY_ONCE_BY_KEY = "exactly once by key"
    AT_LEAST_ONCE = "at least once"


def encode(kind: str, body: Mapping[str, Any]) -> bytes:
    """Return the line, newline included, of one message."""
    return orjson.dumps({"type": kind, BODY_KEYS[kind]: body}, option=orjson.OPT_APPEND_NEWLINE)


def decode(line: bytes) -> Message | None:
    """Return the message of a line, or None if the line is not one."""
    try:
        message = orjson.loads(line)
        body = message[BODY_KEYS[message["type"]]]
    except (ValueError, TypeError, KeyError):
        return None
    return message if isinstance(message, dict) and isinstance(body, dict) else None


def body_of(message: Message) -> dict[str, Any]:
    """Return the body of a decoded message."""
    body: dict[str, Any] = message[BODY_KEYS[message["type"]]]
    return body


def now_ms() -> int:
    """Return the present in milliseconds since 1970, as `emitted_at` wants it."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Stream:
    """What one write is about: a stream of the configured catalog.

    `sync_mode` is Airbyte's destination_sync_mode; `object_name` is where the records go (a table, a
    channel); `primary_key` names the columns by which a record is found again.
    """

    name: str
    json_schema: Mapping[str, Any]
    sync_mode: str = "append"
    primary_key: tuple[str, ...] = ()
    object_name: str = ""
    namespace: str | None = None

    @property
    def descriptor(self) -> dict[str, Any]:
        """Return the stream_descriptor by which messages name this stream."""
        return {"name": self.name} | ({"namespace": self.namespace} if self.namespace else {})

    def configured(self) -> dict[str, Any]:
        """Return the ConfiguredAirbyteStream to put into a catalog."""
        stream = {"name": self.name, "json_schema": self.json_schema}
        return {
            "stream": stream | {"namespace": self.namespace, "supported_sync_modes": ["full_refresh"]},
            "sync_mode": "full_refresh",
            "destination_sync_mode": self.sync_mode,
            "primary_key": [[column] for column in self.primary_key],
            "destination_object_name": self.object_name or self.name,
        }

    @classmethod
    def from_configured(cls, configured: Mapping[str, Any]) -> "Stream":
        """Read a ConfiguredAirbyteStream; `ConfigError` where its key is nested."""
        stream = configured["stream"]
        paths = configured.get("primary_key") or []
        if any(len(path) != 1 for path in paths):
            raise ConfigError(f"stream {stream['name']}: primary_key must name top-level columns only")
        return cls(
            name=stream["name"],
            namespace=stream.get("namespace"),
            json_schema=_without_deleted_at(stream.get("json_schema") or {}),
            sync_mode=configured.get("destination_sync_mode", "append"),
            primary_key=tuple(path[0] for path in paths),
            object_name=configured.get("destination_object_name") or stream["name"],
        )


def _without_deleted_at(json_schema: dict[str, Any]) -> dict[str, Any]:
    columns = json_schema.get("properties") or {}
    return json_schema | {"properties": {k: v for k, v in columns.items() if k != DELETED_AT}}


def catalog_of(*streams: Stream) -> dict[str, Any]:
    """Return the configured catalog of these streams."""
    return {"streams": [stream.configured() for stream in streams]}


@dataclass(slots=True)  # not frozen: that would triple the time to make one
class Record:
    """One record as a destination sees it; the deletion mark is an operation, not a column."""

    data: dict[str, Any]
    operation: str
    idempotency_key: str | None = None
    resend: bool = False

    @classmethod
    def from_body(cls, body: dict[str, Any], stream: Stream) -> "Record":
        """Read a RECORD body; hosts that name no operation get the one of the sync mode."""
        data = body["data"]
        deleted = data.pop(DELETED_AT, None) is not None
        meta = body.get("meta")
        ours = meta.get("traitmesh") if meta else None
        if ours:
            return cls(data, ours["operation"], ours.get("idempotency_key"), bool(ours.get("resend")))
        return cls(data, "delete" if deleted else OPERATION_OF_MODE.get(stream.sync_mode, "insert"))


@dataclass(frozen=True, slots=True)
class Batch:
    """The records of one stream that are acknowledged together."""

    stream: Stream
    records: Sequence[Record]

    @property
    def idempotency_key(self) -> str | None:
        """A key that is the same whenever this batch is sent again; None if the host gave no keys."""
        digest = hashlib.sha256(self.stream.object_name.encode())
        for record in self.records:
            if record.idempotency_key is None:
                return None
            digest.update(b"\0" + record.idempotency_key.encode())
        return digest.hexdigest()[:32]

    @property
    def resend(self) -> bool:
        """Whether the destination may already hold this batch."""
        return any(record.resend for record in self.records)


def record_line(
    stream: Stream,
    data: Mapping[str, Any] | orjson.Fragment,
    *,
    operation: str,
    idempotency_key: str,
    resend: bool = False,
) -> bytes:
    """Return the RECORD line (no newline) of one planned operation.

    `data` may be an `orjson.Fragment` of JSON made earlier. A delete of a mapping is also marked in
    Airbyte's way, so that destinations which know nothing of us see it.
    """
    if operation == "delete" and isinstance(data, Mapping):
        data = {**data, DELETED_AT: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    ours = {"operation": operation, "idempotency_key": idempotency_key, "resend": resend}
    body = {
        "stream": stream.name,
        "namespace": stream.namespace,
        "data": data,
        "emitted_at": now_ms(),
        "meta": {"traitmesh": ours},
    }
    return orjson.dumps({"type": "RECORD", "record": body})


def stream_status(descriptor: Mapping[str, Any], status: str) -> bytes:
    """Return the line that says how far a stream is: STARTED, COMPLETE or INCOMPLETE."""
    return encode(
        "TRACE",
        {
            "type": "STREAM_STATUS",
            "emitted_at": now_ms(),
            "stream_status": {"stream_descriptor": descriptor, "status": status},
        },
    )


def read_document(path: str, what: str) -> Any:
    """Return the parsed JSON of a file named on the command line (read once: it may be a pipe)."""
    try:
        with open(path, "rb") as file:
            return orjson.loads(file.read())
    except OSError as error:
        raise ConfigError(f"the {what} file cannot be read: {error.strerror}") from None
    except ValueError:
        raise ConfigError(f"the {what} file is not JSON") from None


def require_message(line: bytes, number: int) -> Message:
    """Return the message of a line of stdin; `ProtocolError`, without its content, if it is none."""
    message = decode(line)
    if message is None:
        raise ProtocolError(f"line {number} of stdin is not a protocol message")
    return message
