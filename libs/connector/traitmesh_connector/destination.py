"""The base of every destination: batches in, rejects out, STATE echoed once a batch is durable."""

import abc
import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from traitmesh_connector.connector import Connector
from traitmesh_connector.errors import ConfigError, ProtocolError, Reject
from traitmesh_connector.protocol import (
    Batch,
    Guarantee,
    Message,
    Record,
    Stream,
    read_document,
    require_message,
)

_StreamId = tuple[str | None, str]


@dataclass(frozen=True, slots=True)
class DestinationObject:
    """Something records can be sent to, as `discover` lists it (a table, a channel)."""

    name: str
    sync_mode: str
    json_schema: Mapping[str, Any]
    matching_keys: Sequence[Sequence[str]] = ()


class Destination(Connector):
    """Writes batches somewhere.

    `sync_modes` are Airbyte destination sync modes (append, append_dedup, update, overwrite);
    `batch_size` is the most records `write` is ever given, and what a host should send at once.
    """

    moving_command = "write"
    sync_modes: ClassVar[tuple[str, ...]]
    guarantee: ClassVar[Guarantee]
    batch_size: ClassVar[int] = 1000

    @abc.abstractmethod
    def discover(self) -> list[DestinationObject]:
        """List what can be written to."""

    @abc.abstractmethod
    def write(self, batch: Batch) -> list[Reject]:
        """Make the batch durable and return the records that were refused.

        Returning means that every other record of the batch is committed. Raise `TransientError`
        or `ConfigError` to have nothing acknowledged; the same batch then comes again.
        """

    @classmethod
    def specification(cls) -> dict[str, Any]:
        """Return the body that answers `spec`."""
        return {
            "protocol_version": "0.18.0",
            "connectionSpecification": cls.config_schema,
            "supportsIncremental": True,
            "supported_destination_sync_modes": list(cls.sync_modes),
            "traitmesh": {"guarantee": str(cls.guarantee), "batch_size": cls.batch_size},
        }

    def catalog_message(self) -> tuple[str, dict[str, Any]]:
        """Return the type and body that answer `discover`."""
        operations = [
            {
                "object_name": found.name,
                "sync_mode": found.sync_mode,
                "json_schema": found.json_schema,
                "matching_keys": [list(key) for key in found.matching_keys],
            }
            for found in self.discover()
        ]
        return "DESTINATION_CATALOG", {"operations": operations}

    def run(self, arguments: argparse.Namespace) -> None:
        """Write stdin's records until it ends."""
        streams = self._configured(read_document(arguments.catalog, "catalog"))
        with open(0, "rb", buffering=1 << 20, closefd=False) as stdin:
            _Writing(self, streams).consume(stdin)

    def _configured(self, catalog: Mapping[str, Any]) -> list[Stream]:
        streams = [Stream.from_configured(configured) for configured in catalog["streams"]]
        for stream in streams:
            if stream.sync_mode not in self.sync_modes:
                raise ConfigError(
                    f"stream {stream.name}: {self.name} has no mode {stream.sync_mode}, "
                    f"it has {', '.join(self.sync_modes)}"
                )
        return streams


class _Writing:
    """One `write` command: collects records per stream until a STATE says they belong together."""

    def __init__(self, destination: Destination, streams: Sequence[Stream]) -> None:
        self._destination = destination
        self._streams: dict[_StreamId, Stream] = {(s.namespace, s.name): s for s in streams}
        self._waiting: dict[_StreamId, list[Record]] = {key: [] for key in self._streams}
        self._open = set(self._streams)

    def consume(self, lines: Iterable[bytes]) -> None:
        for number, line in enumerate(lines, 1):
            message = require_message(line, number)
            if message["type"] == "RECORD":
                self._collect(message["record"], number)
            else:
                self._take(message)
        if self._open:
            lost = sum(map(len, self._waiting.values()))
            names = ", ".join(sorted(name for _, name in self._open))
            raise ProtocolError(
                f"stdin ended before COMPLETE of {names}; {lost} records after the last STATE were not written"
            )

    def _take(self, message: Message) -> None:
        match message["type"]:
            case "STATE":
                self._acknowledge(message["state"])
            case "TRACE" if message["trace"].get("type") == "STREAM_STATUS":
                self._change_status(message["trace"]["stream_status"])
            case _:
                self._destination.log("DEBUG", f"a {message['type']} message has no meaning here")

    def _collect(self, body: dict[str, Any], number: int) -> None:
        key = (body.get("namespace"), body.get("stream", ""))
        stream = self._streams.get(key)
        if stream is None or not isinstance(body.get("data"), dict):
            what = "names a stream the catalog lacks" if stream is None else "has no data object"
            raise ProtocolError(f"the record on line {number} of stdin {what}")
        self._waiting[key].append(Record.from_body(body, stream))

    def _acknowledge(self, state: dict[str, Any]) -> None:
        keys = list(self._streams)
        if state.get("type") == "STREAM":
            keys = [self._known(state["stream"]["stream_descriptor"])]
        counts = [self._flush(key) for key in keys]
        rejects = [reject for _, rejected in counts for reject in rejected]
        total = sum(count for count, _ in counts)
        stats = {"recordCount": total - len(rejects), "rejectedRecordCount": len(rejects)}
        listed = [{"index": r.index, "code": r.code, "message": r.message} for r in rejects]
        answer = state | {"destinationStats": stats, "traitmesh": {"rejects": listed}}
        self._destination.output.emit("STATE", answer)

    def _flush(self, key: _StreamId) -> tuple[int, list[Reject]]:
        records, self._waiting[key] = self._waiting[key], []
        if not records:
            return 0, []
        return len(records), self._write_parts(self._streams[key], records)

    def _write_parts(self, stream: Stream, records: Sequence[Record]) -> list[Reject]:
        """Write at most `batch_size` at once; rejects count from the start of the whole batch."""
        size = self._destination.batch_size
        rejects = []
        for start in range(0, len(records), size):
            part = Batch(stream, records[start : start + size])
            for reject in self._destination.write(part):
                if not 0 <= reject.index < len(part.records):
                    raise ProtocolError(f"reject {reject.index} is outside of its batch")
                rejects.append(Reject(start + reject.index, reject.code, reject.message))
        return sorted(rejects, key=lambda reject: reject.index)

    def _change_status(self, status: Mapping[str, Any]) -> None:
        key = self._known(status["stream_descriptor"])
        if status.get("status") == "COMPLETE":
            # A source without STATE is acknowledged by our exit code alone.
            _, rejects = self._flush(key)
            if rejects:
                self._destination.log("WARN", f"{len(rejects)} records after the last STATE refused")
            self._open.discard(key)

    def _known(self, descriptor: Mapping[str, Any]) -> _StreamId:
        key = (descriptor.get("namespace"), descriptor["name"])
        if key not in self._streams:
            raise ProtocolError("a message names a stream the catalog lacks")
        return key
