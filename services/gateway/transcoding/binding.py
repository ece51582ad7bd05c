"""Makes the request message of a method out of path, query and body.

The rules are those of the comment of google/api/http.proto: the path gives the fields of its variables, the body gives
one field or (`*`) every other, and the query gives what is left when the body is not `*`. A field that two of them give
is refused unless both say the same.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from services.gateway.transcoding import fields, json_text
from services.gateway.transcoding.methods import Method
from services.gateway.transcoding.problems import invalid


def bind(method: Method, variables: Mapping[str, str], query: bytes, body: bytes) -> Any:
    """The request of a method; raises ProblemError that names the first wrong field.

    `variables` are the path's, by field path; `query` is raw; `body` is JSON, or empty for the default request.
    """
    request = method.new_request()
    if body:
        _bind_body(request, method, body)
    _bind_query(request, query, method.body, variables)
    _bind_path(request, variables)
    return request


def _bind_body(request: Any, method: Method, body: bytes) -> None:
    value = json_text.parse(body, "body")
    if method.body_field:
        fields.set_from_json(request, method.body_field, value, method.body_field.name)
    else:
        fields.fill_from_json(request, value, "")


def _bind_query(request: Any, query: bytes, body: str, variables: Collection[str]) -> None:
    given: set[str] = set()
    for name, text in _parameters(query):
        if body == "*":
            raise invalid(name[:100], "is not known; this method takes everything in the body")
        message, field, path = _resolve(request, name)
        if path in variables:
            raise invalid(path, "is given by the path and cannot be in the query")
        if path.split(".")[0] == body:
            raise invalid(path, "belongs in the body")
        if path in given and not field.is_repeated:
            raise invalid(path, "is given twice")
        given.add(path)
        fields.set_from_text(message, field, text, path)


def _parameters(query: bytes) -> Iterator[tuple[str, str]]:
    for parameter in query.split(b"&"):
        if parameter:
            name, _, value = parameter.partition(b"=")
            yield _decode(name), _decode(value)


def _decode(raw: bytes) -> str:
    try:
        return unquote_to_bytes(raw.replace(b"+", b" ")).decode("utf-8")
    except UnicodeDecodeError:
        raise invalid("query", "must be percent-encoded UTF-8") from None


def _resolve(request: Any, name: str) -> tuple[Any, FieldDescriptor, str]:
    """The message and field that a parameter such as `segment.displayName` is for, and its path in proto names."""
    message = request
    *parents, last = name.split(".")
    path: list[str] = []
    for parent in parents:
        field = _known(message.DESCRIPTOR, parent, name)
        if field.is_repeated or fields.is_scalar(field) or fields.is_free_form(field):
            raise invalid(name[:100], "is not known: only single messages have fields")
        path.append(field.name)
        fields.check_oneof(message, field, ".".join(path))
        message = getattr(message, field.name)
    field = _known(message.DESCRIPTOR, last, name)
    if not fields.is_scalar(field):
        raise invalid(name[:100], "cannot be in the query: it is not a plain value")
    return message, field, ".".join([*path, field.name])


def _known(message: Descriptor, name: str, parameter: str) -> FieldDescriptor:
    field = fields.fields_by_any_name(message).get(name)
    if field is None:
        raise invalid(parameter[:100], "is not a parameter of this method")
    return field


def _bind_path(request: Any, variables: Mapping[str, str]) -> None:
    for path, text in variables.items():
        *parents, last = path.split(".")
        message = request
        for parent in parents:
            message = getattr(message, parent)
        field = message.DESCRIPTOR.fields_by_name[last]
        given = getattr(message, last)
        fields.set_from_text(message, field, text, path)
        if given not in {field.default_value, getattr(message, last)}:
            raise invalid(path, "differs from what the path says")
