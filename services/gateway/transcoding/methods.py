"""The methods of a descriptor set that google.api.http maps to REST."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.api import annotations_pb2, http_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet, MethodOptions
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from services.gateway.transcoding import template as templates

HTTP_BODY = "google.api.HttpBody"


@dataclass(frozen=True)
class Method:
    """One method with one of its REST bindings, checked and ready to be called."""

    descriptor: MethodDescriptor
    http_method: str
    path: str
    template: templates.Template
    #: `""` for no body, `"*"` for the whole request, else the name of the field that the body is.
    body: str
    options: MethodOptions

    @property
    def grpc_path(self) -> str:
        """The path that gRPC calls the method by."""
        return f"/{self.descriptor.containing_service.full_name}/{self.descriptor.name}"

    @property
    def body_field(self) -> FieldDescriptor | None:
        """The field that the body is, if it is one field."""
        return self.descriptor.input_type.fields_by_name.get(self.body)

    @property
    def package(self) -> str:
        """The proto package of the method's service."""
        return self.descriptor.containing_service.file.package

    @property
    def pool(self) -> DescriptorPool:
        """The pool that the method's messages are from."""
        return self.descriptor.containing_service.file.pool

    @property
    def takes_raw_body(self) -> bool:
        """Whether the body is a google.api.HttpBody: bytes of any type."""
        field = self.body_field
        return field is not None and _type_name(field.message_type) == HTTP_BODY

    @property
    def answers_raw_body(self) -> bool:
        """Whether the answer is google.api.HttpBody."""
        return _type_name(self.descriptor.output_type) == HTTP_BODY

    def new_request(self) -> Any:
        """An empty request message."""
        return GetMessageClass(self.descriptor.input_type)()


def pool_of(files: FileDescriptorSet) -> DescriptorPool:
    """A pool with the files of a set, which must come after the files that they import."""
    pool = DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return pool


def methods_of(files: FileDescriptorSet, pool: DescriptorPool) -> list[Method]:
    """Every binding of every method that has a google.api.http rule; others are never reachable by REST.

    Raises ValueError for a rule that cannot be served, with the method's name.
    """
    methods = []
    for file in files.file:
        for service in file.service:
            for method in service.method:
                name = f"{file.package}.{service.name}.{method.name}"
                rule = method.options.Extensions[annotations_pb2.http]
                methods += [
                    _method(pool.FindMethodByName(name), binding, method.options) for binding in _bindings(rule)
                ]
    return methods


def _bindings(rule: http_pb2.HttpRule) -> Iterator[http_pb2.HttpRule]:
    if rule.WhichOneof("pattern"):
        yield rule
        yield from rule.additional_bindings


def _method(descriptor: MethodDescriptor, rule: http_pb2.HttpRule, options: MethodOptions) -> Method:
    kind = rule.WhichOneof("pattern")
    if kind == "custom":
        http_method, path = rule.custom.kind, rule.custom.path
    else:
        http_method, path = kind.upper(), getattr(rule, kind)
    method = Method(descriptor, http_method, path, templates.parse(path), rule.body, options)
    if problem := _problem(method, rule):
        raise ValueError(f"{descriptor.full_name}: {problem}")
    return method


def _problem(method: Method, rule: http_pb2.HttpRule) -> str | None:
    """Why a rule cannot be served, if so."""
    client, server = method.descriptor.client_streaming, method.descriptor.server_streaming
    missing_body = method.body not in {"", "*"} and method.body_field is None
    problems = {
        "response_body is not served": bool(rule.response_body),
        f"the request has no field {method.body!r} to be the body": missing_body,
        f"a stream of requests must have a {HTTP_BODY} as its body": client and not method.takes_raw_body,
        f"a stream of answers must be of {HTTP_BODY}": server and not method.answers_raw_body,
        "a stream in both directions has no form in REST": client and server,
    }
    for variable in method.template.variables:
        path = variable.field_path
        bindable = _is_bindable(method.descriptor.input_type, path.split("."))
        problems[f"the path cannot bind {path!r}"] = not bindable
    return next((problem for problem, holds in problems.items() if holds), None)


def _is_bindable(message: Descriptor, names: list[str]) -> bool:
    field = message.fields_by_name.get(names[0])
    if field is None or field.is_repeated:
        return False
    if len(names) == 1:
        return field.message_type is None
    return field.message_type is not None and _is_bindable(field.message_type, names[1:])


def _type_name(message: Descriptor | None) -> str:
    return message.full_name if message else ""
