"""The client against a gateway that answers as it is told, over HTTP."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from traitmesh import ApiError, Client
from traitmesh.client import ATTEMPTS
from traitmesh.settings import SettingsError, read_settings

Script = list[tuple[int, dict[str, str], Any]]


class Gateway(ThreadingHTTPServer):
    """Plays a script of answers, and keeps what it was asked."""

    script: Script
    asked: list[tuple[str, str, bytes]]


class _Handler(BaseHTTPRequestHandler):
    server: Gateway

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.server.asked.append((self.command, self.path, self.rfile.read(length)))
        status, headers, body = self.server.script.pop(0)
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PATCH = _answer  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keeps quiet."""


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    server = Gateway(("127.0.0.1", 0), _Handler)
    server.script, server.asked = [], []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def client(gateway: Gateway) -> Iterator[Client]:
    with Client(f"http://127.0.0.1:{gateway.server_port}", "tm_key", "tusk") as client:
        yield client


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds for which the client would have slept."""
    slept: list[float] = []
    monkeypatch.setattr("traitmesh.client.time.sleep", slept.append)
    return slept


PROBLEM = {
    "detail": "audience_id: must be 1 to 60 characters",
    "reason": "ERROR_REASON_INVALID_FIELD",
    "code": "INVALID_ARGUMENT",
    "violations": [{"field": "audience_id", "description": "must be 1 to 60 characters"}],
}


def test_a_refusal_names_the_fields(client: Client, gateway: Gateway) -> None:
    gateway.script = [(400, {}, PROBLEM)]
    with pytest.raises(ApiError, match="must be 1 to 60") as caught:
        client.create("audiences", {}, audienceId="")
    assert caught.value.violations == [("audience_id", "must be 1 to 60 characters")]
    assert len(gateway.asked) == 1


def test_a_restart_is_ridden_out_with_one_request_id(client: Client, gateway: Gateway) -> None:
    gateway.script = [(503, {}, {}), (409, {}, {"code": "ABORTED"}), (200, {}, {"name": "made"})]
    assert client.create("syncs", {"mode": "MODE_MIRROR"}, syncId="crm") == {"name": "made"}
    assert len(gateway.asked) == 3
    assert len(set(gateway.asked)) == 1
    assert "requestId=" in gateway.asked[0][1]


def test_a_gateway_that_is_not_there_is_told_at_once(pauses: list[float]) -> None:
    with Client("http://127.0.0.1:1", "tm_key") as client, pytest.raises(httpx.ConnectError):
        client.get("traits")
    assert pauses == []


def test_a_gateway_that_was_there_is_waited_for(client: Client, gateway: Gateway, pauses: list[float]) -> None:
    gateway.script = [(200, {}, {})]
    client.get("traits")
    gateway.shutdown()
    gateway.server_close()
    with pytest.raises(httpx.ConnectError):
        client.get("traits")
    assert len(pauses) == ATTEMPTS - 1


def test_what_exists_already_is_not_tried_again(client: Client, gateway: Gateway) -> None:
    gateway.script = [(409, {}, {"code": "ALREADY_EXISTS", "detail": "it exists already"})]
    with pytest.raises(ApiError, match="exists already"):
        client.create("syncs", {}, syncId="crm")


def test_pages_are_followed_to_the_end(client: Client, gateway: Gateway) -> None:
    gateway.script = [
        (200, {}, {"traits": [{"name": "a"}], "nextPageToken": "t"}),
        (200, {}, {"traits": [{"name": "b"}]}),
    ]
    assert [trait["name"] for trait in client.pages("traits", "traits")] == ["a", "b"]
    assert gateway.asked[1][1] == "/v1/workspaces/tusk/traits?pageToken=t"


def test_waiting_shows_each_state_and_ends(client: Client, gateway: Gateway) -> None:
    states = ["STATE_RUNNING", "STATE_RUNNING", "STATE_SUCCEEDED"]
    gateway.script = [(200, {}, {"state": state}) for state in states]
    seen: list[str] = []
    client.wait("workspaces/tusk/builds/1", ("STATE_RUNNING",), lambda resource: seen.append(resource["state"]))
    assert seen == states


def test_an_upload_is_made_afresh_for_each_attempt(client: Client, gateway: Gateway) -> None:
    gateway.script = [(503, {}, {}), (200, {}, {"name": "load"})]
    client.upload("projects/tusk:push", b"archive", "application/gzip")
    assert [body for _, _, body in gateway.asked] == [b"archive", b"archive"]


def test_address_and_key_are_found_or_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for name in ("TRAITMESH_URL", "TRAITMESH_API_KEY", "TRAITMESH_WORKSPACE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TRAITMESH_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match="set TRAITMESH_URL and TRAITMESH_API_KEY"):
        read_settings()
    (tmp_path / "client.json").write_text(json.dumps({"url": "http://here/", "api_key": "kept"}))
    assert read_settings().url == "http://here"
    monkeypatch.setenv("TRAITMESH_API_KEY", "from the environment")
    assert read_settings().api_key == "from the environment"
    assert read_settings(api_key="given").api_key == "given"
