"""The one way to start a gRPC server, with health, identity, permissions, errors and traces.

Every call passes `Gate`: it opens the span, reads the caller's identity, checks the permission that the method states
in its proto and that the named resource is in the caller's workspace, and turns a Fault into a status. Servicers hold
no such code.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import structlog
from google.protobuf import descriptor_pool
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status
from traitmesh_proto.api.v1 import annotations_pb2

from libs.kit import auth, errors, telemetry
from libs.kit.settings import Settings

MAX_MESSAGE_BYTES = 36 * 1024 * 1024
CONNECTION_AGE_MS = 5 * 60 * 1000
#: Longer than any call, so that none is cut off.
CONNECTION_GRACE_MS = 2 * 60 * 60 * 1000

#: For each service's full name, what adds its servicer to a server.
Servicers = Mapping[str, Callable[[grpc.Server], None]]

log = structlog.get_logger()


def serve(address: str, servicers: Servicers, settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT, then lets running calls end within `drain_seconds`.

    Raises RuntimeError if the address is taken.
    """
    server, port = build_server(address, servicers, settings)
    server.start()
    log.info("serving", port=port)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    stop.wait()
    log.info("draining", seconds=settings.drain_seconds)
    server.stop(settings.drain_seconds).wait()


def build_server(address: str, servicers: Servicers, settings: Settings) -> tuple[grpc.Server, int]:
    """A server that is bound and not yet started, and its port, which is chosen if `address` ends in `:0`."""
    signer = auth.TokenSigner(settings.signing_key.get_secret_value())
    server = grpc.server(
        ThreadPoolExecutor(settings.server_threads, thread_name_prefix="call"),
        interceptors=[Gate(signer)],
        options=[
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.so_reuseport", 0),
            # Callers come back for another address now and then, and so find servers that were added.
            ("grpc.max_connection_age_ms", CONNECTION_AGE_MS),
            ("grpc.max_connection_age_grace_ms", CONNECTION_GRACE_MS),
        ],
    )
    for add_to_server in servicers.values():
        add_to_server(server)
    checks = health.HealthServicer()
    for service in ("", *servicers):
        checks.set(service, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    reflection.enable_server_reflection((*servicers, reflection.SERVICE_NAME), server)
    return server, _bind(server, address, settings)


def _bind(server: grpc.Server, address: str, settings: Settings) -> int:
    if settings.tls_certificate and settings.tls_key and settings.tls_authority:
        pair = (settings.tls_key.read_bytes(), settings.tls_certificate.read_bytes())
        authority = settings.tls_authority.read_bytes()
        credentials = grpc.ssl_server_credentials([pair], authority, require_client_auth=True)
        return server.add_secure_port(address, credentials)
    return server.add_insecure_port(address)


class Gate(grpc.ServerInterceptor):
    """What every call passes before it reaches a servicer, and every failure on its way out."""

    def __init__(self, signer: auth.TokenSigner) -> None:
        self._signer = signer

    def intercept_service(self, continuation: Any, call: Any) -> Any:
        """Wraps the handler of a method that states a permission; health and reflection state none."""
        handler = continuation(call)
        permission = _permission(call.method)
        if handler is None or permission is None:
            return handler
        metadata = dict(call.invocation_metadata)
        shape = (handler.request_streaming, handler.response_streaming)
        behaviour = {
            (False, False): handler.unary_unary,
            (False, True): handler.unary_stream,
            (True, False): handler.stream_unary,
            (True, True): handler.stream_stream,
        }[shape]

        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            with self._call(call.method, permission, metadata, context) as caller:
                return behaviour(_admit(request, caller), context)

        def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            with self._call(call.method, permission, metadata, context) as caller:
                yield from behaviour(_admit(request, caller), context)

        make = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, False): grpc.stream_unary_rpc_method_handler,
            (True, True): grpc.stream_stream_rpc_method_handler,
        }[shape]
        wrapped = stream if handler.response_streaming else answer
        return make(wrapped, handler.request_deserializer, handler.response_serializer)

    @contextmanager
    def _call(
        self,
        method: str,
        permission: str,
        metadata: Mapping[str, str],
        context: grpc.ServicerContext,
    ) -> Iterator[auth.Caller]:
        started = time.monotonic()
        code = grpc.StatusCode.OK
        with telemetry.server_span(method.lstrip("/"), metadata):
            try:
                caller = self._signer.verify(metadata.get(auth.METADATA_KEY))
                if not caller.may(permission):
                    raise errors.PermissionDenied(
                        f"the role {caller.role} does not hold the permission {permission}",
                        permission=permission,
                        role=caller.role,
                    )
                with auth.acting_as(caller):
                    yield caller
            except Exception as error:  # noqa: BLE001 -- the one place where every failure becomes a status
                fault = _fault(error)
                code = fault.code
                context.abort_with_status(rpc_status.to_status(fault.status()))
            finally:
                took = round((time.monotonic() - started) * 1000, 1)
                log.info("call", method=method, code=code.name, milliseconds=took)


def _fault(error: Exception) -> errors.Fault:
    if isinstance(error, errors.Fault):
        return error
    if isinstance(error, grpc.RpcError):
        return errors.from_rpc(error)
    log.error("unexpected", exc_info=True)
    return errors.Internal("something went wrong here; the log has it under this call's trace id")


def _admit(request: Any, caller: auth.Caller) -> Any:
    """The request, if the resource that it names is in the caller's workspace; NotFound otherwise."""
    if isinstance(request, Message):
        _check_workspace(request, caller)
        return request
    return _admit_stream(request, caller)


def _admit_stream(requests: Iterator[Message], caller: auth.Caller) -> Iterator[Message]:
    for request in requests:
        _check_workspace(request, caller)
        yield request


def _check_workspace(request: Message, caller: auth.Caller) -> None:
    for name in _resource_names(request):
        parts = name.split("/")
        if parts[0] == "workspaces" and len(parts) > 1 and not caller.may_enter(parts[1]):
            raise errors.NotFound(name)


def _resource_names(message: Message) -> Iterator[str]:
    """Every resource name in the request: fields called `name` or `parent`, and references to other resources."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_STRING and not field.is_repeated and value.startswith("workspaces/"):
            yield value
        elif field.type == field.TYPE_MESSAGE and not field.is_repeated:
            yield from _resource_names(value)


def _permission(method: str) -> str | None:
    service, _, name = method.lstrip("/").rpartition("/")
    try:
        descriptor = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name]
    except KeyError:
        return None
    permission: str = descriptor.GetOptions().Extensions[annotations_pb2.permission]
    return permission or None
