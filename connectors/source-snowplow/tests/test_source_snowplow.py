import gzip
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from traitmesh_connector import runner
from traitmesh_connector.conformance import SourceConformance, SourceSubject
from traitmesh_connector.errors import ConfigError
from traitmesh_connector.protocol import Stream, catalog_of

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
COMMAND = str(ROOT / ".envs/connectors/source-snowplow/bin/source-snowplow")
PROGRAM = runner.Program((COMMAND,))
TUSK = HERE / "data/tusk-event.json"
CATALOG = catalog_of(Stream("events", {}), Stream("quarantine", {}))
EVENT = {"event_id": "e1", "event_name": "app_open", "user_id": "u1", "derived_tstamp": "2026-01-31T10:00:00Z"}
# The canonical example of Snowplow's own SDKs, shortened: column -> value.
TSV = {
    "app_id": "angry-birds",
    "etl_tstamp": "2017-01-26 00:01:25.292",
    "collector_tstamp": "2013-11-26 00:02:05",
    "event": "unstruct",
    "event_id": "c6ef3124-b53a-4b13-a233-0088f79dcbcb",
    "domain_userid": "bc2e92ec6c204a14",
    "geo_latitude": "37.443604",
    "geo_longitude": "-122.4124",
    "contexts": '{"schema":"iglu:com.snowplowanalytics.snowplow/contexts/jsonschema/1-0-0","data":['
    '{"schema":"iglu:org.schema/WebPage/jsonschema/1-0-0","data":{"genre":"blog"}},'
    '{"schema":"iglu:org.schema/WebPage/jsonschema/1-0-0","data":{"genre":"news"}}]}',
    "unstruct_event": '{"schema":"iglu:com.snowplowanalytics.snowplow/unstruct_event/jsonschema/1-0-0","data":'
    '{"schema":"iglu:com.snowplowanalytics.snowplow/link_click/jsonschema/1-0-1","data":{"elementId":"x"}}}',
    "derived_contexts": '{"schema":"iglu:com.snowplowanalytics.snowplow/contexts/jsonschema/1-0-1","data":['
    '{"schema":"iglu:com.snowplowanalytics.snowplow/ua_parser_context/jsonschema/1-0-0","data":{"osMajor":null}}]}',
    "derived_tstamp": "2013-11-26 00:03:57.886",
    "event_name": "link_click",
}
HEADER = (HERE / "data/tsv-header.txt").read_text().split()


def tsv_line(**fields: str) -> str:
    return "\t".join((TSV | fields).get(column, "") for column in HEADER)


def write(folder: Path, name: str, content: str | bytes) -> str:
    path = folder / name
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return str(path)


def lines(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def read(*paths: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {"events": [], "quarantine": []}
    for message in runner.read(PROGRAM, {"paths": list(paths)}, CATALOG):
        if message["type"] == "RECORD":
            found[message["record"]["stream"]].append(message["record"]["data"])
    return found["events"], found["quarantine"]


class TestConformance(SourceConformance):
    @pytest.fixture
    def subject(self, tmp_path: Path) -> SourceSubject:
        good = write(tmp_path, "a.ndjson.gz", lines(*[EVENT | {"event_id": f"e{i}"} for i in range(5)]) + "{broken\n")
        return SourceSubject(
            program=PROGRAM,
            config={"paths": [good, str(TUSK)]},
            bad_configs=[
                {"paths": [str(tmp_path / "absent.json")]},
                {"paths": [write(tmp_path, "a.csv", "")]},
                {"paths": [write(tmp_path, "b.json", "") + ".gz"]},
            ],
            expected={"events": 6, "quarantine": 1},
        )


def test_a_real_event_of_a_search_index_loads_unchanged() -> None:
    raw = json.loads(TUSK.read_text())["_source"]
    ((event,), quarantine) = read(str(TUSK))
    assert quarantine == []
    assert (event["name"], event["event_name"]) == ("ChipSelect", "event")
    assert event["time"] == raw["dvce_sent_tstamp"]
    assert event["derived_tstamp"] is event["collector_tstamp"] is None
    assert event["contexts"] == {
        "com_tusk_player_context_1": raw["contexts_com_tusk_player_context_1"],
        "com_snowplowanalytics_snowplow_mobile_context_1": raw[
            "contexts_com_snowplowanalytics_snowplow_mobile_context_1"
        ],
    }
    assert event["unstruct_event"] is None
    assert event["geo_latitude"] == 11.5583
    assert event["event_id"] == read(str(TUSK))[0][0]["event_id"]


def test_an_event_has_exactly_the_columns_of_the_schema() -> None:
    streams = runner.discover(PROGRAM, {"paths": [str(TUSK)]})["streams"]
    ((event,), _) = read(str(TUSK))
    assert event.keys() == streams[0]["json_schema"]["properties"].keys()
    assert len(event) == 32


@pytest.mark.parametrize("wrap", [lambda rows: lines(*rows), json.dumps, lambda rows: json.dumps(rows, indent=1)])
def test_rows_are_found_however_they_are_wrapped(tmp_path: Path, wrap: Callable[[Any], str]) -> None:
    rows = [EVENT, {"_index": "i", "_source": EVENT | {"event_id": "e2"}}]
    for name in ("a.json", "b.ndjson.gz"):
        events, quarantine = read(write(tmp_path, name, wrap(rows)))
        assert [event["event_id"] for event in events] == ["e1", "e2"]
        assert quarantine == []


def test_a_whole_search_answer_is_read(tmp_path: Path) -> None:
    answer = {"took": 1, "hits": {"total": 1, "hits": [{"_source": EVENT}]}}
    assert len(read(write(tmp_path, "a.json", json.dumps(answer, indent=2)))[0]) == 1


def test_the_enriched_tsv_is_taken_apart_as_snowplow_does(tmp_path: Path) -> None:
    ((event,), quarantine) = read(write(tmp_path, "a.tsv.gz", tsv_line() + "\n"))
    assert quarantine == []
    assert event["time"] == event["derived_tstamp"] == "2013-11-26T00:03:57.886000Z"
    assert (event["user_id"], event["name"], event["geo_longitude"]) == ("bc2e92ec6c204a14", "link_click", -122.4124)
    assert event["unstruct_event"] == {"com_snowplowanalytics_snowplow_link_click_1": {"elementId": "x"}}
    assert event["contexts"] == {
        "org_schema_web_page_1": [{"genre": "blog"}, {"genre": "news"}],
        "com_snowplowanalytics_snowplow_ua_parser_context_1": [{"osMajor": None}],
    }
    assert event["app_id"] == "angry-birds"
    assert event["useragent"] is None


def test_a_structured_event_is_named_by_its_category(tmp_path: Path) -> None:
    struct = {"event": "struct", "event_name": "event", "se_category": "ChipSelect", "se_value": "2.5"}
    ((event,), _) = read(write(tmp_path, "a.tsv", tsv_line(**struct, unstruct_event="")))
    assert (event["name"], event["se_value"]) == ("ChipSelect", 2.5)


SOON = (datetime.now(UTC) + timedelta(hours=25)).isoformat()


@pytest.mark.parametrize(
    ("reason", "row"),
    [
        ("no_user", EVENT | {"user_id": None, "domain_userid": ""}),
        ("no_time", EVENT | {"derived_tstamp": None}),
        ("no_name", EVENT | {"event_name": ""}),
        ("no_name", EVENT | {"event_name": "event"}),
        ("time_unreadable", EVENT | {"derived_tstamp": "2026-02-30T10:00:00Z"}),
        ("time_unreadable", EVENT | {"etl_tstamp": "yesterday"}),
        ("time_in_future", EVENT | {"derived_tstamp": SOON}),
        ("number_unreadable", EVENT | {"se_value": "many"}),
        ("text_unreadable", EVENT | {"geo_city": ["a"]}),
        ("not_an_object", 7),
        ("not_an_object", []),
        ("not_an_object", [EVENT, 7]),
        ("not_an_object", {"_source": 7}),
    ],
)
def test_a_row_that_cannot_be_an_event_is_put_aside_with_the_reason(tmp_path: Path, reason: str, row: Any) -> None:
    path = write(tmp_path, "a.ndjson", lines(EVENT, row, EVENT))
    events, (bad,) = read(path)
    assert len(events) == 2
    assert (bad["reason"], bad["line"], bad["file"]) == (reason, 2, path)
    assert json.loads(bad["raw"]) == row
    assert len(bad["row_hash"]) == 64


@pytest.mark.parametrize(
    ("reason", "name", "line"),
    [
        ("not_json", "a.ndjson", b'{"user_id": '),
        ("invalid_utf8", "a.ndjson", b'{"user_id": "\xff"}'),
        ("invalid_utf8", "a.tsv", b"\xff" + b"\t" * 130),
        ("wrong_columns", "a.tsv", b"two\tfields"),
        ("not_json", "a.tsv", tsv_line(contexts="{").encode()),
        ("line_too_long", "a.ndjson", b'{"user_id": "' + b"x" * (5 << 20) + b'"}'),
    ],
)
def test_a_line_that_holds_no_row_is_put_aside_with_the_reason(
    tmp_path: Path, reason: str, name: str, line: Any
) -> None:
    good = tsv_line().encode() if name.endswith(".tsv") else json.dumps(EVENT).encode()
    events, (bad,) = read(write(tmp_path, name, b"\n".join([good, line, b"", good])))
    assert len(events) == 2
    assert (bad["reason"], bad["line"]) == (reason, 2)
    assert len(bad["raw"]) <= 64 << 10


def test_an_endless_line_takes_no_memory(tmp_path: Path) -> None:
    first = json.dumps(EVENT).encode() + b"\n"
    path = write(tmp_path, "a.ndjson.gz", first + b"x" * (300 << 20) + b"\n" + first)
    limited = runner.Program(("sh", "-c", f'ulimit -v 262144; exec {COMMAND} "$@"', "sh"))
    messages = list(runner.read(limited, {"paths": [path]}, CATALOG))
    assert sum(message["type"] == "RECORD" for message in messages) == 3


def test_zero_is_a_user_and_times_come_in_many_forms(tmp_path: Path) -> None:
    rows = [
        EVENT | {"user_id": 0},
        EVENT | {"derived_tstamp": "2026-01-31 12:00:00.5+02:00"},
        EVENT | {"derived_tstamp": 1769853600000},
        EVENT | {"derived_tstamp": "", "collector_tstamp": "2026-01-31T10:00:00"},
    ]
    events, quarantine = read(write(tmp_path, "a.ndjson", lines(*rows)))
    assert quarantine == []
    assert events[0]["user_id"] == "0"
    assert [event["time"] for event in events[1:]] == [
        "2026-01-31T10:00:00.500000Z",
        "2026-01-31T10:00:00Z",
        "2026-01-31T10:00:00Z",
    ]


def test_a_field_that_is_called_like_a_column_of_ours_is_not_that_column(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    foreign = {"name": "x", "time": "y", "contexts": "z", "unstruct_event": "z", "contexts_a_1": {"b": 1}}
    ((event,), _) = read(write(tmp_path, "a.ndjson", lines(EVENT | foreign)))
    assert (event["name"], event["time"]) == ("app_open", EVENT["derived_tstamp"])
    assert (event["unstruct_event"], event["contexts"]) == (None, {"a_1": [{"b": 1}]})
    assert "field name is not a Snowplow column: 1 not stored" in caplog.text


def test_an_id_is_made_from_the_content_alone(tmp_path: Path) -> None:
    bare = {key: value for key, value in EVENT.items() if key != "event_id"}
    turned = dict(reversed(bare.items()))
    events, _ = read(write(tmp_path, "a.ndjson", lines(bare, turned, bare | {"app_id": "x"})))
    first, second, third = (event["event_id"] for event in events)
    assert first == second != third
    assert first[14] == "8"


def test_fields_nobody_knows_are_told_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    row = EVENT | {"favourite_colour": "canary-blue", "page_url": "x"}
    events, _ = read(write(tmp_path, "a.ndjson", lines(row, row)))
    assert "favourite_colour" not in events[0]
    assert "favourite_colour is not a Snowplow column: 2 not stored" in caplog.text
    assert "page_url" not in caplog.text
    assert "canary-blue" not in caplog.text


def test_a_file_that_grew_is_read_again(tmp_path: Path) -> None:
    path = write(tmp_path, "a.ndjson", lines(EVENT))
    messages = list(runner.read(PROGRAM, {"paths": [path]}, CATALOG))
    state = [message["state"] for message in messages if message["type"] == "STATE"]
    assert len(state) == 2
    write(tmp_path, "a.ndjson", lines(EVENT, EVENT))
    again = runner.read(PROGRAM, {"paths": [path]}, CATALOG, state)
    assert sum(message["type"] == "RECORD" for message in again) == 2


def test_a_file_that_is_gone_is_a_matter_of_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.paths\.0: No such file"):
        read(str(tmp_path / "gone.tsv"))


def test_it_reads_quickly(tmp_path: Path, record_testsuite_property: Callable[[str, object], None]) -> None:
    row = json.loads(TUSK.read_text())["_source"] | {"event_id": "x"}
    path = write(tmp_path, "a.ndjson", orjson.dumps(row) + b"\n")
    Path(path).write_bytes((orjson.dumps(row) + b"\n") * 20_000)
    started = time.perf_counter()
    events, _ = read(path)
    record_testsuite_property("source-snowplow events_per_second", round(20_000 / (time.perf_counter() - started)))
    assert len(events) == 20_000
