"""The Web API over HTTP: who may call, how errors are told, and failures on demand.

Besides Slack's methods, for tests and demos: `GET /sink/counts`, and `POST /sink/faults`
{"method", "fault": "500" | "commit_then_500" | "html_502" | "reset", "times"} plans failures;
`POST /sink/membership` {"channel", "is_member"} puts the app in or out.
"""

import json
from collections import defaultdict
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from slack_sink.store import Store
from slack_sink.web_api import Arguments, Limits, RateLimitedError, SlackError, WebApi


class Server:
    """The application; `token` is the only one that is let in."""

    def __init__(self, store: Store, token: str, limits: Limits) -> None:
        self._store = store
        self._token = token
        self._limits = limits
        self._api = WebApi(store, limits)
        self._faults: dict[str, list[str]] = defaultdict(list)
        self.app = Starlette(
            routes=[
                Route("/api/{method}", self._call, methods=["GET", "POST"]),
                Route("/sink/counts", self._counts),
                Route("/sink/faults", self._plan, methods=["POST"]),
                Route("/sink/membership", self._membership, methods=["POST"]),
            ]
        )

    async def _call(self, request: Request) -> Response:
        name = request.path_params["method"]
        arguments = await _arguments(request)
        given = _given_token(request, arguments)
        self._store.count("requests")
        if self._faults[name]:
            fault = self._faults[name].pop(0)
            self._store.count(f"fault {fault}")
            if fault == "commit_then_500":
                self._answer(name, arguments, given)
            return _failure(fault)
        answer = self._answer(name, arguments, given)
        self._store.count(f"status {answer.status_code}")
        return answer

    def _answer(self, name: str, arguments: Arguments, given: str) -> Response:
        try:
            if not given:
                raise SlackError("not_authed")
            if given != self._token:
                raise SlackError("invalid_auth")
            if name not in self._api.methods:
                raise SlackError("unknown_method")
            return JSONResponse({"ok": True} | self._api.methods[name](arguments))
        except SlackError as error:
            return JSONResponse({"ok": False, "error": error.code})
        except RateLimitedError:
            headers = {"Retry-After": str(self._limits.retry_after)}
            return JSONResponse({"ok": False, "error": "ratelimited"}, 429, headers)

    async def _counts(self, _: Request) -> Response:
        return JSONResponse(self._store.counts())

    async def _plan(self, request: Request) -> Response:
        wanted = await request.json()
        self._faults[wanted["method"]] += [wanted["fault"]] * wanted.get("times", 1)
        return JSONResponse({"ok": True})

    async def _membership(self, request: Request) -> Response:
        wanted = await request.json()
        channel = self._store.channel(wanted["channel"])
        if channel is not None:
            self._store.change(channel, member=wanted["is_member"])
        return JSONResponse({"ok": channel is not None})


def _failure(fault: str) -> Response:
    if fault == "html_502":
        return HTMLResponse("<html>Bad gateway</html>", 502)
    if fault == "reset":
        # A promise of more bytes than come: the connection ends in the middle of the body.
        return Response('{"ok": tr', headers={"Content-Length": "1000", "Connection": "close"})
    return JSONResponse({"ok": False, "error": "internal_error"}, 500)


async def _arguments(request: Request) -> Arguments:
    """Return a call's arguments, which Slack takes as query, form or JSON."""
    query: Arguments = dict(request.query_params)
    body = await request.body()
    if request.headers.get("content-type", "").startswith("application/json"):
        parsed = json.loads(body or b"{}")
        return query | (parsed if isinstance(parsed, dict) else {})
    return query | dict(parse_qsl(body.decode()))


def _given_token(request: Request, arguments: Arguments) -> str:
    header = request.headers.get("authorization", "")
    return header.removeprefix("Bearer ") if header else str(arguments.get("token", ""))
