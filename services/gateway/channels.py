"""Channels to the services, for calls from an event loop."""

import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import grpc

from libs.kit.client import RESOLUTION
from libs.kit.server import MAX_MESSAGE_BYTES
from libs.kit.settings import Settings
from services.gateway.config import GatewaySettings
from services.gateway.transcoding.methods import Method
from services.gateway.transcoding.transcoder import Channel


@asynccontextmanager
async def open_channels(
    settings: GatewaySettings, methods: Iterable[Method]
) -> AsyncIterator[Callable[[Method], Channel]]:
    """Opens the channels within the event loop that uses them; what it yields tells the channel of a method.

    What only reads (GET) is repeated if the service restarts; whoever sent a mutation repeats it, with its request_id.
    """
    options = [
        ("grpc.service_config", json.dumps(_retries(methods))),
        ("grpc.lb_policy_name", "round_robin"),
        RESOLUTION,
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ]
    channels: dict[tuple[str, bool], Channel] = {}
    async with AsyncExitStack() as stack:
        for package, address in settings.service_addresses().items():
            channels[package, False] = await stack.enter_async_context(_asyncio_channel(address, options, settings))
            channels[package, True] = stack.enter_context(_blocking_channel(address, options, settings))
        yield lambda method: channels[method.package, method.descriptor.client_streaming]


def _asyncio_channel(address: str, options: Sequence[tuple[str, object]], settings: Settings) -> grpc.aio.Channel:
    credentials = _credentials(settings)
    if credentials is None:
        return grpc.aio.insecure_channel(address, options)
    return grpc.aio.secure_channel(address, credentials, options)


def _blocking_channel(address: str, options: Sequence[tuple[str, object]], settings: Settings) -> grpc.Channel:
    credentials = _credentials(settings)
    if credentials is None:
        return grpc.insecure_channel(address, options)
    return grpc.secure_channel(address, credentials, options)


def _credentials(settings: Settings) -> grpc.ChannelCredentials | None:
    if not (settings.tls_certificate and settings.tls_key and settings.tls_authority):
        return None
    return grpc.ssl_channel_credentials(
        settings.tls_authority.read_bytes(), settings.tls_key.read_bytes(), settings.tls_certificate.read_bytes()
    )


def _retries(methods: Iterable[Method]) -> dict[str, object]:
    reads = [
        {"service": method.descriptor.containing_service.full_name, "method": method.descriptor.name}
        for method in methods
        if method.http_method == "GET"
    ]
    policy = {
        "maxAttempts": 4,
        "initialBackoff": "0.1s",
        "maxBackoff": "1s",
        "backoffMultiplier": 3,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    return {"methodConfig": [{"name": reads, "retryPolicy": policy}]}
