import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from traitmesh_connector import runner
from traitmesh_connector.errors import (
    ConfigError,
    ConnectorCrashed,
    ConnectorStalled,
    ProtocolError,
    TransientError,
)
from traitmesh_connector.protocol import Stream, catalog_of, record_line

HOSTILE = Path(__file__).parent / "hostile.py"
USERS = Stream("users", {"type": "object"}, "append_dedup", ("id",))
TOKEN = "s3cret-token"
STATE = {"type": "STREAM", "stream": {"stream_descriptor": {"name": "users"}, "stream_state": {}}}


def program(behaviour: str, **options: Any) -> runner.Program:
    return runner.Program((sys.executable, str(HOSTILE), behaviour), **options)


def batches(count: int, size: int = 3, pulled: list[int] | None = None) -> Iterator[Any]:
    for number in range(count):
        if pulled is not None:
            pulled.append(number)
        yield runner.Batch(
            number,
            [
                record_line(
                    USERS,
                    {"id": f"{number}-{i}", "name": "Ann", "mail": "ann@example.com"},
                    operation="upsert",
                    idempotency_key=f"{number}-{i}",
                )
                for i in range(size)
            ],
        )


def send(behaviour: str, count: int = 6, config: Any = None, grace: float = 10.0, **options: Any) -> list[runner.Ack]:
    acks: list[runner.Ack] = []
    try:
        runner.write(
            program(behaviour, config_schema=SCHEMA, grace=grace),
            config or {"token": TOKEN},
            USERS,
            batches(count),
            acks.append,
            **({"idle_timeout": 5.0} | options),
        )
    except BaseException as error:
        error.add_note(ACKS + ",".join(str(ack.batch_id) for ack in acks))
        raise
    return acks


ACKS = "acknowledged: "


def acknowledged(raised: pytest.ExceptionInfo[BaseException]) -> list[int]:
    """Return the batches that were acknowledged before the error, which `send` notes on it."""
    (note,) = raised.value.__notes__
    return [int(number) for number in note.removeprefix(ACKS).split(",") if number]


SCHEMA = {"properties": {"token": {"type": "string", "airbyte_secret": True}}}


@pytest.mark.parametrize("behaviour", ["echo_all", "echo_without_unknown_keys_and_with_nulls"])
def test_every_batch_is_acknowledged_in_order(behaviour: str) -> None:
    acks = send(behaviour)
    assert [ack.batch_id for ack in acks] == [0, 1, 2, 3, 4, 5]
    assert all(ack.record_count == 3 and not ack.rejects for ack in acks)


def test_no_batches_is_a_good_run() -> None:
    assert send("echo_all", count=0) == []


@pytest.mark.parametrize(
    ("behaviour", "confirmed"),
    [
        ("skip_second", [0]),
        ("reorder", []),
        ("duplicate", [0]),
        ("invent", []),
        ("change", []),
        ("reject_outside", []),
        ("reject_unreadable", []),
        ("exit_well_too_early", [0]),
    ],
)
def test_a_wrong_echo_fails_the_run_and_confirms_nothing_untrue(behaviour: str, confirmed: Any) -> None:
    with pytest.raises(ProtocolError) as raised:
        send(behaviour)
    assert acknowledged(raised) == confirmed


def test_a_foreign_destination_may_count_rejects_without_naming_them() -> None:
    (ack,) = send("count_rejects_only", count=1)
    assert (ack.rejects, ack.rejected_count) == ((), 2)


@pytest.mark.parametrize(
    ("behaviour", "error", "confirmed"),
    [
        ("crash_midway", ConnectorCrashed, 2),
        ("exit_badly_after_all", ConnectorCrashed, 6),
        ("incomplete_but_exit_0", ConnectorCrashed, 6),
        ("refuse_config", ConfigError, 0),
        ("ask_for_patience", TransientError, 0),
        ("break_down", ConnectorCrashed, 0),
        ("silent_success", ProtocolError, 0),
    ],
)
def test_exit_code_and_messages_are_judged_together(behaviour: str, error: Any, confirmed: Any) -> None:
    with pytest.raises(error) as raised:
        send(behaviour)
    assert len(acknowledged(raised)) == confirmed


def test_the_time_to_wait_crosses_the_process() -> None:
    with pytest.raises(TransientError, match="told transient_error") as raised:
        send("ask_for_patience")
    assert raised.value.retry_after == 7.5


@pytest.mark.parametrize("behaviour", ["stall", "stall_without_reading", "never_echo"])
def test_a_stall_ends_within_the_idle_timeout(behaviour: str) -> None:
    started = time.monotonic()
    with pytest.raises((ConnectorStalled, ProtocolError)):
        send(behaviour, idle_timeout=1.0)
    assert 0.9 < time.monotonic() - started < 4


def test_an_error_told_before_a_hang_is_the_one_raised() -> None:
    with pytest.raises(ConfigError, match="told config_error"):
        send("error_then_hang", idle_timeout=30.0, grace=0.5)


def test_a_program_that_does_not_exit_is_ended() -> None:
    with pytest.raises(ConnectorStalled, match="did not exit") as raised:
        send("linger", grace=0.3)
    assert len(acknowledged(raised)) == 6


def test_only_so_many_batches_are_pulled_ahead_of_their_acknowledgement() -> None:
    pulled: list[int] = []
    with pytest.raises(ConnectorStalled):
        runner.write(
            program("stall_without_reading"),
            {},
            USERS,
            batches(1000, 1, pulled),
            lambda ack: None,
            max_unacked_batches=3,
            idle_timeout=1.0,
        )
    assert pulled == [0, 1, 2]


def test_silence_while_nothing_is_owed_is_no_stall() -> None:
    def slowly() -> Iterator[Any]:
        for batch in batches(2):
            yield batch
            time.sleep(1.2)

    acks: list[runner.Ack] = []
    runner.write(program("echo_all"), {}, USERS, slowly(), acks.append, idle_timeout=0.6)
    assert len(acks) == 2


def test_a_line_over_the_limit_is_refused() -> None:
    small = program("huge_line", line_limit=1_000_000)
    with pytest.raises(ProtocolError, match="longer than 1000000 bytes"):
        runner.write(small, {}, USERS, batches(1), lambda ack: None, idle_timeout=5)


def test_a_flood_on_stderr_does_not_block() -> None:
    assert len(send("flood_stderr")) == 6


def test_nothing_secret_or_personal_reaches_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    send("log_what_it_holds", count=2)
    assert "dropped" in caplog.text
    assert "users upsert" in caplog.text
    assert "password ***" in caplog.text
    for canary in (TOKEN, "Ann", "ann@example.com", "0-1"):
        assert canary not in caplog.text


def test_workers_the_program_left_behind_are_ended(tmp_path: Path) -> None:
    path = tmp_path / "workers.json"
    assert len(send("leave_workers", count=1, config={"path": str(path)})) == 1
    workers = json.loads(path.read_text())
    assert len(workers) == 3
    end = time.monotonic() + 2
    while any(map(_alive, workers)) and time.monotonic() < end:
        time.sleep(0.01)
    assert not any(map(_alive, workers))


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_the_environment_is_minimal_and_secrets_are_in_memory_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKER_PASSWORD", "hidden")
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    path = tmp_path / "seen.json"
    config = {"path": str(path), "token": TOKEN}
    send("environment", count=1, config=config, environment={"TRACEPARENT": "00-1-2-01"})
    seen = json.loads(path.read_text())
    assert seen["environ"].keys() - {"LC_CTYPE"} == {"PATH", "LANG", "PYTHONUNBUFFERED", "TRACEPARENT"}
    assert TOKEN not in str(seen["argv"])
    assert seen["files"][0] == seen["files"][1]


def test_a_callback_that_raises_ends_the_program() -> None:
    def refuse(ack: runner.Ack) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        runner.write(program("echo_all"), {}, USERS, batches(50), refuse)
    assert not _feeders()


def test_batches_that_raise_end_the_program() -> None:
    def failing() -> Iterator[Any]:
        yield from batches(2)
        raise ZeroDivisionError

    acks: list[runner.Ack] = []
    with pytest.raises(ZeroDivisionError):
        runner.write(program("echo_all"), {}, USERS, failing(), acks.append)
    assert [ack.batch_id for ack in acks] in ([], [0], [0, 1])
    assert not _feeders()


def _feeders() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name == "connector-feeder"]


def test_a_rotated_config_is_handed_over() -> None:
    seen: list[Any] = []
    runner.write(program("rotate_token"), {}, USERS, batches(1), lambda ack: None, on_config=seen.append)
    assert seen == [{"token": "new"}]


def test_a_failed_check_is_an_answer_whatever_the_exit_code() -> None:
    status = runner.check(program("check_fails_with_exit_1"), {"token": TOKEN})
    assert status == runner.ConnectionStatus(False, "bad token ***")


@pytest.mark.parametrize("ask", [runner.check, runner.discover])
def test_no_answer_is_an_error(ask: Callable[..., object]) -> None:
    with pytest.raises(ProtocolError, match="without an answer"):
        ask(program("silent_success"), {})


def test_a_program_that_is_missing_is_a_matter_of_configuration() -> None:
    with pytest.raises(ConfigError, match="cannot be started"):
        runner.spec(runner.Program(("/nonexistent/destination-x",)))


def read(behaviour: str, *names: str, **options: Any) -> list[dict[str, Any]]:
    streams = [Stream(name, {}) for name in names or ("users",)]
    return list(runner.read(program(behaviour), {}, catalog_of(*streams), **options))


def test_a_source_of_the_old_protocol_is_read_exactly() -> None:
    (message,) = read("read_old_protocol")
    assert message["record"]["data"] == {"id": 2**63 - 1}


def test_each_message_comes_with_its_line() -> None:
    pairs = list(runner.read_lines(program("read_state_twice"), {}, catalog_of(USERS), [STATE]))
    assert len(pairs) == 2
    assert all(orjson.loads(line) == message for message, line in pairs)


def test_state_reaches_the_source_even_if_it_reads_it_twice() -> None:
    assert [message["state"] for message in read("read_state_twice", state=[STATE])] == [STATE, STATE]


@pytest.mark.parametrize("behaviour", ["read_incomplete", "read_crash"])
def test_a_source_that_failed_is_not_believed(behaviour: str) -> None:
    source = runner.read(program(behaviour), {}, catalog_of(USERS))
    assert next(source)["type"] == "RECORD"
    with pytest.raises(ConnectorCrashed):
        next(source)


def test_a_stream_without_complete_is_not_believed() -> None:
    with pytest.raises(ConnectorCrashed, match="without COMPLETE of other"):
        read("read_one_of_two", "users", "other")


def test_closing_the_reader_ends_an_endless_source() -> None:
    before = set(os.listdir("/proc"))
    source = runner.read(program("read_endlessly"), {}, catalog_of(USERS))
    next(source)
    assert isinstance(source, Generator)
    source.close()
    mine = [pid for pid in set(os.listdir("/proc")) - before if pid.isdigit()]
    assert not [pid for pid in mine if _alive(int(pid)) and b"read_endlessly" in _command(pid)]


def _command(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""
