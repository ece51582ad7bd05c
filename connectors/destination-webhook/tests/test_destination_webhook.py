import json
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from traitmesh_connector import runner
from traitmesh_connector.conformance import DestinationConformance, DestinationSubject
from traitmesh_connector.errors import ConfigError, Reject, TransientError
from traitmesh_connector.protocol import Stream, record_line

ROOT = Path(__file__).parents[3]
COMMAND = str(ROOT / ".envs/connectors/destination-webhook/bin/destination-webhook")
PROGRAM = runner.Program((COMMAND,))
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
USERS = Stream("users", {"type": "object"}, "append_dedup", ("id",), "vip")


def load_module() -> Any:
    path = str(ROOT / "connectors/destination-webhook/destination_webhook.py")
    module = ModuleType("destination_webhook")
    SourceFileLoader("destination_webhook", path).exec_module(module)
    return module


class Receiver(ThreadingHTTPServer):
    """Remembers records by webhook-id; refuses a batch with `bad` records as `style` says."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.delivered: dict[str, list[dict[str, Any]]] = {}
        self.requests: list[tuple[dict[str, Any], bytes]] = []
        self.answers: list[tuple[int, dict[str, Any], bytes]] = []
        self.style = "index"

    @property
    def config(self) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.server_port}/hook"
        return {"url": url, "signing_secret": SECRET, "allow_private_addresses": True, "timeout": 2}

    def records(self) -> list[dict[str, Any]]:
        return [record["data"] for records in self.delivered.values() for record in records]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        receiver = self.server
        assert isinstance(receiver, Receiver)
        headers = {name.lower(): value for name, value in self.headers.items()}
        receiver.requests.append((headers, body))
        if receiver.answers:
            self._answer(*receiver.answers.pop(0))
        elif headers.get("authorization") == "Bearer wrong-secret":
            self._answer(401, {}, b"")
        else:
            self._take(headers["webhook-id"], json.loads(body)["data"]["records"])

    def _take(self, key: str, records: list[dict[str, Any]]) -> None:
        receiver = self.server
        assert isinstance(receiver, Receiver)
        bad = [i for i, record in enumerate(records) if record["data"].get("bad")]
        if bad and receiver.style == "whole":
            self._answer(422, {}, b"one of them is bad")
            return
        receiver.delivered[key] = [record for i, record in enumerate(records) if i not in bad]
        rejected = [{"index": i, "reason": "bad_field"} for i in bad]
        self._answer(200, {}, json.dumps({"rejected": rejected}).encode())

    def _answer(self, status: int, headers: dict[str, Any], body: bytes) -> None:
        self.send_response(status)
        for name, value in ({"content-length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


class TestConformance(DestinationConformance):
    @pytest.fixture
    def subject(self, receiver: Receiver) -> DestinationSubject:
        return DestinationSubject(
            program=PROGRAM,
            config=receiver.config,
            bad_configs=[
                receiver.config | {"authorization": "Bearer wrong-secret"},
                receiver.config | {"signing_secret": "whsec_!not-base64"},
                receiver.config | {"allow_private_addresses": False},
            ],
            stream=USERS,
            record=lambda number: {"id": number, "name": "Ann"},
            written=lambda: len(receiver.records()),
            text_field="name",
            bad_record=lambda number: {"id": number, "bad": True},
        )


def send(receiver: Receiver, count: int = 3, bad: Any = (), *, environment: Any = None, **config: Any) -> list[Reject]:
    records = [{"id": i} | ({"bad": True} if i in bad else {}) for i in range(count)]
    lines = [record_line(USERS, r, operation="upsert", idempotency_key=f"k{r['id']}") for r in records]
    acks: list[runner.Ack] = []
    runner.write(
        PROGRAM,
        receiver.config | config,
        USERS,
        [runner.Batch(0, lines)],
        acks.append,
        idle_timeout=30,
        environment=environment,
    )
    return [reject for ack in acks for reject in ack.rejects]


def test_the_signature_is_the_one_of_the_specification() -> None:
    headers = load_module().signed(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_batch_carries_its_key_signature_operation_and_trace(receiver: Receiver) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    send(receiver, 2, environment={"TRACEPARENT": trace}, authorization="Bearer right")
    ((headers, body),) = receiver.requests
    signed = load_module().signed(SECRET, headers["webhook-id"], int(headers["webhook-timestamp"]), body)
    assert headers["webhook-signature"] == signed["webhook-signature"]
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 30
    assert headers["traceparent"] == trace
    assert headers["authorization"] == "Bearer right"
    assert json.loads(body)["data"] == {
        "object": "vip",
        "key": ["id"],
        "records": [
            {"operation": "upsert", "idempotency_key": "k0", "data": {"id": 0}},
            {"operation": "upsert", "idempotency_key": "k1", "data": {"id": 1}},
        ],
    }


def test_the_id_is_the_same_when_the_batch_is_sent_again(receiver: Receiver) -> None:
    receiver.answers = [(503, {}, b"")]
    with pytest.raises(TransientError):
        send(receiver)
    send(receiver)
    first, second = (headers["webhook-id"] for headers, _ in receiver.requests)
    assert first == second
    assert len(receiver.records()) == 3


def test_a_batch_refused_whole_is_halved_to_the_bad_records(receiver: Receiver) -> None:
    receiver.style = "whole"
    rejects = send(receiver, 64, bad={0, 31, 63})
    assert [(r.index, r.code) for r in rejects] == [(0, "http_422"), (31, "http_422"), (63, "http_422")]
    assert len(receiver.records()) == 61
    assert len(receiver.requests) <= 2 * 3 * 7 + 1


def test_a_receiver_that_refuses_most_is_a_matter_of_configuration(receiver: Receiver) -> None:
    with pytest.raises(ConfigError, match="refuses 40 of 100"):
        send(receiver, 100, bad=set(range(40)))


@pytest.mark.parametrize("status", [301, 401, 403, 404, 405, 410])
def test_what_a_person_must_mend_is_said(receiver: Receiver, status: int) -> None:
    receiver.answers = [(status, {"location": "http://127.0.0.1:1/"}, b"canary")]
    with pytest.raises(ConfigError, match=f"status {status}: ") as raised:
        send(receiver)
    assert "canary" not in raised.value.message
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503])
def test_what_passes_is_tried_later(receiver: Receiver, status: int) -> None:
    receiver.answers = [(status, {}, b"")]
    with pytest.raises(TransientError, match=f"status {status}"):
        send(receiver)


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [("30", 30, 30), ("in ten minutes", 500, 600), ("soon", None, None)],
)
def test_the_time_to_wait_is_understood(receiver: Receiver, header: str, low: int | None, high: int | None) -> None:
    if header == "in ten minutes":
        header = formatdate(time.time() + 600, usegmt=True)
    receiver.answers = [(429, {"retry-after": header}, b"")]
    with pytest.raises(TransientError) as raised:
        send(receiver)
    wait = raised.value.retry_after
    assert (wait is None) == (low is None)
    assert wait is None or (low or 0) <= wait <= (high or 0)


def test_an_answer_that_breaks_off_is_transient(receiver: Receiver) -> None:
    receiver.answers = [(200, {"content-length": "1000"}, b'{"rej')]
    with pytest.raises(TransientError):
        send(receiver, timeout=0.5)


def test_a_reject_of_a_record_that_was_not_sent_stops(receiver: Receiver) -> None:
    receiver.answers = [(200, {}, b'{"rejected": [{"index": 3}]}')]
    with pytest.raises(ConfigError, match="was not sent"):
        send(receiver)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1", "0.0.0.0", "[::ffff:127.0.0.1]", "[::]"],
)
def test_private_addresses_are_not_connected_to(receiver: Receiver, host: str) -> None:
    url = f"https://{host}:{receiver.server_port}/"
    with pytest.raises(ConfigError, match="private address"):
        send(receiver, url=url, allow_private_addresses=False)
    assert receiver.requests == []


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("10.0.0.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("224.0.0.1", False),
        ("fd00::1", False),
        ("fe80::1%eth0", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::808:808", True),
        ("2002:7f00:1::", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:8.8.8.8", True),
    ],
)
def test_an_address_is_public_or_not(address: str, public: bool) -> None:
    assert load_module().is_public(address) is public


def test_public_addresses_need_tls(receiver: Receiver) -> None:
    with pytest.raises(ConfigError, match="must begin with https"):
        send(receiver, url="http://8.8.8.8/", allow_private_addresses=False)
