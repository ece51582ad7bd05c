"""Gives fields of messages their values, from JSON and from text, by the proto3 JSON mapping.

Stricter than the mapping where leniency hides a mistake: an unknown member, a member given twice (`displayName` beside
`display_name`), two members of one `oneof`, an unknown enum number and a number that is not finite are refused.
Source: https://protobuf.dev/programming-guides/json
"""

import base64
import binascii
import re
from functools import cache
from typing import Any

from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from services.gateway.transcoding.json_text import Unfit
from services.gateway.transcoding.problems import invalid

#: How deep JSON may be nested. One level of a google.protobuf.Struct is three of protobuf, which allows 100.
MAX_DEPTH = 30

#: Messages that JSON writes as one string, number or boolean.
_SCALAR_MESSAGES = {
    "google.protobuf.Timestamp": 'a time such as "2026-01-31T12:00:00Z"',
    "google.protobuf.Duration": 'a duration in seconds such as "90s"',
    "google.protobuf.FieldMask": 'field names such as "displayName,description"',
}
_WRAPPERS = {
    f"google.protobuf.{name}Value"
    for name in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
}
_INTEGER_BITS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,19})")
_FIELD_MASK = re.compile(r"([A-Za-z0-9.]+(,[A-Za-z0-9.]+)*)?")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,399})(\.[0-9]{1,400})?([eE][+-]?[0-9]{1,3})?")
_LARGEST_FLOAT = 3.4028234663852886e38


@cache
def fields_by_any_name(message: Descriptor) -> dict[str, FieldDescriptor]:
    """A message's fields by their proto name and by their JSON name."""
    return {f.json_name: f for f in message.fields} | {f.name: f for f in message.fields}


def is_scalar(field: FieldDescriptor) -> bool:
    """Whether one value of the field is a plain string, number or boolean in JSON."""
    message = field.message_type
    return message is None or message.full_name in _SCALAR_MESSAGES or message.full_name in _WRAPPERS


def is_free_form(field: FieldDescriptor) -> bool:
    """Whether a message field's JSON is not made of its proto fields, as of google.protobuf.Struct."""
    message = field.message_type
    return message is not None and message.file.package == "google.protobuf"


def check_oneof(message: Any, field: FieldDescriptor, path: str) -> None:
    """Raises ProblemError if another member of the field's `oneof` is set."""
    oneof = field.containing_oneof
    other = message.WhichOneof(oneof.name) if oneof else None
    if other and other != field.name:
        raise invalid(path, f"cannot be given beside {other}: only one of the two can be")


def set_from_text(message: Any, field: FieldDescriptor, text: str, path: str) -> None:
    """Sets a scalar field, or adds to a repeated one, from the text of a path or query."""
    value: Any = text
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL or _is_wrapper(field, "Bool"):
        value = {"true": True, "false": False}.get(text, text)
    elif field.enum_type and _INTEGER.fullmatch(text):
        value = int(text)
    check_oneof(message, field, path)
    if not field.is_repeated:
        _set(message, field, value, path, depth=0)
    elif field.message_type:
        _fill(getattr(message, field.name).add(), value, path, depth=0)
    else:
        getattr(message, field.name).append(_scalar(field, value, path))


def set_from_json(message: Any, field: FieldDescriptor, value: Any, path: str, depth: int = 0) -> None:
    """Sets a field from parsed JSON; null leaves it unset."""
    if value is None and not _takes_null(field):
        return
    check_oneof(message, field, path)
    _set(message, field, value, path, depth)


def fill_from_json(message: Any, value: Any, path: str, depth: int = 0) -> None:
    """Sets the fields of a message from a JSON object. What is OUTPUT_ONLY is read and left out."""
    _check_container(value, dict, "an object", path, depth)
    known = fields_by_any_name(message.DESCRIPTOR)
    given: set[str] = set()
    for name, member in value.items():
        field = known.get(name)
        if field is None:
            raise invalid(_join(path, name[:100]), _unknown(message.DESCRIPTOR))
        member_path = _join(path, field.name)
        if field.name in given:
            raise invalid(member_path, f"is given twice, as {field.name} and as {field.json_name}")
        given.add(field.name)
        target = type(message)() if _is_output_only(field) else message
        set_from_json(target, field, member, member_path, depth + 1)


def _set(message: Any, field: FieldDescriptor, value: Any, path: str, depth: int) -> None:
    if field.message_type and field.message_type.GetOptions().map_entry:
        entries = getattr(message, field.name)
        _fill_map(entries, field.message_type, value, path, depth)
    elif field.is_repeated:
        _check_container(value, list, "an array", path, depth)
        elements = getattr(message, field.name)
        for position, element in enumerate(value):
            element_path = f"{path}[{position}]"
            if field.message_type:
                _fill(elements.add(), element, element_path, depth + 1)
            else:
                elements.append(_scalar(field, element, element_path))
    elif field.message_type:
        target = getattr(message, field.name)
        target.SetInParent()
        _fill(target, value, path, depth)
    else:
        setattr(message, field.name, _scalar(field, value, path))


def _fill_map(entries: Any, entry: Descriptor, value: Any, path: str, depth: int) -> None:
    _check_container(value, dict, "an object", path, depth)
    key_field, value_field = entry.fields_by_name["key"], entry.fields_by_name["value"]
    for text, member in value.items():
        key = _map_key(key_field, text, path)
        member_path = f"{path}[{text[:100]}]"
        if value_field.message_type:
            _fill(entries[key], member, member_path, depth + 1)
        else:
            entries[key] = _scalar(value_field, member, member_path)


def _map_key(field: FieldDescriptor, text: str, path: str) -> Any:
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return _scalar(field, {"true": True, "false": False}.get(text, text), path)
    return _scalar(field, text, path)


def _fill(message: Any, value: Any, path: str, depth: int) -> None:
    """Sets a message from the JSON of its type."""
    name = message.DESCRIPTOR.full_name
    if name == "google.protobuf.Struct":
        _fill_struct(message, value, path, depth)
    elif name == "google.protobuf.ListValue":
        _fill_list(message, value, path, depth)
    elif name == "google.protobuf.Value":
        _fill_value(message, value, path, depth)
    elif name == "google.protobuf.Any":
        raise invalid(path, "cannot be given as JSON")
    elif name in _WRAPPERS:
        message.value = _scalar(message.DESCRIPTOR.fields_by_name["value"], value, path)
    elif name in _SCALAR_MESSAGES:
        _fill_from_string(message, value, path)
    else:
        fill_from_json(message, value, path, depth)


def _fill_from_string(message: Any, value: Any, path: str) -> None:
    name = message.DESCRIPTOR.full_name
    wanted = f"must be {_SCALAR_MESSAGES[name]}"
    if not isinstance(value, str):
        raise invalid(path, wanted)
    if name == "google.protobuf.FieldMask" and not _FIELD_MASK.fullmatch(value):
        raise invalid(path, wanted)
    try:
        message.FromJsonString(value)
    except ValueError:
        raise invalid(path, wanted) from None


def _fill_struct(struct: Any, value: Any, path: str, depth: int) -> None:
    _check_container(value, dict, "an object", path, depth)
    for key, member in value.items():
        _check_text(key, path)
        _fill_value(struct.fields[key], member, _join(path, key[:100]), depth + 1)


def _fill_list(values: Any, value: Any, path: str, depth: int) -> None:
    _check_container(value, list, "an array", path, depth)
    for position, element in enumerate(value):
        _fill_value(values.values.add(), element, f"{path}[{position}]", depth + 1)


def _fill_value(message: Any, value: Any, path: str, depth: int) -> None:
    if value is None:
        message.null_value = 0
    elif isinstance(value, bool):
        message.bool_value = value
    elif isinstance(value, int | float):
        message.number_value = _finite(value, path)
    elif isinstance(value, str):
        message.string_value = _check_text(value, path)
    elif isinstance(value, list):
        message.list_value.SetInParent()
        _fill_list(message.list_value, value, path, depth)
    else:
        message.struct_value.SetInParent()
        _fill_struct(message.struct_value, value, path, depth)


def _scalar(field: FieldDescriptor, value: Any, path: str) -> Any:
    """A value of a scalar field's own type; raises ProblemError that says what would be one."""
    if isinstance(value, Unfit):
        raise invalid(path, value.description)
    if field.cpp_type in _INTEGER_BITS:
        return _integer(value, *_INTEGER_BITS[field.cpp_type], path)
    if field.cpp_type in {FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT}:
        return _float(field, value, path)
    if field.enum_type:
        return _enum(field.enum_type, value, path)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        if not isinstance(value, bool):
            raise invalid(path, "must be true or false")
        return value
    if not isinstance(value, str):
        raise invalid(path, "must be a string")
    return _bytes(value, path) if field.type == FieldDescriptor.TYPE_BYTES else _check_text(value, path)


def _integer(value: Any, least: int, most: int, path: str) -> int:
    as_text = isinstance(value, str) and _INTEGER.fullmatch(value)
    as_float = isinstance(value, float) and value.is_integer()
    number = int(value) if as_text or as_float else value
    if isinstance(number, bool) or not isinstance(number, int) or not least <= number <= most:
        raise invalid(path, f"must be a whole number from {least} to {most}")
    return number


def _float(field: FieldDescriptor, value: Any, path: str) -> float:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise invalid(path, "must be a number")
    number = _finite(value, path)
    if field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT and abs(number) > _LARGEST_FLOAT:
        raise invalid(path, f"must be a number from -{_LARGEST_FLOAT} to {_LARGEST_FLOAT}")
    return number


def _finite(value: float, path: str) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = float("inf")
    if number in {float("inf"), float("-inf")}:
        raise invalid(path, "must be a number below 1.8e308")
    return number


def _enum(enum: EnumDescriptor, value: Any, path: str) -> int:
    if isinstance(value, str) and value in enum.values_by_name:
        return int(enum.values_by_name[value].number)
    if isinstance(value, int) and not isinstance(value, bool) and value in enum.values_by_number:
        return value
    raise invalid(path, f"must be one of {', '.join(enum.values_by_name)}")


def _bytes(value: str, path: str) -> bytes:
    text = value.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise invalid(path, "must be bytes in base64") from None


def _check_text(value: str, path: str) -> str:
    """Returns the text; raises ProblemError if a database or protobuf cannot hold it."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise invalid(path, "may not hold half of a surrogate pair") from None
    if "\0" in value:
        raise invalid(path, "may not hold NUL")
    return value


def _check_container(value: Any, kind: type, name: str, path: str, depth: int) -> None:
    if isinstance(value, Unfit):
        raise invalid(path, value.description)
    if not isinstance(value, kind):
        raise invalid(path, f"must be {name}")
    if depth >= MAX_DEPTH:
        raise invalid(path, f"is nested deeper than {MAX_DEPTH} levels")


def _takes_null(field: FieldDescriptor) -> bool:
    message = field.message_type
    return message is not None and not field.is_repeated and message.full_name == "google.protobuf.Value"


def _is_wrapper(field: FieldDescriptor, name: str) -> bool:
    message = field.message_type
    return message is not None and message.full_name == f"google.protobuf.{name}Value"


def _is_output_only(field: FieldDescriptor) -> bool:
    behaviors = field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
    return field_behavior_pb2.OUTPUT_ONLY in behaviors


def _unknown(message: Descriptor) -> str:
    return f"is not known; there are {', '.join(f.json_name for f in message.fields) or 'no fields'}"


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
