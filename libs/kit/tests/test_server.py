"""What every call passes: identity, permission, workspace, errors, traces, TLS."""

import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import structlog
import trustme
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from pydantic import SecretStr
from traitmesh_proto.registry.v1 import trait_pb2, trait_pb2_grpc

from libs.kit import auth, client, errors, logs, server
from libs.kit.settings import Settings
from libs.kit.testing import SIGNING_KEY, reason

NAME = "workspaces/tusk/traits/ltv"
VIEWER = auth.Caller("vera", "tusk", "viewer")
CANARY = "ann@example.com"


class Traits(trait_pb2_grpc.TraitServiceServicer):
    """A servicer that answers, fails as expected, and fails as nobody expects."""

    def GetTrait(  # noqa: N802
        self, request: trait_pb2.GetTraitRequest, context: grpc.ServicerContext
    ) -> trait_pb2.Trait:
        span = trace.get_current_span().get_span_context()
        return trait_pb2.Trait(name=auth.current_caller().subject, unit=trace.format_trace_id(span.trace_id))

    def ListTraits(  # noqa: N802
        self, request: trait_pb2.ListTraitsRequest, context: grpc.ServicerContext
    ) -> trait_pb2.ListTraitsResponse:
        if request.page_size == 1:
            raise errors.UnderWay("workspaces/tusk/builds/1")
        raise ValueError(CANARY)


def settings_with(**fields: object) -> Settings:
    return Settings(
        database_url=SecretStr("postgresql://nowhere"),
        signing_key=SecretStr(SIGNING_KEY),
        **fields,  # type: ignore[arg-type]
    )


def serve(settings: Settings) -> tuple[grpc.Server, int]:
    def add(grpc_server: grpc.Server) -> None:
        trait_pb2_grpc.add_TraitServiceServicer_to_server(Traits(), grpc_server)  # type: ignore[abstract]

    grpc_server, port = server.build_server("localhost:0", {"traitmesh.registry.v1.TraitService": add}, settings)
    grpc_server.start()
    return grpc_server, port


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    grpc_server, port = serve(settings_with())
    yield port
    grpc_server.stop(0).wait()


@pytest.fixture
def traits(port: int) -> Iterator[trait_pb2_grpc.TraitServiceStub]:
    channel = client.open_channel(f"localhost:{port}", settings_with(), identity=auth.current_caller)
    yield trait_pb2_grpc.TraitServiceStub(channel)
    channel.close()


def test_the_caller_and_the_trace_arrive(traits: trait_pb2_grpc.TraitServiceStub) -> None:
    tracer = TracerProvider().get_tracer("test")
    with auth.acting_as(VIEWER), tracer.start_as_current_span("call") as span:
        answer = traits.GetTrait(trait_pb2.GetTraitRequest(name=NAME))
    assert answer.name == "vera"
    assert answer.unit == trace.format_trace_id(span.get_span_context().trace_id)


def test_a_call_without_identity_is_refused(port: int) -> None:
    with grpc.insecure_channel(f"localhost:{port}") as channel, pytest.raises(grpc.RpcError) as caught:
        trait_pb2_grpc.TraitServiceStub(channel).GetTrait(trait_pb2.GetTraitRequest(name=NAME))
    assert reason(caught.value) == "ERROR_REASON_UNAUTHENTICATED"


def test_a_fault_keeps_its_reason(traits: trait_pb2_grpc.TraitServiceStub) -> None:
    with auth.acting_as(VIEWER), pytest.raises(grpc.RpcError) as caught:
        traits.ListTraits(trait_pb2.ListTraitsRequest(parent="workspaces/tusk", page_size=1))
    assert reason(caught.value) == "ERROR_REASON_UNDER_WAY"


def test_an_unexpected_failure_says_nothing_of_the_data(
    traits: trait_pb2_grpc.TraitServiceStub, capfd: pytest.CaptureFixture[str]
) -> None:
    logs.configure("test", "info")
    try:
        with auth.acting_as(VIEWER), pytest.raises(grpc.RpcError) as caught:
            traits.ListTraits(trait_pb2.ListTraitsRequest(parent="workspaces/tusk"))
    finally:
        structlog.reset_defaults()
    assert reason(caught.value) == "ERROR_REASON_INTERNAL"
    logged = capfd.readouterr().err
    entry = next(line for line in map(json.loads, logged.splitlines()) if line["event"] == "unexpected")
    assert entry["error_type"] == "ValueError"
    assert "ListTraits" in entry["stack"]
    assert CANARY not in logged + str(caught.value)


def test_peers_without_a_certificate_are_refused(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate = authority.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    secured = settings_with(
        tls_certificate=tmp_path / "cert.pem", tls_key=tmp_path / "key.pem", tls_authority=tmp_path / "ca.pem"
    )
    grpc_server, port = serve(secured)
    request = trait_pb2.GetTraitRequest(name=NAME)
    try:
        with auth.acting_as(VIEWER):
            known = client.open_channel(f"localhost:{port}", secured, identity=auth.current_caller)
            assert trait_pb2_grpc.TraitServiceStub(known).GetTrait(request).name == "vera"
            known.close()
        only_authority = grpc.ssl_channel_credentials((tmp_path / "ca.pem").read_bytes())
        with (
            grpc.secure_channel(f"localhost:{port}", only_authority) as stranger,
            pytest.raises(grpc.RpcError, match="UNAVAILABLE"),
        ):
            trait_pb2_grpc.TraitServiceStub(stranger).GetTrait(request, timeout=5)
    finally:
        grpc_server.stop(0).wait()
