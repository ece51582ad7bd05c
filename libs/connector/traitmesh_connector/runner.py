"""Runs any program that speaks the Airbyte protocol, ours or foreign, and believes none of them.

Success is judged by exit code, STREAM_STATUS, TRACE ERROR and STATE together, since each of them lies
alone: programs exit 0 after failing and non-zero after committing. Every failure is a `ConnectorError`
whose message is safe to show. What a program logs arrives, redacted, at the logger
`traitmesh_connector.runner`.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import orjson

from traitmesh_connector.delivery import Ack, Batch, Feeder, InFlight
from traitmesh_connector.errors import ConnectorCrashed, ProtocolError
from traitmesh_connector.hearing import Hearing, Program
from traitmesh_connector.process import ChildProcess
from traitmesh_connector.protocol import Message, Stream, body_of, catalog_of
from traitmesh_connector.redaction import Redactor, secret_values

__all__ = [
    "Ack",
    "Batch",
    "ConnectionStatus",
    "Program",
    "check",
    "discover",
    "read",
    "read_lines",
    "spec",
    "write",
]

IDLE_TIMEOUT = 300.0
ANSWER_TIMEOUT = 60.0
_OPERATIONS = ("insert", "upsert", "update", "delete")


@dataclass(frozen=True, slots=True)
class ConnectionStatus:
    """The answer to `check`; `message` says what is wrong."""

    succeeded: bool
    message: str = ""


def spec(program: Program, *, timeout: float = ANSWER_TIMEOUT) -> Message:
    """Return the SPEC body: `connectionSpecification`, supported modes, for ours `traitmesh`."""
    return _ask(program, "spec", None, timeout)


def check(program: Program, config: Mapping[str, Any], *, timeout: float = ANSWER_TIMEOUT) -> ConnectionStatus:
    """Ask whether the config works; a refusal is an answer, not an error."""
    body = _ask(program, "check", config, timeout)
    redact = Redactor(secret_values(config, program.config_schema))
    return ConnectionStatus(body.get("status") == "SUCCEEDED", redact(str(body.get("message") or "")))


def discover(program: Program, config: Mapping[str, Any], *, timeout: float = ANSWER_TIMEOUT) -> Message:
    """Return the body of the CATALOG (`streams`) or DESTINATION_CATALOG (`operations`)."""
    return _ask(program, "discover", config, timeout)


def read(
    program: Program,
    config: Mapping[str, Any],
    catalog: Mapping[str, Any],
    state: Sequence[Mapping[str, Any]] = (),
    *,
    idle_timeout: float = IDLE_TIMEOUT,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Message]:
    """Yield RECORD, STATE and CONTROL messages until the source has ended well.

    `state` lists the STATE bodies of the last run that were made durable. A CONTROL message with a
    new config must be stored before reading on. A failure raises after the last good message; closing
    the iterator ends the program.
    """
    lines = read_lines(program, config, catalog, state, idle_timeout=idle_timeout, environment=environment)
    with closing(lines):
        for message, _ in lines:
            yield message


def read_lines(
    program: Program,
    config: Mapping[str, Any],
    catalog: Mapping[str, Any],
    state: Sequence[Mapping[str, Any]] = (),
    *,
    idle_timeout: float = IDLE_TIMEOUT,
    environment: Mapping[str, str] | None = None,
) -> Generator[tuple[Message, bytes], None, None]:
    """Do what `read` does, and yield each message with the line that it came in.

    Whoever has a parser of their own gives it the line, instead of keeping and encoding what was decoded.
    """
    documents = {
        "--config": orjson.dumps(config),
        "--catalog": orjson.dumps(catalog),
        "--state": orjson.dumps(list(state)),
    }
    hearing = Hearing(program, Redactor(secret_values(config, program.config_schema)))
    with hearing.start("read", documents, environment) as child:
        child.end_input()
        for lines in child.lines(lambda: hearing.deadline(child.last_heard, idle_timeout)):
            for line in lines:
                message = hearing.hear(line)
                if message is not None and message["type"] in ("RECORD", "STATE", "CONTROL"):
                    yield message, line
        hearing.judge(child.exit_code(program.grace))
    silent = {configured["stream"]["name"] for configured in catalog["streams"]} - hearing.complete
    # Programs of before stream statuses say none at all; one that says some must say each.
    if hearing.complete and silent:
        raise ConnectorCrashed(f"{program.name} ended without COMPLETE of {', '.join(sorted(silent))}")


def write(
    program: Program,
    config: Mapping[str, Any],
    stream: Stream,
    batches: Iterable[Batch],
    on_ack: Callable[[Ack], None],
    *,
    max_unacked_batches: int = 4,
    idle_timeout: float = IDLE_TIMEOUT,
    environment: Mapping[str, str] | None = None,
    on_config: Callable[[Mapping[str, Any]], None] | None = None,
) -> None:
    """Send batches of one stream; return once all are acknowledged and the program ended well.

    `batches` is advanced on a thread of its own, one batch at a time and only while fewer than
    `max_unacked_batches` wait for their acknowledgement: being asked for a batch means that it is
    about to be sent. `on_ack` and `on_config` (a config the connector changed, to be stored at once)
    are called on this thread. If either raises, or this thread is interrupted, the program and all
    its children are killed, and the call returns when `batches` is not being advanced any more.
    `idle_timeout` counts seconds in which an acknowledgement is owed and nothing is said.
    """
    documents = {
        "--config": orjson.dumps(config),
        "--catalog": orjson.dumps(catalog_of(stream)),
    }
    secrets = secret_values(config, program.config_schema)
    in_flight = InFlight(stream)
    public = (stream.name, stream.object_name, *_OPERATIONS)
    hearing = Hearing(program, Redactor(secrets, in_flight.lines, public))
    with hearing.start("write", documents, environment) as child:
        feeder = Feeder(child, stream, in_flight, batches, max_unacked_batches)
        feeder.start()
        try:
            for message in _answers(child, hearing, feeder, in_flight, idle_timeout):
                if message["type"] == "STATE":
                    on_ack(_redacted(in_flight.acknowledge(message["state"]), Redactor(secrets)))
                    feeder.slots.release()
                elif message["type"] == "CONTROL" and on_config is not None:
                    on_config(message["control"].get("connectorConfig", {}).get("config", {}))
            exit_code = child.exit_code(program.grace)
        finally:
            # Killed first: the feeder may be waiting for the program to read.
            child.kill()
            feeder.stop()
    if feeder.error is not None:
        raise feeder.error
    hearing.judge(exit_code)
    if in_flight or not feeder.finished:
        raise ProtocolError(f"{program.name} ended with {len(in_flight)} batches not acknowledged")


def _answers(
    child: ChildProcess,
    hearing: Hearing,
    feeder: Feeder,
    in_flight: InFlight,
    idle_timeout: float,
) -> Iterator[Message]:
    """Yield a destination's messages until its output ends or there is no more to feed it."""

    def deadline() -> float | None:
        # While nothing is owed, the program waits for us and its silence is right.
        if not in_flight and not feeder.finished:
            return None
        return hearing.deadline(max(child.last_heard, in_flight.owed_since), idle_timeout)

    for lines in child.lines(deadline):
        if feeder.error is not None:
            raise feeder.error
        for line in lines:
            message = hearing.hear(line)
            if message is not None:
                yield message


def _redacted(ack: Ack, redact: Redactor) -> Ack:
    rejects = tuple(replace(reject, message=redact(reject.message)) for reject in ack.rejects)
    return replace(ack, rejects=rejects)


def _ask(program: Program, command: str, config: Mapping[str, Any] | None, timeout: float) -> Message:
    """Run a command that answers with one message, and return that message's body."""
    documents = {} if config is None else {"--config": orjson.dumps(config)}
    hearing = Hearing(program, Redactor(secret_values(config, program.config_schema)))
    answer = None
    with hearing.start(command, documents, None) as child:
        child.end_input()
        for lines in child.lines(lambda: hearing.deadline(child.last_heard, timeout)):
            for line in lines:
                answer = _answer(hearing.hear(line)) or answer
        exit_code = child.exit_code(program.grace)
    if answer is None:
        # An answer outweighs the exit code: some programs tell FAILED and then exit with 1.
        hearing.judge(exit_code)
        raise ProtocolError(f"{program.name} {command} ended without an answer")
    return answer


def _answer(message: Message | None) -> Message | None:
    kinds = ("SPEC", "CONNECTION_STATUS", "CATALOG", "DESTINATION_CATALOG")
    return body_of(message) if message is not None and message["type"] in kinds else None
