"""REST in front of gRPC: an ASGI application made of descriptors alone.

A request goes one way: `routes` finds the method by the raw path, `admit` (the application's own) says with which
metadata it may be called, `binding` makes the request message, the method is called, and its answer is written as JSON
or, for google.api.HttpBody, passed through. Whatever is wrong raises ProblemError, which the application answers.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
import orjson
from google.protobuf import json_format
from google.protobuf.message_factory import GetMessageClass
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from services.gateway.transcoding import problems
from services.gateway.transcoding.binding import bind
from services.gateway.transcoding.methods import Method
from services.gateway.transcoding.problems import ProblemError, invalid
from services.gateway.transcoding.routes import Routes
from services.gateway.transcoding.uploads import call_with_stream

CHUNK_BYTES = 256 * 1024
UNWATCHED_SECONDS = 0.1

Answer = TypeVar("Answer")

#: A method that takes a stream of requests is called through a blocking channel, every other through one of asyncio.
Channel = grpc.aio.Channel | grpc.Channel
Metadata = tuple[tuple[str, str], ...]
#: Says with which metadata a request may call a method, or raises ProblemError. Gets the path's variables.
Admit = Callable[[Request, Method, Mapping[str, str]], Awaitable[Metadata]]


@dataclass(frozen=True)
class Limits:
    """How large a body may be, and how long a call may take."""

    json_bytes: int = 1024 * 1024
    #: For a google.api.HttpBody that goes in one message.
    raw_bytes: int = 32 * 1024 * 1024
    #: For a google.api.HttpBody that goes as a stream.
    stream_bytes: int = 8 * 1024**3
    call_seconds: float = 120
    stream_seconds: float = 3600


class Transcoder:
    """Serves methods over REST. One is made within the event loop that it serves in."""

    def __init__(
        self,
        methods: Iterable[Method],
        channel_of: Callable[[Method], Channel],
        admit: Admit,
        limits: Limits,
    ) -> None:
        self._admit = admit
        self._routes: Routes[_Endpoint] = Routes()
        for method in methods:
            endpoint = _Endpoint(method, channel_of(method), limits)
            self._routes.add(method.http_method, method.template, endpoint)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one HTTP request, or raises ProblemError, possibly after a stream has begun."""
        response = await self._answer(Request(scope, receive))
        try:
            await response(scope, receive, send)
        except grpc.RpcError as error:
            raise problems.from_call(error) from error

    async def _answer(self, request: Request) -> Response:
        raw_path: bytes = request.scope["raw_path"]
        if request.method == "OPTIONS":
            return Response(status_code=204, headers={"Allow": self._routes.allow(raw_path)})
        http_method = "GET" if request.method == "HEAD" else request.method
        route, segments = self._routes.find(http_method, raw_path)
        variables = route.variables(segments)
        metadata = await self._admit(request, route.target.method, variables)
        try:
            return await route.target.answer(request, variables, metadata)
        except grpc.RpcError as error:
            raise problems.from_call(error) from error


class _Endpoint:
    """One method, with the call that reaches it."""

    def __init__(self, method: Method, channel: Channel, limits: Limits) -> None:
        self.method = method
        self._limits = limits
        client, server = method.descriptor.client_streaming, method.descriptor.server_streaming
        make = {
            (False, False): channel.unary_unary,
            (False, True): channel.unary_stream,
            (True, False): channel.stream_unary,
        }[client, server]
        answer = GetMessageClass(method.descriptor.output_type)
        self._call: Any = make(
            method.grpc_path,
            request_serializer=type(method.new_request()).SerializeToString,
            response_deserializer=answer.FromString,
        )

    async def answer(self, request: Request, variables: Mapping[str, str], metadata: Metadata) -> Response:
        if self.method.descriptor.client_streaming:
            return await self._answer_upload(request, variables, metadata)
        message = await self._bind(request, variables)
        if self.method.descriptor.server_streaming:
            return await self._answer_stream(request, message, metadata)
        call = self._call(message, metadata=metadata, timeout=self._limits.call_seconds)
        return self._render(await _while_there(request, call, call))

    async def _bind(self, request: Request, variables: Mapping[str, str]) -> Any:
        query = request.scope["query_string"]
        if self.method.takes_raw_body:
            message = bind(self.method, variables, query, b"")
            body = await _read(request, self._limits.raw_bytes, "raw_body_bytes")
            _set_body(message, self.method, _content_type(request), body)
            return message
        body = await _read(request, self._limits.json_bytes, "json_body_bytes")
        _check_json_body(request, self.method, body)
        return bind(self.method, variables, query, body)

    async def _answer_stream(self, request: Request, message: Any, metadata: Metadata) -> Response:
        """Bytes as they come, with the content type of the first message."""
        call = self._call(message, metadata=metadata, timeout=self._limits.stream_seconds)
        first = await _while_there(request, call, call.read())
        if first is grpc.aio.EOF:
            return Response(media_type="application/octet-stream")
        if request.method == "HEAD":
            call.cancel()
            return Response(media_type=first.content_type)
        return StreamingResponse(_pieces(first, call), media_type=first.content_type)

    async def _answer_upload(self, request: Request, variables: Mapping[str, str], metadata: Metadata) -> Response:
        """The body goes on in chunks as it comes; the first message carries path, query and content type too."""
        first = bind(self.method, variables, request.scope["query_string"], b"")
        _check_announced_length(request, self._limits.stream_bytes, "stream_body_bytes")
        messages = self._upload(first, _content_type(request), _chunks(request, self._limits.stream_bytes))
        answer = await call_with_stream(self._call, messages, metadata, self._limits.stream_seconds)
        return self._render(answer)

    async def _upload(self, message: Any, content_type: str, chunks: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        async for chunk in chunks:
            _set_body(message, self.method, content_type, chunk)
            yield message
            message, content_type = self.method.new_request(), ""

    def _render(self, message: Any) -> Response:
        if self.method.answers_raw_body:
            return Response(message.data, media_type=message.content_type or None)
        try:
            value = json_format.MessageToDict(
                message,
                always_print_fields_with_no_presence=True,
                descriptor_pool=self.method.pool,
            )
        except (json_format.Error, TypeError, ValueError) as error:
            raise ProblemError("INTERNAL", "the answer has no form in JSON") from error
        return Response(orjson.dumps(value), media_type="application/json")


async def _while_there(request: Request, call: Any, answer: Awaitable[Answer]) -> Answer:
    """Awaits the answer of a call, and cancels the call if the client goes away before; the body has been read.

    Most calls end before watching is worth its cost, so it begins after a moment.
    """
    loop = asyncio.get_running_loop()
    watchers: list[asyncio.Task[None]] = []

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        call.cancel()

    timer = loop.call_later(UNWATCHED_SECONDS, lambda: watchers.append(loop.create_task(watch())))
    try:
        return await answer
    except asyncio.CancelledError:
        if any(watcher.done() for watcher in watchers):
            raise ClientDisconnect from None
        call.cancel()
        raise
    finally:
        timer.cancel()
        for watcher in watchers:
            watcher.cancel()


async def _pieces(first: Any, call: Any) -> AsyncIterator[bytes]:
    try:
        piece = first
        while piece is not grpc.aio.EOF:
            yield piece.data
            piece = await call.read()
    finally:
        call.cancel()


async def _chunks(request: Request, most: int) -> AsyncIterator[bytes]:
    """The body in pieces of CHUNK_BYTES, and an empty piece once it is whole.

    A service knows by the empty piece that it has everything: to a gRPC server in Python a stream that was cancelled
    may look like one that has ended (https://github.com/grpc/grpc/issues/33038).
    """
    buffer = bytearray()
    total = 0
    async for received in request.stream():
        total += len(received)
        if total > most:
            raise problems.too_large("body", "stream_body_bytes", most)
        buffer += received
        while len(buffer) >= CHUNK_BYTES:
            yield bytes(buffer[:CHUNK_BYTES])
            del buffer[:CHUNK_BYTES]
    if buffer:
        yield bytes(buffer)
    yield b""


async def _read(request: Request, most: int, limit: str) -> bytes:
    _check_announced_length(request, most, limit)
    body = bytearray()
    async for received in request.stream():
        body += received
        if len(body) > most:
            raise problems.too_large("body", limit, most)
    return bytes(body)


def _check_announced_length(request: Request, most: int, limit: str) -> None:
    if int(request.headers.get("content-length", "0")) > most:
        raise problems.too_large("body", limit, most)


def _content_type(request: Request) -> str:
    """The type of a raw body, which must come as it is."""
    _check_encoding(request)
    return request.headers.get("content-type", "application/octet-stream")


def _check_json_body(request: Request, method: Method, body: bytes) -> None:
    """Only JSON, and only where a body belongs: a form that a browser posts by itself is never a call."""
    _check_encoding(request)
    if body and not method.body:
        raise invalid("body", "must be empty: this method takes none")
    content_type = request.headers.get("content-type")
    if content_type is None and not body:
        return
    media_type, _, parameters = (content_type or "").partition(";")
    charset = parameters.strip().lower().removeprefix("charset=").strip('"')
    if media_type.strip().lower() != "application/json" or charset not in {"", "utf-8"}:
        raise _unsupported("content-type", "must be application/json in UTF-8")


def _check_encoding(request: Request) -> None:
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise _unsupported("content-encoding", "must be left out: bodies are taken as they are")


def _unsupported(header: str, description: str) -> ProblemError:
    return ProblemError(
        "INVALID_ARGUMENT",
        f"{header}: {description}",
        status=415,
        violations=(problems.Violation(header, description),),
    )


def _set_body(message: Any, method: Method, content_type: str, data: bytes) -> None:
    body = getattr(message, method.body)
    body.content_type = content_type
    body.data = data
