import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from traitmesh_connector import runner
from traitmesh_connector.conformance import DestinationConformance, DestinationSubject
from traitmesh_connector.errors import ConfigError, TransientError
from traitmesh_connector.protocol import Stream, record_line

HERE = Path(__file__).parents[1]
COMMAND = str(HERE.parents[1] / ".envs/connectors/destination-slack/bin/destination-slack")
PROGRAM = runner.Program((COMMAND,))
TOKEN = "xoxb-canary-token"
USERS = Stream("risk", {"type": "object"}, "append_dedup", ("user_id",), "#alerts")


@dataclass
class Sink:
    port: int
    state_file: Path
    process: "subprocess.Popen[bytes] | None" = None

    def start(self, *options: str) -> "Sink":
        command = [sys.executable, "-m", "slack_sink", "--port", str(self.port), "--token", TOKEN]
        command += ["--state-file", str(self.state_file), "--channels", "alerts,other", *options]
        environment = os.environ | {"PYTHONPATH": str(HERE)}
        self.process = subprocess.Popen(command, env=environment)
        for _ in range(200):
            try:
                self.counts()
                return self
            except OSError:
                time.sleep(0.05)
        raise AssertionError("the sink did not start")

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def counts(self) -> Any:
        return self._ask("/sink/counts")

    def plan(self, fault: str, method: str = "chat.postMessage", times: int = 1) -> None:
        self._ask("/sink/faults", {"method": method, "fault": fault, "times": times})

    def membership(self, *, is_member: bool) -> None:
        self._ask("/sink/membership", {"channel": "alerts", "is_member": is_member})

    def call(self, method: str, token: str = TOKEN, **arguments: Any) -> Any:
        return self._ask(f"/api/{method}", arguments, {"Authorization": f"Bearer {token}"})

    def texts(self) -> list[str]:
        found = self.call("conversations.history", channel="alerts")["messages"]
        return [message["text"] for message in reversed(found)]

    def _ask(self, path: str, body: dict[str, Any] | None = None, headers: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            data,
            {"Content-Type": "application/json"} | (headers or {}),
        )
        with urllib.request.urlopen(request, timeout=5) as answer:
            return json.load(answer)

    @property
    def config(self) -> dict[str, Any]:
        return {"token": TOKEN, "base_url": f"http://127.0.0.1:{self.port}/api/"}


def make_sink(folder: Path, *options: str) -> Sink:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return Sink(port, folder / "sink.db").start(*options)


@pytest.fixture(scope="module")
def shared_sink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sink]:
    found = make_sink(tmp_path_factory.mktemp("sink"), "--posts-per-second", "1000", "--burst", "1000")
    yield found
    found.stop()


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[Sink]:
    found = make_sink(tmp_path, "--posts-per-second", "1000", "--burst", "1000")
    yield found
    found.stop()


class TestConformance(DestinationConformance):
    @pytest.fixture
    def subject(self, shared_sink: Sink) -> DestinationSubject:
        return DestinationSubject(
            program=PROGRAM,
            config=shared_sink.config,
            bad_configs=[shared_sink.config | {"token": "xoxb-wrong-secret"}],
            stream=USERS,
            record=lambda number: {"user_id": f"u{number}", "name": "Ann", "level": number},
            written=lambda: shared_sink.counts()["#alerts"],
            text_field="name",
            per_batch=True,
        )


def send(
    sink: Sink,
    records: Any,
    *,
    operation: str = "upsert",
    key: Any = "k",
    resend: bool = False,
    to: Any = USERS,
    **config: Any,
) -> Any:
    lines = [
        record_line(to, r, operation=operation, idempotency_key=f"{key}{i}", resend=resend)
        for i, r in enumerate(records)
    ]
    acks: list[runner.Ack] = []
    batch = runner.Batch(0, lines)
    runner.write(PROGRAM, sink.config | config, to, [batch], acks.append, idle_timeout=30)
    return acks


def people(count: int) -> list[dict[str, Any]]:
    return [{"user_id": f"u{i}", "level": i} for i in range(count)]


def test_a_message_lists_records_by_the_template_and_counts_the_rest(sink: Sink) -> None:
    send(sink, people(5), template="{user_id} reached level {level}", records_per_message=2)
    send(sink, [{"user_id": "u9"}], operation="delete", key="gone")
    assert sink.texts() == [
        "*risk*: 5 in\n• u0 reached level 0\n• u1 reached level 1\n… and 3 more",
        "*risk*: 1 left\n• u9 left",
    ]


def test_a_value_can_neither_mention_nor_link_nor_reach_into_the_template(sink: Sink) -> None:
    send(sink, [{"user_id": "<!channel> & {level}", "level": 1}], template="{user_id} {absent}")
    assert sink.texts() == ["*risk*: 1 in\n• &lt;!channel&gt; &amp; {level} "]


@pytest.mark.parametrize("fault", ["commit_then_500", "500", "html_502", "reset"])
def test_a_batch_of_unknown_fate_is_posted_once(sink: Sink, fault: str) -> None:
    sink.plan(fault)
    with pytest.raises(TransientError):
        send(sink, people(2))
    assert sink.counts()[f"fault {fault}"] == 1
    send(sink, people(2), resend=True)
    assert sink.counts()["#alerts"] == 1


def test_the_search_for_a_posted_batch_goes_through_pages(sink: Sink) -> None:
    send(sink, people(2))
    for number in range(250):
        sink.call("chat.postMessage", channel="alerts", text=f"between {number}")
    send(sink, people(2), resend=True)
    assert sink.counts()["#alerts"] == 251


def test_short_rate_limits_are_sat_out(tmp_path: Path) -> None:
    sink = make_sink(tmp_path, "--posts-per-second", "0.4", "--burst", "1", "--retry-after", "1")
    try:
        batches = [
            runner.Batch(n, [record_line(USERS, r, operation="upsert", idempotency_key=f"{n}")])
            for n, r in enumerate(people(2))
        ]
        acks: list[runner.Ack] = []
        runner.write(PROGRAM, sink.config, USERS, batches, acks.append, idle_timeout=30)
        assert len(acks) == sink.counts()["#alerts"] == 2
        assert sink.counts()["status 429"] >= 1
    finally:
        sink.stop()


def test_a_long_rate_limit_is_handed_to_the_host(tmp_path: Path) -> None:
    sink = make_sink(tmp_path, "--posts-per-second", "0.001", "--burst", "1", "--retry-after", "90")
    try:
        send(sink, people(1))
        with pytest.raises(TransientError) as raised:
            send(sink, people(1), key="b")
        assert raised.value.retry_after == 90
    finally:
        sink.stop()


def test_what_a_person_must_mend_is_said(sink: Sink) -> None:
    sink.call("conversations.archive", channel="alerts")
    with pytest.raises(ConfigError, match=r"is_archived.*unarchive it"):
        send(sink, people(1))
    sink.call("conversations.unarchive", channel="alerts")
    sink.membership(is_member=False)
    with pytest.raises(ConfigError, match=r"not_in_channel.*invite it"):
        send(sink, people(1))
    sink.membership(is_member=True)
    with pytest.raises(ConfigError, match="invalid_auth"):
        send(sink, people(1), token="xoxb-other")
    absent = Stream("risk", {}, "append", (), "#absent")
    with pytest.raises(ConfigError, match="#absent: there is no such channel"):
        send(sink, people(1), to=absent)
    assert len(send(sink, people(1))) == 1


def test_discover_lists_the_channels(sink: Sink) -> None:
    operations = runner.discover(PROGRAM, sink.config)["operations"]
    assert {operation["object_name"] for operation in operations} == {"#alerts", "#other"}


def test_slack_being_away_is_transient(sink: Sink) -> None:
    sink.stop()
    with pytest.raises(TransientError, match="not reachable"):
        send(sink, people(1))


def test_a_post_without_an_answer_is_not_repeated_by_a_library() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        seen: list[bytes] = []

        def hang_up() -> None:
            for _ in range(5):
                connection, _address = server.accept()
                with connection:
                    seen.append(connection.recv(1 << 16))

        threading.Thread(target=hang_up, daemon=True).start()
        sink = Sink(server.getsockname()[1], Path())
        by_id = Stream("risk", {}, "append", (), "C000000001")
        with pytest.raises(TransientError, match="not reachable"):
            send(sink, people(1), to=by_id)
        assert len(seen) == 1
        assert b"chat.postMessage" in seen[0]


def test_the_sink_keeps_its_state_over_a_kill(sink: Sink) -> None:
    send(sink, people(1))
    sink.call("conversations.archive", channel="other")
    sink.stop()
    sink.start()
    assert sink.counts()["#alerts"] == 1
    assert sink.call("conversations.archive", channel="other")["error"] == "already_archived"


@pytest.mark.parametrize(
    ("method", "arguments", "error"),
    [
        ("chat.postMessage", {"channel": "absent", "text": "x"}, "channel_not_found"),
        ("chat.postMessage", {"channel": "alerts"}, "no_text"),
        ("chat.postMessage", {"channel": "alerts", "text": "x" * 40_001}, "msg_too_long"),
        ("chat.postMessage", {"channel": "alerts", "text": "x", "metadata": "{"}, "invalid_metadata_format"),
        ("conversations.history", {"channel": "alerts", "limit": 5000}, "invalid_limit"),
        ("conversations.unarchive", {"channel": "alerts"}, "not_archived"),
        ("users.list", {}, "unknown_method"),
        ("auth.test", {"token": "xoxb-wrong"}, "invalid_auth"),
    ],
)
def test_the_sink_refuses_what_slack_refuses(shared_sink: Sink, method: str, arguments: Any, error: Any) -> None:
    token = arguments.pop("token", TOKEN)
    assert shared_sink.call(method, token, **arguments) == {"ok": False, "error": error}
