"""The OpenAPI 3.1 document of the methods that the gateway serves.

It is made of the descriptors and their comments, so it says what the transcoder does: a path for each binding, a
parameter for each field that path or query can give, a schema for each message in its JSON form.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from google.api import resource_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from traitmesh_proto.api.v1 import annotations_pb2

from services.gateway.openapi.comments import comments_of
from services.gateway.openapi.schemas import Schema, Schemas, is_required
from services.gateway.transcoding.fields import is_scalar
from services.gateway.transcoding.methods import Method
from services.gateway.transcoding.problems import MEDIA_TYPE

INFO = {
    "title": "Traitmesh",
    "version": "v1",
    "description": (
        "The public API of Traitmesh, a trait-centric, warehouse-native customer data platform.\n\n"
        "Every call needs an API key, sent as `Authorization: Bearer tm_...`. Unknown fields and parameters are "
        "refused, not ignored. Errors are `application/problem+json`; programs read `reason`."
    ),
    "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
}

_PROBLEM: Schema = {
    "type": "object",
    "description": "What went wrong, as in RFC 9457.",
    "required": ["type", "title", "status", "detail", "code", "traceId"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string", "description": "The meaning of the status."},
        "status": {"type": "integer", "description": "The HTTP status."},
        "detail": {"type": "string", "description": "What is wrong, and what would be right."},
        "code": {"type": "string", "description": "A name of google.rpc.Code, such as `NOT_FOUND`."},
        "reason": {"type": "string", "description": "Why, for programs: a name of `ErrorReason`."},
        "domain": {"type": "string", "description": "Whose reason it is: `traitmesh`."},
        "metadata": {
            "type": "object",
            "description": "What the reason is about.",
            "additionalProperties": {"type": "string"},
        },
        "violations": {
            "type": "array",
            "description": "The fields that are wrong.",
            "items": {
                "type": "object",
                "required": ["field", "description"],
                "properties": {"field": {"type": "string"}, "description": {"type": "string"}},
            },
        },
        "traceId": {"type": "string", "description": "Finds the call in logs and traces."},
    },
}


def document(files: FileDescriptorSet, methods: Iterable[Method]) -> dict[str, Any]:
    """The OpenAPI document of some methods of a descriptor set that holds its comments."""
    writer = _Writer(files)
    paths: dict[str, dict[str, Any]] = {}
    services: dict[str, str] = {}
    for method in methods:
        path = writer.path(method)
        paths.setdefault(path, {})[method.http_method.lower()] = writer.operation(method)
        service = method.descriptor.containing_service
        services[service.name] = writer.comments.get(service.full_name, "")
    return {
        "openapi": "3.1.0",
        "info": INFO,
        "servers": [{"url": "/"}],
        "security": [{"apiKey": []}],
        "tags": [{"name": name, "description": text} for name, text in services.items()],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(writer.schemas.components.items())) | {"Problem": _PROBLEM},
            "responses": {
                "Problem": {
                    "description": "The call failed.",
                    "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
                }
            },
            "securitySchemes": {"apiKey": {"type": "http", "scheme": "bearer", "bearerFormat": "API key"}},
        },
    }


class _Writer:
    def __init__(self, files: FileDescriptorSet) -> None:
        self.comments = comments_of(files)
        self.schemas = Schemas(self.comments)
        self._singulars = _singulars(files)
        self._used_ids: set[str] = set()

    def path(self, method: Method) -> str:
        """The path with a parameter for each id: `/v1/workspaces/{workspace}/traits/{trait}`."""
        names = iter(self._path_parameters(method))
        segments = [f"{{{next(names)}}}" if "*" in segment else segment for segment in method.template.segments]
        return "/" + "/".join(segments) + (f":{method.template.verb}" if method.template.verb else "")

    def operation(self, method: Method) -> dict[str, Any]:
        """What OpenAPI says of one method at one path."""
        comment = self.comments.get(method.descriptor.full_name, "")
        summary = re.split(r"(?<=\.)\s", comment, maxsplit=1)[0]
        operation: dict[str, Any] = {
            "operationId": self._operation_id(method),
            "tags": [method.descriptor.containing_service.name],
            "summary": summary.removesuffix("."),
            "description": comment,
            "parameters": [*self._path_descriptions(method), *self._query_parameters(method)],
            "responses": {"200": self._answer(method), "default": {"$ref": "#/components/responses/Problem"}},
        }
        if method.body:
            operation["requestBody"] = self._request_body(method)
        if permission := method.options.Extensions[annotations_pb2.permission]:
            operation["x-permission"] = permission
        return operation

    def _operation_id(self, method: Method) -> str:
        name = f"{method.descriptor.containing_service.name}_{method.descriptor.name}"
        operation_id, number = name, 1
        while operation_id in self._used_ids:
            number += 1
            operation_id = f"{name}_{number}"
        self._used_ids.add(operation_id)
        return operation_id

    def _path_parameters(self, method: Method) -> Iterator[str]:
        """A name for each wildcard: the variable's own if it is all of it, else after the collection before it."""
        whole = {v.start: v.field_path for v in method.template.variables if v.end in {v.start + 1, None}}
        segments = method.template.segments
        for position, segment in enumerate(segments):
            if "*" in segment:
                collection = segments[position - 1] if position else "segment"
                singular = self._singulars.get(collection, collection.removesuffix("s"))
                yield whole.get(position, singular)

    def _path_descriptions(self, method: Method) -> Iterator[dict[str, Any]]:
        for name in self._path_parameters(method):
            yield {
                "name": name,
                "in": "path",
                "required": True,
                "description": f"The {name}'s id.",
                "schema": {"type": "string", "minLength": 1},
            }

    def _query_parameters(self, method: Method) -> Iterator[dict[str, Any]]:
        if method.body == "*":
            return
        taken = {variable.field_path for variable in method.template.variables} | {method.body}
        for path, field in _leaves(method.descriptor.input_type, taken):
            schema = self.schemas.field(field)
            yield {
                "name": path,
                "in": "query",
                "required": "." not in path and is_required(field),
                **({"description": schema.pop("description")} if "description" in schema else {}),
                "schema": schema,
            }

    def _request_body(self, method: Method) -> dict[str, Any]:
        if method.takes_raw_body:
            return {"required": True, "content": {"application/octet-stream": {"schema": {}}}}
        if method.body_field:
            schema = self.schemas.value(method.body_field)
            return {"required": True, "content": {"application/json": {"schema": schema}}}
        bound = [variable.field_path for variable in method.template.variables]
        schema = self.schemas.message(method.descriptor.input_type, without=bound)
        required = bool(schema.get("required"))
        return {"required": required, "content": {"application/json": {"schema": schema}}}

    def _answer(self, method: Method) -> dict[str, Any]:
        if not method.answers_raw_body:
            schema = self.schemas.reference(method.descriptor.output_type)
        elif name := method.options.Extensions[annotations_pb2.body_message]:
            schema = self.schemas.reference(method.pool.FindMessageTypeByName(name))
        else:
            return {"description": "The bytes.", "content": {"application/octet-stream": {"schema": {}}}}
        return {"description": "The answer.", "content": {"application/json": {"schema": schema}}}


def _leaves(
    message: Descriptor, taken: set[str], path: str = "", json_path: str = "", above: tuple[str, ...] = ()
) -> Iterator[tuple[str, FieldDescriptor]]:
    """Each field that the query can give, by its dotted JSON path; a message within itself is not followed."""
    for field in message.fields:
        here, json_here = f"{path}{field.name}", f"{json_path}{field.json_name}"
        inner = field.message_type
        if here in taken:
            continue
        if is_scalar(field):
            yield json_here, field
        elif (
            inner and not field.is_repeated and inner.file.package != "google.protobuf" and inner.full_name not in above
        ):
            yield from _leaves(inner, taken, f"{here}.", f"{json_here}.", (*above, message.full_name, inner.full_name))


def _singulars(files: FileDescriptorSet) -> Mapping[str, str]:
    """What one member of a collection is called, after the resources' own declarations."""
    resources = (
        message.options.Extensions[resource_pb2.resource] for file in files.file for message in file.message_type
    )
    return {resource.plural: resource.singular for resource in resources if resource.plural}
