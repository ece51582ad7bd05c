"""The base of every source: streams of records out, with a STATE wherever reading can go on from."""

import abc
import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from traitmesh_connector.connector import Connector
from traitmesh_connector.errors import ConfigError
from traitmesh_connector.protocol import Stream, encode, now_ms, read_document, stream_status

# Large enough that a system call costs nothing beside encoding, small enough to arrive at once.
_FLUSH_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class SourceStream:
    """A stream that `discover` lists."""

    name: str
    json_schema: Mapping[str, Any]
    primary_key: Sequence[str] = ()
    incremental: bool = False


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Every record of `stream` so far is covered by `state`; reading may go on from there."""

    stream: str
    state: Mapping[str, Any]


SourceItem = tuple[str, Mapping[str, Any]] | Checkpoint


class Source(Connector):
    """Reads records from somewhere."""

    moving_command = "read"

    @abc.abstractmethod
    def discover(self) -> list[SourceStream]:
        """List what can be read."""

    @abc.abstractmethod
    def read(self, streams: Sequence[Stream], states: Mapping[str, Mapping[str, Any]]) -> Iterator[SourceItem]:
        """Yield (stream name, record) pairs, in any interleaving, and checkpoints between them.

        Only records of `streams` leave the program. `states` holds, by stream name, the state of the
        last checkpoint that the host made durable; empty means from the start.
        """

    @classmethod
    def specification(cls) -> dict[str, Any]:
        """Return the body that answers `spec`."""
        return {"protocol_version": "0.18.0", "connectionSpecification": cls.config_schema}

    def catalog_message(self) -> tuple[str, dict[str, Any]]:
        """Return the type and body that answer `discover`."""
        return "CATALOG", {"streams": [_described(stream) for stream in self.discover()]}

    def run(self, arguments: argparse.Namespace) -> None:
        """Write the catalog's streams to stdout until they end."""
        catalog = read_document(arguments.catalog, "catalog")
        streams = [Stream.from_configured(configured) for configured in catalog["streams"]]
        known = {stream.name for stream in self.discover()}
        for stream in streams:
            if stream.name not in known:
                raise ConfigError(f"{self.name} has no stream {stream.name}")
        states = _states(read_document(arguments.state, "state") if arguments.state else [])
        _Reading(self, streams).produce(states)


class _Reading:
    """One `read` command: encodes what the source yields, with as few system calls as possible."""

    def __init__(self, source: Source, streams: Sequence[Stream]) -> None:
        self._source = source
        self._streams = {stream.name: stream for stream in streams}
        self._counts = dict.fromkeys(self._streams, 0)
        self._lines: list[bytes] = []
        self._bytes = 0

    def produce(self, states: Mapping[str, Mapping[str, Any]]) -> None:
        self._tell_all("STARTED")
        heads = {name: _record_head(stream) for name, stream in self._streams.items()}
        for item in self._source.read(list(self._streams.values()), states):
            if isinstance(item, Checkpoint):
                self._tell_state(item)
            elif (head := heads.get(item[0])) is not None:
                self._counts[item[0]] += 1
                self._put(head + orjson.dumps(item[1], default=str) + b"}}\n")
        self._tell_all("COMPLETE")

    def _tell_all(self, status: str) -> None:
        for stream in self._streams.values():
            self._put(stream_status(stream.descriptor, status))
        self._flush()

    def _tell_state(self, checkpoint: Checkpoint) -> None:
        stream = self._streams.get(checkpoint.stream)
        if stream is None:
            return
        state = {"stream_descriptor": stream.descriptor, "stream_state": checkpoint.state}
        stats = {"recordCount": float(self._counts[stream.name])}
        self._counts[stream.name] = 0
        self._put(encode("STATE", {"type": "STREAM", "stream": state, "sourceStats": stats}))
        self._flush()

    def _put(self, line: bytes) -> None:
        self._lines.append(line)
        self._bytes += len(line)
        if self._bytes > _FLUSH_BYTES:
            self._flush()

    def _flush(self) -> None:
        self._source.output.write(b"".join(self._lines))
        self._lines.clear()
        self._bytes = 0


def _record_head(stream: Stream) -> bytes:
    """Return all of a RECORD line before its data, which is the same for a whole stream."""
    body = {"stream": stream.name, "emitted_at": now_ms()}
    if stream.namespace:
        body["namespace"] = stream.namespace
    return b'{"type":"RECORD","record":' + orjson.dumps(body)[:-1] + b',"data":'


def _described(stream: SourceStream) -> dict[str, Any]:
    return {
        "name": stream.name,
        "json_schema": stream.json_schema,
        "supported_sync_modes": ["full_refresh"] + ["incremental"] * stream.incremental,
        "source_defined_primary_key": [[column] for column in stream.primary_key],
        "is_resumable": stream.incremental,
    }


def _states(document: object) -> dict[str, Mapping[str, Any]]:
    """Return the stream states of a --state document, a list of STATE bodies."""
    if not isinstance(document, list):
        raise ConfigError("the state file must hold a list of state messages")
    streams = [state["stream"] for state in document if state.get("type") == "STREAM"]
    return {s["stream_descriptor"]["name"]: s["stream_state"] for s in streams if s["stream_state"]}
