"""A program that breaks the protocol in one way: `hostile.py BEHAVIOUR COMMAND [OPTIONS]`."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any


def say(kind: str, body_key: str, body: Any) -> None:
    print(json.dumps({"type": kind, body_key: body}), flush=True)


def lines() -> Iterator[Any]:
    for line in sys.stdin:
        yield json.loads(line)


def states() -> Any:
    return (message["state"] for message in lines() if message["type"] == "STATE")


def echo(state: Any) -> None:
    say("STATE", "state", state)


def option(name: str) -> Any:
    with open(sys.argv[sys.argv.index(name) + 1]) as file:
        return json.load(file)


def status(value: object, name: str = "users") -> None:
    say(
        "TRACE",
        "trace",
        {"type": "STREAM_STATUS", "stream_status": {"stream_descriptor": {"name": name}, "status": value}},
    )


def error(failure_type: Any, **extra: Any) -> None:
    body = {"message": f"told {failure_type}", "failure_type": failure_type} | extra
    say("TRACE", "trace", {"type": "ERROR", "error": body})


def echo_all() -> None:
    for state in states():
        echo(state)


def echo_without_unknown_keys_and_with_nulls() -> None:
    for state in states():
        stream = state["stream"]
        descriptor = stream["stream_descriptor"] | {"namespace": None}
        echo({"type": "STREAM", "stream": stream | {"stream_descriptor": descriptor}, "data": None})


def skip_second() -> None:
    for number, state in enumerate(states()):
        if number != 1:
            echo(state)


def reorder() -> None:
    first, second, *_ = (next(waiting) for waiting in [states()] * 2)
    echo(second)
    echo(first)
    echo_all()


def duplicate() -> None:
    for state in states():
        echo(state)
        echo(state)


def invent() -> None:
    echo({"type": "STREAM", "stream": {"stream_descriptor": {"name": "users"}, "stream_state": {"batch": 0}}})
    echo_all()


def change() -> None:
    for state in states():
        state["stream"]["stream_state"]["batch"] += 1
        echo(state)


def never_echo() -> None:
    for _ in lines():
        pass


def reject_outside() -> None:
    for state in states():
        rejects = [{"index": 99, "code": "x", "message": "y"}]
        echo(state | {"traitmesh": {"rejects": rejects}})


def reject_unreadable() -> None:
    for state in states():
        echo(state | {"traitmesh": {"rejects": [{"index": "first"}]}})


def count_rejects_only() -> None:
    for state in states():
        echo(state | {"destinationStats": {"recordCount": 1, "rejectedRecordCount": 2}})


def crash_midway() -> None:
    for number, state in enumerate(states()):
        if number == 2:
            os.kill(os.getpid(), 9)
        echo(state)


def exit_badly_after_all() -> None:
    echo_all()
    sys.exit(3)


def exit_well_too_early() -> None:
    echo(next(states()))


def incomplete_but_exit_0() -> None:
    echo_all()
    status("INCOMPLETE")


def stall() -> None:
    next(states())
    time.sleep(60)


def stall_without_reading() -> None:
    time.sleep(60)


def error_then_hang() -> None:
    error("config_error")
    time.sleep(60)


def huge_line() -> None:
    sys.stdout.write("x" * 3_000_000)
    sys.stdout.flush()
    time.sleep(60)


def flood_stderr() -> None:
    for number, state in enumerate(states()):
        sys.stderr.write(f"noise {number} " * 200_000 + "\n")
        echo(state)


def log_what_it_holds() -> None:
    for message in lines():
        if message["type"] == "RECORD":
            print("dropped", json.dumps(message["record"]["data"]), flush=True)
            say("LOG", "log", {"level": "INFO", "message": f"users upsert {message['record']['data']['name']}"})
        elif message["type"] == "STATE":
            token = option("--config")["token"]
            say("LOG", "log", {"level": "ERROR", "message": f"token {token} for ann@example.com"})
            sys.stderr.write(f"password {token}\n")
            echo(message["state"])


def leave_workers() -> None:
    for state in states():
        workers = [subprocess.Popen(["sleep", "77"]).pid for _ in range(3)]
        echo(state | {"traitmesh": {"rejects": [], "workers": workers}})
        with open(option("--config")["path"], "w") as file:
            json.dump(workers, file)


def linger() -> None:
    echo_all()
    os.close(1)
    time.sleep(60)


def refuse_config() -> None:
    error("config_error")
    sys.exit(1)


def ask_for_patience() -> None:
    error("transient_error", traitmesh={"retry_after": 7.5})
    sys.exit(1)


def break_down() -> None:
    error("system_error")
    sys.exit(1)


def rotate_token() -> None:
    say("CONTROL", "control", {"type": "CONNECTOR_CONFIG", "connectorConfig": {"config": {"token": "new"}}})
    echo_all()


def environment() -> None:
    for state in states():
        with open(option("--config")["path"], "w") as file:
            json.dump({"environ": dict(os.environ), "argv": sys.argv, "files": [option("--catalog")] * 2}, file)
        echo(state)


def check_fails_with_exit_1() -> None:
    say("CONNECTION_STATUS", "connectionStatus", {"status": "FAILED", "message": "bad token s3cret-token"})
    sys.exit(1)


def silent_success() -> None:
    pass


def read_incomplete() -> None:
    status("STARTED")
    say("RECORD", "record", {"stream": "users", "data": {"id": 1}, "emitted_at": 1})
    status("INCOMPLETE")


def read_old_protocol() -> None:
    print("not a message")
    say("RECORD", "record", {"stream": "users", "data": {"id": 9223372036854775807}, "emitted_at": 1.0})


def read_one_of_two() -> None:
    status("COMPLETE")


def read_endlessly() -> None:
    while True:
        say("RECORD", "record", {"stream": "users", "data": {"id": 1}, "emitted_at": 1})


def read_crash() -> None:
    say("RECORD", "record", {"stream": "users", "data": {"id": 1}, "emitted_at": 1})
    sys.exit(1)


def read_state_twice() -> None:
    first, second = option("--state"), option("--state")
    say("STATE", "state", first[0])
    say("STATE", "state", second[0])
    status("COMPLETE")


if __name__ == "__main__":
    globals()[sys.argv[1]]()
