"""The suite that every connector passes; a connector's tests subclass it and say what to talk to.

    class TestConformance(DestinationConformance):
        @pytest.fixture
        def subject(self, server): return DestinationSubject(program=..., config=..., ...)

Each test talks to the program as a host would, over stdin and stdout, and looks at the other side for
what arrived. A suite that only asked the program would believe it.
"""

import itertools
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jsonschema_rs
import orjson
import pytest

from traitmesh_connector import runner
from traitmesh_connector.errors import ConfigError, ConnectorError
from traitmesh_connector.process import ChildProcess
from traitmesh_connector.protocol import (
    OPERATION_OF_MODE,
    Guarantee,
    Message,
    Stream,
    catalog_of,
    decode,
    record_line,
    stream_status,
)
from traitmesh_connector.redaction import secret_values

_SECRET_NAME = re.compile(r"token|password|secret|api_?key|credential", re.IGNORECASE)
_CANARY = "canary-7f3a91"
_numbers = itertools.count(1)

HOSTILE_VALUES: Sequence[Any] = (
    0,
    "",
    None,
    2**63 - 1,
    "👩‍👩‍👧 é e\u0301 \u202eabc",
    "x" * 1_000_000,
    "a\u0000b",
    "<!channel> {level} ' \" \\ \n\t %s",
    {"a": [1, {"b": None}]},
)


@dataclass(frozen=True)
class Transcript:
    """What one run of a program said and how it ended."""

    messages: Sequence[Message]
    stdout: bytes
    stderr: bytes
    exit_code: int | None

    def of(self, kind: str) -> list[Message]:
        """Return the messages of a type."""
        return [message for message in self.messages if message["type"] == kind]

    @property
    def failure(self) -> Message | None:
        """The error of the TRACE ERROR message, if there is one."""
        errors = [m["trace"]["error"] for m in self.of("TRACE") if m["trace"]["type"] == "ERROR"]
        return errors[0] if errors else None


def talk(
    program: runner.Program,
    command: str,
    documents: Mapping[str, Any],
    lines: Sequence[bytes] = (),
    *,
    timeout: float = 30.0,
) -> Transcript:
    """Run a command, send it lines, end its input, and return all that it said."""
    stdout: list[bytes] = []
    stderr: list[bytes] = []
    with ChildProcess(
        (*program.command, command),
        {option: orjson.dumps(document) for option, document in documents.items()},
        {},
        line_limit=program.line_limit,
        on_stderr=stderr.append,
    ) as child:
        try:
            child.send(b"".join(line.rstrip(b"\n") + b"\n" for line in lines))
        except BrokenPipeError:
            stderr.append(b"(the program stopped reading)")
        child.end_input()
        for found in child.lines(lambda: child.last_heard + timeout):
            stdout += found
        exit_code = child.exit_code(program.grace)
    messages = [message for line in stdout if (message := decode(line)) is not None]
    return Transcript(messages, b"\n".join(stdout), b"\n".join(stderr), exit_code)


class _Conformance:
    """What sources and destinations have in common."""

    def test_spec_is_valid_and_marks_secrets(self, subject: Any) -> None:
        spec = runner.spec(subject.program)
        schema = spec["connectionSpecification"]
        jsonschema_rs.validator_for(schema)
        assert schema["type"] == "object"
        for name, kind in schema.get("properties", {}).items():
            if _SECRET_NAME.search(name) and kind.get("type") == "string":
                assert kind.get("airbyte_secret"), f"{name} looks like a secret and is not marked"

    def test_spec_is_quick(self, subject: Any, record_testsuite_property: Callable[[str, object], None]) -> None:
        started = time.perf_counter()
        runner.spec(subject.program)
        taken = round((time.perf_counter() - started) * 1000)
        record_testsuite_property(f"{subject.program.name} spec_ms", taken)

    def test_check_succeeds(self, subject: Any) -> None:
        assert runner.check(subject.program, subject.config) == runner.ConnectionStatus(True)

    def test_check_refuses_bad_configs_without_telling_secrets(self, subject: Any) -> None:
        schema = runner.spec(subject.program)["connectionSpecification"]
        assert subject.bad_configs, "name at least one config that the other side refuses"
        for config in subject.bad_configs:
            transcript = talk(subject.program, "check", {"--config": config})
            (status,) = transcript.of("CONNECTION_STATUS")
            assert status["connectionStatus"]["status"] == "FAILED"
            assert status["connectionStatus"]["message"]
            _assert_silent(transcript, secret_values(config, schema))

    def test_a_config_of_the_wrong_type_is_named_by_its_path(self, subject: Any) -> None:
        properties = runner.spec(subject.program)["connectionSpecification"]["properties"]
        name = next(n for n, kind in properties.items() if kind.get("type") == "string" or n == "paths")
        status = runner.check(subject.program, subject.config | {name: {_CANARY: 1}})
        assert not status.succeeded
        assert f"config.{name}" in status.message
        assert _CANARY not in status.message


@dataclass(frozen=True)
class DestinationSubject:
    """A destination under test.

    `record(i)` makes the i-th good record, each with a key of its own and personal text in
    `text_field`; `written()` counts what the other side holds now: records, or messages where a batch
    becomes one (`per_batch`). `bad_record(i)` makes one that the other side refuses, where there is
    such a thing. `bad_configs` fail the check.
    """

    program: runner.Program
    config: Mapping[str, Any]
    bad_configs: Sequence[Mapping[str, Any]]
    stream: Stream
    record: Callable[[int], dict[str, Any]]
    written: Callable[[], int]
    text_field: str
    bad_record: Callable[[int], dict[str, Any]] | None = None
    per_batch: bool = False

    def effects(self, batches: Sequence[runner.Batch], rejected: int = 0) -> int:
        """Return by how much `written` grows when these batches arrive."""
        return len(batches) if self.per_batch else sum(len(b.records) for b in batches) - rejected


class DestinationConformance(_Conformance):
    """The suite of destinations; `subject` is a fixture of the subclass."""

    def test_spec_names_guarantee_batch_size_and_modes(self, subject: DestinationSubject) -> None:
        spec = runner.spec(subject.program)
        assert spec["traitmesh"]["guarantee"] in set(Guarantee)
        assert spec["traitmesh"]["batch_size"] > 0
        assert set(spec["supported_destination_sync_modes"]) <= OPERATION_OF_MODE.keys()

    def test_discover_lists_objects_with_modes_of_the_spec(self, subject: DestinationSubject) -> None:
        modes = runner.spec(subject.program)["supported_destination_sync_modes"]
        for operation in runner.discover(subject.program, subject.config)["operations"]:
            assert operation["object_name"]
            assert operation["sync_mode"] in modes
            jsonschema_rs.validator_for(operation["json_schema"])

    def test_a_mode_that_the_spec_lacks_is_refused(self, subject: DestinationSubject) -> None:
        modes = set(runner.spec(subject.program)["supported_destination_sync_modes"])
        for mode in {*OPERATION_OF_MODE, "soft_delete"} - modes:
            stream = replace(subject.stream, sync_mode=mode)
            with pytest.raises(ConfigError, match=mode):
                runner.write(subject.program, subject.config, stream, [], _ignore)

    def test_batches_arrive_and_are_acknowledged(self, subject: DestinationSubject) -> None:
        batches = [_batch(subject, n, [_record(subject) for _ in range(5)]) for n in range(3)]
        before = subject.written()
        acks = _write(subject, batches)
        assert [(a.batch_id, a.record_count, a.rejects) for a in acks] == [
            (0, 5, ()),
            (1, 5, ()),
            (2, 5, ()),
        ]
        assert subject.written() - before == subject.effects(batches)

    def test_a_batch_sent_again_keeps_the_guarantee(self, subject: DestinationSubject) -> None:
        guarantee = runner.spec(subject.program)["traitmesh"]["guarantee"]
        records = [_record(subject) for _ in range(3)]
        key = f"again-{next(_numbers)}"
        before = subject.written()
        _write(subject, [_batch(subject, 0, records, key=key)])
        _write(subject, [_batch(subject, 0, records, key=key, resend=True)])
        once = subject.effects([_batch(subject, 0, records)])
        assert subject.written() - before in ({once, 2 * once} if "least" in guarantee else {once})

    def test_a_hostile_value_harms_no_other_record(self, subject: DestinationSubject) -> None:
        batches = []
        for number, value in enumerate(HOSTILE_VALUES):
            hostile = _record(subject) | {subject.text_field: value}
            batches.append(_batch(subject, number, [_record(subject), hostile, _record(subject)]))
        before = subject.written()
        acks = _write(subject, batches)
        rejected = [reject.index for ack in acks for reject in ack.rejects]
        assert len(acks) == len(batches)
        assert set(rejected) <= {1}
        assert subject.written() - before == subject.effects(batches, len(rejected))

    def test_one_bad_record_is_exactly_that_reject(self, subject: DestinationSubject) -> None:
        if subject.bad_record is None:
            return
        batches = []
        for number, place in enumerate((0, 3, 6)):
            records = [_record(subject) for _ in range(7)]
            records[place] = subject.bad_record(next(_numbers))
            batches.append(_batch(subject, number, records))
        before = subject.written()
        acks = _write(subject, batches)
        assert [[r.index for r in ack.rejects] for ack in acks] == [[0], [3], [6]]
        assert re.fullmatch(r"[a-z0-9_]+", acks[0].rejects[0].code)
        assert subject.written() - before == subject.effects(batches, 3)

    def test_state_is_echoed_whole_with_counts(self, subject: DestinationSubject) -> None:
        transcript = _talk_write(
            subject, [*_lines(subject, 2), _state(subject, 1), *_lines(subject, 1), _state(subject, 2)]
        )
        states = [message["state"] for message in transcript.of("STATE")]
        assert [s["stream"]["stream_state"] for s in states] == [{"cursor": 1}, {"cursor": 2}]
        assert [s["unknown"] for s in states] == ["kept", "kept"]
        assert [s["destinationStats"]["recordCount"] for s in states] == [2, 1]
        assert transcript.exit_code == 0

    @pytest.mark.parametrize(
        "line",
        [
            f'{{"type": "RECORD", "record": {{"{_CANARY}'.encode(),
            f'{{"type": "RECORD", "record": {{"stream": "s", "data": {{"{_CANARY}": NaN}}}}}}'.encode(),
            f'{{"type": "RECORD", "{_CANARY}": 1}}'.encode(),
            f'{{"type": "RECORD", "record": {{"stream": "{_CANARY}", "data": {{}}}}}}'.encode(),
            f"\xff\xfe {_CANARY}".encode("latin-1"),
            b"[]",
        ],
        ids=["cut", "nan", "no_body", "other_stream", "not_utf8", "not_an_object"],
    )
    def test_a_line_that_is_no_message_stops_it(self, subject: DestinationSubject, line: bytes) -> None:
        before = subject.written()
        transcript = _talk_write(subject, [*_lines(subject, 2), line, _state(subject, 1)])
        assert transcript.exit_code != 0
        assert transcript.failure is not None
        assert not transcript.of("STATE")
        assert subject.written() == before
        _assert_silent(transcript, {_CANARY})

    def test_an_early_end_of_input_writes_nothing_more(self, subject: DestinationSubject) -> None:
        before = subject.written()
        lines = [*_lines(subject, 2), _state(subject, 1), *_lines(subject, 2)]
        transcript = _talk_write(subject, lines, complete=False)
        assert len(transcript.of("STATE")) == 1
        assert transcript.exit_code != 0
        assert transcript.failure is not None
        assert subject.written() - before == (1 if subject.per_batch else 2)

    def test_nothing_secret_or_personal_is_said(self, subject: DestinationSubject) -> None:
        schema = runner.spec(subject.program)["connectionSpecification"]
        lines = _lines(subject, 3)
        if subject.bad_record is not None:
            bad = subject.bad_record(next(_numbers)) | {subject.text_field: _CANARY}
            lines.append(_line(subject, bad, "bad"))
        transcript = _talk_write(subject, [*lines, _state(subject, 1)])
        assert len(transcript.of("STATE")) == 1
        _assert_silent(transcript, {_CANARY, *secret_values(subject.config, schema)})


def _ignore(ack: runner.Ack) -> None:
    del ack


def _record(subject: DestinationSubject) -> dict[str, Any]:
    return subject.record(next(_numbers))


def _line(subject: DestinationSubject, data: Mapping[str, Any], key: str, *, resend: bool = False) -> bytes:
    operation = OPERATION_OF_MODE[subject.stream.sync_mode]
    return record_line(subject.stream, data, operation=operation, idempotency_key=key, resend=resend)


def _batch(
    subject: DestinationSubject,
    number: int,
    records: Sequence[dict[str, Any]],
    *,
    key: str = "",
    resend: bool = False,
) -> runner.Batch:
    # Keys must be new in every test but one, since the other side remembers them.
    key = key or f"key-{next(_numbers)}"
    lines = [_line(subject, r, f"{key}-{i}", resend=resend) for i, r in enumerate(records)]
    return runner.Batch(number, lines)


def _write(subject: DestinationSubject, batches: Sequence[runner.Batch]) -> list[runner.Ack]:
    acks: list[runner.Ack] = []
    runner.write(subject.program, subject.config, subject.stream, batches, acks.append, idle_timeout=60)
    return acks


def _lines(subject: DestinationSubject, count: int) -> list[bytes]:
    records = [_record(subject) | {subject.text_field: _CANARY} for _ in range(count)]
    return [_line(subject, record, f"line-{next(_numbers)}") for record in records]


def _state(subject: DestinationSubject, cursor: int) -> bytes:
    stream = {"stream_descriptor": subject.stream.descriptor, "stream_state": {"cursor": cursor}}
    state = {"type": "STREAM", "stream": stream, "unknown": "kept"}
    return orjson.dumps({"type": "STATE", "state": state})


def _talk_write(subject: DestinationSubject, lines: Sequence[bytes], *, complete: bool = True) -> Transcript:
    documents = {"--config": subject.config, "--catalog": catalog_of(subject.stream)}
    end = [stream_status(subject.stream.descriptor, "COMPLETE")] if complete else []
    return talk(subject.program, "write", documents, [*lines, *end])


def _assert_silent(transcript: Transcript, secrets: set[str]) -> None:
    for secret in secrets:
        assert secret.encode() not in transcript.stdout, "stdout tells a secret or a value"
        assert secret.encode() not in transcript.stderr, "stderr tells a secret or a value"


@dataclass(frozen=True)
class SourceSubject:
    """A source under test; `expected` maps stream names to how many records a full read gives."""

    program: runner.Program
    config: Mapping[str, Any]
    bad_configs: Sequence[Mapping[str, Any]]
    expected: Mapping[str, int]


class SourceConformance(_Conformance):
    """The suite of sources; `subject` is a fixture of the subclass."""

    def test_a_read_gives_what_discover_promises(self, subject: SourceSubject) -> None:
        streams = runner.discover(subject.program, subject.config)["streams"]
        validators = {s["name"]: jsonschema_rs.validator_for(s["json_schema"]) for s in streams}
        assert subject.expected.keys() <= validators.keys()
        counts = dict.fromkeys(subject.expected, 0)
        for message in _read(subject, ()):
            if message["type"] == "RECORD":
                record = message["record"]
                assert validators[record["stream"]].is_valid(record["data"])
                counts[record["stream"]] += 1
        assert counts == subject.expected

    def test_a_read_goes_on_from_its_last_state(self, subject: SourceSubject) -> None:
        states = {}
        for message in _read(subject, ()):
            if message["type"] == "STATE":
                body = message["state"]
                states[body["stream"]["stream_descriptor"]["name"]] = body
        again = [m for m in _read(subject, list(states.values())) if m["type"] == "RECORD"]
        assert not [m for m in again if m["record"]["stream"] in states]

    def test_only_streams_of_the_catalog_are_read(self, subject: SourceSubject) -> None:
        name = next(iter(subject.expected))
        messages = runner.read(subject.program, subject.config, catalog_of(Stream(name, {})))
        records = [m["record"]["stream"] for m in messages if m["type"] == "RECORD"]
        assert records == [name] * subject.expected[name]

    def test_a_stream_that_it_lacks_is_refused(self, subject: SourceSubject) -> None:
        with pytest.raises(ConnectorError, match="no_such_stream"):
            list(runner.read(subject.program, subject.config, catalog_of(Stream("no_such_stream", {}))))


def _read(subject: SourceSubject, state: Sequence[Mapping[str, Any]]) -> Iterator[Message]:
    catalog = catalog_of(*(Stream(name, {}) for name in subject.expected))
    return runner.read(subject.program, subject.config, catalog, state)
