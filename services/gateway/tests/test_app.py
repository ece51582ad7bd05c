"""The gateway as it is run, in front of a real trait registry: keys, roles, workspaces, pages."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from click.testing import CliRunner, Result
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from pydantic import SecretStr
from sqlalchemy import Engine
from starlette.types import ASGIApp
from traitmesh_proto.registry.v1 import workspace_pb2, workspace_pb2_grpc

from libs.kit import auth, database, server
from libs.kit.settings import Settings
from libs.kit.testing import SIGNING_KEY, reason, schema_differences
from services.gateway import domain, store
from services.gateway.__main__ import application, connect, main
from services.gateway.config import GatewaySettings
from services.gateway.front import SECURITY_HEADERS
from services.gateway.tests.library import Answer, Client, serving_http
from services.gateway.transcoding.methods import methods_of, pool_of
from services.trait_registry import store as registry_store
from services.trait_registry.__main__ import build_servicers

ROOT = Path(__file__).parents[3]
NOBODY_LISTENS = "127.0.0.1:9"


@pytest.fixture(scope="module")
def registry_address(settings: Settings) -> Iterator[str]:
    engine = database.connect(settings, registry_store.SCHEMA)
    database.upgrade(engine, registry_store.SCHEMA, Path(registry_store.__file__).parent / "alembic")
    grpc_server, port = server.build_server("127.0.0.1:0", build_servicers(engine), settings)
    grpc_server.start()
    yield f"127.0.0.1:{port}"
    grpc_server.stop(0).wait()
    engine.dispose()


class Recorder(grpc.GenericRpcHandler):
    """Answers every call with an empty message, and keeps the metadata."""

    def __init__(self) -> None:
        self.metadata: list[dict[str, str]] = []

    def service(self, handler_call_details: Any) -> Any:
        self.metadata.append({item.key: item.value for item in handler_call_details.invocation_metadata})
        return grpc.unary_unary_rpc_method_handler(lambda _request, _context: b"")


@pytest.fixture(scope="module")
def model() -> Recorder:
    return Recorder()


@pytest.fixture(scope="module")
def model_address(model: Recorder) -> Iterator[str]:
    grpc_server = grpc.server(ThreadPoolExecutor(2))
    grpc_server.add_generic_rpc_handlers((model,))
    port = grpc_server.add_insecure_port("127.0.0.1:0")
    grpc_server.start()
    yield f"127.0.0.1:{port}"
    grpc_server.stop(0).wait()


@pytest.fixture(scope="module")
def gateway_settings(database_url: str, registry_address: str, model_address: str) -> GatewaySettings:
    return GatewaySettings(
        database_url=SecretStr(database_url),
        signing_key=SecretStr(SIGNING_KEY),
        registry_address=registry_address,
        model_address=model_address,
        audience_address=NOBODY_LISTENS,
    )


@pytest.fixture(scope="module")
def engine(gateway_settings: GatewaySettings) -> Iterator[Engine]:
    engine = connect(gateway_settings)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def port(gateway_settings: GatewaySettings, engine: Engine) -> Iterator[int]:
    def make_app() -> AbstractAsyncContextManager[ASGIApp]:
        return application(gateway_settings, engine)

    with serving_http(make_app) as port:
        yield port


def add_key(engine: Engine, workspace: str, role: domain.Role, **fields: Any) -> str:
    text = domain.new_key_text()
    key = domain.ApiKey(domain.key_id_of(text) or "", workspace, role, "", domain.digest(text), datetime.now(UTC))
    with engine.begin() as tx:
        store.insert_key(tx, replace(key, **fields))
    return text


def opened_by(port: int, key: str) -> Client:
    return Client(port, Authorization=f"Bearer {key}")


@pytest.fixture(scope="module")
def root(port: int, engine: Engine) -> Client:
    """May do everything everywhere; the two workspaces are made."""
    root = opened_by(port, add_key(engine, "-", "admin"))
    for workspace in ("tusk", "other"):
        answer = root.post(f"/v1/workspaces?workspaceId={workspace}", {"displayName": workspace.title()})
        assert answer.status == 200, answer.body
    return root


@pytest.fixture(scope="module")
def viewer(port: int, engine: Engine, root: Client) -> Client:
    return opened_by(port, add_key(engine, "tusk", "viewer"))


@pytest.fixture(scope="module")
def editor(port: int, engine: Engine, root: Client) -> Client:
    return opened_by(port, add_key(engine, "tusk", "editor"))


def without_trace_id(answer: Answer) -> dict[str, Any]:
    return {key: value for key, value in answer.json.items() if key != "traceId"}


def test_the_schema_is_what_the_store_declares(engine: Engine) -> None:
    assert schema_differences(engine, store.metadata) == []


def test_a_call_reaches_the_service_and_its_answer_comes_back(viewer: Client, root: Client) -> None:
    assert viewer.get("/v1/workspaces/tusk").json["displayName"] == "Tusk"
    assert [w["name"] for w in viewer.get("/v1/workspaces").json["workspaces"]] == ["workspaces/tusk"]
    names = [workspace["name"] for workspace in root.get("/v1/workspaces").json["workspaces"]]
    assert names == ["workspaces/other", "workspaces/tusk"]
    assert viewer.get("/v1/workspaces/tusk/traits").json == {"traits": [], "nextPageToken": ""}


def test_what_the_service_refuses_is_told(root: Client, viewer: Client) -> None:
    answer = root.post("/v1/workspaces?workspaceId=Bad!", {})
    assert (answer.status, answer.fields) == (400, ["workspace_id"])
    assert answer.json["reason"] == "ERROR_REASON_INVALID_FIELD"
    answer = root.post("/v1/workspaces?workspaceId=tusk", {})
    assert (answer.status, answer.json["reason"]) == (409, "ERROR_REASON_RESOURCE_EXISTS")
    answer = viewer.get("/v1/workspaces/tusk/traits/none")
    assert (answer.status, answer.json["reason"]) == (404, "ERROR_REASON_RESOURCE_NOT_FOUND")


def test_a_request_id_makes_a_call_safe_to_repeat(root: Client) -> None:
    path = "/v1/workspaces?workspaceId=repeated&requestId=6f1d0f4e-9f7c-4a31-8f1c-1f6f0b8f3c11"
    assert root.post(path, {}).json == root.post(path, {}).json
    assert root.post(path, {"displayName": "else"}).json["reason"] == "ERROR_REASON_REQUEST_ID_REUSED"


METHODS = methods_of(
    files := FileDescriptorSet.FromString((ROOT / "gen/traitmesh_proto/descriptors.binpb").read_bytes()), pool_of(files)
)
ROUTES = sorted({(m.http_method, m.path.replace("workspaces/*", "workspaces/{w}"), m.descriptor.name) for m in METHODS})


def route_path(path: str, workspace: str) -> str:
    """A concrete path of a template."""
    plain = path.replace("{w}", workspace).replace("*", "1")
    while "{" in plain:
        start, end = plain.index("{"), plain.index("}")
        plain = plain[:start] + plain[start:end].rpartition("=")[2] + plain[end + 1 :]
    return plain


@pytest.mark.parametrize(("method", "path", "name"), ROUTES, ids=[route[2] for route in ROUTES])
def test_every_route_is_closed_without_a_key_and_to_other_workspaces(
    port: int, editor: Client, method: str, path: str, name: str
) -> None:
    own, others = route_path(path, "tusk"), route_path(path, "other")
    answer = Client(port).send(method, own, b"")
    assert (answer.status, answer.json["reason"]) == (401, "ERROR_REASON_UNAUTHENTICATED")
    assert answer.headers["www-authenticate"] == "Bearer"
    if "{w}" in path:
        answer = editor.send(method, others, b"")
        assert (answer.status, answer.json["reason"]) == (404, "ERROR_REASON_RESOURCE_NOT_FOUND")


def test_every_public_method_has_a_route_and_no_internal_one() -> None:
    assert {"GetTrait", "CreateLoad", "GetProfile", "RetryRun"} <= {route[2] for route in ROUTES}
    assert not {"ApplyTraits", "RecordLineage", "CompileAudiences"} & {route[2] for route in ROUTES}


def test_bad_keys(port: int, engine: Engine, root: Client) -> None:
    good = add_key(engine, "tusk", "viewer")
    another = add_key(engine, "tusk", "viewer")
    secret_of_another = another.split("_")[2]
    mixed = f"tm_{good.split('_')[1]}_{secret_of_another}"
    forged = f"{mixed}_{domain._checksum(mixed)}"
    assert domain.key_id_of(forged) == domain.key_id_of(good)
    past = datetime.now(UTC) - timedelta(seconds=1)
    headers = [
        *("", "Bearer", "Bearer ", "Bearer x", f"Basic {good}", good, f"Bearer {good[:-1]}", f"Bearer {good}x"),
        *(f"Bearer {domain.new_key_text()}", f"Bearer {forged}", "Bearer \xff"),
        f"Bearer {add_key(engine, 'tusk', 'viewer', expire_time=past)}",
    ]
    for header in headers:
        answer = Client(port, Authorization=header).get("/v1/workspaces/tusk")
        assert (answer.status, answer.json["reason"]) == (401, "ERROR_REASON_UNAUTHENTICATED"), header
    assert Client(port, Authorization=f"bearer {good}").get("/v1/workspaces/tusk").status == 200


def test_a_revoked_key_ends_within_seconds(port: int, engine: Engine, root: Client) -> None:
    text = add_key(engine, "tusk", "viewer")
    client = opened_by(port, text)
    assert client.get("/v1/workspaces/tusk").status == 200
    with engine.begin() as tx:
        assert store.revoke_key(tx, domain.key_id_of(text) or "")
    deadline = time.monotonic() + 5
    while client.get("/v1/workspaces/tusk").status == 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert client.get("/v1/workspaces/tusk").status == 401


def test_the_hour_of_the_last_use_is_noted(port: int, engine: Engine, root: Client) -> None:
    text = add_key(engine, "tusk", "viewer")
    opened_by(port, text).get("/v1/workspaces/tusk")
    with engine.begin() as tx:
        used = store.find_key(tx, domain.key_id_of(text) or "")
    assert used is not None
    assert used.last_use_time is not None
    assert (used.last_use_time.minute, used.last_use_time.second) == (0, 0)
    assert datetime.now(UTC) - used.last_use_time < timedelta(hours=2)


def test_another_workspace_looks_like_none_at_all(viewer: Client, root: Client) -> None:
    for path in ("/v1/workspaces/{}", "/v1/workspaces/{}/traits", "/v1/workspaces/{}/traits/ltv"):
        theirs = without_trace_id(viewer.get(path.format("other")))
        nobodys = without_trace_id(viewer.get(path.format("nowhere")))
        assert theirs["status"] == 404
        assert json.dumps(theirs).replace("other", "nowhere") == json.dumps(nobodys)
    absent = without_trace_id(root.get("/v1/workspaces/nowhere"))
    assert absent == without_trace_id(viewer.get("/v1/workspaces/nowhere"))


def test_a_lower_role_is_told_what_it_lacks(viewer: Client, editor: Client) -> None:
    for client, path, role in (
        (viewer, "/v1/workspaces/tusk/audiences", "viewer"),
        (editor, "/v1/workspaces", "editor"),
    ):
        answer = client.post(path, {})
        assert (answer.status, answer.json["reason"]) == (403, "ERROR_REASON_PERMISSION_DENIED")
        assert answer.json["metadata"]["role"] == role
    answer = viewer.get("/v1/workspaces/tusk/profiles/u1")
    assert (answer.status, answer.json["metadata"]) == (403, {"permission": "profiles.read", "role": "viewer"})


def test_a_service_that_is_down_takes_only_its_own_routes_along(editor: Client) -> None:
    started = time.monotonic()
    answer = editor.get("/v1/workspaces/tusk/audiences")
    assert (answer.status, answer.json["reason"]) == (503, "ERROR_REASON_UNAVAILABLE")
    assert "127.0.0.1" not in answer.body.decode()
    assert time.monotonic() - started < 5
    assert editor.get("/v1/workspaces/tusk/traits").status == 200


def test_the_service_gets_a_signed_caller_and_the_trace(editor: Client, model: Recorder) -> None:
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    answer = editor.send(
        "GET",
        "/v1/workspaces/tusk/builds/3",
        traceparent=f"00-{trace_id}-00f067aa0ba902b7-01",
        X_Traitmesh_Caller="forged",
    )
    assert answer.status == 200
    metadata = model.metadata[-1]
    assert metadata["traceparent"].split("-")[1] == trace_id
    caller = auth.TokenSigner(SIGNING_KEY).verify(metadata[auth.METADATA_KEY])
    assert (caller.workspace, caller.role) == ("tusk", "editor")
    assert "authorization" not in metadata


def test_the_services_know_the_gateway_by_its_signature_alone(registry_address: str) -> None:
    with grpc.insecure_channel(registry_address) as channel:
        stub = workspace_pb2_grpc.WorkspaceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            stub.ListWorkspaces(workspace_pb2.ListWorkspacesRequest())
    assert reason(refused.value) == "ERROR_REASON_UNAUTHENTICATED"


def test_pages(port: int) -> None:
    client = Client(port)
    assert client.get("/healthz").body == b"alive\n"
    assert client.get("/readyz").body == b"ready\n"
    assert client.get("/v1/openapi.json").json["openapi"] == "3.1.0"
    served = FileDescriptorSet.FromString(client.get("/v1/descriptors.binpb").body)
    assert any(file.package == "traitmesh.registry.v1" and file.source_code_info.location for file in served.file)
    answer = client.send("POST", "/v1/openapi.json", b"")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    assert client.send("OPTIONS", "/docs").status == 204
    assert client.get("/v1%2Fopenapi.json").status == 404
    answer = client.get("/nothing")
    assert (answer.status, answer.headers["content-type"]) == (404, "application/problem+json")
    assert answer.json["reason"] == "ERROR_REASON_RESOURCE_NOT_FOUND"
    for name, value in SECURITY_HEADERS:
        assert answer.headers[name.decode()] == value.decode()


def test_the_documentation_comes_from_here_alone(port: int) -> None:
    client = Client(port)
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "script-src 'self';" in page.headers["content-security-policy"]
    assert b"//" not in page.body.replace(b"<!doctype", b"")
    for path in ("/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js", "/docs/start.js"):
        assert path.encode() in page.body
        assert client.get(path).status == 200
    assert len(client.get("/docs/swagger-ui-bundle.js").body) > 500_000


@pytest.fixture
def environment(gateway_settings: GatewaySettings) -> dict[str, str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    return {
        "TRAITMESH_DATABASE_URL": gateway_settings.database_url.get_secret_value(),
        "TRAITMESH_SIGNING_KEY": SIGNING_KEY,
        "TRAITMESH_REGISTRY_ADDRESS": gateway_settings.registry_address,
        "TRAITMESH_GATEWAY_ADDRESS": address,
        "PYTHONPATH": f"{ROOT}:{ROOT / 'gen'}",
    }


def test_serve_answers_refuses_a_taken_port_and_drains(
    environment: dict[str, str], engine: Engine, root: Client
) -> None:
    command = [sys.executable, "-m", "services.gateway", "serve"]
    with subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True) as gateway:
        try:
            client = opened_by(
                int(environment["TRAITMESH_GATEWAY_ADDRESS"].rpartition(":")[2]), add_key(engine, "tusk", "viewer")
            )
            wait_until_ready(client)
            answer = client.get("/v1/workspaces/tusk/traits/secret_of_a_user")
            assert answer.status == 404
            second = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
            assert second.returncode != 0
            assert "address already in use" in second.stderr
        finally:
            gateway.terminate()
            _, log = gateway.communicate(timeout=10)
    assert gateway.returncode == 0
    (line,) = [json.loads(line) for line in log.splitlines() if "traits" in line]
    assert (line["path"], line["status"]) == ("/v1/{name=workspaces/*/traits/*}", 404)
    assert line["trace_id"] == answer.json["traceId"] == answer.headers["x-trace-id"]
    assert "secret_of_a_user" not in log
    assert "tm_" not in log


def wait_until_ready(client: Client) -> None:
    deadline = time.monotonic() + 15
    while True:
        try:
            assert client.get("/readyz").status == 200
            return
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_keys_are_made_listed_and_ended_by_the_command_line(
    environment: dict[str, str], port: int, root: Client
) -> None:
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["key", *arguments], env=environment)

    made = run("create", "--workspace=tusk", "--role=viewer", "--name=demo", "--expires-in-days=1")
    text = made.stdout.strip()
    key_id = domain.key_id_of(text)
    assert key_id
    assert opened_by(port, text).get("/v1/workspaces/tusk").status == 200
    listed = run("list").stdout
    assert f"{key_id}\ttusk\tviewer\talive\t" in listed
    assert text.split("_")[2] not in listed
    assert run("revoke", key_id).exit_code == 0
    assert f"{key_id}\ttusk\tviewer\trevoked\t" in run("list").stdout
    assert "there is no key" in run("revoke", "nobody").stderr
    assert "starting with a letter" in run("create", "--workspace=No!", "--role=viewer").stderr
    assert run("create", "--workspace=tusk", "--role=service").exit_code == 2


def test_only_hashes_are_kept(engine: Engine, database_url: str) -> None:
    text = add_key(engine, "tusk", "viewer")
    with psycopg.connect(database_url) as connection:
        rows = connection.execute("SELECT * FROM gateway.api_keys").fetchall()
    kept = "".join(map(str, rows))
    assert domain.key_id_of(text) in kept  # type: ignore[operator]
    assert text.split("_")[2] not in kept
