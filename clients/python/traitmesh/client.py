"""A thin client of the REST API: paths and JSON are those of the documentation at `<gateway>/docs`.

A path that does not begin with `/` is below the client's workspace: `client.get("traits/ltv")`.
"""

import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

import httpx

from traitmesh.settings import Settings, read_settings

#: Attempts at a call that met a restart or a conflict; mutations carry a request_id, so repeating is safe.
ATTEMPTS = 5
RETRIED = {409: ("ABORTED",), 502: (), 503: (), 504: ()}

TIMEOUT = httpx.Timeout(150, connect=10)
CHUNK_BYTES = 1 << 20

Json = dict[str, Any]


class ApiError(Exception):
    """The gateway refused a call.

    `status` is the HTTP status, `reason` a name of traitmesh.api.v1.ErrorReason, `violations` the fields that are
    wrong, as (path, what would be right).
    """

    def __init__(self, status: int, problem: Json) -> None:
        self.status = status
        self.reason: str = problem.get("reason", "")
        self.code: str = problem.get("code", "")
        self.detail: str = problem.get("detail", "")
        self.violations: list[tuple[str, str]] = [
            (violation["field"], violation["description"]) for violation in problem.get("violations", [])
        ]
        super().__init__(self.detail or f"the gateway answered {status}")


class Client:
    """Calls the gateway at `url` with an API key, by default in one workspace."""

    def __init__(self, url: str, api_key: str, workspace: str = "default") -> None:
        self.workspace = workspace
        self._http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {api_key}"}, timeout=TIMEOUT)
        self._was_up = False

    @classmethod
    def from_settings(cls, workspace: str | None = None) -> Self:
        """A client by environment or client.json; raises SettingsError if neither says where."""
        settings: Settings = read_settings(workspace=workspace)
        return cls(settings.url, settings.api_key, settings.workspace)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def get(self, path: str, **parameters: Any) -> Json:
        """The resource or answer at `path`."""
        return self._json(lambda: self._http.get(self._path(path), params=parameters))

    def post(self, path: str, body: Json, **parameters: Any) -> Json:
        """What the gateway answers to a mutation or a custom method."""
        return self._json(lambda: self._http.post(self._path(path), json=body, params=parameters))

    def create(self, path: str, body: Json, **parameters: Any) -> Json:
        """Creates a resource, safely repeated: a lost answer does not create it twice."""
        return self.post(path, body, requestId=str(uuid.uuid4()), **parameters)

    def patch(self, path: str, body: Json, **parameters: Any) -> Json:
        """Updates a resource, safely repeated."""
        parameters["requestId"] = str(uuid.uuid4())
        return self._json(lambda: self._http.patch(self._path(path), json=body, params=parameters))

    def pages(self, path: str, field: str, **parameters: Any) -> Iterator[Json]:
        """Every item of a list, page by page; `field` is the answer's list, such as "traits"."""
        while True:
            page = self.get(path, **parameters)
            yield from page.get(field, [])
            if not page.get("nextPageToken"):
                return
            parameters["pageToken"] = page["nextPageToken"]

    def upload(
        self, path: str, content: bytes | Callable[[], Iterator[bytes]], content_type: str, **parameters: Any
    ) -> Json:
        """Sends bytes, or pieces of them that `content()` makes afresh for each attempt."""

        def send() -> httpx.Response:
            body = content() if callable(content) else content
            headers = {"Content-Type": content_type}
            return self._http.post(self._path(path), content=body, headers=headers, params=parameters)

        return self._json(send)

    def stream(self, path: str, **parameters: Any) -> Iterator[bytes]:
        """The pieces of an answer that is too large to hold, such as a build's rows."""
        with self._http.stream("GET", self._path(path), params=parameters) as answer:
            if answer.is_error:
                answer.read()
                raise _error(answer)
            yield from answer.iter_bytes(CHUNK_BYTES)

    def wait(
        self, name: str, unfinished: tuple[str, ...], on_change: Callable[[Json], None], seconds: float = 3600
    ) -> Json:
        """Reads a resource until its `state` is none of `unfinished`, showing each answer to `on_change`.

        Raises TimeoutError if that takes longer than `seconds`.
        """
        deadline = time.monotonic() + seconds
        pause = 0.1
        while time.monotonic() < deadline:
            resource = self.get(f"/v1/{name}")
            on_change(resource)
            if resource["state"] not in unfinished:
                return resource
            time.sleep(pause)
            pause = min(pause * 1.3, 0.5)
        raise TimeoutError(f"{name} has not ended after {seconds:.0f} s")

    def _path(self, path: str) -> str:
        return path if path.startswith("/") else f"/v1/workspaces/{self.workspace}/{path}"

    def _json(self, send: Callable[[], httpx.Response]) -> Json:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                answer = send()
            except httpx.TransportError as failure:
                # A gateway that answered before is being restarted; one that never did is not there.
                absent = isinstance(failure, httpx.ConnectError | httpx.ConnectTimeout) and not self._was_up
                if absent or attempt == ATTEMPTS:
                    raise
                _pause(attempt, {})
                continue
            self._was_up = True
            if answer.is_success:
                content: Json = answer.json()
                return content
            error = _error(answer)
            if attempt == ATTEMPTS or not _passing(error):
                raise error
            _pause(attempt, answer.headers)
        raise AssertionError("the last attempt returns or raises")


def _passing(error: ApiError) -> bool:
    """Whether the same call may succeed in a moment."""
    codes = RETRIED.get(error.status)
    return codes is not None and (not codes or error.code in codes)


def _pause(attempt: int, headers: Mapping[str, str]) -> None:
    told = headers.get("Retry-After", "")
    seconds = float(told) if told.isdigit() else 0.2 * 2**attempt
    time.sleep(min(seconds, 30) + random.uniform(0, 0.1))  # noqa: S311 -- jitter is no secret


def _error(answer: httpx.Response) -> ApiError:
    try:
        problem = answer.json()
    except ValueError:
        problem = {}
    return ApiError(answer.status_code, problem if isinstance(problem, dict) else {})
