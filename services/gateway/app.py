"""The gateway's application: what is served where, and who may call what.

A request passes `front`, is one of the few pages of the gateway itself or goes to the transcoder, which asks `admit`
before it calls a service. Everything public follows from the descriptors.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import lru_cache

import orjson
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from traitmesh_proto.api.v1 import annotations_pb2

from libs.kit import auth, errors, telemetry
from services.gateway.authentication import Authenticator
from services.gateway.docs_page import CONTENT_SECURITY_POLICY, docs_files
from services.gateway.front import TEMPLATE, Front
from services.gateway.openapi.document import document
from services.gateway.transcoding.methods import Method
from services.gateway.transcoding.problems import not_allowed
from services.gateway.transcoding.transcoder import Channel, Limits, Metadata, Transcoder

#: Well below auth.TOKEN_SECONDS, so that no token ends on its way.
TOKEN_PERIOD_SECONDS = 20

Page = Callable[[], Awaitable[Response]]


def build_app(
    files: FileDescriptorSet,
    methods: list[Method],
    channel_of: Callable[[Method], Channel],
    engine: Engine,
    signer: auth.TokenSigner,
    limits: Limits,
) -> ASGIApp:
    """The application that serves `methods`, those of `files`, through the channels of their services.

    Called within the event loop that serves. Raises ValueError for a method without a permission that a key can hold.
    """
    transcoder = Transcoder(
        methods,
        channel_of=channel_of,
        admit=Gatekeeper(Authenticator(engine), signer, methods).admit,
        limits=limits,
    )
    pages = {
        "/healthz": _alive,
        "/readyz": lambda: _ready(engine),
        "/v1/openapi.json": _file("application/json", orjson.dumps(document(files, methods))),
        "/v1/descriptors.binpb": _file("application/protobuf", files.SerializeToString()),
        **{path: _file(*file, CONTENT_SECURITY_POLICY) for path, file in docs_files().items()},
    }
    return Front(_Application(pages, transcoder))


class Gatekeeper:
    """Lets a request to a service if its key holds the permission and belongs to the workspace.

    The services check both again: they trust the signature and not the gateway's judgement. Checking here spares them
    whatever has no business with them, such as the gigabytes of a load.
    """

    def __init__(self, authenticator: Authenticator, signer: auth.TokenSigner, methods: Iterable[Method]) -> None:
        self._authenticator = authenticator
        #: A signature costs as much as finding the route, so a caller keeps its token for a period.
        self._token = lru_cache(maxsize=10_000)(lambda caller, _period: signer.sign(caller))
        self._permissions = {method.grpc_path: _permission(method) for method in methods}

    async def admit(self, request: Request, method: Method, variables: Mapping[str, str]) -> Metadata:
        """The metadata of the call: the caller's identity and the trace. Raises a Fault."""
        request.scope[TEMPLATE] = method.path
        caller = await self._authenticator.caller(request.headers.get("authorization"))
        permission = self._permissions[method.grpc_path]
        if not caller.may(permission):
            raise errors.PermissionDenied(
                f"the role {caller.role} does not hold the permission {permission}",
                permission=permission,
                role=caller.role,
            )
        for name in variables.values():
            root, _, rest = name.partition("/")
            if root == "workspaces" and not caller.may_enter(rest.partition("/")[0]):
                raise errors.NotFound(name)
        token = self._token(caller, int(time.monotonic() / TOKEN_PERIOD_SECONDS))
        return ((auth.METADATA_KEY, token), *telemetry.outgoing_headers().items())


def _permission(method: Method) -> str:
    permission: str = method.options.Extensions[annotations_pb2.permission]
    if permission in {"", "internal"}:
        raise ValueError(f"{method.descriptor.full_name} has a path and no permission that a key can hold")
    return permission


class _Application:
    """The gateway's own pages by their exact path; all else is the transcoder's."""

    def __init__(self, pages: Mapping[str, Page], transcoder: Transcoder) -> None:
        self._pages = {path.encode(): page for path, page in pages.items()}
        self._transcoder = transcoder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        page = self._pages.get(scope["raw_path"])
        if page is None:
            await self._transcoder(scope, receive, send)
            return
        scope[TEMPLATE] = scope["raw_path"].decode()
        allow = "GET, HEAD, OPTIONS"
        if scope["method"] == "OPTIONS":
            response = Response(status_code=204, headers={"Allow": allow})
        elif scope["method"] in {"GET", "HEAD"}:
            response = await page()
        else:
            raise not_allowed(allow)
        await response(scope, receive, send)


def _file(media_type: str, content: bytes, content_security_policy: str | None = None) -> Page:
    headers = {"Cache-Control": "public, max-age=300"}
    if content_security_policy:
        headers["Content-Security-Policy"] = content_security_policy

    async def answer() -> Response:
        return Response(content, media_type=media_type, headers=headers)

    return answer


async def _alive() -> Response:
    return Response("alive\n", media_type="text/plain")


async def _ready(engine: Engine) -> Response:
    """Ready once keys can be checked. A service that is down takes its own routes with it and no others."""

    def ask() -> None:
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))

    try:
        await asyncio.to_thread(ask)
    except OperationalError as error:
        raise errors.Unavailable("the database does not answer", part="database") from error
    return Response("ready\n", media_type="text/plain")
