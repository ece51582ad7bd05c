"""The library of library.proto as a real gRPC server, and a real HTTP server in front of it."""

import asyncio
import hashlib
import http.client
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google.api
import grpc
import grpc_tools
import uvicorn
from google.protobuf import any_pb2, text_format
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from grpc_tools import protoc
from starlette.types import ASGIApp

from services.gateway.front import Front
from services.gateway.transcoding.methods import methods_of, pool_of
from services.gateway.transcoding.transcoder import Channel, Limits, Transcoder

PROTO = Path(__file__).parent / "library.proto"


def compile_proto(folder: Path, source: Path = PROTO) -> FileDescriptorSet:
    """The descriptor set of a proto file, with what it imports and its comments."""
    out = folder / "descriptors.binpb"
    arguments = [
        f"--proto_path={source.parent}",
        f"--proto_path={Path(google.api.__path__[0]).parent.parent}",
        f"--proto_path={Path(grpc_tools.__path__[0]) / '_proto'}",
        f"--descriptor_set_out={out}",
        "--include_imports",
        "--include_source_info",
        str(source),
    ]
    assert protoc.main(["protoc", *arguments]) == 0
    return FileDescriptorSet.FromString(out.read_bytes())


class Library:
    """Answers every method with what it was called with."""

    def __init__(self, pool: DescriptorPool) -> None:
        self._pool = pool
        self.cancelled = threading.Event()
        self.calls = 0
        self.uploads = 0

    def message(self, name: str, **fields: Any) -> Any:
        return GetMessageClass(self._pool.FindMessageTypeByName(name))(**fields)

    def add_to(self, server: grpc.Server) -> None:
        service = self._pool.FindServiceByName("library.v1.Library")
        handlers = {method.name: self._handler(method) for method in service.methods}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))

    def _handler(self, method: Any) -> Any:
        answers: dict[str, Callable[[Any, Any], Any]] = {
            "Echo": lambda request, _: request,
            "GetPage": self._get_page,
            "ReadPages": self._read_pages,
            "Upload": self._upload,
            "Fail": self._fail,
        }
        answer = answers.get(method.name, self._called)
        make = grpc.unary_unary_rpc_method_handler
        if method.client_streaming:
            make = grpc.stream_unary_rpc_method_handler
        if method.server_streaming:
            make = grpc.unary_stream_rpc_method_handler

        def count(request: Any, context: grpc.ServicerContext) -> Any:
            self.calls += 1
            return answer(request, (context, method))

        return make(count, GetMessageClass(method.input_type).FromString, lambda message: message.SerializeToString())

    def _called(self, request: Any, call: Any) -> Any:
        method = call[1]
        if method.output_type.full_name == "google.protobuf.Empty":
            return self.message("google.protobuf.Empty")
        text = text_format.MessageToString(request, as_one_line=True)
        return self.message("library.v1.Called", method=method.name, request=text)

    def _get_page(self, request: Any, call: Any) -> Any:
        context = call[0]
        if request.name.endswith("/slow"):
            context.add_callback(self.cancelled.set)
            self.cancelled.wait(3)
        data = json.dumps({"name": request.name}).encode()
        return self.message("google.api.HttpBody", content_type="application/json", data=data)

    def _read_pages(self, request: Any, call: Any) -> Iterator[Any]:
        context = call[0]
        context.add_callback(self.cancelled.set)
        page = 0
        while (request.endless and context.is_active()) or page < request.pages:
            page += 1
            yield self.message("google.api.HttpBody", content_type="text/x-page", data=b"page %d;" % page)
            if page == request.fail_after:
                context.abort(grpc.StatusCode.DATA_LOSS, "the rest of the pages is lost")

    def _upload(self, requests: Iterator[Any], call: Any) -> Any:
        context = call[0]
        context.add_callback(self.cancelled.set)
        first = next(requests)
        if first.file_name == "refused":
            context.abort(grpc.StatusCode.ALREADY_EXISTS, "the file is there already")
        digest, sizes = hashlib.sha256(first.content.data), [len(first.content.data)]
        for request in requests:
            assert not request.parent
            digest.update(request.content.data)
            sizes.append(len(request.content.data))
        if sizes[-1] > 0:
            raise ValueError("the upload broke off")
        self.uploads += 1
        return self.message(
            "library.v1.Uploaded",
            parent=first.parent,
            file_name=first.file_name,
            content_type=first.content.content_type,
            byte_count=sum(sizes),
            sha256=digest.hexdigest(),
            chunk_sizes=sizes,
        )

    def _fail(self, request: Any, call: Any) -> Any:
        context = call[0]
        if request.kind == "crash":
            raise ValueError("a secret that crashed")
        if request.kind == "plain":
            context.abort(grpc.StatusCode.NOT_FOUND, "no such book")
        status = status_pb2.Status(code=code_of(request.kind), message="as the service said it")
        details = [
            error_details_pb2.ErrorInfo(reason="BOOK_TROUBLE", domain="library", metadata={"book": "b1"}),
            error_details_pb2.BadRequest(
                field_violations=[error_details_pb2.BadRequest.FieldViolation(field="book.name", description="bad")]
            ),
        ]
        for detail in details:
            status.details.add().Pack(detail)
        status.details.append(any_pb2.Any(type_url="type.googleapis.com/nobody.Knows", value=b"\x01"))
        context.abort_with_status(rpc_status.to_status(status))
        raise AssertionError


def code_of(name: str) -> int:
    return next(code.value[0] for code in grpc.StatusCode if code.name == name)


@contextmanager
def serving_grpc(library: Library) -> Iterator[int]:
    """The port of a gRPC server of the library."""
    server = grpc.server(ThreadPoolExecutor(8))
    library.add_to(server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(0).wait()


@contextmanager
def serving_http(make_app: Callable[[], AbstractAsyncContextManager[ASGIApp]]) -> Iterator[int]:
    """The port of uvicorn with an application that is made within its event loop."""
    ready: Future[tuple[uvicorn.Server, int]] = Future()

    async def serve() -> None:
        async with make_app() as app:
            config = uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, lifespan="off", ws="none")
            server = uvicorn.Server(config)
            task = asyncio.create_task(server.serve())
            while not server.started:
                await asyncio.sleep(0.01)
            ready.set_result((server, server.servers[0].sockets[0].getsockname()[1]))
            await task

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    server, port = ready.result(10)
    try:
        yield port
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


@contextmanager
def serving_library(files: FileDescriptorSet, library: Library, limits: Limits) -> Iterator[int]:
    """The port of REST in front of the library."""
    with serving_grpc(library) as grpc_port:

        @asynccontextmanager
        async def make_app() -> AsyncIterator[ASGIApp]:
            address = f"127.0.0.1:{grpc_port}"
            async with grpc.aio.insecure_channel(address) as channel:
                with grpc.insecure_channel(address) as blocking:
                    methods = methods_of(files, pool_of(files))
                    channels: dict[bool, Channel] = {False: channel, True: blocking}
                    yield Front(Transcoder(methods, lambda m: channels[m.descriptor.client_streaming], _admit, limits))

        with serving_http(make_app) as port:
            yield port


async def _admit(*_: object) -> tuple[tuple[str, str], ...]:
    return ()


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def fields(self) -> list[str]:
        """The paths of the fields that a problem names."""
        return [violation["field"] for violation in self.json["violations"]]


class Client:
    """Sends requests as they are written: a path is not cleaned up on its way, as most clients would."""

    def __init__(self, port: int, **headers: str) -> None:
        self.port = port
        self._headers = headers

    def send(
        self, method: str, path: str, body: bytes | None = None, content_type: str | None = None, **headers: str
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.putrequest(method, path)
            given = {"Content-Type": content_type} if content_type else {}
            if body is not None:
                given["Content-Length"] = str(len(body))
            given |= {name.replace("_", "-"): value for name, value in (self._headers | headers).items()}
            for name, value in given.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def get(self, path: str) -> Answer:
        return self.send("GET", path)

    def post(self, path: str, value: Any) -> Answer:
        """Sends JSON: a value, or bytes as they are."""
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        return self.send("POST", path, body, "application/json")
