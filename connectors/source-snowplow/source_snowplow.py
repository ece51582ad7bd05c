"""Reads files of Snowplow enriched events, as JSON (bare or as search-index hits) or as TSV.

A file's bytes become lines, a line becomes rows, a row becomes an event: the record of the `events`
stream, or, wherever one of the steps fails, a record of the `quarantine` stream that says why.
"""

import gzip
import hashlib
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import IO, Any
from uuid import UUID

import orjson

from traitmesh_connector.errors import ConfigError
from traitmesh_connector.protocol import Stream
from traitmesh_connector.source import Checkpoint, Source, SourceItem, SourceStream

LINE_LIMIT = 4 << 20
RAW_LIMIT = 64 << 10
DOCUMENT_LIMIT = 64 << 20
CHUNK = 1 << 20
FORMATS = (".ndjson", ".json", ".tsv")

# The columns of the enriched TSV in their order:
# https://docs.snowplow.io/docs/fundamentals/canonical-event/understanding-the-enriched-tsv-format/
TSV_HEADER = """
app_id platform etl_tstamp collector_tstamp dvce_created_tstamp event event_id txn_id name_tracker v_tracker
v_collector v_etl user_id user_ipaddress user_fingerprint domain_userid domain_sessionidx network_userid geo_country
geo_region geo_city geo_zipcode geo_latitude geo_longitude geo_region_name ip_isp ip_organization ip_domain
ip_netspeed page_url page_title page_referrer page_urlscheme page_urlhost page_urlport page_urlpath page_urlquery
page_urlfragment refr_urlscheme refr_urlhost refr_urlport refr_urlpath refr_urlquery refr_urlfragment refr_medium
refr_source refr_term mkt_medium mkt_source mkt_term mkt_content mkt_campaign contexts se_category se_action
se_label se_property se_value unstruct_event tr_orderid tr_affiliation tr_total tr_tax tr_shipping tr_city tr_state
tr_country ti_orderid ti_sku ti_name ti_category ti_price ti_quantity pp_xoffset_min pp_xoffset_max pp_yoffset_min
pp_yoffset_max useragent br_name br_family br_version br_type br_renderengine br_lang br_features_pdf
br_features_flash br_features_java br_features_director br_features_quicktime br_features_realplayer
br_features_windowsmedia br_features_gears br_features_silverlight br_cookies br_colordepth br_viewwidth
br_viewheight os_name os_family os_manufacturer os_timezone dvce_type dvce_ismobile dvce_screenwidth
dvce_screenheight doc_charset doc_width doc_height tr_currency tr_total_base tr_tax_base tr_shipping_base
ti_currency ti_price_base base_currency geo_timezone mkt_clickid mkt_network etl_tags dvce_sent_tstamp
refr_domain_userid refr_device_tstamp derived_contexts domain_sessionid derived_tstamp event_vendor event_name
event_format event_version event_fingerprint true_tstamp
"""
TEXT_COLUMNS = """
app_id platform event_name domain_userid network_userid domain_sessionid geo_country geo_region geo_region_name
geo_city geo_timezone os_timezone useragent user_ipaddress se_category se_action se_label se_property
"""
TSV_COLUMNS = tuple(TSV_HEADER.split())
TEXTS = tuple(TEXT_COLUMNS.split())
NUMBERS = ("se_value", "geo_latitude", "geo_longitude")
# The event's time is the first of these that is there.
TIMES = ("derived_tstamp", "collector_tstamp", "dvce_created_tstamp", "dvce_sent_tstamp", "etl_tstamp")
USERS = ("user_id", "domain_userid", "network_userid")
# The search-index form adds one column to the standard ones.
STANDARD = {*TSV_COLUMNS, "geo_location"}

# What an event takes over from its row under the row's own name.
KEPT = {*TEXTS, *TIMES, *NUMBERS, "user_id", "event_id"}

# Millions of rows pass through these; each does in one call what a loop over columns would.
ABSENT = dict.fromkeys((*TEXTS, *TIMES, *NUMBERS))
texts_of, times_of, numbers_of = itemgetter(*TEXTS), itemgetter(*TIMES), itemgetter(*NUMBERS)
PLAIN_TEXT, PLAIN_NUMBER = {str, type(None)}, {int, float, type(None)}

# A moment in UTC that is sure to exist; 29 February is left to the calendar.
SURE_TIME = re.compile(
    r"(?:19|20)\d\d-(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
    r"T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,6})?Z"
).fullmatch
SCHEMA = re.compile(r"iglu:([\w.-]+)/([\w-]+)/[^/]+/(\d+)-.*")

Row = dict[str, Any]


class Unusable(ValueError):
    """A line or row that cannot be an event; `reason` is a code, `detail` holds no value."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


class SourceSnowplow(Source):
    """The connector."""

    name = "source-snowplow"
    config_schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Snowplow enriched events",
        "type": "object",
        "required": ["paths"],
        "properties": {
            "paths": {
                "type": "array",
                "items": {"type": "string"},
                "minItems": 1,
                "description": "Files named .ndjson, .json or .tsv, or one of these and .gz",
            }
        },
    }

    def check(self) -> None:
        """Open each file."""
        for number, path in enumerate(self.config["paths"]):
            if not path.removesuffix(".gz").endswith(FORMATS):
                raise ConfigError(f"config.paths.{number}: must end in .ndjson, .json or .tsv (and .gz)")
            try:
                with open_file(path) as file:
                    file.read(1)
            except (OSError, EOFError) as error:
                why = getattr(error, "strerror", None) or "is not gzip"
                raise ConfigError(f"config.paths.{number}: {why}") from None

    def discover(self) -> list[SourceStream]:
        """List the two streams."""
        return [
            SourceStream("events", EVENT_SCHEMA, ["event_id"], incremental=True),
            SourceStream("quarantine", QUARANTINE_SCHEMA, ["row_hash"], incremental=True),
        ]

    def read(self, streams: Sequence[Stream], states: Mapping[str, Mapping[str, Any]]) -> Iterator[SourceItem]:
        """Read the files that not every stream has finished yet, and checkpoint after each."""
        self.check()
        done = [set(states.get(stream.name, {}).get("finished", ())) for stream in streams]
        finished = sorted(set.intersection(*done)) if done else []
        for path in self.config["paths"]:
            details = os.stat(path)
            mark = f"{path} {details.st_size} {details.st_mtime_ns}"
            if mark in finished:
                continue
            events = Events(path)
            yield from events
            for field, count in events.not_stored.most_common(50):
                self.log("WARN", f"{path}: field {field} is not a Snowplow column: {count} not stored")
            finished.append(mark)
            for stream in streams:
                yield Checkpoint(stream.name, {"finished": finished})


class Events:
    """The items of one file; `not_stored` counts the fields that nobody knows."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._rows = tsv_rows if path.removesuffix(".gz").endswith(".tsv") else json_rows
        latest = datetime.now(UTC) + timedelta(hours=24)
        self._latest = latest.isoformat(timespec="seconds").replace("+00:00", "Z")
        self.not_stored: Counter[str] = Counter()

    def __iter__(self) -> Iterator[SourceItem]:
        """Yield a record of `events` or `quarantine` for each row."""
        rows_of, event = self._rows, self._event
        with open_file(self._path) as file:
            for number, line, whole in numbered_lines(file, self._path):
                try:
                    if not whole:
                        raise Unusable("line_too_long", f"longer than {LINE_LIMIT} bytes")
                    rows = rows_of(line)
                except Unusable as fault:
                    yield self._quarantined(line, number, fault)
                    continue
                for row in rows:
                    try:
                        yield "events", event(row)
                    except Unusable as fault:
                        raw = line if len(rows) == 1 else orjson.dumps(row)
                        yield self._quarantined(raw, number, fault)

    def _quarantined(self, raw: bytes, number: int, fault: Unusable) -> SourceItem:
        return "quarantine", {
            "row_hash": hashlib.sha256(raw).hexdigest(),
            "file": self._path,
            "line": number,
            "reason": fault.reason,
            "detail": fault.detail,
            "raw": raw[:RAW_LIMIT].decode(errors="replace"),
        }

    def _event(self, row: Row) -> Row:
        event = ABSENT | row
        clean_texts(event)
        clean_times(event)
        clean_numbers(event)
        event["user_id"] = first_present(row, USERS, "no_user")
        time = first_present(event, TIMES, "no_time")
        if time > self._latest:
            raise Unusable("time_in_future", "more than 24 hours ahead of the load")
        name = name_of(event, row.get("event"))
        event["event_id"] = text(row.get("event_id"), "event_id") or stable_id(row)
        # Last, since what a row put aside has no place for is not counted.
        unstruct, contexts = self._nested(event, row)
        event["time"], event["name"] = time, name
        event["unstruct_event"], event["contexts"] = unstruct, contexts
        return event

    def _nested(self, event: Row, row: Row) -> tuple[Row | None, Row]:
        """Take everything out of the event that its row called by another name, and return the nested of it."""
        unstruct: Row = {}
        contexts: Row = {}
        for field in [field for field in row if field not in KEPT]:
            value = event.pop(field)
            if field in STANDARD:
                continue
            if field.startswith("contexts_"):
                contexts[field[9:]] = value if isinstance(value, list) else [value]
            elif field.startswith("unstruct_event_"):
                unstruct[field[15:]] = value
            else:
                self.not_stored[field] += 1
        return unstruct or None, contexts


def open_file(path: str) -> IO[bytes]:
    """Open a file, unpacked."""
    return gzip.open(path, "rb") if path.endswith(".gz") else open(path, "rb")  # type: ignore[return-value]


def numbered_lines(file: IO[bytes], path: str) -> Iterator[tuple[int, bytes, bool]]:
    """Yield (number, line, whether it is whole); a file that is one JSON document is one line.

    Of a line over the limit only the beginning is kept and yielded.
    """
    rest = file.read(CHUNK)
    if not path.removesuffix(".gz").endswith(".tsv") and _may_be_document(rest):
        document = rest + file.read(DOCUMENT_LIMIT - len(rest))
        if _parses(document):
            yield 1, document, True
            return
        rest = document
    line_number, skipping = 0, False
    while True:
        *lines, rest = rest.split(b"\n")
        for line in lines:
            line_number += 1
            if not skipping and line.strip():
                yield line_number, line[:LINE_LIMIT], len(line) <= LINE_LIMIT
            skipping = False
        if len(rest) > LINE_LIMIT:
            if not skipping:
                yield line_number + 1, rest[:LINE_LIMIT], False
            rest, skipping = b"", True
        chunk = file.read(CHUNK)
        if not chunk:
            break
        rest += chunk
    if rest.strip() and not skipping:
        yield line_number + 1, rest, True


def _may_be_document(head: bytes) -> bool:
    """Whether the first line opens a JSON value that it does not close."""
    first = head.lstrip().partition(b"\n")[0]
    return first[:1] in (b"{", b"[") and not _parses(first)


def _parses(text: bytes) -> bool:
    try:
        orjson.loads(text)
    except ValueError:
        return False
    return True


def json_rows(line: bytes) -> list[Row]:
    """Return the rows of a line: an event, a search-index hit, a list or an answer full of either."""
    try:
        found = orjson.loads(line)
    except ValueError:
        _check_encoding(line)
        raise Unusable("not_json", "the line is not JSON") from None
    if isinstance(found, dict) and "hits" not in found:
        return [source_of(found)]
    if isinstance(found, dict) and isinstance(found["hits"], dict):
        found = found["hits"].get("hits")
    rows = found if isinstance(found, list) and found else [found]
    return list(map(source_of, rows))


def source_of(row: object) -> Row:
    """Return the event of a row: what a search-index hit holds, or the row itself."""
    event = row.get("_source", row) if isinstance(row, dict) else None
    if not isinstance(event, dict):
        raise Unusable("not_an_object", "an event must be a JSON object")
    return event


def tsv_rows(line: bytes) -> list[Row]:
    """Return the one row of a line of the enriched TSV, its JSON columns taken apart."""
    _check_encoding(line)
    fields = line.decode().removesuffix("\r").split("\t")
    if len(fields) != len(TSV_COLUMNS):
        raise Unusable("wrong_columns", f"{len(fields)} columns instead of {len(TSV_COLUMNS)}")
    row: Row = {c: value for c, value in zip(TSV_COLUMNS, fields, strict=True) if value}
    for column in ("contexts", "derived_contexts"):
        for schema, data in self_described(row.pop(column, None), column):
            row.setdefault(f"contexts_{schema}", []).append(data)
    for schema, data in self_described(row.pop("unstruct_event", None), "unstruct_event"):
        row[f"unstruct_event_{schema}"] = data
    return [row]


def _check_encoding(line: bytes) -> None:
    try:
        line.decode()
    except UnicodeDecodeError as error:
        raise Unusable("invalid_utf8", f"at byte {error.start}") from None


def self_described(value: str | None, column: str) -> Iterator[tuple[str, Any]]:
    """Yield (flat schema name, data) of a self-describing JSON column, as Snowplow's SDKs name them."""
    if value is None:
        return
    try:
        inner = orjson.loads(value)["data"]
        for item in inner if isinstance(inner, list) else [inner]:
            match = SCHEMA.fullmatch(item["schema"])
            if match is None:
                raise Unusable("not_json", f"{column} names no iglu schema")
            vendor, name, model = match.groups()
            name = re.sub(r"([^A-Z_])([A-Z])", r"\1_\2", name)
            yield re.sub(r"[.-]", "_", f"{vendor}_{name}_{model}").lower(), item["data"]
    except (KeyError, TypeError, orjson.JSONDecodeError):
        raise Unusable("not_json", f"{column} is not self-describing JSON") from None


def clean_texts(event: Row) -> None:
    """Make text of the TEXTS of an event."""
    if not set(map(type, texts_of(event))) <= PLAIN_TEXT:
        event.update((column, text(event[column], column)) for column in TEXTS)


def clean_times(event: Row) -> None:
    """Bring the TIMES of an event to UTC."""
    for value in times_of(event):
        if value is not None and not (type(value) is str and SURE_TIME(value)):
            event.update((column, utc_time(event[column], column)) for column in TIMES)
            return


def clean_numbers(event: Row) -> None:
    """Make finite numbers of the NUMBERS of an event."""
    if not set(map(type, numbers_of(event))) <= PLAIN_NUMBER:
        event.update((column, number(event[column], column)) for column in NUMBERS)


def utc_time(value: object, column: str) -> str | None:
    """Return a moment as ISO 8601 in UTC; without a zone it is UTC, a number is epoch milliseconds."""
    if value is None or value == "":
        return None
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            moment = datetime.fromtimestamp(value / 1000, UTC)
        else:
            moment = datetime.fromisoformat(value)  # type: ignore[arg-type]
            moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, TypeError, OverflowError, OSError):
        raise Unusable("time_unreadable", f"{column} is not an ISO 8601 time") from None
    return moment.isoformat().replace("+00:00", "Z")


def number(value: object, column: str) -> float | None:
    """Return a finite number, of which TSV and some indexes make text."""
    if value is None or value == "":
        return None
    try:
        found = float(value)  # type: ignore[arg-type]
    except (ValueError, TypeError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise Unusable("number_unreadable", f"{column} is not a finite number")
    return found


def text(value: object, column: str) -> str | None:
    """Return a value as text; a number is one that somebody forgot to quote."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, dict | list):
        raise Unusable("text_unreadable", f"{column} is not a single value")
    return orjson.dumps(value).decode()


def first_present(row: Row, columns: Sequence[str], reason: str) -> str:
    """Return the first value that is there; 0 is a value, an empty text is none."""
    for column in columns:
        value = row.get(column)
        if value is not None and value != "":
            return value if isinstance(value, str) else text(value, column) or ""
    raise Unusable(reason, "none of " + ", ".join(columns))


def name_of(event: Row, kind: object) -> str:
    """Return the effective name: a structured event's is its category."""
    name = event["event_name"] or kind
    if name in ("event", "struct"):
        name = event["se_category"]
    if not isinstance(name, str) or not name:
        raise Unusable("no_name", "neither event_name nor, for a structured event, se_category")
    return name


def stable_id(row: Row) -> str:
    """Return a UUID (version 8) that depends on the row's content alone."""
    digest = bytearray(hashlib.sha256(orjson.dumps(row, option=orjson.OPT_SORT_KEYS)).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x80
    digest[8] = digest[8] & 0x3F | 0x80
    return str(UUID(bytes=bytes(digest)))


def _schema(
    required: Sequence[str], optional: Mapping[str, Sequence[str]], formats: Sequence[str] = ()
) -> dict[str, Any]:
    kinds = {c: kind for kind, columns in optional.items() for c in columns if c not in required}
    properties: dict[str, Any] = {c: {"type": [kind, "null"]} for c, kind in kinds.items()}
    properties |= {column: {"type": "string"} for column in required}
    for column in formats:
        properties[column] = properties[column] | {"format": "date-time"}
    return {"type": "object", "properties": properties, "required": list(required)}


EVENT_SCHEMA = _schema(
    ("event_id", "name", "user_id", "time"),
    {"string": (*TEXTS, *TIMES), "number": NUMBERS, "object": ("unstruct_event", "contexts")},
    ("time", *TIMES),
)
QUARANTINE_SCHEMA = _schema(("row_hash", "file", "reason", "detail", "raw"), {"integer": ("line",)})
