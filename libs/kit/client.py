"""The one way to call another service: a channel that carries identity and trace, with a deadline and retries.

`stub = TraitServiceStub(open_channel(address, settings))`, then `stub.GetTrait(request)`. A call without a timeout of
its own ends after 30 seconds. A failed call raises grpc.RpcError, which `errors.from_rpc` reads and the server's gate
passes on.
"""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import grpc

from libs.kit import auth, telemetry
from libs.kit.server import MAX_MESSAGE_BYTES
from libs.kit.settings import Settings

DEADLINE_SECONDS = 30

#: A name is asked again this soon after a connection broke. By gRPC's default of 30 seconds, a caller that asked just
#: before a service moved would not find where to.
RESOLUTION = ("grpc.dns_min_time_between_resolutions_ms", 500)

#: Every mutation is safe to repeat (request_id, or the same end state), so a call that met a restart is.
RETRIES = {
    "methodConfig": [
        {
            "name": [{}],
            "waitForReady": True,
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}


def as_service() -> auth.Caller:
    """The identity of a service that works for the current caller, limited to the caller's workspace."""
    caller = auth.current_caller()
    return auth.Caller(f"service for {caller.subject}", caller.workspace, "service")


def open_channel(address: str, settings: Settings, identity: Callable[[], auth.Caller] = as_service) -> grpc.Channel:
    """A channel to the service at `address` (host:port or dns:///name:port), shared by all threads."""
    options = [
        ("grpc.service_config", json.dumps(RETRIES)),
        ("grpc.lb_policy_name", "round_robin"),
        RESOLUTION,
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ]
    if settings.tls_certificate and settings.tls_key and settings.tls_authority:
        credentials = grpc.ssl_channel_credentials(
            settings.tls_authority.read_bytes(),
            settings.tls_key.read_bytes(),
            settings.tls_certificate.read_bytes(),
        )
        channel = grpc.secure_channel(address, credentials, options)
    else:
        channel = grpc.insecure_channel(address, options)
    signer = auth.TokenSigner(settings.signing_key.get_secret_value())
    return grpc.intercept_channel(channel, _Outgoing(lambda: signer.sign(identity())))


class _CallDetails(NamedTuple):
    method: str
    timeout: float | None
    metadata: list[tuple[str, str]]
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None


class _Outgoing(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
):
    """Adds the caller's identity, the trace and a deadline to each call."""

    def __init__(self, token: Callable[[], str]) -> None:
        self._token = token

    def intercept_unary_unary(self, continuation: Callable[..., Any], call: Any, request: Any) -> Any:
        return continuation(self._with_context(call), request)

    intercept_unary_stream = intercept_unary_unary  # type: ignore[assignment]
    intercept_stream_unary = intercept_unary_unary  # type: ignore[assignment]

    def _with_context(self, call: Any) -> _CallDetails:
        metadata = [
            *(call.metadata or ()),
            (auth.METADATA_KEY, self._token()),
            *telemetry.outgoing_headers().items(),
        ]
        return _CallDetails(
            call.method,
            call.timeout or DEADLINE_SECONDS,
            metadata,
            call.credentials,
            call.wait_for_ready,
            call.compression,
        )
