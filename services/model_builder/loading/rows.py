"""The rows of a file of events, as the connector source-snowplow reads them, gathered into Arrow tables."""

import queue
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pyarrow as pa

from libs.kit import errors, telemetry
from traitmesh_connector import runner
from traitmesh_connector.errors import ConnectorError
from traitmesh_connector.protocol import Message

CONNECTOR = "source-snowplow"
CHUNK_ROWS = 50_000
_CHUNKS_AHEAD = 2

#: The type of each column of an event, for DuckDB, which parses a chunk's lines several times faster than Python
#: makes columns of decoded records. Lines are also cheap to hold, while the records of a chunk are millions of objects.
_EVENT = {
    **dict.fromkeys(("event_id", "name", "user_id", "app_id", "platform", "event_name"), "VARCHAR"),
    **dict.fromkeys(("domain_userid", "network_userid", "domain_sessionid", "useragent", "user_ipaddress"), "VARCHAR"),
    **dict.fromkeys(("geo_country", "geo_region", "geo_region_name", "geo_city", "geo_timezone"), "VARCHAR"),
    **dict.fromkeys(("os_timezone", "se_category", "se_action", "se_label", "se_property"), "VARCHAR"),
    **dict.fromkeys(("se_value", "geo_latitude", "geo_longitude"), "DOUBLE"),
    **dict.fromkeys(("time", "collector_tstamp", "dvce_created_tstamp", "dvce_sent_tstamp"), "TIMESTAMP"),
    **dict.fromkeys(("derived_tstamp", "etl_tstamp"), "TIMESTAMP"),
    **dict.fromkeys(("unstruct_event", "contexts"), "JSON"),
}
_RECORD = orjson.dumps({"record": {"data": _EVENT}}).decode()
_PARSE = f"SELECT row, unnest(from_json(line, '{_RECORD}').record.data) FROM lines"  # noqa: S608
QUARANTINE = pa.schema(
    [("row_hash", pa.string()), ("line", pa.int64())] + [(name, pa.string()) for name in ("reason", "detail", "raw")]
)


@dataclass(frozen=True)
class Chunk:
    """Some rows of the file: those that are events and those that cannot be."""

    events: pa.Table
    quarantine: pa.Table

    @property
    def row_count(self) -> int:
        """How many rows these are."""
        return int(self.events.num_rows + self.quarantine.num_rows)


def read_chunks(connectors: Path, file: Path) -> Iterator[Chunk]:
    """Reads a file through the connector, a chunk at a time, while the chunks before are worked on.

    Raises InvalidSource if the connector cannot read the file, Internal if the connector itself broke.
    """
    chunks: queue.Queue[Chunk | BaseException | None] = queue.Queue(_CHUNKS_AHEAD)
    ended = threading.Event()
    environment = telemetry.child_environment()

    def read() -> None:
        try:
            for chunk in _read(connectors, file, environment):
                if not _put(chunks, chunk, ended):
                    return
            _put(chunks, None, ended)
        except BaseException as error:  # noqa: BLE001 -- raised again by the thread that takes the chunks
            _put(chunks, error, ended)

    reader = threading.Thread(target=read, name="read events", daemon=True)
    reader.start()
    try:
        while (chunk := chunks.get()) is not None:
            if isinstance(chunk, BaseException):
                raise chunk
            yield chunk
    finally:
        ended.set()
        reader.join()


def _put(chunks: "queue.Queue[Any]", item: object, ended: threading.Event) -> bool:
    """Waits for room; False if nobody takes chunks any more."""
    while not ended.is_set():
        try:
            chunks.put(item, timeout=0.2)
        except queue.Full:
            continue
        return True
    return False


def _read(connectors: Path, file: Path, environment: Mapping[str, str]) -> Iterator[Chunk]:
    program = runner.Program((str(connectors.absolute() / CONNECTOR / "bin" / CONNECTOR),), config_schema={})
    streams = [{"stream": {"name": name}, "sync_mode": "full_refresh"} for name in ("events", "quarantine")]
    heard = runner.read_lines(program, {"paths": [str(file.absolute())]}, {"streams": streams}, environment=environment)
    try:
        with duckdb.connect(config={"threads": 1}) as parser:
            yield from _chunks(heard, parser)
    except ConnectorError as error:
        if error.failure_type == "config_error":
            raise errors.InvalidSource(f"the file cannot be read: {error.message}", tool=CONNECTOR) from error
        raise errors.ConnectorRefused(f"{CONNECTOR} broke: {error.message}", connector=CONNECTOR) from error


def _chunks(heard: Iterable[tuple[Message, bytes]], parser: duckdb.DuckDBPyConnection) -> Iterator[Chunk]:
    first = 0
    events: list[bytes] = []
    bad: list[Message] = []
    for message, line in heard:
        if message["type"] != "RECORD":
            continue
        if message["record"]["stream"] == "events":
            events.append(line)
        else:
            bad.append(message["record"]["data"])
        if len(events) + len(bad) >= CHUNK_ROWS:
            yield _chunk(parser, events, bad, first)
            first += len(events)
            events, bad = [], []
    if events or bad:
        yield _chunk(parser, events, bad, first)


def _chunk(parser: duckdb.DuckDBPyConnection, events: list[bytes], bad: list[Message], first: int) -> Chunk:
    rows = pa.array(range(first, first + len(events)), pa.int64())
    lines = pa.table({"row": rows, "line": pa.array(events, pa.string())})
    parsed = parser.register("lines", lines).execute(_PARSE).to_arrow_table()
    return Chunk(parsed, pa.Table.from_pylist(bad, schema=QUARANTINE))
