"""JSON Schemas of messages and enums, by the proto3 JSON mapping: what OpenAPI 3.1 has under components/schemas."""

from collections.abc import Collection, Mapping
from typing import Any

from google.api import field_behavior_pb2, field_info_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

Schema = dict[str, Any]

_SCALARS: Mapping[int, Schema] = {
    FieldDescriptor.CPPTYPE_INT32: {"type": "integer", "format": "int32"},
    FieldDescriptor.CPPTYPE_UINT32: {"type": "integer", "format": "int64", "minimum": 0, "maximum": 2**32 - 1},
    FieldDescriptor.CPPTYPE_INT64: {"type": "string", "format": "int64"},
    FieldDescriptor.CPPTYPE_UINT64: {"type": "string", "format": "uint64"},
    FieldDescriptor.CPPTYPE_FLOAT: {"type": "number", "format": "float"},
    FieldDescriptor.CPPTYPE_DOUBLE: {"type": "number", "format": "double"},
    FieldDescriptor.CPPTYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.CPPTYPE_STRING: {"type": "string"},
}

_WELL_KNOWN: Mapping[str, Schema] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$", "examples": ["90s"]},
    "google.protobuf.FieldMask": {"type": "string", "description": "Field names, separated by commas."},
    "google.protobuf.Struct": {"type": "object", "additionalProperties": True},
    "google.protobuf.Value": {"description": "Any JSON value."},
    "google.protobuf.ListValue": {"type": "array", "items": {}},
    "google.protobuf.Any": {"type": "object", "additionalProperties": True},
    "google.protobuf.Empty": {"type": "object"},
    "google.protobuf.DoubleValue": {"type": ["number", "null"], "format": "double"},
    "google.protobuf.FloatValue": {"type": ["number", "null"], "format": "float"},
    "google.protobuf.Int64Value": {"type": ["string", "null"], "format": "int64"},
    "google.protobuf.UInt64Value": {"type": ["string", "null"], "format": "uint64"},
    "google.protobuf.Int32Value": {"type": ["integer", "null"], "format": "int32"},
    "google.protobuf.UInt32Value": {"type": ["integer", "null"], "format": "int64", "minimum": 0},
    "google.protobuf.BoolValue": {"type": ["boolean", "null"]},
    "google.protobuf.StringValue": {"type": ["string", "null"]},
    "google.protobuf.BytesValue": {"type": ["string", "null"], "contentEncoding": "base64"},
    "google.api.HttpBody": {"type": "string", "format": "binary"},
}


class Schemas:
    """Collects the schemas that a document refers to."""

    def __init__(self, comments: Mapping[str, str]) -> None:
        self._comments = comments
        self._names: dict[str, str] = {}
        self.components: dict[str, Schema] = {}

    def reference(self, type_: Descriptor | EnumDescriptor) -> Schema:
        """A reference to a type's schema, which is added to the components; well-known types stand for themselves.

        Raises ValueError if two types share their name: the document names them without their package.
        """
        if type_.full_name in _WELL_KNOWN:
            return dict(_WELL_KNOWN[type_.full_name])
        name = type_.full_name.removeprefix(f"{type_.file.package}.")
        if self._names.setdefault(name, type_.full_name) != type_.full_name:
            raise ValueError(f"{type_.full_name} and {self._names[name]} need different names")
        if name not in self.components:
            self.components[name] = {}  # taken before it is filled, as messages may hold themselves
            self.components[name] = self.enum(type_) if isinstance(type_, EnumDescriptor) else self.message(type_)
        return {"$ref": f"#/components/schemas/{name}"}

    def message(self, message: Descriptor, without: Collection[str] = ()) -> Schema:
        """The schema of a message as an object, `without` some fields, by proto name."""
        fields = [field for field in message.fields if field.name not in without]
        schema: Schema = {"type": "object"}
        if comment := self._comments.get(message.full_name):
            schema["description"] = comment
        schema["properties"] = {field.json_name: self.field(field) for field in fields}
        required = [field.json_name for field in fields if is_required(field)]
        return schema | ({"required": required} if required else {})

    def enum(self, enum: EnumDescriptor) -> Schema:
        """The schema of an enum: the names of its values."""
        lines = [self._comments.get(enum.full_name, "")]
        for value in enum.values:
            comment = self._comments.get(f"{enum.full_name}.{value.name}")
            lines += [f"`{value.name}`: {comment}"] if comment else []
        schema: Schema = {"type": "string", "enum": [value.name for value in enum.values]}
        description = "\n\n".join(line for line in lines if line)
        return schema | ({"description": description} if description else {})

    def field(self, field: FieldDescriptor) -> Schema:
        """The schema of a field, with its comment and behaviour."""
        schema = self._repeated(field) if field.is_repeated else self.value(field)
        if description := self._description(field):
            schema["description"] = description
        if _behaves(field, "OUTPUT_ONLY"):
            schema["readOnly"] = True
        if _behaves(field, "INPUT_ONLY"):
            schema["writeOnly"] = True
        return schema

    def value(self, field: FieldDescriptor) -> Schema:
        """The schema of one value of a field."""
        type_ = field.message_type or field.enum_type
        if type_:
            return self.reference(type_)
        schema = dict(_SCALARS[field.cpp_type])
        if field.type == FieldDescriptor.TYPE_BYTES:
            schema["contentEncoding"] = "base64"
        if field.GetOptions().Extensions[field_info_pb2.field_info].format == field_info_pb2.FieldInfo.UUID4:
            schema["format"] = "uuid"
        return schema

    def _repeated(self, field: FieldDescriptor) -> Schema:
        message = field.message_type
        if message and message.GetOptions().map_entry:
            return {"type": "object", "additionalProperties": self.value(message.fields_by_name["value"])}
        return {"type": "array", "items": self.value(field)}

    def _description(self, field: FieldDescriptor) -> str:
        lines = [self._comments.get(field.full_name, "")]
        oneof = field.containing_oneof
        if oneof and len(oneof.fields) > 1:
            lines.append(f"At most one of {', '.join(other.json_name for other in oneof.fields)} can be given.")
        if _behaves(field, "IMMUTABLE"):
            lines.append("Cannot be changed later.")
        return " ".join(line for line in lines if line)


def is_required(field: FieldDescriptor) -> bool:
    """Whether a request must give the field."""
    return _behaves(field, "REQUIRED")


def _behaves(field: FieldDescriptor, behavior: str) -> bool:
    behaviors = field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
    return field_behavior_pb2.FieldBehavior.Value(behavior) in behaviors
