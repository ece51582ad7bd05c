import json
import shlex
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from traitmesh_connector import runner
from traitmesh_connector.conformance import DestinationConformance, DestinationSubject, talk
from traitmesh_connector.errors import ConfigError, ConnectorCrashed, TransientError
from traitmesh_connector.protocol import DELETED_AT, Stream, catalog_of, record_line, stream_status

HERE = Path(__file__).parent
USERS = Stream("users", {"type": "object"}, "append_dedup", ("id",), "vip")
OTHERS = Stream("others", {"type": "object"}, "append")


@pytest.fixture
def program(tmp_path: Path) -> runner.Program:
    """The program, which finds the SDK where it lies: hosts pass no PYTHONPATH on."""
    start = tmp_path / "destination-in-memory"
    python = f"PYTHONPATH={shlex.quote(str(HERE.parent))} exec {sys.executable}"
    start.write_text(f'#!/bin/sh\n{python} {shlex.quote(str(HERE / "in_memory.py"))} "$@"\n')
    start.chmod(0o755)
    return runner.Program((str(start),))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "written.jsonl"


def written(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


class TestConformance(DestinationConformance):
    @pytest.fixture
    def subject(self, program: runner.Program, path: Path) -> DestinationSubject:
        def count() -> int:
            records = [r for batch in written(path) for r in batch["records"]]
            return sum(not record[1].get("bad") for record in records)

        return DestinationSubject(
            program=program,
            config={"path": str(path), "token": "a-secret"},
            bad_configs=[{"path": 1, "token": "another-secret"}],
            stream=USERS,
            record=lambda number: {"id": number, "name": "Ann"},
            written=count,
            text_field="name",
            bad_record=lambda number: {"id": number, "bad": True},
        )


def line(
    data: dict[str, Any], *, stream: Stream = USERS, operation: str = "upsert", key: Any = "k", **options: Any
) -> bytes:
    return record_line(stream, data, operation=operation, idempotency_key=key, **options)


def state(kind: str = "STREAM", stream: Stream = USERS) -> bytes:
    body = {"stream_descriptor": stream.descriptor, "stream_state": {"cursor": 1}}
    bodies = {
        "STREAM": {"type": "STREAM", "stream": body},
        "GLOBAL": {"type": "GLOBAL", "global": {"stream_states": [body]}},
        "LEGACY": {"data": {"cursor": 1}},
    }
    return orjson.dumps({"type": "STATE", "state": bodies[kind]})


def write(program: runner.Program, path: Path, lines: Any, *streams: Stream, complete: bool = True) -> Any:
    streams = streams or (USERS,)
    end = [stream_status(stream.descriptor, "COMPLETE") for stream in streams] if complete else []
    documents = {"--config": {"path": str(path)}, "--catalog": catalog_of(*streams)}
    return talk(program, "write", documents, [*lines, *end])


def test_a_record_says_what_is_to_be_done(program: runner.Program, path: Path) -> None:
    plain = {"stream": "users", "emitted_at": 1}
    lines = [
        line({"id": 1}, operation="update", key="a", resend=True),
        line({"id": 2}, operation="delete", key="b"),
        orjson.dumps({"type": "RECORD", "record": plain | {"data": {"id": 3}}}),
        orjson.dumps({"type": "RECORD", "record": plain | {"data": {"id": 4, DELETED_AT: "2026-01-01"}}}),
    ]
    write(program, path, [*lines, state()])
    (batch,) = written(path)
    assert batch["records"] == [
        ["update", {"id": 1}, "a", True],
        ["delete", {"id": 2}, "b", False],
        ["upsert", {"id": 3}, None, False],
        ["delete", {"id": 4}, None, False],
    ]
    assert (batch["key"], batch["resend"], batch["pace"]) == (None, True, 7)


def test_a_large_batch_is_written_in_parts_and_rejects_count_from_its_start(
    program: runner.Program, path: Path
) -> None:
    rows = [{"id": i, "bad": i in (1, 5, 9)} for i in range(10)]
    transcript = write(program, path, [*map(line, rows), state()])
    assert [len(batch["records"]) for batch in written(path)] == [4, 4, 2]
    (echo,) = transcript.of("STATE")
    assert [reject["index"] for reject in echo["state"]["traitmesh"]["rejects"]] == [1, 5, 9]
    assert echo["state"]["destinationStats"] == {"recordCount": 7, "rejectedRecordCount": 3}


def test_a_batch_has_the_same_key_whenever_it_is_sent(program: runner.Program, path: Path) -> None:
    first = [line({"id": 1}, key="a"), line({"id": 2}, key="b"), state()]
    again = [line({"id": 1}, key="a", resend=True), line({"id": 2}, key="b", resend=True), state()]
    other = [line({"id": 1}, key="ab"), line({"id": 2}, key=""), state()]
    for lines in (first, again, other):
        write(program, path, lines)
    keys = [batch["key"] for batch in written(path)]
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize(("kind", "flushed"), [("STREAM", ["users"]), ("GLOBAL", ["users", "others"])])
def test_a_state_covers_its_stream_or_all(program: runner.Program, path: Path, kind: str, flushed: list[str]) -> None:
    lines = [line({"id": 1}), line({"id": 2}, stream=OTHERS), state(kind)]
    transcript = write(program, path, lines, USERS, OTHERS, complete=False)
    assert len(transcript.of("STATE")) == 1
    assert [batch["stream"] for batch in written(path)] == flushed


def test_complete_covers_a_source_that_knows_no_state(program: runner.Program, path: Path) -> None:
    transcript = write(program, path, [line({"id": 1})])
    assert len(written(path)) == 1
    assert transcript.exit_code == 0


def test_an_incomplete_stream_is_not_written_further(program: runner.Program, path: Path) -> None:
    lines = [line({"id": 1}), stream_status(USERS.descriptor, "INCOMPLETE")]
    transcript = write(program, path, lines, complete=False)
    assert written(path) == []
    assert transcript.failure is not None
    assert transcript.failure["message"].startswith("stdin ended before COMPLETE of users; 1 records")


def test_what_a_library_prints_breaks_no_message(program: runner.Program, path: Path) -> None:
    transcript = write(program, path, [line({"id": 1}), state()])
    assert b"a library that prints" in transcript.stderr
    assert b"prints" not in transcript.stdout


@pytest.mark.parametrize(
    ("fail", "error"), [("config", ConfigError), ("transient", TransientError), ("bug", ConnectorCrashed)]
)
def test_an_error_crosses_the_process_by_what_to_do(program: runner.Program, path: Path, fail: str, error: Any) -> None:
    batches = [runner.Batch(0, [line({"id": 1})]), runner.Batch(1, [line({"id": 2, "fail": fail})])]
    acks: list[runner.Ack] = []
    with pytest.raises(error) as raised:
        runner.write(program, {"path": str(path)}, USERS, batches, acks.append)
    assert [ack.batch_id for ack in acks] == [0]
    assert "canary-value" not in raised.value.message
    assert getattr(raised.value, "retry_after", 2.5) == 2.5


def test_a_bug_is_told_by_type_and_place(program: runner.Program, path: Path) -> None:
    transcript = write(program, path, [line({"id": 1, "fail": "bug"}), state()])
    assert transcript.failure is not None
    assert transcript.failure["message"].startswith("unexpected ValueError at in_memory.py:")
    assert b"canary-value" not in transcript.stdout + transcript.stderr


def test_a_trace_is_carried_on(program: runner.Program, path: Path) -> None:
    batch = [runner.Batch(0, [line({"id": 1})])]
    trace = {"TRACEPARENT": "00-1-2-01"}
    runner.write(program, {"path": str(path)}, USERS, batch, lambda ack: None, environment=trace)
    assert written(path)[0]["traceparent"] == "00-1-2-01"


def test_every_wrong_field_is_named_and_no_value_told(program: runner.Program) -> None:
    config = {"token": ["canary"], "nested": {"port": "canary"}, "pace": "canary"}
    message = runner.check(program, config).message
    for field in ("config.token: ", "config.nested.port: ", "config.pace: ", 'config: "path" is a required'):
        assert field in message
    assert "canary" not in message


def test_a_check_may_be_told_to_come_later(program: runner.Program) -> None:
    with pytest.raises(TransientError) as raised:
        runner.check(program, {"path": "away"})
    assert raised.value.retry_after == 3


@pytest.mark.parametrize("arguments", [[], ["dance"], ["check"], ["write", "--config", "/dev/null"]])
def test_a_wrong_command_line_is_refused(program: runner.Program, arguments: Any) -> None:
    transcript = talk(runner.Program((*program.command, *arguments[:1])), " ".join(arguments[1:]) or "--x", {})
    assert transcript.exit_code == 2
    assert transcript.messages == []


def test_a_config_that_is_missing_or_no_json_is_told(program: runner.Program, tmp_path: Path) -> None:
    for config in ("/nonexistent", str(HERE / "in_memory.py")):
        command = runner.Program((*program.command, "discover", "--config"))
        transcript = talk(command, config, {})
        assert transcript.failure is not None
        assert transcript.failure["failure_type"] == "config_error"
        assert "the config file" in transcript.failure["message"]
