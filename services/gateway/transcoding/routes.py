"""Finds the method that a request is for, by its raw path.

Templates are kept in a tree of segments. The path is split before anything in it is decoded, so that an encoded slash
or colon is never part of the structure: `t1%2Fx` is one segment, and `t1%3Apromote` has no verb.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from urllib.parse import unquote_to_bytes

from services.gateway.transcoding.problems import ProblemError, invalid, not_allowed
from services.gateway.transcoding.template import Template

Target = TypeVar("Target")

_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ENCODED_SLASH = re.compile(r"(%2[Ff])")


@dataclass(frozen=True)
class Route(Generic[Target]):
    """A template and what it leads to."""

    template: Template
    target: Target

    def variables(self, segments: list[str]) -> dict[str, str]:
        """The value of each variable by field path; raises ProblemError for a segment that cannot be a value."""
        return {
            variable.field_path: "/".join(
                self._decode(position, segments[position], variable.field_path)
                for position in range(variable.start, variable.end or len(segments))
            )
            for variable in self.template.variables
        }

    def _decode(self, position: int, segment: str, field_path: str) -> str:
        if "%" not in segment and segment not in {".", ".."}:
            return segment
        if position < len(self.template.segments) and self.template.segments[position] != "**":
            return _decode_segment(segment, field_path)
        pieces = _ENCODED_SLASH.split(segment)
        pieces[::2] = [_decode_segment(piece, field_path) for piece in pieces[::2]]
        return "".join(pieces)


@dataclass
class _Node(Generic[Target]):
    literals: "dict[str, _Node[Target]]" = field(default_factory=dict)
    wildcard: "_Node[Target] | None" = None
    #: Routes that end here, by verb and HTTP method; `rest` holds those whose last segment is `**`.
    routes: dict[str, dict[str, Route[Target]]] = field(default_factory=dict)
    rest: dict[str, dict[str, Route[Target]]] = field(default_factory=dict)

    def reach(self, segments: tuple[str, ...]) -> "dict[str, dict[str, Route[Target]]]":
        """The routes at the end of a template, whose way is made where there is none."""
        if not segments:
            return self.routes
        if segments[0] == "**":
            return self.rest
        if segments[0] == "*":
            self.wildcard = self.wildcard or _Node()
            return self.wildcard.reach(segments[1:])
        return self.literals.setdefault(segments[0], _Node()).reach(segments[1:])

    def matches(self, segments: list[str], position: int) -> "Iterator[dict[str, dict[str, Route[Target]]]]":
        """The routes of every template that fits, the most literal first."""
        if position == len(segments):
            yield self.routes
        else:
            if literal := self.literals.get(segments[position]):
                yield from literal.matches(segments, position + 1)
            if self.wildcard and segments[position]:
                yield from self.wildcard.matches(segments, position + 1)
        if self.rest and all(segments[position:]):
            yield self.rest


class Routes(Generic[Target]):
    """All routes of a service."""

    def __init__(self) -> None:
        self._root: _Node[Target] = _Node()

    def add(self, http_method: str, template: Template, target: Target) -> None:
        """Adds a route; raises ValueError if another has the same method and template."""
        methods = self._root.reach(template.segments).setdefault(template.verb, {})
        if http_method in methods:
            raise ValueError(f"two methods are mapped to {http_method} {template}")
        methods[http_method] = Route(template, target)

    def find(self, http_method: str, raw_path: bytes) -> tuple[Route[Target], list[str]]:
        """The route of a request and the raw segments of its path.

        Raises ProblemError: 404 if no template fits, 405 with `Allow` if one does with other methods only.
        """
        segments, verb = _split(raw_path)
        for routes in self._root.matches(segments, 0):
            if route := routes.get(verb, {}).get(http_method):
                return route, segments
        raise not_allowed(self.allow(raw_path))

    def allow(self, raw_path: bytes) -> str:
        """The `Allow` header of a path; raises ProblemError, 404, if no template fits."""
        segments, verb = _split(raw_path)
        fitting = [routes.get(verb, {}) for routes in self._root.matches(segments, 0)]
        methods = {method for routes in fitting for method in routes}
        if not methods:
            hint = "; a colon within an id is written %3A" if verb else ""
            raise ProblemError("NOT_FOUND", f"there is nothing at this path{hint}")
        answered = {"OPTIONS", "HEAD"} if "GET" in methods else {"OPTIONS"}
        return ", ".join(sorted(methods | answered))


def _split(raw_path: bytes) -> tuple[list[str], str]:
    try:
        path = raw_path.decode("ascii")
    except UnicodeDecodeError as error:
        raise invalid("path", "must be percent-encoded UTF-8") from error
    segments = path.removeprefix("/").split("/")
    last, colon, verb = segments[-1].rpartition(":")
    if not colon:
        return segments, ""
    segments[-1] = last
    return segments, verb or ":"  # a bare colon is the verb of no template


def _decode_segment(segment: str, field_path: str) -> str:
    if _BROKEN_ESCAPE.search(segment):
        raise invalid(field_path, "has a % that is not followed by two hexadecimal digits")
    try:
        value = unquote_to_bytes(segment).decode("utf-8")
    except UnicodeDecodeError as error:
        raise invalid(field_path, "must be percent-encoded UTF-8") from error
    if "/" in value or "\0" in value or value in {".", ".."}:
        raise invalid(field_path, "may not hold an encoded slash, NUL, or be `.` or `..`")
    return value
